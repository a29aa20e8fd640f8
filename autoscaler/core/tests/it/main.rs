//! Behaviour seen from outside: recorded vectors, properties, and tables.
//!
//! `vectors/*.json` were recorded from Knative's own code; each reader reads every case of every group and fails on a
//! group it does not know. What they prove is described in the files' `about`.

mod annotations;
mod decide;
mod decider;
mod operations;
mod properties;
mod sampling;
#[cfg(feature = "sim")]
mod simulated;
mod starting;
mod support;
mod window;
mod zero;
