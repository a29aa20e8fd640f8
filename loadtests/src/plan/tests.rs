use super::{Arrivals, Schedule, Shape, Shard, Stage, Stages};
use crate::unit::Rate;
use proptest::prelude::{Strategy, any, prop, prop_assert, prop_assert_eq, proptest};
use std::time::Duration;

fn stage(millis: u64, rate: f64) -> Stage {
    Stage::constant(Duration::from_millis(millis), Rate::new(rate).unwrap())
}

fn schedule(stages: Vec<Stage>, arrivals: Arrivals, seed: u64) -> Schedule {
    Schedule {
        arrivals,
        seed,
        ..Schedule::of_stages(stages)
    }
}

fn typed(stages: &str) -> Vec<Stage> {
    stages.parse::<Stages>().unwrap().0
}

fn due(stages: &str) -> Vec<f64> {
    let plan = schedule(typed(stages), Arrivals::Constant, 0);
    plan.instants().map(|due| due.as_secs_f64()).collect()
}

fn in_between(due: &[f64], from: f64, to: f64) -> usize {
    due.iter().filter(|at| (from..to).contains(*at)).count()
}

#[test]
fn a_ramp_goes_up_and_down_in_a_straight_line() {
    for (stages, quarters) in [
        ("4s@0..400", [50, 150, 250, 350]),
        ("4s@400..0", [350, 250, 150, 50]),
        ("4s@100..300", [125, 175, 225, 275]),
        ("4s@100..100", [100; 4]),
    ] {
        let due = due(stages);
        for (quarter, want) in (0_u32..).zip(quarters) {
            let from = f64::from(quarter);
            let got = in_between(&due, from, from + 1.0);
            assert!(got.abs_diff(want) <= 1, "{stages}: {quarter}: {got}");
        }
    }
}

#[test]
fn steps_are_of_equal_length_and_height() {
    let due = due("4s@50..200/4");
    let counts = [0.0, 1.0, 2.0, 3.0].map(|from| in_between(&due, from, from + 1.0));
    assert_eq!(counts, [50, 100, 150, 200]);
    let due = self::due("2s@0..100/2");
    assert_eq!((in_between(&due, 0.0, 1.0), due.len()), (0, 100));
}

#[test]
fn a_sine_swings_around_its_mean() {
    let due = due("8s@100~100/4s");
    assert_eq!(due.len(), 800);
    // Of a half turn, 2 A T / (2 pi) more or less than the mean: 127 of 200.
    for (from, want) in [(0.0, 327), (2.0, 73), (4.0, 327), (6.0, 73)] {
        let got = in_between(&due, from, from + 2.0);
        assert!(got.abs_diff(want) <= 1, "{from}: {got}");
    }
    let due = self::due("1s@100~50/4s");
    assert!(
        due.len().abs_diff(132) <= 1,
        "a part of a turn: {}",
        due.len()
    );
}

#[test]
fn bursts_come_all_at_once_the_first_at_once() {
    let due = due("5s@2+10/2s");
    for at in [0.0, 2.0, 4.0] {
        let exactly = due.iter().filter(|d| (**d - at).abs() < 1e-9).count();
        // The next one after a burst is due at the same moment, as the first of a constant rate is.
        assert!((10..=11).contains(&exactly), "{at}: {exactly}");
    }
    assert_eq!(due.len(), 40);
    assert_eq!(self::due("1s@0+5/1s"), [0.0; 5]);
    assert_eq!(
        self::due("2.1s@0+5/300ms").len(),
        35,
        "a part of a period begins none"
    );
}

#[test]
fn gamma_gaps_are_as_irregular_as_they_are_asked_to_be() {
    for variation in [0.3, 3.0] {
        let plan = Schedule {
            variation,
            ..schedule(vec![stage(200_000, 1_000.0)], Arrivals::Gamma, 42)
        };
        let due: Vec<f64> = plan.instants().map(|due| due.as_secs_f64()).collect();
        let gaps: Vec<f64> = due.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let n = f64::from(u32::try_from(gaps.len()).unwrap());
        let mean = gaps.iter().sum::<f64>() / n;
        let deviation = (gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / n).sqrt();
        assert!((mean - 0.001).abs() < 0.000_03, "mean gap {mean}");
        assert!(
            (deviation / mean / variation - 1.0).abs() < 0.03,
            "{variation}"
        );
    }
}

