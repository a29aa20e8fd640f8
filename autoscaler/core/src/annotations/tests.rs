use std::time::Duration;

use super::*;
use crate::{OptIns, Replicas};

fn read(pairs: &[(&str, &str)]) -> Result<Parsed, Invalid> {
    let annotations = pairs
        .iter()
        .map(|&(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    parse(&annotations, &ClusterConfig::default())
}

#[test]
fn an_error_names_key_value_and_what_is_allowed() {
    for (key, value, line) in [
        (
            "autoscaling.knative.dev/target",
            "-1",
            r#"autoscaling.knative.dev/target: "-1": target -1 should be at least 0.01"#,
        ),
        (
            "autoscaling.knative.dev/minScale",
            "two",
            r#"autoscaling.knative.dev/minScale: "two": invalid value: two, allowed is 0 to 2147483647"#,
        ),
        (
            "rouse.dev/max-held",
            "0",
            r#"rouse.dev/max-held: "0": expected 1 <= 0 <= 1000000"#,
        ),
        (
            "rouse.dev/allowed-namespaces",
            "a,B",
            r#"rouse.dev/allowed-namespaces: "a,B": invalid value: a,B, allowed is *, or names of namespaces separated by commas"#,
        ),
    ] {
        assert_eq!(read(&[(key, value)]).expect_err(value).to_string(), line);
    }
}

#[test]
fn an_error_is_one_line_whatever_the_value() {
    let value = format!("a\nb{}", "x".repeat(10_000));
    let line = read(&[("autoscaling.knative.dev/window", &value)])
        .expect_err("no duration")
        .to_string();
    assert!(
        line.starts_with("autoscaling.knative.dev/window: \"a\\nbxxx"),
        "{line}"
    );
    assert!(!line.contains('\n') && line.len() < 600, "{line}");
    assert!(
        line.ends_with("allowed is whole seconds from 6s to 1h"),
        "{line}"
    );
}

#[test]
fn all_errors_come_at_once() {
    let invalid = read(&[
        ("autoscaling.knative.dev/window", "1s"),
        ("autoscaling.knative.dev/max-scale", "1"),
        ("autoscaling.knative.dev/min-scale", "2"),
        ("rouse.dev/ready-path", "health"),
    ])
    .expect_err("three are wrong");
    let keys: Vec<&str> = invalid
        .errors
        .iter()
        .map(|error| error.key.as_str())
        .collect();
    assert_eq!(
        keys,
        [
            "autoscaling.knative.dev/max-scale",
            "autoscaling.knative.dev/window",
            "rouse.dev/ready-path"
        ]
    );
}

#[test]
fn our_own_keys_have_ranges_and_defaults() {
    let spec = read(&[]).expect("nothing given").spec;
    assert_eq!(
        (
            spec.container_concurrency,
            spec.max_held,
            spec.max_cold_start,
            spec.max_connection_age,
            spec.ready_path
        ),
        (
            0,
            1000,
            Duration::from_mins(10),
            Some(Duration::from_secs(30)),
            None
        )
    );
    let spec = read(&[
        ("rouse.dev/container-concurrency", "4"),
        ("rouse.dev/max-held", "1000000"),
        ("rouse.dev/max-cold-start", "1h30m"),
        ("rouse.dev/max-connection-age", "2.5s"),
        ("rouse.dev/ready-path", "/v2/health/ready?x=1"),
        ("autoscaling.knative.dev/target", "10"),
    ])
    .expect("all in range")
    .spec;
    assert_eq!((spec.container_concurrency, spec.max_held), (4, 1_000_000));
    assert_eq!(spec.max_cold_start, Duration::from_mins(90));
    assert_eq!(spec.max_connection_age, Some(Duration::from_millis(2_500)));
    assert_eq!(spec.ready_path.as_deref(), Some("/v2/health/ready?x=1"));
    assert!(
        (spec.total - 4.0).abs() < 1e-9,
        "a pod cannot carry more than it serves at once"
    );

    for (key, values) in [
        ("container-concurrency", &["-1", "1001", "1.0", ""][..]),
        ("max-held", &["0", "1000001", "many"]),
        ("max-cold-start", &["999ms", "24h1s", "60"]),
        ("max-connection-age", &["999ms", "-1s", "24h1s", "60", ""]),
        ("request-timeout", &["999ms", "-1s", "24h1s", "60", ""]),
        ("response-start-timeout", &["999ms", "-1s", "24h1s", "60"]),
        ("idle-timeout", &["999ms", "-1s", "24h1s", "60", "none"]),
        (
            "ready-path",
            &[
                "", "health", "/a b", "/#top", "/\u{e9}", "/<a>", "/`a`", "/?\"",
            ],
        ),
        (
            "probe-paths",
            &["healthz", "/a,,/b", "/a b", "/a?b", "/<a>", "/a,"],
        ),
        ("probe-answer", &["", "199", "600", "OK", "200.0", "-1"]),
        ("sse-heartbeat", &["0s", "999ms", "5m1s", "15", ""]),
        ("placeholder", &["", "yes", "True"]),
        ("placeholder-title", &["", " ", "a\nb", "\u{7f}"]),
        ("openai-errors", &["", "1"]),
        ("bounce", &["", "no"]),
        ("soft-limit", &["-1", "1000001", "10.5", "none"]),
    ] {
        for value in values {
            assert!(
                read(&[(&format!("rouse.dev/{key}"), value)]).is_err(),
                "{key}={value:?}"
            );
        }
    }
}

#[test]
fn a_pod_hands_on_what_is_far_above_its_target_unless_it_is_told_not_to() {
    let of = |pairs: &[(&str, &str)]| {
        let spec = read(pairs).expect("in range").spec;
        (spec.bounce, spec.soft_limit)
    };
    let target = |target| of(&[("autoscaling.knative.dev/target", target)]);
    assert_eq!(of(&[]), (true, Some(200)), "the cluster's target is 100");
    assert_eq!(target("7"), (true, Some(14)));
    assert_eq!(target("7.2"), (true, Some(15)));
    assert_eq!(target("0.01"), (true, Some(10)));
    assert!(!of(&[("rouse.dev/bounce", "false")]).0);
    let soft = |limit| of(&[("rouse.dev/soft-limit", limit)]);
    assert_eq!(soft("3"), (true, Some(3)));
    assert_eq!(soft("0"), (true, None));
    let rps = ("autoscaling.knative.dev/metric", "rps");
    assert_eq!(of(&[rps]), (true, None), "no number of requests at once");
    assert_eq!(of(&[rps, ("rouse.dev/soft-limit", "5")]), (true, Some(5)));
}

#[test]
fn what_is_done_for_clients_is_asked_for_one_by_one() {
    let of = |pairs: &[(&str, &str)]| {
        let parsed = read(pairs).expect("valid");
        (parsed.spec.opt_ins, parsed.warnings.len())
    };
    assert_eq!(of(&[]), (OptIns::default(), 0));
    let paths = ("rouse.dev/probe-paths", " /healthz, /metrics");
    let all = of(&[
        paths,
        ("rouse.dev/probe-answer", "204"),
        ("rouse.dev/sse-heartbeat", "2.5s"),
        ("rouse.dev/placeholder", "true"),
        ("rouse.dev/placeholder-title", " <b>Iris</b> \u{1f338} "),
        ("rouse.dev/openai-errors", "true"),
    ]);
    let wanted = OptIns {
        probe_paths: vec!["/healthz".into(), "/metrics".into()],
        probe_answer: Some(204),
        sse_heartbeat: Some(Duration::from_millis(2_500)),
        placeholder: Some("<b>Iris</b> \u{1f338}".into()),
        openai_errors: true,
    };
    assert_eq!(all, (wanted, 0));
    assert_eq!(of(&[("rouse.dev/probe-paths", "")]).0.probe_paths, [""; 0]);
    let (titled, _) = of(&[("rouse.dev/placeholder", "true")]);
    assert_eq!(
        titled.placeholder.as_deref(),
        Some("The model is waking up")
    );

    // Alone these do nothing, which is said.
    let (none, warned) = of(&[
        ("rouse.dev/probe-answer", "200"),
        ("rouse.dev/placeholder-title", "Iris"),
        ("rouse.dev/placeholder", "false"),
    ]);
    assert_eq!((none.placeholder, warned), (None, 2));
    let long = "\u{e9}".repeat(80);
    assert_eq!(of(&[("rouse.dev/placeholder-title", &long)]).1, 1);
    read(&[("rouse.dev/placeholder-title", &format!("{long}x"))]).expect_err("81 characters");
}

#[test]
fn a_request_has_all_the_time_it_takes_unless_it_is_limited() {
    let of = |pairs: &[(&str, &str)]| {
        let spec = read(pairs).expect("in range").spec;
        [
            spec.request_timeout,
            spec.response_start_timeout,
            spec.idle_timeout,
        ]
    };
    assert_eq!(of(&[]), [None; 3]);
    let given = of(&[
        ("rouse.dev/request-timeout", "15m"),
        ("rouse.dev/response-start-timeout", "1.5s"),
        ("rouse.dev/idle-timeout", "24h"),
    ]);
    let times = [900_000, 1_500, 86_400_000].map(|ms| Some(Duration::from_millis(ms)));
    assert_eq!(given, times);
    let zero = [
        "rouse.dev/request-timeout",
        "rouse.dev/response-start-timeout",
        "rouse.dev/idle-timeout",
    ];
    assert_eq!(of(&zero.map(|key| (key, "0s"))), [None; 3]);
}

#[test]
fn a_connection_may_have_no_limit_of_age_and_a_bad_one_is_named() {
    let age = |value| read(&[("rouse.dev/max-connection-age", value)]);
    for none in ["0", "0s"] {
        let spec = age(none).expect("no limit").spec;
        assert_eq!(spec.max_connection_age, None);
    }
    for (value, says) in [
        ("300ms", "expected 0s or 1s <= 300ms <= 24h0m0s"),
        ("25h", "expected 0s <= 25h <= 24h0m0s"),
        (
            "30",
            "invalid value: 30, allowed is 0s for no limit, or a duration from 1s to 24h",
        ),
    ] {
        let invalid = age(value).expect_err("out of range");
        assert_eq!(
            invalid.to_string(),
            format!("rouse.dev/max-connection-age: \"{value}\": {says}")
        );
    }
}

#[test]
fn what_is_not_finite_is_refused_everywhere() {
    for key in [
        "target",
        "target-utilization-percentage",
        "target-burst-capacity",
        "panic-window-percentage",
        "panic-threshold-percentage",
    ] {
        for value in ["NaN", "Inf", "-Inf", "+infinity"] {
            let invalid =
                read(&[(&format!("autoscaling.knative.dev/{key}"), value)]).expect_err(key);
            assert_eq!(invalid.errors[0].message, format!("invalid value: {value}"));
        }
    }
}

#[test]
fn what_has_no_effect_is_a_warning() {
    let parsed = read(&[
        ("autoscaling.knative.dev/min-scale", "1"),
        ("autoscaling.knative.dev/minScale", "5"),
        ("autoscaling.knative.dev/min-scal", "9"),
        (
            "autoscaling.knative.dev/class",
            "hpa.autoscaling.knative.dev",
        ),
        ("autoscaling.knative.dev/metric", "cpu"),
        ("rouse.dev/max-hold", "1"),
        ("rouse.dev/paused", "true"),
        ("example.com/min-scale", "7"),
    ])
    .expect("nothing is wrong");
    let keys: Vec<&str> = parsed
        .warnings
        .iter()
        .map(|warning| warning.key.as_str())
        .collect();
    assert_eq!(
        keys,
        [
            "autoscaling.knative.dev/min-scal",
            "rouse.dev/max-hold",
            "autoscaling.knative.dev/minScale",
            "autoscaling.knative.dev/class",
            "autoscaling.knative.dev/metric",
        ]
    );
    assert_eq!(parsed.spec.min_scale, Replicas(1));
}

#[test]
fn an_alias_alone_counts_and_needs_no_warning() {
    let parsed = read(&[("autoscaling.knative.dev/minScale", "5")]).expect("an alias is fine");
    assert_eq!(
        (parsed.spec.min_scale, parsed.warnings),
        (Replicas(5), vec![])
    );
}

#[test]
fn the_defaults_of_the_table_are_the_defaults_of_the_code() {
    let default = TargetSpec::default();
    for key in ALL {
        let text = match crate::SETTINGS.iter().find(|s| s.name == key.default) {
            // Written out, a cluster-wide default must change nothing.
            Some(setting) => setting.default,
            None if key.default.contains(' ') || key.default == "none" => continue,
            None => key.default,
        };
        let spec = read(&[(key.name, text)]).expect(key.name).spec;
        assert_eq!(spec, default, "{} {text}", key.name);
    }
}
