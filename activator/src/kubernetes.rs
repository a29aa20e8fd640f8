//! The activator on a cluster: which ports it listens on, which pods there are, and why a workload cannot start.
//!
//! Everything is derived anew from what the caches hold whenever they change (`State::reconcile`): nothing here remembers more than
//! what it has opened, what it has told, and when a workload failed.

mod admission;
mod events;
mod failing;
mod nudge;
mod ports;
mod scale;
mod sources;
mod told;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use ::kubernetes::{
    Cache, Claim, PodView, WorkloadView, adopted::Adopted, names, watch::any_change,
};
use autoscaler_core::ClusterConfig;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Pod, Service},
};
use kube::{Api, Client, runtime::watcher};
use shared::TargetId;
use tokio::time::{Instant, sleep_until};

pub use webhook::certificate::Current;

pub use self::{
    admission::{Admission, certified, serve},
    events::{Events, Queue, events},
    nudge::{NudgeQueue, Nudges, nudges},
    ports::everywhere,
    scale::{KubeScale, LANES},
    sources::PodSources,
};
use self::{events::Reason, ports::Ports, told::Told};
use crate::{Activator, Lookups};

/// Changes that come so close together are dealt with at once.
const MOMENT: Duration = Duration::from_millis(1);
/// How often everything is looked at although nothing has changed: patience may have ended.
const LOOK: Duration = Duration::from_secs(1);
/// How long after this webhook can answer the API server will have learned to ask it: a period of the readiness probe, and an
/// `EndpointSlice` that reaches kube-proxy. If it was nobody else's either, pods could not be made until then.
const WEBHOOK_KNOWN: Duration = Duration::from_secs(5);

/// Settings of the cluster's side.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Our own namespace, where port claims are.
    pub namespace: String,
    /// Addresses to listen on.
    pub listen: Vec<IpAddr>,
    /// How long a pod may wait for a node before requests are refused for it: one may be on its way.
    pub unschedulable_patience: Duration,
    /// Where to ask whose an address is.
    pub lookups: Lookups,
}

/// What the activator watches.
#[derive(Debug)]
pub struct Caches {
    workloads: Cache<WorkloadView>,
    pods: Cache<PodView>,
    claims: Cache<Claim>,
    config: Cache<BTreeMap<String, String>>,
    /// What was done to Services, which the webhook must know.
    companions: Cache<Adopted>,
}

impl Caches {
    /// Starts to watch.
    pub fn watch(client: &Client, namespace: &str) -> Self {
        let enabled = || watcher::Config::default().labels(names::ENABLED_SELECTOR);
        let ours: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
        let claims = watcher::Config::default().labels(names::CLAIM);
        let config = watcher::Config::default().fields(&format!("metadata.name={}", names::CONFIG));
        Self {
            workloads: Cache::watch(
                Api::<Deployment>::all(client.clone()),
                enabled(),
                |object| WorkloadView::of(&object),
            ),
            pods: Cache::watch(Api::<Pod>::all(client.clone()), enabled(), |object| {
                PodView::of(&object)
            }),
            claims: Cache::watch(ours.clone(), claims, |object| {
                Claim::from_config_map(&object)
                    .inspect_err(|error| tracing::warn!(%error, "Left out"))
                    .ok()
            }),
            config: Cache::watch(ours, config, |object: ConfigMap| {
                Some(object.data.unwrap_or_default())
            }),
            companions: Cache::watch(
                Api::<Service>::all(client.clone()),
                watcher::Config::default().labels(names::COMPANION),
                |object| Adopted::of(&object),
            ),
        }
    }

    fn uid_of(&self, target: &TargetId) -> Option<Arc<str>> {
        let view = self.workloads.get(target.namespace(), target.name())?;
        Some(Arc::clone(&view.uid))
    }

    /// Waits until no claim is in use any more: every workload is given back.
    pub async fn given_back(&self) {
        let mut changes = [self.claims.changes()];
        while self
            .claims
            .all()
            .iter()
            .any(|(_, claim)| claim.released.is_none())
        {
            any_change(&mut changes, MOMENT).await;
        }
    }

    async fn complete(&self) {
        tokio::join!(
            self.workloads.complete(),
            self.pods.complete(),
            self.claims.complete(),
            self.config.complete(),
        );
    }
}

