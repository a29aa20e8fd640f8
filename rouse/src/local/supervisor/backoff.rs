//! When a workload whose replicas die is started again. Pure.
//!
//! After the kubelet: the first end is answered by a restart at once, further ones wait 10 s, doubled up to 5 minutes
//! (<https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#restart-policy>).

use std::time::Duration;

use tokio::time::Instant;

const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_mins(5);
/// A replica that served for so long had a good start: its end says nothing about the next one's.
const GOOD_RUN: Duration = Duration::from_secs(10);

/// When the next replica may be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// At once.
    Now,
    /// Then.
    At(Instant),
}

/// Ends in a row.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    ends: u32,
}

impl Backoff {
    /// A replica ended. `ready_for` is how long it had been ready, if ever.
    pub(super) fn ended(&mut self, now: Instant, ready_for: Option<Duration>) -> Next {
        if ready_for.is_some_and(|run| self.served(run)) {
            return Next::Now;
        }
        self.ends = self.ends.saturating_add(1);
        match self.ends {
            1 => Next::Now,
            n => Next::At(now + pause(n - 2)),
        }
    }

    /// A replica has been ready for `run`. If that was long, the ends before it are forgotten, and this says so.
    pub(super) fn served(&mut self, run: Duration) -> bool {
        let good = run >= GOOD_RUN;
        if good {
            self.ends = 0;
        }
        good
    }

    /// A replica could not even be started: there is no use in trying again at once.
    pub(super) fn hopeless(&mut self, now: Instant) -> Next {
        self.ends = self.ends.saturating_add(1).max(2);
        Next::At(now + pause(self.ends - 2))
    }
}

fn pause(doublings: u32) -> Duration {
    FIRST.saturating_mul(1 << doublings.min(8)).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_early_end_in_a_row_waits_and_waits_get_longer() {
        let now = Instant::now();
        let s = Duration::from_secs;
        let mut backoff = Backoff::default();
        assert_eq!(backoff.ended(now, None), Next::Now);
        assert_eq!(backoff.ended(now, Some(s(1))), Next::At(now + s(10)));
        assert_eq!(backoff.ended(now, None), Next::At(now + s(20)));
        for _ in 0..20 {
            backoff.ended(now, None);
        }
        assert_eq!(backoff.ended(now, None), Next::At(now + s(300)));
        assert_eq!(
            backoff.ended(now, Some(s(60))),
            Next::Now,
            "it had served well"
        );
        assert_eq!(backoff.ended(now, None), Next::Now);
    }

    #[test]
    fn a_replica_that_served_well_and_was_taken_away_makes_up_for_earlier_ends() {
        let now = Instant::now();
        let mut backoff = Backoff::default();
        backoff.ended(now, None);
        assert!(!backoff.served(Duration::from_secs(1)));
        assert_ne!(backoff.ended(now, None), Next::Now);
        assert!(backoff.served(GOOD_RUN));
        assert_eq!(backoff.ended(now, None), Next::Now);
    }

    #[test]
    fn what_cannot_be_started_waits_at_once() {
        let now = Instant::now();
        assert_eq!(Backoff::default().hopeless(now), Next::At(now + FIRST));
    }
}
