//! What a review cannot tell by itself: what else there is on the cluster.
//!
//! Answers come from memory: a review waits for nothing. An answer may be a moment old, so nothing is denied for want of one.

use autoscaler_core::annotations::Annotations;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use shared::TargetId;

/// Knows the cluster as it was a moment ago.
pub trait Lookup: Send + Sync {
    /// Whether the Deployment or `StatefulSet` of that name is opted in.
    fn is_opted_in(&self, target: &TargetId) -> bool;

    /// How a Service was adopted, if it is.
    fn adopted(&self, namespace: &str, service: &str) -> Option<Adopted>;

    /// The annotations on a workload itself. A Pod carries those of its template only, and both count.
    fn annotations(&self, _target: &TargetId) -> Option<Annotations> {
        None
    }
}

/// What was done to a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Adopted {
    /// The ports that lead to the sidecar.
    pub ports: Vec<AdoptedPort>,
}

/// One port of an adopted Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdoptedPort {
    /// The Service's port. Request ports are TCP.
    pub port: u16,
    /// Its `targetPort` before. Only this value is taken for the old one written back; another is somebody's new decision.
    pub was: IntOrString,
    /// The request port that it leads to, counted from 0.
    pub index: usize,
}

/// Knows nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nothing;

impl Lookup for Nothing {
    fn is_opted_in(&self, _target: &TargetId) -> bool {
        false
    }

    fn adopted(&self, _namespace: &str, _service: &str) -> Option<Adopted> {
        None
    }
}
