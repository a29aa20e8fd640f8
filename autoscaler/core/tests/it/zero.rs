//! Tables for the gate before zero, and for what may be taken away when.
//!
//! Settings throughout: stable window 60 s, grace period 30 s, retention 0 s unless said otherwise.

use std::time::Duration;

use autoscaler_core::{
    Decider, Decision, Moment, Observed, Reason, Replicas, Sample, TICK, TargetSpec,
};

use crate::support::{calm, spec};

const START: Moment = Moment::from_secs(1_000_000);

/// A workload in a world where time moves in ticks.
struct World {
    decider: Decider,
    now: Moment,
}

impl World {
    fn new(spec: &TargetSpec, ready: u32) -> Self {
        Self {
            decider: Decider::new(spec, START, Replicas(ready)),
            now: START,
        }
    }

    /// One tick with this concurrency and this state.
    fn tick(&mut self, concurrency: f64, seen: &Observed) -> Decision {
        let sample = Sample {
            concurrency,
            requests: concurrency,
        };
        self.decider.record(self.now, sample);
        self.decider
            .record(self.now + Duration::from_secs(1), sample);
        self.now = self.now + TICK;
        self.decider.decide(self.now, seen)
    }

    /// Idle ticks for at least `seconds`; returns the last decision.
    fn idle(&mut self, seconds: u64, seen: &Observed) -> Decision {
        let end = self.now + Duration::from_secs(seconds);
        loop {
            let decision = self.tick(0.0, seen);
            if self.now >= end {
                return decision;
            }
        }
    }
}

fn outcome(decision: &Decision) -> (Option<u32>, Reason) {
    (decision.want.map(Replicas::get), decision.reason)
}

#[test]
fn the_way_to_zero_is_a_stable_window_and_then_the_grace_period() {
    let mut world = World::new(&spec(&[]), 1);
    let left = |decision: &Decision| match decision.reason {
        Reason::JustActive { left } | Reason::IdleGrace { left } => Some(left.as_secs()),
        _ => None,
    };
    let first = world.tick(0.0, &calm(1));
    assert_eq!((first.want, left(&first)), (Some(Replicas(1)), Some(58)));
    assert_eq!(
        world.decider.next_wakeup(),
        Some(START + Duration::from_mins(1))
    );
    let last_active = world.idle(56, &calm(1));
    assert_eq!(
        outcome(&last_active),
        (Some(1), Reason::JustActive { left: TICK })
    );
    let idle = world.tick(0.0, &calm(1));
    assert_eq!(
        outcome(&idle),
        (
            Some(1),
            Reason::IdleGrace {
                left: Duration::from_secs(30)
            }
        )
    );
    assert_eq!(
        world.decider.next_wakeup(),
        Some(START + Duration::from_secs(90))
    );
    let almost = world.idle(28, &calm(1));
    assert_eq!(
        outcome(&almost),
        (Some(1), Reason::IdleGrace { left: TICK })
    );
    assert_eq!(
        outcome(&world.tick(0.0, &calm(1))),
        (Some(0), Reason::ToZero)
    );
    let asleep = world.tick(0.0, &calm(0));
    assert_eq!(outcome(&asleep), (Some(0), Reason::AtZero));
    assert_eq!(world.decider.next_wakeup(), None);
}

#[test]
fn every_blocker_holds_one_replica_and_says_so() {
    let one = calm(1);
    for (name, seen, reason) in [
        ("held", Observed { held: 1, ..one }, Reason::Held),
        (
            "held wins",
            Observed {
                held: 1,
                open: None,
                starting: Replicas(1),
                ..one
            },
            Reason::Held,
        ),
        (
            "open",
            Observed {
                open: Some(1),
                ..one
            },
            Reason::OpenRequests,
        ),
        (
            "unknown",
            Observed { open: None, ..one },
            Reason::OpenUnknown,
        ),
        (
            "starting",
            Observed {
                starting: Replicas(1),
                ..one
            },
            Reason::Starting,
        ),
        (
            "starting, none ready",
            Observed {
                starting: Replicas(1),
                ready: Replicas(0),
                ..one
            },
            Reason::Starting,
        ),
    ] {
        let mut world = World::new(&spec(&[]), 1);
        world.idle(200, &seen);
        let blocked = world.tick(0.0, &seen);
        assert_eq!(outcome(&blocked), (Some(1), reason), "{name}");
        assert_eq!(
            world.decider.next_wakeup(),
            None,
            "{name}: only news can help"
        );
    }
}

