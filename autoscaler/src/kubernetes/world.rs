//! Everything that is watched, and one workload's part of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::{Api, Client, runtime::watcher::Config};
use kubernetes::{Cache, Claim, WorkloadView, names, watch::Key};
use shared::TargetId;
use tokio::sync::watch;

use super::{
    plan::{PodFact, Standing, World},
    view::{ActivatorView, SeenPod, ServiceView, SliceView},
};

mod space;
#[cfg(test)]
mod tests;

use space::Space;

/// All caches.
#[derive(Debug)]
pub(crate) struct Caches {
    pub(crate) workloads: Cache<WorkloadView>,
    pub(crate) pods: Cache<SeenPod>,
    pub(crate) services: Cache<ServiceView>,
    pub(crate) slices: Cache<SliceView>,
    pub(crate) claims: Arc<Cache<Claim>>,
    pub(crate) activators: Cache<ActivatorView>,
    pub(crate) config: Cache<BTreeMap<String, String>>,
}

impl Caches {
    /// Starts to watch; `ours` is our own namespace.
    pub(crate) fn watch(client: &Client, ours: &str) -> Self {
        let enabled = || Config::default().labels(names::ENABLED_SELECTOR);
        let in_ours = || Api::namespaced(client.clone(), ours);
        let config = format!("metadata.name={}", names::CONFIG);
        Self {
            workloads: Cache::watch(Api::all(client.clone()), enabled(), |object: Deployment| {
                WorkloadView::of(&object)
            }),
            pods: Cache::watch(Api::all(client.clone()), enabled(), |object: Pod| {
                SeenPod::of(&object)
            }),
            services: Cache::watch(
                Api::all(client.clone()),
                Config::default(),
                |object: Service| ServiceView::of(&object),
            ),
            slices: Cache::watch(
                Api::all(client.clone()),
                Config::default().labels(names::SLICES_SELECTOR),
                |object: EndpointSlice| SliceView::of(&object),
            ),
            claims: Arc::new(Cache::watch(
                in_ours(),
                Config::default().labels(names::CLAIM),
                |object: ConfigMap| Claim::from_config_map(&object).ok(),
            )),
            activators: Cache::watch(
                Api::namespaced(client.clone(), ours),
                Config::default().labels(names::ACTIVATOR_SELECTOR),
                |object: Pod| ActivatorView::of(&object),
            ),
            config: Cache::watch(
                in_ours(),
                Config::default().fields(&config),
                |object: ConfigMap| Some(object.data.unwrap_or_default()),
            ),
        }
    }

    /// Whether all of them are complete.
    pub(crate) fn are_complete(&self) -> bool {
        self.workloads.is_complete()
            && self.pods.is_complete()
            && self.services.is_complete()
            && self.slices.is_complete()
            && self.claims.is_complete()
            && self.activators.is_complete()
            && self.config.is_complete()
    }

    /// Waits until they are.
    pub(crate) async fn complete(&self) {
        self.workloads.complete().await;
        self.pods.complete().await;
        self.services.complete().await;
        self.slices.complete().await;
        self.claims.complete().await;
        self.activators.complete().await;
        self.config.complete().await;
    }

    pub(crate) fn changes(&self) -> Vec<watch::Receiver<u64>> {
        vec![
            self.workloads.changes(),
            self.pods.changes(),
            self.services.changes(),
            self.slices.changes(),
            self.claims.changes(),
            self.activators.changes(),
            self.config.changes(),
        ]
    }

    /// Claimed ports that are in use, and the activators that should listen on them.
    pub(crate) fn to_probe(&self) -> (BTreeSet<u16>, BTreeSet<IpAddr>) {
        let claims = self.claims.all();
        let live = claims.iter().filter(|(_, claim)| claim.released.is_none());
        let activators = self.activators.all();
        let activators = listed(activators.iter().map(|(_, view)| &**view));
        (live.map(|(_, claim)| claim.port).collect(), activators)
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot::new(
            self.workloads.all(),
            self.pods.all(),
            self.services.all(),
            self.slices.all(),
            self.claims.all(),
            &self.activators.all(),
        )
    }
}

/// Everything at one moment, ordered by whose it is.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) workloads: BTreeMap<TargetId, Arc<WorkloadView>>,
    pub(crate) pods: BTreeMap<TargetId, Vec<Arc<SeenPod>>>,
    spaces: BTreeMap<Arc<str>, Space>,
    claims: BTreeMap<TargetId, Vec<Claim>>,
    activators: BTreeSet<IpAddr>,
}

type All<V> = Vec<(Key, Arc<V>)>;

impl Snapshot {
    fn new(
        workloads: All<WorkloadView>,
        pods: All<SeenPod>,
        services: All<ServiceView>,
        slices: All<SliceView>,
        claims: All<Claim>,
        activators: &All<ActivatorView>,
    ) -> Self {
        let mut all = Self::default();
        for ((namespace, _), view) in workloads {
            let space = all.spaces.entry(namespace).or_default();
            space.workloads.push(Arc::clone(&view));
            all.workloads.insert(view.target.clone(), view);
        }
        for ((namespace, _), pod) in pods {
            match &*pod {
                SeenPod::Ours(view, _) => all
                    .pods
                    .entry(view.target.clone())
                    .or_default()
                    .push(Arc::clone(&pod)),
                SeenPod::Bare {
                    labels,
                    ready: true,
                } => {
                    let space = all.spaces.entry(namespace).or_default();
                    space.bare.push(labels.clone());
                }
                SeenPod::Bare { .. } => {}
            }
        }
        for ((namespace, name), view) in services {
            let space = all.spaces.entry(namespace).or_default();
            space.services.insert(name, view);
        }
        for ((namespace, _), view) in slices {
            all.spaces.entry(namespace).or_default().slices.push(view);
        }
        for (_, claim) in claims {
            all.claims
                .entry(claim.target.clone())
                .or_default()
                .push(Claim::clone(&claim));
        }
        all.activators = listed(activators.iter().map(|(_, view)| &**view));
        for space in all.spaces.values_mut() {
            space.order();
        }
        all
    }

