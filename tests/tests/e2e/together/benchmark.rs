//! `rouse load` on a cluster: what it tells of wakes is what happened, and several pods send one load.

use std::{
    ffi::{OsStr, OsString},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{
    Api,
    api::{ListParams, LogParams},
};
use serde_json::Value;
use tokio::process::Command;

use crate::{
    Space,
    space::{LONG, Model, root},
};

/// Wakes what is at `target`; gives the report.
async fn cold(program: &OsString, target: &str, deployment: &str, flags: &[&str]) -> Value {
    let always = ["cold", "--target", target, "--deployment", deployment];
    load(program, always.iter().chain(flags)).await
}

/// Runs the load tester; gives its report.
async fn load(program: &OsString, args: impl IntoIterator<Item: AsRef<OsStr>>) -> Value {
    let output = Command::new(program)
        .args(["load"])
        .args(args)
        .args(["--json", "-"])
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// All requests were cold: how many, and the names of the first one's phases.
fn all_cold(report: &Value) -> (u64, Vec<String>) {
    let cold = &report["cold"];
    let classes = cold["classes"].as_array().unwrap();
    assert!(
        classes.len() == 1 && classes[0]["kind"] == "cold",
        "{classes:?} {}",
        cold["wakes"]
    );
    for wake in cold["wakes"].as_array().unwrap() {
        // After "it" or "this one", by whether its own answer told or that of another.
        let reason = wake["reason"].as_str().unwrap();
        assert!(
            reason.contains("after ") && reason.ends_with(" was planned"),
            "{reason}"
        );
    }
    let phases = cold["wakes"][0]["phases"].as_array().unwrap();
    let name = |phase: &Value| phase["name"].as_str().unwrap().to_owned();
    println!("{phases:?}");
    (
        classes[0]["latency"]["count"].as_u64().unwrap(),
        phases.iter().map(name).collect(),
    )
}

#[track_caller]
fn has(phases: &[String], names: &[&str]) {
    for name in names {
        assert!(
            phases.iter().any(|phase| phase == name),
            "no {name} in {phases:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wakes_are_proven_cold_and_told_in_phases() {
    let Some(program) = std::env::var_os("ROUSE_E2E_COMMAND") else {
        // On a foreign cluster nothing is built.
        return;
    };
    let space = Space::new("benchmark").await;
    let name = &space.name;
    let limit = ("autoscaling.knative.dev/max-scale", "1");
    let woken = space
        .deploy(&Model::new("m").annotate(limit.0, limit.1))
        .await;
    let url = format!("m=http://{woken}/work");
    let deployment = format!("{name}/m");
    let report = cold(&program, &url, &deployment, &["-n", "2"]).await;
    let (count, phases) = all_cold(&report);
    assert_eq!(count, 2);
    let told = [
        "noticed",
        "patch_sent",
        "patched",
        "port_open",
        "model_ready",
        "forwarded",
    ];
    has(&phases, &told);
    // When the containers started is told by the kubelet, which may be later than the answer.
    has(&phases, &["pod_scheduled", "first_byte", "last_byte"]);
    let owners = report["cold"]["owners"].as_array().unwrap();
    for owner in ["control", "api_server", "kubernetes", "model"] {
        assert!(owners.iter().any(|one| one["owner"] == owner), "{owners:?}");
    }
    let replicas = report["cold"]["replicas"].as_array().unwrap();
    let is_held = |one: &Value| one["ready"] == 0 && one["held"] == 1;
    assert!(replicas.iter().any(is_held), "{replicas:?}");
    let storm = ["--mode", "storm", "--at-once", "20", "-n", "1"];
    assert_eq!(
        all_cold(&cold(&program, &url, &deployment, &storm).await).0,
        20
    );
    // Without Rouse: the tool scales. Of a model that is ready at once the kubelet may tell that it has started and that it is ready
    // in one write, and that tells no start.
    let slow = Model::new("p").plain().flags(&["--start-delay=4s"]);
    let plain = space.deploy(&slow).await;
    let url = format!("p=http://{plain}/work");
    let report = cold(
        &program,
        &url,
        &format!("{name}/p"),
        &["-n", "2", "--scale"],
    )
    .await;
    let (count, phases) = all_cold(&report);
    assert_eq!(count, 2);
    has(
        &phases,
        &[
            "scaled",
            "pod_created",
            "pod_scheduled",
            "container_started",
            "pod_ready",
            "reachable",
        ],
    );
    space.end().await;
}

/// The example of a Job, for this target and as little as two cores can do beside other tests; it begins at `start`.
fn example(target: &str, start: Duration) -> String {
    let file = root().join("deploy/examples/load-test-job.yaml");
    let mut job = std::fs::read_to_string(file).unwrap();
    let start = format!("\"{}\"", start.as_secs());
    for (from, to) in [
        ("\"START_AT\"", start.as_str()),
        ("30s@200..1000,2m@1000", "2s@20..100,4s@100"),
        ("            - 5s", "            - 1s"),
        ("cpu: \"1\"", "cpu: 10m"),
        (
            "http://sklearn-iris.default.svc.cluster.local/v2/health/ready",
            target,
        ),
    ] {
        assert_eq!(job.matches(from).count(), 1, "{from}");
        job = job.replace(from, to);
    }
    job
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_job_sends_one_schedule_from_four_pods() {
    let Some(program) = std::env::var_os("ROUSE_E2E_COMMAND") else {
        // Elsewhere there may be no such image.
        return;
    };
    let space = Space::new("job").await;
    let address = space.deploy_warm(&Model::new("m").replicas(1)).await;
    let before = executed(&space);
    let start = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(30);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("job.yaml");
    std::fs::write(&file, example(&format!("http://{address}/work"), start)).unwrap();
    let applied = Command::new("kubectl")
        .args(["apply", "-n", &space.name, "-f"])
        .arg(&file)
        .status();
    assert!(applied.await.unwrap().success());
    let jobs: Api<Job> = space.api();
    let ended = space.until("the Job has ended", LONG * 2, async || {
        let status = jobs.get("load-test").await.ok()?.status?;
        let is_end = |kind: &str| kind == "Complete" || kind == "Failed";
        let conditions = status.conditions?.into_iter();
        let mut ends = conditions.filter(|one| is_end(&one.type_) && one.status == "True");
        ends.next().map(|end| (end.type_, end.message))
    });
    let ended = ended.await;
    let pods: Api<Pod> = space.api();
    let selector = ListParams::default().labels("batch.kubernetes.io/job-name=load-test");
    let mut reports = Vec::new();
    for pod in pods.list(&selector).await.unwrap() {
        let name = pod.metadata.name.unwrap();
        let log = pods.logs(&name, &LogParams::default()).await.unwrap();
        assert_eq!(ended.0, "Complete", "{ended:?} {log}");
        reports.push(folder.path().join(format!("{name}.json")));
        std::fs::write(reports.last().unwrap(), log).unwrap();
    }
    assert_eq!(reports.len(), 4);
    let merge = [OsString::from("merge")].into_iter();
    let report = load(&program, merge.chain(reports.into_iter().map(Into::into))).await;
    let summary = &report["summary"];
    // 120 on the way up and 400 after it.
    assert_eq!(summary["requests"], 520, "{summary}");
    assert_eq!(summary["errors"], serde_json::json!({}), "{summary}");
    // The model's own count: each was sent once, by one of the pods, and so were the 20 of the warm-up.
    assert_eq!(executed(&space) - before, 540);
    space.end().await;
}

/// How many requests the model has worked at.
fn executed(space: &Space) -> usize {
    let journals = space.journals("m");
    journals
        .values()
        .map(|journal| journal.lines().count())
        .sum()
}
