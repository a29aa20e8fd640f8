//! One workload: who is held for it and which pods it has. The async shell around [`crate::hold`].

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use parking_lot::{Mutex, RwLock};
use shared::{
    Origin, TargetId, clock,
    load::{Count, Gauge, Ring},
    metrics as names,
    stat::HoldStat,
};
use tokio::{
    sync::{Notify, oneshot},
    task::AbortHandle,
    time::Instant,
};

use crate::{
    Config, Endpoints, Failed, Scale, WorkloadConfig,
    hold::{Arrival, Hold, Seq},
    pod::{Milestones, Pod, await_ready},
    rescue::{CODES, Failure},
    timeline::{Timeline, Wake},
};

/// Finished wakes that are remembered, over all workloads.
const WAKES: usize = 256;

/// What all workloads of an activator share.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) config: Config,
    pub(crate) scale: Arc<dyn Scale>,
    pub(crate) held_bytes: AtomicUsize,
    pub(crate) wakes: Mutex<VecDeque<Wake>>,
}

/// One workload. Made by [`crate::Activator::add`].
#[derive(Debug)]
pub struct Workload {
    id: TargetId,
    pub(crate) process: Arc<Process>,
    config: RwLock<WorkloadConfig>,
    state: Mutex<State>,
    ring: Mutex<Ring>,
    held_bytes: AtomicUsize,
    /// Wakes the conductor.
    pub(crate) kick: Notify,
    /// Told whenever a lease ends.
    released: Notify,
    pub(crate) metrics: Metrics,
}

#[derive(Debug)]
struct State {
    hold: Hold,
    waiters: HashMap<Seq, oneshot::Sender<Result<Lease, Failure>>>,
    pods: HashMap<Arc<str>, (Arc<Pod>, AbortHandle)>,
    replicas: u32,
    failed: Option<Failed>,
    timeline: Option<Timeline>,
    removed: bool,
}

/// Metric handles, resolved once.
#[derive(Debug)]
pub(crate) struct Metrics {
    outcomes: Vec<(&'static str, metrics::Counter)>,
    pub(crate) held: metrics::Gauge,
    pub(crate) hold: metrics::Histogram,
    pub(crate) resent: metrics::Counter,
}

/// A place at a pod. Dropping it gives the place to the next.
#[derive(Debug)]
pub(crate) struct Lease {
    workload: Arc<Workload>,
    pub(crate) pod: Arc<Pod>,
    pub(crate) seq: Seq,
}

/// A request that is held. Dropping it gives its place up.
#[derive(Debug)]
pub(crate) struct Held {
    workload: Arc<Workload>,
    seq: Seq,
    granted: oneshot::Receiver<Result<Lease, Failure>>,
}

/// Bytes of one request's body that are in memory, taken from the workload's and the process's budgets.
#[derive(Debug)]
pub(crate) struct Budget {
    workload: Arc<Workload>,
    bytes: usize,
}

/// The outcome of arriving.
#[derive(Debug)]
pub(crate) enum Entered {
    /// There is a pod.
    Leased(Lease),
    /// There will be one.
    Held(Held),
}

impl Workload {
    pub(crate) fn new(config: WorkloadConfig, process: Arc<Process>) -> Arc<Self> {
        let seed = clock::micros().wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Arc::new(Self {
            id: config.target.clone(),
            process,
            state: Mutex::new(State {
                hold: Hold::new(config.container_concurrency, config.max_held, seed),
                waiters: HashMap::new(),
                pods: HashMap::new(),
                replicas: 0,
                failed: None,
                timeline: None,
                removed: false,
            }),
            ring: Mutex::new(Ring::new(clock::micros())),
            held_bytes: AtomicUsize::new(0),
            kick: Notify::new(),
            released: Notify::new(),
            metrics: Metrics::new(&config.target.to_string()),
            config: RwLock::new(config),
        })
    }

    /// The workload's identity.
    pub fn id(&self) -> &TargetId {
        &self.id
    }

    /// Requests held now.
    pub fn held(&self) -> usize {
        self.state.lock().hold.held()
    }

    /// Whether any pod takes requests.
    pub fn any_ready(&self) -> bool {
        self.state.lock().hold.any_ready()
    }

