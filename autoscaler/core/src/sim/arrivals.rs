//! When requests arrive.

use std::time::Duration;

use rand::RngExt as _;
use rand_distr::{Distribution as _, Exp1};

use super::dice::{Dice, Purpose, dice};
use crate::Moment;

/// Requests that one simulation looks at. More are cut off, so that a slip of the pen in a rate does not take all memory; see
/// [`Shape::expected`].
pub const MOST: usize = 5_000_000;

/// How many requests arrive when.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// Always as many per second.
    Constant {
        /// Requests per second.
        rate: f64,
    },
    /// From one rate to another in a straight line, over the whole time.
    Ramp {
        /// Requests per second at the beginning.
        from: f64,
        /// Requests per second at the end.
        to: f64,
    },
    /// One rate, and for a while another.
    Burst {
        /// Requests per second before and after.
        rate: f64,
        /// Requests per second meanwhile.
        peak: f64,
        /// When it begins.
        at: Duration,
        /// How long it lasts.
        lasts: Duration,
    },
    /// Load and silence in turn, load first.
    OnOff {
        /// Requests per second while there is load.
        rate: f64,
        /// How long there is load.
        on: Duration,
        /// How long there is none.
        off: Duration,
    },
    /// Requests of each minute, spread over it evenly or by chance: what public traces of serverless platforms hold.
    Minutes(Vec<u64>),
    /// The very moments, counted from the beginning; in any order.
    At(Vec<Duration>),
    /// All of several together.
    Sum(Vec<Self>),
}

/// How requests of one rate follow each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Spacing {
    /// Independently of each other, as those of many users do.
    #[default]
    Poisson,
    /// Evenly.
    Even,
}

impl Shape {
    /// How many requests to expect within `length`.
    pub fn expected(&self, length: Duration) -> f64 {
        match self {
            Self::At(moments) => to_f64(moments.len() as u64),
            Self::Minutes(counts) => {
                let minutes = length.as_secs().div_ceil(60);
                let within = counts.iter().zip(0..minutes);
                within.map(|(count, _)| to_f64(*count)).sum()
            }
            Self::Sum(shapes) => shapes.iter().map(|shape| shape.expected(length)).sum(),
            rates => {
                let corners = rates.corners(length);
                let area = |pair: &[(f64, f64)]| {
                    f64::midpoint(pair[0].1, pair[1].1) * (pair[1].0 - pair[0].0)
                };
                corners.windows(2).map(area).sum()
            }
        }
    }

    /// Every arrival within `length`, in order; at most [`MOST`].
    pub(super) fn arrivals(&self, spacing: Spacing, length: Duration, seed: u64) -> Vec<Moment> {
        let mut all = Vec::new();
        self.collect(spacing, length, seed, 0, &mut all);
        all.sort_unstable();
        all.truncate(MOST);
        all
    }

    fn collect(
        &self,
        spacing: Spacing,
        length: Duration,
        seed: u64,
        thing: u64,
        into: &mut Vec<Moment>,
    ) {
        let mut dice = dice(seed, Purpose::Arrivals, thing);
        match self {
            Self::At(moments) => {
                let within = moments.iter().filter(|at| **at < length);
                into.extend(within.map(|at| Moment::EPOCH + *at));
            }
            Self::Minutes(counts) => minutes(counts, spacing, length, &mut dice, into),
            Self::Sum(shapes) => {
                for (number, shape) in (1u64..).zip(shapes) {
                    let thing = thing.wrapping_mul(64).wrapping_add(number);
                    shape.collect(spacing, length, seed, thing, into);
                }
            }
            rates => along(&rates.corners(length), spacing, &mut dice, into),
        }
    }

    /// The rate as a line: seconds and requests per second, in order. Two corners at one second are a step.
    fn corners(&self, length: Duration) -> Vec<(f64, f64)> {
        let end = length.as_secs_f64();
        match *self {
            Self::Constant { rate } => vec![(0.0, rate), (end, rate)],
            Self::Ramp { from, to } => vec![(0.0, from), (end, to)],
            Self::Burst {
                rate,
                peak,
                at,
                lasts,
            } => {
                let begin = at.as_secs_f64().min(end);
                let over = (at + lasts).as_secs_f64().min(end);
                vec![
                    (0.0, rate),
                    (begin, rate),
                    (begin, peak),
                    (over, peak),
                    (over, rate),
                    (end, rate),
                ]
            }
            Self::OnOff { rate, on, off } => {
                let mut corners = Vec::new();
                let mut at = Duration::ZERO;
                let turn = (on + off).max(Duration::from_secs(1));
                while at < length {
                    let begin = at.as_secs_f64();
                    let over = (at + on).as_secs_f64().min(end);
                    let next = (at + turn).as_secs_f64().min(end);
                    corners.extend([(begin, rate), (over, rate), (over, 0.0), (next, 0.0)]);
                    at += turn;
                }
                corners
            }
            Self::Minutes(_) | Self::At(_) | Self::Sum(_) => Vec::new(),
        }
    }
}

