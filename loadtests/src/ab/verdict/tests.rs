use super::*;
use crate::ab::machine::Usage;
use crate::ab::plan::Arm;
use proptest::prelude::*;
use std::time::Duration;

fn row_of(ratio: f64, low: f64, high: f64) -> Row {
    Row {
        figure: Figure::P99,
        blocks: 12,
        ratio: Some(ratio),
        interval: Some(Interval { low, high }),
    }
}

fn few(blocks: usize) -> Row {
    Row {
        figure: Figure::P99,
        blocks,
        ratio: (blocks > 0).then_some(1.0),
        interval: None,
    }
}

fn throughput(per_second: f64) -> Sums {
    let mut sums = Sums {
        requests: 1_000,
        seconds: 1_000.0 / per_second,
        planned: 1_000.0 / per_second,
        ..Sums::default()
    };
    (0..1_000).for_each(|_| sums.latency.record(Duration::from_millis(1)));
    sums
}

#[test]
fn a_claim_needs_the_whole_interval_on_one_side() {
    let null = [row_of(1.0, 0.98, 1.03)];
    for (low, high, outcome) in [
        (1.01, 1.2, Outcome::Higher),
        (0.8, 0.99, Outcome::Lower),
        (0.99, 1.2, Outcome::NoneShown),
        (1.0, 1.2, Outcome::NoneShown),
        (1.1, f64::INFINITY, Outcome::Higher),
    ] {
        let verdict = Verdict::of(&row_of(f64::midpoint(low, high), low, high), &null);
        assert_eq!(verdict.outcome, outcome, "{verdict:?}");
    }
}

#[test]
fn nothing_is_claimed_if_a_is_not_itself() {
    let clear = row_of(2.0, 1.9, 2.1);
    for (null, words) in [
        (row_of(1.02, 1.001, 1.04), "differs from itself"),
        (row_of(0.98, 0.96, 0.999), "differs from itself"),
        (row_of(1.0, 0.94, 1.01), "more than 5 %"),
        (row_of(1.0, 0.99, 1.06), "more than 5 %"),
        (row_of(1.0, 0.99, f64::INFINITY), "more than 5 %"),
        (few(0), "no block of a against itself"),
        (few(5), "5 blocks"),
    ] {
        let verdict = Verdict::of(&clear, &[null]);
        assert_eq!(verdict.outcome, Outcome::NoClaim);
        assert!(verdict.words.contains(words), "{verdict:?}");
    }
    let good = [row_of(1.0, 0.951, 1.049)];
    assert_eq!(Verdict::of(&clear, &good).outcome, Outcome::Higher);
    assert_eq!(Verdict::of(&few(5), &good).outcome, Outcome::NoClaim);
    assert_eq!(Verdict::of(&clear, &[]).outcome, Outcome::NoClaim);
}

#[test]
fn a_difference_of_a_from_itself_in_one_figure_voids_all() {
    let (clear, good) = (row_of(2.0, 1.9, 2.1), row_of(1.0, 0.99, 1.01));
    let of_cpu = |low, high| Row {
        figure: Figure::Cpu,
        ..row_of(1.0, low, high)
    };
    let verdict = Verdict::of(&clear, &[good.clone(), of_cpu(1.001, 1.02)]);
    assert_eq!(verdict.outcome, Outcome::NoClaim);
    assert!(verdict.words.contains("in cpu, 1.001"), "{verdict:?}");
    // That it is uncertain in one says nothing of the others.
    let verdict = Verdict::of(&clear, &[good, of_cpu(0.8, 1.2)]);
    assert_eq!(verdict.outcome, Outcome::Higher);
}

/// By hand from the coins, as in tables of the sign test: of 12 the third and the tenth.
#[test]
fn the_ends_are_those_of_the_sign_test() {
    for (count, left_out) in [
        (0, None),
        (5, None),
        (6, Some(0)),
        (8, Some(0)),
        (9, Some(1)),
        (12, Some(2)),
        (20, Some(5)),
        (100, Some(39)),
        (1_000, Some(468)),
    ] {
        assert_eq!(beyond(count), left_out, "{count}");
    }
    let ratios: Vec<_> = (1..=12).map(f64::from).collect();
    let Interval { low, high } = interval(&ratios).unwrap();
    assert!((low - 3.0).abs() + (high - 10.0).abs() < 1e-9);
}

/// Of many runs of six blocks in which there is no difference, at most one in twenty claims one.
#[test]
fn where_there_is_no_difference_few_runs_find_one() {
    let mut dice = crate::plan::SplitMix(7);
    let wrong = (0..4_000).filter(|_| {
        // Ratios with a median of 1 and long tails.
        let mut ratios: Vec<_> = (0..6)
            .map(|_| {
                let half = f64::from(u32::try_from(dice.below(1_000_000)).unwrap()) / 1e6 - 0.5;
                (4.0 * half / (0.26 - half * half)).exp()
            })
            .collect();
        ratios.sort_unstable_by(f64::total_cmp);
        let Interval { low, high } = interval(&ratios).unwrap();
        low > 1.0 || high < 1.0
    });
    let wrong = wrong.count();
    assert!((60..200).contains(&wrong), "{wrong} of 4000");
}

