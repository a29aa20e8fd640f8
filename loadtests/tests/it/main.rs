//! The load tester against real sockets. Times are real: nothing here runs on paused time.
#![expect(clippy::unwrap_used, reason = "a test may stop where its set-up fails")]

mod ab;
mod cold;
mod command;
mod errors;
mod grpc;
mod http1;
mod journal;
mod pacing;
mod ready;
mod requests;
mod results;
mod schedule;
mod schema;
mod server;
mod streams;
mod tls;
mod websocket;
