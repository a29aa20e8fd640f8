//! A Deployment or `StatefulSet` that is opted in: what cannot work is said to whoever writes it, not to its pods later.
//!
//! What was wrong already is no reason to refuse a write that does not touch it: a rule that became stricter must not keep
//! anybody from scaling or repairing what runs. It is a warning then.

use autoscaler_core::annotations::Annotations;
use k8s_openapi::api::core::v1::{PodSpec, PodTemplateSpec};
use kube::core::DynamicObject;
use kubernetes::names;
use serde_json::Value;

use super::{Malformed, Request, Verdict, is_enabled, part, plan::plan, sidecar};
use crate::{Settings, annotations};

/// The part of the spec that is looked at.
#[derive(Debug, Default, serde::Deserialize)]
struct Spec {
    #[serde(default)]
    template: PodTemplateSpec,
}

pub(super) fn review(
    request: &Request,
    object: &DynamicObject,
    settings: &Settings,
) -> Result<Verdict, Malformed> {
    let Spec { template } = part(object, "spec")?;
    let template_meta = template.metadata.clone().unwrap_or_default();
    if !is_enabled(&object.metadata) {
        return Ok(not_opted_in(object, &template_meta));
    }
    let own = annotations::of(&object.metadata);
    let of_template = annotations::of(&template_meta);
    let merged = annotations::merged(&own, &of_template);
    let mut errors = Vec::new();
    let mut warnings = Vec::new();
    match annotations::read(&merged, &settings.config) {
        Ok((asked, told)) => {
            warnings.extend(told);
            let spec = template.spec.unwrap_or_default();
            if is_enabled(&template_meta) && !has_sidecar(&spec) {
                match plan(&spec, &asked) {
                    Ok(plan) => warnings.extend(plan.warnings),
                    Err(why) => errors.push(why),
                }
            }
        }
        Err(wrong) => {
            errors = wrong.errors;
            warnings.extend(wrong.warnings);
        }
    }
    if !is_enabled(&template_meta) {
        warnings.push(format!(
            "spec.template lacks label {}: its pods get no sidecar, so it is not scaled by requests",
            names::ENABLED_SELECTOR
        ));
    }
    for key in annotations::sidecar_keys() {
        if own.contains_key(key) && !of_template.contains_key(key) {
            warnings.push(format!(
                "{key} is for the sidecar: set it on spec.template, where a change of it makes new pods"
            ));
        }
    }
    let before = request.old_object.as_ref();
    if errors.is_empty() || !before.is_some_and(|before| is_unchanged(before, object, &merged)) {
        return Ok(Verdict {
            denied: (!errors.is_empty()).then(|| errors.join("\n")),
            patch: Vec::new(),
            warnings,
        });
    }
    Ok(Verdict {
        warnings: errors.into_iter().chain(warnings).collect(),
        ..Verdict::default()
    })
}

fn not_opted_in(object: &DynamicObject, template: &kube::api::ObjectMeta) -> Verdict {
    let label = object
        .metadata
        .labels
        .as_ref()
        .and_then(|labels| labels.get(names::ENABLED));
    match label {
        Some(value) if value != "false" => Verdict::warned(format!(
            "label {}={value} has no effect: the one value that counts is {}",
            names::ENABLED,
            names::TRUE
        )),
        None if is_enabled(template) => Verdict::warned(format!(
            "only spec.template has label {}: its pods get a sidecar, and nobody scales it",
            names::ENABLED_SELECTOR
        )),
        _ => Verdict::default(),
    }
}

/// Whether a template was written from a pod that had been injected.
fn has_sidecar(spec: &PodSpec) -> bool {
    spec.init_containers.iter().flatten().any(sidecar::is_ours)
}

/// Whether nothing that could be wrong was touched.
fn is_unchanged(before: &DynamicObject, now: &DynamicObject, merged: &Annotations) -> bool {
    let template = |object: &DynamicObject| -> Option<Value> {
        object.data.get("spec")?.get("template").cloned()
    };
    let of_template = |object: &DynamicObject| {
        let parsed: Result<Spec, _> = part(object, "spec");
        parsed
            .ok()
            .and_then(|spec| spec.template.metadata)
            .map_or_else(Annotations::new, |meta| annotations::of(&meta))
    };
    is_enabled(&before.metadata)
        && template(before) == template(now)
        && annotations::merged(&annotations::of(&before.metadata), &of_template(before)) == *merged
}
