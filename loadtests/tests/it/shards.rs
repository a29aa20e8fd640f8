//! One load from several processes, as the example for a cluster has it.

use crate::command::{output, text};
use crate::server::{http, ok};
use futures_util::future::join_all;
use loadtests::Report;
use loadtests::merge::merge;
use loadtests::ready::Ready;
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

fn seconds_from_now(ahead: f64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    (now.as_secs_f64() + ahead).to_string()
}

/// The Job of `deploy/examples`.
fn job() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples/load-test-job.yaml");
    serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn the_example_has_as_many_pods_as_shards_and_each_knows_its_own() {
    let job = job();
    let spec = &job["spec"];
    assert_eq!(
        (&job["apiVersion"], &job["kind"]),
        (&"batch/v1".into(), &"Job".into())
    );
    assert_eq!(spec["completionMode"], "Indexed");
    assert_eq!(
        spec["completions"], spec["parallelism"],
        "all at the same time"
    );
    assert_eq!(
        spec["backoffLimit"], 0,
        "a pod that is started again is late"
    );
    let args = spec["template"]["spec"]["containers"][0]["args"]
        .as_array()
        .unwrap();
    let at = args.iter().position(|arg| arg == "--shard").unwrap();
    let shard = format!("$(JOB_COMPLETION_INDEX)/{}", spec["completions"]);
    assert_eq!(args[at + 1], shard.as_str());
}

/// The pods of the example, as processes against a server here: together they send what one without shards would, and begin together.
#[tokio::test]
async fn the_pods_of_the_example_send_one_load_together() {
    let bodies: Arc<Mutex<BTreeMap<String, u32>>> = Arc::default();
    let seen = Arc::clone(&bodies);
    let url = http(move |request| {
        let body = String::from_utf8(request.into_body().to_vec()).unwrap();
        *seen.lock().entry(body).or_default() += 1;
        async { ok() }
    })
    .await;
    let job = job();
    let pods = job["spec"]["completions"].as_u64().unwrap();
    let args: Vec<_> = job["spec"]["template"]["spec"]["containers"][0]["args"]
        .as_array()
        .unwrap()
        .iter()
        .map(|arg| arg.as_str().unwrap().to_owned())
        .collect();
    // Of the example all but where, when and how much: a test has no minutes. Each request says its number.
    // Far ahead, as processes take long to begin on a busy machine, and one that is late is none of the load.
    let start = seconds_from_now(10.0);
    let of_pod = |index: u64| {
        let mut args: Vec<_> = args
            .iter()
            .map(|arg| arg.replace("$(JOB_COMPLETION_INDEX)", &index.to_string()))
            .collect();
        let mut set = |flag: &str, value: &str| {
            let at = args.iter().position(|arg| arg == flag).expect(flag);
            value.clone_into(&mut args[at + 1]);
        };
        set("--stages", "500ms@40,500ms@20..60");
        set("--warmup", "200ms");
        set("--connections", "4");
        set("--start-at", &start);
        *args.last_mut().unwrap() = url.clone();
        args.extend(["--template", "--body", "{{n}}"].map(str::to_owned));
        args
    };
    let runs = (0..pods).map(|index| async move {
        let args = of_pod(index);
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        let output = output(&args).await;
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stdout)
    });
    let logs = join_all(runs).await;
    // 8 of the warm-up, 20 of either stage, each once. A tool that was kept from running leaves out the end of its warm-up, and nothing else.
    let mut numbers: BTreeMap<u32, u32> = BTreeMap::new();
    for (body, count) in bodies.lock().iter() {
        numbers.insert(body.parse().unwrap(), *count);
    }
    assert!(
        numbers.iter().all(|(n, count)| *n < 48 && *count == 1),
        "{numbers:?}"
    );
    assert!((8..48).all(|n| numbers.contains_key(&n)), "{numbers:?}");

    let dir = tempfile::tempdir().unwrap();
    let (mut paths, mut reports) = (Vec::new(), Vec::new());
    for (index, log) in logs.iter().enumerate() {
        let report: Report = serde_json::from_str(log).unwrap();
        let late = report.started_at - start.parse::<f64>().unwrap();
        assert!((0.0..5.0).contains(&late), "{late}");
        assert_eq!(
            report.config.shard.unwrap().to_string(),
            format!("{index}/{pods}")
        );
        let path = dir.path().join(format!("shard-{index}.json"));
        std::fs::write(&path, log).unwrap();
        paths.push(path.to_str().unwrap().to_owned());
        reports.push(report);
    }
    let mut args = vec!["merge", "--json", "-"];
    args.extend(paths.iter().map(String::as_str));
    let merged = output(&args).await;
    let merged: Report = serde_json::from_slice(&merged.stdout).unwrap();
    assert_eq!((merged.summary.successes, merged.runs), (40, pods));
    assert_eq!(merged.config.shard, None, "all of it is there");

    only_parts_of_one_schedule_are_merged(&reports);
}

fn only_parts_of_one_schedule_are_merged(reports: &[Report]) {
    let refused = |change: fn(&mut Report)| {
        let mut reports = reports.to_vec();
        change(&mut reports[1]);
        merge(&reports).unwrap_err().to_string()
    };
    for (error, setting) in [
        (
            refused(|report| report.config.shard = Some("0/4".parse().unwrap())),
            "config.shard 0/4",
        ),
        (
            refused(|report| report.config.shard = Some("1/5".parse().unwrap())),
            "config.shard 1/5",
        ),
        (
            refused(|report| report.config.shard = None),
            "config.shard none",
        ),
        (
            refused(|report| report.config.seed = Some(9)),
            "config.seed Some(9)",
        ),
        (
            refused(|report| report.config.stages[0].rate += 1.0),
            "config.stages",
        ),
    ] {
        assert!(
            error.contains("report 2") && error.contains(setting),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_wait_for_the_start_can_be_ended_and_sends_nothing() {
    let mut config = loadtests::Config::new(&http(|_| async { ok() }).await).unwrap();
    config.start_at = Some(SystemTime::now() + Duration::from_mins(30));
    let (_stop, stopped) = tokio::sync::watch::channel(true);
    let report = loadtests::run(config, |_| (), stopped).await.unwrap();
    assert!(report.interrupted);
    assert_eq!(report.summary.requests, 0);
}

/// The others have begun by then.
#[tokio::test]
async fn who_is_ready_after_the_common_start_does_not_begin() {
    let work = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&work);
    let start = SystemTime::now() + Duration::from_millis(700);
    let url = http(move |request| {
        let is_ready = SystemTime::now() > start + Duration::from_millis(100);
        let mut answer = ok();
        if request.uri().path() == "/health" {
            if !is_ready {
                *answer.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
            }
        } else {
            seen.fetch_add(1, Ordering::Relaxed);
        }
        async { answer }
    })
    .await;
    let mut config = loadtests::Config::new(&url).unwrap();
    config.start_at = Some(start);
    config.ready = Some(Ready {
        within: Duration::from_mins(1),
        path: Some("/health".to_owned()),
    });
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    let error = loadtests::run(config, |_| (), stopped).await.unwrap_err();
    assert!(
        error.is_usage() && error.to_string().contains("--start-at"),
        "{error}"
    );
    assert_eq!(work.load(Ordering::Relaxed), 0);
}
