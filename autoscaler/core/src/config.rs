//! Cluster-wide settings: the keys of Knative's `config-autoscaler`, under the same names, ranges and defaults.
//!
//! Source: `pkg/autoscaler/config/{config.go,autoscalerconfig/autoscalerconfig.go}`.

use std::time::Duration;

use crate::{BurstCapacity, Replicas};

mod keys;
mod map;
mod parse;

pub use keys::{SETTINGS, Setting};
pub use map::ConfigError;

/// Settings for all workloads; annotations override many of them. A field is named after its key.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct ClusterConfig {
    /// The share of its total that a replica should carry, in (0, 1]. Key `container-concurrency-target-percentage`,
    /// where a number above 1 is a percentage.
    pub container_concurrency_target_fraction: f64,
    /// Requests in flight that a replica can carry if nothing else says so.
    pub container_concurrency_target_default: f64,
    /// Requests per second that a replica can carry if nothing else says so.
    pub requests_per_second_target_default: f64,
    /// Room demanded beyond the present load, in requests.
    pub target_burst_capacity: BurstCapacity,
    /// The span of the long average.
    pub stable_window: Duration,
    /// The span of the short average, in percent of the long one.
    pub panic_window_percentage: f64,
    /// Panic starts at this percentage of the ready replicas.
    pub panic_threshold_percentage: f64,
    /// Most replicas after one decision, as a multiple of the ready ones.
    pub max_scale_up_rate: f64,
    /// Fewest replicas after one decision: the ready ones divided by this.
    pub max_scale_down_rate: f64,
    /// Whether a workload may have no replicas at all.
    pub enable_scale_to_zero: bool,
    /// How long a workload stays idle before its last replica goes.
    pub scale_to_zero_grace_period: Duration,
    /// As the grace period; the longer of the two counts.
    pub scale_to_zero_pod_retention_period: Duration,
    /// Only after this long do fewer wanted replicas take effect.
    pub scale_down_delay: Duration,
    /// The class of workloads that name none. Only `kpa.autoscaling.knative.dev` exists here.
    pub pod_autoscaler_class: String,
    /// Requests that one activator is trusted to hold at once.
    pub activator_capacity: f64,
    /// Replicas that a wake asks for at least.
    pub initial_scale: Replicas,
    /// Whether an initial scale of 0 is allowed.
    pub allow_zero_initial_scale: bool,
    /// Fewest replicas.
    pub min_scale: Replicas,
    /// Most replicas; none (0) is no limit.
    pub max_scale: Option<Replicas>,
    /// The largest max scale that a workload may ask for; none (0) is no limit, and with a limit every workload has a max scale.
    pub max_scale_limit: Option<Replicas>,
}

/// Knative's defaults.
impl Default for ClusterConfig {
    fn default() -> Self {
        Self {
            container_concurrency_target_fraction: 0.7,
            container_concurrency_target_default: 100.0,
            requests_per_second_target_default: 200.0,
            target_burst_capacity: BurstCapacity::Requests(211.0),
            stable_window: Duration::from_mins(1),
            panic_window_percentage: 10.0,
            panic_threshold_percentage: 200.0,
            max_scale_up_rate: 1000.0,
            max_scale_down_rate: 2.0,
            enable_scale_to_zero: true,
            scale_to_zero_grace_period: Duration::from_secs(30),
            scale_to_zero_pod_retention_period: Duration::ZERO,
            scale_down_delay: Duration::ZERO,
            pod_autoscaler_class: "kpa.autoscaling.knative.dev".to_owned(),
            activator_capacity: 100.0,
            initial_scale: Replicas::ONE,
            allow_zero_initial_scale: false,
            min_scale: Replicas::ZERO,
            max_scale: None,
            max_scale_limit: None,
        }
    }
}