    /// Changed settings, e.g. of annotations. Nobody who is held is sent away.
    pub fn reconfigure(&self, config: WorkloadConfig) {
        self.state
            .lock()
            .hold
            .reconfigure(config.container_concurrency, config.max_held);
        *self.config.write() = config;
        self.kick.notify_one();
    }

    /// From now on the pod gets no new request; returns when the last one it was given has ended.
    pub async fn retire(&self, uid: &str) {
        self.state.lock().hold.retire(uid);
        loop {
            let released = self.released.notified();
            if self.state.lock().hold.ours(uid) == 0 {
                return;
            }
            released.await;
        }
    }

    pub(crate) fn config(&self) -> WorkloadConfig {
        self.config.read().clone()
    }

    pub(crate) fn max_cold_start(&self) -> std::time::Duration {
        self.config.read().max_cold_start
    }

    /// A request arrives.
    pub(crate) fn enter(self: &Arc<Self>) -> Result<Entered, Failure> {
        let now = Instant::now();
        let mut state = self.state.lock();
        if state.removed {
            return Err(Failure::Removed);
        }
        if let Some(failed) = state.failed.as_ref().filter(|f| now < f.retry_at)
            && !state.hold.any_ready()
        {
            return Err(Failure::CannotStart(failed.clone()));
        }
        match state.hold.arrive(now) {
            Arrival::Pod(seq, uid) => Ok(Entered::Leased(self.lease(&state, seq, &uid))),
            Arrival::Full => Err(Failure::HoldFull),
            Arrival::Held(seq) => {
                if state.replicas == 0 && state.timeline.is_none() {
                    state.timeline = Some(Timeline::new(now));
                }
                Ok(Entered::Held(self.wait(&mut state, seq)))
            }
        }
    }

    /// A request that a pod did not admit waits again, in its old place.
    pub(crate) fn hold_again(self: &Arc<Self>, lease: Lease) -> Held {
        let held = {
            let mut state = self.state.lock();
            state.hold.hold_again(lease.seq);
            self.wait(&mut state, lease.seq)
        };
        // Only now: the place it frees must find this request in the queue.
        drop(lease);
        self.metrics.resent.increment(1);
        held
    }

    fn wait(self: &Arc<Self>, state: &mut State, seq: Seq) -> Held {
        let (tx, granted) = oneshot::channel();
        state.waiters.insert(seq, tx);
        let now = clock::micros();
        let mut ring = self.ring.lock();
        ring.count(now, Count::Started);
        ring.enter(now, Gauge::Waiting);
        drop(ring);
        self.kick.notify_one();
        Held {
            workload: Arc::clone(self),
            seq,
            granted,
        }
    }

    fn lease(self: &Arc<Self>, state: &State, seq: Seq, uid: &Arc<str>) -> Lease {
        let pod = match state.pods.get(uid) {
            Some((pod, _)) => Arc::clone(pod),
            None => unreachable!("a pod that takes requests is known"),
        };
        Lease {
            workload: Arc::clone(self),
            pod,
            seq,
        }
    }

    /// Gives pods to as many held requests as there is room for.
    pub(crate) fn dispatch(self: &Arc<Self>) {
        loop {
            let (waiter, lease) = {
                let mut state = self.state.lock();
                let Some((seq, uid)) = state.hold.next(Instant::now()) else {
                    return;
                };
                (state.waiters.remove(&seq), self.lease(&state, seq, &uid))
            };
            // Outside of the lock: if the waiter is just giving up, the lease comes back and is dropped here.
            if let Some(waiter) = waiter {
                let _returned = waiter.send(Ok(lease));
            }
        }
    }

