//! `cold` against servers that sleep, or say that they do.

use crate::schema;
use crate::server::{http, ok};
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use std::collections::HashMap;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

/// Runs the command; gives its output and what its report says.
async fn cold(flags: Vec<String>) -> (Output, serde_json::Value) {
    let output = spawn_blocking(move || {
        Command::new(env!("CARGO_BIN_EXE_rouse-load"))
            .args(["cold", "--json", "-"])
            .args(flags)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    })
    .await
    .unwrap();
    let json = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output, json)
}

fn flags(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

fn with_timing(timing: &str) -> Response<Full<Bytes>> {
    let mut response = ok();
    let timing = HeaderValue::from_str(timing).unwrap();
    response.headers_mut().insert("rouse-timing", timing);
    response
}

/// How many requests there were of each kind.
fn kinds(report: &serde_json::Value) -> HashMap<String, u64> {
    let classes = report["cold"]["classes"].as_array().unwrap();
    let count = |class: &serde_json::Value| {
        (
            class["kind"].as_str().unwrap().to_owned(),
            class["latency"]["count"].as_u64().unwrap(),
        )
    };
    classes.iter().map(count).collect()
}

/// A server that says of every answer that it has ended a wake of 40 ms.
async fn waking() -> String {
    http(|_| async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        with_timing("hold;dur=38, patch_sent;dur=1, patched;dur=3, pod_created;dur=5, model_ready;dur=35, forwarded;dur=38, first_byte;dur=40")
    })
    .await
}

#[tokio::test]
async fn wakes_that_answers_tell_of_are_cold_and_their_phases_fill_their_time() {
    let url = waking().await;
    let (output, report) = cold(flags(&format!("--target m={url} --idle 1ms -n 3"))).await;
    assert!(output.status.success(), "{output:?}");
    schema::fits(&report);
    assert_eq!(kinds(&report), HashMap::from([("cold".to_owned(), 3)]));
    let wakes = report["cold"]["wakes"].as_array().unwrap();
    assert_eq!(wakes.len(), 3);
    for wake in wakes {
        let phases = wake["phases"].as_array().unwrap();
        let names: Vec<_> = phases.iter().map(|p| p["name"].as_str().unwrap()).collect();
        assert_eq!(
            names,
            [
                "begun",
                "sent",
                "noticed",
                "patch_sent",
                "patched",
                "pod_created",
                "model_ready",
                "forwarded",
                "first_byte",
                "answered",
                "last_byte"
            ]
        );
        let mut at = 0.0;
        for phase in phases {
            assert_eq!(phase["from"].as_f64(), Some(at));
            at = phase["to"].as_f64().unwrap();
        }
        assert!((at - wake["latency"].as_f64().unwrap()).abs() < 1e-9);
        // As long as it is said to be, wherever it lies.
        let model = &phases[6];
        let took = model["to"].as_f64().unwrap() - model["from"].as_f64().unwrap();
        assert!((took - 0.030).abs() < 1e-6, "{took}");
    }
    let shares = report["cold"]["owners"].as_array().unwrap().iter();
    let sum: f64 = shares.map(|owner| owner["share"].as_f64().unwrap()).sum();
    assert!((sum - 1.0).abs() < 1e-6, "{sum}");
}

#[tokio::test]
async fn what_nothing_proves_is_unproven_and_what_was_not_held_is_warm() {
    let silent = http(|_| async { ok() }).await;
    let warm = http(|_| async { with_timing("hold;dur=0.02") }).await;
    let line = format!(
        "--mode burst --target a={silent} --target b={warm} --idle 1ms -n 2 --slo unproven<1"
    );
    let (output, report) = cold(flags(&line)).await;
    assert_eq!(
        output.status.code(),
        Some(1),
        "two are unproven: {output:?}"
    );
    schema::fits(&report);
    let wanted = HashMap::from([("unproven".to_owned(), 2), ("warm".to_owned(), 2)]);
    assert_eq!(kinds(&report), wanted);
    assert_eq!(report["slo"][0]["value"].as_f64(), Some(2.0));
    assert_eq!(report["cold"]["phases"].as_array().unwrap().len(), 0);
}

