//! What holds for every input.

use std::time::Duration;

use autoscaler_core::{
    Averages, Decider, Decision, Kpa, Mode, Moment, Observed, Reason, Replicas, Sample, StartClass,
    TICK, TargetSpec,
};
use proptest::prelude::*;

use crate::operations;
use crate::support::{START, calm, spec};

fn scaled(min: u32, max: u32) -> TargetSpec {
    TargetSpec {
        min_scale: Replicas(min),
        max_scale: (max > 0).then_some(Replicas(max)),
        ..spec(&[])
    }
}

fn observed() -> impl Strategy<Value = Observed> {
    (
        0..50u32,
        0..10u32,
        0..60u32,
        0..3u64,
        prop::option::of(0..3u64),
        any::<bool>(),
    )
        .prop_map(
            |(ready, starting, current, held, open, reachable)| Observed {
                ready: Replicas(ready),
                starting: Replicas(starting),
                current: Replicas(current),
                held,
                open,
                reachable,
                ..Observed::default()
            },
        )
}

/// Samples that scale together, and what a decider says of them that knows its starts and requests.
fn asked(sample: Sample, seconds: u64, seen: &Observed) -> Decision {
    let mut decider = Decider::new(spec(&[]), START, seen.ready);
    decider.learn_start(&class(), Duration::from_secs(40));
    for second in 0..seconds {
        decider.record(START + Duration::from_secs(second), sample);
    }
    decider.decide(START + Duration::from_secs(seconds), seen)
}

fn class() -> StartClass {
    StartClass {
        template: "t".into(),
        image_present: true,
    }
}

