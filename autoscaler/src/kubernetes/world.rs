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
        let managed = format!("{}={}", names::SLICE_MANAGED_BY, names::MANAGER);
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
                Config::default().labels(&managed),
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
    /// Ready pods without a sidecar, by namespace.
    bare: BTreeMap<Arc<str>, Vec<BTreeMap<String, String>>>,
    services: BTreeMap<Arc<str>, Vec<Arc<ServiceView>>>,
    slices: BTreeMap<Arc<str>, Vec<Arc<SliceView>>>,
    claims: BTreeMap<TargetId, Vec<Claim>>,
    pub(crate) activators: BTreeSet<IpAddr>,
    /// Workloads by namespace.
    names: BTreeMap<Arc<str>, Vec<Arc<WorkloadView>>>,
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
            all.names
                .entry(namespace)
                .or_default()
                .push(Arc::clone(&view));
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
                } => all.bare.entry(namespace).or_default().push(labels.clone()),
                SeenPod::Bare { .. } => {}
            }
        }
        for ((namespace, _), view) in services {
            all.services.entry(namespace).or_default().push(view);
        }
        for ((namespace, _), view) in slices {
            all.slices.entry(namespace).or_default().push(view);
        }
        for (_, claim) in claims {
            all.claims
                .entry(claim.target.clone())
                .or_default()
                .push(Claim::clone(&claim));
        }
        all.activators = listed(activators.iter().map(|(_, view)| &**view));
        all
    }

    /// Every workload of which there is anything, also if only traces of it are left.
    pub(crate) fn targets(&self) -> BTreeSet<TargetId> {
        let mut targets: BTreeSet<_> = self.workloads.keys().cloned().collect();
        targets.extend(self.claims.keys().cloned());
        for (namespace, services) in &self.services {
            let records = services.iter().filter(|one| one.companion);
            targets.extend(
                records.filter_map(|one| {
                    TargetId::new(namespace, &one.adopted.as_ref()?.workload).ok()
                }),
            );
        }
        for (namespace, slices) in &self.slices {
            targets.extend(
                slices
                    .iter()
                    .filter_map(|slice| TargetId::new(namespace, &slice.workload).ok()),
            );
        }
        targets
    }

    /// Whether all that is left of a workload are ports that rest.
    pub(crate) fn only_rests(&self, target: &TargetId) -> bool {
        let namespace = target.namespace();
        let services = self.services.get(namespace).into_iter().flatten();
        let slices = self.slices.get(namespace).into_iter().flatten();
        let claims = self.claims.get(target).into_iter().flatten();
        let is_of = |record: &kubernetes::Adopted| record.workload == target.name();
        let mut companions = services.filter(|one| one.adopted.as_ref().is_some_and(is_of));
        let mut slices = slices.filter(|slice| slice.workload == target.name());
        claims.into_iter().all(|claim| claim.released.is_some())
            && companions.next().is_none()
            && slices.next().is_none()
    }

    /// Claimed ports that are in use.
    pub(crate) fn live_ports(&self) -> BTreeSet<u16> {
        let claims = self.claims.values().flatten();
        claims
            .filter(|claim| claim.released.is_none())
            .map(|claim| claim.port)
            .collect()
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
        let namespace = target.namespace();
        let all = self.services.get(namespace).map_or(&[][..], Vec::as_slice);
        let slices = self.slices.get(namespace).map_or(&[][..], Vec::as_slice);
        let by_name = |name: &str| all.iter().find(|one| one.name == name);
        let is_of = |companion: &ServiceView| {
            let record = companion.adopted.as_ref();
            companion.companion && record.is_some_and(|r| r.workload == target.name())
        };
        let selects = |service: &ServiceView| {
            !service.companion
                && matches!(&standing, Standing::In(workload) if workload.selected_by(&service.selector))
        };
        let mut companions = BTreeMap::new();
        let mut services = Vec::new();
        for service in all.iter().filter(|one| !one.companion) {
            let companion = by_name(&names::companion(&service.name));
            let ours = companion.is_some_and(|one| is_of(one))
                || slices
                    .iter()
                    .any(|s| s.service == service.name && s.workload == target.name());
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
        for companion in all.iter().filter(|one| is_of(one)) {
            let end = names::companion("");
            let service = companion.name.strip_suffix(&end).unwrap_or(&companion.name);
            companions
                .entry(service.to_owned())
                .or_insert_with(|| Arc::clone(companion));
        }
        let ours = |slice: &&Arc<SliceView>| {
            slice.workload == target.name()
                || services.iter().any(|one| one.name == slice.service)
                || companions
                    .values()
                    .any(|one| one.companion && one.name == slice.service)
        };
        let shared = services
            .iter()
            .filter_map(|service| {
                let others = self.names.get(namespace)?;
                let other = others
                    .iter()
                    .find(|one| one.target != *target && one.selected_by(&service.selector))?;
                Some((service.name.clone(), other.target.to_string()))
            })
            .collect();
        World {
            slices: slices.iter().filter(ours).cloned().collect(),
            pods: self.pods.get(target).map_or_else(Vec::new, |pods| {
                pods.iter().filter_map(|pod| fact(pod)).collect()
            }),
            bare: self.bare.get(namespace).cloned().unwrap_or_default(),
            claims: self.claims.get(target).cloned().unwrap_or_default(),
            activators: self.activators.clone(),
            listening: listening.clone(),
            target: target.clone(),
            standing,
            services,
            companions,
            contested,
            shared,
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
    let staying: Vec<_> = activators.filter(|one| !one.terminating).collect();
    let some_ready = staying.iter().any(|one| one.ready);
    let chosen = staying.iter().filter(|one| one.ready || !some_ready);
    chosen.flat_map(|one| one.ips.iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_activators_are_listed_and_for_want_of_them_all_that_stay() {
        let one = |last: u8, ready, terminating| ActivatorView {
            ips: vec![[10, 0, 0, last].into()],
            ready,
            terminating,
        };
        let listed = |all: &[ActivatorView]| listed(all.iter()).len();
        assert_eq!(listed(&[one(1, true, false), one(2, false, false)]), 1);
        assert_eq!(listed(&[one(1, false, false), one(2, false, false)]), 2);
        assert_eq!(listed(&[one(1, true, true), one(2, false, false)]), 1);
        assert_eq!(listed(&[one(1, true, true)]), 0);
    }
}
