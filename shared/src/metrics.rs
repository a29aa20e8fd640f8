//! The one table of metrics, and the recorder behind `/metrics`.
//!
//! Nothing in Rouse decides by these: scaling reads [`crate::stat`]. Labels are bounded: target, outcome, origin.

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

use metrics::{Counter, Gauge, Histogram, Label};

pub use self::registry::{Exporter, KEPT, Tenure};

mod registry;

/// The recorder of the process.
static INSTALLED: OnceLock<Exporter> = OnceLock::new();

/// What kind of series a metric is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Observations in the given buckets (seconds).
    Histogram(&'static [f64]),
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Full Prometheus name.
    pub name: &'static str,
    /// Kind and buckets.
    pub kind: Kind,
    /// Label names.
    pub labels: &'static [&'static str],
    /// One sentence.
    pub help: &'static str,
}

/// Cold starts: from a warm process (50 ms) to a model that takes ten minutes.
const COLD: &[f64] = &[
    0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 180.0, 600.0,
];
/// Whole requests: from 1 ms to a long generation.
const REQUEST: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
];
/// Overheads and waits: from 50 us.
const FINE: &[f64] = &[
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0,
];

/// A metric of the table.
const fn row(
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric {
        name,
        kind,
        labels,
        help,
    }
}

