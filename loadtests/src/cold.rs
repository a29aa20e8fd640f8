//! Cold starts: requests to what is scaled to zero, each told apart by proof, and where their time went.
//!
//! - [`Plan`] is what was asked for, [`run`] does it. [`report`] is what it comes to.
//! - A request counts as cold only if something proves that the pod which answered began after it was planned: the answer's own
//!   timeline (Rouse's header `rouse-timing`), or what the API server tells of the Deployment's pods. What nothing proves is listed
//!   apart, and so are wakes for which a node had to pull an image first.
//! - Phases come from the client always, from Rouse's timeline where there is one, and from watches of the Deployment, its pods and
//!   their events where there is a kubeconfig: so plain Deployments, Knative, KEDA's HTTP add-on and Rouse are measured alike.
//!
//! `proof`, `timeline`, `timing` and `sums` are pure; `call`, `cluster` and `drive` have the clocks and sockets.

mod args;
mod board;
mod call;
mod cluster;
mod drive;
mod pods;
mod proof;
pub mod report;
mod show;
mod sums;
mod timeline;
mod timing;

pub(crate) use args::ColdArgs;
pub use args::{DeploymentName, Mode, Plan, Target};
pub use drive::{Outcome, run};

use crate::record::ErrorKind;
use std::time::Duration;
use timing::Timing;

/// What was known of a workload when a request for it was planned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Before {
    /// The API server had just been asked, and had no pod of it.
    Zero,
    /// It is what is to be warm.
    Warm,
    /// Nothing that could prove something.
    #[default]
    Unknown,
}

/// One request and its answer. Times count from the start of the run.
#[derive(Clone, Debug, Default)]
struct Observed {
    /// Which target.
    workload: usize,
    before: Before,
    planned: Duration,
    /// When the tool turned to it.
    begun: Duration,
    /// Where this tool had scaled it up: when its address took connections.
    reachable: Option<Duration>,
    /// When it had a connection.
    sent: Option<Duration>,
    /// When the head of its answer was here.
    head: Option<Duration>,
    done: Duration,
    status: Option<u16>,
    error: Option<ErrorKind>,
    /// Of the error, in words.
    reason: Option<String>,
    served_by: Option<String>,
    timing: Option<Timing>,
    body_bytes: u64,
}
