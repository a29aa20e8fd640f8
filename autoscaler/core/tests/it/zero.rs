//! Tables for the gate before zero.
//!
//! Settings throughout: stable window 60 s, grace period 30 s, retention 0 s unless said otherwise.

use std::time::Duration;

use autoscaler_core::{Decision, Observed, Reason, Replicas, TICK, TargetSpec};

use crate::support::{START, World, calm, outcome, spec};

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
    for (open, held, name) in [
        (Some(3), 0, "open"),
        (None, 0, "unknown"),
        (Some(0), 1, "held"),
    ] {
        let mut world = World::new(&spec(&[]), 1);
        world.idle(80, &calm(1));
        world.tick(
            0.0,
            &Observed {
                open,
                held,
                ..calm(1)
            },
        );
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
fn a_slow_start_does_not_count_as_active_time() {
    let mut world = World::new(&spec(&[]), 0);
    world.tick(0.0, &calm(0));
    let starting = Observed {
        ready: Replicas(0),
        starting: Replicas(1),
        ..calm(1)
    };
    assert_eq!(
        outcome(&world.idle(300, &starting)),
        (Some(1), Reason::Starting)
    );
    let left = Duration::from_mins(1);
    assert_eq!(
        outcome(&world.tick(0.0, &calm(1))),
        (Some(1), Reason::JustActive { left })
    );
    assert_eq!(world.decider.next_wakeup(), Some(world.now + left));
}
