use super::*;
use crate::Aggregation::{Linear, WeightedExponential};

fn at(second: u64) -> Moment {
    Moment::from_secs(1_000_000 + second)
}

fn near(left: f64, right: f64) -> bool {
    (left - right).abs() < 1e-9
}

#[test]
fn one_sample_is_the_whole_linear_average() {
    let mut window = Window::new(Duration::from_mins(1));
    assert_eq!(window.record(at(0), 10.0), Written::Kept);
    assert!(near(window.average(at(0), Linear), 10.0));
    assert!(
        near(window.average(at(59), Linear), 10.0),
        "trailing silence is not zero"
    );
    assert!(near(window.average(at(60), Linear), 0.0));
}

#[test]
fn the_last_second_reads_as_zero_but_is_silent() {
    let mut window = Window::new(Duration::from_secs(6));
    window.record(at(0), 10.0);
    assert_eq!(
        (window.is_empty(at(5)), window.is_silent(at(5))),
        (false, false)
    );
    assert_eq!(
        (window.is_empty(at(6)), window.is_silent(at(6))),
        (false, true)
    );
    assert_eq!(
        (window.is_empty(at(7)), window.is_silent(at(7))),
        (true, true)
    );
}

#[test]
fn late_values_reach_their_own_second_or_are_refused() {
    let mut window = Window::new(Duration::from_secs(5));
    window.record(at(10), 5.0);
    assert_eq!(window.record(at(6), 5.0), Written::Kept);
    assert_eq!(window.record(at(5), 5.0), Written::TooOld);
    assert!(near(window.average(at(10), Linear), 2.0));
}

#[test]
fn weighted_average_prefers_the_newest() {
    let mut window = Window::new(Duration::from_secs(5));
    for second in 0..5u32 {
        window.record(at(u64::from(second)), f64::from(second) + 2.0);
    }
    assert!((window.average(at(4), WeightedExponential) - 5.812).abs() < 1e-3);
}

#[test]
fn resizing_keeps_the_newest_buckets() {
    let mut window = Window::new(Duration::from_secs(4));
    for (second, value) in [(0, 1.0), (1, 2.0), (2, 3.0), (3, 4.0)] {
        window.record(at(second), value);
    }
    window.resize(at(3), Duration::from_secs(2));
    assert!(near(window.average(at(3), Linear), 3.5));
    assert_eq!(window.length(), Duration::from_secs(2));
}

#[test]
fn works_at_the_epoch() {
    let mut window = Window::new(Duration::from_secs(5));
    window.record(Moment::from_secs(1), 4.0);
    window.resize(Moment::from_secs(1), Duration::from_secs(9));
    let newest = 4.0 * (1.0 - 0.0001f64.powf(1.0 / 9.0));
    assert!(near(
        window.average(Moment::from_secs(1), WeightedExponential),
        newest
    ));
    assert!(
        near(window.average(Moment::from_secs(1), Linear), 2.0),
        "counted from second 0"
    );
}
