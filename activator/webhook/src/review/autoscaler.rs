//! An autoscaler of Kubernetes for a workload that Rouse scales: two writers of one number.

use kube::core::DynamicObject;
use kubernetes::names;
use shared::TargetId;

use super::{Request, Verdict};
use crate::Lookup;

pub(super) fn review(
    request: &Request,
    autoscaler: &DynamicObject,
    lookup: &dyn Lookup,
) -> Verdict {
    let reference = |field: &str| {
        let value = autoscaler
            .data
            .get("spec")?
            .get("scaleTargetRef")?
            .get(field)?;
        value.as_str()
    };
    let namespace = request.namespace.as_deref().unwrap_or_default();
    let (kind, name) = (reference("kind"), reference("name").unwrap_or_default());
    let is_apps = reference("apiVersion").is_none_or(|version| version.starts_with("apps/"));
    let (Some(kind @ ("Deployment" | "StatefulSet")), true, Ok(target)) =
        (kind, is_apps, TargetId::new(namespace, name))
    else {
        return Verdict::default();
    };
    if !lookup.is_opted_in(&target) {
        return Verdict::default();
    }
    Verdict::denied(format!(
        "{kind} {target} has label {}, so Rouse scales it, and a second autoscaler would fight over its replicas: scale it with \
         one of the two",
        names::ENABLED_SELECTOR
    ))
}
