//! What a Deployment object tells of a workload.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
};

use autoscaler_core::{ClusterConfig, TargetSpec, annotations};
use k8s_openapi::api::{
    apps::v1::{Deployment, DeploymentCondition},
    core::v1::PodTemplateSpec,
};
use litemap::LiteMap;
use shared::TargetId;

use crate::{Labels, labels, names, pod, ports, scale::Version};

/// A Deployment that is opted in, as far as Rouse cares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadView {
    /// Which.
    pub target: TargetId,
    /// UID of the Deployment.
    pub uid: Arc<str>,
    /// When it became as it is here.
    pub version: Version,
    /// `spec.replicas`.
    pub replicas: u32,
    /// Annotations of Knative's and our own group: the template's, and over them the Deployment's.
    pub settings: annotations::Annotations,
    /// Labels of its pods, by which Services select them.
    pub pod_labels: Labels,
    /// The model's ports that take requests: the n-th gets the sidecar's n-th port in front of it. Empty if the template does
    /// not say, see [`ports::request_ports`].
    pub upstreams: Vec<u16>,
    /// Named TCP ports of the model's container.
    pub named_ports: LiteMap<String, u16>,
    /// The scale is frozen.
    pub paused: bool,
    /// The pod template has the label too, so that new pods get the sidecar.
    pub template_enabled: bool,
    /// Why no pod can even be made, e.g. a quota: the condition `ReplicaFailure`.
    pub failure: Option<String>,
    /// The Deployment is being deleted.
    pub terminating: bool,
    /// A digest of the pod template: another one means that new pods are made otherwise.
    pub template: u64,
}

/// Settings as they are in force.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Resolved.
    pub spec: TargetSpec,
    /// What is wrong with the annotations, one line; `spec` is the last good one then.
    pub invalid: Option<String>,
}

impl WorkloadView {
    /// The view of a Deployment, if it is opted in.
    pub fn of(deployment: &Deployment) -> Option<Self> {
        let meta = &deployment.metadata;
        let enabled = |labels: Option<&BTreeMap<String, String>>| {
            labels
                .and_then(|all| all.get(names::ENABLED))
                .map(String::as_str)
                == Some(names::TRUE)
        };
        if !enabled(meta.labels.as_ref()) {
            return None;
        }
        let spec = deployment.spec.as_ref()?;
        let template = spec.template.metadata.as_ref();
        let mut settings = annotations::Annotations::new();
        // The template's last: they win, as in local mode and at admission.
        let given = [
            meta.annotations.as_ref(),
            template.and_then(|meta| meta.annotations.as_ref()),
        ];
        for (key, value) in given.into_iter().flatten().flatten() {
            if annotations::is_ours(key) {
                settings.insert(key.clone(), value.clone());
            }
        }
        let main = spec
            .template
            .spec
            .as_ref()
            .and_then(pod::model)
            .map(|(_, main)| main);
        let chosen = settings.get(names::PORTS).map(String::as_str);
        let conditions = deployment
            .status
            .as_ref()
            .and_then(|s| s.conditions.as_ref());
        Some(Self {
            target: TargetId::new(meta.namespace.as_deref()?, meta.name.as_deref()?).ok()?,
            uid: meta.uid.as_deref()?.into(),
            version: Version::of(meta),
            // The API server fills in 1 where nothing is said.
            replicas: spec
                .replicas
                .map_or(1, |count| count.try_into().unwrap_or(0)),
            upstreams: main
                .and_then(|main| ports::request_ports(main, chosen).ok())
                .unwrap_or_default(),
            named_ports: main.map(ports::named).unwrap_or_default(),
            paused: settings.get(names::PAUSED).map(String::as_str) == Some(names::TRUE),
            settings,
            pod_labels: labels::kept(template.and_then(|meta| meta.labels.as_ref())),
            template_enabled: enabled(template.and_then(|meta| meta.labels.as_ref())),
            failure: conditions.and_then(|all| all.iter().find_map(failure)),
            terminating: meta.deletion_timestamp.is_some(),
            template: digest(&spec.template),
        })
    }

    /// Its settings under the cluster's defaults. Where its annotations cannot be used, `last` stays in force.
    pub fn resolve(&self, config: &ClusterConfig, last: Option<&TargetSpec>) -> Settings {
        match annotations::parse(&self.settings, config) {
            Ok(parsed) => Settings {
                spec: parsed.spec,
                invalid: None,
            },
            Err(invalid) => Settings {
                spec: last.cloned().unwrap_or_else(|| {
                    annotations::resolve(&annotations::Annotations::new(), config)
                }),
                invalid: Some(invalid.to_string()),
            },
        }
    }

    /// Whether a Service with this selector selects its pods.
    pub fn selected_by(&self, selector: &Labels) -> bool {
        labels::selects(selector, &self.pod_labels)
    }
}

fn digest(template: &PodTemplateSpec) -> u64 {
    let mut hasher = DefaultHasher::new();
    // What cannot be written as JSON was not read as such either.
    let text = serde_json::to_vec(template).unwrap_or_default();
    text.hash(&mut hasher);
    hasher.finish()
}

