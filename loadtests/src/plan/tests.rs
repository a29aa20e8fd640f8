use super::{Arrivals, Schedule, Stage, Stages};
use crate::unit::Rate;
use proptest::prelude::{Strategy, any, prop, prop_assert, prop_assert_eq, proptest};
use std::time::Duration;

fn stage(millis: u64, rate: f64) -> Stage {
    Stage {
        length: Duration::from_millis(millis),
        rate: Rate::new(rate).unwrap(),
    }
}

fn schedule(stages: Vec<Stage>, arrivals: Arrivals, seed: u64) -> Schedule {
    Schedule {
        stages,
        arrivals,
        seed,
        limit: None,
    }
}

#[test]
fn constant_arrivals_are_evenly_spaced_from_zero() {
    let plan = schedule(vec![stage(1_000, 4.0)], Arrivals::Constant, 0);
    let millis: Vec<_> = plan.instants().map(|due| due.as_millis()).collect();
    assert_eq!(millis, [0, 250, 500, 750]);
}

#[test]
fn stages_follow_each_other_and_a_pause_sends_nothing() {
    let plan = schedule(
        vec![stage(1_000, 2.0), stage(3_000, 0.0), stage(500, 10.0)],
        Arrivals::Constant,
        0,
    );
    let millis: Vec<_> = plan.instants().map(|due| due.as_millis()).collect();
    assert_eq!(millis, [0, 500, 4_000, 4_100, 4_200, 4_300, 4_400]);
}

#[test]
fn a_slow_stage_does_not_lose_its_fraction_to_the_next_one() {
    // 0.5 requests in each of four stages are two requests, not none and not four.
    let plan = schedule(vec![stage(1_000, 0.5); 4], Arrivals::Constant, 0);
    assert_eq!(plan.instants().count(), 2);
}

#[test]
fn the_limit_cuts_the_plan() {
    let plan = Schedule {
        limit: Some(3),
        ..schedule(vec![stage(1_000, 50.0)], Arrivals::Poisson, 7)
    };
    assert_eq!(plan.instants().count(), 3);
}

#[test]
fn poisson_gaps_have_the_mean_and_spread_of_exponential_draws() {
    let plan = schedule(vec![stage(100_000, 1_000.0)], Arrivals::Poisson, 42);
    let due: Vec<f64> = plan.instants().map(|due| due.as_secs_f64()).collect();
    let gaps: Vec<f64> = due.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let n = f64::from(u32::try_from(gaps.len()).unwrap());
    let mean = gaps.iter().sum::<f64>() / n;
    let deviation = (gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / n).sqrt();
    assert!((n - 100_000.0).abs() < 1_500.0, "{n} arrivals"); // five standard deviations are 1,581
    assert!((mean - 0.001).abs() < 0.000_02, "mean gap {mean}");
    assert!(
        (deviation / mean - 1.0).abs() < 0.03,
        "coefficient of variation {}",
        deviation / mean
    );
}

#[test]
fn stages_are_read_as_typed() {
    let stages: Stages = "30s@50,500ms@0,1m@200.5".parse().unwrap();
    assert_eq!(
        stages.0,
        [stage(30_000, 50.0), stage(500, 0.0), stage(60_000, 200.5)]
    );
    for text in [
        "", "30s", "30@5", "30s@", "30s@x", "30s@1e9", "0s@5", "30s@5,", "@5",
    ] {
        assert!(text.parse::<Stages>().is_err(), "{text}");
    }
}

fn any_schedule() -> impl Strategy<Value = Schedule> {
    let stage = (
        1_u64..2_000,
        prop::sample::select(vec![0.0, 0.3, 7.0, 333.3, 2_000.0]),
    )
        .prop_map(|(m, r)| stage(m, r));
    (
        prop::collection::vec(stage, 1..6),
        any::<bool>(),
        any::<u64>(),
    )
        .prop_map(|(stages, poisson, seed)| {
            schedule(
                stages,
                if poisson {
                    Arrivals::Poisson
                } else {
                    Arrivals::Constant
                },
                seed,
            )
        })
}

proptest! {
    #[test]
    fn instants_never_go_back_and_stay_inside_the_stages(plan in any_schedule()) {
        let due: Vec<_> = plan.instants().collect();
        prop_assert!(due.is_sorted());
        prop_assert!(due.last().is_none_or(|last| *last <= plan.length()));
    }

    #[test]
    fn the_same_schedule_gives_the_same_instants(plan in any_schedule()) {
        prop_assert_eq!(plan.instants().collect::<Vec<_>>(), plan.clone().instants().collect::<Vec<_>>());
    }

    #[test]
    fn no_instant_falls_into_a_pause(plan in any_schedule()) {
        let mut began = Duration::ZERO;
        for stage in &plan.stages {
            let ended = began + stage.length;
            let margin = Duration::from_nanos(10);
            if stage.rate.is_pause() {
                prop_assert!(!plan.instants().any(|due| due > began + margin && due + margin < ended));
            }
            began = ended;
        }
    }

    #[test]
    fn constant_arrivals_number_what_the_rates_promise(plan in any_schedule()) {
        let plan = Schedule { arrivals: Arrivals::Constant, ..plan };
        let load: f64 = plan.stages.iter().map(|s| s.length.as_secs_f64() * s.rate.per_second()).sum();
        let count = f64::from(u32::try_from(plan.instants().count()).unwrap());
        prop_assert!((count - load.ceil()).abs() <= 1.0, "{count} for {load}");
    }
}
