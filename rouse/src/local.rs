//! Local mode: ordinary Deployment YAML run on one machine, replicas as child processes.

pub mod logs;
pub mod manifest;
pub mod process;
pub mod shim;
pub mod status;
