//! Who is held and which pod takes whom. Pure: every call takes `now`, nothing here waits or sends.
//!
//! Requests are handed out in the order of their arrival, also those that a pod refused: they keep their number. Each
//! pod gets at most what it can take: its container concurrency, or, if that is unlimited, a ramp in its first second,
//! so that a backlog does not drown the first pod (knative/serving#9888).

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::time::Instant;

mod picker;

/// How long what a pod said of its load is believed.
const REPORT_LIFE: Duration = Duration::from_secs(1);
/// How long a pod that said it is full gets nothing, unless a request of ours ends there before.
const FULL_PAUSE: Duration = Duration::from_millis(50);
/// Requests that an unlimited pod gets at the moment it is ready; doubled every [`RAMP_STEP`].
const RAMP_START: u32 = 16;
const RAMP_STEP: Duration = Duration::from_millis(100);
/// From here on an unlimited pod is unlimited.
const RAMP_END: Duration = Duration::from_secs(1);

/// A request's number: its place in the order of arrival.
pub type Seq = u64;

/// What becomes of a request that arrives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It goes to this pod.
    Pod(Seq, Arc<str>),
    /// It is held.
    Held(Seq),
    /// As many as may be are held already.
    Full,
}

/// What is known of one pod.
#[derive(Clone, Debug)]
struct Pod {
    uid: Arc<str>,
    ready_since: Option<Instant>,
    terminating: bool,
    /// Not in the last list; kept until its last request has ended.
    gone: bool,
    /// Requests of this activator at the pod.
    ours: u32,
    /// Requests of others there, and when it was said.
    others: (u32, Option<Instant>),
    full_until: Option<Instant>,
    /// Answers since it was ready: they open the ramp faster.
    completed: u32,
}

/// The requests held for one workload, and its pods.
#[derive(Debug)]
pub struct Hold {
    container_concurrency: u32,
    max_held: usize,
    next_seq: Seq,
    queue: BTreeSet<Seq>,
    pods: Vec<Pod>,
    /// Changes with every pick, for the random choice: a xorshift state, never zero.
    random: u64,
}

impl Hold {
    /// Nothing held, no pods. `container_concurrency` 0 means unlimited.
    pub fn new(container_concurrency: u32, max_held: usize, seed: u64) -> Self {
        Self {
            container_concurrency,
            max_held,
            next_seq: 0,
            queue: BTreeSet::new(),
            pods: Vec::new(),
            random: seed | 1,
        }
    }

    /// Changed settings. Nobody who is held already is sent away.
    pub fn reconfigure(&mut self, container_concurrency: u32, max_held: usize) {
        self.container_concurrency = container_concurrency;
        self.max_held = max_held;
    }

    /// Requests held.
    pub fn held(&self) -> usize {
        self.queue.len()
    }

    /// Whether any pod takes requests.
    pub fn any_ready(&self) -> bool {
        self.pods
            .iter()
            .any(|pod| pod.ready_since.is_some() && pod.may_take())
    }

    /// A request arrives.
    pub fn arrive(&mut self, now: Instant) -> Arrival {
        let seq = self.next_seq;
        if self.queue.is_empty()
            && let Some(uid) = self.take_pod(now)
        {
            self.next_seq += 1;
            return Arrival::Pod(seq, uid);
        }
        if self.queue.len() >= self.max_held {
            return Arrival::Full;
        }
        self.next_seq += 1;
        self.queue.insert(seq);
        Arrival::Held(seq)
    }

    /// A request that a pod has not admitted waits again, in its old place. It is never refused for want of room: it
    /// was accepted already.
    pub fn hold_again(&mut self, seq: Seq) {
        self.queue.insert(seq);
    }

    /// A held request gives up. False if it is not held.
    pub fn cancel(&mut self, seq: Seq) -> bool {
        self.queue.remove(&seq)
    }

    /// The next held request and the pod that takes it, if there is such a pair.
    pub fn next(&mut self, now: Instant) -> Option<(Seq, Arc<str>)> {
        let first = *self.queue.first()?;
        let uid = self.take_pod(now)?;
        self.queue.remove(&first);
        Some((first, uid))
    }

    /// A request of ours was answered by a pod and has ended: there is room for the next.
    pub fn release(&mut self, uid: &str) {
        self.give_back(uid);
        if let Some(pod) = self.pod(uid) {
            pod.completed = pod.completed.saturating_add(1);
            pod.full_until = None;
        }
    }

    /// A place at a pod that did not lead to an answer is free again. That says nothing of the pod's room: one that is
    /// full stays so.
    pub fn give_back(&mut self, uid: &str) {
        if let Some(pod) = self.pod(uid) {
            debug_assert!(pod.ours > 0, "released more than was taken");
            pod.ours = pod.ours.saturating_sub(1);
        }
    }

    /// Requests of ours at a pod; 0 for an unknown one.
    pub fn ours(&self, uid: &str) -> u32 {
        self.pods
            .iter()
            .find(|pod| &*pod.uid == uid)
            .map_or(0, |pod| pod.ours)
    }

    /// Requests of ours at all pods.
    pub fn leased(&self) -> usize {
        self.pods.iter().map(|pod| pod.ours as usize).sum()
    }