#[test]
fn a_limit_is_met_by_what_is_shown_and_by_nothing_else() {
    let limit: Limit = "p99<1.1".parse().unwrap();
    let good = [row_of(1.0, 0.99, 1.01)];
    for (row, nulls, met, words) in [
        (row_of(1.0, 0.9, 1.09), &good, true, ""),
        (row_of(1.0, 0.9, 1.2), &good, false, "may be kept or not"),
        (row_of(1.3, 1.2, 1.4), &good, false, "not kept"),
        (row_of(1.0, 0.9, 1.0), &[few(3)], false, "nothing shows it"),
    ] {
        let kept = limit.judge(&[row], nulls);
        assert_eq!(kept.met, met, "{kept:?}");
        assert!(kept.words.contains(words), "{kept:?}");
    }
}

#[test]
fn limits_are_read_as_typed() {
    let Limits(read) = "cpu<0.9, throughput>0.95".parse().unwrap();
    assert_eq!((read[0].figure, read[0].side), (Figure::Cpu, Side::Below));
    assert_eq!(
        (read[1].figure, read[1].side),
        (Figure::Throughput, Side::Above)
    );
    for text in [
        "", "p99", "p99<", "p999<1", "p99<0", "p99<nan", "p99<1,", "p99=1",
    ] {
        let error = text.parse::<Limits>().expect_err(text);
        assert!(error.contains("such as"), "{error}");
    }
}

#[test]
fn blocks_are_rejected_by_what_the_machine_and_the_tool_did() {
    let calm = Usage {
        steal: Some(0.01),
        foreign: Some(0.02),
        ..Usage::default()
    };
    let stolen = Usage {
        steal: Some(0.02),
        ..calm.clone()
    };
    let crowded = Usage {
        foreign: Some(0.021),
        ..calm.clone()
    };
    let good = throughput(100.0);
    let mut late = good.clone();
    late.lag.record(Duration::from_micros(150));
    let mut moved = good.clone();
    moved.lost = moved.seconds * 0.011;
    let reasons = |usages: &[Usage], a: &Sums| reject::reasons(usages, &[(Arm::A, a.clone())]);
    assert_eq!(reasons(&[calm.clone(), calm.clone()], &good), [""; 0]);
    for (reasons, words) in [
        (reasons(&[calm.clone(), stolen], &good), "steal 2.0 %"),
        (
            reasons(&[crowded.clone(), crowded], &good),
            "other processes took 2.1 %",
        ),
        (
            reasons(std::slice::from_ref(&calm), &late),
            "a: lag p99 150 us",
        ),
        (
            reasons(&[calm], &moved),
            "a: the tool stood still for 1.1 %",
        ),
    ] {
        assert_eq!(reasons.len(), 1, "{reasons:?}");
        assert!(reasons[0].contains(words), "{reasons:?}");
    }
}

proptest! {
    // Each case records some ten thousand requests.
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// However much the machine changes from block to block, B that is so many times A is found to be that, exactly.
    #[test]
    fn what_happens_to_both_cancels(
        speeds in prop::collection::vec(10.0..1_000.0_f64, 6..20),
        factor in 0.5..2.0_f64,
    ) {
        let pairs: Vec<_> = speeds.iter().map(|speed| (throughput(*speed), throughput(speed * factor))).collect();
        let found = row(Figure::Throughput, &pairs);
        let interval = found.interval.unwrap();
        for end in [found.ratio.unwrap(), interval.low, interval.high] {
            prop_assert!((end / factor - 1.0).abs() < 1e-9);
        }
    }

    /// The median is inside its interval, and changing A for B turns all of it over: no arm is favoured.
    #[test]
    fn neither_side_is_favoured(
        speeds in prop::collection::vec((10.0..1_000.0_f64, 10.0..1_000.0_f64), 6..20),
    ) {
        let pairs: Vec<_> = speeds.iter().map(|(a, b)| (throughput(*a), throughput(*b))).collect();
        let turned: Vec<_> = pairs.iter().map(|(a, b)| (b.clone(), a.clone())).collect();
        let (one, other) = (row(Figure::Throughput, &pairs), row(Figure::Throughput, &turned));
        let interval = one.interval.unwrap();
        prop_assert!(interval.low <= one.ratio.unwrap() && one.ratio.unwrap() <= interval.high);
        let null = [Row { figure: Figure::Throughput, ..row_of(1.0, 0.99, 1.01) }];
        let (said, turned) = (Verdict::of(&one, &null).outcome, Verdict::of(&other, &null).outcome);
        prop_assert!(!(said == Outcome::Higher && turned == Outcome::Higher));
        prop_assert!(!(said == Outcome::Lower && turned == Outcome::Lower));
    }

    /// Fewer blocks than have an interval are told, without a claim.
    #[test]
    fn few_blocks_have_no_interval(count in 0..LEAST_BLOCKS) {
        let pairs = vec![(throughput(100.0), throughput(200.0)); count];
        let found = row(Figure::Throughput, &pairs);
        prop_assert_eq!((found.blocks, found.interval), (count, None));
        prop_assert_eq!(found.ratio.is_some(), count > 0);
    }
}