    /// Takes note of what pods there are. Pods that are new are asked until they are ready.
    pub(crate) fn apply(self: &Arc<Self>, endpoints: &Endpoints) {
        let now = Instant::now();
        let mut refused = Vec::new();
        {
            let mut guard = self.state.lock();
            let state = &mut *guard;
            state.replicas = endpoints.replicas;
            let pods: Vec<_> = endpoints
                .pods
                .iter()
                .map(|p| (Arc::clone(&p.uid), p.terminating))
                .collect();
            let new = state.hold.set_pods(&pods);
            state.pods.retain(|uid, (pod, task)| {
                let stays = pods.iter().any(|(known, _)| known == uid);
                if !stays {
                    task.abort();
                    pod.client.close();
                }
                stays
            });
            for endpoint in endpoints.pods.iter().filter(|p| new.contains(&p.uid)) {
                let uid = Arc::clone(&endpoint.uid);
                let pod = Pod::new(
                    Arc::clone(&uid),
                    endpoint.address,
                    self.process.config.client,
                );
                let task = tokio::spawn(await_ready(Arc::downgrade(self), Arc::clone(&pod)))
                    .abort_handle();
                state.pods.insert(uid, (pod, task));
                if let Some(timeline) = &mut state.timeline
                    && timeline.pod_seen.is_none()
                {
                    timeline.pod_seen = Some(now);
                    timeline.pod_created = endpoint.created;
                }
            }
            state.failed.clone_from(&endpoints.failed);
            if let Some(failed) = state.failed.clone().filter(|f| now < f.retry_at)
                && !state.hold.any_ready()
            {
                refused = take_waiters(state, &Failure::CannotStart(failed));
                state.timeline = None;
            }
        }
        send(refused);
    }

    /// The pod's model is ready.
    pub(crate) fn pod_is_ready(self: &Arc<Self>, uid: &str, milestones: Milestones) {
        {
            let mut state = self.state.lock();
            state.hold.set_ready(uid, true, Instant::now());
            if let Some(timeline) = &mut state.timeline
                && timeline.model_ready.is_none()
            {
                timeline.port_open = milestones.port_open;
                timeline.model_ready = Some(milestones.model_ready);
            }
        }
        self.dispatch();
        self.kick.notify_one();
    }

    /// The pod was found not to take requests: it gets none until its queue-proxy says that its model is ready again.
    pub(crate) fn pod_is_unready(self: &Arc<Self>, pod: &Arc<Pod>) {
        let mut state = self.state.lock();
        state.hold.set_ready(&pod.uid, false, Instant::now());
        if let Some((_, task)) = state.pods.get_mut(&pod.uid)
            && task.is_finished()
        {
            *task = tokio::spawn(await_ready(Arc::downgrade(self), Arc::clone(pod))).abort_handle();
        }
        drop(state);
        self.kick.notify_one();
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
    }

    /// Whether somebody waits and there is nothing to wait for: the workload must be woken.
    pub(crate) fn needs_wake(&self) -> bool {
        let state = self.state.lock();
        state.replicas == 0 && state.hold.held() > 0 && !state.removed
    }

    /// When to dispatch again although nothing has happened.
    pub(crate) fn next_wakeup(&self) -> Option<Instant> {
        let now = Instant::now();
        let state = self.state.lock();
        let retry = state
            .failed
            .as_ref()
            .map(|f| f.retry_at)
            .filter(|at| *at > now);
        [state.hold.next_wakeup(now), retry]
            .into_iter()
            .flatten()
            .min()
    }

    /// Changes the timeline of the present cold start, if there is one.
    pub(crate) fn mark(&self, change: impl FnOnce(&mut Timeline)) {
        if let Some(timeline) = &mut self.state.lock().timeline {
            change(timeline);
        }
    }

    /// The first answer after a cold start: ends the timeline and returns it.
    pub(crate) fn end_timeline(&self, forwarded: Instant, first_byte: Instant) -> Option<Timeline> {
        let mut timeline = {
            let mut state = self.state.lock();
            // A request that was answered by a pod that was there before says nothing of this start.
            state.timeline.as_ref()?.model_ready?;
            state.timeline.take()?
        };
        timeline.forwarded = Some(forwarded);
        timeline.first_byte = Some(first_byte);
        let mut wakes = self.process.wakes.lock();
        if wakes.len() >= WAKES {
            wakes.pop_front();
        }
        wakes.push_back(timeline.wake(&self.id.to_string()));
        Some(timeline)
    }

    /// Ends everything: nobody is held any more, no pod is known.
    pub(crate) fn remove(&self) {
        let refused = {
            let mut guard = self.state.lock();
            let state = &mut *guard;
            state.removed = true;
            for (pod, task) in state.pods.values() {
                task.abort();
                pod.client.close();
            }
            take_waiters(state, &Failure::Removed)
        };
        send(refused);
    }

