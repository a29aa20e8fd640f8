//! When each request of an open loop is due: a pure, seeded function of the scenario.
//!
//! Every arrival process is a sequence of points on a *load axis*, where one unit is one expected request, carried back
//! to time through the cumulative rate of the stages. Constant arrivals are the whole numbers; Poisson arrivals have
//! exponential gaps of mean one, Gamma arrivals gaps of mean one that are as irregular as is asked. A kind of [`Stage`] only
//! needs its own inverse, a kind of arrival only its own gaps. A [`Trace`] has its instants from elsewhere.
//!
//! Invariants: the instants never go back, all lie inside the stages, and the same [`Schedule`] always gives the same
//! instants. There is no clock here; the pacing thread owns it.

mod dice;
mod shard;
mod stage;
mod trace;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub(crate) use self::dice::SplitMix;
pub(crate) use self::stage::load_until;
use self::trace::Due;
pub use self::{
    shard::Shard,
    stage::{Shape, Stage, Stages},
    trace::{Replay, Trace},
};
use crate::unit::{MAX_DURATION, MAX_RATE, Rate};

/// The least and the most irregular gaps that Gamma arrivals may have. At 20, 99 % of the gaps are none and one is 400 times the mean.
pub const VARIATIONS: std::ops::RangeInclusive<f64> = 0.01..=20.0;

/// How requests are spread around the rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Arrivals {
    /// Evenly spaced.
    #[default]
    Constant,
    /// Independent users: exponential gaps with the same mean.
    Poisson,
    /// Gaps of a Gamma distribution with the same mean: more regular than those of independent users, or in clusters.
    Gamma,
}

/// Where the instants come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Timing {
    /// From the stages, one after the other.
    Stages(Vec<Stage>),
    /// From a recording.
    Trace(Trace),
}

/// A whole open-loop scenario.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// Where the instants come from.
    pub timing: Timing,
    /// How requests are spread within stages; those of a trace are as they were.
    pub arrivals: Arrivals,
    /// Standard deviation of the gaps of Gamma arrivals, in means: 1 is as irregular as Poisson. Others ignore it.
    pub variation: f64,
    /// Seed of the arrival process; constant arrivals ignore it.
    pub seed: u64,
    /// Stop after this many requests, if there are more.
    pub limit: Option<u64>,
    /// The part of it that is sent here, if others send the rest. All that is said above is of the whole.
    pub shard: Option<Shard>,
}

impl Schedule {
    /// Stages, evenly spaced, without a limit.
    pub fn of_stages(stages: Vec<Stage>) -> Self {
        Self {
            timing: Timing::Stages(stages),
            arrivals: Arrivals::default(),
            variation: 1.0,
            seed: 1,
            limit: None,
            shard: None,
        }
    }

