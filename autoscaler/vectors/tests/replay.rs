//! The recorded cases in `data`, and that a replay can fail.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use autoscaler_core::{ClusterConfig, annotations};
use serde_json::{Value, json};
use vectors::{Report, replay};

fn data(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("data")
        .join(name);
    fs::read_to_string(&path).expect("the file is there")
}

fn parsed(name: &str) -> Value {
    serde_json::from_str(&data(name)).expect("it is JSON")
}

/// Everything in this file agrees, and no group has more or fewer cases than these: (passed, not applicable).
fn agrees(name: &str, groups: &[(&str, usize, usize)]) {
    let report = replay(name, &data(name));
    assert_eq!(report.differences, Vec::<String>::new(), "{report}");
    let got: Vec<_> = report
        .groups
        .iter()
        .map(|(group, tally)| (group.as_str(), tally.passed, tally.not_applicable))
        .collect();
    assert_eq!(got, groups, "{report}");
    assert_eq!(report.failed(), 0);
    for (group, tally) in &report.groups {
        let told = tally.why.is_some_and(|why| why.ends_with('.'));
        assert_eq!(told, tally.not_applicable > 0, "{group}: {tally:?}");
    }
}

#[test]
fn agrees_with_knative_on_every_window() {
    agrees("window.json", &[("edge", 64, 0), ("random", 80, 0)]);
}

#[test]
fn agrees_with_knative_on_every_decision() {
    agrees(
        "decide.json",
        &[
            ("edge", 61, 0),
            ("multiscaler", 16, 0),
            ("num_activators", 90, 0),
            ("random", 58, 0),
            ("trace", 10, 0),
        ],
    );
}

#[test]
fn agrees_with_knative_on_every_collection() {
    agrees("collector.json", &[("edge", 24, 0), ("random", 44, 0)]);
}

#[test]
fn agrees_with_knative_on_every_sample_of_pods() {
    agrees(
        "scrape.json",
        &[
            ("direct", 80, 0),
            ("pod_counts", 0, 30),
            ("sample_size", 1, 0),
            ("service", 0, 15),
        ],
    );
}

#[test]
fn agrees_with_knative_on_every_account_of_requests() {
    agrees(
        "requeststats.json",
        &[
            ("activator", 0, 40),
            ("edge", 15, 0),
            ("random", 90, 0),
            ("reporter", 0, 14),
        ],
    );
}

#[test]
fn agrees_with_knative_on_every_annotation() {
    agrees(
        "annotations.json",
        &[
            ("combo", 190, 0),
            ("config", 530, 0),
            ("edge", 19, 0),
            ("misplaced", 0, 6),
            ("pair", 20, 0),
            ("resolve", 120, 0),
            ("rollout", 0, 14),
            ("single", 642, 0),
        ],
    );
}

#[test]
fn knows_every_group_of_buckets() {
    agrees(
        "buckets.json",
        &[
            ("bucket_host", 0, 9),
            ("identity", 0, 11),
            ("names", 0, 4),
            ("owner", 0, 10),
            ("owner_custom", 0, 10),
            ("subset", 0, 161),
        ],
    );
}

/// What Knative reads although it is not finite is refused unless Knative's habit is asked for.
#[test]
fn no_recorded_case_that_is_not_finite_is_accepted_by_default() {
    let whole = parsed("annotations.json");
    let map = |value: &Value| -> BTreeMap<String, String> {
        let pairs = value.as_object().unwrap().iter();
        pairs
            .map(|(key, value)| (key.clone(), value.as_str().unwrap().to_owned()))
            .collect()
    };
    let mut seen = 0;
    let cases = whole["cases"].as_array().unwrap().iter();
    for case in cases.filter(|case| case["nonfinite"] == true) {
        let refused = match case["group"].as_str().unwrap() {
            "config" => ClusterConfig::parse(&map(&case["data"])).is_err(),
            "resolve" => {
                let spec = annotations::resolve(
                    &map(&case["annotations"]),
                    &ClusterConfig::parse(&map(&case["config"])).unwrap(),
                );
                [spec.target, spec.total, spec.panic_threshold]
                    .iter()
                    .all(|value| value.is_finite())
            }
            _ => {
                let config = ClusterConfig::parse(&map(&case["config"])).unwrap();
                annotations::parse(&map(&case["annotations"]), &config).is_err()
            }
        };
        assert!(refused, "{case}");
        seen += 1;
    }
    assert!(seen > 50, "{seen}");
}

/// The file with this changed in the first case of `group` that has something at this JSON pointer.
fn changed(name: &str, group: &str, pointer: &str, to: Value) -> Report {
    let mut whole = parsed(name);
    let cases = whole["cases"].as_array_mut().expect("a list");
    let mut cases = cases.iter_mut().filter(|case| case["group"] == group);
    let place = cases.find_map(|case| case.pointer_mut(pointer));
    *place.expect("a case has it") = to;
    replay(name, &whole.to_string())
}

