//! Annotations that the webhook itself reads, beside those of `autoscaler_core::annotations`.

use std::time::Duration;

use autoscaler_core::annotations::{self, AnnotationError, Annotations};
use kubernetes::names;
use shared::record::Form;

mod duration;
mod resources;

pub use resources::{KEYS as RESOURCE_KEYS, Quantities, Resource};

/// The two groups whose annotations have a meaning for us.
const GROUPS: [&str; 2] = ["autoscaling.knative.dev/", "rouse.dev/"];

/// A form of the request log may be this long, in bytes: its fields take some 300.
const LONGEST_FORM: usize = 2_048;

/// What the annotations ask of the sidecar.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Asked {
    pub(crate) container_concurrency: u32,
    pub(crate) ready_path: Option<String>,
    pub(crate) max_connection_age: Option<Duration>,
    pub(crate) request_timeout: Option<Duration>,
    pub(crate) response_start_timeout: Option<Duration>,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) bounce: bool,
    pub(crate) soft_limit: Option<u32>,
    pub(crate) probe_paths: Vec<String>,
    pub(crate) openai_errors: bool,
    pub(crate) drain_grace: Option<Duration>,
    /// The form of the request log as it is written: the sidecar reads it.
    pub(crate) request_log: Option<String>,
    /// The list of request ports as it is written.
    pub(crate) ports: Option<String>,
    pub(crate) resources: Quantities,
}

/// What is wrong, one line each, never empty; and what has no effect.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Wrong {
    pub(crate) errors: Vec<String>,
    pub(crate) warnings: Vec<String>,
}

/// Reads everything; the second value is what has no effect.
pub(crate) fn read(
    all: &Annotations,
    config: &autoscaler_core::ClusterConfig,
) -> Result<(Asked, Vec<String>), Wrong> {
    // The core does not know the keys of this crate and would call them unknown, and those on a Pod are our own.
    let known: Annotations = all
        .iter()
        .filter(|(key, _)| !is_ours(key))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let (mut errors, spec, warnings) = match annotations::parse(&known, config) {
        Ok(parsed) => (Vec::new(), Some(parsed.spec), parsed.warnings),
        Err(invalid) => (invalid.errors, None, invalid.warnings),
    };
    let warnings = warnings.iter().map(ToString::to_string).collect();
    let mut asked = Asked::default();
    read_own(all, &mut asked, &mut errors);
    match spec {
        Some(spec) if errors.is_empty() => {
            asked.container_concurrency = spec.container_concurrency;
            asked.ready_path = spec.ready_path;
            asked.max_connection_age = spec.max_connection_age;
            asked.bounce = spec.bounce;
            asked.soft_limit = spec.soft_limit;
            asked.probe_paths = spec.opt_ins.probe_paths;
            asked.openai_errors = spec.opt_ins.openai_errors;
            asked.request_timeout = spec.request_timeout;
            asked.response_start_timeout = spec.response_start_timeout;
            asked.idle_timeout = spec.idle_timeout;
            Ok((asked, warnings))
        }
        _ => Err(Wrong {
            errors: errors.iter().map(ToString::to_string).collect(),
            warnings,
        }),
    }
}

/// The soft limit of a pod of which `all` is said. It follows from how the workload is scaled, which never keeps a pod from being made:
/// what cannot be read of that counts as absent.
pub(crate) fn soft_limit(
    all: &Annotations,
    config: &autoscaler_core::ClusterConfig,
) -> Option<u32> {
    annotations::resolve(all, config).soft_limit
}