/// Keeps `activator` in step with the cluster, for ever. It is ready once the first look at everything is done and `also` says
/// so, unless it is leaving; whether the API server can be reached later does not matter.
pub async fn follow(
    activator: &Activator,
    caches: &Caches,
    settings: &Settings,
    told: (Events, Nudges),
    also: impl Future<Output = ()>,
) {
    let mut changes = [
        caches.workloads.changes(),
        caches.pods.changes(),
        caches.claims.changes(),
        caches.config.changes(),
    ];
    caches.complete().await;
    let mut state = State::new(told);
    state.reconcile(activator, caches, settings);
    let mut also = std::pin::pin!(also);
    let mut ready = false;
    loop {
        let look = Instant::now() + LOOK;
        let next = state.ports.again().map_or(look, |again| again.min(look));
        tokio::select! {
            () = any_change(&mut changes, MOMENT) => {}
            () = sleep_until(next) => {}
            () = &mut also, if !ready => {
                ready = true;
                activator.set_ready(true);
                state.freed_at = Some(Instant::now() + WEBHOOK_KNOWN);
            }
        }
        state.reconcile(activator, caches, settings);
    }
}

/// What was opened and told so far.
#[derive(Debug)]
struct State {
    config: ClusterConfig,
    data: Option<BTreeMap<String, String>>,
    ports: Ports,
    told: HashMap<TargetId, Told>,
    events: Events,
    nudges: Nudges,
    /// When what kept pods from being made may be gone.
    freed_at: Option<Instant>,
}

impl State {
    fn new((events, nudges): (Events, Nudges)) -> Self {
        Self {
            config: ClusterConfig::default(),
            data: None,
            ports: Ports::default(),
            told: HashMap::new(),
            events,
            nudges,
            freed_at: None,
        }
    }

    fn reconcile(&mut self, activator: &Activator, caches: &Caches, settings: &Settings) {
        self.read_config(caches, &settings.namespace);
        let claims = caches.claims.all();
        let claims = claims.iter().map(|(_, claim)| claim.as_ref());
        let wanted = ports::wanted(claims, &settings.listen);
        let targets: HashSet<&TargetId> = wanted.values().map(|(target, _)| target).collect();
        let mut pods: HashMap<TargetId, Vec<Arc<PodView>>> = HashMap::new();
        for (_, pod) in caches.pods.all() {
            pods.entry(pod.target.clone()).or_default().push(pod);
        }
        // Closed first: the ports may be wanted by others.
        self.ports.close(activator, &wanted);
        self.told.retain(|target, _| {
            let stays = targets.contains(target);
            if !stays {
                activator.remove(target);
            }
            stays
        });
        let now = Instant::now();
        let freed = self.freed_at.take_if(|at| *at <= now).is_some();
        for target in targets {
            let view = caches.workloads.get(target.namespace(), target.name());
            let pods = pods.remove(target).unwrap_or_default();
            let told = self
                .told
                .entry(target.clone())
                .or_insert_with(|| Told::add(activator, target));
            let news = told.tell(view.as_deref(), &pods, &self.config, settings, freed, now);
            if let Some(view) = view.filter(|_| news.nudge) {
                self.nudges.ask(&view);
            }
            if let Some(cause) = news.cause {
                tracing::warn!(%target, reason = cause.reason, message = cause.message, "Workload cannot start");
                let note = format!("{}: {}", cause.reason, cause.message);
                self.events.tell(target, Reason::CannotStart, note);
            }
        }
        // Opened last: whoever comes in finds what is known.
        for failed in self.ports.open(activator, &wanted, now) {
            let note = format!("Port {}: {}", failed.address, failed.error);
            self.events.tell(&failed.target, Reason::CannotListen, note);
        }
    }

    /// Settings that cannot be used leave the last ones in force.
    fn read_config(&mut self, caches: &Caches, namespace: &str) {
        let data = caches
            .config
            .get(namespace, names::CONFIG)
            .map(|data| (*data).clone())
            .unwrap_or_default();
        if self.data.as_ref() == Some(&data) {
            return;
        }
        match ClusterConfig::parse(&data) {
            Ok(config) => self.config = config,
            Err(error) => {
                tracing::error!(%error, "{} cannot be used; the last settings stay", names::CONFIG);
            }
        }
        self.data = Some(data);
    }
}

#[cfg(test)]
mod tests;
