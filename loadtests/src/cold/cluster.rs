//! What the API server tells of Deployments, their pods, and the events of these; and, where that is asked for, their scale.

use super::args::{Aim, DeploymentName};
use super::board::{Board, State};
use super::pods::{Look, Origin};
use crate::error::Error;
use futures_util::future::{join_all, try_join_all};
use futures_util::{Stream, StreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Event as Told, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::{ListParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long the API server may take to answer at first.
const PATIENCE: Duration = Duration::from_secs(15);
/// Seconds within which a registry says that an image has not changed.
const ASKED: f64 = 1.0;
/// The name under which this tool writes.
const WRITER: &str = "rouse-load";

/// The watches of a run. Dropping it ends them.
#[derive(Debug)]
pub(super) struct Cluster {
    workloads: Vec<Option<Workload>>,
    _watches: JoinSet<()>,
}

/// One Deployment.
#[derive(Clone, Debug)]
struct Workload {
    name: String,
    deployments: Api<Deployment>,
    pods: Api<Pod>,
    selector: String,
    /// Replicas that were wanted before the run.
    replicas: i32,
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
        let found = aims.iter().map(|aim| async {
            match &aim.deployment {
                None => Ok(None),
                Some(name) => Workload::find(&client, name).await.map(Some),
            }
        });
        let workloads = try_join_all(found).await?;
        let mut watches = JoinSet::new();
        let mut namespaces: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (number, workload) in workloads.iter().enumerate() {
            let Some(workload) = workload else {
                continue;
            };
            let own =
                watcher::Config::default().fields(&format!("metadata.name={}", workload.name));
            let stream = watcher(workload.deployments.clone(), own).default_backoff();
            watches.spawn(follow_deployment(stream, Arc::clone(board), number));
            let selected = watcher::Config::default().labels(&workload.selector);
            let stream = watcher(workload.pods.clone(), selected).default_backoff();
            watches.spawn(follow_pods(stream, Arc::clone(board), number));
            if let Some(name) = &aims[number].deployment {
                namespaces.entry(&name.namespace).or_default().push(number);
            }
        }
        for (namespace, members) in namespaces {
            let events: Api<Told> = Api::namespaced(client.clone(), namespace);
            may_watch(&events, namespace).await?;
            let of_pods = watcher::Config::default().fields("involvedObject.kind=Pod");
            let stream = watcher(events, of_pods).default_backoff();
            watches.spawn(follow_events(stream, Arc::clone(board), members));
        }
        for (number, aim) in aims.iter().enumerate() {
            let Some(name) = &aim.deployment else {
                continue;
            };
            let known = board.until(number, State::is_watched);
            if timeout(PATIENCE, known).await.is_err() {
                let allowed = "a Deployment that may be watched, and so may its pods";
                return Err(Error::invalid("--deployment", name.to_string(), allowed));
            }
        }
        Ok(Some(Self {
            workloads,
            _watches: watches,
        }))
    }

    fn workload(&self, number: usize) -> Option<&Workload> {
        self.workloads.get(number)?.as_ref()
    }

    /// Whether a workload is watched.
    pub(super) fn knows(&self, number: usize) -> bool {
        self.workload(number).is_some()
    }

    /// Asks the API server itself whether a workload has no pod at all, as of now.
    pub(super) async fn has_none(&self, number: usize) -> Result<bool, String> {
        let workload = self.workload(number).ok_or("no Deployment is known")?;
        // Without a resource version it answers with what is stored, not with what it remembers.
        let params = ListParams::default().labels(&workload.selector);
        let pods = answered(workload.pods.list(&params)).await?;
        Ok(pods.items.iter().all(|pod| look(pod).has_ended))
    }

    /// Sets how many replicas a workload is to have.
    pub(super) async fn scale(&self, number: usize, replicas: i32) -> Result<(), String> {
        let workload = self.workload(number).ok_or("no Deployment is known")?;
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        let params = PatchParams {
            field_manager: Some(WRITER.to_owned()),
            ..PatchParams::default()
        };
        let patched = workload
            .deployments
            .patch_scale(&workload.name, &params, &patch);
        answered(patched).await.map(drop)
    }

    /// Gives all workloads the replicas that they had before; says which could not be.
    pub(super) async fn restore(&self) -> Vec<String> {
        let all = (self.workloads.iter().enumerate())
            .filter_map(|(number, workload)| Some((number, workload.as_ref()?)));
        let restored = all.map(|(number, workload)| async move {
            let (name, replicas) = (&workload.name, workload.replicas);
            let scaled = self.scale(number, replicas).await;
            scaled.map_err(|error| {
                format!("{name} had {replicas} replicas, and cannot be given them again: {error}")
            })
        });
        let restored = join_all(restored).await;
        restored.into_iter().filter_map(Result::err).collect()
    }
}

/// The answer of the API server, in time.
async fn answered<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, String> {
    match timeout(PATIENCE, request).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("the API server did not answer within {PATIENCE:?}")),
    }
}

