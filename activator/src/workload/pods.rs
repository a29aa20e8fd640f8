//! What a workload knows of its pods, and what it does when that changes.

use std::{net::IpAddr, sync::Arc, time::Duration};

use http::HeaderMap;
use shared::headers::{LOAD, POD_UID};
use tokio::{task::AbortHandle, time::Instant};

use super::{State, Workload, refuse_all};
use crate::{
    Endpoint, Endpoints,
    pod::{Milestones, Pod, await_ready},
    sync::MutexGuard,
    timeline::Timeline,
};

/// Longest pause before a pod is asked again that said it was ready and then admitted nothing.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// A pod that is in the list.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) pod: Arc<Pod>,
    /// The task that asks whether it is ready; none once it is.
    asking: Option<AbortHandle>,
    /// How often in a row it said that it is ready and then admitted nothing.
    setbacks: u32,
}

impl Known {
    /// One that nobody asks.
    #[cfg(test)]
    pub(super) fn quiet(pod: Arc<Pod>) -> Self {
        Self {
            pod,
            asking: None,
            setbacks: 0,
        }
    }

    /// Asks no more, keeps no connection.
    pub(super) fn let_go(&self) {
        if let Some(task) = &self.asking {
            task.abort();
        }
        self.pod.client.close();
    }

    /// The first time the pod is asked at once: mostly it knows itself that it is not ready. One that does not (its model
    /// died since the last probe) must not send its requests round in circles.
    fn pause(&self) -> Duration {
        match self.setbacks {
            0 | 1 => Duration::ZERO,
            n => Duration::from_millis(1 << (n - 1).min(16)).min(LONGEST_PAUSE),
        }
    }
}

impl Workload {
    /// Takes note of what pods there are. Pods that are new are asked until they are ready.
    pub(crate) fn apply(self: &Arc<Self>, endpoints: &Endpoints) {
        let now = Instant::now();
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if endpoints.replicas == 0 && state.replicas > 0 {
            // Whoever is held now waits for the next start.
            state.timeline = (state.hold.held() > 0).then(|| Timeline::new(now));
        }
        state.replicas = endpoints.replicas;
        let pods: Vec<_> = endpoints
            .pods
            .iter()
            .map(|p| (Arc::clone(&p.uid), p.terminating))
            .collect();
        // A pod may get another address, e.g. when its node was restarted: that is as if it were another pod.
        let moved = |uid: &Arc<str>| {
            let known = state.pods.get(uid).map(|known| known.pod.address);
            let listed = endpoints.pods.iter().find(|p| p.uid == *uid);
            known.is_some() && listed.is_some_and(|listed| known != Some(listed.address))
        };
        if pods.iter().any(|(uid, _)| moved(uid)) {
            let stay: Vec<_> = pods
                .iter()
                .filter(|(uid, _)| !moved(uid))
                .cloned()
                .collect();
            state.hold.set_pods(&stay);
        }
        let new = state.hold.set_pods(&pods);
        state.pods.retain(|uid, known| {
            let stays = !new.contains(uid) && pods.iter().any(|(listed, _)| listed == uid);
            if !stays {
                known.let_go();
            }
            stays
        });
        for endpoint in endpoints.pods.iter().filter(|p| new.contains(&p.uid)) {
            self.meet(state, endpoint, now);
        }
        state.failed.clone_from(&endpoints.failed);
        Self::refuse_if_vain(guard);
    }

    fn meet(self: &Arc<Self>, state: &mut State, endpoint: &Endpoint, now: Instant) {
        let uid = Arc::clone(&endpoint.uid);
        let config = self.process.config.client.clone();
        let mut known = Known {
            pod: Pod::new(Arc::clone(&uid), endpoint.address, config),
            asking: None,
            setbacks: 0,
        };
        self.ask(&mut known);
        state.pods.insert(uid, known);
        if let Some(timeline) = &mut state.timeline
            && timeline.pod_seen.is_none()
        {
            timeline.pod_seen = Some(now);
            timeline.pod_created = endpoint.created;
            timeline.pod_scheduled = endpoint.scheduled;
        }
    }

    fn ask(self: &Arc<Self>, known: &mut Known) {
        let asking = await_ready(Arc::downgrade(self), Arc::clone(&known.pod), known.pause());
        known.asking = Some(tokio::spawn(asking).abort_handle());
    }

    /// The pod's model is ready.
    pub(crate) fn pod_is_ready(self: &Arc<Self>, uid: &str, milestones: Milestones) {
        {
            let mut state = self.state.lock();
            state.hold.set_ready(uid, true, Instant::now());
            if let Some(known) = state.pods.get_mut(uid) {
                known.asking = None;
            }
            if let Some(timeline) = &mut state.timeline
                && timeline.model_ready.is_none()
            {
                timeline.sidecar_started = milestones.sidecar_started;
                timeline.port_open = milestones.port_open;
                timeline.model_ready = Some(milestones.model_ready);
                timeline.ready_seen = Some(Instant::now());
            }
        }
        self.dispatch();
        self.kick.notify_one();
    }

    /// The pod was found not to take requests: it gets none until its queue-proxy says that its model is ready again.
    pub(crate) fn pod_is_unready(self: &Arc<Self>, pod: &Arc<Pod>) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let Some(known) = state
            .pods
            .get_mut(&pod.uid)
            .filter(|k| Arc::ptr_eq(&k.pod, pod))
        else {
            return;
        };
        if known.asking.is_none() && !state.removed {
            state.hold.set_ready(&pod.uid, false, Instant::now());
            known.setbacks = known.setbacks.saturating_add(1);
            self.ask(known);
        }
        Self::refuse_if_vain(guard);
        self.kick.notify_one();
    }

    /// The pod has answered a request that it had admitted.
    pub(super) fn pod_answered(&self, pod: &Pod) {
        if let Some(known) = self.state.lock().pods.get_mut(&pod.uid) {
            known.setbacks = 0;
        }
    }

    pub(crate) fn pod_is_full(&self, pod: &Pod) {
        self.state.lock().hold.set_full(&pod.uid, Instant::now());
        self.kick.notify_one();
    }

    pub(crate) fn pod_reports(&self, pod: &Pod, load: u32) {
        self.state
            .lock()
            .hold
            .report(&pod.uid, load, Instant::now());
        // What was said ages: the conductor must know when, or those who are held would wait for the next event.
        self.kick.notify_one();
    }

    /// A pod hands a request on and says what it has itself, so that it is not the first that comes to mind. It is believed if it
    /// sends from its own address: who can say anything false of a pod is in it.
    pub(crate) fn hears(&self, headers: &HeaderMap, from: IpAddr) {
        let text = |name| headers.get(name)?.to_str().ok();
        let said = text(POD_UID).zip(text(LOAD).and_then(|load| load.parse().ok()));
        let Some((uid, load)) = said else {
            return;
        };
        let mut state = self.state.lock();
        let known = state.pods.get(uid);
        let own = known.map(|known| known.pod.address.ip().to_canonical());
        if own == Some(from.to_canonical()) {
            state.hold.report(uid, load, Instant::now());
            drop(state);
            self.kick.notify_one();
        }
    }

    /// Sends everybody away if there is nothing to wait for.
    pub(super) fn refuse_if_vain(mut state: MutexGuard<'_, State>) {
        let Some(failure) = state.refusal(Instant::now()) else {
            return;
        };
        let refused = state.take_waiters();
        state.timeline = None;
        state.wanted_until = None;
        drop(state);
        refuse_all(refused, &failure);
    }
}
