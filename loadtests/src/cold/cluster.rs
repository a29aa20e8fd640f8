//! What the API server tells of Deployments, their pods, and the events of these; and, where that is asked for, their scale.

use super::args::{Aim, DeploymentName};
use super::board::{Board, State};
use super::pods::Look;
use crate::error::Error;
use futures_util::{Stream, StreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Event as Told, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::{Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use std::collections::BTreeSet;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long the API server may take to answer at first.
const PATIENCE: Duration = Duration::from_secs(15);
/// The name under which this tool writes.
const WRITER: &str = "rouse-load";

/// The watches of a run. Dropping it ends them.
#[derive(Debug)]
pub(super) struct Cluster {
    deployments: Vec<Option<Api<Deployment>>>,
    names: Vec<String>,
    _watches: JoinSet<()>,
}

impl Cluster {
    /// Begins to watch the Deployments of `aims`, and waits until all is known of them; none if there are none.
    pub(super) async fn watch(
        kubeconfig: Option<&Path>,
        aims: &[Aim],
        board: &Arc<Board>,
    ) -> Result<Option<Self>, Error> {
        if aims.iter().all(|aim| aim.deployment.is_none()) {
            return Ok(None);
        }
        let client = client(kubeconfig).await?;
        let mut watches = JoinSet::new();
        let mut deployments = Vec::with_capacity(aims.len());
        for (workload, aim) in aims.iter().enumerate() {
            let Some(name) = &aim.deployment else {
                deployments.push(None);
                continue;
            };
            let api: Api<Deployment> = Api::namespaced(client.clone(), &name.namespace);
            let selector = selector(&api, name).await?;
            let own = watcher::Config::default().fields(&format!("metadata.name={}", name.name));
            let stream = watcher(api.clone(), own).default_backoff();
            watches.spawn(follow_deployment(stream, Arc::clone(board), workload));
            let pods: Api<Pod> = Api::namespaced(client.clone(), &name.namespace);
            let selected = watcher::Config::default().labels(&selector);
            let stream = watcher(pods, selected).default_backoff();
            watches.spawn(follow_pods(stream, Arc::clone(board), workload));
            let events: Api<Told> = Api::namespaced(client.clone(), &name.namespace);
            let of_pods = watcher::Config::default().fields("involvedObject.kind=Pod");
            let stream = watcher(events, of_pods).default_backoff();
            watches.spawn(follow_events(stream, Arc::clone(board), workload));
            deployments.push(Some(api));
        }
        let names = aims
            .iter()
            .map(|aim| aim.deployment.as_ref().map(|one| one.name.clone()))
            .map(Option::unwrap_or_default)
            .collect();
        for (workload, aim) in aims.iter().enumerate() {
            let Some(name) = &aim.deployment else {
                continue;
            };
            let known = board.until(workload, State::is_watched);
            if timeout(PATIENCE, known).await.is_err() {
                let allowed = "a Deployment, pods and events that may be listed and watched";
                return Err(Error::invalid("--deployment", name.to_string(), allowed));
            }
        }
        Ok(Some(Self {
            deployments,
            names,
            _watches: watches,
        }))
    }

    /// Whether a workload is watched.
    pub(super) fn knows(&self, workload: usize) -> bool {
        self.deployments.get(workload).is_some_and(Option::is_some)
    }

    /// Sets how many replicas a workload is to have.
    pub(super) async fn scale(&self, workload: usize, replicas: u32) -> Result<(), String> {
        let Some(Some(api)) = self.deployments.get(workload) else {
            return Err("no Deployment is known".to_owned());
        };
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        let params = PatchParams {
            field_manager: Some(WRITER.to_owned()),
            ..PatchParams::default()
        };
        let patched = api.patch_scale(&self.names[workload], &params, &patch);
        match timeout(PATIENCE, patched).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {PATIENCE:?}")),
        }
    }
}

async fn client(kubeconfig: Option<&Path>) -> Result<Client, Error> {
    let shown =
        kubeconfig.map_or_else(|| "the usual one".into(), |path| path.display().to_string());
    let wrong = |what: String| {
        Error::invalid(
            "--kubeconfig",
            shown.clone(),
            format!("a kubeconfig that works ({what})"),
        )
    };
    let config = match kubeconfig {
        Some(path) => {
            let read = Kubeconfig::read_from(path).map_err(|error| wrong(error.to_string()))?;
            kube::Config::from_custom_kubeconfig(read, &KubeConfigOptions::default())
                .await
                .map_err(|error| wrong(error.to_string()))?
        }
        None => kube::Config::infer()
            .await
            .map_err(|error| wrong(error.to_string()))?,
    };
    Client::try_from(config).map_err(|error| wrong(error.to_string()))
}

/// The label selector of a Deployment's pods, as the API server takes it.
async fn selector(api: &Api<Deployment>, name: &DeploymentName) -> Result<String, Error> {
    let wrong = |what: String| {
        let allowed = format!("a Deployment that the API server tells of ({what})");
        Error::invalid("--deployment", name.to_string(), allowed)
    };
    let deployment = timeout(PATIENCE, api.get(&name.name))
        .await
        .map_err(|_| wrong(format!("no answer within {PATIENCE:?}")))?
        .map_err(|error| wrong(error.to_string()))?;
    let spec = deployment
        .spec
        .ok_or_else(|| wrong("it has no spec".to_owned()))?;
    Ok(typed(&spec.selector))
}

/// A selector as text: all kinds of requirements that a Deployment may have.
fn typed(selector: &LabelSelector) -> String {
    let labels = selector.match_labels.iter().flatten();
    let mut parts: Vec<String> = labels
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    for one in selector.match_expressions.iter().flatten() {
        let (key, values) = (&one.key, one.values.clone().unwrap_or_default().join(","));
        parts.push(match one.operator.as_str() {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.clone(),
        });
    }
    parts.join(",")
}

async fn follow_deployment(
    stream: impl Stream<Item = Result<Event<Deployment>, watcher::Error>>,
    board: Arc<Board>,
    workload: usize,
) {
    let count = |replicas: Option<i32>| replicas.and_then(|n| u32::try_from(n).ok());
    let mut stream = pin!(stream);
    // An error is tried again, and what was known stays.
    while let Some(event) = stream.next().await {
        match event {
            Ok(Event::Apply(deployment) | Event::InitApply(deployment)) => {
                let wanted = deployment.spec.map_or(Some(1), |spec| spec.replicas);
                let status = deployment.status.unwrap_or_default();
                board.deployment(
                    workload,
                    count(wanted).unwrap_or(1),
                    count(status.replicas).unwrap_or(0),
                    count(status.ready_replicas).unwrap_or(0),
                );
            }
            Ok(Event::Delete(_)) => board.deployment(workload, 0, 0, 0),
            Ok(Event::Init | Event::InitDone) | Err(_) => {}
        }
    }
}

async fn follow_pods(
    stream: impl Stream<Item = Result<Event<Pod>, watcher::Error>>,
    board: Arc<Board>,
    workload: usize,
) {
    let mut stream = pin!(stream);
    let mut listed = BTreeSet::new();
    while let Some(event) = stream.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            // A pod that a list is the first to tell of may have been there for a while.
            Ok(Event::InitApply(pod)) => {
                let name = pod.name_any();
                board.change(workload, |state, now| {
                    state.pods.look(&name, look(&pod), now, true);
                });
                listed.insert(name);
            }
            Ok(Event::InitDone) => board.change(workload, |state, now| {
                state.pods.keep(&listed, now);
                state.has_pods = true;
            }),
            Ok(Event::Apply(pod)) => board.change(workload, |state, now| {
                state.pods.look(&pod.name_any(), look(&pod), now, false);
            }),
            Ok(Event::Delete(pod)) => {
                board.change(workload, |state, now| {
                    state.pods.remove(&pod.name_any(), now);
                });
            }
            Err(_) => {}
        }
    }
}

