//! Every name by which Rouse's objects, fields and ports are known on a cluster.
//!
//! The programs and the command line meet in these names, so they stand in one place. Those that users write are
//! documented in `docs/reference/annotations.md`.

/// Label that opts a workload in: on the Deployment, and on its pod template, which is what the webhook sees.
pub const ENABLED: &str = "rouse.dev/enabled";
/// The one value of [`ENABLED`] that counts.
pub const TRUE: &str = "true";
/// Label selector of everything that is opted in.
pub const ENABLED_SELECTOR: &str = "rouse.dev/enabled=true";

/// Annotation: `true` freezes the scale.
pub const PAUSED: &str = "rouse.dev/paused";
/// Annotation on the pod template: container ports that take requests, e.g. `8080,9000`.
pub const PORTS: &str = "rouse.dev/ports";
/// Annotation: `standing` leaves the fallback slice's `ready` alone.
pub const FALLBACK: &str = "rouse.dev/fallback";
/// Annotation: longest time a drain may take.
pub const DRAIN_GRACE: &str = "rouse.dev/drain-grace";
/// Annotation: the form of the sidecar's request log, `json` or a template; without it there is none.
pub const REQUEST_LOG: &str = "rouse.dev/request-log";

/// Annotation that the webhook writes on a Pod: the model's ports, the n-th behind the n-th request port.
pub const UPSTREAM_PORTS: &str = "rouse.dev/upstream-ports";
/// Annotation that the webhook writes on a Pod: the name of the workload in the Pod's namespace.
pub const WORKLOAD: &str = "rouse.dev/workload";
/// Annotation on the companion of an adopted Service: what has to be undone.
pub const ADOPTED: &str = "rouse.dev/adopted";
/// Annotation on a claim that is not in use any more: since when, in seconds since 1970.
pub const RELEASED: &str = "rouse.dev/released";
/// Annotation that activators change on a `ReplicaSet` to make its controller try again: when. Not in the group of those
/// that users write: `kubectl rollout undo` copies a `ReplicaSet`'s annotations to its Deployment, where those are read.
pub const NUDGED: &str = "activator.rouse.dev/nudged";

/// Who keeps our slices and companions, in `endpointslice.kubernetes.io/managed-by` and `app.kubernetes.io/managed-by`.
pub const MANAGER: &str = "rouse.dev";
/// Kubernetes' label that ties an `EndpointSlice` to its Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Kubernetes' label of whoever keeps an `EndpointSlice`.
pub const SLICE_MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Label selector of all our slices.
pub const SLICES_SELECTOR: &str = "endpointslice.kubernetes.io/managed-by=rouse.dev";
/// Kubernetes' label of whoever keeps an object.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Label of port claims, which are `ConfigMap`s in our own namespace.
pub const CLAIM: &str = "rouse.dev/port-claim";
/// Label of Services that are companions, see [`companion`].
pub const COMPANION: &str = "rouse.dev/companion";

/// Label of Services that are relays, see [`relay`].
pub const RELAY: &str = "rouse.dev/relay";

/// Field manager of the activator: it writes a scale from 0, and [`NUDGED`].
pub const ACTIVATOR_MANAGER: &str = "rouse-activator";
/// Field manager of the autoscaler.
pub const AUTOSCALER_MANAGER: &str = "rouse-autoscaler";

/// `ServiceAccount` of the activators, and the name of all roles and bindings of theirs.
pub const ACTIVATOR_ACCOUNT: &str = "rouse-activator";
/// The same of the autoscalers.
pub const AUTOSCALER_ACCOUNT: &str = "rouse-autoscaler";
/// Finalizer on those objects: they stay until every workload is given back.
pub const GIVE_BACK: &str = "rouse.dev/give-back";