    /// What pods there are: (uid, terminating). Returns those that are new or came back, which are not ready yet. A pod
    /// that is gone keeps its count until its last request has ended, so that its end is seen.
    pub fn set_pods(&mut self, pods: &[(Arc<str>, bool)]) -> Vec<Arc<str>> {
        let mut new = Vec::new();
        for pod in &mut self.pods {
            let listed = pods.iter().find(|(uid, _)| *uid == pod.uid);
            pod.terminating |= listed.is_some_and(|(_, terminating)| *terminating);
            if listed.is_some() && pod.gone {
                pod.ready_since = None;
                new.push(Arc::clone(&pod.uid));
            }
            pod.gone = listed.is_none();
        }
        self.pods.retain(|pod| pod.ours > 0 || !pod.gone);
        for (uid, terminating) in pods {
            if !self.pods.iter().any(|pod| pod.uid == *uid) {
                self.pods.push(Pod {
                    uid: Arc::clone(uid),
                    ready_since: None,
                    terminating: *terminating,
                    gone: false,
                    ours: 0,
                    others: (0, None),
                    full_until: None,
                    completed: 0,
                });
                new.push(Arc::clone(uid));
            }
        }
        new
    }

    /// From now on the pod takes no new request. It stays known until it leaves [`Hold::set_pods`].
    pub fn retire(&mut self, uid: &str) {
        if let Some(pod) = self.pod(uid) {
            pod.terminating = true;
        }
    }

    /// The pod's model is ready, or was found not to be.
    pub fn set_ready(&mut self, uid: &str, ready: bool, now: Instant) {
        if let Some(pod) = self.pod(uid) {
            match (ready, pod.ready_since) {
                (true, None) => {
                    pod.ready_since = Some(now);
                    pod.completed = 0;
                    pod.full_until = None;
                }
                (false, _) => pod.ready_since = None,
                (true, Some(_)) => {}
            }
        }
    }

    /// The pod said it is full.
    pub fn set_full(&mut self, uid: &str, now: Instant) {
        if let Some(pod) = self.pod(uid) {
            pod.full_until = Some(now + FULL_PAUSE);
        }
    }

    /// The pod said how many requests it has in all.
    pub fn report(&mut self, uid: &str, load: u32, now: Instant) {
        if let Some(pod) = self.pod(uid) {
            pod.others = (load.saturating_sub(pod.ours), Some(now));
        }
    }

    /// When to call [`Hold::next`] again although nothing has happened: a ramp opens, a full pod may have room, a report
    /// has aged. Calling it more often is harmless.
    pub fn next_wakeup(&self, now: Instant) -> Option<Instant> {
        if self.queue.is_empty() {
            return None;
        }
        self.pods
            .iter()
            .filter(|pod| pod.may_take())
            .filter_map(|pod| {
                let ready_since = pod.ready_since?;
                let full = pod.full_until.filter(|at| *at > now);
                let ramp = (self.container_concurrency == 0 && now < ready_since + RAMP_END)
                    .then(|| now + RAMP_STEP / 4);
                let aged = pod
                    .others
                    .1
                    .map(|at| at + REPORT_LIFE)
                    .filter(|at| pod.others.0 > 0 && *at > now);
                [full, ramp, aged].into_iter().flatten().min()
            })
            .min()
    }

    fn pod(&mut self, uid: &str) -> Option<&mut Pod> {
        self.pods.iter_mut().find(|pod| &*pod.uid == uid)
    }

    /// Chooses a pod with room and takes one place there.
    fn take_pod(&mut self, now: Instant) -> Option<Arc<str>> {
        let limit = self.container_concurrency;
        let candidates = self.pods.iter().enumerate().filter_map(|(at, pod)| {
            let load = pod.room(limit, now)?;
            Some((at, load))
        });
        let at = if limit == 0 {
            let candidates: Vec<_> = candidates.collect();
            picker::best_of_two(&candidates, &mut self.random)
        } else {
            picker::least_loaded(candidates, &mut self.random)
        }?;
        let pod = &mut self.pods[at];
        pod.ours += 1;
        Some(Arc::clone(&pod.uid))
    }
}

impl Pod {
    /// Whether it is here to stay.
    fn may_take(&self) -> bool {
        !self.terminating && !self.gone
    }

    /// The pod's load, if it has room for one more.
    fn room(&self, container_concurrency: u32, now: Instant) -> Option<u32> {
        let ready_since = self.ready_since?;
        if !self.may_take() || self.full_until.is_some_and(|until| now < until) {
            return None;
        }
        let others = match self.others {
            (load, Some(at)) if now.saturating_duration_since(at) < REPORT_LIFE => load,
            _ => 0,
        };
        let load = self.ours.saturating_add(others);
        let limit = match container_concurrency {
            0 => self.ramp(now.saturating_duration_since(ready_since)),
            limit => limit,
        };
        (load < limit).then_some(load)
    }

    /// How many requests an unlimited pod gets `age` after it was ready.
    fn ramp(&self, age: Duration) -> u32 {
        if age >= RAMP_END {
            return u32::MAX;
        }
        let doublings = u32::try_from(age.as_millis() / RAMP_STEP.as_millis()).unwrap_or(0);
        (RAMP_START << doublings.min(16)).saturating_add(self.completed.saturating_mul(2))
    }
}

#[cfg(test)]
mod tests;
