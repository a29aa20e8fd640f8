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
    /// What counts where it is absent; a key of [`crate::ClusterConfig`] if that decides.
    pub default: &'static str,
    /// What it does, as one sentence for an operator.
    pub help: &'static str,
}

impl Key {
    const fn new(
        name: &'static str,
        allowed: &'static str,
        default: &'static str,
        help: &'static str,
    ) -> Self {
        Self {
            name,
            alias: None,
            allowed,
            default,
            help,
        }
    }

    const fn or(mut self, alias: &'static str) -> Self {
        self.alias = Some(alias);
        self
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
    "pod-autoscaler-class",
    "Who scales. Whatever it says, the workload is scaled as kpa.autoscaling.knative.dev, with a warning for another.",
);
pub(super) const METRIC: Key = Key::new(
    knative!("metric"),
    "concurrency or rps",
    "concurrency",
    "What is scaled on: requests in flight, or requests per second.",
);
pub(super) const TARGET: Key = Key::new(
    knative!("target"),
    "a number from 0.01",
    "the container concurrency if that is not 0, else container-concurrency-target-default; with metric rps \
     requests-per-second-target-default",
    "What one replica can carry, in units of the metric. A share of it is aimed at, see \
     target-utilization-percentage. With metric concurrency it is at most the container concurrency.",
);
pub(super) const UTILIZATION: Key = Key::new(
    knative!("target-utilization-percentage"),
    "a number from 1 to 100",
    "container-concurrency-target-percentage; with metric rps 70",
    "The share of the target that a replica should have.",
)
.or(knative!("targetUtilizationPercentage"));
pub(super) const BURST: Key = Key::new(
    knative!("target-burst-capacity"),
    "a number from 0, or -1 for unlimited",
    "target-burst-capacity",
    "Room for requests beyond the present load below which traffic is safer behind an activator. It is computed and shown; \
     nothing is routed by it yet.",
)
.or(knative!("targetBurstCapacity"));
pub(super) const MIN_SCALE: Key = Key::new(
    knative!("min-scale"),
    COUNT,
    "min-scale",
    "Fewest replicas. 0 lets the workload sleep.",
)
.or(knative!("minScale"));
pub(super) const MAX_SCALE: Key = Key::new(
    knative!("max-scale"),
    COUNT,
    "max-scale",
    "Most replicas; 0 is no limit.",
)
.or(knative!("maxScale"));
pub(super) const INITIAL_SCALE: Key = Key::new(
    knative!("initial-scale"),
    "an integer from 1, or 0 if allow-zero-initial-scale is true",
    "initial-scale",
    "Replicas that a wake asks for at least, and that are kept until that many were ready once.",
)
.or(knative!("initialScale"));
pub(super) const ACTIVATION_SCALE: Key = Key::new(
    knative!("activation-scale"),
    "an integer from 2 to max-scale, not below min-scale",
    "none",
    "Fewest replicas whenever there are any.",
);
pub(super) const SCALE_DOWN_DELAY: Key = Key::new(
    knative!("scale-down-delay"),
    SECONDS,
    "scale-down-delay",
    "Fewer replicas take effect only after they were enough for this long.",
)
.or(knative!("scaleDownDelay"));
pub(super) const POD_RETENTION: Key = Key::new(
    knative!("scale-to-zero-pod-retention-period"),
    "a duration from 0s to 1h",
    "scale-to-zero-pod-retention-period",
    "How long an idle workload keeps its last replica. The longer of this and scale-to-zero-grace-period counts.",
)
.or(knative!("scaleToZeroPodRetentionPeriod"));
pub(super) const WINDOW: Key = Key::new(
    knative!("window"),
    "whole seconds from 6s to 1h",
    "stable-window",
    "The span over which the load is averaged, and how long panic lasts at least.",
);
pub(super) const PANIC_WINDOW: Key = Key::new(
    knative!("panic-window-percentage"),
    "a number from 1 to 100",
    "panic-window-percentage",
    "The span of the short average, in percent of the window; rounded to whole seconds, at least 1s.",
)
.or(knative!("panicWindowPercentage"));
pub(super) const PANIC_THRESHOLD: Key = Key::new(
    knative!("panic-threshold-percentage"),
    "a number from 110 to 1000",
    "panic-threshold-percentage",
    "Panic starts when the short average asks for this percentage of the ready replicas.",
)
.or(knative!("panicThresholdPercentage"));
pub(super) const ALGORITHM: Key = Key::new(
    knative!("metric-aggregation-algorithm"),
    "linear or weighted-exponential",
    "linear",
    "How a window becomes one number: every second alike, or newer ones more.",
)
.or(knative!("metricAggregationAlgorithm"));
pub(super) const CONTAINER_CONCURRENCY: Key = Key::new(
    "rouse.dev/container-concurrency",
    "an integer from 0 (unlimited) to 1000",
    "0",
    "Most requests at one replica at once; further ones wait in order. Knative has it as a field of its Revision.",
);
pub(super) const MAX_HELD: Key = Key::new(
    "rouse.dev/max-held",
    "an integer from 1 to 1000000",
    "1000",
    "Most requests that one activator holds for the workload; further ones are answered 503 with Retry-After.",
);
pub(super) const MAX_COLD_START: Key = Key::new(
    "rouse.dev/max-cold-start",
    "a duration from 1s to 24h",
    "10m",
    "Longest time that a request is held; then it is answered 504.",
);
pub(super) const COLD_START_AWARE: Key = Key::new(
    "rouse.dev/cold-start-aware",
    "true or false",
    "true",
    "Whether pods that are starting count as capacity, and waiting requests as a one-off to be cleared. \
     false scales exactly as Knative does.",
);
pub(super) const BACKLOG_CLEAR_TIME: Key = Key::new(
    "rouse.dev/backlog-clear-time",
    "a duration from 1s to 1h",
    "a thirtieth of the window",
    "In what time requests that wait should be cleared once the pods for them are ready, or as long as one of them takes. Shorter costs more pods.",
);
pub(super) const MIN_STAY: Key = Key::new(
    "rouse.dev/min-stay",
    "a duration from 0s to 24h",
    "as long as a start takes, as learned",
    "How long the workload stays after a start before it may go to zero. Staying idle for as long as a start takes \
     costs at most twice what knowing the future would.",
);
pub(super) const MAX_CONNECTION_AGE: Key = Key::new(
    "rouse.dev/max-connection-age",
    "0s for no limit, or a duration from 1s to 24h",
    "30s",
    "Age of a client's connection at which a sidecar ends it after its answer, give or take a tenth: kube-proxy balances connections, \
     not requests, so this is how long a new replica waits for its share of kept connections. HTTP/1 clients are told \
     Connection: close, HTTP/2 ones GOAWAY; nothing is cut, and WebSockets are left alone.",
);
pub(super) const REQUEST_TIMEOUT: Key = Key::new(
    "rouse.dev/request-timeout",
    "0s for no limit, or a duration from 1s to 24h",
    "0s",
    "Longest time of a whole request, from its admission to the last byte of its answer; then it is answered 504, or its answer is \
     broken off. A longer one than 300s makes the drain and the grace period of new Pods longer. Knative has it as timeoutSeconds.",
);
pub(super) const RESPONSE_START_TIMEOUT: Key = Key::new(
    "rouse.dev/response-start-timeout",
    "0s for no limit, or a duration from 1s to 24h",
    "0s",
    "Longest time from a request's admission until the model begins its answer; then it is answered 504. Knative has it as \
     responseStartTimeoutSeconds.",
);
pub(super) const IDLE_TIMEOUT: Key = Key::new(
    "rouse.dev/idle-timeout",
    "0s for no limit, or a duration from 1s to 24h",
    "0s",
    "Longest silence of the model, before and in its answer; then it is answered 504, or its answer is broken off. A WebSocket ends \
     when neither side has sent anything for so long. Knative has it as idleTimeoutSeconds.",
);
pub(super) const BOUNCE: Key = Key::new(
    "rouse.dev/bounce",
    "true or false",
    "true",
    "Whether a pod hands a request that would wait there for long on to the activators, which know of room at other pods. With false it \
     waits, as long as the pod's queue has room. Only on a cluster.",
);
pub(super) const SOFT_LIMIT: Key = Key::new(
    "rouse.dev/soft-limit",
    "an integer from 0 (none) to 1000000",
    "twice the target, at least 10; none with metric rps",
    "Requests at one replica above which it hands further ones on to the activators, if the container concurrency is unlimited. They may \
     come back to it if no other replica has less to do.",
);
pub(super) const READY_PATH: Key = Key::new(
    "rouse.dev/ready-path",
    "an absolute path such as /health, of at most 2048 visible characters of ASCII other than \" # < > and the backtick",
    "none: the port takes a connection",
    "Path that answers 200 to 399 once the model is ready. It counts only where the container has no readiness probe.",
);

pub(super) const ALLOWED_NAMESPACES: Key = Key::new(
    "rouse.dev/allowed-namespaces",
    "*, or names of namespaces separated by commas",
    "*",
    "Namespaces whose pods may send requests to the workload through an activator, beside its own; others are answered 403. Who sends is told by the address of the connection alone, so whoever has no pod's address of their own is refused too. Only on a cluster.",
);

pub(super) const PROBE_PATHS: Key = Key::new(
    "rouse.dev/probe-paths",
    "absolute paths without query, separated by commas, such as /healthz,/metrics",
    "none",
    "Paths of health checks and the like. At a pod, requests for exactly these paths are no load, whatever their query. What they do \
     while no pod is ready: probe-answer.",
);
pub(super) const PROBE_ANSWER: Key = Key::new(
    "rouse.dev/probe-answer",
    "a status from 200 to 599",
    "none: probes are held and wake the workload, as all requests",
    "While no pod is ready, a GET or HEAD for one of probe-paths is answered with this status by the activator at once. It is not \
     held, wakes nothing and is no load.",
);
pub(super) const SSE_HEARTBEAT: Key = Key::new(
    "rouse.dev/sse-heartbeat",
    "a duration from 1s to 5m",
    "none: nothing is sent while a request is held",
    "A request for an event stream that was held for this long is answered 200, and gets an SSE comment each time as long again \
     has passed, until a pod answers. The pod's status and headers cannot be sent then.",
);
pub(super) const PLACEHOLDER: Key = Key::new(
    "rouse.dev/placeholder",
    "true or false",
    "false",
    "While no pod is ready, a GET that prefers text/html is answered 503 at once, with a page that says so and loads itself again \
     every 5 s. It wakes the workload all the same.",
);
pub(super) const PLACEHOLDER_TITLE: Key = Key::new(
    "rouse.dev/placeholder-title",
    "a text of 1 to 80 characters, none of them a control character",
    "The model is waking up",
    "Title of that page. It is text: markup in it is shown as it is written.",
);
pub(super) const OPENAI_ERRORS: Key = Key::new(
    "rouse.dev/openai-errors",
    "true or false",
    "false",
    "Whether errors of Rouse's own have the form of OpenAI's, as JSON, where the path begins with /v1/.",
);

/// Every key that this crate reads.
pub const ALL: [Key; 35] = [
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
    COLD_START_AWARE,
    BACKLOG_CLEAR_TIME,
    MIN_STAY,
    MAX_CONNECTION_AGE,
    REQUEST_TIMEOUT,
    RESPONSE_START_TIMEOUT,
    IDLE_TIMEOUT,
    BOUNCE,
    SOFT_LIMIT,
    READY_PATH,
    ALLOWED_NAMESPACES,
    PROBE_PATHS,
    PROBE_ANSWER,
    SSE_HEARTBEAT,
    PLACEHOLDER,
    PLACEHOLDER_TITLE,
    OPENAI_ERRORS,
];

/// Keys of our group that other parts of Rouse read, so that nobody is warned of them here.
pub const READ_ELSEWHERE: [&str; 12] = [
    "rouse.dev/enabled",
    "rouse.dev/paused",
    "rouse.dev/ports",
    "rouse.dev/fallback",
    "rouse.dev/drain-grace",
    "rouse.dev/request-log",
    "rouse.dev/sidecar-cpu-request",
    "rouse.dev/sidecar-cpu-limit",
    "rouse.dev/sidecar-memory-request",
    "rouse.dev/sidecar-memory-limit",
    "rouse.dev/sidecar-ephemeral-storage-request",
    "rouse.dev/sidecar-ephemeral-storage-limit",
];

/// The class that this crate implements.
pub(super) const KPA_CLASS: &str = "kpa.autoscaling.knative.dev";
/// Knative's other class; its annotations follow other rules.
pub(super) const HPA_CLASS: &str = "hpa.autoscaling.knative.dev";
