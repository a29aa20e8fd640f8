//! What the last decision said, and whether the next one says anything new.

use crate::{Replicas, TargetSpec, burst};

/// The answer that others may act on until the next one: Knative's decider status.
///
/// Source: `pkg/autoscaler/scaling/multiscaler.go`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// The algorithm's last count; none before the first measurement.
    pub desired: Option<Replicas>,
    /// The last burst headroom.
    pub burst_headroom: i64,
}

impl Published {
    /// What holds before anything was measured.
    pub fn new(spec: &TargetSpec) -> Self {
        Self {
            desired: None,
            burst_headroom: burst::initial_headroom(
                spec.initial_scale,
                spec.total,
                spec.target_burst_capacity,
            ),
        }
    }

    /// Takes over an answer. Returns whether it is news: another count, or room where there was none, or the reverse.
    pub fn publish(&mut self, desired: Replicas, burst_headroom: i64) -> bool {
        let news =
            self.desired != Some(desired) || (self.burst_headroom < 0) != (burst_headroom < 0);
        *self = Self {
            desired: Some(desired),
            burst_headroom,
        };
        news
    }

    /// Whether load of this average concurrency should be answered at once rather than at the next tick: the last
    /// answer was zero, and there is load. An unknown answer does not count as zero.
    pub fn is_poked_by(&self, concurrency: f64) -> bool {
        self.desired == Some(Replicas::ZERO) && concurrency != 0.0
    }
}
