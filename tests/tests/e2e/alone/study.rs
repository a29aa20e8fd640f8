//! The seed study's table, measured on a cluster by the command that a user would give.

use std::time::Duration;

use serde_json::Value;
use tokio::{process::Command, time::timeout};

use crate::{
    Space,
    iris::{self, NAME, PREDICT},
    space::root,
};

/// Five model servers start on two cores, one after the other.
const LIMIT: Duration = Duration::from_mins(6);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_study_s_table_is_measured_on_a_cluster() {
    let Some(program) = std::env::var_os("ROUSE_E2E_COMMAND") else {
        // On a foreign cluster nothing is built.
        return;
    };
    let space = Space::new("study").await;
    let address = iris::deploy(&space, 5).await;
    let folder = tempfile::tempdir().unwrap();
    let rows = folder.path().join("rows.json");
    let mut study = Command::new("python3");
    study
        .arg(root().join("loadtests/scenarios/study.py"))
        .args(["cluster", "--wakes", "2", "--seconds", "15"])
        .args(["--target", &format!("http://{address}{PREDICT}")])
        .args(["--deployment", &format!("{}/{NAME}", space.name)])
        .arg("--rouse")
        .arg(program)
        .arg("--json")
        .arg(&rows)
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true);
    let output = timeout(LIMIT, study.output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    println!("{}", String::from_utf8_lossy(&output.stdout));
    let rows: Value = serde_json::from_slice(&std::fs::read(rows).unwrap()).unwrap();
    let row = |name: &str| rows["here"][name].as_str().unwrap().to_owned();
    // Both wakes are proven by pods that began after them, and the kubelet tells what pods take.
    for (name, text) in [
        ("cold start", "2 proven"),
        ("cold start", "kubernetes"),
        ("CPU of a pod", " cores"),
        ("memory of a pod", " MB"),
        ("replicas", "to 5, then 0"),
    ] {
        assert!(row(name).contains(text), "{name}: {}", row(name));
    }
    assert_eq!(space.replicas(NAME).await, (0, 0));
    space.end().await;
}
