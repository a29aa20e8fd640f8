//! What the writer of scales has to know of each workload besides the decision.

use std::{sync::Arc, time::Duration};

use dashmap::DashMap;
use shared::TargetId;

use super::rival::ScaleRival;

/// For so long a workload must be seen without a way to wake it before it is woken for that reason: while activators come and
/// go, views are a moment old.
const PATIENCE: Duration = Duration::from_secs(10);

/// All workloads.
pub(crate) type States = Arc<DashMap<TargetId, State>>;

/// One workload.
#[derive(Debug)]
pub(crate) struct State {
    /// UID of the Deployment.
    pub(crate) uid: Arc<str>,
    pub(crate) paused: bool,
    pub(crate) window: Duration,
    /// Since when all of its Services are adopted without a gap.
    adopted: Option<Duration>,
    /// Since when they are not.
    open: Option<Duration>,
    pub(crate) scale: ScaleRival,
}

impl State {
    pub(crate) fn new(uid: Arc<str>) -> Self {
        Self {
            uid,
            paused: false,
            window: Duration::from_mins(1),
            adopted: None,
            open: None,
            scale: ScaleRival::default(),
        }
    }

    /// Whether it may sleep, as adoption sees it now.
    pub(crate) fn saw(&mut self, now: Duration, may_sleep: bool) {
        if may_sleep {
            self.adopted.get_or_insert(now);
            self.open = None;
        } else {
            self.adopted = None;
            self.open.get_or_insert(now);
        }
    }

    /// It keeps one replica, since nobody would wake it.
    pub(crate) fn must_stay(&self, now: Duration) -> bool {
        self.open
            .is_some_and(|since| now.saturating_sub(since) >= PATIENCE)
    }

    /// What stands against a write, if anything does. `leads`: since when we lead, if we do.
    pub(crate) fn permits(
        &self,
        now: Duration,
        leads: Option<Duration>,
        from: u32,
        to: u32,
    ) -> Result<(), &'static str> {
        let leads = leads.ok_or("standby")?;
        if self.paused {
            return Err("paused");
        }
        if self.scale.is_contested(now) {
            return Err("contested");
        }
        if to >= from {
            return Ok(());
        }
        let settled = |since: Duration| now.saturating_sub(since) >= self.window;
        if !settled(leads) {
            // What happened while nobody led, or another one did, is not in our windows for sure.
            return Err("new-leader");
        }
        match self.adopted {
            // Requests may come past the sidecars: what they count is not the load.
            None => Err("not-adopted"),
            Some(since) if !settled(since) => Err("newly-adopted"),
            Some(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn what_stands_against_a_write_is_told() {
        let mut state = State::new("u".into());
        state.saw(at(100), true);
        let permits = |state: &State, secs, leads: Option<u64>, from, to| {
            state.permits(at(secs), leads.map(at), from, to)
        };
        assert_eq!(permits(&state, 500, None, 1, 2), Err("standby"));
        assert_eq!(permits(&state, 100, Some(100), 1, 2), Ok(()));
        assert_eq!(permits(&state, 159, Some(100), 2, 1), Err("new-leader"));
        assert_eq!(permits(&state, 159, Some(0), 2, 1), Err("newly-adopted"));
        assert_eq!(permits(&state, 160, Some(0), 2, 0), Ok(()));
        state.saw(at(200), false);
        assert_eq!(permits(&state, 500, Some(0), 2, 1), Err("not-adopted"));
        assert_eq!(permits(&state, 500, Some(0), 0, 1), Ok(()));
        state.saw(at(300), true);
        assert_eq!(permits(&state, 310, Some(0), 2, 1), Err("newly-adopted"));
        state.paused = true;
        assert_eq!(permits(&state, 500, Some(0), 1, 2), Err("paused"));
    }

    #[test]
    fn a_short_gap_wakes_nobody() {
        let mut state = State::new("u".into());
        state.saw(at(0), true);
        state.saw(at(100), false);
        state.saw(at(105), false);
        assert!(!state.must_stay(at(109)) && state.must_stay(at(110)));
        state.saw(at(111), true);
        assert!(!state.must_stay(at(111)));
    }
}