/// Arrivals along a rate: the n-th comes when the rate has added up to the n-th step.
fn along(corners: &[(f64, f64)], spacing: Spacing, dice: &mut Dice, into: &mut Vec<Moment>) {
    let mut step = || match spacing {
        Spacing::Poisson => Exp1.sample(dice),
        Spacing::Even => 1.0,
    };
    // The first of evenly spaced ones comes at once: what wakes a workload is a request, not its absence.
    let mut next: f64 = match spacing {
        Spacing::Poisson => step(),
        Spacing::Even => 1e-9,
    };
    let mut passed = 0.0;
    for pair in corners.windows(2) {
        let [(begin, from), (end, to)] = [pair[0], pair[1]];
        let span = end - begin;
        let here = f64::midpoint(from, to) * span;
        while next <= passed + here && span > 0.0 && into.len() < MOST {
            let at = begin + crossing(next - passed, from, (to - from) / span);
            into.push(Moment::EPOCH + seconds(at));
            next += step();
        }
        passed += here;
    }
}

/// When a rate that begins at `from` and grows by `slope` per second has added up to `amount`.
fn crossing(amount: f64, from: f64, slope: f64) -> f64 {
    if slope.abs() < 1e-12 {
        return if from > 0.0 { amount / from } else { 0.0 };
    }
    // from x + slope x^2 / 2 = amount
    let root = (from * from + 2.0 * slope * amount).max(0.0).sqrt();
    (root - from) / slope
}

fn minutes(
    counts: &[u64],
    spacing: Spacing,
    length: Duration,
    dice: &mut Dice,
    into: &mut Vec<Moment>,
) {
    for (minute, &count) in (0u32..).zip(counts) {
        let begin = Duration::from_mins(1) * minute;
        if begin >= length {
            return;
        }
        for number in 0..count {
            if into.len() >= MOST {
                return;
            }
            let share = match spacing {
                Spacing::Poisson => dice.random::<f64>(),
                Spacing::Even => to_f64(number) / to_f64(count),
            };
            into.push(Moment::EPOCH + begin + seconds(share * 60.0));
        }
    }
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn to_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    fn count(shape: &Shape, spacing: Spacing) -> usize {
        shape.arrivals(spacing, MINUTE, 1).len()
    }

    #[test]
    fn as_many_arrive_as_the_rate_adds_up_to() {
        let on = Duration::from_secs(10);
        for (shape, expected) in [
            (Shape::Constant { rate: 10.0 }, 600),
            (
                Shape::Ramp {
                    from: 0.0,
                    to: 20.0,
                },
                600,
            ),
            (
                Shape::Ramp {
                    from: 20.0,
                    to: 0.0,
                },
                600,
            ),
            (
                Shape::OnOff {
                    rate: 20.0,
                    on,
                    off: on,
                },
                600,
            ),
            (
                Shape::Burst {
                    rate: 2.0,
                    peak: 50.0,
                    at: on,
                    lasts: on,
                },
                600,
            ),
            (Shape::Minutes(vec![600, 7]), 600),
        ] {
            let told = shape.expected(MINUTE);
            assert!(told >= 599.0, "{shape:?}: {told}");
            let even = count(&shape, Spacing::Even);
            assert!(even.abs_diff(expected) <= 1, "{shape:?}: {even}");
            let poisson = count(&shape, Spacing::Poisson);
            assert!(poisson.abs_diff(expected) < 100, "{shape:?}: {poisson}");
        }
    }

    #[test]
    fn arrivals_are_in_order_within_the_time_and_the_same_for_a_seed() {
        let shape = Shape::Sum(vec![
            Shape::At(vec![Duration::from_secs(70), Duration::from_secs(3)]),
            Shape::Constant { rate: 3.0 },
            Shape::Constant { rate: 3.0 },
        ]);
        let all = shape.arrivals(Spacing::Poisson, MINUTE, 5);
        assert!(all.is_sorted());
        assert!(all.contains(&Moment::from_secs(3)));
        assert!(all.iter().all(|at| *at < Moment::EPOCH + MINUTE));
        assert_eq!(all, shape.arrivals(Spacing::Poisson, MINUTE, 5));
        assert_ne!(all, shape.arrivals(Spacing::Poisson, MINUTE, 6));
        let repeated = all.windows(2).filter(|pair| pair[0] == pair[1]).count();
        assert_eq!(repeated, 0, "two of a kind have chances of their own");
    }
}