    /// Statistics with the seconds after `since`; `None` if there is nothing to say.
    pub(crate) fn stat(&self, since: Option<u64>) -> HoldStat {
        HoldStat {
            target: self.id.to_string(),
            held: self.held() as u64,
            seconds: self.ring.lock().seconds_after(clock::micros(), since),
        }
    }

    /// Takes `bytes` of the workload's and the process's budgets; gives them back when that is too much.
    fn take_bytes(&self, bytes: usize) -> bool {
        let ours = self.held_bytes.fetch_add(bytes, Relaxed) + bytes;
        let all = self.process.held_bytes.fetch_add(bytes, Relaxed) + bytes;
        let fits =
            ours <= self.config.read().max_held_bytes && all <= self.process.config.max_held_bytes;
        if !fits {
            self.give_bytes(bytes);
        }
        fits
    }

    fn give_bytes(&self, bytes: usize) {
        self.held_bytes.fetch_sub(bytes, Relaxed);
        self.process.held_bytes.fetch_sub(bytes, Relaxed);
    }
}

/// Takes everybody who waits out of the queue, to be told `failure`.
fn take_waiters(
    state: &mut State,
    failure: &Failure,
) -> Vec<(oneshot::Sender<Result<Lease, Failure>>, Failure)> {
    let waiters: Vec<_> = state.waiters.drain().collect();
    waiters
        .into_iter()
        .map(|(seq, waiter)| {
            state.hold.cancel(seq);
            (waiter, failure.clone())
        })
        .collect()
}

fn send(refused: Vec<(oneshot::Sender<Result<Lease, Failure>>, Failure)>) {
    for (waiter, failure) in refused {
        let _gone = waiter.send(Err(failure));
    }
}

impl Held {
    /// The pod, or why there is none.
    ///
    /// # Cancel safety
    /// Cancel safe: call it again, or drop the [`Held`] to give up.
    pub(crate) async fn granted(&mut self) -> Result<Lease, Failure> {
        (&mut self.granted).await.unwrap_or(Err(Failure::Removed))
    }
}

impl Budget {
    /// Nothing is taken yet.
    pub(crate) fn new(workload: &Arc<Workload>) -> Self {
        Self {
            workload: Arc::clone(workload),
            bytes: 0,
        }
    }

    /// Accounts for `bytes` in memory, all in all.
    ///
    /// # Errors
    /// When that is more than may be held.
    pub(crate) fn account(&mut self, bytes: usize) -> Result<(), Failure> {
        let more = bytes.saturating_sub(self.bytes);
        if more > 0 {
            if !self.workload.take_bytes(more) {
                return Err(Failure::HoldBytes);
            }
            self.bytes = bytes;
        }
        Ok(())
    }
}

impl Drop for Budget {
    fn drop(&mut self) {
        self.workload.give_bytes(self.bytes);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        {
            let mut state = self.workload.state.lock();
            if state.hold.cancel(self.seq) {
                state.waiters.remove(&self.seq);
            }
            // Otherwise a pod was given already; dropping the receiver drops the lease, or the caller has it.
        }
        let now = clock::micros();
        let mut ring = self.workload.ring.lock();
        ring.leave(now, Gauge::Waiting);
        ring.count(now, Count::Released);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.workload.state.lock().hold.release(&self.pod.uid);
        self.workload.released.notify_waiters();
        self.workload.dispatch();
    }
}

impl Metrics {
    fn new(target: &str) -> Self {
        let classes = ["1xx", "2xx", "3xx", "4xx", "5xx"].map(|class| (class, Origin::Upstream));
        let outcomes = classes
            .into_iter()
            .chain(CODES)
            .chain([("client-gone", Origin::Client)])
            .map(|(code, origin)| {
                (
                    code,
                    names::ACTIVATOR_REQUESTS.counter(&[target, code, origin.as_str()]),
                )
            })
            .collect();
        Self {
            outcomes,
            held: names::ACTIVATOR_HELD.gauge(&[target]),
            hold: names::ACTIVATOR_HOLD.histogram(&[target]),
            resent: names::ACTIVATOR_RESENT.counter(&[target]),
        }
    }

    pub(crate) fn count(&self, outcome: &str) {
        if let Some((_, counter)) = self.outcomes.iter().find(|(code, _)| *code == outcome) {
            counter.increment(1);
        }
    }
}
