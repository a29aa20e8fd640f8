//! What a Pod object tells of a replica.

use std::{net::IpAddr, sync::Arc};

use k8s_openapi::{
    api::core::v1::{Container, ContainerState, ContainerStatus, Pod, PodCondition, PodSpec},
    apimachinery::pkg::apis::meta::v1::Time,
};
use shared::TargetId;

use crate::names;

/// One pod of a workload, as far as Rouse cares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodView {
    /// The Pod's name.
    pub name: Arc<str>,
    /// Its UID.
    pub uid: Arc<str>,
    /// Whose it is, as the webhook has recorded.
    pub target: TargetId,
    /// Its address, once it has one.
    pub ip: Option<IpAddr>,
    /// The model's ports: the n-th is behind the n-th request port.
    pub upstreams: Vec<u16>,
    /// Hash of its template, by which a Deployment tells its generations apart.
    pub template: Option<Arc<str>>,
    /// It takes requests.
    pub ready: bool,
    /// It has not been ready in its containers' present life, and nothing says that it will not be.
    pub starting: bool,
    /// It was told to go.
    pub terminating: bool,
    /// What keeps it from running, if anything does.
    pub trouble: Option<Trouble>,
    /// When the object was made, in seconds since 1970.
    pub created: Option<i64>,
    /// When it was bound to a node, in seconds since 1970.
    pub scheduled: Option<i64>,
    /// When the model's container was started, in seconds since 1970.
    pub started: Option<i64>,
    /// When its present life began: it was made, or the model's container ended and was started again after that. In seconds
    /// since 1970.
    pub began: Option<i64>,
    /// When everything that comes before the model's container was done: the sidecar runs and other init containers have ended. In
    /// seconds since 1970; none until then, and in a later life of the container, which needs none of it.
    pub prepared: Option<i64>,
    /// When it became ready, in seconds since 1970; none while it is not.
    pub ready_since: Option<i64>,
}

/// What keeps a pod from running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Kubernetes' word, such as `ImagePullBackOff` or `Unschedulable`.
    pub reason: String,
    /// What Kubernetes says with it. May be empty.
    pub message: String,
    /// Since when, in seconds since 1970, where Kubernetes says so.
    pub since: Option<i64>,
}

/// Waiting reasons from which a container does not come by itself soon. Sources: `pkg/kubelet/images/types.go`,
/// `pkg/kubelet/container/sync_result.go` and `pkg/kubelet/kuberuntime/kuberuntime_container.go` of Kubernetes.
const STUCK: [&str; 9] = [
    "CrashLoopBackOff",
    "ImagePullBackOff",
    "ErrImagePull",
    "ErrImageNeverPull",
    "InvalidImageName",
    "ImageInspectError",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
];

/// Why a pod that is not scheduled is not.
const UNSCHEDULABLE: &str = "Unschedulable";

impl Trouble {
    /// Whether the pod waits for a node, which may be on its way.
    pub fn is_unschedulable(&self) -> bool {
        self.reason == UNSCHEDULABLE
    }
}

impl PodView {
    /// The view of a pod, if it is one of ours: the webhook has injected the sidecar and recorded whose it is. A pod that has
    /// ended is none.
    pub fn of(pod: &Pod) -> Option<Self> {
        let meta = &pod.metadata;
        let annotation = |name| meta.annotations.as_ref()?.get(name);
        let target =
            TargetId::new(meta.namespace.as_deref()?, annotation(names::WORKLOAD)?).ok()?;
        let upstreams = parse_ports(annotation(names::UPSTREAM_PORTS)?)?;
        let status = pod.status.as_ref();
        if matches!(status?.phase.as_deref(), Some("Succeeded" | "Failed")) {
            return None;
        }
        let condition = |kind: &str| {
            let conditions = status?.conditions.as_ref()?;
            conditions.iter().find(|condition| condition.type_ == kind)
        };
        let ready_condition = condition("Ready");
        let ready = ready_condition.is_some_and(is_true);
        let model = model(pod.spec.as_ref()?)?.1.name.as_str();
        let containers: Vec<&ContainerStatus> = status
            .into_iter()
            .flat_map(|s| [&s.init_container_statuses, &s.container_statuses])
            .flatten()
            .flatten()
            .collect();
        let model = containers.iter().find(|one| one.name == model);
        let started = model.and_then(|container| running_since(container));
        let created = meta.creation_timestamp.as_ref().map(seconds);
        let (has_ended, end) = model.map_or((false, None), |container| ended(container));
        let sidecars = sidecars(pod.spec.as_ref()?);
        let before = status.and_then(|status| status.init_container_statuses.as_ref());
        let trouble = containers
            .iter()
            .find_map(|container| stuck(container))
            .or_else(|| unschedulable(condition("PodScheduled")?));
        Some(Self {
            name: meta.name.as_deref()?.into(),
            uid: meta.uid.as_deref()?.into(),
            target,
            ip: status.and_then(|s| s.pod_ip.as_deref()?.parse().ok()),
            upstreams,
            template: meta
                .labels
                .as_ref()
                .and_then(|labels| labels.get("pod-template-hash"))
                .map(|hash| hash.as_str().into()),
            ready,
            starting: !ready && trouble.is_none() && !was_ready(ready_condition, started),
            terminating: meta.deletion_timestamp.is_some(),
            trouble,
            created,
            scheduled: condition("PodScheduled")
                .filter(|condition| is_true(condition))
                .and_then(transition),
            started,
            began: if has_ended { started.or(end) } else { created },
            prepared: before
                .filter(|_| !has_ended)
                .and_then(|all| prepared(all, &sidecars)),
            ready_since: ready_condition
                .filter(|condition| is_true(condition))
                .and_then(transition),
        })
    }
}

