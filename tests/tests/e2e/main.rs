//! Everything together on a real cluster: control plane, kubelet and container runtime. Run by `cargo xtask e2e`, which installs
//! Rouse first and runs this inside the cluster's network.
//!
//! A test belongs to `alone` or to `together`, which says whether others may run beside it. Clients and models keep a journal
//! of every request; a test compares the two.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "clippy.toml's exception for tests only sees functions that are marked as tests; figures are printed"
)]

mod activators;
mod alone;
mod audit;
mod iris;
mod processes;
mod space;
mod talk;
mod together;

use space::Space;
