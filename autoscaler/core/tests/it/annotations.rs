//! Every case of annotations.json that has a counterpart here.
//!
//! Left out, and why:
//! - `misplaced`: Knative's Services and Configurations keep these annotations off their own metadata; a Deployment is
//!   where ours belong.
//! - `rollout`: `serving.knative.dev/rollout-duration` is about revisions, which do not exist here.
//! - cases marked `nonfinite`: NaN and infinities are refused here. They are read all the same, and asserted to be refused
//!   wherever the value is of a key that is in force.
//! - in `resolve`: the fields `class`, `progress_deadline_ns` and the raw text of `algorithm`. What Knative carries on as
//!   a negative number (min scale, retention, delay) is zero here, and a negative initial scale is the cluster's.
//! - in `config`: the words of range errors. Acceptance and the key are compared.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use autoscaler_core::annotations::{self, AnnotationError};
use autoscaler_core::{Aggregation, BurstCapacity, ClusterConfig, Metric, Replicas};
use serde_json::{Map, Value};

use crate::support::{Tally, cases, float, int, map, text};

#[test]
fn agrees_with_knative_on_every_annotation() {
    let mut tally = Tally::default();
    for case in cases("annotations.json") {
        let group = text(&case, "group");
        match group {
            "single" | "combo" | "pair" | "edge" => validate(&case),
            "config" => config(&case),
            "resolve" => resolve(&case),
            "misplaced" | "rollout" => {}
            _ => panic!("unknown group {group}"),
        }
        tally.add(group);
    }
    tally.assert(&[
        ("combo", 190),
        ("config", 530),
        ("edge", 19),
        ("misplaced", 6),
        ("pair", 20),
        ("resolve", 120),
        ("rollout", 14),
        ("single", 642),
    ]);
}

fn cluster(case: &Value) -> ClusterConfig {
    ClusterConfig::parse(&map(&case["config"]))
        .unwrap_or_else(|error| panic!("{}: {error}", case["id"]))
}

/// Messages with all their paths, as Knative prints them.
type Messages = BTreeMap<String, BTreeSet<String>>;

fn merged(errors: &[AnnotationError]) -> Messages {
    let mut messages = Messages::new();
    for error in errors {
        messages
            .entry(error.message.clone())
            .or_default()
            .extend(error.paths.iter().cloned());
    }
    messages
}

fn validate(case: &Value) {
    let result = annotations::parse(&map(&case["annotations"]), &cluster(case));
    let got = result
        .err()
        .map(|invalid| merged(&invalid.errors))
        .unwrap_or_default();
    if case["nonfinite"] == true {
        assert!(!got.is_empty(), "{}: not finite, and accepted", case["id"]);
        return;
    }
    let mut want = Messages::new();
    for error in case["errors"].as_array().expect("errors") {
        let paths = error["paths"].as_array().expect("paths").iter();
        want.entry(text(error, "message").to_owned())
            .or_default()
            .extend(paths.map(|path| path.as_str().expect("a path").to_owned()));
    }
    assert_eq!(got, want, "{}: {}", case["id"], case["annotations"]);
    assert_eq!(
        Some(got.is_empty()),
        case["accepted"].as_bool(),
        "{}",
        case["id"]
    );
}

fn config(case: &Value) {
    let result = ClusterConfig::parse(&map(&case["data"]));
    if case["nonfinite"] == true {
        assert!(result.is_err(), "{}: not finite, and accepted", case["id"]);
        return;
    }
    match result {
        Ok(parsed) => {
            assert_eq!(
                case["accepted"], true,
                "{}: {} accepted",
                case["id"], case["data"]
            );
            let want = case["parsed"].as_object().expect("parsed");
            compare(&parsed, want, &case["id"]);
        }
        Err(error) => {
            assert_eq!(case["accepted"], false, "{}: {error}", case["id"]);
            // Of several wrong keys, which one is named first is our own affair.
            let several = case["data"].as_object().expect("data").len() > 1
                && case["data"].get(error.key).is_some();
            match text(case, "error_kind") {
                "parse" => assert!(
                    several || error.key == text(case, "error_key"),
                    "{}: {error}",
                    case["id"]
                ),
                "range" => assert!(
                    several || text(case, "error").contains(error.key),
                    "{}: {error}",
                    case["id"]
                ),
                kind => panic!("unknown kind {kind}"),
            }
        }
    }
}

/// `want` holds the fields that differ from the defaults, so the defaults are laid under it and all are compared.
fn compare(parsed: &ClusterConfig, want: &Map<String, Value>, id: &Value) {
    let left = fields(parsed);
    let mut right = fields(&ClusterConfig::default());
    for (key, value) in want {
        assert!(
            right.insert(key.clone(), value.clone()).is_some(),
            "{id}: unknown field {key}"
        );
    }
    for (key, got) in left {
        let want = &right[&key];
        match (got.as_f64(), want.as_f64()) {
            (Some(got), Some(want)) => {
                assert!(
                    (got - want).abs() <= 1e-12 * want.abs(),
                    "{id} {key}: {got} instead of {want}"
                );
            }
            _ => assert_eq!(&got, want, "{id} {key}"),
        }
    }
}

