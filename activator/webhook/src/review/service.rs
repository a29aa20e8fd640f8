//! An adopted Service that somebody writes back.
//!
//! Some controllers (KServe in Standard mode) write a Service as they made it whenever it differs. The old `targetPort` would
//! send requests past the sidecar until it is flipped again, and that back and forth would never end. Here their write becomes
//! one that changes nothing. Any other value is a decision to be respected, and the autoscaler's own writes are never touched.

use k8s_openapi::{api::core::v1::ServiceSpec, apimachinery::pkg::util::intstr::IntOrString};
use kube::core::DynamicObject;
use kubernetes::names;
use serde_json::json;

use super::{Malformed, Request, Verdict, add, part};
use crate::Lookup;

pub(super) fn review(
    request: &Request,
    service: &DynamicObject,
    lookup: &dyn Lookup,
) -> Result<Verdict, Malformed> {
    let namespace = request.namespace.as_deref().unwrap_or_default();
    if field_manager(request) == Some(names::AUTOSCALER_MANAGER) {
        return Ok(Verdict::default());
    }
    let Some(adopted) = lookup.adopted(namespace, &request.name) else {
        return Ok(Verdict::default());
    };
    let spec: ServiceSpec = part(service, "spec")?;
    let mut patch = Vec::new();
    for (place, port) in spec.ports.iter().flatten().enumerate() {
        if port.protocol.as_deref().is_some_and(|p| p != "TCP") {
            continue;
        }
        let present = port
            .target_port
            .clone()
            .unwrap_or(IntOrString::Int(port.port));
        let flipped = adopted
            .ports
            .iter()
            .find(|one| i32::from(one.port) == port.port && one.was == present);
        if let Some(flipped) = flipped {
            patch.push(add(
                &["spec", "ports", &place.to_string(), "targetPort"],
                json!(names::request_port_name(flipped.index)),
            ));
        }
    }
    Ok(Verdict {
        patch,
        ..Verdict::default()
    })
}

/// Who writes, as stated in the options of the write.
fn field_manager(request: &Request) -> Option<&str> {
    request.options.as_ref()?.0.get("fieldManager")?.as_str()
}
