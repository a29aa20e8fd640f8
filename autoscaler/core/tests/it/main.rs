//! Behaviour seen from outside: properties and tables. Recorded cases of Knative's own code are replayed by the crate `vectors`.

mod decider;
mod operations;
mod properties;
#[cfg(feature = "sim")]
mod simulated;
mod starting;
mod support;
mod zero;
