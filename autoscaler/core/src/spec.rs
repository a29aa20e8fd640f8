//! What one workload asks for, with every value resolved.
//!
//! A [`TargetSpec`] is the meeting point: annotations and cluster defaults go in (`annotations`), decisions come out
//! (`Decider`). It holds values, not texts, and knows nothing of where they came from.

use std::time::Duration;

use crate::{ClusterConfig, Replicas, annotations};

/// The measurement that is scaled on (annotation `metric`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "snake_case")
)]
pub enum Metric {
    /// Requests in flight, averaged over each second.
    #[default]
    Concurrency,
    /// Requests per second.
    Rps,
}

/// How a window becomes one number (annotation `metric-aggregation-algorithm`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "kebab-case")
)]
pub enum Aggregation {
    /// Every second counts the same.
    #[default]
    Linear,
    /// Each second counts less than the next newer one.
    WeightedExponential,
}

/// How many requests beyond the present ones the pods must have room for before traffic may go to them without an
/// activator in between (annotation `target-burst-capacity`).
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "snake_case")
)]
pub enum BurstCapacity {
    /// No room is ever enough; written as -1.
    Unlimited,
    /// This many requests. At 0 only a workload without pods needs an activator.
    Requests(f64),
}

impl BurstCapacity {
    /// Reads the number of the annotation: anything negative is unlimited.
    pub fn from_f64(requests: f64) -> Self {
        if requests < 0.0 {
            Self::Unlimited
        } else {
            Self::Requests(requests)
        }
    }
}

/// Where this crate can do as Knative does or better. [`Policy::default`] is ours, [`Policy::KNATIVE`] reproduces
/// Knative, for comparing the two on the same input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each field is one departure, on or off by itself"
)]
pub struct Policy {
    /// A changed scale-down delay takes effect at once. Knative keeps the delay that a decider was created with.
    pub delay_follows_spec: bool,
    /// A decider that starts with more than one ready pod starts in panic mode, so that nothing is taken away for one
    /// stable window after a restart or a change of leader. Source: `pkg/autoscaler/scaling/autoscaler.go`.
    pub born_in_panic: bool,
    /// When the newest sample is exactly one window old, that is already no data. Knative takes it as a measured zero
    /// for one second, so a failing scrape can halve a busy workload.
    pub silence_is_no_data: bool,
    /// Pods that are starting count as capacity, and requests that wait as a one-off to be cleared, not as so much more
    /// load each second (annotation `rouse.dev/cold-start-aware`). Knative knows ready pods only.
    pub cold_start_aware: bool,
    /// In annotations and settings, what is not a finite number is not a number. Knative reads `NaN` and infinities and compares
    /// with `<` and `>` alone, so that `NaN` is within every range. Source: `pkg/apis/autoscaling/annotation_validation.go`,
    /// `pkg/autoscaler/config/config.go`.
    pub finite_numbers_only: bool,
    /// A sample that cannot be a measurement (negative, not finite, absurdly large) is refused. Knative adds up what it is
    /// told, so that one pod's nonsense is everyone's. Source: `pkg/autoscaler/metrics/collector.go`.
    pub sound_samples_only: bool,
    /// Pods are asked for their load whatever the burst capacity. Knative does not scrape a workload whose burst capacity is
    /// unlimited, since all its requests pass the activators; silence is zero load then. Source:
    /// `pkg/reconciler/autoscaling/kpa/kpa.go`, `pkg/autoscaler/metrics/collector.go`.
    pub scrapes_always: bool,
    /// Fleets of up to so many pods are asked in full, larger ones by a sample. Source: `pkg/autoscaler/metrics/sample_size.go`.
    pub asks_all_up_to: u32,
    /// A sample counts if half of the pods answer that it wanted. Knative discards it unless as many answered as it wanted, for
    /// which it may ask others instead. Source: `pkg/autoscaler/metrics/stats_scraper.go`.
    pub half_a_sample_counts: bool,
}