#[tokio::test]
async fn a_storm_is_cold_as_a_whole_if_one_answer_tells_of_the_wake() {
    let (count, told) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
    let url = http(move |_| {
        let number = count.fetch_add(1, SeqCst);
        let told = Arc::clone(&told);
        async move {
            if number == 0 {
                tokio::time::sleep(Duration::from_millis(300)).await;
                told.add_permits(1_000);
                return with_timing("hold;dur=290, pod_created;dur=5, model_ready;dur=280, forwarded;dur=290, first_byte;dur=299");
            }
            // After that one.
            let _permit = told.acquire().await.unwrap();
            with_timing("hold;dur=290")
        }
    })
    .await;
    let line = format!("--mode storm --at-once 20 --target m={url} --idle 1ms -n 1");
    let (output, report) = cold(flags(&line)).await;
    assert!(output.status.success(), "{output:?}");
    schema::fits(&report);
    let reasons = &report["cold"]["wakes"];
    let wanted = HashMap::from([("cold".to_owned(), 20)]);
    assert_eq!(kinds(&report), wanted, "{reasons}");
}

#[tokio::test]
async fn failures_are_told_and_the_run_goes_on() {
    let url = http(|_| async {
        let mut response = ok();
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        response
    })
    .await;
    let line = format!("--target m={url} --target gone=http://127.0.0.1:1/ --idle 1ms -n 2");
    let (output, report) = cold(flags(&line)).await;
    assert!(output.status.success(), "{output:?}");
    schema::fits(&report);
    assert_eq!(kinds(&report), HashMap::from([("failed".to_owned(), 4)]));
    assert_eq!(report["summary"]["errors"]["connect"].as_u64(), Some(2));
    assert_eq!(report["summary"]["errors"]["status_5xx"].as_u64(), Some(2));
}

#[tokio::test]
async fn a_rate_has_the_share_of_cold_requests_that_is_asked_for() {
    let url = waking().await;
    let count = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&count);
    let warm = http(move |_| {
        seen.fetch_add(1, SeqCst);
        async { ok() }
    })
    .await;
    let line = format!(
        "--mode rate --rate 100 --arrivals constant --cold-share 0.2 --duration 2s --idle 1ms --target a={url} --target b={url} --target c={url} --warm w={warm}"
    );
    let (output, report) = cold(flags(&line)).await;
    assert!(output.status.success(), "{output:?}");
    schema::fits(&report);
    let kinds = kinds(&report);
    let starved = report["cold"]["starved"].as_u64().unwrap();
    let warm = count.load(SeqCst) as u64;
    assert_eq!((kinds["warm"], kinds["cold"] + kinds["warm"]), (warm, 200));
    // 200 draws of 0.2, of a fixed seed: each was cold, or found nothing at zero and went to the warm one.
    assert!(
        (30..=50).contains(&(kinds["cold"] + starved)),
        "{kinds:?} and {starved}"
    );
    assert_eq!(report["pacing"]["lag"]["count"].as_u64(), Some(200));
}

#[tokio::test]
async fn requests_that_find_nothing_at_zero_are_not_sent_and_no_errors() {
    let url = waking().await;
    let line = format!(
        "--mode rate --rate 50 --arrivals constant --duration 1s --idle 1h --target a={url}"
    );
    let (output, report) = cold(flags(&line)).await;
    assert!(output.status.success(), "{output:?}");
    assert_eq!(report["cold"]["starved"].as_u64(), Some(50));
    assert_eq!(report["summary"]["requests"].as_u64(), Some(0));
}

#[tokio::test]
async fn a_trace_s_rows_are_dealt_out_to_the_targets() {
    let counts = [Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0))];
    let mut urls = Vec::new();
    for count in &counts {
        let count = Arc::clone(count);
        urls.push(
            http(move |_| {
                count.fetch_add(1, SeqCst);
                async { ok() }
            })
            .await,
        );
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "F,1,2\na,5,0\nb,7,3\nc,1,1\n").unwrap();
    let line = format!(
        "--mode trace --trace {} --speed 200 --target a={} --target b={}",
        file.path().display(),
        urls[0],
        urls[1]
    );
    let (output, report) = cold(flags(&line)).await;
    assert!(output.status.success(), "{output:?}");
    schema::fits(&report);
    let counts = counts.map(|count| count.load(SeqCst));
    assert_eq!(counts, [7, 10]);
    assert_eq!(kinds(&report), HashMap::from([("unproven".to_owned(), 17)]));
}