/// Where Rouse itself lives unless it is told otherwise.
pub const NAMESPACE: &str = "rouse-system";
/// Cluster-wide defaults: a `ConfigMap` in our namespace with the keys of Knative's config-autoscaler.
pub const CONFIG: &str = "rouse-config";
/// What was learned of workloads: `ConfigMap`s in our namespace, this and a number each.
pub const LEARNED: &str = "rouse-learned";
/// The autoscalers' Lease in our namespace.
pub const LEASE: &str = "rouse-autoscaler";

/// The sidecar's container.
pub const SIDECAR: &str = "queue-proxy";
/// The sidecar's first port for requests from Services; the n-th is this plus n. Knative's port of its queue-proxy.
pub const FIRST_REQUEST_PORT: u16 = 8012;
/// Most request ports of a pod: those between [`FIRST_REQUEST_PORT`] and [`LIFECYCLE_PORT`].
pub const MAX_REQUEST_PORTS: usize = 8;
/// The sidecar's life cycle hooks. Never in a Service.
pub const LIFECYCLE_PORT: u16 = 8022;
/// The sidecar's port for activators.
pub const ACTIVATOR_PORT: u16 = 8030;
/// The sidecar's statistics, metrics and health.
pub const STATS_PORT: u16 = 9091;

/// The activator's ports for requests, one per workload and request port.
pub const CLAIM_PORTS: std::ops::RangeInclusive<u16> = 10_000..=29_999;
/// The activator's statistics, metrics and health.
pub const ACTIVATOR_STATS_PORT: u16 = 9093;
/// The webhook's port on the activator.
pub const WEBHOOK_PORT: u16 = 8443;

/// Label that all of the activators' Pods have; the value is in the manifests.
pub const ACTIVATOR_SELECTOR: &str = "app.kubernetes.io/name=rouse-activator";

/// The name of the n-th request port of a sidecar, which Services get as `targetPort`.
pub fn request_port_name(index: usize) -> String {
    format!("rouse-{index}")
}

/// The index in a name of [`request_port_name`].
pub fn request_port_index(name: &str) -> Option<usize> {
    let index = name.strip_prefix("rouse-")?.parse().ok()?;
    (request_port_name(index) == name && index < MAX_REQUEST_PORTS).then_some(index)
}

/// The Service beside an adopted one that always leads to the activators: an address for clients that want every request held.
pub fn companion(service: &str) -> String {
    format!("{service}-rouse")
}

/// The Service of a workload by which its sidecars send to the activators what they cannot take. Its ports are those of the sidecars
/// ([`FIRST_REQUEST_PORT`] plus n), so that all of its address is known when a Pod is made, before any Service is. None if the
/// workload's name makes no such name. No companion can have that name.
pub fn relay(workload: &str) -> Option<String> {
    let name = format!("{workload}-rouse-relay");
    // A Service's name is one label of a DNS name that begins with a letter (RFC 1035), a workload's may be several, and begin with a
    // digit.
    let is_label = name.len() <= 63 && !name.contains('.');
    (is_label && name.starts_with(|first: char| first.is_ascii_lowercase())).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_names_are_read_back_and_nothing_else_is() {
        for index in 0..MAX_REQUEST_PORTS {
            assert_eq!(request_port_index(&request_port_name(index)), Some(index));
            assert!(
                request_port_name(index).len() <= 15,
                "a port's name is that short"
            );
        }
        for other in ["rouse-8", "rouse-01", "rouse-", "rouse", "http", "rouse-+1"] {
            assert_eq!(request_port_index(other), None, "{other}");
        }
    }

    #[test]
    fn a_relay_has_the_name_of_a_service_and_of_no_companion() {
        let name = relay("iris").unwrap();
        assert_eq!(name, "iris-rouse-relay");
        assert!(!name.ends_with(&companion("")));
        assert!(relay(&"a".repeat(51)).is_some_and(|name| name.len() == 63));
        assert_eq!(relay(&"a".repeat(52)), None);
        assert_eq!(relay("a.b"), None);
        assert_eq!(relay("7b-chat"), None);
    }
}
