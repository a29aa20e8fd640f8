//! The load tester against real sockets. Times are real: nothing here runs on paused time.
#![expect(clippy::unwrap_used, reason = "a test may stop where its set-up fails")]

mod ab;
mod cold;
mod command;
mod errors;
mod grpc;
mod http1;
mod http2;
mod journal;
mod live;
mod pacing;
mod page;
mod ready;
mod requests;
mod results;
mod schedule;
mod schema;
mod server;
mod shards;
mod streams;
mod tls;
mod websocket;
