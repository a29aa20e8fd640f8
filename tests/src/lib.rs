//! What the tests across programs share: a place where local mode runs with tiny models, clients that keep account of every
//! request, and the comparison of their account with the model's own.
//!
//! Nothing here waits for a length of time; everything waits for a condition, with a limit. Failing is panicking.
#![expect(
    clippy::missing_panics_doc,
    clippy::print_stdout,
    reason = "a harness fails a test by panicking, and says then what it has seen"
)]

pub mod client;
pub mod deployment;
pub mod grpc;
pub mod ledger;
pub mod load;
pub mod process;
pub mod programs;
pub mod scene;
pub mod wait;

pub use deployment::Deployment;
pub use ledger::{Fate, Ledger, Told};
pub use programs::Programs;
pub use scene::{Running, Scene};