/// A workload's annotations over which its template's win.
pub(crate) fn merged(workload: &Annotations, template: &Annotations) -> Annotations {
    let ours = |(key, _): &(&String, &String)| has_meaning(key);
    workload
        .iter()
        .filter(ours)
        .chain(template.iter().filter(ours))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// Keys that the sidecar is configured from when its pod is made.
pub(crate) fn sidecar_keys() -> impl Iterator<Item = &'static str> {
    let own = [
        "rouse.dev/container-concurrency",
        "rouse.dev/ready-path",
        "rouse.dev/max-connection-age",
        "rouse.dev/probe-paths",
        "rouse.dev/openai-errors",
        "rouse.dev/request-timeout",
        "rouse.dev/response-start-timeout",
        "rouse.dev/idle-timeout",
        "rouse.dev/bounce",
        "rouse.dev/soft-limit",
        names::PORTS,
        names::DRAIN_GRACE,
        names::REQUEST_LOG,
    ];
    let resources = RESOURCE_KEYS
        .iter()
        .flat_map(|resource| [resource.key, resource.alias]);
    own.into_iter().chain(resources)
}

fn has_meaning(key: &str) -> bool {
    GROUPS.iter().any(|group| key.starts_with(group)) || resources::is_one(key)
}

/// Keys that this crate reads or writes and the core does not know.
fn is_ours(key: &str) -> bool {
    resources::is_one(key) || [names::UPSTREAM_PORTS, names::WORKLOAD].contains(&key)
}

fn read_own(all: &Annotations, asked: &mut Asked, errors: &mut Vec<AnnotationError>) {
    let mut refuse =
        |key: &str, value: &str, allowed: &str| errors.push(invalid(key, value, allowed));
    for key in [names::PAUSED] {
        if let Some(value) = all.get(key)
            && !["true", "false"].contains(&value.as_str())
        {
            refuse(key, value, "true or false");
        }
    }
    if let Some(value) = all.get(names::FALLBACK)
        && value != "standing"
    {
        refuse(names::FALLBACK, value, "standing");
    }
    if let Some(value) = all.get(names::DRAIN_GRACE) {
        asked.drain_grace = duration::parse(value)
            .filter(|grace| (Duration::from_secs(1)..=Duration::from_hours(24)).contains(grace));
        if asked.drain_grace.is_none() {
            refuse(names::DRAIN_GRACE, value, "a duration from 1s to 24h");
        }
    }
    if let Some(value) = all.get(names::REQUEST_LOG) {
        let allowed = format!(
            "json, or a template such as \"{{method}} {{path}} {{status}}\" of at most {LONGEST_FORM} bytes"
        );
        match value.parse::<Form>() {
            Ok(_) if value.len() <= LONGEST_FORM => asked.request_log = Some(value.clone()),
            Ok(_) => refuse(
                names::REQUEST_LOG,
                &format!("{} bytes", value.len()),
                &allowed,
            ),
            Err(wrong) => refuse(names::REQUEST_LOG, value, &format!("{allowed} ({wrong})")),
        }
    }
    // What it names is checked against the containers.
    asked.ports = all.get(names::PORTS).cloned();
    match Quantities::read(all) {
        Ok(resources) => asked.resources = resources,
        Err(wrong) => errors.extend(wrong),
    }
}

/// The error in the words of the core.
fn invalid(key: &str, value: &str, allowed: &str) -> AnnotationError {
    AnnotationError {
        key: key.to_owned(),
        value: value.to_owned(),
        message: format!("invalid value: {value}"),
        allowed: Some(allowed.to_owned()),
        paths: vec![key.to_owned()],
    }
}