#[test]
fn irregular_gaps_do_not_make_more_arrivals() {
    for variation in [0.3, 5.0] {
        let counts = (0..3_000).map(|seed| {
            let plan = Schedule {
                variation,
                ..schedule(vec![stage(1_000, 100.0)], Arrivals::Gamma, seed)
            };
            plan.instants().count()
        });
        let mean = f64::from(u32::try_from(counts.sum::<usize>()).unwrap()) / 3_000.0;
        // Four standard errors of the more irregular one; as many as 12 too many came once.
        assert!((mean - 100.0).abs() < 3.7, "{variation}: {mean}");
    }
}

#[test]
fn a_warm_up_is_at_the_rate_that_comes_first() {
    let length = Duration::from_secs(3);
    for (stages, rate) in [
        ("1s@0,1s@7", 7.0),
        ("1s@5..9", 5.0),
        ("1s@0..8", 4.0),
        ("1s@5..9/3", 5.0),
        ("1s@6~3/1s", 6.0),
        ("2s@3+9/1s", 3.0),
        ("2s@0+9/1s", 9.0),
    ] {
        let plan = Schedule {
            limit: Some(1),
            ..Schedule::of_stages(typed(stages))
        };
        let warmup = plan.warmup(length).expect(stages);
        let wanted = Stage::constant(length, Rate::new(rate).unwrap());
        assert_eq!(
            warmup.timing,
            super::Timing::Stages(vec![wanted]),
            "{stages}"
        );
        assert_eq!(warmup.limit, None);
        assert!(plan.warmup(Duration::ZERO).is_none());
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
fn the_load_until_an_instant_is_that_of_the_requests_before_it() {
    for text in [
        "8s@50",
        "8s@0..100",
        "8s@90..10",
        "8s@10..40/4",
        "8s@50~50/3s",
        "8s@5+40/2s",
        "8s@0+7/3s",
    ] {
        let (stage, due) = (typed(text)[0], due(text));
        let whole = stage.load_until(100.0);
        assert!((whole - stage.load()).abs() < 1e-6, "{text}: {whole}");
        for at in [0.0, 0.3, 1.0, 2.0, 3.7, 6.0, 7.99] {
            let before = due.iter().filter(|due| **due < at - 1e-9).count();
            let load = stage.load_until(at);
            let off = load - f64::from(u32::try_from(before).unwrap());
            assert!(off.abs() <= 1.0, "{text} at {at}: {load} and {before}");
        }
    }
}

#[test]
fn shards_are_the_schedule_dealt_out_one_by_one() {
    for (stages, arrivals, limit) in [
        ("2s@0..100,1s@0,2s@40~30/1s", Arrivals::Constant, None),
        ("3s@10+30/1s", Arrivals::Poisson, Some(60)),
        ("3s@100", Arrivals::Gamma, Some(7)),
        ("1s@1", Arrivals::Constant, None),
    ] {
        let whole = Schedule {
            limit,
            variation: 3.0,
            ..schedule(typed(stages), arrivals, 5)
        };
        for of in [1, 2, 3, 7] {
            let shard = |index| Schedule {
                shard: Some(Shard::new(index, of).unwrap()),
                ..whole.clone()
            };
            let mut all: Vec<_> = (0..of)
                .flat_map(|index| shard(index).numbered().collect::<Vec<_>>())
                .collect();
            all.sort_unstable();
            let planned: Vec<_> = (0..).zip(whole.instants()).collect();
            assert_eq!(all, planned, "{stages} in {of}");
        }
    }
}

#[test]
fn warm_ups_of_shards_are_the_warm_up_of_the_whole_and_leave_the_numbers_as_they_were() {
    let whole = schedule(typed("1s@20"), Arrivals::Poisson, 3);
    let length = Duration::from_secs(1);
    let warm = |schedule: &Schedule| schedule.warmup(length).unwrap();
    let planned: Vec<_> = (0..).zip(warm(&whole).instants()).collect();
    let mut all = Vec::new();
    for index in 0..3 {
        let shard = Schedule {
            shard: Some(Shard::new(index, 3).unwrap()),
            ..whole.clone()
        };
        assert_eq!(warm(&shard).whole().instants().count(), planned.len());
        all.extend(warm(&shard).numbered());
    }
    all.sort_unstable();
    assert_eq!(all, planned);
}

#[test]
fn stages_are_read_as_typed() {
    let stages: Stages = "30s@50,500ms@0,1m@200.5".parse().unwrap();
    assert_eq!(
        stages.0,
        [stage(30_000, 50.0), stage(500, 0.0), stage(60_000, 200.5)]
    );
    for shape in ["50", "0.5..200", "50..200/4", "100~50/60s", "10+200/15s"] {
        let read: Shape = shape.parse().unwrap();
        assert_eq!(read.to_string(), shape);
    }
    for text in [
        "",
        "30s",
        "30@5",
        "30s@",
        "30s@x",
        "30s@1e9",
        "0s@5",
        "30s@5,",
        "@5",
        "1s@5..",
        "1s@..5",
        "1s@5..9/1",
        "1s@5..9/x",
        "1s@5~2",
        "1s@5~6/1s",
        "1s@5~2/0s",
        "1s@5+2",
        "1s@5+0/1s",
        "1s@5+2/0s",
        "1s@5+2000000/1s",
        "1s@-5..5",
    ] {
        let error = text.parse::<Stages>().expect_err(text);
        assert!(
            !error.is_empty() && !error.contains('\n'),
            "{text}: {error}"
        );
    }
}

fn any_schedule() -> impl Strategy<Value = Schedule> {
    let stage = (
        1_u64..2_000,
        prop::sample::select(vec![
            "0",
            "0.3",
            "7",
            "333.3",
            "2000",
            "0..70",
            "300..0",
            "5..400/3",
            "0..9/2",
            "100~100/70ms",
            "9~3/1s",
            "0+50/90ms",
            "7+1/1s",
        ]),
    )
        .prop_map(|(millis, shape)| Stage {
            length: Duration::from_millis(millis),
            shape: shape.parse().unwrap(),
        });
    (
        prop::collection::vec(stage, 1..6),
        prop::sample::select(vec![Arrivals::Constant, Arrivals::Poisson, Arrivals::Gamma]),
        prop::sample::select(vec![0.1, 1.0, 5.0]),
        any::<u64>(),
    )
        .prop_map(|(stages, arrivals, variation, seed)| Schedule {
            variation,
            ..schedule(stages, arrivals, seed)
        })
}

fn stages(plan: &Schedule) -> &[Stage] {
    match &plan.timing {
        super::Timing::Stages(stages) => stages,
        super::Timing::Trace(_) => panic!("these have stages"),
    }
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
        for stage in stages(&plan) {
            let ended = began + stage.length;
            let margin = Duration::from_nanos(10);
            if stage.is_pause() {
                prop_assert!(!plan.instants().any(|due| due > began + margin && due + margin < ended));
            }
            began = ended;
        }
    }

    #[test]
    fn constant_arrivals_number_what_the_rates_promise(plan in any_schedule()) {
        let plan = Schedule { arrivals: Arrivals::Constant, ..plan };
        let load: f64 = stages(&plan).iter().map(Stage::load).sum();
        let count = f64::from(u32::try_from(plan.instants().count()).unwrap());
        prop_assert!((count - load.ceil()).abs() <= 1.0, "{count} for {load}");
    }
    /// What a stage says of its load is what has passed when it says so.
    #[test]
    fn load_and_time_are_each_other_s_inverse(plan in any_schedule()) {
        for stage in stages(&plan).iter().filter(|stage| !stage.is_pause()) {
            let mut before = 0.0;
            for part in [0.0, 0.1, 0.37, 0.5, 0.93, 0.999] {
                let at = stage.due(part * stage.load());
                prop_assert!(at >= before && at <= stage.length.as_secs_f64());
                before = at;
                let so_far = Stage { length: Duration::from_secs_f64(at), ..*stage };
                // Those of a ramp and of steps depend on the length of the whole.
                if matches!(stage.shape, Shape::Constant(_) | Shape::Sine { .. }) {
                    let load = so_far.load();
                    prop_assert!((load - part * stage.load()).abs() < 1e-3, "{} {part}: {load}", stage);
                }
            }
        }
    }
}
