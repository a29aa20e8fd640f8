//! Reviews, and the API server's part in applying an answer.

use std::collections::BTreeMap;

use autoscaler_core::annotations::Annotations;
use serde_json::{Value, json};
use shared::TargetId;
use webhook::{Adopted, Door, Lookup, Malformed, Settings, review};

pub(crate) const UID: &str = "0c9a8d74-9cb7-44dd-b98e-09fd62def2f4";
/// Another one, as every review has its own.
pub(crate) const OTHER_UID: &str = "f6a1f0b2-1d0c-4c51-8d55-6b1c8a4a7e90";

pub(crate) fn settings() -> Settings {
    let mut settings = Settings::new("rouse.dev/queue-proxy:test");
    settings.image_pull_policy = Some("IfNotPresent".to_owned());
    settings
}

/// What a lookup of tests knows.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) opted_in: Vec<TargetId>,
    pub(crate) adopted: BTreeMap<String, Adopted>,
    pub(crate) annotations: Annotations,
}

impl Lookup for Known {
    fn is_opted_in(&self, target: &TargetId) -> bool {
        self.opted_in.contains(target)
    }

    fn adopted(&self, namespace: &str, service: &str) -> Option<Adopted> {
        self.adopted.get(&format!("{namespace}/{service}")).cloned()
    }

    fn annotations(&self, _target: &TargetId) -> Option<Annotations> {
        Some(self.annotations.clone())
    }
}

/// A request, as far as it matters.
pub(crate) fn request(resource: &str, operation: &str, object: &Value) -> Value {
    let (group, kind) = match resource {
        "pods" => ("", "Pod"),
        "services" => ("", "Service"),
        "deployments" => ("apps", "Deployment"),
        "statefulsets" => ("apps", "StatefulSet"),
        _ => ("autoscaling", "HorizontalPodAutoscaler"),
    };
    let version = if group == "autoscaling" { "v2" } else { "v1" };
    json!({
        "kind": "AdmissionReview",
        "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": UID,
            "kind": {"group": group, "version": version, "kind": kind},
            "resource": {"group": group, "version": version, "resource": resource},
            "name": object["metadata"]["name"].as_str().unwrap_or_default(),
            "namespace": "models",
            "operation": operation,
            "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller"},
            "object": object,
            "oldObject": null,
            "dryRun": false,
            "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
        },
    })
}

/// The answer to a review.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) denied: Option<String>,
    pub(crate) warnings: Vec<String>,
    pub(crate) patch: Option<json_patch::Patch>,
}

pub(crate) fn try_ask(review_of: &Value, lookup: &dyn Lookup) -> Result<Answer, Malformed> {
    let resource = review_of["request"]["resource"]["resource"].as_str();
    let door = if matches!(resource, Some("pods" | "services")) {
        Door::Mutate
    } else {
        Door::Validate
    };
    let body = serde_json::to_vec(review_of).unwrap();
    let answer = review(door, &body, &settings(), lookup)?;
    // As the API server sees it.
    let answer = serde_json::to_value(answer).unwrap();
    assert_eq!(answer["kind"], "AdmissionReview");
    assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
    let response = &answer["response"];
    assert_eq!(response["uid"], review_of["request"]["uid"]);
    let patch: Option<Vec<u8>> = serde_json::from_value(response["patch"].clone()).unwrap();
    assert_eq!(patch.is_some(), response["patchType"] == "JSONPatch");
    Ok(Answer {
        denied: (response["allowed"] == false)
            .then(|| response["status"]["message"].as_str().unwrap().to_owned()),
        warnings: serde_json::from_value::<Option<_>>(response["warnings"].clone())
            .unwrap()
            .unwrap_or_default(),
        patch: patch.map(|patch| serde_json::from_slice(&patch).unwrap()),
    })
}

pub(crate) fn ask(review_of: &Value) -> Answer {
    try_ask(review_of, &Known::default()).unwrap()
}

impl Answer {
    /// The object as it is stored.
    pub(crate) fn apply(&self, object: &Value) -> Value {
        assert_eq!(self.denied, None);
        let mut object = object.clone();
        if let Some(patch) = &self.patch {
            json_patch::patch(&mut object, patch).expect("the patch fits");
        }
        object
    }
}

/// Injects a pod, which has to work.
pub(crate) fn inject(pod: &Value) -> (Value, Vec<String>) {
    let answer = ask(&request("pods", "CREATE", pod));
    (answer.apply(pod), answer.warnings)
}

/// A pod of Deployment `iris` whose spec is `spec`.
pub(crate) fn pod(spec: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": "iris-7d9c5b8f6d-",
            "labels": {"rouse.dev/enabled": "true", "pod-template-hash": "7d9c5b8f6d"},
            "annotations": {},
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "iris-7d9c5b8f6d", "uid": "1", "controller": true,
            }],
        },
        "spec": spec,
    })
}

/// A spec with one container that serves on 8080.
pub(crate) fn spec() -> Value {
    json!({"containers": [{"name": "model", "image": "m", "ports": [{"name": "http", "containerPort": 8080}]}]})
}

/// The value of a variable of the sidecar.
pub(crate) fn variable(pod: &Value, name: &str) -> Option<String> {
    let env = pod["spec"]["initContainers"][0]["env"].as_array()?;
    let found = env.iter().find(|variable| variable["name"] == name)?;
    Some(found["value"].as_str()?.to_owned())
}