/// Whether a pod that is not ready was, since its model's container started: then it lost its readiness after that. While the
/// container does not run, a pod that was ready has crashed, which is another start.
fn was_ready(ready: Option<&PodCondition>, started: Option<i64>) -> bool {
    match (ready.and_then(transition), started) {
        // Both have a resolution of a second; a model that is ready within its first one is not slow to start.
        (Some(lost), Some(started)) => lost > started + 1,
        _ => false,
    }
}

/// When a container was started that runs.
fn running_since(container: &ContainerStatus) -> Option<i64> {
    let running = container.state.as_ref()?.running.as_ref()?;
    running.started_at.as_ref().map(seconds)
}

/// Whether the container has ended once, and when it last did if that is told.
fn ended(container: &ContainerStatus) -> (bool, Option<i64>) {
    let states = [container.state.as_ref(), container.last_state.as_ref()];
    let mut ends = states.into_iter().flatten();
    let end = ends.find_map(|state| state.terminated.as_ref());
    let at = end.and_then(|end| end.finished_at.as_ref().map(seconds));
    (end.is_some() || container.restart_count > 0, at)
}

/// The names of init containers that stay while the others run.
/// Source: <https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/>.
fn sidecars(spec: &PodSpec) -> Vec<&str> {
    let init = spec.init_containers.iter().flatten();
    let stays = |one: &&Container| one.restart_policy.as_deref() == Some("Always");
    init.filter(stays).map(|one| one.name.as_str()).collect()
}

/// When the last of these was done: a sidecar when it runs, another one when it has ended. None if one is not done.
fn prepared(before: &[ContainerStatus], sidecars: &[&str]) -> Option<i64> {
    let done = before.iter().map(|container| {
        if sidecars.contains(&container.name.as_str()) {
            return running_since(container);
        }
        let ended = container.state.as_ref()?.terminated.as_ref()?;
        ended.finished_at.as_ref().map(seconds)
    });
    done.collect::<Option<Vec<_>>>()?.into_iter().max()
}

fn stuck(container: &ContainerStatus) -> Option<Trouble> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref()?;
    if !STUCK.contains(&reason) {
        return None;
    }
    let mut message = waiting.message.clone().unwrap_or_default();
    if let Some(end) = container.last_state.as_ref().and_then(last_end) {
        message = format!("{end}; {message}");
    }
    Some(Trouble {
        reason: reason.to_owned(),
        message,
        since: None,
    })
}

/// How the container's last life ended: more telling than "back-off".
fn last_end(state: &ContainerState) -> Option<String> {
    let end = state.terminated.as_ref()?;
    let said = end.message.as_deref().unwrap_or_default().trim();
    let separator = if said.is_empty() { "" } else { ": " };
    Some(format!(
        "exited with code {} ({}){separator}{said}",
        end.exit_code,
        end.reason.as_deref().unwrap_or("no reason given"),
    ))
}

fn unschedulable(scheduled: &PodCondition) -> Option<Trouble> {
    if is_true(scheduled) || scheduled.reason.as_deref() != Some(UNSCHEDULABLE) {
        return None;
    }
    Some(Trouble {
        reason: UNSCHEDULABLE.to_owned(),
        message: scheduled.message.clone().unwrap_or_default(),
        since: transition(scheduled),
    })
}

/// Reads the value of [`names::UPSTREAM_PORTS`].
fn parse_ports(text: &str) -> Option<Vec<u16>> {
    let ports: Option<Vec<u16>> = text
        .split(',')
        .map(|port| port.trim().parse().ok().filter(|port| *port > 0))
        .collect();
    ports.filter(|ports| ports.len() <= names::MAX_REQUEST_PORTS)
}

fn is_true(condition: &PodCondition) -> bool {
    condition.status == "True"
}

