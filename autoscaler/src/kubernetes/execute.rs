//! Carrying out the actions of a plan, one after another, each within our tenure. The first that fails ends it: what comes
//! next is planned from what is seen then.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use k8s_openapi::{
    api::{
        core::v1::{ConfigMap, Pod, Service},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::util::intstr::IntOrString as TargetPort,
};
use kube::{
    Api, Client, Error,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions},
};
use kubernetes::{Adopted, Claim, Labels, PodView, names};
use serde_json::{Value, json};
use shared::TargetId;
use tokio::{net::TcpStream, time::timeout};

use super::{
    claims::{NoPort, Ports},
    gate::{Denied, Gate},
    plan::{Action, Companion, CompanionPort, Flip, Owner, Relay},
    view::{SliceView, is_ready},
};

/// Limit on reading from the API server.
const READ_LIMIT: Duration = Duration::from_secs(5);
/// Limit on seeing whether a port takes connections.
const REACH_LIMIT: Duration = Duration::from_secs(1);
/// Pods asked at once, and at most: many more say nothing new about whether the way to them is open.
const REACHED: usize = 16;
/// Ports tried for one claim, if others were faster each time.
const TRIES: usize = 64;

/// Why an action was not carried out. One line.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    #[error("not the leader")]
    NotLeader,
    /// Somebody was faster: what is seen is old.
    #[error("changed meanwhile")]
    Conflict,
    #[error(transparent)]
    NoPortLeft(#[from] NoPort),
    /// The world is not as it has to be yet.
    #[error("{0}")]
    NotYet(String),
    #[error("{0}")]
    Api(String),
}

impl From<Denied<Error>> for Failed {
    fn from(denied: Denied<Error>) -> Self {
        match denied {
            Denied::NotLeader => Self::NotLeader,
            Denied::Timeout => Self::Api("no answer in time".to_owned()),
            Denied::Failed(Error::Api(status)) if matches!(status.code, 404 | 409 | 422) => {
                tracing::debug!(message = status.message, "Refused by the API server");
                Self::Conflict
            }
            Denied::Failed(error) => Self::Api(error.to_string()),
        }
    }
}

/// What it takes to carry out actions.
#[derive(Clone)]
pub(crate) struct Executor {
    pub(crate) client: Client,
    pub(crate) gate: Gate,
    /// Our own namespace.
    pub(crate) ours: String,
    pub(crate) ports: Arc<Ports>,
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executor").finish_non_exhaustive()
    }
}

impl Executor {
    /// Carries out one action for `target`.
    pub(crate) async fn carry_out(&self, target: &TargetId, action: &Action) -> Result<(), Failed> {
        let namespace = target.namespace();
        let services: Api<Service> = Api::namespaced(self.client.clone(), namespace);
        let slices: Api<EndpointSlice> = Api::namespaced(self.client.clone(), namespace);
        let apply = PatchParams::apply(names::AUTOSCALER_MANAGER).force();
        match action {
            Action::Claim { index } => self.claim(target, *index).await,
            Action::Reclaim { port } => self.annotate_claim(*port, None).await,
            Action::Release { port } => {
                self.annotate_claim(*port, Some(super::unix_seconds()))
                    .await
            }
            Action::Forget { port } => self.forget(*port).await,
            Action::KeepCompanion(wanted) => {
                let name = names::companion(&wanted.service);
                let object = companion(namespace, wanted);
                self.keep(&services, &name, object, wanted.exists).await
            }
            Action::KeepRelay(wanted) => {
                let object = relay(namespace, wanted);
                self.keep(&services, &wanted.name, object, wanted.exists)
                    .await
            }
            Action::KeepSlice { slice, owner } => {
                let patch = Patch::Apply(slice_object(namespace, slice, owner));
                self.gate
                    .write(slices.patch(&slice.name, &apply, &patch))
                    .await?;
                Ok(())
            }
            Action::MarkLeaving { companion, adopted } => {
                let patch = Patch::Merge(
                    json!({"metadata": {"annotations": {names::ADOPTED: adopted.to_text()}}}),
                );
                self.gate
                    .write(services.patch(companion, &ours(), &patch))
                    .await?;
                Ok(())
            }
            Action::Flip {
                service,
                uid,
                ports,
                selector,
                upstreams,
            } => {
                self.check_pods(target, selector, ports, upstreams).await?;
                self.flip(&services, service, uid, ports).await
            }
            Action::FlipBack {
                service,
                uid,
                ports,
            } => self.flip(&services, service, uid, ports).await,
            Action::Wake => self.wake(target).await,
            Action::RemoveSlice { name } => {
                let params = DeleteParams::default();
                gone(self.gate.write(slices.delete(name, &params)).await)
            }
            Action::RemoveCompanion { name, uid } => {
                let params = DeleteParams::default().preconditions(Preconditions {
                    uid: Some(uid.clone()),
                    resource_version: None,
                });
                gone(self.gate.write(services.delete(name, &params)).await)
            }
        }
    }

