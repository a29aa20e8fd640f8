//! What is made of results: objectives, other forms, several reports as one, two beside each other.

use std::{fs, path::Path, time::Duration};

use loadtests::{
    Config, Report,
    compare::{Comparison, Figure, Limits},
    config::{Limit, Load},
    merge::{CannotMerge, merge},
    plan::Arrivals,
    record::Durations,
    unit::Rate,
};
use serde_json::Value;

use crate::{
    command::{output, text},
    server::{http, ok, run},
};

/// A server that takes so long for each request.
async fn slow(millis: u64) -> String {
    http(move |_| async move {
        tokio::time::sleep(Duration::from_millis(millis)).await;
        ok()
    })
    .await
}

async fn closed(url: &str, requests: u64) -> Report {
    let mut config = Config::new(url).unwrap();
    config.load = Load::Closed(Limit::Requests(requests));
    config.connections = 4;
    run(config).await
}

async fn open(url: &str, seconds: u64) -> Report {
    let length = Duration::from_secs(seconds);
    let mut config = Config::new(url).unwrap();
    config.load = Config::steady(Rate::new(40.0).unwrap(), length, Arrivals::Constant, 1);
    config.connections = 8;
    run(config).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn objectives_decide_the_exit_code_and_are_in_the_report() {
    let url = slow(20).await;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (json, csv, metrics) = (file("a.json"), file("a.csv"), file("a.prom"));
    for (slo, code, met) in [
        ("p99<5s,errors<1,throughput>1", 0, [true, true, true]),
        ("p50<1ms,errors<0.1%,lag.p99<1s", 1, [false, true, false]),
    ] {
        let args = [
            &url,
            "--requests",
            "30",
            "--slo",
            slo,
            "--json",
            &json,
            "--csv",
            &csv,
            "--prometheus",
            &metrics,
        ];
        let ended = output(&args).await;
        let (said, wrong) = (text(&ended.stdout), text(&ended.stderr));
        assert_eq!(ended.status.code(), Some(code), "{said}{wrong}");
        let report: Value = serde_json::from_str(&fs::read_to_string(&json).unwrap()).unwrap();
        for (index, met) in met.into_iter().enumerate() {
            assert_eq!(report["slo"][index]["met"], met, "{report}");
        }
        assert_eq!(
            said.matches("MISSED: ").count(),
            met.iter().filter(|m| !**m).count()
        );
        // A closed loop has no lag: an objective for it is missed, not forgotten.
        assert_eq!(said.contains("no such figure"), code == 1, "{said}");
        let metrics = fs::read_to_string(&metrics).unwrap();
        let line =
            format!("rouse_load_requests{{url=\"{url}\",method=\"GET\",outcome=\"success\"}} 30\n");
        assert!(metrics.contains(&line), "{metrics}");
        let missed = metrics
            .lines()
            .filter(|l| l.contains("objective=") && l.ends_with(" 0"));
        assert_eq!(
            missed.count(),
            met.iter().filter(|m| !**m).count(),
            "{metrics}"
        );
        let csv = fs::read_to_string(&csv).unwrap();
        let sum: u64 = csv
            .lines()
            .skip(1)
            .map(|l| l.split(',').nth(2).unwrap().parse::<u64>().unwrap())
            .sum();
        assert_eq!(sum, 30, "{csv}");
    }
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 3, "nothing half written is left: {left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_merged_report_is_that_of_all_requests_together() {
    let url = http(|request| async move {
        if request.uri().path() == "/" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        ok()
    })
    .await;
    let (one, two) = tokio::join!(closed(&url, 30), closed(&url, 50));
    let merged = merge(&[one.clone(), two.clone()]).unwrap();
    assert_eq!((merged.runs, merged.summary.successes), (2, 80));
    assert_eq!(merged.config.connections, 8);
    assert_eq!(merged.status["200"], 80);
    let mut all = Durations::default();
    for report in [&one, &two] {
        all.merge(&Durations::decode(&report.histograms.as_ref().unwrap().latency).unwrap());
    }
    let p90 = all.quantile(0.9).unwrap().as_secs_f64();
    assert_eq!(merged.summary.latency.p90, Some(p90));
    let longest = one.summary.duration.max(two.summary.duration);
    let summary = &merged.summary;
    assert!(summary.duration >= longest - 1e-6, "{summary:?}");
    assert!((summary.throughput - 80.0 / summary.duration).abs() < 1e-6);
    let points: u64 = merged
        .series
        .points
        .iter()
        .map(|point| point.successes)
        .sum();
    assert_eq!(points, 80);
    // Of runs one after the other the counts of a second are not the sum of those of another.
    let mut later = two.clone();
    later.started_at += 100.0;
    let apart = merge(&[one.clone(), later]).unwrap();
    assert!(apart.series.points.is_empty() && apart.summary.duration > 99.0);
    // What is merged merges.
    let again = merge(&[merged.clone(), closed(&url, 5).await]).unwrap();
    assert_eq!((again.runs, again.summary.requests), (3, 85));

    // Whoever did not look speaks for all.
    let mut parts = [one.clone(), two.clone()];
    parts[0].config.tls_verified = Some(true);
    parts[1].config.tls_verified = Some(false);
    assert_eq!(merge(&parts).unwrap().config.tls_verified, Some(false));
    parts[1].config.tls_verified = Some(true);
    assert_eq!(merge(&parts).unwrap().config.tls_verified, Some(true));

    assert_eq!(merge(&[]), Err(CannotMerge::Nothing));
    let mut other = two.clone();
    other.config.method = "POST".to_owned();
    let error = merge(&[one.clone(), other]).unwrap_err().to_string();
    assert!(
        error.contains("report 2") && error.contains("config.method") && error.contains("POST"),
        "{error}"
    );
    let mut other = two;
    other.histograms.as_mut().unwrap().latency.truncate(20);
    let error = merge(&[one, other]).unwrap_err();
    assert_eq!(
        error,
        CannotMerge::Histogram {
            number: 2,
            what: "latency"
        }
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_comparison_finds_what_is_slower_and_calls_equal_what_is_the_same() {
    // Ten times as slow: a busy machine makes of it what it wants, but not the contrary.
    let (quick, slow) = (slow(10).await, slow(100).await);
    let (quick, slow) = tokio::join!(open(&quick, 6), open(&slow, 6));
    let limits: Limits = "p50<1.5,throughput>0.5".parse().unwrap();
    let same = Comparison::of(&quick, &quick, &limits);
    assert!(same.is_within());
    for row in &same.rows {
        assert!(
            row.ratio.is_some_and(|ratio| (ratio - 1.0).abs() < 1e-9),
            "{row:?}"
        );
    }
    let other = Comparison::of(&quick, &slow, &limits);
    let row = other
        .rows
        .iter()
        .find(|row| row.figure == Figure::P50)
        .unwrap();
    let (low, high) = row.interval.expect("there are six pairs");
    let (ratio, median) = (row.ratio.unwrap(), row.median.unwrap());
    assert!(row.pairs == 6 && low <= median && median <= high, "{row:?}");
    assert!((2.0..20.0).contains(&ratio), "{row:?}");
    let kept: Vec<_> = other.limits.iter().map(|(_, kept)| *kept).collect();
    assert_eq!(kept, [false, true], "{other}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_commands_say_what_they_cannot_read_and_end_with_their_verdict() {
    let url = slow(1).await;
    let report = closed(&url, 20).await;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let write = |name: &str, value: &Value| {
        fs::write(Path::new(&path(name)), value.to_string()).unwrap();
        path(name)
    };
    let value = serde_json::to_value(&report).unwrap();
    let good = write("good", &value);
    let mut newer = value.clone();
    newer["schema_version"] = 2.into();
    let newer = write("newer", &newer);
    let mut before = value.clone();
    for added in ["series", "slo", "runs", "histograms"] {
        before.as_object_mut().unwrap().remove(added);
    }
    let before = write("before", &before);
    let nonsense = write("nonsense", &Value::from("x"));
    for (args, code, says) in [
        (&["merge", &good, &good][..], 0, "merged from 2 runs"),
        (&["merge", &good, "--slo", "p50<1us"], 1, "MISSED: p50<1us"),
        (&["compare", &good, &good], 0, "b / a"),
        (
            &["compare", &before, &good, "--limit", "p99<2"],
            0,
            "met: p99<2",
        ),
        (
            &["compare", &good, &good, "--limit", "p99<0.5"],
            1,
            "MISSED: p99<0.5",
        ),
        (&["merge", &good, &before], 2, "report 2 has no histogram"),
        (&["merge", &good, "/nonexistent"], 2, "/nonexistent"),
        (&["merge"], 2, "REPORT"),
        (
            &["compare", &good, &nonsense],
            2,
            "a report as --json writes it",
        ),
        (&["compare", &newer, &good], 2, "this one has 2"),
        (&["compare", &good, &good, "--limit", "p98<1"], 2, "--limit"),
        (&["merge", &good, "--json", "/nonexistent/x"], 2, "--json"),
        (&[&url, "--slo", "p99<1"], 2, "--slo"),
    ] {
        let ended = output(args).await;
        let (out, err) = (text(&ended.stdout), text(&ended.stderr));
        assert_eq!(ended.status.code(), Some(code), "{args:?}: {out}{err}");
        let said = if code == 2 { &err } else { &out };
        assert!(said.contains(says), "{args:?}: {said}");
    }
    let ended = output(&["merge", &good, &good, "--json", "-"]).await;
    let merged: Report = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!(merged.summary.requests, 40);
    let ended = output(&["compare", &good, &good, "--json", "-"]).await;
    let compared: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!(compared["rows"][0]["figure"], "throughput");
}
