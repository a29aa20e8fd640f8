use super::*;

fn args(words: &str) -> Args {
    Args::try_parse_from(std::iter::once("simulate").chain(words.split_whitespace())).unwrap()
}

/// Nothing in it is left to chance.
const CERTAIN: &str = "
name: certain & <bold>
length: 5m
arrivals: {at: [10s, 11s, 12s]}
service: 2s
start: 30s
annotations: {rouse.dev/container-concurrency: \"1\", rouse.dev/min-stay: 0s, rouse.dev/backlog-clear-time: 10s}
";

fn done(words: &str) -> Vec<Done> {
    let args = args(words);
    let scenario = flags(scenario::read("f.yaml", CERTAIN).unwrap(), &args);
    let spec = spec(&scenario, &ClusterConfig::default()).unwrap();
    vec![simulate(scenario, &spec, &args)]
}

#[test]
fn a_table_has_both_policies_and_their_ratio() {
    let table = table::one(&done("x --seeds 2")[0]);
    let expected = "\
certain & <bold>: 3 requests in 5 min, mean of 2 runs
  a request takes 2.00 s, a start 30 s; a pod works on 1 at once
  rouse.dev/backlog-clear-time: 10s
  rouse.dev/container-concurrency: 1
  rouse.dev/min-stay: 0s
                           knative       rouse    ratio
";
    assert!(table.starts_with(expected), "{table}");
    let row = |name: &str| {
        let line = table.lines().find(|line| line.starts_with(name));
        let words = line.unwrap().strip_prefix(name).unwrap().split_whitespace();
        words.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(row("cold starts"), ["1.0", "1.0", "1.00"]);
    let peaks = row("peak replicas");
    let count = |text: &str| text.parse::<f64>().unwrap();
    assert!(count(&peaks[1]) <= count(&peaks[0]), "{table}");
    // The first waits for the start of its pod, to the hundredth of a second.
    assert_eq!(row("held p50 (s)").len(), 3, "{table}");
    assert!(
        row("held p99 (s)")
            .iter()
            .take(2)
            .all(|held| count(held) >= 30.0),
        "{table}"
    );
}

#[test]
fn one_policy_alone_has_no_ratio() {
    let table = table::one(&done("x --seeds 1 --policy rouse")[0]);
    assert!(
        table.contains("rouse\n") && !table.contains("ratio"),
        "{table}"
    );
}

#[test]
fn the_json_has_everything_and_the_page_is_one_file() {
    let done = done("x --seeds 1");
    let json: serde_json::Value = serde_json::from_str(&json::page(&done, None, 1)).unwrap();
    let told = &json["scenarios"][0];
    assert_eq!(told["policies"]["rouse"]["summary"]["requests"], 3.0);
    assert!(
        told["policies"]["knative"]["points"]
            .as_array()
            .unwrap()
            .len()
            > 60
    );
    assert!(told["ratios"]["replica_seconds"].as_f64().unwrap() < 1.0);
    let page = html::page(&done, 1);
    assert!(
        page.contains("certain &amp; &lt;bold&gt;"),
        "names are escaped"
    );
    assert_eq!(page.matches("<svg").count(), 6);
    assert_eq!(page.matches("<h3>").count(), 2);
    for elsewhere in ["http://", "https://", "<script", "NaN", "inf "] {
        assert!(!page.contains(elsewhere), "{elsewhere}");
    }
    let opened = page.matches("<div").count();
    assert_eq!(opened, page.matches("</div>").count());
}

#[test]
fn every_example_is_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/simulate");
    let mut read = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let input = path.to_str().unwrap();
        let scenario = load(input, &args("x")).unwrap();
        spec(&scenario, &ClusterConfig::default()).unwrap();
        read += 1;
    }
    assert_eq!(read, 4);
}

#[test]
fn what_is_wrong_with_an_input_is_told_before_anything_runs() {
    for (words, says) in [
        ("steady-load --check", "--check: it belongs to --standard"),
        (
            "--standard --check --policy rouse",
            "--check: it compares, and needs --policy both",
        ),
        (
            "nothing",
            "nothing: no such scenario; allowed are files that end in .yaml",
        ),
        ("missing.yaml", "missing.yaml: cannot be read: "),
        (
            "steady-load --annotation autoscaling.knative.dev/window=1s",
            "steady-load: autoscaling.knative.dev/window: \"1s\"",
        ),
        (
            "steady-load --set stable-window=1s",
            "--set stable-window: \"1s\" is not allowed",
        ),
    ] {
        let error = prepare(&args(words)).unwrap_err();
        assert!(error.starts_with(says), "{error}");
    }
    for words in [
        "x --seeds 0",
        "x --concurrency 0",
        "x --start-failures 1.5",
        "x --length 0s",
        "x --service gamma(1s)",
        "",
    ] {
        let words = std::iter::once("simulate").chain(words.split_whitespace());
        assert!(Args::try_parse_from(words.clone()).is_err(), "{words:?}");
    }
}