#[test]
fn the_grace_period_starts_over_with_the_last_open_request() {
    for (open, name) in [(Some(3), "open"), (None, "unknown")] {
        let mut world = World::new(&spec(&[]), 1);
        world.idle(80, &calm(1));
        world.tick(0.0, &Observed { open, ..calm(1) });
        assert_eq!(
            outcome(&world.tick(0.0, &calm(1))).1,
            Reason::IdleGrace {
                left: Duration::from_secs(30)
            },
            "{name}"
        );
        assert_eq!(outcome(&world.idle(28, &calm(1))).0, Some(1), "{name}");
        assert_eq!(
            outcome(&world.tick(0.0, &calm(1))),
            (Some(0), Reason::ToZero),
            "{name}"
        );
    }
}

#[test]
fn retention_outlasts_the_grace_period_unless_unreachable() {
    let spec = spec(&[("scale-to-zero-pod-retention-period", "5m")]);
    for (reachable, seconds) in [(true, 360), (false, 90)] {
        let seen = Observed {
            reachable,
            ..calm(1)
        };
        let mut world = World::new(&spec, 1);
        assert_eq!(
            world.idle(seconds - 2, &seen).want,
            Some(Replicas(1)),
            "reachable {reachable}"
        );
        assert_eq!(
            world.tick(0.0, &seen).want,
            Some(Replicas(0)),
            "reachable {reachable}"
        );
    }
}

#[test]
fn load_in_the_grace_period_starts_all_over() {
    let mut world = World::new(&spec(&[]), 1);
    world.idle(80, &calm(1));
    assert_eq!(
        outcome(&world.tick(5.0, &calm(1))),
        (Some(1), Reason::Steady)
    );
    let since = world.now;
    // The stable average falls to zero only with the window.
    let mut idle_from = None;
    let zero = loop {
        let decision = world.tick(0.0, &calm(1));
        if matches!(decision.reason, Reason::IdleGrace { .. }) {
            idle_from.get_or_insert(world.now);
        }
        if decision.want == Some(Replicas(0)) {
            break world.now;
        }
    };
    let idle_from = idle_from.expect("a grace period");
    assert!(
        idle_from - since >= Duration::from_secs(58),
        "{:?}",
        idle_from - since
    );
    assert_eq!(zero - idle_from, Duration::from_secs(30));
}

#[test]
fn without_scale_to_zero_one_replica_is_the_least() {
    let spec = TargetSpec {
        enable_scale_to_zero: false,
        ..spec(&[])
    };
    for pods in [0, 1] {
        let mut world = World::new(&spec, pods);
        assert_eq!(
            outcome(&world.idle(300, &calm(pods))),
            (Some(1), Reason::ZeroDisabled),
            "{pods} pods"
        );
    }
}

#[test]
fn nothing_is_taken_away_while_requests_are_held() {
    let mut world = World::new(&spec(&[]), 1);
    let seen = Observed {
        held: 1,
        starting: Replicas(3),
        current: Replicas(4),
        ..calm(1)
    };
    assert_eq!(outcome(&world.tick(1.0, &seen)), (Some(4), Reason::Held));
    let released = Observed { held: 0, ..seen };
    assert_eq!(
        outcome(&world.tick(1.0, &released)),
        (Some(1), Reason::ScaleDown)
    );
}

#[test]
fn at_zero_the_activator_has_the_word() {
    let mut world = World::new(&spec(&[("initial-scale", "3")]), 0);
    assert_eq!(
        outcome(&world.tick(0.0, &calm(0))),
        (Some(0), Reason::AtZero),
        "initial scale wakes nobody"
    );
    let held = Observed { held: 2, ..calm(0) };
    assert_eq!(outcome(&world.tick(0.0, &held)), (None, Reason::Held));
    let decision = world.tick(2.0, &held);
    assert_eq!(outcome(&decision), (Some(1), Reason::ScaleUp));
    assert!(decision.is_wake());
}