    /// Says what is wrong with the schedule, if anything is.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.limit == Some(0) {
            return Err("at least one request is needed");
        }
        if !VARIATIONS.contains(&self.variation) {
            return Err("the variation of gaps is from 0.01 to 20");
        }
        let Timing::Stages(stages) = &self.timing else {
            return Ok(());
        };
        if stages.is_empty() {
            return Err("at least one stage is needed");
        }
        if stages
            .iter()
            .any(|stage| stage.length.is_zero() || stage.length > MAX_DURATION)
        {
            return Err("a stage lasts more than no time and at most 24h");
        }
        if stages.iter().all(Stage::is_pause) {
            return Err("at least one stage needs a rate above 0");
        }
        if stages.iter().any(|stage| stage.mean_rate() > MAX_RATE) {
            return Err("a stage has at most 1000000 requests per second on average");
        }
        Ok(())
    }

    /// The length of the whole.
    pub fn length(&self) -> Duration {
        match &self.timing {
            Timing::Stages(stages) => stages.iter().map(|stage| stage.length).sum(),
            Timing::Trace(trace) => trace.length(),
        }
    }

    /// The load before the measurement, if any is asked for: the first rate of the schedule, or the mean of a trace, for so long.
    pub(crate) fn warmup(&self, length: Duration) -> Option<Self> {
        let stage = match &self.timing {
            Timing::Stages(stages) => stages
                .iter()
                .find(|stage| !stage.is_pause())?
                .warmup(length),
            Timing::Trace(trace) => {
                Stage::constant(length, Rate::new(trace.mean_rate().min(MAX_RATE))?)
            }
        };
        (!length.is_zero()).then(|| Self {
            timing: Timing::Stages(vec![stage]),
            limit: None,
            seed: !self.seed,
            ..self.clone()
        })
    }

    /// The same with no part left to others.
    pub(crate) fn whole(&self) -> Self {
        Self {
            shard: None,
            ..self.clone()
        }
    }

    /// The instants at which requests are due, counted from the start.
    pub fn instants(&self) -> impl Iterator<Item = Duration> {
        self.numbered().map(|(_, due)| due)
    }

    /// The same with the numbers that they have in the whole.
    pub(crate) fn numbered(&self) -> impl Iterator<Item = (u64, Duration)> {
        let shard = self.shard.unwrap_or_default();
        (0..)
            .zip(self.all())
            .skip(shard.skipped())
            .step_by(shard.step())
    }

    /// Requests per second that are planned between two instants, in seconds from the start: expected ones, so that even a slow rate
    /// is one. Those of a trace are not known as a rate.
    pub(crate) fn rate_between(&self, from: f64, to: f64) -> Option<f64> {
        let Timing::Stages(stages) = &self.timing else {
            return None;
        };
        let load = load_until(stages, to) - load_until(stages, from);
        (to > from).then(|| load / (to - from) / self.shard.unwrap_or_default().of())
    }

    fn all(&self) -> Instants<'_> {
        Instants {
            from: match &self.timing {
                Timing::Stages(stages) => From::Stages(Arriving::new(self, stages)),
                Timing::Trace(trace) => From::Trace(trace.due()),
            },
            left: self.limit.unwrap_or(u64::MAX),
        }
    }
}

/// The due instants of a whole [`Schedule`], in order.
#[derive(Clone, Debug)]
struct Instants<'a> {
    from: From<'a>,
    left: u64,
}

#[derive(Clone, Debug)]
enum From<'a> {
    Stages(Arriving<'a>),
    Trace(Due<'a>),
}

impl Iterator for Instants<'_> {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.left = self.left.checked_sub(1)?;
        let due = match &mut self.from {
            From::Stages(arriving) => arriving.next(),
            From::Trace(due) => due.next().map(|(at, _)| at),
        };
        due.map(Duration::from_secs_f64)
    }
}

/// Arrivals on the load axis of stages, carried back to seconds.
#[derive(Clone, Debug)]
struct Arriving<'a> {
    /// The current stage and those after it.
    stages: &'a [Stage],
    /// Seconds before the current stage.
    began: f64,
    /// Expected requests before the current stage.
    load_before: f64,
    next_load: f64,
    arrivals: Arrivals,
    variation: f64,
    dice: SplitMix,
}

impl<'a> Arriving<'a> {
    fn new(schedule: &Schedule, stages: &'a [Stage]) -> Self {
        let mut arriving = Self {
            stages,
            began: 0.0,
            load_before: 0.0,
            next_load: 0.0,
            arrivals: schedule.arrivals,
            variation: schedule.variation,
            dice: SplitMix(schedule.seed),
        };
        arriving.next_load = match schedule.arrivals {
            Arrivals::Constant => 0.0,
            Arrivals::Poisson => arriving.dice.exponential(), // has no memory
            Arrivals::Gamma => arriving.dice.gamma_rest(schedule.variation),
        };
        arriving
    }

    /// Of load, from one arrival to the next.
    fn gap(&mut self) -> f64 {
        match self.arrivals {
            Arrivals::Constant => 1.0,
            Arrivals::Poisson => self.dice.exponential(),
            Arrivals::Gamma => self.dice.gamma(self.variation),
        }
    }
}

impl Iterator for Arriving<'_> {
    type Item = f64;

    fn next(&mut self) -> Option<f64> {
        loop {
            let (stage, rest) = self.stages.split_first()?;
            let load = stage.load();
            // Rounding must not push the last request of a stage out of it, or the first of the next one into it.
            if self.next_load - self.load_before < load - 1e-9 {
                let due = self.began + stage.due((self.next_load - self.load_before).max(0.0));
                self.next_load += self.gap();
                return Some(due);
            }
            self.began += stage.length.as_secs_f64();
            self.load_before += load;
            self.stages = rest;
        }
    }
}

#[cfg(test)]
mod tests;
