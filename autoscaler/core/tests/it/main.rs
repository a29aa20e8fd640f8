//! Behaviour seen from outside: properties and tables. Recorded cases of Knative's own code are replayed by the crate `vectors`.

mod decider;
mod properties;
mod support;
mod zero;
