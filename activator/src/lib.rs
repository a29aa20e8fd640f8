//! The activator: holds requests while a workload has no pod to give them to, wakes it, and hands them out at the rate
//! the pods can take.
//!
//! What must stay true: a request is held or has a pod, never both, and leaves with exactly one answer; a request that
//! no pod has admitted may be sent to another pod, an admitted one never; what is held is bounded in count, bytes and
//! time; one workload's crowd costs another nothing but CPU; the scale is only ever written from 0 to N.
//!
//! Which pods exist comes in through [`Endpoints`], waking goes out through [`Scale`]: Kubernetes, local mode and tests
//! stand behind these two.

pub mod access;
pub mod admin;
pub mod args;
mod conductor;
pub mod config;
mod forward;
pub mod hold;
pub mod kubernetes;
mod pod;
mod rescue;
mod run;
pub mod seam;
mod sync;
pub mod timeline;
mod workload;

pub use access::{Access, Lookups, SourceError, Sources};
pub use config::{Config, InPath, WorkloadConfig};
#[doc(hidden)]
pub use rescue::contract;
pub use run::{Activator, StartError, listen, run};
pub use seam::{Barred, BoxFuture, Endpoint, Endpoints, Failed, Scale, WakeError, WakeOutcome};
pub use workload::Workload;