impl Workload {
    /// Looks a Deployment up.
    async fn find(client: &Client, name: &DeploymentName) -> Result<Self, Error> {
        let wrong = |what: String| {
            let allowed = format!("a Deployment that the API server tells of ({what})");
            Error::invalid("--deployment", name.to_string(), allowed)
        };
        let deployments: Api<Deployment> = Api::namespaced(client.clone(), &name.namespace);
        let found = answered(deployments.get(&name.name)).await.map_err(wrong)?;
        let spec = found
            .spec
            .ok_or_else(|| wrong("it has no spec".to_owned()))?;
        Ok(Self {
            name: name.name.clone(),
            deployments,
            pods: Api::namespaced(client.clone(), &name.namespace),
            selector: typed(&spec.selector),
            replicas: spec.replicas.unwrap_or(1),
        })
    }
}

/// Whether events may be read: without them no image that was pulled would be noticed.
async fn may_watch(events: &Api<Told>, namespace: &str) -> Result<(), Error> {
    let params = ListParams::default().limit(1);
    let listed = answered(events.list(&params)).await;
    listed.map(drop).map_err(|error| {
        let allowed = format!("a namespace whose events may be read ({error})");
        Error::invalid("--deployment", namespace, allowed)
    })
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
            Ok(Event::Delete(_)) => board.gone(workload),
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
            Ok(Event::InitApply(pod)) => {
                let name = pod.name_any();
                board.change(workload, |state, now| {
                    // A pod that a later list is the first to tell of may have been there for a while.
                    let origin = if state.has_pods {
                        Origin::Found(now)
                    } else {
                        Origin::There
                    };
                    state.pods.look(&name, look(&pod), now, origin);
                });
                listed.insert(name);
            }
            Ok(Event::InitDone) => board.change(workload, |state, now| {
                state.pods.keep(&listed, now);
                state.has_pods = true;
            }),
            Ok(Event::Apply(pod)) => board.change(workload, |state, now| {
                let origin = Origin::Made(now);
                state.pods.look(&pod.name_any(), look(&pod), now, origin);
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
    workloads: Vec<usize>,
) {
    let mut stream = pin!(stream);
    while let Some(event) = stream.next().await {
        match event {
            Ok(Event::Apply(told)) if is_pull(&told) => {
                let name = told.involved_object.name.unwrap_or_default();
                for workload in &workloads {
                    board.change(*workload, |state, now| state.pods.pulled(&name, now));
                }
            }
            // What a list tells was before.
            Ok(_) | Err(_) => {}
        }
    }
}

/// Whether a node had to pull an image: "Successfully pulled image .. in 12.3s", rather than "already present on machine" (the
/// kubelet's `pkg/kubelet/images/image_manager.go`). With `imagePullPolicy: Always` it says so for an image of which it has everything, too,
/// after asking the registry: what took less than [`ASKED`] is no pull.
fn is_pull(told: &Told) -> bool {
    let message = told.message.as_deref().unwrap_or_default();
    let is_pulled =
        told.reason.as_deref() == Some("Pulled") && message.starts_with("Successfully pulled");
    let took = message
        .split_once(" in ")
        .and_then(|(_, rest)| seconds(rest.split(' ').next()?));
    is_pulled && took.is_none_or(|took| took >= ASKED)
}

/// A duration as Go writes it: `1m2.5s`, `350ms`.
fn seconds(text: &str) -> Option<f64> {
    let mut sum = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        let unit_end = rest[end..]
            .find(|c: char| c.is_ascii_digit())
            .map_or(rest.len(), |at| end + at);
        sum += number
            * match &rest[end..unit_end] {
                "h" => 3_600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
        rest = &rest[unit_end..];
    }
    Some(sum)
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
    use std::time::Instant;

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

    /// A watch that tells these, on a board with one workload.
    async fn told(events: Vec<Event<Pod>>) -> Arc<Board> {
        let board = Arc::new(Board::new(Instant::now(), vec!["m".to_owned()]));
        let events = events.into_iter().map(Ok);
        follow_pods(futures_util::stream::iter(events), Arc::clone(&board), 0).await;
        board
    }

    fn named(name: &str) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": name}})).unwrap()
    }

    #[tokio::test]
    async fn a_watch_that_begins_again_tells_what_is_gone_and_proves_no_beginning() {
        let board = told(vec![
            Event::Init,
            Event::InitApply(named("there")),
            Event::InitDone,
            Event::Apply(named("made")),
            Event::Init,
            Event::InitApply(named("made")),
            Event::InitApply(named("found")),
            Event::InitDone,
            Event::Delete(named("made")),
        ])
        .await;
        board.look(0, |state| {
            let pods = &state.pods.0;
            assert_eq!(pods["there"].origin, Origin::There);
            assert!(matches!(pods["made"].origin, Origin::Made(_)));
            assert!(matches!(pods["found"].origin, Origin::Found(_)));
            let gone = ["there", "made", "found"].map(|name| pods[name].gone.is_some());
            assert_eq!(gone, [true, true, false]);
        });
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
        let asked = "Successfully pulled image \"a\" in 350ms (350ms including waiting)";
        assert!(!is_pull(&told("Pulled", asked)));
        let long = "Successfully pulled image \"a\" in 1m2.5s (2m including waiting)";
        assert!(is_pull(&told("Pulled", long)));
        for (text, want) in [
            ("1m2.5s", Some(62.5)),
            ("350ms", Some(0.35)),
            ("1h", Some(3_600.0)),
            ("", Some(0.0)),
            ("x", None),
            ("5", None),
        ] {
            let got = seconds(text).map(|seconds| (seconds * 1e6).round() / 1e6);
            assert_eq!(got, want, "{text}");
        }
        assert!(!is_pull(&told("Pulling", pulled)));
    }
}
