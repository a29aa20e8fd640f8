//! The stages of an open loop: how the rate goes over time, and where on it each request lies.
//!
//! A stage is asked two things: how much load it has (expected requests), and at which instant so much of it has passed. Both are
//! exact for every shape, so that no request is lost or doubled where stages meet, whatever comes before.

use std::{fmt, str::FromStr, time::Duration};

use crate::unit::{Rate, parse_duration};

/// Most requests of one burst, and most steps of one stage.
const MAX_BURST: u32 = 1_000_000;
const MAX_STEPS: u32 = 10_000;

/// What is typed.
const ALLOWED: &str = "a stage is DURATION@RATE, @FROM..TO (a ramp), @FROM..TO/STEPS, @MEAN~AMPLITUDE/PERIOD (a sine) or \
                       @RATE+BURST/EVERY, such as 30s@50,1m@50..200,5m@100~50/1m";

/// A span of time and the load in it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stage {
    /// How long the stage lasts.
    pub length: Duration,
    /// How the rate goes during it.
    pub shape: Shape,
}

/// How the rate of a stage goes. Rates are requests per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    /// The same all the time: `50`.
    Constant(Rate),
    /// In a straight line: `50..200`.
    Ramp {
        /// At the beginning.
        from: Rate,
        /// At the end.
        to: Rate,
    },
    /// In steps of equal length and height, the first at `from` and the last at `to`: `50..200/4`.
    Steps {
        /// The first.
        from: Rate,
        /// The last.
        to: Rate,
        /// How many, at least 2.
        steps: u32,
    },
    /// Around a mean, up first: `100~50/1m`.
    Sine {
        /// The mean.
        mean: Rate,
        /// How far up and down it goes, at most the mean.
        amplitude: Rate,
        /// From one top to the next.
        period: Duration,
    },
    /// Many at once, every so often, the first at once, and others in between: `10+200/15s`.
    Bursts {
        /// Of those in between.
        rate: Rate,
        /// How many at once.
        size: u32,
        /// From one burst to the next.
        every: Duration,
    },
}

impl Stage {
    /// A stage of one rate.
    pub fn constant(length: Duration, rate: Rate) -> Self {
        Self {
            length,
            shape: Shape::Constant(rate),
        }
    }

    /// Expected requests of the whole stage.
    pub fn load(&self) -> f64 {
        let length = self.length.as_secs_f64();
        match self.shape {
            Shape::Constant(rate) => length * rate.per_second(),
            Shape::Ramp { from, to } | Shape::Steps { from, to, .. } => {
                length * f64::midpoint(from.per_second(), to.per_second())
            }
            Shape::Sine {
                mean,
                amplitude,
                period,
            } => sine(
                mean.per_second(),
                amplitude.per_second(),
                period.as_secs_f64(),
                length,
            ),
            Shape::Bursts { rate, size, every } => {
                // In whole numbers: 2.1 / 0.3 is more than 7.
                let bursts = self.length.as_nanos().div_ceil(every.as_nanos());
                #[expect(clippy::cast_precision_loss, reason = "at most a day of milliseconds")]
                let bursts = bursts as f64;
                bursts * f64::from(size) + length * rate.per_second()
            }
        }
    }

    /// Requests per second on average.
    pub fn mean_rate(&self) -> f64 {
        self.load() / self.length.as_secs_f64()
    }

    /// Whether nothing is sent in it.
    pub fn is_pause(&self) -> bool {
        self.load() <= 0.0
    }

    /// A stage of one rate that leads up to this one: at the rate that it begins with, or its mean where that is none.
    pub(super) fn warmup(&self, length: Duration) -> Self {
        let first = match self.shape {
            Shape::Constant(rate) | Shape::Bursts { rate, .. } => rate,
            Shape::Ramp { from, .. } | Shape::Steps { from, .. } => from,
            Shape::Sine { mean, .. } => mean,
        };
        let rate = if first.is_pause() {
            Rate::new(self.mean_rate()).unwrap_or(first)
        } else {
            first
        };
        Self::constant(length, rate)
    }