/// Requests that ended, by outcome and by whose doing it was.
pub const PROXY_REQUESTS: Metric = row(
    "rouse_queue_proxy_requests_total",
    Kind::Counter,
    &["target", "outcome", "origin"],
    "Requests that ended, by outcome and by whose doing it was.",
);
/// Time from admission to the last byte of the answer.
pub const PROXY_DURATION: Metric = row(
    "rouse_queue_proxy_request_duration_seconds",
    Kind::Histogram(REQUEST),
    &["target"],
    "Time from admission to the last byte of the answer.",
);
/// Time a request waited for a slot.
pub const PROXY_QUEUE_WAIT: Metric = row(
    "rouse_queue_proxy_queue_wait_seconds",
    Kind::Histogram(FINE),
    &["target"],
    "Time a request waited for a slot.",
);
/// Requests at the model now.
pub const PROXY_IN_FLIGHT: Metric = row(
    "rouse_queue_proxy_in_flight_requests",
    Kind::Gauge,
    &["target"],
    "Requests at the model now.",
);
/// Requests waiting for a slot now.
pub const PROXY_WAITING: Metric = row(
    "rouse_queue_proxy_waiting_requests",
    Kind::Gauge,
    &["target"],
    "Requests waiting for a slot now.",
);
/// Requests on their way through a sidecar to the activators now.
pub const PROXY_RELAYED: Metric = row(
    "rouse_queue_proxy_relayed_requests",
    Kind::Gauge,
    &["target"],
    "Requests on their way through here to the activators now. They are neither at the model nor waiting.",
);
/// Requests cut because the grace period ended.
pub const PROXY_CUT: Metric = row(
    "rouse_queue_proxy_dropped_on_drain_total",
    Kind::Counter,
    &["target"],
    "Requests cut because the grace period ended.",
);
/// Lines of the request log that were left out.
pub const PROXY_LOG_DROPPED: Metric = row(
    "rouse_queue_proxy_request_log_dropped_total",
    Kind::Counter,
    &[],
    "Lines of the request log that were left out since writing was too slow or failed.",
);
/// Spans that were left out.
pub const PROXY_SPANS_DROPPED: Metric = row(
    "rouse_queue_proxy_spans_dropped_total",
    Kind::Counter,
    &[],
    "Spans that were left out since the collector was too slow or did not take them; only in a build with `otlp`.",
);
/// Requests that ended, by outcome and by whose doing it was.
pub const ACTIVATOR_REQUESTS: Metric = row(
    "rouse_activator_requests_total",
    Kind::Counter,
    &["target", "outcome", "origin"],
    "Requests that ended, by outcome and by whose doing it was.",
);
/// Requests held now.
pub const ACTIVATOR_HELD: Metric = row(
    "rouse_activator_held_requests",
    Kind::Gauge,
    &["target"],
    "Requests held now.",
);
/// Time a request was held, if it was.
pub const ACTIVATOR_HOLD: Metric = row(
    "rouse_activator_hold_duration_seconds",
    Kind::Histogram(COLD),
    &["target"],
    "Time a request was held, if it was.",
);
/// Patches of the scale from 0, by result.
pub const ACTIVATOR_WAKES: Metric = row(
    "rouse_activator_wakes_total",
    Kind::Counter,
    &["target", "result"],
    "Patches of the scale from 0, by result.",
);
/// Attempts to listen on a claimed port that failed.
pub const ACTIVATOR_LISTEN_ERRORS: Metric = row(
    "rouse_activator_listen_errors_total",
    Kind::Counter,
    &["target"],
    "Attempts to listen on a claimed port that failed.",
);
/// Requests sent to another pod because the first had not admitted them.
pub const ACTIVATOR_RESENT: Metric = row(
    "rouse_activator_resent_total",
    Kind::Counter,
    &["target"],
    "Requests sent to another pod because the first had not admitted them.",
);
/// Lines of the request log that were left out.
pub const ACTIVATOR_LOG_DROPPED: Metric = row(
    "rouse_activator_request_log_dropped_total",
    Kind::Counter,
    &[],
    "Lines of the request log that were left out since writing was too slow or failed.",
);
/// Spans that were left out.
pub const ACTIVATOR_SPANS_DROPPED: Metric = row(
    "rouse_activator_spans_dropped_total",
    Kind::Counter,
    &[],
    "Spans that were left out since the collector was too slow or did not take them; only in a build with `otlp`.",
);
/// Replicas wanted by the last decision.
pub const AUTOSCALER_DESIRED: Metric = row(
    "rouse_autoscaler_desired_replicas",
    Kind::Gauge,
    &["target"],
    "Replicas wanted by the last decision.",
);
/// Replicas that are ready.
pub const AUTOSCALER_READY: Metric = row(
    "rouse_autoscaler_ready_replicas",
    Kind::Gauge,
    &["target"],
    "Replicas that are ready.",
);
/// Stable average of the scaling metric, over all pods.
pub const AUTOSCALER_STABLE: Metric = row(
    "rouse_autoscaler_stable_value",
    Kind::Gauge,
    &["target"],
    "Stable average of the scaling metric, over all pods.",
);
/// Panic average of the scaling metric, over all pods.
pub const AUTOSCALER_PANIC: Metric = row(
    "rouse_autoscaler_panic_value",
    Kind::Gauge,
    &["target"],
    "Panic average of the scaling metric, over all pods.",
);
/// 1 while in panic mode.
pub const AUTOSCALER_PANIC_MODE: Metric = row(
    "rouse_autoscaler_panic_mode",
    Kind::Gauge,
    &["target"],
    "1 while in panic mode.",
);
/// 1 while pods are on their way.
pub const AUTOSCALER_STARTING_MODE: Metric = row(
    "rouse_autoscaler_starting_mode",
    Kind::Gauge,
    &["target"],
    "1 while pods are on their way, or requests are held because none is ready.",
);
/// Pods that are not ready, by why.
pub const AUTOSCALER_UNREADY: Metric = row(
    "rouse_autoscaler_unready_pods",
    Kind::Gauge,
    &["target", "state"],
    "Pods that are not ready: `starting`, those of them that are `overdue`, and those that have `failed`.",
);
/// How long a start takes, as learned.
pub const AUTOSCALER_START_SECONDS: Metric = row(
    "rouse_autoscaler_start_seconds",
    Kind::Gauge,
    &["target"],
    "How long the next start is expected to take; there is none before one was seen.",
);
/// How long a pod works on a request, as learned.
pub const AUTOSCALER_REQUEST_SECONDS: Metric = row(
    "rouse_autoscaler_request_seconds",
    Kind::Gauge,
    &["target"],
    "How long a pod works on a request, waiting left out; there is none before one ended.",
);
/// Knative's excess burst capacity.
pub const AUTOSCALER_BURST_HEADROOM: Metric = row(
    "rouse_autoscaler_burst_headroom",
    Kind::Gauge,
    &["target"],
    "Knative's excess burst capacity.",
);
/// Scrapes of pods and activators, by result.
pub const AUTOSCALER_SCRAPES: Metric = row(
    "rouse_autoscaler_scrapes_total",
    Kind::Counter,
    &["target", "result"],
    "Scrapes of pods and activators, by result.",
);
/// Writes of the scale, by result.
pub const AUTOSCALER_SCALES: Metric = row(
    "rouse_autoscaler_scales_total",
    Kind::Counter,
    &["target", "result"],
    "Writes of the scale, by result.",
);
/// 1 while this one leads.
pub const AUTOSCALER_LEADER: Metric = row(
    "rouse_autoscaler_leader",
    Kind::Gauge,
    &[],
    "1 while this one leads; on a cluster only.",
);
/// Steps of adoption, by what they do and result.
pub const AUTOSCALER_ADOPTION: Metric = row(
    "rouse_autoscaler_adoption_steps_total",
    Kind::Counter,
    &["step", "result"],
    "Steps of adopting Services and giving them back, by result.",
);
/// Rivals noticed.
pub const AUTOSCALER_RIVALS: Metric = row(
    "rouse_autoscaler_rivals_total",
    Kind::Counter,
    &["target", "what"],
    "Times that somebody else kept changing a `service` or a `scale` back and was left alone.",
);