async fn follow_events(
    stream: impl Stream<Item = Result<Event<Told>, watcher::Error>>,
    board: Arc<Board>,
    workload: usize,
) {
    let mut stream = pin!(stream);
    while let Some(event) = stream.next().await {
        match event {
            Ok(Event::Apply(told)) if is_pull(&told) => {
                let name = told.involved_object.name.unwrap_or_default();
                board.change(workload, |state, now| state.pods.pulled(&name, now));
            }
            // What a list tells was before.
            Ok(_) | Err(_) => {}
        }
    }
}

/// Whether a node had to pull an image: "Successfully pulled image", rather than "already present on machine" (the kubelet's
/// `pkg/kubelet/images/image_manager.go`).
fn is_pull(told: &Told) -> bool {
    let message = told.message.as_deref().unwrap_or_default();
    told.reason.as_deref() == Some("Pulled") && message.starts_with("Successfully pulled")
}

fn look(pod: &Pod) -> Look {
    let status = pod.status.as_ref();
    let has = |kind: &str| {
        let conditions = status.and_then(|status| status.conditions.as_ref());
        let mut conditions = conditions.into_iter().flatten();
        conditions.any(|condition| condition.type_ == kind && condition.status == "True")
    };
    let has_init = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.init_containers.as_ref())
        .is_some_and(|containers| !containers.is_empty());
    let containers = status.and_then(|status| status.container_statuses.as_ref());
    let phase = status.and_then(|status| status.phase.as_deref());
    Look {
        is_scheduled: has("PodScheduled"),
        is_initialised: has_init.then(|| has("Initialized")),
        is_started: containers.into_iter().flatten().any(|container| {
            let state = container.state.as_ref();
            state.is_some_and(|state| state.running.is_some())
        }),
        is_ready: has("Ready"),
        has_ended: matches!(phase, Some("Succeeded" | "Failed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_is_what_the_api_server_takes() {
        let selector: LabelSelector = serde_json::from_value(json!({
            "matchLabels": {"app": "m"},
            "matchExpressions": [
                {"key": "a", "operator": "In", "values": ["x", "y"]},
                {"key": "b", "operator": "NotIn", "values": ["z"]},
                {"key": "c", "operator": "Exists"},
                {"key": "d", "operator": "DoesNotExist"},
            ],
        }))
        .unwrap();
        assert_eq!(typed(&selector), "app=m,a in (x,y),b notin (z),c,!d");
    }

    #[test]
    fn a_pod_s_conditions_are_read() {
        let pod = |status: serde_json::Value| -> Pod {
            serde_json::from_value(json!({
                "spec": {"containers": [], "initContainers": [{"name": "download"}]},
                "status": status,
            }))
            .unwrap()
        };
        let none = look(&pod(json!({})));
        assert_eq!(
            none,
            Look {
                is_initialised: Some(false),
                ..Look::default()
            }
        );
        let all = look(&pod(json!({
            "phase": "Running",
            "conditions": [
                {"type": "PodScheduled", "status": "True"},
                {"type": "Initialized", "status": "True"},
                {"type": "Ready", "status": "False"},
            ],
            "containerStatuses": [
                {"name": "a", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": {"waiting": {}}},
                {"name": "b", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": {"running": {}}},
            ],
        })));
        let wanted = Look {
            is_scheduled: true,
            is_initialised: Some(true),
            is_started: true,
            is_ready: false,
            has_ended: false,
        };
        assert_eq!(all, wanted);
        assert!(look(&pod(json!({"phase": "Failed"}))).has_ended);
    }

    #[test]
    fn an_image_that_was_there_is_no_pull() {
        let told = |reason: &str, message: &str| Told {
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            ..Told::default()
        };
        let pulled = "Successfully pulled image \"a\" in 1.5s (1.5s including waiting)";
        assert!(is_pull(&told("Pulled", pulled)));
        let present = "Container image \"a\" already present on machine";
        assert!(!is_pull(&told("Pulled", present)));
        assert!(!is_pull(&told("Pulling", pulled)));
    }
}