    /// Expected requests of its first `at` seconds: the inverse of [`Stage::due`].
    pub(crate) fn load_until(&self, at: f64) -> f64 {
        let length = self.length.as_secs_f64();
        let at = at.clamp(0.0, length);
        match self.shape {
            Shape::Constant(rate) => at * rate.per_second(),
            Shape::Ramp { from, to } => {
                let (from, to) = (from.per_second(), to.per_second());
                at * (from + (to - from) * at / length / 2.0)
            }
            Shape::Steps { from, to, steps } => {
                let (from, to) = (from.per_second(), to.per_second());
                let (step, rise) = (
                    length / f64::from(steps),
                    (to - from) / f64::from(steps - 1),
                );
                let whole = (at / step).floor().min(f64::from(steps - 1));
                step * (whole * from + rise * whole * (whole - 1.0) / 2.0)
                    + (at - whole * step) * (from + rise * whole)
            }
            Shape::Sine {
                mean,
                amplitude,
                period,
            } => sine(
                mean.per_second(),
                amplitude.per_second(),
                period.as_secs_f64(),
                at,
            ),
            Shape::Bursts { rate, size, every } => {
                let bursts = (at / every.as_secs_f64()).ceil();
                bursts * f64::from(size) + at * rate.per_second()
            }
        }
    }

    /// Seconds from the beginning of the stage until `load` requests are expected. `load` is not below 0, and less than the load of
    /// the stage.
    pub(super) fn due(&self, load: f64) -> f64 {
        let length = self.length.as_secs_f64();
        match self.shape {
            Shape::Constant(rate) => load / rate.per_second(),
            Shape::Ramp { from, to } => {
                let (from, to) = (from.per_second(), to.per_second());
                let slope = (to - from) / length;
                if load <= 0.0 {
                    return 0.0;
                }
                // The root of the parabola, in the form that loses no digits when the slope is small or the rate goes to zero.
                2.0 * load / (from + (from * from + 2.0 * slope * load).max(0.0).sqrt())
            }
            Shape::Steps { from, to, steps } => {
                let (from, to) = (from.per_second(), to.per_second());
                let (step, rise) = (
                    length / f64::from(steps),
                    (to - from) / f64::from(steps - 1),
                );
                // A sum of so many equal rises: no step is gone through to find the one, as this is asked for each request.
                let before = |n: u32| {
                    let n = f64::from(n);
                    step * (n * from + rise * n * (n - 1.0) / 2.0)
                };
                // The last step that begins with no more load than that.
                let (mut low, mut high) = (0, steps);
                while high - low > 1 {
                    let middle = low.midpoint(high);
                    if before(middle) <= load {
                        low = middle;
                    } else {
                        high = middle;
                    }
                }
                let rate = from + rise * f64::from(low);
                if rate > 0.0 {
                    return (f64::from(low) * step + (load - before(low)) / rate)
                        .clamp(0.0, length);
                }
                // Rounding.
                length
            }
            Shape::Sine {
                mean,
                amplitude,
                period,
            } => {
                let (mean, amplitude) = (mean.per_second(), amplitude.per_second());
                let period = period.as_secs_f64();
                // Each whole period has the load of its mean.
                let periods = (load / (mean * period)).floor();
                let rest = load - periods * mean * period;
                periods * period + invert(|at| sine(mean, amplitude, period, at), rest, period)
            }
            Shape::Bursts { rate, size, every } => {
                let (rate, size) = (rate.per_second(), f64::from(size));
                let every = every.as_secs_f64();
                let one = size + rate * every;
                let bursts = (load / one).floor();
                let rest = load - bursts * one;
                // Without others in between there is nothing after a burst but rounding.
                let after = if rest < size || rate <= 0.0 {
                    0.0
                } else {
                    (rest - size) / rate
                };
                bursts * every + after
            }
        }
        .clamp(0.0, length)
    }
}

/// Expected requests of the first `at` seconds of stages that follow each other.
pub(crate) fn load_until(stages: &[Stage], at: f64) -> f64 {
    let mut left = at.max(0.0);
    stages
        .iter()
        .map(|stage| {
            let load = stage.load_until(left);
            left = (left - stage.length.as_secs_f64()).max(0.0);
            load
        })
        .sum()
}

