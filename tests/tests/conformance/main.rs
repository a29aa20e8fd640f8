//! The data path under tools that no one here wrote. Run by `cargo xtask conformance`, which builds the tools and says by the
//! environment where they are; docs/reference/conformance.md tells what comes of it.
//!
//! Both listeners are tried: a queue-proxy in front of a model, and an activator in front of a queue-proxy, each as its real
//! executable with flags alone. What a tool finds must be exactly what is written down as expected, with the reason: a
//! finding that is not in the list fails, and so does an entry of the list that is not found any more.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "clippy.toml's exception for tests only sees functions that are marked as tests; figures are printed"
)]

mod expected;
mod grpc;
mod h2spec;
mod place;
mod smuggling;
mod websocket;

use place::Place;
