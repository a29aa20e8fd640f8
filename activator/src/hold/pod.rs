//! One pod, as far as it matters to who gets the next request.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

/// How long what a pod said of its load is believed.
pub(super) const REPORT_LIFE: Duration = Duration::from_secs(1);
/// How long a pod that said it is full gets nothing, unless a request of ours ends there before.
pub(super) const FULL_PAUSE: Duration = Duration::from_millis(50);
/// Requests that an unlimited pod gets at the moment it is ready; doubled every [`RAMP_STEP`].
pub(super) const RAMP_START: u32 = 16;
pub(super) const RAMP_STEP: Duration = Duration::from_millis(100);
/// From here on an unlimited pod is unlimited.
pub(super) const RAMP_END: Duration = Duration::from_secs(1);

/// What is known of one pod.
#[derive(Clone, Debug)]
pub(super) struct Pod {
    pub(super) uid: Arc<str>,
    pub(super) ready_since: Option<Instant>,
    pub(super) terminating: bool,
    /// Not in the last list; kept until its last request has ended.
    pub(super) gone: bool,
    /// Requests of this activator at the pod.
    pub(super) ours: u32,
    /// Requests of others there, and when it was said.
    pub(super) others: (u32, Option<Instant>),
    pub(super) full_until: Option<Instant>,
    /// Answers since it was ready: they open the ramp faster.
    pub(super) completed: u32,
}

impl Pod {
    /// Whether it is here to stay.
    pub(super) fn may_take(&self) -> bool {
        !self.terminating && !self.gone
    }

    /// The pod's load, if it has room for one more. Others may have filled it who come to it directly: half of its slots are the
    /// activators' all the same, since it serves its two queues in turn. Whoever is held gets in line there then. Who left such a pod
    /// alone until it has room would never get in: what others send directly is there at once.
    pub(super) fn room(&self, container_concurrency: u32, now: Instant) -> Option<u32> {
        let ready_since = self.ready_since?;
        if !self.may_take() || self.full_until.is_some_and(|until| now < until) {
            return None;
        }
        let others = match self.others {
            (load, Some(at)) if now.saturating_duration_since(at) < REPORT_LIFE => load,
            _ => 0,
        };
        let load = self.ours.saturating_add(others);
        let has_room = match container_concurrency {
            0 => load < self.ramp(now.saturating_duration_since(ready_since)),
            limit => load < limit || self.ours < limit.div_ceil(2),
        };
        has_room.then_some(load)
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
