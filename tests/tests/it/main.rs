//! Everything together, on one machine: local mode with models that keep a journal, and clients that do too.
//!
//! One test binary, so that it is linked once. A file per promise; what they share is the crate's library.
#![expect(
    clippy::unwrap_used,
    reason = "clippy.toml's exception for tests only sees functions that are marked as tests"
)]

mod alone;
mod cold;
mod crashes;
mod deaths;
mod ends;
mod input;
mod limits;
mod node;
mod ports;
mod scaling;
mod streams;
mod zero;

use std::path::Path;

use integration::{Programs, Scene};

/// A place for one test.
fn scene() -> Scene {
    Scene::new(Programs::beside(Path::new(env!(
        "CARGO_BIN_EXE_tiny-model"
    ))))
}
