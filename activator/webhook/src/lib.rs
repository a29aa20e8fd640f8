//! Admission: what the API server asks before it takes a pod, a workload, a Service or an autoscaler.
//!
//! [`review`] is a pure function of the question, the [`Settings`] and what a [`Lookup`] knows. The rules by
//! which the API server asks are in the manifests.

pub mod annotations;
pub mod lookup;
pub mod review;
pub mod settings;

pub use lookup::{Adopted, AdoptedPort, Lookup, Nothing};
pub use review::{Door, Malformed, review};
pub use settings::Settings;