    /// Makes a Service of ours, or changes the one that there is.
    async fn keep(
        &self,
        services: &Api<Service>,
        name: &str,
        object: Value,
        exists: bool,
    ) -> Result<(), Failed> {
        if exists {
            // It replaces lists as a whole. Server-side apply would leave ports that the creation has set.
            let patch = Patch::Merge(&object);
            self.gate
                .write(services.patch(name, &ours(), &patch))
                .await?;
        } else {
            let object =
                serde_json::from_value(object).map_err(|error| Failed::Api(error.to_string()))?;
            let params = params();
            self.gate.write(services.create(&params, &object)).await?;
        }
        Ok(())
    }

    /// Makes a claim on the lowest free port; on the next if somebody has it already.
    async fn claim(&self, target: &TargetId, index: usize) -> Result<(), Failed> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.ours);
        for _ in 0..TRIES {
            let port = self.ports.take(target)?;
            let claim = Claim {
                port,
                target: target.clone(),
                index,
                released: None,
            };
            let params = params();
            let object = claim.to_config_map(&self.ours);
            match self.gate.write(api.create(&params, &object)).await {
                Ok(_) => return Ok(()),
                Err(Denied::Failed(Error::Api(status))) if status.code == 409 => {
                    self.ports.is_taken(port);
                }
                Err(error) => {
                    self.ports.give_back(port);
                    return Err(error.into());
                }
            }
        }
        Err(Failed::Conflict)
    }

    async fn annotate_claim(&self, port: u16, released: Option<i64>) -> Result<(), Failed> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.ours);
        let value = released.map(|at| at.to_string());
        let patch = Patch::Merge(json!({"metadata": {"annotations": {names::RELEASED: value}}}));
        let name = Claim::name_of(port);
        self.gate.write(api.patch(&name, &ours(), &patch)).await?;
        Ok(())
    }

    /// Deletes a claim if it still is released, and was not changed since that was seen.
    async fn forget(&self, port: u16) -> Result<(), Failed> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.ours);
        let name = Claim::name_of(port);
        let Some(object) = read(api.get_opt(&name)).await? else {
            return Ok(());
        };
        let released = Claim::from_config_map(&object).is_ok_and(|claim| claim.released.is_some());
        if !released {
            return Err(Failed::Conflict);
        }
        let params = DeleteParams::default().preconditions(Preconditions {
            uid: object.metadata.uid,
            resource_version: object.metadata.resource_version,
        });
        gone(self.gate.write(api.delete(&name, &params)).await)
    }

    /// One patch that changes all ports if each of them still is as it was seen.
    async fn flip(
        &self,
        services: &Api<Service>,
        name: &str,
        uid: &str,
        ports: &[Flip],
    ) -> Result<(), Failed> {
        let patch = serde_json::from_value(flip_patch(uid, ports))
            .map_err(|error| Failed::Api(error.to_string()))?;
        let patch: Patch<()> = Patch::Json(patch);
        self.gate
            .write(services.patch(name, &ours(), &patch))
            .await?;
        Ok(())
    }

    /// What no cache of ours tells: whether the Service selects pods that we do not know, and whether sidecars can be reached.
    async fn check_pods(
        &self,
        target: &TargetId,
        selector: &Labels,
        ports: &[Flip],
        upstreams: &[u16],
    ) -> Result<(), Failed> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), target.namespace());
        let labels: Vec<_> = selector.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let params = ListParams::default().labels(&labels.join(","));
        let pods = read(api.list(&params)).await?;
        let reach = judge(target, &pods.items, ports, upstreams).map_err(Failed::NotYet)?;
        let reached = stream::iter(reach.into_iter().take(REACHED))
            .map(|address| async move { (address, reaches(address).await) })
            .buffer_unordered(REACHED);
        let failed = reached.filter(|(_, reached)| std::future::ready(!reached));
        match std::pin::pin!(failed).next().await {
            None => Ok(()),
            Some((address, _)) => Err(Failed::NotYet(format!(
                "the sidecar at {address} cannot be reached; is there a NetworkPolicy?"
            ))),
        }
    }

    async fn wake(&self, target: &TargetId) -> Result<(), Failed> {
        let manager = names::AUTOSCALER_MANAGER;
        let change = kubernetes::scale::change(&self.client, manager, target, 0, 1);
        match self.gate.write(change).await {
            Ok(_) => Ok(()),
            Err(Denied::NotLeader) => Err(Failed::NotLeader),
            Err(error) => Err(Failed::Api(error.to_string())),
        }
    }
}

