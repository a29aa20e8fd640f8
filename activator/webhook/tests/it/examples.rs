//! The examples that users start from.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::support::{ask, inject, request};

/// All objects of an example.
fn objects(text: &str) -> Vec<Value> {
    text.split("\n---\n")
        .map(|document| serde_saphyr::from_str(document).unwrap())
        .collect()
}

/// The pod that a Deployment's controller would make.
fn pod(deployment: &Value) -> Value {
    let name = deployment["metadata"]["name"].as_str().unwrap();
    let template = &deployment["spec"]["template"];
    let mut meta = template["metadata"].clone();
    let hash = "5d4f8c7b9";
    meta["labels"]["pod-template-hash"] = json!(hash);
    meta["namespace"] = json!("models");
    meta["generateName"] = json!(format!("{name}-{hash}-"));
    meta["ownerReferences"] = json!([{
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "controller": true,
        "name": format!("{name}-{hash}"), "uid": "7f7a1c1e-0000-4000-8000-000000000001",
    }]);
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": template["spec"]})
}

#[test]
fn every_example_is_let_in_without_a_warning_and_gets_its_sidecar() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/examples");
    let mut seen = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|kind| kind != "yaml") {
            continue;
        }
        let all = objects(&fs::read_to_string(&path).unwrap());
        let count = |kind: &str| all.iter().filter(|object| object["kind"] == kind).count();
        assert_eq!(count("Service"), count("Deployment"), "{path:?}");
        for deployment in all.iter().filter(|object| object["kind"] == "Deployment") {
            seen += 1;
            let answer = ask(&request("deployments", "CREATE", deployment));
            assert_eq!(answer.denied, None, "{path:?}");
            assert_eq!(answer.warnings, [""; 0], "{path:?}");
            let (injected, warnings) = inject(&pod(deployment));
            assert_eq!(warnings, [""; 0], "{path:?}");
            let containers = injected["spec"]["initContainers"].as_array().unwrap();
            assert_eq!(containers[0]["name"], "queue-proxy", "{path:?}");
        }
    }
    assert!(seen >= 3, "Iris, vLLM and MLServer");
}

#[test]
fn the_job_of_the_examples_has_no_field_that_kubernetes_does_not_know() {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/examples/load-test-job.yaml");
    let [job] = <[Value; 1]>::try_from(objects(&fs::read_to_string(path).unwrap())).unwrap();
    let typed: k8s_openapi::api::batch::v1::Job = serde_json::from_value(job.clone()).unwrap();
    // What it does not know it would have left out.
    assert_eq!(serde_json::to_value(typed).unwrap(), job);
}