impl Policy {
    /// Exactly as Knative.
    pub const KNATIVE: Self = Self {
        delay_follows_spec: false,
        born_in_panic: true,
        silence_is_no_data: false,
        cold_start_aware: false,
        finite_numbers_only: false,
        sound_samples_only: false,
        scrapes_always: false,
        asks_all_up_to: 3,
        half_a_sample_counts: false,
    };
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            delay_follows_spec: true,
            born_in_panic: true,
            silence_is_no_data: true,
            cold_start_aware: true,
            finite_numbers_only: true,
            sound_samples_only: true,
            scrapes_always: true,
            asks_all_up_to: 64,
            half_a_sample_counts: true,
        }
    }
}

/// What is done for a workload's clients where its annotations ask for it. Scaling does not depend on any of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct OptIns {
    /// Paths whose requests are no load (`rouse.dev/probe-paths`).
    pub probe_paths: Vec<String>,
    /// Status with which those are answered while no pod is ready; none: they are held (`rouse.dev/probe-answer`).
    pub probe_answer: Option<u16>,
    /// How long a request for an event stream is held before it gets a sign of life, and how often from then on; none: never
    /// (`rouse.dev/sse-heartbeat`).
    pub sse_heartbeat: Option<Duration>,
    /// Title of the page that browsers get while no pod is ready; none: they get no page (`rouse.dev/placeholder`,
    /// `rouse.dev/placeholder-title`).
    pub placeholder: Option<String>,
    /// Whether errors of our own have the form of OpenAI's below `/v1/` (`rouse.dev/openai-errors`).
    pub openai_errors: bool,
}

/// Everything that scaling one workload depends on, resolved from annotations and cluster defaults.
///
/// Unless noted, a field carries the name of its annotation under `autoscaling.knative.dev/`.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct TargetSpec {
    /// What is scaled on.
    pub metric: Metric,
    /// The load one replica should carry: `total` times the utilization, at least 0.01. In units of `metric`.
    pub target: f64,
    /// The load one replica can carry. In units of `metric`.
    pub total: f64,
    /// Room demanded beyond the present load.
    pub target_burst_capacity: BurstCapacity,
    /// The span of the average that decides in stable mode, and how long panic mode lasts at least.
    pub stable_window: Duration,
    /// The span of the short average: a percentage of the stable window, in whole seconds, at least one.
    pub panic_window: Duration,
    /// Panic starts when the short average asks for this many times the ready replicas. A ratio: 2.0 is 200 %.
    pub panic_threshold: f64,
    /// How a window becomes one number.
    pub aggregation: Aggregation,
    /// Most replicas after one decision, as a multiple of the ready ones. Cluster-wide.
    pub max_scale_up_rate: f64,
    /// Fewest replicas after one decision: the ready ones divided by this. Cluster-wide.
    pub max_scale_down_rate: f64,
    /// Fewest replicas.
    pub min_scale: Replicas,
    /// Most replicas; none means no limit.
    pub max_scale: Option<Replicas>,
    /// Replicas that a wake asks for and that are kept until that many were ready once.
    pub initial_scale: Replicas,
    /// Fewest replicas whenever there are any.
    pub activation_scale: Option<Replicas>,
    /// Only after this long do fewer wanted replicas take effect; zero is at once.
    pub scale_down_delay: Duration,
    /// Whether zero replicas are allowed at all (`enable-scale-to-zero`). Cluster-wide.
    pub enable_scale_to_zero: bool,
    /// How long a workload stays idle before its last replica goes. Cluster-wide.
    pub scale_to_zero_grace_period: Duration,
    /// As the grace period, for one workload; the longer of the two counts.
    pub pod_retention: Duration,
    /// Requests that one activator is trusted to hold at once. Cluster-wide.
    pub activator_capacity: f64,
    /// Most requests one pod serves at once, 0 for no limit (`rouse.dev/container-concurrency`).
    pub container_concurrency: u32,
    /// Most requests one activator holds for this workload (`rouse.dev/max-held`).
    pub max_held: u32,
    /// Longest wait for a first pod (`rouse.dev/max-cold-start`).
    pub max_cold_start: Duration,
    /// In what time waiting requests should be cleared once pods are there (`rouse.dev/backlog-clear-time`).
    pub backlog_clear_time: Duration,
    /// How long a workload stays after a start before it may go to zero (`rouse.dev/min-stay`); none is as long as the
    /// start took.
    pub min_stay: Option<Duration>,
    /// Age at which a sidecar ends clients' connections, none for no limit (`rouse.dev/max-connection-age`).
    pub max_connection_age: Option<Duration>,
    /// Longest time of a whole request at a pod, none for no limit (`rouse.dev/request-timeout`).
    pub request_timeout: Option<Duration>,
    /// Longest time until a model begins its answer, none for no limit (`rouse.dev/response-start-timeout`).
    pub response_start_timeout: Option<Duration>,
    /// Longest silence of a model that has a request, none for no limit (`rouse.dev/idle-timeout`).
    pub idle_timeout: Option<Duration>,
    /// Whether pods hand requests on that would wait there for long (`rouse.dev/bounce`).
    pub bounce: bool,
    /// Requests at an unlimited pod above which it hands further ones on, none for no limit (`rouse.dev/soft-limit`).
    pub soft_limit: Option<u32>,
    /// Path that answers once the model is ready (`rouse.dev/ready-path`).
    pub ready_path: Option<String>,
    /// What is done for clients beside serving them.
    pub opt_ins: OptIns,
    /// Which of Knative's habits are kept.
    pub policy: Policy,
}

