//! When a part of a workload's next plan may be carried out: soon after one that did something, later after one that failed, and later
//! each time if the same is all that follows from it.

use std::time::Duration;

use super::plan::{Action, Plan};

/// After a plan was carried out, until caches show it, and how long this grows while the same plan comes again and again:
/// something undoes it, or keeps it from having an effect, such as a finalizer on what we delete.
const SETTLE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// The first and the longest pause after a failure.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// The longest after a conflict, which a newer look mostly solves, and when there is no time to wait.
const SOON: Duration = Duration::from_secs(2);

/// What of a plan has a pace of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Services,
    Relay,
}

/// Those of one workload.
#[derive(Debug, Default)]
pub(crate) struct Paces {
    services: Pace,
    relay: Pace,
}

impl Paces {
    pub(crate) fn of(&mut self, part: Part) -> &mut Pace {
        match part {
            Part::Services => &mut self.services,
            Part::Relay => &mut self.relay,
        }
    }

    /// The part of a plan whose turn it is: the relay's when nothing else is due.
    pub(crate) fn due(&mut self, plan: Plan, now: Duration) -> Option<(Part, Vec<Action>)> {
        let parts = [(Part::Services, plan.actions), (Part::Relay, plan.relay)];
        // Each is looked at, also when another one's turn it is.
        let due = parts.map(|(part, actions)| {
            let early = self.of(part).is_early(now, &actions);
            (!early && !actions.is_empty()).then_some((part, actions))
        });
        due.into_iter().flatten().next()
    }
}

/// What became of the last plan's part.
#[derive(Debug)]
pub(crate) struct Pace {
    at: Duration,
    /// The last pause after a failure.
    pause: Duration,
    settle: Duration,
    /// What was carried out last, or failed.
    last: Vec<Action>,
    /// The same waits until then.
    again: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            at: Duration::ZERO,
            pause: Duration::ZERO,
            settle: SETTLE.0,
            last: Vec::new(),
            again: Duration::ZERO,
        }
    }
}

impl Pace {
    /// Whether it is too early for this plan. Looked at also when there is nothing to do: then the last plan had its effect.
    pub(crate) fn is_early(&mut self, now: Duration, actions: &[Action]) -> bool {
        let again = self.last == actions;
        if !again {
            self.last.clear();
        }
        now < self.at || (again && now < self.again)
    }

    /// A plan was carried out.
    pub(crate) fn carried(&mut self, now: Duration, actions: Vec<Action>, soon: bool) {
        let longest = if soon { SOON } else { SETTLE.1 };
        self.settle = if actions == self.last && self.pause.is_zero() {
            (self.settle * 2).min(longest)
        } else {
            SETTLE.0
        };
        self.last = actions;
        self.pause = Duration::ZERO;
        self.at = now + SETTLE.0;
        self.again = now + self.settle;
    }

    /// One failed. For how long it is not tried again; `soon`: not long. Another one, as of a workload that was opted out meanwhile,
    /// has not failed, and need not wait for long.
    pub(crate) fn failed(&mut self, now: Duration, actions: Vec<Action>, soon: bool) -> Duration {
        let longest = if soon { SOON } else { PAUSES.1 };
        self.pause = (self.pause * 2).clamp(PAUSES.0, longest);
        self.last = actions;
        self.at = now + self.pause.min(SOON);
        self.again = now + self.pause;
        self.pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remove(name: &str) -> Vec<Action> {
        vec![Action::RemoveSlice { name: name.into() }]
    }

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// How long after it was carried out the plan may be again, to 100 ms.
    fn wait(pace: &mut Pace, now: Duration, actions: &[Action]) -> Duration {
        let steps = (0..1_000).map(|step| ms(step * 100));
        let mut free = steps.filter(|wait| !pace.is_early(now + *wait, actions));
        free.next().unwrap()
    }

    #[test]
    fn a_plan_that_changes_nothing_is_repeated_ever_more_seldom() {
        let mut pace = Pace::default();
        let mut now = ms(1_000_000);
        let mut waits = Vec::new();
        for _ in 0..10 {
            pace.carried(now, remove("a"), false);
            let waited = wait(&mut pace, now, &remove("a"));
            now += waited;
            waits.push(waited.as_millis());
        }
        let expected = [200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000];
        assert_eq!(waits, expected);
    }

    #[test]
    fn another_plan_waits_only_until_caches_show_the_last_one() {
        let mut pace = Pace::default();
        for _ in 0..10 {
            pace.carried(ms(0), remove("a"), false);
        }
        assert!(pace.is_early(ms(199), &remove("b")));
        assert!(!pace.is_early(ms(200), &remove("b")));
        // And after that the first one is as good as new, as after a look at which there was nothing to do.
        assert!(!pace.is_early(ms(201), &remove("a")));
        for _ in 0..10 {
            pace.carried(ms(300), remove("a"), true);
        }
        assert!(!pace.is_early(ms(2_300), &remove("a")), "soon");
        assert!(!pace.is_early(ms(500), &[]));
        assert!(!pace.is_early(ms(501), &remove("a")));
    }

    #[test]
    fn pauses_after_failures_grow_and_are_short_after_conflicts() {
        let mut pace = Pace::default();
        let failed = |pace: &mut Pace, soon| pace.failed(ms(0), remove("a"), soon);
        let pauses: Vec<_> = (0..8).map(|_| failed(&mut pace, false)).collect();
        assert_eq!(pauses[..3], [ms(500), ms(1_000), ms(2_000)]);
        assert_eq!(pauses[7], PAUSES.1);
        assert!(pace.is_early(ms(29_999), &remove("a")));
        assert!(!pace.is_early(ms(30_000), &remove("a")));
        assert_eq!(failed(&mut pace, true), SOON);
        pace.carried(ms(0), remove("a"), false);
        assert!(!pace.is_early(ms(200), &remove("a")), "it did something");
        assert_eq!(failed(&mut pace, true), ms(500));
    }

    #[test]
    fn a_relay_that_fails_keeps_nothing_else_waiting_and_has_its_turn_beside_what_fails() {
        let plan = |actions: &str, relay: &str| Plan {
            actions: remove(actions),
            relay: remove(relay),
            ..Plan::default()
        };
        let mut paces = Paces::default();
        let part = |due: Option<(Part, Vec<Action>)>| due.map(|(part, _)| part);
        for _ in 0..8 {
            paces.of(Part::Relay).failed(ms(0), remove("r"), false);
        }
        assert_eq!(part(paces.due(plan("a", "r"), ms(1))), Some(Part::Services));
        paces.of(Part::Services).failed(ms(1), remove("a"), false);
        assert_eq!(part(paces.due(plan("a", "r"), ms(2))), None);
        assert_eq!(
            part(paces.due(plan("a", "r"), ms(501))),
            Some(Part::Services)
        );
        for _ in 0..8 {
            paces.of(Part::Services).failed(ms(501), remove("a"), false);
        }
        assert_eq!(
            part(paces.due(plan("a", "r"), ms(30_000))),
            Some(Part::Relay)
        );
    }

    #[test]
    fn another_plan_than_the_one_that_failed_is_tried_soon() {
        let mut pace = Pace::default();
        for _ in 0..8 {
            pace.failed(ms(0), remove("a"), false);
        }
        assert!(pace.is_early(ms(2_000), &remove("a")));
        assert!(pace.is_early(ms(1_999), &remove("b")));
        assert!(!pace.is_early(ms(2_000), &remove("b")));
    }
}
