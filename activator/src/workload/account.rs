//! What a workload tells of itself, and what it may take: statistics, wakes, bytes.

use std::sync::atomic::Ordering::Relaxed;

use shared::stat::HoldStat;
use tokio::time::Instant;

use super::Workload;
use crate::timeline::Timeline;

/// Finished wakes that are remembered, over all workloads.
const WAKES: usize = 256;

impl Workload {
    /// Changes the timeline of the present cold start, if there is one.
    pub(crate) fn mark(&self, change: impl FnOnce(&mut Timeline)) {
        if let Some(timeline) = &mut self.state.lock().timeline {
            change(timeline);
        }
    }

    /// The first answer after a cold start: ends the timeline and returns it.
    pub(crate) fn end_timeline(
        &self,
        arrived: Instant,
        forwarded: Instant,
        first_byte: Instant,
    ) -> Option<Timeline> {
        let mut timeline = {
            let mut state = self.state.lock();
            // A request that was answered by a pod that was there before says nothing of this start, nor does one that
            // came when it was over.
            let ready = state.timeline.as_ref()?.ready_seen?;
            if arrived > ready {
                return None;
            }
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

    /// Requests that a pod of it has, or is being given.
    pub(crate) fn leased(&self) -> usize {
        self.state.lock().hold.leased()
    }

    /// Statistics at `now_us`, with the seconds after `since`; none if nothing is held and nothing happened in them.
    pub(crate) fn stat(&self, now_us: u64, since: Option<u64>) -> Option<HoldStat> {
        let held = self.told_as_held();
        let seconds = self.ring.lock().seconds_after(now_us, since);
        let eventful = held > 0 || seconds.iter().any(|second| !second.is_empty());
        eventful.then(|| HoldStat {
            target: self.id.to_string(),
            held,
            seconds,
        })
    }

    /// Whether any of both budgets is left.
    pub(super) fn has_bytes(&self) -> bool {
        self.held_bytes.load(Relaxed) < self.config.read().max_held_bytes
            && self.process.held_bytes.load(Relaxed) < self.process.config.max_held_bytes
    }

    /// Takes `bytes` of the workload's and the process's budgets; gives them back when that is too much.
    pub(super) fn take_bytes(&self, bytes: usize) -> bool {
        let ours = self.held_bytes.fetch_add(bytes, Relaxed) + bytes;
        let all = self.process.held_bytes.fetch_add(bytes, Relaxed) + bytes;
        let fits =
            ours <= self.config.read().max_held_bytes && all <= self.process.config.max_held_bytes;
        if !fits {
            self.give_bytes(bytes);
        }
        fits
    }

    pub(super) fn give_bytes(&self, bytes: usize) {
        self.held_bytes.fetch_sub(bytes, Relaxed);
        self.process.held_bytes.fetch_sub(bytes, Relaxed);
    }
}