#[test]
fn initial_scale_holds_from_a_wake_until_it_was_ready_once() {
    let mut world = World::new(&spec(&[("initial-scale", "3")]), 0);
    world.tick(0.0, &calm(0));
    let seen = |ready: u32| Observed {
        ready: Replicas(ready),
        starting: Replicas(3 - ready),
        ..calm(3)
    };
    assert_eq!(
        outcome(&world.tick(1.0, &seen(0))),
        (Some(3), Reason::InitialScale)
    );
    assert_eq!(
        outcome(&world.tick(1.0, &seen(2))),
        (Some(3), Reason::InitialScale)
    );
    assert_eq!(
        outcome(&world.tick(1.0, &seen(3))),
        (Some(1), Reason::ScaleDown)
    );
    assert_eq!(
        outcome(&world.tick(1.0, &calm(2))),
        (Some(1), Reason::ScaleDown),
        "not a second time"
    );
}

#[test]
fn a_wake_that_never_gets_ready_still_ends_at_zero() {
    let mut world = World::new(&spec(&[("initial-scale", "3")]), 0);
    world.tick(0.0, &calm(0));
    let failed = Observed {
        ready: Replicas(0),
        ..calm(3)
    };
    assert_eq!(
        outcome(&world.idle(590, &failed)),
        (Some(3), Reason::InitialScale)
    );
    assert_eq!(
        world.idle(60, &failed).want,
        Some(Replicas(0)),
        "max-cold-start is over, and so is the grace period"
    );
}

#[test]
fn missing_data_changes_nothing() {
    let mut world = World::new(&spec(&[]), 1);
    world.idle(86, &calm(1));
    let blind = world
        .decider
        .decide(world.now + Duration::from_mins(5), &calm(1));
    assert_eq!(outcome(&blind), (None, Reason::NoData));
    assert_eq!((blind.desired, blind.inputs.stable), (None, None));
}

#[test]
fn samples_that_are_no_measurement_are_counted_and_ignored() {
    let mut decider = Decider::new(&spec(&[]), START, Replicas(1));
    for concurrency in [f64::NAN, f64::INFINITY, -0.5] {
        decider.record(
            START,
            Sample {
                concurrency,
                requests: 0.0,
            },
        );
        decider.record(
            START,
            Sample {
                concurrency: 0.0,
                requests: concurrency,
            },
        );
    }
    decider.record(
        START,
        Sample {
            concurrency: 140.0,
            requests: 1.0,
        },
    );
    decider.record(
        START - Duration::from_mins(1),
        Sample {
            concurrency: 1e9,
            requests: 1.0,
        },
    );
    assert_eq!(decider.decide(START, &calm(1)).inputs.stable, Some(140.0));
    decider.decide(START - TICK, &calm(1));
    let refused = decider.refused();
    assert_eq!(
        (refused.unsound, refused.too_old, refused.backward),
        (6, 1, 1)
    );
}

#[test]
fn a_decision_reads_as_one_sentence() {
    let mut world = World::new(&spec(&[]), 1);
    assert_eq!(
        world
            .tick(
                0.0,
                &Observed {
                    open: None,
                    ..calm(1)
                }
            )
            .to_string(),
        "keep 1: idle, but active too recently; 58.0s until it counts as idle (stable mode, concurrency 0.00 stable \
         0.00 panic at target 70.00, 1 ready, 0 starting, 0 held, open unknown, load asks for 0, burst headroom -111)"
    );
    assert_eq!(
        world.tick(1000.0, &calm(1)).to_string(),
        "scale 1 -> 8: the load asks for more (panic mode, concurrency 500.00 stable 500.00 panic at target 70.00, \
         1 ready, 0 starting, 0 held, 0 open, load asks for 8, burst headroom -611)"
    );
}
