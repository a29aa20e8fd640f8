//! `rouse load cold` on a cluster: what it tells of wakes is what happened.

use std::ffi::OsString;

use serde_json::Value;
use tokio::process::Command;

use crate::{Space, space::Model};

/// Wakes what is at `target`; gives the report.
async fn cold(program: &OsString, target: &str, deployment: &str, flags: &[&str]) -> Value {
    let output = Command::new(program)
        .args(["load", "cold", "--target", target])
        .args(["--deployment", deployment, "--json", "-"])
        .args(flags)
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
        let reason = wake["reason"].as_str().unwrap();
        assert!(reason.contains("after it was planned"), "{reason}");
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
    // Without Rouse: the tool scales.
    let plain = space.deploy(&Model::new("p").plain()).await;
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