fn transition(condition: &PodCondition) -> Option<i64> {
    condition.last_transition_time.as_ref().map(seconds)
}

fn seconds(time: &Time) -> i64 {
    time.0.as_second()
}

/// Proxies of service meshes that other webhooks put among the containers, some of them first, so that the others wait for them:
/// linkerd's `proxy.await`, Istio's `holdApplicationUntilProxyStarts`.
const MESHES: [&str; 2] = ["linkerd-proxy", "istio-proxy"];

/// The model: the first container that is no proxy of a service mesh, and its place. The same in a Deployment's template and in
/// its pods, whatever other webhooks have put in.
pub fn model(spec: &PodSpec) -> Option<(usize, &Container)> {
    let mut containers = spec.containers.iter().enumerate();
    containers.find(|(_, container)| !MESHES.contains(&container.name.as_str()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A pod whose model runs since 10:00:10 and is not ready yet.
    fn pod() -> Value {
        json!({
            "metadata": {
                "namespace": "models", "name": "iris-5d4-abc", "uid": "u-1",
                "creationTimestamp": "2026-01-02T10:00:00Z",
                "labels": {"pod-template-hash": "5d4"},
                "annotations": {"rouse.dev/workload": "iris", "rouse.dev/upstream-ports": "8080,9000"},
            },
            "spec": {
                "initContainers": [{"name": "queue-proxy", "restartPolicy": "Always"}, {"name": "weights"}],
                "containers": [{"name": "model"}],
            },
            "status": {
                "phase": "Running", "podIP": "10.244.0.7",
                "conditions": [
                    {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-02T10:00:01Z"},
                    {"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-02T10:00:01Z"},
                ],
                "initContainerStatuses": [status("queue-proxy", &json!({"running": {}}))],
                "containerStatuses": [
                    status("model", &json!({"running": {"startedAt": "2026-01-02T10:00:10Z"}})),
                ],
            },
        })
    }

    fn status(name: &str, state: &Value) -> Value {
        json!({"name": name, "ready": false, "restartCount": 0, "image": "", "imageID": "", "state": state})
    }

    fn view(pod: Value) -> Option<PodView> {
        PodView::of(&serde_json::from_value(pod).unwrap())
    }

    /// A change to the pod, and what is seen of it.
    fn changed(change: impl FnOnce(&mut Value)) -> Option<PodView> {
        let mut pod = pod();
        change(&mut pod);
        view(pod)
    }

    #[test]
    fn a_starting_pod() {
        let seen = view(pod()).unwrap();
        assert_eq!(seen.target.to_string(), "models/iris");
        assert_eq!(seen.ip, Some("10.244.0.7".parse().unwrap()));
        assert_eq!(seen.upstreams, [8080, 9000]);
        assert_eq!(seen.template.as_deref(), Some("5d4"));
        assert_eq!(
            seen.scheduled.zip(seen.started),
            seen.created.map(|at| (at + 1, at + 10))
        );
        assert!(seen.starting && !seen.ready && !seen.terminating && seen.trouble.is_none());
    }

    #[test]
    fn readiness_makes_and_losing_it_does_not_make_a_start() {
        let condition = |status: &'static str, at: &'static str| {
            changed(|pod| {
                let ready = &mut pod["status"]["conditions"][1];
                ready["status"] = json!(status);
                ready["lastTransitionTime"] = json!(at);
            })
            .map(|seen| (seen.ready, seen.starting))
        };
        assert_eq!(
            condition("True", "2026-01-02T10:00:30Z"),
            Some((true, false))
        );
        assert_eq!(
            condition("False", "2026-01-02T10:00:40Z"),
            Some((false, false))
        );
    }

    #[test]
    fn when_its_present_life_began_and_how_far_it_is() {
        let times = |change: &dyn Fn(&mut Value)| {
            let seen = changed(change).unwrap();
            let at = |time: Option<i64>| time.zip(seen.created).map(|(time, made)| time - made);
            [seen.began, seen.prepared, seen.started, seen.ready_since].map(at)
        };
        assert_eq!(
            times(&|pod| {
                pod["status"]["initContainerStatuses"] = json!([
                    status(
                        "queue-proxy",
                        &json!({"running": {"startedAt": "2026-01-02T10:00:02Z"}})
                    ),
                    status(
                        "weights",
                        &json!({"terminated": {"exitCode": 0, "finishedAt": "2026-01-02T10:00:06Z"}})
                    ),
                ]);
            }),
            [Some(0), Some(6), Some(10), None]
        );
        assert_eq!(
            times(&|pod| {
                pod["status"]["initContainerStatuses"] = json!([
                    status(
                        "queue-proxy",
                        &json!({"running": {"startedAt": "2026-01-02T10:00:02Z"}})
                    ),
                    status(
                        "weights",
                        &json!({"running": {"startedAt": "2026-01-02T10:00:03Z"}})
                    ),
                ]);
                pod["status"]["containerStatuses"] = json!([]);
            }),
            [Some(0), None, None, None],
            "weights are being fetched"
        );
        let before = |pod: &mut Value| {
            let sidecar = json!({"running": {"startedAt": "2026-01-02T10:00:02Z"}});
            pod["status"]["initContainerStatuses"] = json!([status("queue-proxy", &sidecar)]);
        };
        assert_eq!(
            times(&|pod| {
                before(pod);
                pod["status"]["containerStatuses"][0]["restartCount"] = json!(1);
                let ready = &mut pod["status"]["conditions"][1];
                ready["status"] = json!("True");
                ready["lastTransitionTime"] = json!("2026-01-02T10:00:30Z");
            }),
            [Some(10), None, Some(10), Some(30)],
            "a second life begins with its container, and nothing is prepared for it anew"
        );
        assert_eq!(
            times(&|pod| {
                before(pod);
                pod["status"]["conditions"][1]["lastTransitionTime"] =
                    json!("2026-01-02T10:00:41Z");
                pod["status"]["containerStatuses"][0]["state"] = json!({"terminated": {
                    "exitCode": 1, "finishedAt": "2026-01-02T10:00:40Z"}});
            }),
            [Some(40), None, None, None],
            "one that has just crashed was not made just now"
        );
    }

    #[test]
    fn a_container_that_was_restarted_starts_again() {
        let seen = changed(|pod| {
            pod["status"]["conditions"][1]["lastTransitionTime"] = json!("2026-01-02T10:05:00Z");
            pod["status"]["containerStatuses"][0]["state"] =
                json!({"running": {"startedAt": "2026-01-02T10:05:01Z"}});
        });
        assert!(seen.unwrap().starting);
    }

    #[test]
    fn what_keeps_it_from_running_is_told() {
        let seen = changed(|pod| {
            pod["status"]["containerStatuses"][0]["state"] =
                json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}});
            pod["status"]["containerStatuses"][0]["lastState"] = json!({"terminated": {
                "exitCode": 3, "reason": "Error", "message": "no weights\n"}});
        })
        .unwrap();
        let trouble = seen.trouble.unwrap();
        assert_eq!(trouble.reason, "CrashLoopBackOff");
        assert_eq!(
            trouble.message,
            "exited with code 3 (Error): no weights; back-off 10s"
        );
        assert!(!seen.starting);

        let seen = changed(|pod| {
            pod["status"]["initContainerStatuses"][0]["state"] =
                json!({"waiting": {"reason": "ImagePullBackOff"}});
        });
        assert_eq!(seen.unwrap().trouble.unwrap().reason, "ImagePullBackOff");

        let seen = changed(|pod| {
            pod["status"]["containerStatuses"] = json!([]);
            pod["status"]["conditions"][0] = json!({
                "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                "message": "0/1 nodes are available", "lastTransitionTime": "2026-01-02T10:00:02Z"});
        });
        let trouble = seen.unwrap().trouble.unwrap();
        assert!(trouble.is_unschedulable() && trouble.since.is_some());

        let creating = changed(|pod| {
            pod["status"]["containerStatuses"][0]["state"] =
                json!({"waiting": {"reason": "ContainerCreating"}});
        });
        assert!(creating.unwrap().starting);
    }

    #[test]
    fn what_is_not_ours_or_has_ended_is_left_out() {
        assert!(changed(|pod| pod["metadata"]["annotations"] = json!({})).is_none());
        assert!(changed(|pod| pod["status"]["phase"] = json!("Failed")).is_none());
        let ports = |text: &str| {
            changed(|pod| pod["metadata"]["annotations"]["rouse.dev/upstream-ports"] = json!(text))
        };
        for bad in ["", "0", "80,", "x", "1,2,3,4,5,6,7,8,9"] {
            assert!(ports(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn the_model_is_the_first_that_is_no_mesh() {
        let spec = |names: &[&str]| -> PodSpec {
            let containers: Vec<_> = names.iter().map(|name| json!({"name": name})).collect();
            serde_json::from_value(json!({"containers": containers})).unwrap()
        };
        for (names, place) in [
            (&["model", "other"][..], Some(0)),
            (&["linkerd-proxy", "model"], Some(1)),
            (&["istio-proxy", "model", "linkerd-proxy"], Some(1)),
            (&["model", "istio-proxy"], Some(0)),
            (&["istio-proxy"], None),
        ] {
            let spec = spec(names);
            assert_eq!(model(&spec).map(|(place, _)| place), place, "{names:?}");
        }
    }
}