/// Annotations of an object's metadata.
pub(crate) fn of(meta: &kube::api::ObjectMeta) -> Annotations {
    meta.annotations.clone().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(pairs: &[(&str, &str)]) -> Result<Asked, Vec<String>> {
        let all = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        read(&all, &autoscaler_core::ClusterConfig::default())
            .map(|(asked, warnings)| {
                assert_eq!(warnings, Vec::<String>::new());
                asked
            })
            .map_err(|wrong| wrong.errors)
    }

    #[test]
    fn reads_what_the_sidecar_must_know() {
        let asked = told(&[
            ("rouse.dev/container-concurrency", "4"),
            ("rouse.dev/ready-path", "/up"),
            ("rouse.dev/max-connection-age", "2m"),
            ("rouse.dev/probe-paths", "/healthz, /metrics"),
            ("rouse.dev/openai-errors", "true"),
            ("rouse.dev/request-timeout", "1h"),
            ("rouse.dev/response-start-timeout", "2s"),
            ("rouse.dev/idle-timeout", "1.5s"),
            ("rouse.dev/bounce", "false"),
            ("rouse.dev/soft-limit", "7"),
            (names::DRAIN_GRACE, "1m30s"),
            (names::REQUEST_LOG, "{method} {status}"),
            (names::PORTS, "8080,grpc"),
            ("rouse.dev/sidecar-cpu-request", "100m"),
        ])
        .unwrap();
        assert_eq!(asked.container_concurrency, 4);
        assert_eq!(asked.ready_path.as_deref(), Some("/up"));
        assert_eq!(asked.max_connection_age, Some(Duration::from_mins(2)));
        assert_eq!(asked.request_timeout, Some(Duration::from_hours(1)));
        assert_eq!(asked.response_start_timeout, Some(Duration::from_secs(2)));
        assert_eq!(asked.idle_timeout, Some(Duration::from_millis(1_500)));
        assert_eq!(asked.probe_paths, ["/healthz", "/metrics"]);
        assert!(asked.openai_errors);
        assert_eq!((asked.bounce, asked.soft_limit), (false, Some(7)));
        assert_eq!(asked.drain_grace, Some(Duration::from_secs(90)));
        assert_eq!(asked.ports.as_deref(), Some("8080,grpc"));
        assert_eq!(asked.request_log.as_deref(), Some("{method} {status}"));
    }

    #[test]
    fn a_bad_value_is_named_with_its_key_and_what_is_allowed() {
        let long = "{path}".repeat(LONGEST_FORM);
        for (key, value, part) in [
            (names::PAUSED, "yes", "true or false"),
            (names::FALLBACK, "never", "allowed is standing"),
            ("rouse.dev/probe-paths", "healthz", "absolute paths"),
            ("rouse.dev/probe-paths", "/a,,/b", "absolute paths"),
            ("rouse.dev/openai-errors", "yes", "true or false"),
            (names::DRAIN_GRACE, "5", "from 1s to 24h"),
            (names::DRAIN_GRACE, "25h", "from 1s to 24h"),
            (names::REQUEST_LOG, "", "json, or a template"),
            (names::REQUEST_LOG, "{methd}", "no field \"methd\""),
            (names::REQUEST_LOG, &long, "at most 2048 bytes"),
            ("rouse.dev/sidecar-memory-limit", "much", "quantity"),
            ("rouse.dev/max-connection-age", "1ms", "0s or 1s <= 1ms"),
            ("rouse.dev/request-timeout", "300", "from 1s to 24h"),
            ("rouse.dev/idle-timeout", "25h", "<= 24h"),
            ("rouse.dev/bounce", "no", "true or false"),
            ("rouse.dev/soft-limit", "-1", "0 <= -1 <= 1000000"),
            ("rouse.dev/container-concurrency", "-1", "1000"),
            ("rouse.dev/allowed-namespaces", "a,B", "separated by commas"),
            ("autoscaling.knative.dev/window", "1s", "6s <= 1s <= 1h0m0s"),
        ] {
            let errors = told(&[(key, value)]).unwrap_err();
            assert!(
                errors.len() == 1 && errors[0].starts_with(key) && errors[0].contains(part),
                "{key}={value}: {errors:?}"
            );
        }
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        let errors = told(&[
            (names::PAUSED, "1"),
            ("autoscaling.knative.dev/min-scale", "x"),
        ]);
        assert_eq!(errors.unwrap_err().len(), 2);
    }

    #[test]
    fn the_templates_annotations_win_and_others_are_left_out() {
        let map = |pairs: &[(&str, &str)]| -> Annotations {
            pairs
                .iter()
                .map(|(k, v)| ((*k).into(), (*v).into()))
                .collect()
        };
        assert_eq!(
            merged(
                &map(&[("rouse.dev/a", "1"), ("rouse.dev/b", "1"), ("other", "1")]),
                &map(&[("rouse.dev/b", "2"), ("else", "2")])
            ),
            map(&[("rouse.dev/a", "1"), ("rouse.dev/b", "2")])
        );
    }
}
