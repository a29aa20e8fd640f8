//! The annotation keys, with their aliases.
//!
//! Source: `pkg/apis/autoscaling/register.go`.

use super::Annotations;

/// Group of Knative's keys.
pub(super) const KNATIVE_GROUP: &str = "autoscaling.knative.dev/";
/// Group of our own keys.
pub(super) const ROUSE_GROUP: &str = "rouse.dev/";

/// An annotation key and, for some, a second spelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// The full canonical key.
    pub name: &'static str,
    /// The full older spelling; it counts only where the canonical key is absent.
    pub alias: Option<&'static str>,
    /// What it may be, in a few words.
    pub allowed: &'static str,
}

impl Key {
    const fn new(name: &'static str, allowed: &'static str) -> Self {
        Self {
            name,
            alias: None,
            allowed,
        }
    }

    const fn aliased(name: &'static str, alias: &'static str, allowed: &'static str) -> Self {
        Self {
            name,
            alias: Some(alias),
            allowed,
        }
    }

    /// The key that is in force and its value. The canonical key wins even if its value is bad.
    pub(super) fn find(self, annotations: &Annotations) -> Option<(&'static str, &str)> {
        let names = std::iter::once(self.name).chain(self.alias);
        names
            .into_iter()
            .find_map(|name| Some((name, annotations.get(name)?.as_str())))
    }

    /// The value in force.
    pub(super) fn value(self, annotations: &Annotations) -> Option<&str> {
        self.find(annotations).map(|(_, value)| value)
    }
}

macro_rules! knative {
    ($key:literal) => {
        concat!("autoscaling.knative.dev/", $key)
    };
}

const COUNT: &str = "0 to 2147483647";
const SECONDS: &str = "whole seconds from 0s to 1h";

pub(super) const CLASS: Key = Key::new(
    knative!("class"),
    "kpa.autoscaling.knative.dev or hpa.autoscaling.knative.dev",
);
pub(super) const METRIC: Key = Key::new(knative!("metric"), "concurrency or rps");
pub(super) const TARGET: Key = Key::new(knative!("target"), "a number from 0.01");
pub(super) const UTILIZATION: Key = Key::aliased(
    knative!("target-utilization-percentage"),
    knative!("targetUtilizationPercentage"),
    "a number from 1 to 100",
);
pub(super) const BURST: Key = Key::aliased(
    knative!("target-burst-capacity"),
    knative!("targetBurstCapacity"),
    "a number from 0, or -1 for unlimited",
);
pub(super) const MIN_SCALE: Key = Key::aliased(knative!("min-scale"), knative!("minScale"), COUNT);
pub(super) const MAX_SCALE: Key = Key::aliased(knative!("max-scale"), knative!("maxScale"), COUNT);
pub(super) const INITIAL_SCALE: Key = Key::aliased(
    knative!("initial-scale"),
    knative!("initialScale"),
    "an integer from 1, or 0 if allow-zero-initial-scale is true",
);
pub(super) const ACTIVATION_SCALE: Key = Key::new(
    knative!("activation-scale"),
    "an integer from 2 to max-scale, not below min-scale",
);
pub(super) const SCALE_DOWN_DELAY: Key = Key::aliased(
    knative!("scale-down-delay"),
    knative!("scaleDownDelay"),
    SECONDS,
);
pub(super) const POD_RETENTION: Key = Key::aliased(
    knative!("scale-to-zero-pod-retention-period"),
    knative!("scaleToZeroPodRetentionPeriod"),
    "a duration from 0s to 1h",
);
pub(super) const WINDOW: Key = Key::new(knative!("window"), "whole seconds from 6s to 1h");
pub(super) const PANIC_WINDOW: Key = Key::aliased(
    knative!("panic-window-percentage"),
    knative!("panicWindowPercentage"),
    "a number from 1 to 100",
);
pub(super) const PANIC_THRESHOLD: Key = Key::aliased(
    knative!("panic-threshold-percentage"),
    knative!("panicThresholdPercentage"),
    "a number from 110 to 1000",
);
pub(super) const ALGORITHM: Key = Key::aliased(
    knative!("metric-aggregation-algorithm"),
    knative!("metricAggregationAlgorithm"),
    "linear or weighted-exponential",
);
pub(super) const CONTAINER_CONCURRENCY: Key = Key::new(
    "rouse.dev/container-concurrency",
    "an integer from 0 (unlimited) to 1000",
);
pub(super) const MAX_HELD: Key = Key::new("rouse.dev/max-held", "an integer from 1 to 1000000");
pub(super) const MAX_COLD_START: Key =
    Key::new("rouse.dev/max-cold-start", "a duration from 1s to 24h");
pub(super) const READY_PATH: Key =
    Key::new("rouse.dev/ready-path", "an absolute path such as /health");

/// Every key that this crate reads.
pub const ALL: [Key; 19] = [
    CLASS,
    METRIC,
    TARGET,
    UTILIZATION,
    BURST,
    MIN_SCALE,
    MAX_SCALE,
    INITIAL_SCALE,
    ACTIVATION_SCALE,
    SCALE_DOWN_DELAY,
    POD_RETENTION,
    WINDOW,
    PANIC_WINDOW,
    PANIC_THRESHOLD,
    ALGORITHM,
    CONTAINER_CONCURRENCY,
    MAX_HELD,
    MAX_COLD_START,
    READY_PATH,
];

/// Keys of our group that other parts of Rouse read, so that nobody is warned of them here.
pub(super) const READ_ELSEWHERE: [&str; 7] = [
    "rouse.dev/enabled",
    "rouse.dev/paused",
    "rouse.dev/ports",
    "rouse.dev/fallback",
    "rouse.dev/probe-paths",
    "rouse.dev/cold-start-aware",
    "rouse.dev/drain-grace",
];

/// The class that this crate implements.
pub(super) const KPA_CLASS: &str = "kpa.autoscaling.knative.dev";
/// Knative's other class; its annotations follow other rules.
pub(super) const HPA_CLASS: &str = "hpa.autoscaling.knative.dev";
