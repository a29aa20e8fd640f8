//! When each request of an open loop is due: a pure, seeded function of the scenario.
//!
//! Every arrival process is a sequence of points on a *load axis*, where one unit is one expected request, carried back
//! to time through the cumulative rate of the stages. Constant arrivals are the whole numbers; Poisson arrivals have
//! exponential gaps of mean one. A new kind of stage (ramp, sine) only needs its own inverse, a new kind of arrival
//! (Gamma) only its own gaps.
//!
//! Invariants: the instants never go back, all lie inside the stages, and the same [`Schedule`] always gives the same
//! instants. There is no clock here; the pacing thread owns it.

use crate::unit::{MAX_DURATION, Rate, parse_duration};
use serde::{Deserialize, Serialize};
use std::str::FromStr;
use std::time::Duration;

/// How requests are spread around the rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Arrivals {
    /// Evenly spaced.
    #[default]
    Constant,
    /// Independent users: exponential gaps with the same mean.
    Poisson,
}

/// A span of time at one rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stage {
    /// How long the stage lasts.
    pub length: Duration,
    /// Requests per second during it.
    pub rate: Rate,
}

/// A list of stages as typed: `30s@50,10s@0,1m@200`.
#[derive(Clone, Debug, PartialEq)]
pub struct Stages(pub Vec<Stage>);

impl FromStr for Stages {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const ALLOWED: &str =
            "stages are DURATION@RATE joined by commas, such as 30s@50,10s@0,1m@200";
        let stages = text
            .split(',')
            .map(|part| {
                let (length, rate) = part
                    .split_once('@')
                    .ok_or_else(|| format!("{part:?}: {ALLOWED}"))?;
                Ok(Stage {
                    length: parse_duration(length)
                        .map_err(|allowed| format!("{part:?}: {allowed}"))?,
                    rate: rate
                        .parse()
                        .map_err(|allowed| format!("{part:?}: {allowed}"))?,
                })
            })
            .collect::<Result<Vec<_>, String>>()?;
        if let Some(empty) = stages.iter().position(|stage| stage.length.is_zero()) {
            return Err(format!("stage {} lasts no time: {ALLOWED}", empty + 1));
        }
        Ok(Self(stages))
    }
}

/// A whole open-loop scenario.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// The stages, one after the other.
    pub stages: Vec<Stage>,
    /// How requests are spread within them.
    pub arrivals: Arrivals,
    /// Seed of the arrival process; constant arrivals ignore it.
    pub seed: u64,
    /// Stop after this many requests, if the stages give more.
    pub limit: Option<u64>,
}

impl Schedule {
    /// Says what is wrong with the schedule, if anything is.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.stages.is_empty() {
            return Err("at least one stage is needed");
        }
        if self
            .stages
            .iter()
            .any(|stage| stage.length.is_zero() || stage.length > MAX_DURATION)
        {
            return Err("a stage lasts more than no time and at most 24h");
        }
        if self.stages.iter().all(|stage| stage.rate.is_pause()) {
            return Err("at least one stage needs a rate above 0");
        }
        if self.limit == Some(0) {
            return Err("at least one request is needed");
        }
        Ok(())
    }

    /// The length of all stages together.
    pub fn length(&self) -> Duration {
        self.stages.iter().map(|stage| stage.length).sum()
    }

    /// The instants at which requests are due, counted from the start of the first stage.
    pub fn instants(&self) -> Instants<'_> {
        Instants {
            stages: &self.stages,
            began: 0.0,
            load_before: 0.0,
            next_load: match self.arrivals {
                Arrivals::Constant => 0.0,
                Arrivals::Poisson => f64::NAN, // drawn on first use
            },
            arrivals: self.arrivals,
            dice: SplitMix(self.seed),
            left: self.limit.unwrap_or(u64::MAX),
        }
    }
}

/// The due instants of a [`Schedule`], in order.
#[derive(Clone, Debug)]
pub struct Instants<'a> {
    /// The current stage and those after it.
    stages: &'a [Stage],
    /// Seconds before the current stage.
    began: f64,
    /// Expected requests before the current stage.
    load_before: f64,
    next_load: f64,
    arrivals: Arrivals,
    dice: SplitMix,
    left: u64,
}

impl Iterator for Instants<'_> {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        if self.next_load.is_nan() {
            self.next_load = self.dice.exponential();
        }
        self.left = self.left.checked_sub(1)?;
        loop {
            let (stage, rest) = self.stages.split_first()?;
            let (length, rate) = (stage.length.as_secs_f64(), stage.rate.per_second());
            let load = length * rate;
            // Rounding must not push the last request of a stage out of it, or the first of the next one into it.
            if self.next_load - self.load_before < load - 1e-9 {
                let due = self.began + (self.next_load - self.load_before).max(0.0) / rate;
                self.next_load += match self.arrivals {
                    Arrivals::Constant => 1.0,
                    Arrivals::Poisson => self.dice.exponential(),
                };
                return Some(Duration::from_secs_f64(due));
            }
            self.began += length;
            self.load_before += load;
            self.stages = rest;
        }
    }
}

/// The `SplitMix64` generator: tiny, seedable, and good enough for arrival gaps.
#[derive(Clone, Debug)]
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// An exponential draw of mean one. 53 bits, so that the uniform draw is below one and the logarithm finite.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit an f64 exactly")]
    fn exponential(&mut self) -> f64 {
        let uniform = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        -(1.0 - uniform).ln()
    }
}

#[cfg(test)]
mod tests;