    /// Every workload of which there is anything, also if only traces of it are left.
    pub(crate) fn targets(&self) -> BTreeSet<TargetId> {
        let mut targets: BTreeSet<_> = self.workloads.keys().cloned().collect();
        targets.extend(self.claims.keys().cloned());
        for (namespace, space) in &self.spaces {
            let records = space
                .services
                .values()
                .filter(|one| one.is_companion() || one.is_relay());
            let records = records.filter_map(|one| Some(&one.adopted.as_ref()?.workload));
            let slices = space.slices.iter().map(|slice| &slice.workload);
            let names = records.chain(slices);
            targets.extend(names.filter_map(|name| TargetId::new(namespace, name).ok()));
        }
        targets
    }

    /// Whether all that is left of a workload are ports that rest.
    pub(crate) fn only_rests(&self, target: &TargetId) -> bool {
        let claims = self.claims.get(target).into_iter().flatten();
        let space = self.spaces.get(target.namespace());
        let name = target.name();
        claims.into_iter().all(|claim| claim.released.is_some())
            && space.is_none_or(|space| {
                space.recorded(name).next().is_none() && space.of_workload(name).next().is_none()
            })
    }

    /// One workload's part.
    pub(crate) fn world(
        &self,
        target: &TargetId,
        standing: Standing,
        listening: &BTreeSet<u16>,
        contested: BTreeSet<String>,
        now: i64,
    ) -> World {
        let nothing = Space::default();
        let space = self.spaces.get(target.namespace()).unwrap_or(&nothing);
        let is_of = |companion: &ServiceView| {
            let record = companion.adopted.as_ref();
            companion.is_companion() && record.is_some_and(|r| r.workload == target.name())
        };
        let selects = |service: &ServiceView| matches!(&standing, Standing::In(workload) if workload.selected_by(&service.selector));
        let beside = space.of_workload(target.name());
        let beside: BTreeSet<&str> = beside.map(|slice| slice.service.as_str()).collect();
        let mut companions = BTreeMap::new();
        let mut services = Vec::new();
        for name in space.concern(target.name()) {
            let service = space
                .services
                .get(name)
                .filter(|one| !one.is_companion() && !one.is_relay());
            let Some(service) = service else {
                continue;
            };
            let companion = space.services.get(names::companion(name).as_str());
            let ours = companion.is_some_and(|one| is_of(one)) || beside.contains(name);
            // A Service that another workload has adopted since is that one's.
            let others = companion.is_some_and(|one| one.adopted.is_some() && !is_of(one));
            if selects(service) || (ours && !others) {
                if let Some(companion) = companion {
                    companions.insert(service.name.clone(), Arc::clone(companion));
                }
                services.push(Arc::clone(service));
            }
        }
        // Companions whose Services are gone.
        let end = names::companion("");
        for companion in space.recorded(target.name()).filter(|one| is_of(one)) {
            let service = companion.name.strip_suffix(&end).unwrap_or(&companion.name);
            companions
                .entry(service.to_owned())
                .or_insert_with(|| Arc::clone(companion));
        }
        let relay = names::relay(target.name());
        let relay = relay.and_then(|name| space.services.get(name.as_str()).cloned());
        let led_by = companions.values().filter(|one| one.is_companion());
        let led_by = led_by
            .chain(&services)
            .chain(&relay)
            .map(|one| one.name.as_str());
        let shared = services.iter().filter_map(|service| {
            let other = space.other(&service.name, target.name())?;
            Some((service.name.clone(), other.target.to_string()))
        });
        let bare = services
            .iter()
            .filter_map(|service| space.bare(&service.name));
        let claims = self.claims.get(target).cloned().unwrap_or_default();
        let ports = claims.iter().map(|claim| claim.port);
        World {
            slices: space.slices(target.name(), led_by),
            pods: self.pods.get(target).map_or_else(Vec::new, |pods| {
                pods.iter().filter_map(|pod| fact(pod)).collect()
            }),
            bare: bare.cloned().collect(),
            activators: self.activators.clone(),
            listening: ports.filter(|port| listening.contains(port)).collect(),
            claims,
            target: target.clone(),
            standing,
            shared: shared.collect(),
            services,
            companions,
            relay,
            contested,
            now,
        }
    }
}

fn fact(pod: &SeenPod) -> Option<PodFact> {
    match pod {
        SeenPod::Ours(view, _) if !view.terminating => Some(PodFact {
            ready: view.ready,
            upstreams: view.upstreams.clone(),
        }),
        _ => None,
    }
}

/// The addresses to list: those of ready activators that stay; if there is none, of all that stay, since one that is not ready
/// for a moment is better than nobody.
fn listed<'a>(activators: impl Iterator<Item = &'a ActivatorView>) -> BTreeSet<IpAddr> {
    let staying: Vec<_> = activators.filter(|one| one.gone_by.is_none()).collect();
    let some_ready = staying.iter().any(|one| one.ready);
    let chosen = staying.iter().filter(|one| one.ready || !some_ready);
    chosen.flat_map(|one| one.ips.iter().copied()).collect()
}
