//! When panic starts, and when it is over.
//!
//! Source: `pkg/autoscaler/scaling/autoscaler.go`.

use std::time::Duration;

use crate::{Moment, Replicas};

/// Whether a workload is in panic, since when, and the most replicas wanted meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PanicClock {
    since: Option<Moment>,
    peak: Replicas,
}

impl PanicClock {
    /// The clock of a workload that has `ready` pods at `now`; in panic from the start if it has several and `cautious`.
    pub fn new(now: Moment, ready: Replicas, cautious: bool) -> Self {
        Self {
            since: (cautious && ready > Replicas::ONE).then_some(now),
            peak: ready,
        }
    }

    /// When the load last called for panic; none in stable mode.
    pub fn since(&self) -> Option<Moment> {
        self.since
    }

    /// The most replicas wanted since panic began.
    pub fn peak(&self) -> Replicas {
        self.peak
    }

    /// Whether panic is on.
    pub fn is_panicking(&self) -> bool {
        self.since.is_some()
    }

    /// The first moment at which panic can end if the load does not call for it again.
    pub fn ends_at(&self, stable_window: Duration) -> Option<Moment> {
        // Strictly later than a whole window.
        self.since
            .map(|since| since + stable_window + Duration::from_nanos(1))
    }

    /// Moves on to `now`; `over` says whether the load calls for panic.
    pub fn advance(&mut self, now: Moment, over: bool, stable_window: Duration) {
        match self.since {
            // Stable | Panicking => Panicking
            _ if over => self.since = Some(now),
            // Panicking => Stable
            Some(since) if now.since(since) > stable_window => {
                self.since = None;
                self.peak = Replicas::ZERO;
            }
            // Panicking => Panicking, Stable => Stable
            _ => {}
        }
    }

    /// While in panic, the count never falls: returns the largest so far, `wanted` included.
    pub fn hold(&mut self, wanted: Replicas) -> Replicas {
        self.peak = self.peak.max(wanted);
        self.peak
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_mins(1);

    #[test]
    fn panic_outlives_the_load_by_more_than_a_stable_window() {
        let start = Moment::from_secs(1000);
        let mut clock = PanicClock::new(start, Replicas(1), true);
        assert!(!clock.is_panicking());
        clock.advance(start, true, WINDOW);
        assert_eq!(clock.hold(Replicas(5)), Replicas(5));
        clock.advance(start + WINDOW, false, WINDOW);
        assert!(clock.is_panicking(), "exactly one window is not over it");
        assert_eq!(clock.hold(Replicas(2)), Replicas(5));
        let end = clock.ends_at(WINDOW).expect("in panic");
        clock.advance(end, false, WINDOW);
        assert_eq!(
            (clock.is_panicking(), clock.peak()),
            (false, Replicas::ZERO)
        );
    }

    #[test]
    fn several_pods_at_birth_are_a_reason_for_caution() {
        let now = Moment::from_secs(1);
        assert!(PanicClock::new(now, Replicas(2), true).is_panicking());
        assert!(!PanicClock::new(now, Replicas(2), false).is_panicking());
    }
}
