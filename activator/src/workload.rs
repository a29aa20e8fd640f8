//! One workload: who is held for it and which pods it has. The async shell around [`crate::hold`].

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use autoscaler_core::OptIns;
use parking_lot::RwLock;
use shared::{
    TargetId, clock,
    load::{Count, Gauge, Ring},
    share::{Place, Pool, Share},
};
use tokio::{sync::Notify, time::Instant};

pub(crate) use self::{
    demand::REFRESH,
    lease::{Budget, Held, Lease},
};
use self::{metrics::Metrics, pods::Known};
use crate::{
    Access, Barred, Config, Failed, Scale, WorkloadConfig,
    hold::{Arrival, Hold, Seq},
    rescue::Failure,
    sync::{Mutex, oneshot},
    timeline::{Timeline, Wake},
};

mod account;
mod demand;
mod lease;
mod metrics;
#[cfg(test)]
mod orders;
mod pods;

/// What all workloads of an activator share.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) config: Config,
    pub(crate) scale: Arc<dyn Scale>,
    pub(crate) held_bytes: AtomicUsize,
    /// Places of requests that are held.
    pub(crate) held: Arc<Pool>,
    /// Places of client connections.
    pub(crate) connections: Arc<Pool>,
    pub(crate) wakes: Mutex<VecDeque<Wake>>,
    /// Set once the activator is being stopped.
    pub(crate) stopping: AtomicBool,
    /// Set while it should get no new clients yet.
    pub(crate) unready: AtomicBool,
    /// Set once it should get none any more.
    pub(crate) leaving: AtomicBool,
}

impl Process {
    pub(crate) fn new(config: Config, scale: Arc<dyn Scale>) -> Arc<Self> {
        Arc::new(Self {
            held_bytes: AtomicUsize::new(0),
            held: Pool::new(config.max_held),
            connections: Pool::new(config.max_connections),
            wakes: Mutex::new(VecDeque::new()),
            stopping: AtomicBool::new(false),
            unready: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            config,
            scale,
        })
    }
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
    /// Its shares of what all workloads have in common.
    held_places: Arc<Share>,
    pub(crate) connections: Arc<Share>,
    turned_away: AtomicU64,
    /// Wakes the conductor.
    pub(crate) kick: Notify,
    /// Told whenever a lease ends.
    released: Notify,
    pub(crate) metrics: Metrics,
}

/// The other end of a [`Held`].
type Waiter = oneshot::Sender<Result<Lease, Failure>>;

#[derive(Debug)]
struct State {
    hold: Hold,
    waiters: HashMap<Seq, Waiter>,
    pods: HashMap<Arc<str>, Known>,
    replicas: u32,
    failed: Option<Failed>,
    barred: Option<Barred>,
    timeline: Option<Timeline>,
    /// Until then it is as if one request more were held, see [`demand`].
    wanted_until: Option<Instant>,
    removed: bool,
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
            held_places: process.held.share(),
            connections: process.connections.share(),
            process,
            state: Mutex::new(State {
                hold: Hold::new(config.container_concurrency, config.max_held, seed),
                waiters: HashMap::new(),
                pods: HashMap::new(),
                replicas: 0,
                failed: None,
                barred: None,
                timeline: None,
                wanted_until: None,
                removed: false,
            }),
            ring: Mutex::new(Ring::new(clock::micros())),
            held_bytes: AtomicUsize::new(0),
            turned_away: AtomicU64::new(0),
            kick: Notify::new(),
            released: Notify::new(),
            metrics: Metrics::new(&config.target),
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

    /// Requests that were refused on arrival so far since the workload cannot start: somebody would like it to.
    pub fn turned_away(&self) -> u64 {
        self.turned_away.load(Relaxed)
    }

    /// Whether any pod takes requests.
    pub fn any_ready(&self) -> bool {
        self.state.lock().hold.any_ready()
    }