#[tokio::test]
async fn an_activator_s_list_of_wakes_tells_what_answers_do_not() {
    let asked = Arc::new(AtomicUsize::new(0));
    let model = http(|_| async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        ok()
    })
    .await;
    let list = {
        let asked = Arc::clone(&asked);
        http(move |_| {
            let number = asked.fetch_add(1, SeqCst);
            async move {
                // One was there before the run, and one comes with each wake.
                let wakes: Vec<_> = (0..=u32::try_from(number).unwrap())
                    .map(|n| {
                        let total = 0.05 - f64::from(n) / 1e4;
                        serde_json::json!({
                            "target": "n/m", "ours": 0.001, "total": total,
                            "phases": [["pod_created", 0.001], ["model_ready", 0.03], ["first_byte", total]],
                        })
                    })
                    .collect();
                let json = serde_json::to_vec(&wakes).unwrap();
                Response::new(Full::new(Bytes::from(json)))
            }
        })
        .await
    };
    let line = format!("--target m={model} --idle 1ms -n 2 --wakes-url {list} --workload n/m");
    let (output, report) = cold(flags(&line)).await;
    assert!(output.status.success(), "{output:?}");
    assert_eq!(kinds(&report), HashMap::from([("cold".to_owned(), 2)]));
    assert_eq!(asked.load(SeqCst), 3);
}

#[tokio::test]
async fn an_activator_that_tells_nothing_is_named_before_anything_is_sent() {
    let count = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&count);
    let model = http(move |_| {
        seen.fetch_add(1, SeqCst);
        async { ok() }
    })
    .await;
    let line = format!("--target m={model} --idle 1ms --wakes-url {model} --workload n/m");
    let (output, _) = cold(flags(&line)).await;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(
        error.contains("--wakes-url") && error.contains(&model),
        "{error}"
    );
    // The one that was to tell of wakes.
    assert_eq!(count.load(SeqCst), 1);
}

#[tokio::test]
async fn ctrl_c_ends_it_with_a_report_of_what_there_is() {
    let (first, mut asked) = tokio::sync::mpsc::channel(100);
    let url = http(move |_| {
        let first = first.clone();
        async move {
            let _ = first.try_send(());
            with_timing("hold;dur=0.01")
        }
    })
    .await;
    let child = tokio::process::Command::new(env!("CARGO_BIN_EXE_rouse-load"))
        .args(["cold", "--json", "-", "--target", &format!("m={url}")])
        .args(["--idle", "1ms", "-n", "10000", "--slo", "cold.p95<1s"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    asked.recv().await.unwrap();
    let id = rustix::process::Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().await.unwrap();
    assert_eq!(output.status.code(), Some(130));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    schema::fits(&report);
    assert_eq!(report["interrupted"], true);
    assert!(report["summary"]["requests"].as_u64() < Some(10_000));
}

#[tokio::test]
async fn bad_input_is_one_line_and_nothing_is_sent() {
    for (line, says) in [
        (
            "--target m=http://127.0.0.1:1/ --kubeconfig /nonexistent --deployment n/m",
            "--kubeconfig",
        ),
        ("--target m=http://127.0.0.1:1/", "--idle"),
        (
            "--target m=http://127.0.0.1:1/ --idle 1s --slo cold.p95",
            "--slo",
        ),
    ] {
        let (output, _) = cold(flags(line)).await;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{line}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(error.contains(says), "{error}");
    }
}

#[tokio::test]
async fn why_a_request_had_no_connection_is_told() {
    let url = http(|_| async { ok() })
        .await
        .replace("http://", "https://");
    let flags = flags(&format!("--target m={url} --idle 1ms -n 1 --tls-insecure"));
    let (output, report) = cold(flags).await;
    assert_eq!(report["summary"]["errors"]["tls"], 1, "{output:?}");
    let reason = report["reasons"]["tls"].as_str();
    assert!(
        reason.is_some_and(|reason| !reason.is_empty()),
        "{output:?}"
    );
}
