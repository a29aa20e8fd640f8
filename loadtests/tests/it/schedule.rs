//! The schedule is kept, and latency counts from it.

use crate::server::{http, ok, run};
use loadtests::Config;
use loadtests::config::{Limit, Load};
use loadtests::plan::{Arrivals, Replay, Schedule, Stages, Timing, Trace};
use loadtests::unit::Rate;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// A server that answers nothing from 0.75 s to 1.25 s after its first request.
async fn stalling() -> String {
    let first = std::sync::OnceLock::new();
    http(move |_| {
        let now = Instant::now();
        let began = *first.get_or_init(|| now);
        let (from, until) = (
            began + Duration::from_millis(750),
            began + Duration::from_millis(1_250),
        );
        async move {
            if now >= from {
                sleep_until(until).await;
            }
            ok()
        }
    })
    .await
}

/// 400 requests, 100 of them due during the stall, with latencies evenly spread up to 500 ms.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_open_loop_shows_a_stall_in_full() {
    let mut config = Config {
        connections: 4,
        ..Config::new(&stalling().await).unwrap()
    };
    config.load = Config::steady(
        Rate::new(200.0).unwrap(),
        Duration::from_secs(2),
        Arrivals::Constant,
        1,
    );
    let report = run(config).await;
    let latency = &report.summary.latency;
    assert_eq!(
        (report.summary.successes, report.summary.error_count),
        (400, 0)
    );
    let near =
        |value: Option<f64>, want: f64| value.is_some_and(|value| (value - want).abs() < 0.08);
    assert!(
        near(latency.p90, 0.3),
        "the slowest tenth is forty of a hundred stalled ones: {latency:?}"
    );
    assert!(
        near(latency.p99, 0.48) && near(latency.max, 0.5),
        "{latency:?}"
    );
    assert!(latency.p50 < Some(0.05), "{latency:?}");
    let pacing = report.pacing.expect("an open loop has pacing");
    assert!(
        pacing.waited.count > 80,
        "only four could be sent: {pacing:?}"
    );
    assert!(
        pacing.lag.p50 < Some(0.005),
        "waiting for the server is not the tool's lag: {pacing:?}"
    );
}

/// The same server seen by a closed loop: the reason why the open loop exists.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_closed_loop_hides_the_stall() {
    let mut config = Config {
        connections: 1,
        ..Config::new(&stalling().await).unwrap()
    };
    config.load = Load::Closed(Limit::Duration(Duration::from_secs(2)));
    let report = run(config).await;
    assert!(report.summary.latency.p99 < Some(0.1) && report.summary.latency.max > Some(0.4));
    assert!(report.pacing.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn stages_send_what_they_promise() {
    let url = http(|_| async { ok() }).await;
    let mut config = Config {
        connections: 8,
        ..Config::new(&url).unwrap()
    };
    let Stages(stages) = "300ms@100,300ms@0,400ms@500".parse().unwrap();
    config.load = Load::Open(Schedule::of_stages(stages));
    let report = run(config).await;
    assert_eq!(
        (report.summary.requests, report.summary.successes),
        (230, 230)
    );
    let duration = report.summary.duration;
    assert!((1.0..1.2).contains(&duration), "{duration}");
}

/// The server writes down when each came: the plan is what arrives.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_trace_arrives_as_it_was_recorded_only_faster() {
    let came = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&came);
    let url = http(move |_| {
        log.lock().push(Instant::now());
        async { ok() }
    });
    let mut config = Config {
        connections: 8,
        ..Config::new(&url.await).unwrap()
    };
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "10\n14\n14\n11\n19\n16\n99\n").unwrap();
    let replay = Replay {
        speed: 10.0,
        rows: Vec::new(),
        seed: 1,
        until: Some(Duration::from_secs(1)),
    };
    let trace = Trace::read(file.path(), replay).unwrap();
    config.load = Load::Open(Schedule {
        timing: Timing::Trace(trace),
        ..Schedule::of_stages(Vec::new())
    });
    let report = run(config).await;
    assert_eq!(
        (report.summary.requests, report.summary.error_count),
        (6, 0)
    );
    let trace = report.config.trace.expect("it says what was replayed");
    assert_eq!(trace.requests, 7);
    let came = came.lock();
    let since: Vec<_> = came
        .iter()
        .map(|at| (*at - came[0]).as_secs_f64())
        .collect();
    for (got, planned) in since.iter().zip([0.0, 0.1, 0.4, 0.4, 0.6, 0.9]) {
        assert!((got - planned).abs() < 0.08, "{since:?}");
    }
}

#[tokio::test]
async fn a_timed_closed_loop_awaits_what_is_in_flight() {
    let url = http(|_| async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        ok()
    });
    let mut config = Config {
        connections: 2,
        ..Config::new(&url.await).unwrap()
    };
    config.load = Load::Closed(Limit::Duration(Duration::from_millis(100)));
    let report = run(config).await;
    assert_eq!(
        (report.summary.successes, report.summary.unfinished),
        (2, 0)
    );
    assert!(
        report.summary.duration >= 0.4,
        "{}",
        report.summary.duration
    );
}
