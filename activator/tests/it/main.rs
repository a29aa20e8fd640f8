//! The activator over real sockets: raw clients on one side, real and faked queue-proxies on the other.

#![cfg(test)]

mod abuse;
mod admission;
mod answers;
mod bed;
mod bodies;
mod bounce;
mod capacity;
mod cold;
mod failing;
mod fake;
mod framing;
mod gone;
mod grpc;
mod h2;
mod heartbeats;
mod http1;
mod in_path;
mod limits;
mod model;
mod openai;
mod operations;
#[cfg(feature = "otlp")]
mod otlp;
#[expect(dead_code, reason = "the queue-proxy's tests need more of it")]
#[path = "../../../queue-proxy/tests/it/pki.rs"]
mod pki;
mod placeholders;
mod ports;
mod probes;
mod request_log;
mod retire;
mod stat;
mod stop;
mod tls;
mod websocket;
mod zero;