    /// Whether there is such a workload, and no pod of it takes requests.
    pub(crate) fn is_without_pod(&self) -> bool {
        let state = self.state.lock();
        let is_there = !state.removed && state.barred != Some(Barred::Absent);
        is_there && !state.hold.any_ready()
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

    /// While it is barred and has no pod that takes requests, nobody is held and it is not woken.
    pub fn bar(&self, barred: Option<Barred>) {
        let mut state = self.state.lock();
        if state.barred != barred {
            state.barred = barred;
            Self::refuse_if_vain(state);
        }
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

    pub(crate) fn opt_ins(&self) -> Option<Arc<OptIns>> {
        self.config.read().opt_ins.clone()
    }

    pub(crate) fn access(&self) -> Option<Arc<Access>> {
        self.config.read().access.clone()
    }

    /// A request arrives.
    pub(crate) fn enter(self: &Arc<Self>) -> Result<Entered, Failure> {
        let now = Instant::now();
        let mut state = self.state.lock();
        self.let_in(&state, now)?;
        match state.hold.arrive(now) {
            Arrival::Pod(seq, uid) => Ok(Entered::Leased(self.lease(&state, seq, &uid))),
            Arrival::Full => Err(Failure::HoldFull),
            Arrival::Held(seq) => {
                let Some(place) = self.held_places.take() else {
                    state.hold.cancel(seq);
                    return Err(Failure::HoldsFull);
                };
                // A timeline whose requests have all gone tells of an earlier start, or of one that nobody saw the end of.
                if state.replicas == 0 && (state.timeline.is_none() || state.hold.held() == 1) {
                    state.timeline = Some(Timeline::new(now));
                }
                Ok(Entered::Held(self.wait(&mut state, seq, place)))
            }
        }
    }

    /// Whether anybody may wait for it now. Those who may not because it cannot start are counted.
    fn let_in(&self, state: &State, now: Instant) -> Result<(), Failure> {
        let Some(failure) = state.refusal(now) else {
            return Ok(());
        };
        if matches!(failure, Failure::CannotStart(_)) {
            self.turned_away.fetch_add(1, Relaxed);
        }
        Err(failure)
    }

    /// A request that a pod did not admit waits again, in its old place.
    ///
    /// # Errors
    /// When there is nothing to wait for any more.
    pub(crate) fn hold_again(self: &Arc<Self>, lease: Lease) -> Result<Held, Failure> {
        let held = {
            let mut state = self.state.lock();
            if let Some(failure) = state.refusal(Instant::now()) {
                Err(failure)
            } else {
                state.hold.hold_again(lease.seq);
                // Whoever was let in is not sent away for want of room.
                let place = self.held_places.take_anyway();
                Ok(self.wait(&mut state, lease.seq, place))
            }
        };
        // Only now: the place it frees must find this request in the queue.
        drop(lease);
        self.metrics.resent(&self.id);
        held
    }

    fn wait(self: &Arc<Self>, state: &mut State, seq: Seq, place: Place) -> Held {
        let (tx, granted) = oneshot::channel();
        state.waiters.insert(seq, tx);
        let now = clock::micros();
        let mut ring = self.ring.lock();
        ring.count(now, Count::Started);
        ring.enter(now, Gauge::Waiting);
        drop(ring);
        self.kick.notify_one();
        Held::new(Arc::clone(self), seq, granted, place)
    }

    fn lease(self: &Arc<Self>, state: &State, seq: Seq, uid: &Arc<str>) -> Lease {
        match state.pods.get(uid) {
            Some(known) => Lease::new(Arc::clone(self), Arc::clone(&known.pod), seq),
            None => unreachable!("a pod that takes requests is known"),
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

    /// Whether somebody waits and there is nothing to wait for: the workload must be woken.
    pub(crate) fn needs_wake(&self) -> bool {
        let state = self.state.lock();
        let wanted = state.hold.held() > 0 || state.is_wanted(Instant::now());
        state.replicas == 0 && wanted && !state.removed
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

    /// Ends everything: nobody is held any more, no pod is known.
    pub(crate) fn remove(&self) {
        let refused = {
            let mut guard = self.state.lock();
            let state = &mut *guard;
            state.removed = true;
            state.pods.values().for_each(Known::let_go);
            state.take_waiters()
        };
        refuse_all(refused, &Failure::Removed);
    }
}

impl State {
    /// Why nobody may be held now, if that is so.
    fn refusal(&self, now: Instant) -> Option<Failure> {
        if self.removed {
            return Some(Failure::Removed);
        }
        if self.hold.any_ready() {
            return None;
        }
        match self.barred {
            Some(Barred::Paused) => return Some(Failure::Paused),
            Some(Barred::Absent) => return Some(Failure::Removed),
            None => {}
        }
        let failed = self.failed.as_ref().filter(|f| now < f.retry_at)?;
        Some(Failure::CannotStart(failed.clone()))
    }

    /// Whether somebody who is not held will come back soon.
    fn is_wanted(&self, now: Instant) -> bool {
        self.wanted_until.is_some_and(|until| now < until)
    }

    /// Takes everybody who waits out of the queue.
    fn take_waiters(&mut self) -> Vec<Waiter> {
        let waiters: Vec<_> = self.waiters.drain().collect();
        let hold = &mut self.hold;
        waiters
            .into_iter()
            .map(|(seq, waiter)| {
                hold.cancel(seq);
                waiter
            })
            .collect()
    }
}

/// Tells everybody who waited why it was in vain. Not under the lock.
fn refuse_all(waiters: Vec<Waiter>, failure: &Failure) {
    for waiter in waiters {
        let _gone = waiter.send(Err(failure.clone()));
    }
}
