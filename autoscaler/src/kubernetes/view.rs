//! Small views of the objects that adoption is decided from: what is kept in memory of each, and nothing else.

use std::net::IpAddr;

use k8s_openapi::{
    api::{
        core::v1::{Pod, Service},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::util::intstr::IntOrString as TargetPort,
};
use kubernetes::{Adopted, Labels, PodView, labels, names};
use litemap::LiteMap;

/// Kubernetes' annotation by which a `ReplicaSet` chooses the pods that it deletes first: those with the lowest number.
pub(crate) const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// How the name of a relay ends, see [`names::relay`].
const RELAY_END: &str = "-rouse-relay";

/// One port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PortView {
    /// Its place in the list, by which a patch names it.
    pub(crate) place: usize,
    /// Empty if it has none.
    pub(crate) name: String,
    pub(crate) port: u16,
    pub(crate) app_protocol: Option<String>,
    pub(crate) target: TargetPort,
    pub(crate) tcp: bool,
}

/// A Service that selects pods, a companion of one, or a workload's relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServiceView {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) selector: Labels,
    pub(crate) ports: Vec<PortView>,
    /// Why it cannot be adopted whatever its ports are.
    pub(crate) refused: Option<Refusal>,
    /// It has no address of its own.
    pub(crate) headless: bool,
    /// The annotation `rouse.dev/ports`.
    pub(crate) chosen: Option<String>,
    pub(crate) role: Role,
    /// What a companion says was done to its Service; a relay says whose it is.
    pub(crate) adopted: Option<Adopted>,
    /// UID of its owner.
    pub(crate) owner: Option<String>,
    pub(crate) terminating: bool,
}

/// Whose a Service is, by its labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// A user's.
    Theirs,
    /// It has our label of companions.
    Companion,
    /// It has our label of relays.
    Relay,
}

/// Why a Service is left as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("it publishes addresses of pods that are not ready (publishNotReadyAddresses)")]
    NotReadyAddresses,
    #[error("its {0} is Local: requests would not leave the node, where no activator may be")]
    LocalPolicy(&'static str),
    #[error("it is a name for something outside of the cluster (type ExternalName)")]
    External,
    #[error(
        "it is headless: clients go to pods by themselves; use its companion {0} for requests that may have to wait"
    )]
    Headless(String),
    #[error("its name leaves no room for that of its companion {0}: at most 63 characters")]
    LongName(String),
    #[error("there is a Service {0} that is not ours, and its companion would have that name")]
    Taken(String),
    #[error("its selector selects pods of {0} too, and a request cannot be for both")]
    Shared(String),
    #[error(
        "the target {target} of its port {port} is none of the workload's request ports ({known}); name them with rouse.dev/ports"
    )]
    UnknownUpstream {
        port: u16,
        target: String,
        known: String,
    },
    #[error("it has no TCP port that takes requests")]
    NoPort,
    #[error("the pod template has no label rouse.dev/enabled=true, so that pods get no sidecar")]
    Template,
    #[error("somebody else keeps writing its targetPort back")]
    Rival,
}

impl ServiceView {
    /// Whether it is a companion of ours.
    pub(crate) fn is_companion(&self) -> bool {
        self.role == Role::Companion
    }

    /// Whether it is a relay of ours.
    pub(crate) fn is_relay(&self) -> bool {
        self.role == Role::Relay
    }

