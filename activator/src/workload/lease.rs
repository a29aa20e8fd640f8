//! What a request has of a workload while it is on its way: a place in the queue, a place at a pod, bytes in memory. All
//! of them are given back by dropping.

use std::sync::Arc;

use shared::{
    clock,
    load::{Count, Gauge},
    share::Place,
};

use super::Workload;
use crate::{hold::Seq, pod::Pod, rescue::Failure, sync::oneshot};

/// A place at a pod. Dropping it gives the place to the next.
#[derive(Debug)]
pub(crate) struct Lease {
    workload: Arc<Workload>,
    pub(crate) pod: Arc<Pod>,
    pub(super) seq: Seq,
    answered: bool,
}

/// A request that is held. Dropping it gives its place up.
#[derive(Debug)]
pub(crate) struct Held {
    workload: Arc<Workload>,
    seq: Seq,
    granted: oneshot::Receiver<Result<Lease, Failure>>,
    /// Among all that the activator holds.
    _place: Place,
}

/// Bytes of one request's body that are in memory, taken from the workload's and the process's budgets.
#[derive(Debug)]
pub(crate) struct Budget {
    workload: Arc<Workload>,
    /// In memory.
    bytes: usize,
    /// Those of them that were taken from the budgets.
    taken: usize,
}

impl Lease {
    pub(super) fn new(workload: Arc<Workload>, pod: Arc<Pod>, seq: Seq) -> Self {
        Self {
            workload,
            pod,
            seq,
            answered: false,
        }
    }

    /// The pod has admitted and answered the request: the end of this lease means room there.
    pub(crate) fn answered(&mut self) {
        self.answered = true;
        self.workload.pod_answered(&self.pod);
    }
}

impl Held {
    pub(super) fn new(
        workload: Arc<Workload>,
        seq: Seq,
        granted: oneshot::Receiver<Result<Lease, Failure>>,
        place: Place,
    ) -> Self {
        Self {
            workload,
            seq,
            granted,
            _place: place,
        }
    }

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
            taken: 0,
        }
    }

    /// Whether more may be read into memory.
    pub(crate) fn has_room(&self) -> bool {
        self.workload.has_bytes()
    }

    /// So many bytes are in memory, all in all. False if they are more than the budgets allow.
    pub(crate) fn account(&mut self, bytes: usize) -> bool {
        self.bytes = bytes;
        self.fits()
    }

    /// Takes what is in memory and was not taken yet. False if that is more than the budgets allow.
    pub(crate) fn fits(&mut self) -> bool {
        let more = self.bytes.saturating_sub(self.taken);
        let fits = more == 0 || self.workload.take_bytes(more);
        if fits {
            self.taken = self.taken.max(self.bytes);
        }
        fits
    }

    /// The body is on its way to a pod and not kept here any more.
    pub(crate) fn give_back(&mut self) {
        self.workload.give_bytes(std::mem::take(&mut self.taken));
    }
}

impl Drop for Budget {
    fn drop(&mut self) {
        self.give_back();
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
        {
            let hold = &mut self.workload.state.lock().hold;
            if self.answered {
                hold.release(&self.pod.uid);
            } else {
                hold.give_back(&self.pod.uid);
            }
        }
        self.workload.released.notify_waiters();
        self.workload.dispatch();
    }
}
