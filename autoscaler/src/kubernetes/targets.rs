//! One [`Controller`] per workload that is opted in, and what each is told.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use autoscaler_core::{ClusterConfig, Learned, Replicas, SETTINGS, TargetSpec};
use dashmap::DashMap;
use kubernetes::{PodView, WorkloadView, names};
use shared::{TargetId, clock, metrics};
use tokio::sync::watch;

use super::{
    events::{Events, Reason, Regarding},
    scaler::ClusterScaler,
    state::{State, States},
    view::SeenPod,
    world::Snapshot,
};
use crate::{Controller, Holds, Life, Pod, Scaler, Target};

/// All of them.
#[derive(Debug)]
pub(crate) struct Targets {
    pub(crate) controllers: Arc<DashMap<TargetId, Controller>>,
    pub(crate) holds: Holds,
    pub(crate) scaler: Arc<ClusterScaler>,
    pub(crate) states: States,
    pub(crate) events: Events,
    pub(crate) namespace: String,
    /// What was learned of workloads before, until each of them is seen.
    pub(crate) recalled: HashMap<TargetId, Learned>,
    known: HashMap<TargetId, Known>,
    config: ClusterConfig,
    /// The settings of the last workload that was looked at: most ask for the same, and share them.
    common: Arc<TargetSpec>,
    /// The settings that were read last, good or not.
    read: Option<BTreeMap<String, String>>,
}

#[derive(Debug)]
struct Known {
    target: watch::Sender<Arc<Target>>,
    /// The last good settings, without what adoption adds.
    spec: Arc<TargetSpec>,
}

impl Targets {
    pub(crate) fn new(
        controllers: Arc<DashMap<TargetId, Controller>>,
        holds: Holds,
        scaler: Arc<ClusterScaler>,
        namespace: String,
    ) -> Self {
        Self {
            controllers,
            holds,
            states: Arc::clone(&scaler.states),
            events: scaler.events.clone(),
            scaler,
            namespace,
            recalled: HashMap::new(),
            known: HashMap::new(),
            config: ClusterConfig::default(),
            common: Arc::default(),
            read: None,
        }
    }

    /// Takes over the cluster-wide settings; bad ones keep the old.
    pub(crate) fn configure(&mut self, data: Option<&BTreeMap<String, String>>) {
        let data = data.cloned().unwrap_or_default();
        if self.read.as_ref() == Some(&data) {
            return;
        }
        match parse(&data) {
            Ok(config) => {
                tracing::info!("Cluster-wide settings read");
                self.config = config;
            }
            Err(error) => {
                tracing::warn!(
                    error,
                    "Cluster-wide settings cannot be used; the old ones stay"
                );
                let regarding = Regarding::config_map(&self.namespace, names::CONFIG);
                self.events.tell(regarding, Reason::InvalidConfig, error);
            }
        }
        self.read = Some(data);
    }

    /// Starts, tells and ends controllers so that they are as what is seen.
    pub(crate) fn follow(&mut self, seen: &Snapshot) {
        self.known.retain(|id, _| {
            let stays = seen.workloads.contains_key(id);
            if !stays {
                self.controllers.remove(id);
                self.states.remove(id);
                self.holds.forget(id);
            }
            stays
        });
        let now = clock::since_epoch();
        for (id, workload) in &seen.workloads {
            let last = self.known.get(id).map(|known| &*known.spec);
            let settings = workload.resolve(&self.config, last);
            if *self.common != settings.spec {
                self.common = Arc::new(settings.spec);
            }
            let spec = Arc::clone(&self.common);
            if let Some(invalid) = settings.invalid {
                // Told again by itself after a while, as long as it is so.
                let uid = &workload.uid;
                let regarding = Regarding::deployment(id.namespace(), id.name(), uid);
                self.events
                    .tell(regarding, Reason::InvalidAnnotation, invalid);
            }
            let (must_stay, rival) = self.note(id, workload, &spec, now);
            if rival && self.scaler.gate.tenure().is_some() {
                metrics::AUTOSCALER_RIVALS
                    .counter(&[&id.to_string(), "scale"])
                    .increment(1);
                let (scaler, id) = (Arc::clone(&self.scaler), id.clone());
                tokio::spawn(async move { scaler.name_rival(&id).await });
            }
            let pods = seen.pods.get(id).map_or(&[][..], Vec::as_slice);
            let told = Arc::new(target(workload, &spec, must_stay, pods));
            if let Some(known) = self.known.get_mut(id) {
                known.spec = spec;
                known.target.send_if_modified(|current| {
                    *current != told && {
                        *current = told;
                        true
                    }
                });
                continue;
            }
            let (sender, receiver) = watch::channel(told);
            let scaler: Arc<dyn Scaler> = Arc::<ClusterScaler>::clone(&self.scaler);
            let learned = self.recalled.remove(id).unwrap_or_default();
            let holds = self.holds.clone();
            let controller = Controller::spawn(id.clone(), receiver, holds, scaler, learned);
            self.controllers.insert(id.clone(), controller);
            self.known.insert(
                id.clone(),
                Known {
                    target: sender,
                    spec,
                },
            );
        }
        // Whoever is not among the first that are seen is gone.
        self.recalled = HashMap::new();
    }

