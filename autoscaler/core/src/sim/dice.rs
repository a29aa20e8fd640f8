//! Chance, all of it from one seed.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _};
use rand_distr::{Distribution as _, Exp1, LogNormal};
pub(super) use rand_pcg::Pcg64Mcg as Dice;

use crate::Policy;
use crate::literal::{parse_duration, parse_float};

/// What is diced for. Each purpose, and each thing, has dice of its own, so that what one policy does not ask for shifts
/// nothing for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Arrivals,
    Service,
    Pod,
    Scrape,
    Choice,
}

/// The dice for one thing of a purpose.
pub(super) fn dice(seed: u64, purpose: Purpose, thing: u64) -> Dice {
    let purpose = match purpose {
        Purpose::Arrivals => 1,
        Purpose::Service => 2,
        Purpose::Pod => 3,
        Purpose::Scrape => 4,
        Purpose::Choice => 5,
    };
    // Any three numbers that lie close together become seeds that do not. The factors are odd, so nothing is lost.
    let mixed = seed
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(purpose)
        .wrapping_mul(0xbf58_476d_1ce4_e5b9)
        .wrapping_add(thing)
        .wrapping_mul(0x94d0_49bb_1331_11eb);
    Dice::seed_from_u64(mixed)
}

/// How long something takes: a fixed time or a random one.
///
/// As text: `1s`, `uniform(1s,3s)`, `exponential(1s)` with a mean, `lognormal(1s,0.5)` with a mean and the standard
/// deviation as a share of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Time {
    /// Always the same.
    Fixed(Duration),
    /// Anything between two times alike.
    Uniform(Duration, Duration),
    /// Exponential with this mean: mostly short, and anything now and then.
    Exponential(Duration),
    /// Log-normal with this mean and relative standard deviation: the usual shape of answer times.
    LogNormal(Duration, f64),
}

/// A text that is no [`Time`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadTime(String);

impl fmt::Display for BadTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is no time; allowed are 1s, uniform(1s,3s), exponential(1s) and lognormal(1s,0.5), each at most 24h",
            self.0
        )
    }
}

impl std::error::Error for BadTime {}

impl FromStr for Time {
    type Err = BadTime;

    fn from_str(text: &str) -> Result<Self, BadTime> {
        read(text).ok_or_else(|| BadTime(text.to_owned()))
    }
}

fn read(text: &str) -> Option<Time> {
    let Some((kind, rest)) = text.split_once('(') else {
        return Some(Time::Fixed(duration(text)?));
    };
    let inside: Vec<&str> = rest.strip_suffix(')')?.split(',').map(str::trim).collect();
    match (kind.trim(), inside.as_slice()) {
        ("uniform", [low, high]) => {
            let (low, high) = (duration(low)?, duration(high)?);
            (low <= high).then_some(Time::Uniform(low, high))
        }
        ("exponential", [mean]) => Some(Time::Exponential(duration(mean)?)),
        ("lognormal", [mean, deviation]) => {
            let deviation = parse_float(deviation, Policy::default());
            let deviation = deviation.filter(|share| (0.0..=100.0).contains(share))?;
            let mean = duration(mean).filter(|mean| !mean.is_zero())?;
            Some(Time::LogNormal(mean, deviation))
        }
        _ => None,
    }
}

/// A duration from nothing to a day.
fn duration(text: &str) -> Option<Duration> {
    let nanos = u64::try_from(parse_duration(text.trim())?).ok()?;
    Some(Duration::from_nanos(nanos)).filter(|time| *time <= LONGEST)
}

/// Nothing takes longer; random times are cut off here.
const LONGEST: Duration = Duration::from_hours(24);

impl Time {
    /// The mean.
    pub fn mean(&self) -> Duration {
        match *self {
            Self::Fixed(time) | Self::Exponential(time) | Self::LogNormal(time, _) => time,
            Self::Uniform(low, high) => (low + high) / 2,
        }
    }

    pub(super) fn draw(&self, dice: &mut Dice) -> Duration {
        let scaled = |mean: Duration, by: f64| {
            let seconds = (mean.as_secs_f64() * by).min(LONGEST.as_secs_f64());
            Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST)
        };
        match *self {
            Self::Fixed(time) => time,
            Self::Uniform(low, high) => {
                low + scaled(high.saturating_sub(low), dice.random::<f64>())
            }
            Self::Exponential(mean) => scaled(mean, Exp1.sample(dice)),
            Self::LogNormal(mean, deviation) => {
                let shape = LogNormal::from_mean_cv(1.0, deviation);
                scaled(mean, shape.map_or(1.0, |shape| shape.sample(dice)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_what_is_none_is_told() {
        let second = Duration::from_secs(1);
        for (text, time) in [
            ("1s", Some(Time::Fixed(second))),
            ("uniform(1s, 3s)", Some(Time::Uniform(second, second * 3))),
            ("exponential(1s)", Some(Time::Exponential(second))),
            ("lognormal(1s,0.5)", Some(Time::LogNormal(second, 0.5))),
            ("uniform(3s,1s)", None),
            ("lognormal(1s)", None),
            ("lognormal(1s,NaN)", None),
            ("-1s", None),
            ("25h", None),
            ("1", None),
            ("gamma(1s)", None),
        ] {
            assert_eq!(text.parse().ok(), time, "{text}");
        }
        let error = "soon".parse::<Time>().expect_err("no time");
        assert!(
            error
                .to_string()
                .starts_with("\"soon\" is no time; allowed are")
        );
    }

    #[test]
    fn the_same_seed_gives_the_same_times_and_their_mean_is_right() {
        let draw = |time: Time, seed| {
            let mut dice = dice(seed, Purpose::Service, 7);
            let draws = (0..20_000).map(|_| time.draw(&mut dice).as_secs_f64());
            draws.sum::<f64>() / 20_000.0
        };
        for text in [
            "2s",
            "uniform(1s,3s)",
            "exponential(2s)",
            "lognormal(2s,0.5)",
        ] {
            let time: Time = text.parse().expect(text);
            assert!((draw(time, 1) - 2.0).abs() < 0.1, "{text}");
            assert!(
                (draw(time, 1) - draw(time, 1)).abs() < f64::EPSILON,
                "{text}"
            );
        }
        let random = Time::Exponential(Duration::from_secs(2));
        assert!((draw(random, 1) - draw(random, 2)).abs() > f64::EPSILON);
    }
}
