//! The queue-proxy over real sockets: raw clients on one side, small models of our own on the other.
#![expect(clippy::unwrap_used, reason = "a test may stop where its set-up fails")]

mod abuse;
mod admission;
mod age;
mod bounce;
mod breaker;
mod drain;
mod expect;
mod framing;
mod fresh;
mod gone;
mod h2;
mod hygiene;
mod model;
mod model_tls;
mod openai;
mod operations;
mod pki;
mod ports;
mod program;
mod raw;
mod readiness;
mod request_log;
mod responses;
mod restart;
mod rig;
mod slow;
mod stat;
mod streaming;
mod tickets;
mod timeouts;
mod tls;
mod trace;
mod websocket;