/// The addresses of the request ports of all ready pods, or why the Service must not be flipped yet.
fn judge(
    target: &TargetId,
    pods: &[Pod],
    ports: &[Flip],
    upstreams: &[u16],
) -> Result<Vec<SocketAddr>, String> {
    let mut addresses = Vec::new();
    for pod in pods {
        if pod.metadata.deletion_timestamp.is_some() || !is_ready(pod) {
            continue;
        }
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let Some(view) = PodView::of(pod).filter(|view| view.target == *target) else {
            return Err(format!(
                "pod {name} is ready and has no sidecar of this workload"
            ));
        };
        for port in ports {
            let meant = upstreams.get(port.index);
            if meant.is_none() || view.upstreams.get(port.index) != meant {
                return Err(format!(
                    "pod {name} has another port behind {}",
                    names::request_port_name(port.index)
                ));
            }
            let number = names::FIRST_REQUEST_PORT + u16::try_from(port.index).unwrap_or_default();
            addresses.extend(view.ip.map(|ip| SocketAddr::new(ip, number)));
        }
    }
    Ok(addresses)
}

/// Whether a port takes connections.
pub(crate) async fn reaches(address: SocketAddr) -> bool {
    matches!(
        timeout(REACH_LIMIT, TcpStream::connect(address)).await,
        Ok(Ok(_))
    )
}

async fn read<T>(asked: impl Future<Output = Result<T, Error>>) -> Result<T, Failed> {
    match timeout(READ_LIMIT, asked).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(Failed::Api(error.to_string())),
        Err(_) => Err(Failed::Api("no answer in time".to_owned())),
    }
}

/// What is gone already is as good as deleted.
fn gone<T>(deleted: Result<T, Denied<Error>>) -> Result<(), Failed> {
    match deleted {
        Err(Denied::Failed(Error::Api(status))) if status.code == 404 => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => Ok(()),
    }
}

fn ours() -> PatchParams {
    PatchParams {
        field_manager: Some(names::AUTOSCALER_MANAGER.to_owned()),
        ..PatchParams::default()
    }
}

fn params() -> PostParams {
    PostParams {
        field_manager: Some(names::AUTOSCALER_MANAGER.to_owned()),
        ..PostParams::default()
    }
}

