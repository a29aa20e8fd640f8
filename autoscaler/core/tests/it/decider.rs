//! The whole decider: bounds, missing data, what may be taken away when, and where its policy departs from Knative.

use std::time::Duration;

use autoscaler_core::{
    Decider, Limit, Moment, Observed, Policy, Reason, Recorded, Replicas, Sample, TICK, TargetSpec,
};

use crate::support::{START, World, calm, outcome, spec};

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
        (Some(4), Reason::Starting)
    );
    assert_eq!(
        outcome(&world.tick(1.0, &calm(4))),
        (
            Some(2),
            Reason::RateLimited {
                by: Limit::ScaleDown
            }
        )
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
fn initial_scale_is_no_concern_of_an_unreachable_workload() {
    let mut world = World::new(&spec(&[("initial-scale", "3")]), 0);
    world.tick(0.0, &calm(0));
    let seen = Observed {
        ready: Replicas(0),
        reachable: false,
        ..calm(3)
    };
    assert_eq!(
        outcome(&world.tick(1.0, &seen)),
        (Some(1), Reason::ScaleDown)
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
    let mut decider = Decider::new(spec(&[]), START, Replicas(1));
    for concurrency in [f64::NAN, f64::INFINITY, -0.5] {
        decider.record(
            START,
            Sample {
                concurrency,
                ..Sample::default()
            },
        );
        decider.record(
            START,
            Sample {
                concurrency: 0.0,
                requests: concurrency,
                ..Sample::default()
            },
        );
    }
    decider.record(
        START,
        Sample {
            concurrency: 140.0,
            requests: 1.0,
            ..Sample::default()
        },
    );
    decider.record(
        START - Duration::from_mins(1),
        Sample {
            concurrency: 1e9,
            requests: 1.0,
            ..Sample::default()
        },
    );
    assert_eq!(decider.decide(START, &calm(1)).inputs.stable, Some(140.0));
    assert_eq!(decider.decide(START - TICK, &calm(1)).inputs.at, START);
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

#[test]
fn only_sound_load_on_a_known_zero_asks_for_a_decision_at_once() {
    let sample = |concurrency| Sample {
        concurrency,
        ..Sample::default()
    };
    let mut world = World::new(&spec(&[]), 0);
    assert!(
        !world.decider.is_poked_by(sample(1.0)),
        "nothing is known yet"
    );
    world.tick(0.0, &calm(0));
    assert!(world.decider.is_poked_by(sample(0.25)));
    for other in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(!world.decider.is_poked_by(sample(other)), "{other}");
    }
    world.tick(1.0, &calm(0));
    assert!(
        !world.decider.is_poked_by(sample(1.0)),
        "one pod is wanted already"
    );
}

#[test]
fn changed_windows_and_metric_find_their_history() {
    let mut world = World::new(&spec(&[]), 1);
    for (concurrency, ticks) in [(20.0, 15), (40.0, 13), (60.0, 2)] {
        for _ in 0..ticks {
            world.tick(concurrency, &calm(1));
        }
    }
    world
        .decider
        .respec(world.now, spec(&[("metric", "rps"), ("window", "30s")]));
    let inputs = world.decider.decide(world.now, &calm(1)).inputs;
    // The newest bucket is a second old, so 29 and 2 seconds are left of 30 and 3.
    assert_eq!(
        (inputs.stable, inputs.panic),
        (Some(42.758_621), Some(60.0))
    );
    assert!((inputs.target - 140.0).abs() < 1e-9);
}

#[test]
fn a_late_sample_goes_into_its_own_second() {
    let mut decider = Decider::new(spec(&[]), START, Replicas(1));
    let load = Sample {
        concurrency: 30.0,
        ..Sample::default()
    };
    decider.record(START + Duration::from_secs(2), load);
    assert_eq!(decider.record(START, load), Recorded::Kept);
    let decision = decider.decide(START + TICK, &calm(1));
    assert_eq!(decision.inputs.stable, Some(20.0), "two of three seconds");
}

fn after(second: u64) -> Moment {
    START + Duration::from_secs(second)
}

/// A decider that saw load for five pods once, got a scale-down delay afterwards, and then saw silence until second 70.
fn departed(policy: Policy) -> Decider {
    let mut spec = TargetSpec {
        policy,
        ..spec(&[("target", "1"), ("target-utilization-percentage", "100")])
    };
    let mut decider = Decider::new(spec.clone(), after(0), Replicas::ONE);
    spec.scale_down_delay = Duration::from_mins(10);
    decider.respec(after(0), spec.clone());
    decider.record(
        after(0),
        Sample {
            concurrency: 5.0,
            ..Sample::default()
        },
    );
    assert_eq!(
        decider.decide(after(0), &calm(5)).desired,
        Some(Replicas(5))
    );
    for second in 1..=70 {
        decider.record(after(second), Sample::default());
    }
    decider
}

#[test]
fn a_changed_delay_takes_effect_unlike_in_knative() {
    for (policy, desired) in [(Policy::default(), 5), (Policy::KNATIVE, 2)] {
        assert_eq!(
            departed(policy).decide(after(70), &calm(5)).desired,
            Some(Replicas(desired)),
            "{policy:?}"
        );
    }
}

#[test]
fn silence_of_a_whole_window_is_no_data_unlike_in_knative() {
    for (policy, stable) in [(Policy::default(), None), (Policy::KNATIVE, Some(0.0))] {
        let mut decider = departed(policy);
        assert_eq!(
            decider.decide(after(129), &calm(5)).inputs.stable,
            Some(0.0)
        );
        assert_eq!(
            decider.decide(after(130), &calm(5)).inputs.stable,
            stable,
            "{policy:?}"
        );
        assert_eq!(
            decider.decide(after(131), &calm(5)).inputs.stable,
            None,
            "{policy:?}"
        );
    }
}

#[test]
fn a_changed_aggregation_takes_effect_and_keeps_what_was_measured() {
    let mut decider = Decider::new(spec(&[]), after(0), Replicas::ONE);
    for second in 0..10 {
        let load = Sample {
            concurrency: if second == 9 { 60.0 } else { 10.0 },
            ..Sample::default()
        };
        decider.record(after(second), load);
    }
    let stable = |decider: &mut Decider| decider.decide(after(9), &calm(1)).inputs.stable;
    assert_eq!(stable(&mut decider), Some(15.0));
    let weighted = spec(&[("metric-aggregation-algorithm", "weighted-exponential")]);
    decider.respec(after(9), weighted);
    let newest_counts_for_a_fifth = stable(&mut decider).is_some_and(|load| load > 18.0);
    assert!(newest_counts_for_a_fifth, "{:?}", stable(&mut decider));
}