/// Every metric of Rouse; `docs/reference/metrics.md` is made from it.
pub const ALL: &[Metric] = &[
    PROXY_REQUESTS,
    PROXY_DURATION,
    PROXY_QUEUE_WAIT,
    PROXY_IN_FLIGHT,
    PROXY_WAITING,
    PROXY_RELAYED,
    PROXY_CUT,
    PROXY_LOG_DROPPED,
    PROXY_SPANS_DROPPED,
    ACTIVATOR_REQUESTS,
    ACTIVATOR_HELD,
    ACTIVATOR_HOLD,
    ACTIVATOR_WAKES,
    ACTIVATOR_RESENT,
    ACTIVATOR_LISTEN_ERRORS,
    ACTIVATOR_LOG_DROPPED,
    ACTIVATOR_SPANS_DROPPED,
    AUTOSCALER_DESIRED,
    AUTOSCALER_READY,
    AUTOSCALER_STABLE,
    AUTOSCALER_PANIC,
    AUTOSCALER_PANIC_MODE,
    AUTOSCALER_STARTING_MODE,
    AUTOSCALER_UNREADY,
    AUTOSCALER_START_SECONDS,
    AUTOSCALER_REQUEST_SECONDS,
    AUTOSCALER_BURST_HEADROOM,
    AUTOSCALER_SCRAPES,
    AUTOSCALER_SCALES,
    AUTOSCALER_LEADER,
    AUTOSCALER_ADOPTION,
    AUTOSCALER_RIVALS,
];

/// Installs the process's recorder.
///
/// # Errors
/// When a recorder is installed already.
pub fn install() -> Result<Exporter, Box<dyn std::error::Error + Send + Sync>> {
    let exporter = Exporter::new();
    metrics::set_global_recorder(exporter.clone())?;
    Ok(INSTALLED.get_or_init(|| exporter).clone())
}

/// Keeps the series of `target`, a label's value, while what is returned lives. Whoever takes handles with that label has one of
/// these, or takes the handle anew each time: series of a target of which there is none are forgotten after [`KEPT`].
pub fn tenure(target: &str) -> Tenure {
    INSTALLED
        .get()
        .map_or_else(Tenure::of_nothing, |exporter| exporter.tenure(target))
}

/// Forgets the series of workloads that are gone: must run while the process does.
pub async fn upkeep(exporter: Exporter) {
    let mut tick = tokio::time::interval(Duration::from_secs(30));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        tick.tick().await;
        exporter.forget(Instant::now());
    }
}

#[allow(
    clippy::disallowed_macros,
    reason = "the one place that may name metrics"
)]
impl Metric {
    /// The handle of a counter with these label values, in the order of [`Metric::labels`].
    pub fn counter(&self, values: &[&str]) -> Counter {
        metrics::counter!(self.name, self.label_set(values))
    }

    /// The handle of a gauge, as [`Metric::counter`].
    pub fn gauge(&self, values: &[&str]) -> Gauge {
        metrics::gauge!(self.name, self.label_set(values))
    }

    /// The handle of a histogram, as [`Metric::counter`].
    pub fn histogram(&self, values: &[&str]) -> Histogram {
        metrics::histogram!(self.name, self.label_set(values))
    }

    fn label_set(&self, values: &[&str]) -> Vec<Label> {
        debug_assert_eq!(self.labels.len(), values.len(), "labels of {}", self.name);
        self.labels
            .iter()
            .zip(values)
            .map(|(name, value)| Label::new(*name, (*value).to_owned()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_prometheus_conventions() {
        let mut seen = std::collections::HashSet::new();
        for metric in ALL {
            assert!(seen.insert(metric.name), "{} twice", metric.name);
            assert!(metric.name.starts_with("rouse_"), "{}", metric.name);
            assert_eq!(
                metric.kind == Kind::Counter,
                metric.name.ends_with("_total"),
                "{}",
                metric.name
            );
            if let Kind::Histogram(buckets) = metric.kind {
                assert!(metric.name.ends_with("_seconds"), "{}", metric.name);
                assert!(buckets.windows(2).all(|w| w[0] < w[1]), "{}", metric.name);
            }
        }
    }
}