    /// None for one without a selector that is neither companion nor relay.
    pub(crate) fn of(service: &Service) -> Option<Self> {
        let meta = &service.metadata;
        let spec = service.spec.as_ref()?;
        let label = |key| meta.labels.as_ref().and_then(|all| all.get(key));
        let role = if label(names::COMPANION).is_some() {
            Role::Companion
        } else if label(names::RELAY).is_some() {
            Role::Relay
        } else {
            Role::Theirs
        };
        let selector = labels::kept(spec.selector.as_ref());
        let name = meta.name.clone()?;
        // A Service that merely has the name of a companion or a relay is watched too: it is in the way of one.
        let in_the_way = name.ends_with(&names::companion("")) || name.ends_with(RELAY_END);
        if selector.is_empty() && role == Role::Theirs && !in_the_way {
            return None;
        }
        let headless = spec.cluster_ip.as_deref() == Some("None");
        let ports = spec.ports.iter().flatten().enumerate();
        let local = |policy: &Option<String>| policy.as_deref() == Some("Local");
        let refused = if spec.type_.as_deref() == Some("ExternalName") {
            Some(Refusal::External)
        } else if headless {
            Some(Refusal::Headless(names::companion(&name)))
        } else if spec.publish_not_ready_addresses == Some(true) {
            Some(Refusal::NotReadyAddresses)
        } else if local(&spec.internal_traffic_policy) {
            Some(Refusal::LocalPolicy("internalTrafficPolicy"))
        } else if local(&spec.external_traffic_policy) {
            Some(Refusal::LocalPolicy("externalTrafficPolicy"))
        } else {
            None
        };
        let annotation = |key| meta.annotations.as_ref().and_then(|all| all.get(key));
        Some(Self {
            namespace: meta.namespace.clone()?,
            uid: meta.uid.clone()?,
            ports: ports
                .filter_map(|(place, port)| {
                    Some(PortView {
                        place,
                        name: port.name.clone().unwrap_or_default(),
                        port: u16::try_from(port.port).ok()?,
                        app_protocol: port.app_protocol.clone(),
                        target: port
                            .target_port
                            .clone()
                            .unwrap_or(TargetPort::Int(port.port)),
                        tcp: port.protocol.as_deref().is_none_or(|p| p == "TCP"),
                    })
                })
                .collect(),
            refused,
            headless,
            chosen: annotation(names::PORTS).cloned(),
            role,
            adopted: annotation(names::ADOPTED).and_then(|text| Adopted::parse(text)),
            owner: meta
                .owner_references
                .iter()
                .flatten()
                .next()
                .map(|owner| owner.uid.clone()),
            terminating: meta.deletion_timestamp.is_some(),
            selector,
            name,
        })
    }
}

/// One of our `EndpointSlice`s, as it is or as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SliceView {
    pub(crate) name: String,
    /// The Service that it is of.
    pub(crate) service: String,
    /// Because of which workload in its namespace it is there.
    pub(crate) workload: String,
    pub(crate) ipv6: bool,
    /// Each once, in order.
    pub(crate) addresses: Box<[IpAddr]>,
    /// Name and number of each port.
    pub(crate) ports: LiteMap<String, (u16, Option<String>)>,
    /// The conditions of all its endpoints.
    pub(crate) conditions: Conditions,
    /// It is being deleted, which a finalizer may keep from ending.
    pub(crate) terminating: bool,
}

/// Addresses as slices have them: each once, in order.
pub(crate) fn sorted(mut addresses: Vec<IpAddr>) -> Box<[IpAddr]> {
    addresses.sort_unstable();
    addresses.dedup();
    addresses.into()
}

/// What is said of every endpoint in a slice of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Conditions {
    /// Used by everybody.
    Ready,
    /// Used by kube-proxy when nothing is ready: serving while terminating.
    Fallback,
    /// Used by everybody: kube-proxy takes what is ready before it looks at what is terminating.
    ReadyFallback,
    /// As nobody of us writes it.
    Other,
}

impl Conditions {
    /// `ready`, `serving`, `terminating`.
    pub(crate) fn values(self) -> (bool, bool, bool) {
        match self {
            Self::Ready | Self::Other => (true, true, false),
            Self::Fallback => (false, true, true),
            Self::ReadyFallback => (true, true, true),
        }
    }

    fn of(values: (bool, bool, bool)) -> Self {
        [Self::Ready, Self::Fallback, Self::ReadyFallback]
            .into_iter()
            .find(|one| one.values() == values)
            .unwrap_or(Self::Other)
    }
}