fn failure(condition: &DeploymentCondition) -> Option<String> {
    let failed = condition.type_ == "ReplicaFailure" && condition.status == "True";
    failed.then(|| {
        let reason = condition.reason.as_deref().unwrap_or("ReplicaFailure");
        let message = condition.message.as_deref().unwrap_or_default();
        format!("{reason}: {message}")
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn deployment() -> Value {
        json!({
            "metadata": {
                "namespace": "models", "name": "iris", "uid": "u-1",
                "labels": {"rouse.dev/enabled": "true"},
                "annotations": {"autoscaling.knative.dev/target": "5", "other": "x"},
            },
            "spec": {
                "replicas": 0,
                "selector": {},
                "template": {"spec": {"containers": [
                    {"name": "model", "ports": [{"name": "http1", "containerPort": 8080}]},
                ]}, "metadata": {
                    "labels": {"app": "iris", "rouse.dev/enabled": "true"},
                    "annotations": {
                        "autoscaling.knative.dev/target": "9",
                        "autoscaling.knative.dev/max-scale": "4",
                        "rouse.dev/probe-paths": "/healthz, /metrics",
                    },
                }},
            },
        })
    }

    fn view(change: impl FnOnce(&mut Value)) -> Option<WorkloadView> {
        let mut object = deployment();
        change(&mut object);
        WorkloadView::of(&serde_json::from_value(object).unwrap())
    }

    #[test]
    fn the_templates_annotations_win_over_the_deployments() {
        let seen = view(|_| {}).unwrap();
        assert_eq!(
            (seen.replicas, seen.template_enabled, seen.paused),
            (0, true, false)
        );
        assert_eq!(seen.upstreams, [8080]);
        assert_eq!(seen.named_ports.get("http1"), Some(&8080));
        assert!(!seen.settings.contains_key("other"));
        let settings = seen.resolve(&ClusterConfig::default(), None);
        assert_eq!(settings.invalid, None);
        assert!((settings.spec.total - 9.0).abs() < 1e-9);
        assert_eq!(
            settings.spec.max_scale.map(autoscaler_core::Replicas::get),
            Some(4)
        );
        assert_eq!(settings.spec.opt_ins.probe_paths, ["/healthz", "/metrics"]);
    }

    #[test]
    fn the_digest_changes_with_the_template_and_with_nothing_else() {
        let seen = view(|_| {}).unwrap().template;
        let scaled = view(|d| {
            d["spec"]["replicas"] = json!(3);
            d["metadata"]["annotations"]["autoscaling.knative.dev/target"] = json!("7");
        });
        assert_eq!(scaled.unwrap().template, seen);
        let other =
            view(|d| d["spec"]["template"]["spec"]["containers"][0]["image"] = json!("m:2"));
        assert_ne!(other.unwrap().template, seen);
    }

    #[test]
    fn only_the_label_opts_in() {
        assert!(view(|d| d["metadata"]["labels"] = json!({})).is_none());
        assert!(view(|d| d["metadata"]["labels"]["rouse.dev/enabled"] = json!("yes")).is_none());
        let template =
            |d: &mut Value| d["spec"]["template"]["metadata"]["labels"] = json!({"app": "iris"});
        assert!(!view(template).unwrap().template_enabled);
    }

    #[test]
    fn what_is_not_said_is_one_replica() {
        let seen = view(|d| {
            d["spec"].as_object_mut().unwrap().remove("replicas");
        });
        assert_eq!(seen.unwrap().replicas, 1);
    }

    #[test]
    fn bad_annotations_keep_the_last_good_settings_and_say_what_is_wrong() {
        let good = view(|_| {})
            .unwrap()
            .resolve(&ClusterConfig::default(), None)
            .spec;
        let bad = view(|d| {
            d["spec"]["template"]["metadata"]["annotations"]["autoscaling.knative.dev/target"] =
                json!("-1");
        })
        .unwrap();
        let kept = bad.resolve(&ClusterConfig::default(), Some(&good));
        assert_eq!(kept.spec, good);
        assert!(
            kept.invalid
                .unwrap()
                .contains("autoscaling.knative.dev/target")
        );
        let first = bad.resolve(&ClusterConfig::default(), None);
        assert_eq!(first.spec, TargetSpec::default());
    }

    #[test]
    fn a_quota_that_lets_no_pod_be_made_is_seen() {
        let seen = view(|d| {
            d["status"] = json!({"conditions": [{"type": "ReplicaFailure", "status": "True",
                "reason": "FailedCreate", "message": "exceeded quota: pods"}]});
        });
        assert_eq!(
            seen.unwrap().failure.as_deref(),
            Some("FailedCreate: exceeded quota: pods")
        );
    }

    #[test]
    fn services_select_by_the_pods_labels() {
        let seen = view(|_| {}).unwrap();
        let map = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect::<Labels>()
        };
        assert!(seen.selected_by(&map(&[("app", "iris")])));
        assert!(!seen.selected_by(&map(&[("app", "iris"), ("tier", "x")])));
        assert!(!seen.selected_by(&map(&[])), "no selector selects nothing");
    }
}