#[test]
fn one_changed_expectation_is_one_failed_case_of_every_group() {
    for (name, group, pointer, to) in [
        ("window.json", "edge", "/ops/0/2", json!(7.5)),
        ("decide.json", "edge", "/ticks/0/want/desired", json!(77)),
        (
            "decide.json",
            "random",
            "/ticks/0/want/max_panic",
            json!(77),
        ),
        ("decide.json", "multiscaler", "/create/status/1", json!(77)),
        (
            "decide.json",
            "num_activators",
            "/num_activators",
            json!(77),
        ),
        ("decide.json", "trace", "/events/2/3/p", json!(0.5)),
        ("collector.json", "edge", "/events/0/conc", json!([1, 0])),
        (
            "collector.json",
            "random",
            "/events/0/informed",
            json!(true),
        ),
        ("scrape.json", "sample_size", "/table/9/1", json!(3)),
        ("scrape.json", "direct", "/want/none", json!(false)),
        ("requeststats.json", "edge", "/events/0/2", json!(0.1)),
        ("requeststats.json", "random", "/events/0/4", json!(1)),
        ("annotations.json", "single", "/accepted", json!(false)),
        (
            "annotations.json",
            "config",
            "/parsed",
            json!({"min-scale": 1}),
        ),
        ("annotations.json", "resolve", "/want/total", json!(7)),
    ] {
        let whole = replay(name, &data(name)).passed();
        let report = changed(name, group, pointer, to);
        assert_eq!((report.passed(), report.failed()), (whole - 1, 1), "{name}");
        assert_eq!(report.groups[group].failed, 1, "{name}");
        assert!(!report.differences.is_empty(), "{name}");
    }
}

#[test]
fn a_difference_names_case_place_and_both_values() {
    let report = changed("decide.json", "edge", "/ticks/0/want/desired", json!(77));
    let [difference] = &report.differences[..] else {
        panic!("{report:?}")
    };
    let told = difference.starts_with("edge-") && difference.contains(": desired, tick at ");
    assert!(told && difference.ends_with(", wanted 77"), "{difference}");
    assert_eq!(report.to_string(), "decide.json: 234 passed, 1 failed");
}

#[test]
fn strange_input_fails_and_says_why() {
    let case = |case: Value| json!({"cases": [case]}).to_string();
    for (text, says) in [
        (
            data("window.json")[..9_000].to_owned(),
            "this is not JSON: EOF",
        ),
        ("[]".to_owned(), "there is no list of cases in it"),
        (
            json!({"cases": []}).to_string(),
            "there is no list of cases in it",
        ),
        (
            json!({"about": {"topic": "cooking"}}).to_string(),
            "no such topic: \"cooking\"",
        ),
        (case(json!(7)), "case 1: it is in no group"),
        (
            case(json!({"id": "a", "group": "new"})),
            "a: window has no group \"new\"",
        ),
        (
            case(json!({"id": "a", "group": "edge"})),
            "a: cannot be read: there is no \"kind\"",
        ),
        (
            case(json!({"id": "a", "group": "edge", "kind": "cubic", "window_ms": 1})),
            "a: cannot be read: unknown kind: cubic",
        ),
        (
            case(json!({"id": "a", "group": "edge", "kind": "linear", "window_ms": -1})),
            "a: cannot be read: -1 is not a span of milliseconds",
        ),
        (
            case(
                json!({"id": "a", "group": "edge", "kind": "linear", "window_ms": 6000,
                "base_unix_ms": 1, "ops": [["r", i64::MAX, 1]]}),
            ),
            "a: cannot be read: 9223372036854775807 is not a time after the epoch",
        ),
        (
            case(
                json!({"id": "a", "group": "edge", "kind": "linear", "window_ms": 6000,
                "base_unix_ms": 1, "ops": [[]]}),
            ),
            "a: cannot be read: [] has no item 1",
        ),
    ] {
        let report = replay("window.json", &text);
        assert_eq!((report.passed(), report.failed()), (0, 1), "{says}");
        assert!(report.differences[0].starts_with(says), "{report:?}");
    }
}

/// JSON pointers to everything below `value`, its lists and maps included.
fn pointers(value: &Value, above: &str, found: &mut Vec<String>) {
    let below: Vec<(String, &Value)> = match value {
        Value::Array(items) => (0..).map(|n: usize| n.to_string()).zip(items).collect(),
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| (key.replace('~', "~0").replace('/', "~1"), value))
            .collect(),
        _ => Vec::new(),
    };
    for (key, value) in below {
        let pointer = format!("{above}/{key}");
        pointers(value, &pointer, found);
        found.push(pointer);
    }
}

#[test]
fn whatever_stands_in_a_case_nothing_panics() {
    const STEPS: usize = 60;
    let strange = [
        json!(null),
        json!(-1),
        json!(i64::MAX),
        json!(i64::MIN),
        json!(1e308),
        json!("NaN"),
        json!([]),
        json!({"t": 0}),
    ];
    for name in [
        "annotations.json",
        "collector.json",
        "decide.json",
        "requeststats.json",
        "scrape.json",
        "window.json",
    ] {
        let whole = parsed(name);
        let mut groups = BTreeMap::new();
        for case in whole["cases"].as_array().unwrap() {
            groups.insert(case["group"].to_string(), case);
        }
        for case in groups.into_values() {
            let mut all = Vec::new();
            pointers(case, "", &mut all);
            for pointer in all.iter().step_by(all.len().div_ceil(STEPS)) {
                for value in &strange {
                    let mut case = case.clone();
                    *case.pointer_mut(pointer).unwrap() = value.clone();
                    let report = replay(name, &json!({"cases": [case]}).to_string());
                    assert_eq!(report.groups.len(), 1, "{name} {pointer} {value}");
                }
            }
        }
    }
}

#[test]
fn the_topic_is_told_by_the_file_or_else_by_its_name() {
    let renamed = replay("anything.json", &data("buckets.json"));
    assert_eq!(
        renamed.to_string(),
        "anything.json: 0 passed, 0 failed, 205 not applicable"
    );
    let mut whole = parsed("buckets.json");
    whole["about"] = Value::Null;
    let report = replay("buckets.json", &whole.to_string());
    assert_eq!((report.failed(), report.not_applicable()), (0, 205));
    let wire = json!({"cases": [{"id": "a", "group": "stat"}]}).to_string();
    let report = replay("wire.json", &wire);
    assert_eq!((report.failed(), report.not_applicable()), (0, 1));
}
