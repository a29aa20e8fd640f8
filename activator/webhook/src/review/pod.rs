//! A pod that is being made: it gets its sidecar.
//!
//! The patch touches nothing that it does not name, so fields that this version does not know stay as they are. A pod that has
//! its sidecar is left alone, so asking again changes nothing.

use json_patch::PatchOperation;
use k8s_openapi::{
    api::core::v1::{PodSpec, Probe},
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{api::ObjectMeta, core::DynamicObject};
use kubernetes::names;
use serde_json::json;
use shared::TargetId;

use super::{
    Malformed, Request, Verdict, add, is_enabled, part,
    plan::{self, plan},
    remove, sidecar,
};
use crate::{Lookup, Settings, annotations};

/// By which a `ReplicaSet`'s name differs from its Deployment's.
const TEMPLATE_HASH: &str = "pod-template-hash";

pub(super) fn review(
    request: &Request,
    pod: &DynamicObject,
    settings: &Settings,
    lookup: &dyn Lookup,
) -> Result<Verdict, Malformed> {
    let meta = &pod.metadata;
    if !is_enabled(meta) {
        return Ok(Verdict::default());
    }
    let namespace = request.namespace.as_deref().unwrap_or_default();
    let Some(target) = workload(meta).and_then(|name| TargetId::new(namespace, name).ok()) else {
        return Ok(Verdict::warned(format!(
            "label {} has no effect: the pod belongs to no Deployment or StatefulSet",
            names::ENABLED
        )));
    };
    let spec: PodSpec = part(pod, "spec")?;
    if is_injected(meta, &spec) {
        return Ok(Verdict::default());
    }
    let mut asked_for = annotations::merged(
        &lookup.annotations(&target).unwrap_or_default(),
        &annotations::of(meta),
    );
    let soft_limit = annotations::soft_limit(&asked_for, &settings.config);
    // A pod must not fail over how it is scaled: a cluster's limits may have changed since its workload was let in.
    asked_for.retain(|key, _| annotations::sidecar_keys().any(|known| known == key));
    let asked = match annotations::read(&asked_for, &settings.config) {
        Ok((asked, _)) => annotations::Asked {
            soft_limit,
            ..asked
        },
        Err(wrong) => return Ok(Verdict::denied(wrong.errors.join("\n"))),
    };
    let plan = match plan(&spec, &asked) {
        Ok(plan) => plan,
        Err(why) => return Ok(Verdict::denied(why)),
    };
    let token = token(&request.uid)?;
    let container = sidecar::container(&plan, &asked, &target, &token, settings);

    let mut patch = Vec::new();
    if meta.annotations.is_none() {
        patch.push(add(&["metadata", "annotations"], json!({})));
    }
    let mut record =
        |key: &str, value: String| patch.push(add(&["metadata", "annotations", key], json!(value)));
    let upstreams: Vec<String> = plan.upstreams.iter().map(ToString::to_string).collect();
    record(names::UPSTREAM_PORTS, upstreams.join(","));
    record(names::WORKLOAD, target.name().to_owned());
    if spec.init_containers.is_none() {
        patch.push(add(&["spec", "initContainers"], json!([])));
    }
    patch.push(add(&["spec", "initContainers", "0"], json!(container)));
    let place = plan.place.to_string();
    let main = ["spec", "containers", &place];
    let field = |path: &[&'static str]| [&main, path].concat();
    if plan.probe.is_some() {
        patch.push(remove(&field(&["readinessProbe"])));
    }
    if plan.sets_pre_stop {
        let has_lifecycle = spec
            .containers
            .get(plan.place)
            .is_some_and(|main| main.lifecycle.is_some());
        if !has_lifecycle {
            patch.push(add(&field(&["lifecycle"]), json!({})));
        }
        let hook = sidecar::hook(&token, "wait-for-drain");
        patch.push(add(&field(&["lifecycle", "preStop"]), json!(hook)));
    }
    if let Some(seconds) = plan.grace_seconds {
        patch.push(add(
            &["spec", "terminationGracePeriodSeconds"],
            json!(seconds),
        ));
        patch.extend(keep_restarts_quick(&spec));
    }
    Ok(Verdict {
        denied: None,
        patch,
        warnings: plan.warnings,
    })
}

/// The pod's grace period is also how long a container that hangs, and does not end upon SIGTERM, has until its liveness or startup
/// probe restarts it. A longer one is for the drain of a pod that goes; a restart keeps the time that it had. To be applied
/// once the sidecar is in its place.
fn keep_restarts_quick(spec: &PodSpec) -> Vec<PatchOperation> {
    let before = plan::grace_of(spec).max(1);
    let kinds = [
        ("initContainers", spec.init_containers.as_ref(), 1),
        ("containers", Some(&spec.containers), 0),
    ];
    let mut patch = Vec::new();
    for (kind, containers, shift) in kinds {
        for (place, container) in containers.into_iter().flatten().enumerate() {
            for (field, probe) in [
                ("livenessProbe", &container.liveness_probe),
                ("startupProbe", &container.startup_probe),
            ] {
                let given = |probe: &Probe| probe.termination_grace_period_seconds.is_some();
                if probe.as_ref().is_some_and(|probe| !given(probe)) {
                    let place = (place + shift).to_string();
                    let key = ["spec", kind, &place, field, "terminationGracePeriodSeconds"];
                    patch.push(add(&key, json!(before)));
                }
            }
        }
    }
    patch
}

/// The name of the Deployment or `StatefulSet` that a pod belongs to.
fn workload(meta: &ObjectMeta) -> Option<&str> {
    let owner = meta
        .owner_references
        .iter()
        .flatten()
        .find(|owner| owner.controller == Some(true) && is_apps(owner))?;
    match owner.kind.as_str() {
        "ReplicaSet" => {
            let hash = meta.labels.as_ref()?.get(TEMPLATE_HASH)?;
            owner.name.strip_suffix(hash.as_str())?.strip_suffix('-')
        }
        "StatefulSet" => Some(&owner.name),
        _ => None,
    }
}

fn is_apps(owner: &OwnerReference) -> bool {
    owner.api_version.starts_with("apps/")
}

fn is_injected(meta: &ObjectMeta, spec: &PodSpec) -> bool {
    let annotations = annotations::of(meta);
    let is_recorded = [names::UPSTREAM_PORTS, names::WORKLOAD]
        .iter()
        .all(|key| annotations.contains_key(*key));
    is_recorded && spec.init_containers.iter().flatten().any(sidecar::is_ours)
}

/// Least length of what comes of the UID: 128 bits as hexadecimal digits.
const TOKEN_LENGTH: usize = 32;

/// Who can see it can drain the pod, so it must not be guessed. The UID of a review is a random UUID that the API server makes
/// for this one question and keeps nowhere.
fn token(uid: &str) -> Result<String, Malformed> {
    let token: String = uid.chars().filter(char::is_ascii_alphanumeric).collect();
    if token.len() < TOKEN_LENGTH {
        return Err(Malformed("the request's uid is no UUID".to_owned()));
    }
    Ok(token)
}
