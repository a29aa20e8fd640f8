//! One question of the API server, and its answer.
//!
//! A pure function: the same review, settings and knowledge give the same answer, nothing is awaited and nothing is changed
//! elsewhere. Whoever is not opted in is let through untouched, whatever else is wrong with the object.

use json_patch::{Patch, PatchOperation, jsonptr::PointerBuf};
use kube::core::{
    DynamicObject, Status,
    admission::{AdmissionRequest, AdmissionResponse, AdmissionReview, Operation},
};
use serde_json::Value;

use crate::{Lookup, Settings};

mod autoscaler;
mod plan;
mod pod;
mod port;
mod probe;
mod service;
mod sidecar;
mod workload;

/// Which of the two webhooks asks. Only one of them may change objects, and only the other sees them as they will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// Pods and Services.
    Mutate,
    /// Workloads and autoscalers.
    Validate,
}

/// What is asked is no review that can be answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(String);

/// What becomes of an object.
#[derive(Debug, Default)]
struct Verdict {
    denied: Option<String>,
    patch: Vec<PatchOperation>,
    warnings: Vec<String>,
}

impl Verdict {
    fn denied(reason: impl Into<String>) -> Self {
        Self {
            denied: Some(reason.into()),
            ..Self::default()
        }
    }

    fn warned(warning: impl Into<String>) -> Self {
        Self {
            warnings: vec![warning.into()],
            ..Self::default()
        }
    }
}

type Request = AdmissionRequest<DynamicObject>;

/// Answers the review in `body`.
///
/// # Errors
/// [`Malformed`] for what no API server sends, or for an object at the wrong door.
pub fn review(
    door: Door,
    body: &[u8],
    settings: &Settings,
    lookup: &dyn Lookup,
) -> Result<AdmissionReview<DynamicObject>, Malformed> {
    let review: AdmissionReview<DynamicObject> = serde_json::from_slice(body)
        .map_err(|error| Malformed(format!("this is no AdmissionReview: {error}")))?;
    let (kind, version) = (&review.types.kind, &review.types.api_version);
    if (kind.as_str(), version.as_str()) != ("AdmissionReview", "admission.k8s.io/v1") {
        return Err(Malformed(format!(
            "expected an AdmissionReview of admission.k8s.io/v1, got {kind:?} of {version:?}"
        )));
    }
    let request: Request = review
        .try_into()
        .map_err(|_| Malformed("the AdmissionReview has no request".to_owned()))?;
    if request.uid.is_empty() {
        return Err(Malformed("the request has no uid".to_owned()));
    }
    let verdict = judge(door, &request, settings, lookup)?;
    Ok(answer(&request, verdict).into_review())
}

fn judge(
    door: Door,
    request: &Request,
    settings: &Settings,
    lookup: &dyn Lookup,
) -> Result<Verdict, Malformed> {
    let namespace = request.namespace.as_deref().unwrap_or_default();
    let is_about = |group: &str, resource: &str| {
        request.resource.group == group && request.resource.resource == resource
    };
    let is_pod = is_about("", "pods");
    let is_service = is_about("", "services");
    let is_workload = is_about("apps", "deployments") || is_about("apps", "statefulsets");
    let is_autoscaler = is_about("autoscaling", "horizontalpodautoscalers");
    let wrong_door = match door {
        Door::Mutate => is_workload || is_autoscaler,
        Door::Validate => is_pod || is_service,
    };
    if wrong_door {
        return Err(Malformed(format!(
            "{} are not reviewed here: pods and services belong to the mutating webhook, workloads and autoscalers to the \
             validating one",
            request.resource.resource
        )));
    }
    let has_part = request
        .sub_resource
        .as_deref()
        .is_some_and(|part| !part.is_empty());
    if has_part || namespace == settings.namespace {
        return Ok(Verdict::default());
    }
    let Some(object) = &request.object else {
        return match request.operation {
            Operation::Create | Operation::Update if is_pod || is_service || is_workload => {
                Err(Malformed("the request has no object".to_owned()))
            }
            _ => Ok(Verdict::default()),
        };
    };
    // What is on its way out is not held up: its owner may only be taking a finalizer away.
    if object.metadata.deletion_timestamp.is_some() {
        return Ok(Verdict::default());
    }
    match request.operation {
        Operation::Create if is_pod => pod::review(request, object, settings, lookup),
        Operation::Update if is_service => service::review(request, object, lookup),
        Operation::Create | Operation::Update if is_workload => {
            workload::review(request, object, settings)
        }
        Operation::Create | Operation::Update if is_autoscaler => {
            Ok(autoscaler::review(request, object, lookup))
        }
        _ => Ok(Verdict::default()),
    }
}

/// What the API server shows of a warning; it cuts off the rest of a longer one.
const WARNING_LENGTH: usize = 256;

fn answer(request: &Request, verdict: Verdict) -> AdmissionResponse {
    let mut response = AdmissionResponse::from(request);
    if let Some(reason) = verdict.denied {
        response.allowed = false;
        response.result = Status::failure(&reason, "Forbidden").with_code(403);
    } else if !verdict.patch.is_empty() {
        response = match response.with_patch(Patch(verdict.patch)) {
            Ok(response) => response,
            // Made of JSON values, so it cannot happen; an unpatched pod must not slip through.
            Err(error) => AdmissionResponse::from(request).deny(error),
        };
    }
    if !verdict.warnings.is_empty() {
        let warnings = verdict.warnings.into_iter().map(|mut warning| {
            if let Some((end, _)) = warning.char_indices().nth(WARNING_LENGTH) {
                warning.truncate(end);
            }
            warning
        });
        response.warnings = Some(warnings.collect());
    }
    response
}

/// The part of an object below a key of its root.
fn part<T: serde::de::DeserializeOwned + Default>(
    object: &DynamicObject,
    key: &str,
) -> Result<T, Malformed> {
    match object.data.get(key) {
        None => Ok(T::default()),
        Some(value) => T::deserialize(value)
            .map_err(|error| Malformed(format!("{key} of the object cannot be read: {error}"))),
    }
}

fn add(path: &[&str], value: Value) -> PatchOperation {
    PatchOperation::Add(json_patch::AddOperation {
        path: PointerBuf::from_tokens(path.iter().copied()),
        value,
    })
}

fn remove(path: &[&str]) -> PatchOperation {
    PatchOperation::Remove(json_patch::RemoveOperation {
        path: PointerBuf::from_tokens(path.iter().copied()),
    })
}

/// Whether labels opt in.
fn is_enabled(meta: &kube::api::ObjectMeta) -> bool {
    let labels = meta.labels.as_ref();
    labels
        .and_then(|labels| labels.get(kubernetes::names::ENABLED))
        .is_some_and(|value| value == kubernetes::names::TRUE)
}
