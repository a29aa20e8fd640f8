//! The activator on a cluster: which ports it listens on, which pods there are, and why a workload cannot start.
//!
//! Everything is derived anew from what the caches hold whenever they change ([`reconcile`]): nothing here remembers more than
//! what it has opened, what it has told, and when a workload failed.

mod admission;
mod failing;
mod ports;
mod scale;
mod told;

use std::{
    collections::{BTreeMap, HashMap},
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
use tokio::time::{Instant, sleep};

pub use webhook::certificate::Current;

pub use self::{
    admission::{Admission, certified, serve},
    scale::KubeScale,
};
use self::{ports::Ports, told::Told};
use crate::Activator;

/// Changes that come so close together are dealt with at once.
const MOMENT: Duration = Duration::from_millis(1);
/// How often everything is looked at although nothing has changed: patience ends, a port may be free again.
const LOOK: Duration = Duration::from_secs(1);

/// Settings of the cluster's side.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Our own namespace, where port claims are.
    pub namespace: String,
    /// Addresses to listen on.
    pub listen: Vec<IpAddr>,
    /// How long a pod may wait for a node before requests are refused for it: one may be on its way.
    pub unschedulable_patience: Duration,
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
/// so; whether the API server can be reached later does not matter.
pub async fn follow(
    activator: &Activator,
    caches: &Caches,
    settings: &Settings,
    also: impl Future<Output = ()>,
) {
    let mut changes = [
        caches.workloads.changes(),
        caches.pods.changes(),
        caches.claims.changes(),
        caches.config.changes(),
    ];
    caches.complete().await;
    let mut state = State::default();
    state.reconcile(activator, caches, settings);
    let mut also = std::pin::pin!(also);
    let mut ready = false;
    loop {
        tokio::select! {
            () = any_change(&mut changes, MOMENT) => {}
            () = sleep(LOOK) => {}
            () = &mut also, if !ready => {
                ready = true;
                activator.set_ready(true);
            }
        }
        state.reconcile(activator, caches, settings);
    }
}

/// Keeps the connection for wakes open, since a handshake of TLS in the middle of one would be most of its time.
pub async fn keep_warm(client: Client) {
    loop {
        if let Err(error) = client.apiserver_version().await {
            tracing::debug!(%error, "The API server cannot be asked for its version");
        }
        // Well below the 90 s after which unused connections are closed (hyper-util's pool).
        sleep(Duration::from_secs(20)).await;
    }
}

/// What was opened and told so far.
#[derive(Debug, Default)]
struct State {
    config: ClusterConfig,
    data: Option<BTreeMap<String, String>>,
    ports: Ports,
    told: HashMap<TargetId, Told>,
}

impl State {
    fn reconcile(&mut self, activator: &Activator, caches: &Caches, settings: &Settings) {
        self.read_config(caches, &settings.namespace);
        let claims: Vec<_> = caches
            .claims
            .all()
            .into_iter()
            .map(|(_, claim)| claim)
            .collect();
        let wanted = ports::wanted(claims.iter().map(AsRef::as_ref));
        let mut pods: HashMap<TargetId, Vec<Arc<PodView>>> = HashMap::new();
        for (_, pod) in caches.pods.all() {
            pods.entry(pod.target.clone()).or_default().push(pod);
        }
        // Gone first: their ports may be wanted by others.
        self.told.retain(|target, _| {
            let stays = wanted.contains_key(target);
            if !stays {
                activator.remove(target);
                self.ports.forget(target);
            }
            stays
        });
        let now = Instant::now();
        for (target, ports) in &wanted {
            let view = caches.workloads.get(target.namespace(), target.name());
            let pods = pods.remove(target).unwrap_or_default();
            let told = self
                .told
                .entry(target.clone())
                .or_insert_with(|| Told::add(activator, target));
            let cause = told.tell(view.as_deref(), &pods, &self.config, settings, now);
            if let Some(cause) = cause {
                tracing::warn!(%target, reason = cause.reason, message = cause.message, "Workload cannot start");
            }
            self.ports
                .open(activator, target, ports, &settings.listen, now);
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
