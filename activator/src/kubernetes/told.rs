//! What the activator's libraries are told of one workload: its settings and its endpoints.

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use ::kubernetes::{PodView, WorkloadView, names};
use autoscaler_core::{ClusterConfig, TargetSpec, annotations::AllowedNamespaces, wake_replicas};
use shared::TargetId;
use tokio::{sync::watch, time::Instant};

use super::{
    Settings,
    failing::{Cause, Failing, barred},
    nudge::Nudging,
};
use crate::{
    Access, Activator, Endpoint, Endpoints, Lookups, Workload, WorkloadConfig, config::asked_for,
};

/// What has just become known of a workload.
#[derive(Debug, Default)]
pub(super) struct News {
    /// Why it cannot start.
    pub(super) cause: Option<Cause>,
    /// Its `ReplicaSet` is to be nudged.
    pub(super) nudge: bool,
}

/// One workload, and what was told of it last.
#[derive(Debug)]
pub(super) struct Told {
    target: TargetId,
    /// None if it could not be added, which does not happen without listeners.
    workload: Option<Arc<Workload>>,
    endpoints: watch::Sender<Arc<Endpoints>>,
    spec: Option<TargetSpec>,
    allowed: Option<AllowedNamespaces>,
    invalid: Option<String>,
    failing: Failing,
    nudging: Nudging,
    /// [`Workload::turned_away`] at the last look.
    turned_away: u64,
    /// When each pod was seen first, for wake timelines: the object itself says it by the second only.
    seen: HashMap<Arc<str>, Seen>,
}

/// When something was first seen of a pod.
#[derive(Clone, Copy, Debug)]
struct Seen {
    created: Instant,
    scheduled: Option<Instant>,
}

impl Told {
    /// Takes a workload in, without listeners yet.
    pub(super) fn add(activator: &Activator, target: &TargetId) -> Self {
        let (endpoints, receiver) = watch::channel(Arc::new(Endpoints::default()));
        let config = WorkloadConfig::new(target.clone());
        Self {
            target: target.clone(),
            workload: activator.add(config, Vec::new(), receiver).ok(),
            endpoints,
            spec: None,
            allowed: None,
            invalid: None,
            failing: Failing::default(),
            nudging: Nudging::default(),
            turned_away: 0,
            seen: HashMap::new(),
        }
    }

    /// Tells what has changed. `freed`: what kept pods from being made may have just gone.
    pub(super) fn tell(
        &mut self,
        view: Option<&WorkloadView>,
        pods: &[Arc<PodView>],
        config: &ClusterConfig,
        settings: &Settings,
        freed: bool,
        now: Instant,
    ) -> News {
        if let Some(view) = view {
            self.configure(view, config, &settings.lookups);
        }
        let asked = self.asked();
        let nudge = self.nudging.observe(view, pods, (asked, freed), now);
        let unix = unix_seconds();
        let patience = settings.unschedulable_patience.as_secs().cast_signed();
        let rests = self.nudging.rests();
        let (failed, begun) = self
            .failing
            .observe(view, pods, patience, rests, (unix, now));
        if let Some(workload) = &self.workload {
            workload.bar(barred(view, pods));
        }
        self.seen
            .retain(|uid, _| pods.iter().any(|pod| pod.uid == *uid));
        let pods = pods.iter().filter_map(|pod| {
            let seen = self.seen.entry(Arc::clone(&pod.uid)).or_insert(Seen {
                created: now,
                scheduled: None,
            });
            if pod.scheduled.is_some() {
                seen.scheduled.get_or_insert(now);
            }
            Some(Endpoint {
                uid: Arc::clone(&pod.uid),
                address: SocketAddr::new(pod.ip?, names::ACTIVATOR_PORT),
                terminating: pod.terminating,
                created: Some(seen.created),
                scheduled: seen.scheduled,
            })
        });
        let endpoints = Endpoints {
            replicas: view.map_or(0, |view| view.replicas),
            pods: pods.collect(),
            failed,
        };
        self.endpoints.send_if_modified(|current| {
            **current != endpoints && {
                *current = Arc::new(endpoints);
                true
            }
        });
        News {
            cause: begun,
            nudge,
        }
    }

    /// Whether anything is held, or was refused since the last look because the workload cannot start.
    fn asked(&mut self) -> bool {
        let Some(workload) = &self.workload else {
            return false;
        };
        let turned_away = workload.turned_away();
        let more = turned_away != std::mem::replace(&mut self.turned_away, turned_away);
        more || workload.is_wanted()
    }

    fn configure(&mut self, view: &WorkloadView, config: &ClusterConfig, lookups: &Lookups) {
        let settings = view.resolve(config, self.spec.as_ref());
        if settings.invalid != self.invalid {
            if let Some(invalid) = &settings.invalid {
                tracing::warn!(target = %self.target, invalid, "Annotations cannot be used; the last good ones stay");
            }
            self.invalid = settings.invalid;
        }
        // Apart from the others, whose defaults are in force where there are no last good ones: here that would open what
        // somebody meant to close.
        let allowed = AllowedNamespaces::of(&view.settings)
            .or_else(|| self.allowed.clone())
            .unwrap_or(AllowedNamespaces::Only(BTreeSet::new()));
        if self.spec.as_ref() == Some(&settings.spec) && self.allowed.as_ref() == Some(&allowed) {
            return;
        }
        let limited = allowed != AllowedNamespaces::Everybody;
        let access = || Access::new(&self.target, allowed.clone(), lookups.clone());
        if let Some(workload) = &self.workload {
            let spec = &settings.spec;
            workload.reconfigure(WorkloadConfig {
                container_concurrency: spec.container_concurrency,
                wake_replicas: wake_replicas(spec).get(),
                max_held: spec.max_held as usize,
                max_cold_start: spec.max_cold_start,
                access: limited.then(|| Arc::new(access())),
                opt_ins: asked_for(&spec.opt_ins),
                ..WorkloadConfig::new(self.target.clone())
            });
        }
        self.spec = Some(settings.spec);
        self.allowed = Some(allowed);
    }
}

fn unix_seconds() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs().cast_signed())
}
