//! What the activator, the autoscaler and the command line know of Kubernetes in common: names, the meaning of objects, and
//! access to the API server that cannot hang.
//!
//! The meaning of objects is pure: objects in, small views out. The sidecar carries none of this.

pub mod claim;
pub mod names;

pub use claim::Claim;