/// Load of the first `at` seconds of a sine.
fn sine(mean: f64, amplitude: f64, period: f64, at: f64) -> f64 {
    let turn = std::f64::consts::TAU / period;
    mean * at + amplitude / turn * (1.0 - (turn * at).cos())
}

/// Where `load`, which never falls, has reached `wanted` between 0 and `end`, to a nanosecond in a day.
fn invert(load: impl Fn(f64) -> f64, wanted: f64, end: f64) -> f64 {
    let (mut low, mut high) = (0.0, end);
    for _ in 0..50 {
        let middle = f64::midpoint(low, high);
        if load(middle) < wanted {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}@{}", self.length, self.shape)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Constant(rate) => write!(f, "{rate}"),
            Self::Ramp { from, to } => write!(f, "{from}..{to}"),
            Self::Steps { from, to, steps } => write!(f, "{from}..{to}/{steps}"),
            Self::Sine {
                mean,
                amplitude,
                period,
            } => write!(f, "{mean}~{amplitude}/{period:?}"),
            Self::Bursts { rate, size, every } => write!(f, "{rate}+{size}/{every:?}"),
        }
    }
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((from, to)) = text.split_once("..") {
            return match to.split_once('/') {
                None => Ok(Self::Ramp {
                    from: from.parse()?,
                    to: to.parse()?,
                }),
                Some((to, steps)) => Ok(Self::Steps {
                    from: from.parse()?,
                    to: to.parse()?,
                    steps: count(steps, 2..=MAX_STEPS, "steps")?,
                }),
            };
        }
        if let Some((mean, rest)) = text.split_once('~') {
            let (amplitude, period) = rest.split_once('/').ok_or(ALLOWED)?;
            let shape = Self::Sine {
                mean: mean.parse()?,
                amplitude: amplitude.parse()?,
                period: span(period)?,
            };
            return match shape {
                Self::Sine {
                    mean, amplitude, ..
                } if amplitude.per_second() > mean.per_second() => {
                    Err("the amplitude of a sine is at most its mean".to_owned())
                }
                shape => Ok(shape),
            };
        }
        if let Some((rate, rest)) = text.split_once('+') {
            let (size, every) = rest.split_once('/').ok_or(ALLOWED)?;
            return Ok(Self::Bursts {
                rate: rate.parse()?,
                size: count(size, 1..=MAX_BURST, "requests of a burst")?,
                every: span(every)?,
            });
        }
        text.parse().map(Self::Constant)
    }
}

fn count(text: &str, allowed: std::ops::RangeInclusive<u32>, what: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|n| allowed.contains(n));
    number.ok_or_else(|| {
        let (least, most) = (allowed.start(), allowed.end());
        format!("{what} are a whole number from {least} to {most}")
    })
}

/// A time that passes.
fn span(text: &str) -> Result<Duration, String> {
    let span = parse_duration(text)?;
    // Shorter ones are a rate.
    if span < Duration::from_millis(1) {
        return Err("a period is at least 1ms".to_owned());
    }
    Ok(span)
}

/// A list of stages as typed: `30s@50,10s@0,1m@50..200`.
#[derive(Clone, Debug, PartialEq)]
pub struct Stages(pub Vec<Stage>);

impl FromStr for Stages {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let stages = text
            .split(',')
            .map(|part| {
                let named = |wrong: String| format!("{part:?}: {wrong}");
                let (length, shape) = part
                    .split_once('@')
                    .ok_or_else(|| named(ALLOWED.to_owned()))?;
                Ok(Stage {
                    length: parse_duration(length).map_err(named)?,
                    shape: shape.parse().map_err(named)?,
                })
            })
            .collect::<Result<Vec<_>, String>>()?;
        if let Some(empty) = stages.iter().position(|stage| stage.length.is_zero()) {
            return Err(format!("stage {} lasts no time: {ALLOWED}", empty + 1));
        }
        Ok(Self(stages))
    }
}
