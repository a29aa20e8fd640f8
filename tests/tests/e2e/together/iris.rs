//! The real model server in real pods: KServe's, with scikit-learn's Iris.
//!
//! No image is built of it: the pod mounts this machine's Python and the demo's environment, read-only, over an image that holds
//! next to nothing.

use std::{path::PathBuf, time::Duration};

use integration::{
    client::{Account, fetch, get, post},
    load,
};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use crate::{
    Space,
    space::{LONG, service},
};

/// One flower, of the first of three kinds.
const FLOWER: &str = r#"{"instances": [[5.1,3.5,1.4,0.2]]}"#;
const PREDICT: &str = "/v1/models/sklearn-iris:predict";

/// The root of the repository.
fn root() -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    root.canonicalize().unwrap()
}

/// The environment that the demo uses too. It is only made outside of the cluster's network, from which nothing can be fetched.
async fn environment() -> PathBuf {
    let root = root();
    let requirements = root.join("examples/iris/requirements.txt");
    let venv = root.join("target/demo/venv");
    let told = |line: &str| println!("{line}");
    rouse::venv::prepare(&venv, &requirements, &((3, 10)..=(3, 13)), told)
        .await
        .unwrap()
}

#[tokio::test]
#[ignore = "cargo xtask e2e runs it before the others, outside of the cluster's network"]
async fn prepare() {
    assert!(environment().await.is_file());
}

/// The Deployment of `examples/iris`, its program taken from this machine.
async fn deployment() -> Value {
    let (root, name) = (root(), "sklearn-iris");
    let venv = root.join("target/demo/venv");
    let example = root.join("examples/iris");
    let python = environment().await;
    let base = python.canonicalize().unwrap();
    let base = base.parent().unwrap().parent().unwrap().to_owned();
    let folders = [
        PathBuf::from("/usr"),
        "/lib".into(),
        "/lib64".into(),
        base,
        venv,
        example.clone(),
    ];
    let mut folders: Vec<_> = folders
        .into_iter()
        .filter(|folder| folder.is_dir())
        .collect();
    folders.dedup();
    let (mut volumes, mut mounts) = (
        vec![json!({"name": "tmp", "emptyDir": {}})],
        vec![json!({"name": "tmp", "mountPath": "/tmp"})],
    );
    for (n, folder) in folders.iter().enumerate() {
        let volume = format!("host{n}");
        volumes.push(json!({"name": volume, "hostPath": {"path": folder}}));
        mounts.push(json!({"name": volume, "mountPath": folder, "readOnly": true}));
    }
    let labels = json!({"app": name, "rouse.dev/enabled": "true"});
    json!({
        "metadata": {"name": name, "labels": labels, "annotations": {
            "autoscaling.knative.dev/window": "6s",
            "autoscaling.knative.dev/target": "4",
            "autoscaling.knative.dev/max-scale": "3",
        }},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "containers": [{
                        "name": "kserve-container",
                        "image": "docker.io/library/tiny-model:dev",
                        "imagePullPolicy": "Never",
                        "command": [python, example.join("serve.py")],
                        "env": [
                            {"name": "PORT", "value": "8080"},
                            {"name": "IRIS_CACHE", "value": "/tmp"},
                            {"name": "HOME", "value": "/tmp"},
                            {"name": "OMP_NUM_THREADS", "value": "1"},
                            {"name": "OPENBLAS_NUM_THREADS", "value": "1"},
                        ],
                        "ports": [{"name": "http", "containerPort": 8080}],
                        "readinessProbe": {"httpGet": {"path": "/v2/models/sklearn-iris/ready", "port": "http"}, "periodSeconds": 1},
                        "volumeMounts": mounts,
                        "securityContext": {"runAsUser": 0},
                    }],
                    "volumes": volumes,
                },
            },
        },
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn iris_wakes_from_zero_scales_and_sleeps_without_an_error() {
    let space = Space::new("iris").await;
    let name = "sklearn-iris";
    space
        .create_objects(
            &service(name),
            &serde_json::from_value(deployment().await).unwrap(),
        )
        .await;
    space.adopted(name).await;
    let address = space.address(name).await;
    let began = Instant::now();
    let first = timeout(
        LONG * 2,
        Account::default().send(address, None, post(PREDICT, FLOWER)),
    )
    .await
    .unwrap()
    .unwrap();
    println!(
        "the first prediction took {:?}: {}",
        began.elapsed(),
        first.header("rouse-timing")
    );
    assert_eq!(
        (first.status.as_u16(), first.text().as_str()),
        (200, r#"{"predictions":[0]}"#)
    );
    let timing = first.header("rouse-timing").to_owned();
    for phase in [
        "hold",
        "patched",
        "pod_scheduled",
        "pod_seen",
        "sidecar_started",
        "port_open",
        "model_ready",
        "first_byte",
    ] {
        assert!(timing.contains(phase), "{phase} is not in {timing}");
    }

    // GETs of the model's metadata are load as well as predictions are, and the load tester counts every one.
    let url = format!("http://{address}/v2/models/sklearn-iris");
    let run =
        tokio::spawn(
            async move { load::run(&url, 12, load::closed(Duration::from_secs(25))).await },
        );
    space
        .until("more than one replica", LONG, async || {
            (space.replicas(name).await.1 > 1).then_some(())
        })
        .await;
    let (report, _) = timeout(LONG * 2, run).await.unwrap().unwrap();
    println!("{} requests", report.summary.requests);
    assert_eq!(report.summary.error_count, 0, "{:?}", report.summary.errors);
    space.settled(name, 0, LONG * 3).await;
    let again = timeout(
        LONG * 2,
        fetch(address, get("/v2/models/sklearn-iris/ready")),
    )
    .await
    .unwrap()
    .unwrap();
    assert_eq!(again.status, 200);
    space.end().await;
}
