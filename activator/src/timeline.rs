//! One cold start, told in phases.

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

/// When what happened. Phases that cannot be seen from here stay empty.
#[derive(Clone, Copy, Debug)]
pub struct Timeline {
    /// The first request was held while the workload had no replicas.
    pub noticed: Instant,
    /// The scale was written (the request to write it was sent).
    pub patch_sent: Option<Instant>,
    /// The write was confirmed.
    pub patched: Option<Instant>,
    /// The first pod was made: its process spawned, or its object created.
    pub pod_created: Option<Instant>,
    /// The first pod was seen bound to a node. Not in local mode.
    pub pod_scheduled: Option<Instant>,
    /// The activator learned the first pod's address: on a cluster its network is made then.
    pub pod_seen: Option<Instant>,
    /// The queue-proxy of the pod that was ready first had started.
    pub sidecar_started: Option<Instant>,
    /// The model's port took a connection.
    pub port_open: Option<Instant>,
    /// The model answered its readiness probe.
    pub model_ready: Option<Instant>,
    /// The activator learned that. No phase of its own: requests that come later are not part of this start.
    pub ready_seen: Option<Instant>,
    /// The first held request was sent to the pod.
    pub forwarded: Option<Instant>,
    /// The head of its answer arrived.
    pub first_byte: Option<Instant>,
}

/// A finished timeline, in seconds since it was noticed.
#[derive(Clone, Debug, Serialize)]
pub struct Wake {
    /// `namespace/name`.
    pub target: String,
    /// Phase and seconds since the demand was noticed, in order.
    pub phases: Vec<(&'static str, f64)>,
    /// Seconds that are Rouse's: noticed to created, and model ready to first byte forwarded.
    pub ours: f64,
    /// Seconds from noticed to the first byte of the answer.
    pub total: f64,
}

impl Timeline {
    /// Demand was noticed at `now`.
    pub fn new(now: Instant) -> Self {
        Self {
            noticed: now,
            patch_sent: None,
            patched: None,
            pod_created: None,
            pod_scheduled: None,
            pod_seen: None,
            sidecar_started: None,
            port_open: None,
            model_ready: None,
            ready_seen: None,
            forwarded: None,
            first_byte: None,
        }
    }

    /// The phases that are known, in the order in which they happened: of a write and of what it brings about, the second
    /// may be seen first.
    pub fn phases(&self) -> Vec<(&'static str, Duration)> {
        let since = |at: Instant| at.saturating_duration_since(self.noticed);
        let mut phases: Vec<_> = [
            ("patch_sent", self.patch_sent),
            ("pod_created", self.pod_created),
            ("patched", self.patched),
            ("pod_scheduled", self.pod_scheduled),
            ("pod_seen", self.pod_seen),
            ("sidecar_started", self.sidecar_started),
            ("port_open", self.port_open),
            ("model_ready", self.model_ready),
            ("forwarded", self.forwarded),
            ("first_byte", self.first_byte),
        ]
        .into_iter()
        .filter_map(|(name, at)| Some((name, since(at?))))
        .collect();
        phases.sort_by_key(|(_, at)| *at);
        phases
    }

    /// Our share: from noticing to the scale being written, and from the model being ready to the request being on its way.
    /// What lies between is Kubernetes' and the model's, what follows is the model's.
    pub fn ours(&self) -> Duration {
        // In local mode the pod is made before the write returns; on a cluster Kubernetes makes it some time after.
        let done = [self.patched, self.pod_created].into_iter().flatten().min();
        let made = done.or(self.patch_sent).unwrap_or(self.noticed);
        let before = made.saturating_duration_since(self.noticed);
        let after = match (self.model_ready, self.forwarded) {
            (Some(ready), Some(forwarded)) => forwarded.saturating_duration_since(ready),
            _ => Duration::ZERO,
        };
        before + after
    }

    /// For the JSON of `/debug/wakes`.
    pub fn wake(&self, target: &str) -> Wake {
        let phases = self.phases();
        Wake {
            target: target.to_owned(),
            ours: self.ours().as_secs_f64(),
            total: phases.last().map_or(0.0, |(_, d)| d.as_secs_f64()),
            phases: phases
                .into_iter()
                .map(|(name, d)| (name, d.as_secs_f64()))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_is_what_is_before_the_pod_and_after_the_model() {
        let now = Instant::now();
        let ms = Duration::from_millis;
        let mut t = Timeline::new(now);
        t.patch_sent = Some(now + ms(1));
        t.pod_created = Some(now + ms(2));
        t.model_ready = Some(now + ms(1_000));
        t.forwarded = Some(now + ms(1_003));
        t.first_byte = Some(now + ms(1_010));
        assert_eq!(t.ours(), ms(5));
        // A pod that comes long after the write is Kubernetes' time.
        t.pod_created = Some(now + ms(40));
        t.patched = Some(now + ms(3));
        assert_eq!(t.ours(), ms(6));
        t.pod_created = Some(now + ms(2));
        let wake = t.wake("a/b");
        assert!((wake.total - 1.010).abs() < 1e-9);
        assert_eq!(wake.phases[0].0, "patch_sent");
    }
}
