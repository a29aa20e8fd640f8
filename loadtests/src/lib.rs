//! An HTTP load tester whose numbers hold.
//!
//! - The load of an open loop is planned beforehand ([`plan`]), and latency counts from the planned instant: a server that
//!   stalls cannot hide the requests that were due meanwhile.
//! - The tool measures itself: pacing lag has its own histogram and a verdict ([`report::Pacing`]).
//! - Errors are told apart by kind ([`record::ErrorKind`]), dropped requests are errors, and nothing is retried that the
//!   server may have seen.
//! - A [`journal`] tells the fate of every request by its id, so that lost and doubled ones can be found.
//! - Reports can be held to objectives ([`slo`]), added up ([`mod@merge`]) and compared ([`compare`]); two servers are compared in one run slice by slice ([`ab`]).
//!
//! [`run`] is the whole engine; [`cli`] is the command around it. The crate knows nothing of the rest of the project and
//! works against any HTTP server. It speaks HTTP/1.1 and HTTP/2, with TLS or without, listens to
//! streams of events and of tokens, calls gRPC and sends messages of WebSocket ([`protocol`]). Not here yet: more than one request at a
//! time on an HTTP/2 connection.

pub mod ab;
pub mod args;
mod bootstrap;
mod bound;
pub mod check;
pub mod cli;
mod client;
pub mod cold;
pub mod compare;
pub mod config;
mod crew;
mod dispatch;
mod error;
pub mod export;
mod flight;
pub mod html;
pub mod journal;
mod listen;
mod live;
pub mod merge;
mod pace;
pub mod payload;
pub mod plan;
pub mod progress;
pub mod protocol;
pub mod ready;
pub mod record;
pub mod report;
mod run;
pub mod series;
pub mod slo;
pub mod streams;
pub mod table;
pub mod tls;
pub mod unit;
mod worker;

pub use config::Config;
pub use error::Error;
pub use progress::Progress;
pub use report::Report;
pub use run::run;
