//! Two policies beside each other: the same scenarios, the same seeds.

use std::time::Duration;

use super::engine::{Policy, run};
use super::outcome::{Held, Outcome};
use super::scenarios::Scenario;
use crate::{Replicas, TargetSpec};

/// Waits that differ by a small part of this many seconds are as good as the same: added to both before they are divided.
const HELD_FLOOR: f64 = 0.1;
/// The same for seconds over target.
const SECONDS_FLOOR: f64 = 1.0;
/// Starts from which cold starts are what costs: those of the bar on replica-seconds.
const LONG_START: Duration = Duration::from_secs(30);

/// Several runs of one policy: means, and of the replicas the most.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Summary {
    /// Runs.
    pub runs: u32,
    /// Requests that arrived.
    pub requests: f64,
    /// Those that were never served.
    pub unserved: f64,
    /// See [`Outcome::replica_seconds`].
    pub replica_seconds: f64,
    /// See [`Outcome::seconds_over_target`].
    pub seconds_over_target: f64,
    /// See [`Outcome::held`].
    pub held: Held,
    /// See [`Outcome::cold_starts`].
    pub cold_starts: f64,
    /// See [`Outcome::flaps`].
    pub flaps: f64,
    /// See [`Outcome::failed_starts`].
    pub failed_starts: f64,
    /// The most replicas of any run.
    pub peak_replicas: Replicas,
}

impl Summary {
    /// Sums up `outcomes`.
    pub fn of(outcomes: &[Outcome]) -> Self {
        let runs = u32::try_from(outcomes.len()).unwrap_or(u32::MAX);
        let mean = |value: fn(&Outcome) -> f64| {
            outcomes.iter().map(value).sum::<f64>() / f64::from(runs.max(1))
        };
        #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
        Self {
            runs,
            requests: mean(|one| one.requests as f64),
            unserved: mean(|one| one.unserved as f64),
            replica_seconds: mean(|one| one.replica_seconds),
            seconds_over_target: mean(|one| f64::from(one.seconds_over_target)),
            held: Held {
                p50: mean(|one| one.held.p50),
                p95: mean(|one| one.held.p95),
                p99: mean(|one| one.held.p99),
                max: mean(|one| one.held.max),
            },
            cold_starts: mean(|one| f64::from(one.cold_starts)),
            flaps: mean(|one| f64::from(one.flaps)),
            failed_starts: mean(|one| f64::from(one.failed_starts)),
            peak_replicas: outcomes
                .iter()
                .map(|one| one.peak_replicas)
                .max()
                .unwrap_or_default(),
        }
    }
}

/// One scenario under both policies.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Comparison {
    /// The scenario's name.
    pub scenario: String,
    /// How long its starts take on average.
    pub start: Duration,
    /// What came of Knative's rules.
    pub knative: Summary,
    /// What came of ours.
    pub rouse: Summary,
}

impl Comparison {
    /// Runs both with the seeds from 1 to `seeds`.
    pub fn run(scenario: &Scenario, spec: &TargetSpec, seeds: u32) -> Self {
        let of = |policy| {
            let seeds = (1..=u64::from(seeds)).map(|seed| run(scenario, spec, policy, seed));
            Summary::of(&seeds.collect::<Vec<_>>())
        };
        Self {
            scenario: scenario.name.clone(),
            start: scenario.start.mean(),
            knative: of(Policy::Knative),
            rouse: of(Policy::Rouse),
        }
    }

    /// Our replica-seconds as a multiple of Knative's.
    pub fn cost(&self) -> f64 {
        ratio(
            self.rouse.replica_seconds,
            self.knative.replica_seconds,
            1.0,
        )
    }

    /// Our 95th percentile of waiting as a multiple of Knative's.
    pub fn held(&self) -> f64 {
        ratio(self.rouse.held.p95, self.knative.held.p95, HELD_FLOOR)
    }

    /// Whether we had more replicas at once.
    pub fn has_higher_peak(&self) -> bool {
        self.rouse.peak_replicas > self.knative.peak_replicas
    }

    /// Our seconds over target as a multiple of Knative's.
    pub fn over_target(&self) -> f64 {
        let (ours, theirs) = (&self.rouse, &self.knative);
        ratio(
            ours.seconds_over_target,
            theirs.seconds_over_target,
            SECONDS_FLOOR,
        )
    }
}

fn ratio(ours: f64, theirs: f64, floor: f64) -> f64 {
    (ours + floor) / (theirs + floor)
}

/// What many comparisons say together.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Overall {
    /// The geometric mean of [`Comparison::cost`] over scenarios with starts of at least 30 s.
    pub cost: f64,
    /// The geometric mean of [`Comparison::held`].
    pub held: f64,
    /// The largest one.
    pub worst_held: f64,
    /// The geometric mean of [`Comparison::over_target`].
    pub over_target: f64,
    /// The largest one.
    pub worst_over_target: f64,
    /// Scenarios in which ours had more replicas at once.
    pub higher_peaks: u32,
}

impl Overall {
    /// Sums up `comparisons`.
    pub fn of(comparisons: &[Comparison]) -> Self {
        let long = comparisons.iter().filter(|one| one.start >= LONG_START);
        let higher = comparisons.iter().filter(|one| one.has_higher_peak());
        let higher_peaks = higher.count();
        let worst = |of: fn(&Comparison) -> f64| comparisons.iter().map(of).fold(0.0, f64::max);
        Self {
            cost: geometric_mean(long.map(Comparison::cost)),
            held: geometric_mean(comparisons.iter().map(Comparison::held)),
            worst_held: worst(Comparison::held),
            over_target: geometric_mean(comparisons.iter().map(Comparison::over_target)),
            worst_over_target: worst(Comparison::over_target),
            higher_peaks: u32::try_from(higher_peaks).unwrap_or(u32::MAX),
        }
    }
}

fn geometric_mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| {
        (sum + value.ln(), count + 1.0)
    });
    if count > 0.0 {
        f64::exp(sum / count)
    } else {
        1.0
    }
}
