//! What the activator, the autoscaler and the command line know of Kubernetes in common: names, the meaning of objects, and
//! access to the API server that cannot hang.
//!
//! The meaning of objects is pure: objects in, small views out. The sidecar carries none of this.

pub mod adopted;
pub mod claim;
pub mod client;
pub mod labels;
pub mod leader;
pub mod leaving;
pub mod names;
pub mod pod;
pub mod ports;
pub mod scale;
pub mod watch;
pub mod workload;

pub use adopted::{Adopted, AdoptedPort};
pub use claim::Claim;
pub use labels::Labels;
pub use pod::{PodView, Trouble};
pub use watch::Cache;
pub use workload::WorkloadView;
