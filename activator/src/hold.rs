//! Who is held and which pod takes whom. Pure: every call takes `now`, nothing here waits or sends.
//!
//! Requests are handed out in the order of their arrival, also those that a pod refused: they keep their number. Each
//! pod gets at most what it can take: its container concurrency, or, if that is unlimited, a ramp in its first second,
//! so that a backlog does not drown the first pod (knative/serving#9888). What holds under any sequence of calls:
//! `tests/it/operations.rs`.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use tokio::time::Instant;

use self::pod::{FULL_PAUSE, Pod, RAMP_END, RAMP_STEP, REPORT_LIFE};

mod picker;
mod pod;

/// Retired pods that are remembered although no list has named them yet.
const MAX_RETIRED: usize = 64;

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

/// The requests held for one workload, and its pods.
#[derive(Debug)]
pub struct Hold {
    container_concurrency: u32,
    max_held: usize,
    next_seq: Seq,
    queue: BTreeSet<Seq>,
    pods: Vec<Pod>,
    /// Pods that were retired before a list named them, oldest first.
    retired: VecDeque<Arc<str>>,
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
            retired: VecDeque::new(),
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
                let retired = self.retired.iter().position(|known| known == uid);
                if let Some(at) = retired {
                    self.retired.remove(at);
                }
                self.pods.push(Pod {
                    uid: Arc::clone(uid),
                    ready_since: None,
                    terminating: *terminating || retired.is_some(),
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

    /// From now on the pod takes no new request. It stays known until it leaves [`Hold::set_pods`]. One that is not known
    /// yet is remembered, since the list that names it may be on its way.
    pub fn retire(&mut self, uid: &str) {
        if let Some(pod) = self.pod(uid) {
            pod.terminating = true;
        } else if !self.retired.iter().any(|known| **known == *uid) {
            if self.retired.len() >= MAX_RETIRED {
                self.retired.pop_front();
            }
            self.retired.push_back(uid.into());
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

#[cfg(test)]
mod tests;
