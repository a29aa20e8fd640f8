//! What is wrong with a workload's annotations: ranges, and values that do not fit each other.
//!
//! The order of the checks and the words of the messages are Knative's, so that a user of both reads the same.
//! Source: `pkg/apis/autoscaling/annotation_validation.go`.

use super::keys::{self, Key};
use super::resolve::list;
use super::{AllowedNamespaces, AnnotationError, Annotations};
use crate::literal::{Nanos, parse_duration, parse_float, parse_int};
use crate::{ClusterConfig, Policy};

mod scales;

const SECOND: Nanos = 1_000_000_000;
const HOUR: Nanos = 3600 * SECOND;
/// Bytes of a path, with its query.
const LONGEST_PATH: usize = 2_048;
/// Characters of a page's title.
const LONGEST_TITLE: usize = 80;

/// Every error, in the order of the checks.
pub(super) fn all(
    annotations: &Annotations,
    config: &ClusterConfig,
    policy: Policy,
) -> Vec<AnnotationError> {
    let mut check = Check {
        annotations,
        policy,
        errors: Vec::new(),
    };
    check.class();
    check.scales(config);
    check.floats();
    check.durations();
    check.metric(config);
    check.algorithm();
    check.initial_scale(config);
    check.ours();
    check.errors
}

struct Check<'a> {
    annotations: &'a Annotations,
    policy: Policy,
    errors: Vec<AnnotationError>,
}