fn fields(config: &ClusterConfig) -> BTreeMap<String, Value> {
    let nanos = |duration: Duration| Value::from(u64::try_from(duration.as_nanos()).expect("fits"));
    let limit = |count: Option<Replicas>| Value::from(count.map_or(0, Replicas::get));
    [
        ("enable-scale-to-zero", config.enable_scale_to_zero.into()),
        (
            "container-concurrency-target-fraction",
            config.container_concurrency_target_fraction.into(),
        ),
        (
            "container-concurrency-target-default",
            config.container_concurrency_target_default.into(),
        ),
        (
            "requests-per-second-target-default",
            config.requests_per_second_target_default.into(),
        ),
        // Fixed here; the vectors never show it as changed.
        ("target-utilization", 0.7.into()),
        (
            "target-burst-capacity",
            match config.target_burst_capacity {
                BurstCapacity::Unlimited => (-1.0).into(),
                BurstCapacity::Requests(requests) => requests.into(),
            },
        ),
        ("activator-capacity", config.activator_capacity.into()),
        (
            "allow-zero-initial-scale",
            config.allow_zero_initial_scale.into(),
        ),
        ("initial-scale", config.initial_scale.get().into()),
        ("min-scale", config.min_scale.get().into()),
        ("max-scale", limit(config.max_scale)),
        ("max-scale-limit", limit(config.max_scale_limit)),
        ("max-scale-up-rate", config.max_scale_up_rate.into()),
        ("max-scale-down-rate", config.max_scale_down_rate.into()),
        ("stable-window-ns", nanos(config.stable_window)),
        (
            "panic-window-percentage",
            config.panic_window_percentage.into(),
        ),
        (
            "panic-threshold-percentage",
            config.panic_threshold_percentage.into(),
        ),
        (
            "scale-to-zero-grace-period-ns",
            nanos(config.scale_to_zero_grace_period),
        ),
        (
            "scale-to-zero-pod-retention-period-ns",
            nanos(config.scale_to_zero_pod_retention_period),
        ),
        ("scale-down-delay-ns", nanos(config.scale_down_delay)),
        (
            "pod-autoscaler-class",
            config.pod_autoscaler_class.clone().into(),
        ),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}

fn resolve(case: &Value) {
    let mut given = map(&case["annotations"]);
    given.insert(
        "rouse.dev/container-concurrency".to_owned(),
        case["container_concurrency"].to_string(),
    );
    let config = cluster(case);
    let spec = annotations::resolve(&given, &config);
    let (id, want) = (&case["id"], &case["want"]);
    if case["nonfinite"] == true {
        assert!(
            spec.target.is_finite() && spec.total.is_finite() && spec.panic_threshold.is_finite(),
            "{id}"
        );
        return;
    }
    let reachable = match text(case, "reachability") {
        "" | "Reachable" => true,
        "Unreachable" => false,
        other => panic!("unknown reachability {other}"),
    };
    assert_eq!(want["reachable"], reachable, "{id}");
    let near = |got: f64, field: &str| {
        let want = float(&want[field]);
        assert!(
            (got - want).abs() <= 1e-12 * want.abs(),
            "{id} {field}: {got} instead of {want}"
        );
    };
    near(spec.target, "target");
    near(spec.total, "total");
    near(spec.panic_threshold, "panic_threshold");
    match spec.target_burst_capacity {
        BurstCapacity::Unlimited => assert!(float(&want["target_burst_capacity"]) < 0.0, "{id}"),
        BurstCapacity::Requests(requests) => near(requests, "target_burst_capacity"),
    }
    let not_negative = |field: &str| int(&want[field]).max(0);
    let nanos = |duration: Duration| i64::try_from(duration.as_nanos()).expect("fits");
    for (got, field) in [
        (nanos(spec.stable_window), "stable_window_ns"),
        (nanos(spec.panic_window), "panic_window_ns"),
        (nanos(spec.scale_down_delay), "scale_down_delay_ns"),
        (nanos(spec.pod_retention), "pod_retention_ns"),
        (i64::from(spec.lower_bound(reachable).get()), "min_scale"),
        (
            i64::from(spec.max_scale.map_or(0, Replicas::get)),
            "max_scale",
        ),
    ] {
        assert_eq!(got, not_negative(field), "{id} {field}");
    }
    let initial = int(&want["initial_scale"]);
    let initial = if initial < 0 {
        i64::from(config.initial_scale.get())
    } else {
        initial
    };
    assert_eq!(i64::from(spec.initial_scale.get()), initial, "{id}");
    // 1 and less change nothing in Knative's algorithm either.
    let activation = int(&want["activation_scale"]);
    let activation = if activation > 1 { activation } else { 0 };
    assert_eq!(
        i64::from(spec.activation_scale.map_or(0, Replicas::get)),
        activation,
        "{id}"
    );
    assert_eq!(spec.metric == Metric::Rps, want["metric"] == "rps", "{id}");
    let weighted = matches!(
        text(want, "algorithm"),
        "weighted-exponential" | "weightedExponential"
    );
    assert_eq!(
        spec.aggregation == Aggregation::WeightedExponential,
        weighted,
        "{id}"
    );
}
