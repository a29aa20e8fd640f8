//! Admission: what the API server asks before it takes a pod, a workload, a Service or an autoscaler.
//!
//! [`review()`] is a pure function of the question, the [`Settings`] and what a [`Lookup`] knows; [`serve`] puts HTTPS in front of
//! it and [`certificate`] keeps the certificate that this needs. The rules by which the API server asks are in the manifests.

pub mod annotations;
pub mod certificate;
pub mod lookup;
pub mod review;
pub mod serve;
pub mod settings;

pub use lookup::{Adopted, AdoptedPort, Lookup, Nothing};
pub use review::{Door, Malformed, review};
pub use settings::Settings;