/// What a workload without any annotation gets from Knative's defaults.
impl Default for TargetSpec {
    fn default() -> Self {
        annotations::resolve(&annotations::Annotations::new(), &ClusterConfig::default())
    }
}

impl TargetSpec {
    /// The fewest replicas: none while the workload is unreachable, for nobody could use them.
    pub fn lower_bound(&self, reachable: bool) -> Replicas {
        if reachable {
            self.min_scale
        } else {
            Replicas::ZERO
        }
    }

    /// `count`, not above the most that are allowed.
    #[must_use]
    pub fn cap(&self, count: Replicas) -> Replicas {
        self.max_scale.map_or(count, |max| count.min(max))
    }

    /// How long a workload stays idle before its last replica goes: the longer of grace period and pod retention. An
    /// unreachable one has no retention.
    pub fn idle_grace(&self, reachable: bool) -> Duration {
        let retention = if reachable {
            self.pod_retention
        } else {
            Duration::ZERO
        };
        self.scale_to_zero_grace_period.max(retention)
    }
}

/// How many replicas a wake from zero asks for: the largest of one, initial scale, activation scale and min scale, but
/// never above max scale.
///
/// Knative gets there in steps (a first pod, then the bounds); asking at once saves a second cold start.
pub fn wake_replicas(spec: &TargetSpec) -> Replicas {
    let floor = Replicas::ONE.max(spec.initial_scale).max(spec.min_scale);
    spec.cap(floor.max(spec.activation_scale.unwrap_or(Replicas::ZERO)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn spec(pairs: &[(&str, &str)]) -> TargetSpec {
        let map: BTreeMap<String, String> = pairs
            .iter()
            .map(|(key, value)| {
                (
                    format!("autoscaling.knative.dev/{key}"),
                    (*value).to_owned(),
                )
            })
            .collect();
        annotations::parse(&map, &ClusterConfig::default())
            .expect("valid annotations")
            .spec
    }

    #[test]
    fn a_wake_asks_for_the_largest_floor_within_the_ceiling() {
        for (pairs, count) in [
            (&[][..], 1),
            (&[("initial-scale", "3")], 3),
            (&[("activation-scale", "4"), ("initial-scale", "3")], 4),
            (&[("min-scale", "5"), ("activation-scale", "5")], 5),
            (&[("initial-scale", "9"), ("max-scale", "2")], 2),
        ] {
            assert_eq!(wake_replicas(&spec(pairs)), Replicas(count), "{pairs:?}");
        }
    }

    #[test]
    fn unreachable_workloads_keep_nothing() {
        let spec = spec(&[
            ("min-scale", "2"),
            ("scale-to-zero-pod-retention-period", "10m"),
        ]);
        assert_eq!(
            (spec.lower_bound(true), spec.lower_bound(false)),
            (Replicas(2), Replicas::ZERO)
        );
        assert_eq!(spec.idle_grace(true), Duration::from_mins(10));
        assert_eq!(spec.idle_grace(false), Duration::from_secs(30));
    }
}