proptest! {
    #[test]
    fn no_list_of_operations_breaks_it(bytes in prop::collection::vec(any::<u8>(), 0..4000)) {
        operations::check(&bytes);
    }

    #[test]
    fn more_load_never_asks_for_less_while_pods_start(
        ready in 0..20u32, starting in 0..20u32, overdue in 0..5u32, age in 0..100u64,
        (load, waits) in (0.0..500.0f64, 0.0..1.0f64), more in 1.0..10.0f64, seconds in 2..60u64,
    ) {
        let seen = Observed {
            starting: Replicas(starting),
            overdue: Replicas(overdue.min(starting)),
            ahead: Duration::from_secs(age * u64::from(starting)),
            current: Replicas(ready + starting),
            ..calm(ready)
        };
        let sample = Sample { concurrency: load, waiting: load * waits, requests: load / 2.0, ended: load / 4.0 };
        let less = asked(sample, seconds, &seen);
        let more = asked(sample.times(more), seconds, &seen);
        prop_assert!(less.want <= more.want, "{less}\n{more}");
    }

    #[test]
    fn never_more_than_twice_of_what_knative_would_ask(
        ready in 0..20u32, starting in 0..20u32, failed in 0..5u32,
        sample in (0.0..500.0f64, 0.0..1.0f64, 0.0..500.0f64, 0.0..500.0f64), seconds in 2..60u64,
    ) {
        let (load, waits, requests, ended) = sample;
        let seen = Observed {
            starting: Replicas(starting),
            failed: Replicas(failed),
            current: Replicas(ready + starting + failed),
            ..calm(ready)
        };
        let sample = Sample { concurrency: load, waiting: load * waits, requests, ended };
        let decision = asked(sample, seconds, &seen);
        let averages = decision.inputs.stable.zip(decision.inputs.panic);
        let average = averages.map_or(0.0, |(stable, panic)| stable.max(panic));
        let knative = Replicas::from_f64((average / decision.inputs.target).ceil()).get();
        let most = if ready == 0 { knative * 2 } else { knative };
        // A decider that begins with several pods keeps them for a while, and one decision takes at most half.
        let most = most.max(seen.current.get()).max(1);
        prop_assert!(decision.want <= Some(Replicas(most)), "{decision}");
    }

    #[test]
    fn bounds_are_respected(
        (min, max) in (0..20u32).prop_flat_map(|min| (Just(min), min.max(1)..40)),
        steps in prop::collection::vec((0.0..5000.0f64, observed()), 1..60),
    ) {
        let spec = scaled(min, max);
        let mut decider = Decider::new(spec.clone(), START, Replicas(0));
        let mut now = START;
        for (concurrency, seen) in steps {
            decider.record(now, Sample { concurrency, ..Sample::default() });
            let decision = decider.decide(now, &seen);
            let want = decision.want.unwrap_or(seen.current);
            if decision.reason != Reason::Held {
                prop_assert!(want <= Replicas(max), "{decision}");
                prop_assert!(want >= spec.lower_bound(seen.reachable), "{decision}");
            }
            now = now + TICK;
        }
    }

    #[test]
    fn zero_needs_everything_quiet(steps in prop::collection::vec((0.0..0.6f64, observed()), 1..200)) {
        let mut decider = Decider::new(spec(&[("window", "6s")]), START, Replicas(0));
        let mut now = START;
        for (concurrency, seen) in steps {
            decider.record(now, Sample { concurrency: concurrency.round(), ..Sample::default() });
            let decision = decider.decide(now, &seen);
            if decision.want == Some(Replicas(0)) && !seen.current.is_zero() {
                prop_assert!(seen.held == 0 && seen.open == Some(0) && seen.starting.is_zero(), "{decision}");
                prop_assert_eq!(decision.reason, Reason::ToZero);
            }
            if seen.held > 0 {
                prop_assert!(decision.want.is_none_or(|want| want >= seen.current), "{decision}");
            }
            now = now + Duration::from_secs(20);
        }
    }

    #[test]
    fn more_load_never_asks_for_less(
        ready in 0..100u32, low in 0.0..10_000.0f64, more in 0.0..10_000.0f64, reachable: bool,
    ) {
        let spec = spec(&[("activation-scale", "3")]);
        let ask = |load: f64| {
            let mut kpa = Kpa::new(&spec, START, Replicas(ready));
            kpa.evaluate(START, &spec, Replicas(ready), reachable, Averages { stable: load, panic: load })
        };
        let (less, more) = (ask(low), ask(low + more));
        prop_assert!(less.desired <= more.desired, "{less:?} {more:?}");
        prop_assert!(less.burst_headroom >= more.burst_headroom, "{less:?} {more:?}");
    }

    #[test]
    fn steady_load_settles_and_stays(concurrency in 0.5..5000.0f64, ready in 1..40u32) {
        let spec = spec(&[]);
        let mut decider = Decider::new(spec.clone(), START, Replicas(ready));
        let mut pods = ready;
        let mut counts = Vec::new();
        for second in 0..600u64 {
            let now = START + Duration::from_secs(second);
            decider.record(now, Sample { concurrency, ..Sample::default() });
            if second % 2 == 1 {
                pods = decider.decide(now, &calm(pods)).want.expect("there is data").get();
                counts.push(pods);
            }
        }
        let settled = Replicas::from_f64((concurrency / spec.target).ceil()).get();
        prop_assert!(counts[200..].iter().all(|&count| count == settled), "{settled}: {counts:?}");
    }

    #[test]
    fn panic_never_scales_down(steps in prop::collection::vec((0.0..3000.0f64, 0..50u32), 2..200)) {
        let mut decider = Decider::new(spec(&[]), START, Replicas(0));
        let mut now = START;
        let mut before: Option<Replicas> = None;
        for (concurrency, ready) in steps {
            decider.record(now, Sample { concurrency, ..Sample::default() });
            let decision = decider.decide(now, &calm(ready));
            let desired = decision.desired.expect("there is data");
            if decision.mode == Mode::Panic {
                prop_assert!(before.is_none_or(|before| desired >= before), "{decision}");
                before = Some(desired);
            } else {
                before = None;
            }
            now = now + TICK;
        }
    }

    #[test]
    fn idle_reaches_zero_in_finite_time(
        loads in prop::collection::vec(0.0..2000.0f64, 0..100), ready in 0..200u32,
    ) {
        let mut decider = Decider::new(spec(&[]), START, Replicas(ready));
        let mut pods = ready;
        let mut now = START;
        // A few halvings, a panic, two windows and the grace period.
        let idle = std::iter::repeat_n(0.0, 300);
        for concurrency in loads.into_iter().chain(idle) {
            decider.record(now, Sample { concurrency, ..Sample::default() });
            now = now + TICK;
            pods = decider.decide(now, &calm(pods)).want.map_or(pods, Replicas::get);
        }
        prop_assert_eq!(pods, 0);
    }

    #[test]
    fn nothing_makes_it_panic(
        steps in prop::collection::vec((any::<u64>(), any::<u64>(), any::<f64>(), any::<f64>(), any::<u32>()), 1..50),
    ) {
        let mut spec = spec(&[("scale-down-delay", "1h"), ("window", "1h")]);
        let mut decider = Decider::new(spec.clone(), Moment::MAX, Replicas(9));
        for (at, now, concurrency, requests, pods) in steps {
            decider.record(Moment::from_nanos(at), Sample { concurrency, requests, ..Sample::default() });
            spec.stable_window = Duration::from_secs(at % 7200);
            decider.respec(Moment::from_nanos(now), spec.clone());
            let decision = decider.decide(Moment::from_nanos(now), &calm(pods));
            prop_assert!(!decision.to_string().is_empty());
            prop_assert!(decision.inputs.stable.is_none_or(|stable| stable >= 0.0));
        }
    }
}
