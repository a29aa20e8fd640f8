//! KServe's model server with scikit-learn's Iris in real pods.
//!
//! No image is built of it: the pod mounts this machine's Python and the demo's environment, read-only, over an image that holds
//! next to nothing.

use std::{net::SocketAddr, path::PathBuf};

use k8s_openapi::api::apps::v1::Deployment;
use serde_json::{Value, json};

use crate::{
    Space,
    space::{root, service},
};

/// Its Deployment, its Service and the model.
pub(crate) const NAME: &str = "sklearn-iris";
/// Where it predicts.
pub(crate) const PREDICT: &str = "/v1/models/sklearn-iris:predict";

/// The environment that the demo uses too. It is only made outside of the cluster's network, from which nothing can be fetched.
pub(crate) async fn environment() -> PathBuf {
    let root = root();
    let requirements = root.join("examples/iris/requirements.txt");
    let venv = root.join("target/demo/venv");
    let told = |line: &str| println!("{line}");
    rouse::venv::prepare(&venv, &requirements, &((3, 10)..=(3, 13)), told)
        .await
        .unwrap()
}

/// Creates it at zero with its Service and waits until Rouse has taken it over; gives the Service's address.
pub(crate) async fn deploy(space: &Space, most: u32) -> SocketAddr {
    space
        .create_objects(&service(NAME), &deployment(most).await)
        .await;
    space.adopted(NAME).await;
    space.address(NAME).await
}

/// The Deployment of `examples/iris`, its program taken from this machine, with at most so many replicas: one for every four requests.
async fn deployment(most: u32) -> Deployment {
    let (root, name) = (root(), NAME);
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
    let object: Value = json!({
        "metadata": {"name": name, "labels": labels, "annotations": {
            "autoscaling.knative.dev/window": "6s",
            "autoscaling.knative.dev/target": "4",
            "autoscaling.knative.dev/max-scale": most.to_string(),
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
    });
    serde_json::from_value(object).unwrap()
}