impl Check<'_> {
    /// The value of `key`, and the spelling it was found under.
    fn find(&self, key: Key) -> Option<(&'static str, String)> {
        key.find(self.annotations)
            .map(|(name, value)| (name, value.to_owned()))
    }

    fn error(&mut self, name: &str, value: &str, message: String) {
        self.errors.push(AnnotationError {
            key: name.to_owned(),
            value: value.to_owned(),
            message,
            allowed: None,
            paths: vec![name.to_owned()],
        });
    }

    /// The value cannot be read, or its kind of range has no words of its own.
    fn invalid(&mut self, key: Key, name: &str, value: &str) {
        self.errors.push(AnnotationError {
            key: name.to_owned(),
            value: value.to_owned(),
            message: format!("invalid value: {value}"),
            allowed: Some(key.allowed.to_owned()),
            paths: vec![name.to_owned()],
        });
    }

    fn class(&mut self) {
        if let Some((name, value)) = self.find(keys::CLASS)
            && value.ends_with(".knative.dev")
            && value != keys::KPA_CLASS
            && value != keys::HPA_CLASS
        {
            self.invalid(keys::CLASS, name, &value);
        }
    }

    fn floats(&mut self) {
        for (key, low, high) in [
            (keys::PANIC_WINDOW, 1.0, 100.0),
            (keys::PANIC_THRESHOLD, 110.0, 1000.0),
            (keys::UTILIZATION, 1.0, 100.0),
        ] {
            let Some((name, value)) = self.find(key) else {
                continue;
            };
            match parse_float(&value, self.policy) {
                None => self.invalid(key, name, &value),
                Some(number) if number < low || number > high => {
                    self.error(name, &value, format!("expected {low} <= {value} <= {high}"));
                }
                Some(_) => {}
            }
        }
        if let Some((name, value)) = self.find(keys::TARGET) {
            match parse_float(&value, self.policy) {
                None => self.invalid(keys::TARGET, name, &value),
                Some(target) if target < 0.01 => {
                    self.error(
                        name,
                        &value,
                        format!("target {value} should be at least 0.01"),
                    );
                }
                Some(_) => {}
            }
        }
        if let Some((name, value)) = self.find(keys::BURST) {
            #[expect(clippy::float_cmp, reason = "only the very number -1 means unlimited")]
            let refused =
                parse_float(&value, self.policy).is_none_or(|burst| burst < 0.0 && burst != -1.0);
            if refused {
                self.invalid(keys::BURST, name, &value);
            }
        }
    }

    fn durations(&mut self) {
        self.duration(keys::WINDOW, (6 * SECOND, "6s"), (HOUR, "1h0m0s"), true);
        self.duration(keys::SCALE_DOWN_DELAY, (0, "0s"), (HOUR, "1h0m0s"), true);
        self.duration(keys::POD_RETENTION, (0, "0s"), (HOUR, "1h0m0s"), false);
    }

    fn duration(&mut self, key: Key, low: (Nanos, &str), high: (Nanos, &str), whole_seconds: bool) {
        let Some((name, value)) = self.find(key) else {
            return;
        };
        match parse_duration(&value) {
            None => self.invalid(key, name, &value),
            Some(nanos) if nanos < low.0 || nanos > high.0 => {
                self.error(
                    name,
                    &value,
                    format!("expected {} <= {value} <= {}", low.1, high.1),
                );
            }
            Some(nanos) if whole_seconds && nanos % SECOND != 0 => {
                self.error(
                    name,
                    &value,
                    "must be specified with at most second precision".to_owned(),
                );
            }
            Some(_) => {}
        }
    }

    fn metric(&mut self, config: &ClusterConfig) {
        let class = keys::CLASS
            .value(self.annotations)
            .unwrap_or(&config.pod_autoscaler_class);
        let is_wrong = |metric: &str| match class {
            keys::KPA_CLASS => metric != "concurrency" && metric != "rps",
            keys::HPA_CLASS => metric.is_empty(),
            _ => false,
        };
        if let Some((name, value)) = self.find(keys::METRIC)
            && is_wrong(&value)
        {
            self.invalid(keys::METRIC, name, &value);
        }
    }

    /// Checked only if the class is spelled out, even though it is also the default.
    fn algorithm(&mut self) {
        if keys::CLASS.value(self.annotations) != Some(keys::KPA_CLASS) {
            return;
        }
        if let Some((name, value)) = self.find(keys::ALGORITHM)
            && !matches!(
                value.as_str(),
                "" | "linear" | "weighted-exponential" | "weightedExponential"
            )
        {
            self.invalid(keys::ALGORITHM, name, &value);
        }
    }

    /// Zero is no limit. Less than a second is a slip: every answer would cost a connection, or fail.
    fn limits(&mut self) {
        for key in [
            keys::MAX_CONNECTION_AGE,
            keys::REQUEST_TIMEOUT,
            keys::RESPONSE_START_TIMEOUT,
            keys::IDLE_TIMEOUT,
        ] {
            self.duration(key, (0, "0s"), (24 * HOUR, "24h0m0s"), false);
            if let Some((name, value)) = self.find(key)
                && parse_duration(&value).is_some_and(|nanos| 0 < nanos && nanos < SECOND)
            {
                self.error(
                    name,
                    &value,
                    format!("expected 0s or 1s <= {value} <= 24h0m0s"),
                );
            }
        }
    }

    /// The keys under `rouse.dev/`.
    fn ours(&mut self) {
        for (key, low, high) in [
            (keys::CONTAINER_CONCURRENCY, 0, 1000),
            (keys::MAX_HELD, 1, 1_000_000),
            (keys::SOFT_LIMIT, 0, 1_000_000),
        ] {
            let Some((name, value)) = self.find(key) else {
                continue;
            };
            match parse_int(&value) {
                Some(number) if (low..=high).contains(&number) => {}
                Some(_) => self.error(name, &value, format!("expected {low} <= {value} <= {high}")),
                None => self.invalid(key, name, &value),
            }
        }
        self.duration(
            keys::MAX_COLD_START,
            (SECOND, "1s"),
            (24 * HOUR, "24h0m0s"),
            false,
        );
        self.limits();
        self.duration(
            keys::BACKLOG_CLEAR_TIME,
            (SECOND, "1s"),
            (HOUR, "1h0m0s"),
            false,
        );
        self.duration(keys::MIN_STAY, (0, "0s"), (24 * HOUR, "24h0m0s"), false);
        self.boolean(keys::COLD_START_AWARE);
        self.boolean(keys::BOUNCE);
        if let Some((name, value)) = self.find(keys::READY_PATH)
            && !is_absolute_path(&value)
        {
            self.invalid(keys::READY_PATH, name, &value);
        }
        if let Some((name, value)) = self.find(keys::ALLOWED_NAMESPACES)
            && AllowedNamespaces::parse(&value).is_none()
        {
            self.invalid(keys::ALLOWED_NAMESPACES, name, &value);
        }
        self.opt_ins();
    }

    /// What is done for clients.
    fn opt_ins(&mut self) {
        if let Some((name, value)) = self.find(keys::PROBE_PATHS)
            && !list(&value).all(is_bare_path)
        {
            self.invalid(keys::PROBE_PATHS, name, &value);
        }
        if let Some((name, value)) = self.find(keys::PROBE_ANSWER)
            && !parse_int(&value).is_some_and(|status| (200..=599).contains(&status))
        {
            self.invalid(keys::PROBE_ANSWER, name, &value);
        }
        self.duration(
            keys::SSE_HEARTBEAT,
            (SECOND, "1s"),
            (300 * SECOND, "5m0s"),
            false,
        );
        self.boolean(keys::PLACEHOLDER);
        if let Some((name, value)) = self.find(keys::PLACEHOLDER_TITLE)
            && !is_title(&value)
        {
            self.invalid(keys::PLACEHOLDER_TITLE, name, &value);
        }
        self.boolean(keys::OPENAI_ERRORS);
    }

    fn boolean(&mut self, key: Key) {
        if let Some((name, value)) = self.find(key)
            && !matches!(value.as_str(), "true" | "false")
        {
            self.invalid(key, name, &value);
        }
    }
}

/// A line that a heading has room for.
fn is_title(text: &str) -> bool {
    let length = text.trim().chars().count();
    (1..=LONGEST_TITLE).contains(&length) && !text.chars().any(char::is_control)
}

/// A path that the path of a request can be equal to, and that a list separated by commas can name.
fn is_bare_path(text: &str) -> bool {
    is_absolute_path(text) && !text.contains(['?', ','])
}

/// Something that can stand in a request line as it is. The sidecar is given it by a flag that takes the same: a test there holds
/// the two against each other.
fn is_absolute_path(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_graphic() && !b"\"#<>`".contains(&b);
    text.starts_with('/') && text.len() <= LONGEST_PATH && text.bytes().all(allowed)
}
