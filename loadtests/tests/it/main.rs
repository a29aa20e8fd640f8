//! The load tester against real sockets. Times are real: nothing here runs on paused time.
#![expect(clippy::unwrap_used, reason = "a test may stop where its set-up fails")]

mod command;
mod errors;
mod http1;
mod journal;
mod live;
mod page;
mod requests;
mod results;
mod schedule;
mod schema;
mod server;
mod shards;