impl SliceView {
    pub(crate) fn of(slice: &EndpointSlice) -> Option<Self> {
        let meta = &slice.metadata;
        let mut conditions = None;
        let mut addresses = Vec::new();
        for endpoint in &slice.endpoints {
            addresses.extend(
                endpoint
                    .addresses
                    .iter()
                    .filter_map(|text| text.parse::<IpAddr>().ok()),
            );
            let given = endpoint.conditions.as_ref();
            let one = Conditions::of((
                given.and_then(|c| c.ready).unwrap_or(true),
                given.and_then(|c| c.serving).unwrap_or(true),
                given.and_then(|c| c.terminating).unwrap_or(false),
            ));
            conditions = match conditions {
                None => Some(one),
                Some(known) if known == one => Some(one),
                Some(_) => Some(Conditions::Other),
            };
        }
        Some(Self {
            name: meta.name.clone()?,
            service: meta.labels.as_ref()?.get(names::SERVICE_NAME)?.clone(),
            workload: meta
                .annotations
                .as_ref()
                .and_then(|all| all.get(names::WORKLOAD).cloned())
                .unwrap_or_default(),
            ipv6: slice.address_type == "IPv6",
            addresses: sorted(addresses),
            ports: slice
                .ports
                .iter()
                .flatten()
                .filter_map(|port| {
                    let number = u16::try_from(port.port?).ok()?;
                    let name = port.name.clone().unwrap_or_default();
                    Some((name, (number, port.app_protocol.clone())))
                })
                .collect(),
            conditions: conditions.unwrap_or(Conditions::Other),
            terminating: meta.deletion_timestamp.is_some(),
        })
    }

    /// Whether it is as wanted. One that is being deleted is used until it is gone, and only then made anew.
    pub(crate) fn is_as(&self, wanted: &Self) -> bool {
        let as_wanted = Self {
            terminating: wanted.terminating,
            ..self.clone()
        };
        as_wanted == *wanted
    }
}

/// A pod that is opted in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SeenPod {
    /// With a sidecar. The number is its [`DELETION_COST`].
    Ours(Box<PodView>, i32),
    /// Without one: made before the webhook was there, or past it.
    Bare { labels: Labels, ready: bool },
}

impl SeenPod {
    pub(crate) fn of(pod: &Pod) -> Option<Self> {
        if let Some(view) = PodView::of(pod) {
            let annotations = pod.metadata.annotations.as_ref();
            let cost = annotations
                .and_then(|all| all.get(DELETION_COST)?.parse().ok())
                .unwrap_or_default();
            return Some(Self::Ours(Box::new(view), cost));
        }
        if pod.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let labels = labels::kept(Some(pod.metadata.labels.as_ref()?));
        Some(Self::Bare {
            labels,
            ready: is_ready(pod),
        })
    }
}

/// An activator's pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ActivatorView {
    /// One per IP family.
    pub(crate) ips: Vec<IpAddr>,
    pub(crate) ready: bool,
    /// It is being deleted, and its node kills it by then: its deletionTimestamp, which has its grace period in it. In seconds
    /// since 1970.
    pub(crate) gone_by: Option<i64>,
}

/// Clocks of nodes and ours may differ by so many seconds, and killing takes its time.
const GONE_MARGIN: i64 = 30;

impl ActivatorView {
    pub(crate) fn of(pod: &Pod) -> Option<Self> {
        let status = pod.status.as_ref()?;
        if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
            return None;
        }
        let ips = status.pod_ips.iter().flatten();
        Some(Self {
            ips: ips.filter_map(|ip| ip.ip.parse().ok()).collect(),
            ready: is_ready(pod),
            gone_by: pod
                .metadata
                .deletion_timestamp
                .as_ref()
                .map(|time| time.0.as_second()),
        })
    }

    /// Whether it may hold requests. One on a node that died stays in the API as terminating for as long as nobody removes the
    /// node: it is not ready, and when its time is over either its node has killed it, or nobody reaches it any more.
    pub(crate) fn may_hold(&self, now: i64) -> bool {
        let is_over = |at: i64| now >= at.saturating_add(GONE_MARGIN);
        self.ready || !self.gone_by.is_some_and(is_over)
    }
}

