//! From annotations and cluster defaults to the values in force.
//!
//! Source: `pkg/apis/autoscaling/v1alpha1/pa_lifecycle.go`, `pkg/reconciler/autoscaling/resources/{target,metric}.go`,
//! `pkg/reconciler/autoscaling/kpa/resources/decider.go`.

use std::time::Duration;

use super::Annotations;
use super::keys::{self, Key};
use crate::literal::{parse_duration, parse_float, parse_int, parse_int32};
use crate::{
    Aggregation, BurstCapacity, ClusterConfig, Metric, OptIns, Policy, Replicas, TargetSpec,
};

/// The share of its requests per second that a replica should carry; not configurable cluster-wide.
/// Source: `pkg/autoscaler/config/config.go`.
const RPS_UTILIZATION: f64 = 0.7;

/// The least target there is. Source: `pkg/apis/autoscaling/register.go`.
const MIN_TARGET: f64 = 0.01;

/// Requests of one workload that an activator holds unless told otherwise.
const MAX_HELD: u32 = 1000;

/// The longest wait for a first pod unless told otherwise: large models are slow to pull and load.
const MAX_COLD_START: Duration = Duration::from_mins(10);

/// The part of the stable window in which waiting requests should be cleared unless told otherwise: 2 s of 60. Found by
/// simulation (`docs/guides/tune-with-the-simulator.md`): with it requests wait no longer than under Knative, for half the pods.
const CLEAR_FRACTION: u32 = 30;

/// The age that clients' connections reach unless told otherwise: half of Knative's default stable window (60 s), so that the
/// average which decides on the next replica has seen the last one carry its share. A new connection twice a minute costs
/// nobody anything.
const MAX_CONNECTION_AGE: Duration = Duration::from_secs(30);

/// Targets that an unlimited pod may have at once before it hands requests on. The autoscaler aims below one, so at two something is
/// uneven that more pods do not mend: most often connections that were kept while pods came.
const SOFT_TARGETS: f64 = 2.0;

/// The least soft limit. Below it the ups and downs of arrivals would send requests the longer way.
const MIN_SOFT_LIMIT: f64 = 10.0;

/// The values in force, whether or not the annotations are valid.
///
/// Knative's controllers do the same with what has got past admission: what cannot be read counts as absent, and
/// ranges are not checked. What a type here cannot express (a negative duration or count) counts as zero. Use
/// [`super::parse`] unless there is no last good setting to keep.
pub fn resolve(annotations: &Annotations, config: &ClusterConfig) -> TargetSpec {
    resolve_with(annotations, config, Policy::default())
}

/// As [`resolve`], under `policy`: what is a number follows it, and it is that of the resulting settings.
pub fn resolve_with(
    annotations: &Annotations,
    config: &ClusterConfig,
    policy: Policy,
) -> TargetSpec {
    let given = Given(annotations, policy);
    let container_concurrency = given.integer(keys::CONTAINER_CONCURRENCY, 0);
    let load = given.load(config, container_concurrency);
    let stable_window = given.duration(keys::WINDOW).unwrap_or(config.stable_window);
    let panic_percentage = given
        .float(keys::PANIC_WINDOW)
        .unwrap_or(config.panic_window_percentage);
    let panic_threshold = given
        .float(keys::PANIC_THRESHOLD)
        .unwrap_or(config.panic_threshold_percentage);
    TargetSpec {
        metric: load.metric,
        target: at_least(load.total * load.utilization, MIN_TARGET),
        total: load.total,
        target_burst_capacity: given
            .float(keys::BURST)
            .map_or(config.target_burst_capacity, BurstCapacity::from_f64),
        stable_window,
        panic_window: panic_window(stable_window, panic_percentage),
        panic_threshold: panic_threshold / 100.0,
        aggregation: given.aggregation(),
        max_scale_up_rate: config.max_scale_up_rate,
        max_scale_down_rate: config.max_scale_down_rate,
        min_scale: given.count(keys::MIN_SCALE).unwrap_or(config.min_scale),
        max_scale: given
            .count(keys::MAX_SCALE)
            .map_or(config.max_scale, |max| (!max.is_zero()).then_some(max)),
        initial_scale: given.initial_scale(config),
        activation_scale: given
            .count(keys::ACTIVATION_SCALE)
            .filter(|&scale| scale > Replicas::ONE),
        scale_down_delay: given
            .duration(keys::SCALE_DOWN_DELAY)
            .unwrap_or(config.scale_down_delay),
        enable_scale_to_zero: config.enable_scale_to_zero,
        scale_to_zero_grace_period: config.scale_to_zero_grace_period,
        pod_retention: given
            .duration(keys::POD_RETENTION)
            .unwrap_or(config.scale_to_zero_pod_retention_period),
        activator_capacity: config.activator_capacity,
        container_concurrency,
        max_held: given.integer(keys::MAX_HELD, MAX_HELD),
        max_cold_start: given
            .duration(keys::MAX_COLD_START)
            .unwrap_or(MAX_COLD_START),
        backlog_clear_time: given
            .duration(keys::BACKLOG_CLEAR_TIME)
            .unwrap_or(stable_window / CLEAR_FRACTION)
            .max(Duration::from_secs(1)),
        min_stay: given.duration(keys::MIN_STAY),
        max_connection_age: Some(
            given
                .duration(keys::MAX_CONNECTION_AGE)
                .unwrap_or(MAX_CONNECTION_AGE),
        )
        .filter(|age| !age.is_zero()),
        request_timeout: given.limit(keys::REQUEST_TIMEOUT),
        response_start_timeout: given.limit(keys::RESPONSE_START_TIMEOUT),
        idle_timeout: given.limit(keys::IDLE_TIMEOUT),
        bounce: keys::BOUNCE.value(annotations) != Some("false"),
        soft_limit: given.soft_limit(&load),
        ready_path: keys::READY_PATH.value(annotations).map(str::to_owned),
        opt_ins: given.opt_ins(),
        policy: Policy {
            cold_start_aware: policy.cold_start_aware
                && keys::COLD_START_AWARE.value(annotations) != Some("false"),
            ..policy
        },
    }
}