fn flip_patch(uid: &str, ports: &[Flip]) -> Value {
    let mut operations = vec![json!({"op": "test", "path": "/metadata/uid", "value": uid})];
    for flip in ports {
        let port = format!("/spec/ports/{}/port", flip.place);
        let target = format!("/spec/ports/{}/targetPort", flip.place);
        operations.extend([
            json!({"op": "test", "path": port, "value": flip.port}),
            json!({"op": "test", "path": target, "value": flip.from}),
            json!({"op": "replace", "path": target, "value": flip.to}),
        ]);
    }
    Value::Array(operations)
}

/// The ports of a Service of ours.
fn service_ports(ports: &[CompanionPort]) -> Vec<Value> {
    ports
        .iter()
        .map(|port| {
            let mut object = json!({
                "port": port.port,
                "protocol": "TCP",
                "targetPort": TargetPort::Int(i32::from(port.claim)),
            });
            if !port.name.is_empty() {
                object["name"] = json!(port.name);
            }
            if let Some(protocol) = &port.app_protocol {
                object["appProtocol"] = json!(protocol);
            }
            object
        })
        .collect()
}

fn companion(namespace: &str, wanted: &Companion) -> Value {
    let adopted: &Adopted = &wanted.adopted;
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": names::companion(&wanted.service),
            "namespace": namespace,
            "labels": {names::COMPANION: wanted.service, names::MANAGED_BY: names::MANAGER},
            "annotations": {names::ADOPTED: adopted.to_text()},
            "ownerReferences": [owner_reference(&wanted.service, &wanted.service_uid)],
        },
        "spec": service_spec(&wanted.ports),
    })
}

fn relay(namespace: &str, wanted: &Relay) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": wanted.name,
            "namespace": namespace,
            "labels": {names::RELAY: names::TRUE, names::MANAGED_BY: names::MANAGER},
            "annotations": {names::ADOPTED: wanted.adopted.to_text()},
        },
        "spec": service_spec(&wanted.ports),
    })
}

fn service_spec(ports: &[CompanionPort]) -> Value {
    let ports = service_ports(ports);
    json!({"type": "ClusterIP", "ipFamilyPolicy": "PreferDualStack", "ports": ports})
}

fn slice_object(namespace: &str, slice: &SliceView, owner: &Owner) -> Value {
    let (ready, serving, terminating) = slice.conditions.values();
    let endpoint = |ip: &IpAddr| {
        json!({
            "addresses": [ip],
            "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
        })
    };
    let ports = slice.ports.iter().map(|(name, (number, protocol))| {
        let mut object = json!({"name": name, "port": number, "protocol": "TCP"});
        if let Some(protocol) = protocol {
            object["appProtocol"] = json!(protocol);
        }
        object
    });
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": slice.name,
            "namespace": namespace,
            "labels": {
                names::SERVICE_NAME: slice.service,
                names::SLICE_MANAGED_BY: names::MANAGER,
            },
            "annotations": {names::WORKLOAD: slice.workload},
            "ownerReferences": [owner_reference(&owner.name, &owner.uid)],
        },
        "addressType": if slice.ipv6 { "IPv6" } else { "IPv4" },
        "endpoints": slice.addresses.iter().map(endpoint).collect::<Vec<_>>(),
        "ports": ports.collect::<Vec<_>>(),
    })
}

