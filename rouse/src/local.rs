//! Local mode: ordinary Deployment YAML run on one machine, replicas as child processes.
//!
//! The same activator, queue-proxy and autoscaler libraries as on a cluster, behind the same seams; what is replaced is
//! Kubernetes: [`scale`](self) is a number in memory, the kubelet is the [`supervisor`], and there is no kube-proxy, so the
//! activator stays in the path of every request (what Knative calls a target burst capacity of -1).

pub mod logs;
pub mod manifest;
mod plan;
mod ports;
pub mod process;
mod run;
mod scale;
pub mod shim;
pub mod status;
pub mod supervisor;
mod watch;

pub use plan::PlanError;
pub use run::{Local, LocalWorkload, Options, StartError};