/// The entries of a list that is separated by commas. An empty text has none.
pub(super) fn list(text: &str) -> impl Iterator<Item = &str> {
    let entries = text.split(',').map(str::trim);
    entries.filter(move |_| !text.trim().is_empty())
}

/// As [`f64::max`], but what is `NaN` stays so, as in Go: it is there only if Knative's habits were asked for.
fn at_least(value: f64, low: f64) -> f64 {
    if value < low { low } else { value }
}

/// As [`f64::min`], but what is `NaN` stays so.
fn at_most(value: f64, high: f64) -> f64 {
    if value > high { high } else { value }
}

/// The percentage of the stable window, rounded to whole seconds (half a second up), at least one.
fn panic_window(stable: Duration, percentage: f64) -> Duration {
    let seconds = Duration::try_from_secs_f64(stable.as_secs_f64() * percentage / 100.0)
        .unwrap_or(Duration::ZERO);
    let up = u64::from(seconds.subsec_millis() >= 500);
    Duration::from_secs((seconds.as_secs() + up).max(1))
}

/// What a replica carries.
struct Load {
    metric: Metric,
    total: f64,
    utilization: f64,
}

/// The annotations with typed look-ups.
struct Given<'a>(&'a Annotations, Policy);

impl Given<'_> {
    fn load(&self, config: &ClusterConfig, container_concurrency: u32) -> Load {
        let metric = keys::METRIC.value(self.0).unwrap_or("concurrency");
        let mut load = match metric {
            "rps" => Load {
                metric: Metric::Rps,
                total: config.requests_per_second_target_default,
                utilization: RPS_UTILIZATION,
            },
            _ => Load {
                metric: Metric::Concurrency,
                total: match container_concurrency {
                    0 => config.container_concurrency_target_default,
                    limit => f64::from(limit),
                },
                utilization: config.container_concurrency_target_fraction,
            },
        };
        if let Some(target) = self.float(keys::TARGET) {
            // A pod that serves one request at a time cannot be asked to carry two.
            let limited = metric == "concurrency" && container_concurrency != 0;
            load.total = if limited {
                at_most(target, load.total)
            } else {
                target
            };
        }
        if let Some(percentage) = self.float(keys::UTILIZATION) {
            load.utilization = percentage / 100.0;
        }
        load
    }

    fn float(&self, key: Key) -> Option<f64> {
        parse_float(key.value(self.0)?, self.1)
    }

    fn count(&self, key: Key) -> Option<Replicas> {
        parse_int32(key.value(self.0)?).map(|count| Replicas(u32::try_from(count).unwrap_or(0)))
    }

    fn integer(&self, key: Key, default: u32) -> u32 {
        let given = key.value(self.0).and_then(parse_int);
        given
            .and_then(|number| u32::try_from(number).ok())
            .unwrap_or(default)
    }

    /// A time of which zero means that there is no limit.
    fn limit(&self, key: Key) -> Option<Duration> {
        self.duration(key).filter(|limit| !limit.is_zero())
    }

    fn duration(&self, key: Key) -> Option<Duration> {
        parse_duration(key.value(self.0)?)
            .map(|nanos| Duration::from_nanos(u64::try_from(nanos).unwrap_or(0)))
    }

    /// What is given, zero for none, else so many targets; what a replica carries a second says nothing of how many it has at once.
    fn soft_limit(&self, load: &Load) -> Option<u32> {
        let given = keys::SOFT_LIMIT.value(self.0).and_then(parse_int);
        if let Some(given) = given.and_then(|number| u32::try_from(number).ok()) {
            return Some(given).filter(|limit| *limit > 0);
        }
        let limit = (load.total * SOFT_TARGETS).ceil().max(MIN_SOFT_LIMIT);
        // No count of pods, but a count: this is how all of them are made.
        (load.metric == Metric::Concurrency).then_some(Replicas::from_f64(limit).get())
    }

    fn is_true(&self, key: Key) -> bool {
        key.value(self.0) == Some("true")
    }

    fn opt_ins(&self) -> OptIns {
        let text = |key: Key| key.value(self.0).unwrap_or(key.default).trim().to_owned();
        OptIns {
            probe_paths: keys::PROBE_PATHS
                .value(self.0)
                .map(|paths| list(paths).map(str::to_owned).collect())
                .unwrap_or_default(),
            probe_answer: keys::PROBE_ANSWER
                .value(self.0)
                .and_then(parse_int)
                .and_then(|status| u16::try_from(status).ok()),
            sse_heartbeat: self
                .duration(keys::SSE_HEARTBEAT)
                .filter(|every| !every.is_zero()),
            placeholder: self
                .is_true(keys::PLACEHOLDER)
                .then(|| text(keys::PLACEHOLDER_TITLE)),
            openai_errors: self.is_true(keys::OPENAI_ERRORS),
        }
    }

    /// Zero where zero is not allowed is as good as absent.
    fn initial_scale(&self, config: &ClusterConfig) -> Replicas {
        self.count(keys::INITIAL_SCALE)
            .filter(|scale| config.allow_zero_initial_scale || !scale.is_zero())
            .unwrap_or(config.initial_scale)
    }

    fn aggregation(&self) -> Aggregation {
        match keys::ALGORITHM.value(self.0) {
            Some("weighted-exponential" | "weightedExponential") => {
                Aggregation::WeightedExponential
            }
            _ => Aggregation::Linear,
        }
    }
}
