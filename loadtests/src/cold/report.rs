//! What a run of `rouse-load cold` found, as other programs read it: the part `cold` of a report.

use crate::report::Percentiles;
use serde::{Deserialize, Serialize};

/// Wakes that a report tells one by one; further ones are in the sums alone.
pub const MOST_WAKES: usize = 1_000;
/// Moments at which a report tells replicas; of a longer run every second, fourth, .. one is kept.
pub const MOST_MOMENTS: usize = 2_000;

/// Cold starts of a run. Durations and moments are in seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cold {
    /// `single`, `burst`, `storm`, `rate` or `trace`.
    pub mode: String,
    /// What was asked for beside that.
    #[serde(default)]
    pub settings: Settings,
    /// Requests by what is known of them.
    pub classes: Vec<Class>,
    /// Each phase over the proven cold requests that have it, in the order in which they come.
    pub phases: Vec<PhaseSum>,
    /// The same by whose time it was.
    pub owners: Vec<OwnerSum>,
    /// The requests that were not warm, one by one, in the order in which they were planned: at most [`MOST_WAKES`].
    pub wakes: Vec<Wake>,
    /// Requests that were not warm and are not in `wakes`.
    pub wakes_omitted: u64,
    /// Requests that were to be cold and found no target at zero.
    #[serde(default)]
    pub starved: u64,
    /// Replicas over time, where they are known: at most [`MOST_MOMENTS`].
    pub replicas: Vec<Moment>,
}

/// What was asked for. What a mode does not use is null.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// What was woken.
    pub targets: Vec<TargetSettings>,
    /// What was not, for other requests.
    pub warm: Option<TargetSettings>,
    /// Whether the tool scaled the Deployments itself.
    pub scale: bool,
    /// Wakes of each target.
    pub wakes: Option<u32>,
    /// Requests at once.
    pub at_once: Option<u32>,
    /// After so many seconds without a request a target was thought to be at zero.
    pub idle: Option<f64>,
    /// Seconds for which it was waited for zero.
    pub zero_timeout: f64,
    /// The share of requests that was to be cold.
    pub cold_share: Option<f64>,
    /// Seed of what was random.
    pub seed: u64,
}

/// One target.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TargetSettings {
    /// What it is called.
    pub name: String,
    /// Where requests went.
    pub url: String,
    /// Its Deployment, if it was watched: `namespace/name`.
    pub deployment: Option<String>,
}

/// What is known of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The pod that answered began after the request was planned.
    Cold,
    /// As that, and its node had to pull an image first.
    FirstOnNode,
    /// The pod that answered was on its way when the request was planned.
    Joined,
    /// Nothing tells when the pod that answered began.
    Unproven,
    /// The pod that answered had been ready before, or the request was for what is to be warm.
    Warm,
    /// It was no success.
    Failed,
}

/// All requests of one kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Class {
    /// Which.
    pub kind: Kind,
    /// From the planned instant to the end of the answer.
    pub latency: Percentiles,
}

/// Whose time a phase is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Owner {
    /// This tool's: sending late.
    Tool,
    /// Of whoever decides that a replica is needed and sends the request on: Rouse, or another autoscaler.
    Control,
    /// The API server's.
    ApiServer,
    /// Kubernetes': scheduler, kubelet, network, images.
    Kubernetes,
    /// The model's: its start and its answer.
    Model,
    /// Nobody's that could be told apart.
    Unknown,
}

/// One phase of many requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PhaseSum {
    /// Its name, such as `patch_sent`.
    pub name: String,
    /// Whose it is.
    pub owner: Owner,
    /// How long it took.
    pub latency: Percentiles,
    /// Its part of all the time of these requests, from 0 to 1.
    pub share: f64,
}

/// All phases of one owner.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OwnerSum {
    /// Who.
    pub owner: Owner,
    /// The sum of its phases of each request.
    pub latency: Percentiles,
    /// Its part of all the time of these requests, from 0 to 1.
    pub share: f64,
}

/// One request that was not warm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Wake {
    /// Which workload it was for.
    pub workload: String,
    /// When it was planned, from the start of the run on.
    pub planned: f64,
    /// From then to the end of the answer, or to the failure.
    pub latency: f64,
    /// What is known of it.
    pub kind: Kind,
    /// Why it is that kind, for people.
    pub reason: String,
    /// Status of the answer, if there was one.
    pub status: Option<u16>,
    /// Who answered, if it was told.
    pub pod: Option<String>,
    /// Its phases, which follow each other without a gap and fill its latency; empty if none is known.
    pub phases: Vec<Phase>,
}

/// One phase of one request, in seconds from its planned instant on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// Its name, such as `patch_sent`.
    pub name: String,
    /// Whose it is.
    pub owner: Owner,
    /// Its start.
    pub from: f64,
    /// Its end.
    pub to: f64,
}

/// Replicas of a workload at a moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// From the start of the run on.
    pub at: f64,
    /// Which workload.
    pub workload: String,
    /// Replicas that are wanted.
    pub wanted: u32,
    /// Replicas that are ready.
    pub ready: u32,
    /// Requests that wait for a replica, where that is known.
    pub held: Option<u64>,
}

impl Cold {
    /// All requests of a kind, if there are any.
    pub fn class(&self, kind: Kind) -> Option<&Class> {
        self.classes.iter().find(|class| class.kind == kind)
    }
}
