//! The bounds that settings put on a count: min, max and initial scale.

use crate::{Moment, Observed, Reason, Replicas, TargetSpec};

/// Whether the initial scale still holds.
///
/// Knative applies it once in a revision's life. A Deployment that sleeps and wakes has no such moment, so here it holds
/// from each wake until that many pods were ready once: a wake asks for that many, and taking them away again before they
/// are ready would make the wake slower than it need be. It holds no longer than a cold start may take, so that a
/// workload whose pods never become ready can still go to zero. Source of the rule for one life:
/// `pkg/reconciler/autoscaling/kpa/scaler.go`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InitialScale {
    /// No replicas: the next wake starts it.
    Asleep,
    /// Since then there are replicas, but not enough of them were ready yet.
    Rising(Moment),
    /// Enough were ready once, or the wait was too long.
    Reached,
}

impl InitialScale {
    /// A workload that already has ready pods is not in its beginnings, whatever we know of it.
    pub(crate) fn new(now: Moment, ready: Replicas) -> Self {
        if ready.is_zero() {
            Self::Rising(now)
        } else {
            Self::Reached
        }
    }

    pub(crate) fn advance(&mut self, now: Moment, spec: &TargetSpec, seen: &Observed) {
        *self = match *self {
            // Asleep | Rising | Reached => Asleep
            _ if seen.current.is_zero() && seen.ready.is_zero() => Self::Asleep,
            // Asleep => Rising
            Self::Asleep => Self::Rising(now),
            // Rising => Reached
            Self::Rising(since)
                if seen.ready >= spec.initial_scale.max(spec.min_scale)
                    || now.since(since) >= spec.max_cold_start =>
            {
                Self::Reached
            }
            same => same,
        }
    }

    fn holds(self) -> bool {
        matches!(self, Self::Rising(_))
    }
}

/// `count` within the bounds, and the bound that changed it, if one did. The maximum wins over the minimum.
pub(crate) fn apply(
    count: Replicas,
    spec: &TargetSpec,
    seen: &Observed,
    initial: InitialScale,
) -> (Replicas, Option<Reason>) {
    let mut bounded = (count, None);
    if seen.reachable
        && initial.holds()
        && spec.initial_scale > Replicas::ONE
        && count < spec.initial_scale
    {
        bounded = (spec.initial_scale, Some(Reason::InitialScale));
    }
    let floor = spec.lower_bound(seen.reachable);
    if bounded.0 < floor {
        bounded = (floor, Some(Reason::MinScale));
    }
    let capped = spec.cap(bounded.0);
    if capped < bounded.0 {
        (capped, Some(Reason::MaxScale))
    } else {
        bounded
    }
}