/// Whether a pod takes requests, by its condition.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(spec: &Value) -> Option<ServiceView> {
        let object =
            json!({"metadata": {"namespace": "n", "name": "iris", "uid": "s"}, "spec": spec});
        ServiceView::of(&serde_json::from_value(object).unwrap())
    }

    #[test]
    fn services_that_cannot_be_adopted_say_why() {
        let selector = json!({"app": "iris"});
        let base = json!({"selector": selector, "ports": [{"port": 80}]});
        let with = |key: &str, value: Value| {
            let mut spec = base.clone();
            spec[key] = value;
            service(&spec).unwrap().refused
        };
        assert_eq!(service(&base).unwrap().refused, None);
        assert_eq!(with("type", json!("ExternalName")), Some(Refusal::External));
        assert_eq!(
            with("clusterIP", json!("None")),
            Some(Refusal::Headless("iris-rouse".into()))
        );
        assert_eq!(
            with("publishNotReadyAddresses", json!(true)),
            Some(Refusal::NotReadyAddresses)
        );
        for policy in ["internalTrafficPolicy", "externalTrafficPolicy"] {
            assert_eq!(
                with(policy, json!("Local")),
                Some(Refusal::LocalPolicy(policy))
            );
        }
        assert_eq!(service(&json!({"ports": [{"port": 80}]})), None);
    }

    #[test]
    fn a_port_without_target_leads_to_its_own_number() {
        let seen = service(&json!({"selector": {"a": "b"}, "ports": [
            {"port": 80, "name": "http"},
            {"port": 53, "protocol": "UDP", "targetPort": "dns"},
        ]}));
        let ports = seen.unwrap().ports;
        assert_eq!(ports[0].target, TargetPort::Int(80));
        assert!(ports[0].tcp && !ports[1].tcp);
        assert_eq!(ports[1].place, 1);
    }

    #[test]
    fn an_activator_may_hold_requests_until_its_node_must_have_killed_it() {
        let pod = |ready: &str, deleted: Value| {
            let object = json!({
                "metadata": {"namespace": "n", "name": "p", "uid": "u", "deletionTimestamp": deleted},
                "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.7"}],
                    "conditions": [{"type": "Ready", "status": ready}]},
            });
            ActivatorView::of(&serde_json::from_value(object).unwrap()).unwrap()
        };
        let deleted = json!("2026-01-01T00:00:00Z");
        let at = 1_767_225_600;
        let silent = pod("False", deleted.clone());
        assert_eq!(silent.gone_by, Some(at));
        // In its grace period, and for a while after that.
        assert!(silent.may_hold(at - 60) && silent.may_hold(at + 29));
        assert!(!silent.may_hold(at + 30));
        // Whoever is ready is there, whatever the time says, and who is not may be again.
        assert!(pod("True", deleted).may_hold(at + 1_000));
        assert!(pod("False", Value::Null).may_hold(at + 1_000));
    }

    #[test]
    fn conditions_are_read_as_they_are_written() {
        for one in [
            Conditions::Ready,
            Conditions::Fallback,
            Conditions::ReadyFallback,
        ] {
            assert_eq!(Conditions::of(one.values()), one);
        }
        assert_eq!(Conditions::of((false, false, true)), Conditions::Other);
    }

    #[test]
    fn a_pod_without_a_sidecar_is_bare() {
        let pod = json!({
            "metadata": {"namespace": "n", "name": "p", "uid": "u", "labels": {"app": "iris"}},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        });
        assert!(matches!(
            SeenPod::of(&serde_json::from_value(pod).unwrap()),
            Some(SeenPod::Bare { ready: true, .. })
        ));
    }
}