/// Deleting the Service takes what we made for it along.
fn owner_reference(name: &str, uid: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "name": name, "uid": uid})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::view::{Conditions, ServiceView};

    fn flips() -> Vec<Flip> {
        vec![Flip {
            place: 2,
            port: 80,
            from: TargetPort::Int(8080),
            to: TargetPort::String("rouse-0".into()),
            index: 0,
        }]
    }

    fn wanted_by_model() -> Adopted {
        Adopted {
            workload: "model".into(),
            ..Adopted::default()
        }
    }

    #[test]
    fn a_flip_tests_everything_before_it_replaces() {
        assert_eq!(
            flip_patch("u", &flips()),
            json!([
                {"op": "test", "path": "/metadata/uid", "value": "u"},
                {"op": "test", "path": "/spec/ports/2/port", "value": 80},
                {"op": "test", "path": "/spec/ports/2/targetPort", "value": 8080},
                {"op": "replace", "path": "/spec/ports/2/targetPort", "value": "rouse-0"},
            ])
        );
    }

    #[test]
    fn what_is_written_is_read_back_as_it_was_meant() {
        let slice = SliceView {
            name: "iris-activators-ipv4".into(),
            service: "iris".into(),
            workload: "model".into(),
            ipv6: false,
            addresses: ["10.0.0.1".parse().unwrap()].into(),
            ports: [
                (String::new(), (10_000, None)),
                ("h2".into(), (10_001, Some("kubernetes.io/h2c".into()))),
            ]
            .into_iter()
            .collect(),
            conditions: Conditions::Fallback,
            terminating: false,
        };
        let owner = Owner {
            name: "iris".into(),
            uid: "s".into(),
        };
        let object = slice_object("n", &slice, &owner);
        let object: EndpointSlice = serde_json::from_value(object).unwrap();
        assert_eq!(SliceView::of(&object), Some(slice));
        let wanted = Companion {
            service: "iris".into(),
            service_uid: "s".into(),
            adopted: wanted_by_model(),
            ports: Vec::new(),
            exists: false,
        };
        let mut object = companion("n", &wanted);
        object["metadata"]["uid"] = json!("c");
        let object: Service = serde_json::from_value(object).unwrap();
        let view = ServiceView::of(&object).unwrap();
        assert!(view.is_companion());
        assert_eq!(view.name, "iris-rouse");
        assert_eq!(view.owner.as_deref(), Some("s"));
        assert_eq!(view.adopted, Some(wanted.adopted));
        assert!(!view.is_relay());

        let wanted = Relay {
            name: "model-rouse-relay".into(),
            adopted: wanted_by_model(),
            ports: vec![CompanionPort {
                name: "rouse-0".into(),
                port: 8012,
                app_protocol: None,
                claim: 10_000,
            }],
            exists: false,
        };
        let mut object = relay("n", &wanted);
        object["metadata"]["uid"] = json!("r");
        let object: Service = serde_json::from_value(object).unwrap();
        let view = ServiceView::of(&object).unwrap();
        assert!(view.is_relay() && !view.is_companion());
        assert_eq!((&view.name, view.ports[0].port), (&wanted.name, 8012));
        assert_eq!(view.ports[0].target, TargetPort::Int(10_000));
        assert_eq!(view.adopted, Some(wanted.adopted));
    }

    #[test]
    fn a_service_is_flipped_only_if_every_ready_pod_has_its_sidecar() {
        let pod = |ready: &str, annotations: Value| -> Pod {
            serde_json::from_value(json!({
                "metadata": {"namespace": "n", "name": "p", "uid": "u", "annotations": annotations},
                "spec": {"containers": [{"name": "model"}]},
                "status": {"podIP": "10.0.0.7", "phase": "Running",
                    "conditions": [{"type": "Ready", "status": ready}]},
            }))
            .unwrap()
        };
        let annotations = |workload: &str, ports: &str| json!({names::WORKLOAD: workload, names::UPSTREAM_PORTS: ports});
        let target = "n/iris".parse().unwrap();
        let judge = |pods: &[Pod]| judge(&target, pods, &flips(), &[8080]);
        let fits = pod("True", annotations("iris", "8080"));
        assert_eq!(
            judge(&[fits, pod("False", json!({}))]),
            Ok(vec!["10.0.0.7:8012".parse().unwrap()])
        );
        for bad in [
            json!({}),
            annotations("other", "8080"),
            annotations("iris", "9090"),
        ] {
            assert!(judge(&[pod("True", bad)]).is_err());
        }
    }
}