    /// Keeps what the scaler has to know. Whether the workload keeps a replica, and whether a rival was noticed just now.
    fn note(
        &self,
        id: &TargetId,
        workload: &WorkloadView,
        spec: &TargetSpec,
        now: std::time::Duration,
    ) -> (bool, bool) {
        let mut state = self
            .states
            .entry(id.clone())
            .or_insert_with(|| State::new(Arc::clone(&workload.uid)));
        if state.uid != workload.uid {
            *state = State::new(Arc::clone(&workload.uid));
        }
        state.paused = workload.paused;
        state.window = spec.stable_window;
        let rival = state.scale.saw(now, workload.replicas, workload.version);
        (state.must_stay(now), rival)
    }
}

fn parse(data: &BTreeMap<String, String>) -> Result<ClusterConfig, String> {
    // Knative's own ConfigMap explains itself under _example.
    let data: BTreeMap<_, _> = data
        .iter()
        .filter(|(key, _)| !key.starts_with('_'))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    if let Some(key) = data
        .keys()
        .find(|key| !SETTINGS.iter().any(|setting| setting.name == **key))
    {
        tracing::warn!(key, "No such setting; it is ignored");
    }
    ClusterConfig::parse(&data).map_err(|error| error.to_string())
}

/// What the controller is told.
fn target(
    workload: &WorkloadView,
    spec: &Arc<TargetSpec>,
    must_stay: bool,
    pods: &[Arc<SeenPod>],
) -> Target {
    let mut spec = Arc::clone(spec);
    if must_stay && spec.min_scale.is_zero() {
        // Nobody would wake it.
        Arc::make_mut(&mut spec).min_scale = Replicas::ONE;
    }
    let pods = pods.iter().filter_map(|pod| match &**pod {
        SeenPod::Ours(view, _) if !view.terminating => Some(Pod {
            uid: Arc::clone(&view.uid),
            stats: view.ip.map_or(
                SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
                |ip| SocketAddr::new(ip, names::STATS_PORT),
            ),
            ready: view.ready,
            starting: view.starting,
            failed: view.trouble.is_some(),
            life: life(view),
        }),
        _ => None,
    });
    Target {
        replicas: workload.replicas,
        pods: pods.collect(),
        reachable: true,
        spec,
    }
}

/// When what happened, as the API tells it: in whole seconds.
fn life(pod: &PodView) -> Life {
    let millis = |seconds: Option<i64>| {
        let millis = seconds?.saturating_mul(1000);
        u64::try_from(millis).ok()
    };
    Life {
        template: pod.template.clone().unwrap_or_default(),
        began: millis(pod.began),
        prepared: millis(pod.prepared),
        started: millis(pod.started),
        ready: millis(pod.ready_since),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod as PodObject};
    use serde_json::{Value, json};

    use super::*;

    fn workload() -> WorkloadView {
        let object = json!({
            "metadata": {"namespace": "n", "name": "iris", "uid": "w", "labels": {"rouse.dev/enabled": "true"}},
            "spec": {"replicas": 2, "selector": {}, "template": {"spec": {"containers": [{"name": "model"}]}}},
        });
        let object: Deployment = serde_json::from_value(object).unwrap();
        WorkloadView::of(&object).unwrap()
    }

    fn pod(change: impl FnOnce(&mut Value)) -> Arc<SeenPod> {
        let mut object = json!({
            "metadata": {"namespace": "n", "name": "p", "uid": "u",
                "annotations": {"rouse.dev/workload": "iris", "rouse.dev/upstream-ports": "8080"}},
            "spec": {"containers": [{"name": "model"}]},
            "status": {"podIP": "10.0.0.7", "phase": "Running",
                "conditions": [{"type": "Ready", "status": "True"}]},
        });
        change(&mut object);
        let object: PodObject = serde_json::from_value(object).unwrap();
        Arc::new(SeenPod::of(&object).unwrap())
    }

    #[test]
    fn pods_are_told_with_their_statistics_and_those_that_go_are_left_out() {
        let workload = workload();
        let spec = Arc::new(TargetSpec::default());
        let going = |object: &mut Value| {
            object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        };
        let early = |object: &mut Value| {
            object["status"] = json!({"phase": "Pending"});
        };
        let pods = [pod(|_| {}), pod(going), pod(early)];
        let told = target(&workload, &spec, false, &pods);
        assert_eq!(told.replicas, 2);
        let seen: Vec<_> = told
            .pods
            .iter()
            .map(|pod| (pod.stats.to_string(), pod.ready, pod.starting))
            .collect();
        assert_eq!(
            seen,
            [
                ("10.0.0.7:9091".to_owned(), true, false),
                ("0.0.0.0:0".to_owned(), false, true)
            ]
        );
        assert_eq!(told.spec, spec);
        let kept = target(&workload, &spec, true, &[]);
        assert_eq!(kept.spec.min_scale, Replicas::ONE);
    }

    #[test]
    fn settings_of_the_cluster_are_read_and_their_example_is_not() {
        let data = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect()
        };
        let good = parse(&data(&[("stable-window", "30s"), ("_example", "x: y")]));
        assert_eq!(good.unwrap().stable_window.as_secs(), 30);
        let bad = parse(&data(&[("stable-window", "1s")])).unwrap_err();
        assert!(bad.contains("stable-window"), "{bad}");
    }
}
