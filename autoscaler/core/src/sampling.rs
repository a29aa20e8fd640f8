//! Asking a sample of the pods, when asking all of them each second would be too many: how many, in which order, when the answers
//! stand for all, and what they say then.

use std::fmt;
use std::time::Duration;

use crate::{Policy, Sample};

/// Pods up to this number are all asked. Source: `pkg/autoscaler/metrics/sample_size.go`.
const ASK_ALL: u32 = 3;

/// 1.96 squared, times a variance of 100, over a squared margin of 5: the sample of an endless population that is
/// within 5 of the mean with 95 % confidence. Source: `pkg/autoscaler/metrics/sample_size.go`.
const UNBOUNDED_SAMPLE: f64 = 15.3664;

/// How many of `pods` pods to ask so that their average stands for all of them; at most 16.
pub fn sample_size(pods: u32) -> u32 {
    if pods <= ASK_ALL {
        return pods;
    }
    let pods = f64::from(pods);
    // The correction for a finite population: the fewer pods there are, the more one of them says about the rest.
    let size = pods * UNBOUNDED_SAMPLE / (pods + UNBOUNDED_SAMPLE - 1.0);
    crate::Replicas::from_f64(size.ceil()).get()
}

/// How many of `pods` pods to ask under `policy`: all of a small fleet, of a larger one a sample.
pub fn pods_to_ask(pods: u32, policy: Policy) -> u32 {
    if pods <= policy.asks_all_up_to {
        pods
    } else {
        sample_size(pods)
    }
}

/// A pod that could be asked.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<T> {
    /// The pod.
    pub pod: T,
    /// How long it has been there.
    pub age: Duration,
    /// Whether it did not answer lately.
    pub avoided: bool,
    /// A number drawn by the caller: equals are asked in its order.
    pub lot: u64,
}

/// The order in which to ask: pods that have been there for a stable window first, since younger ones have not yet got their share
/// of the load; those that did not answer lately last; otherwise by lot. Source: `pkg/autoscaler/metrics/stats_scraper.go`.
pub fn in_order<T>(mut pods: Vec<Candidate<T>>, stable_window: Duration) -> Vec<T> {
    pods.sort_by_key(|pod| (pod.avoided, pod.age < stable_window, pod.lot));
    pods.into_iter().map(|candidate| candidate.pod).collect()
}

/// So few pods of a sample answered that it does not stand for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooFew {
    /// That answered.
    pub answered: u32,
    /// That should have.
    pub wanted: u32,
}

impl fmt::Display for TooFew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} pods answered", self.answered, self.wanted)
    }
}

impl std::error::Error for TooFew {}

/// Whether `answered` pods of a sample of `wanted` are enough to stand for all.
///
/// # Errors
///
/// [`TooFew`] if they are not.
pub fn enough(answered: u32, wanted: u32, policy: Policy) -> Result<(), TooFew> {
    let needed = if policy.half_a_sample_counts {
        wanted.div_ceil(2)
    } else {
        wanted
    };
    if answered >= needed {
        Ok(())
    } else {
        Err(TooFew { answered, wanted })
    }
}

/// What `pods` pods see together if each of them sees the mean of these `answers`.
pub fn extrapolate(answers: impl IntoIterator<Item = Sample>, answered: u32, pods: u32) -> Sample {
    let sum = answers.into_iter().fold(Sample::default(), Sample::plus);
    sum.times(f64::from(pods) / f64::from(answered.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_the_published_table() {
        let table = [
            (0, 0),
            (1, 1),
            (2, 2),
            (3, 3),
            (4, 4),
            (5, 4),
            (6, 5),
            (7, 6),
            (9, 6),
            (10, 7),
            (15, 8),
            (20, 9),
            (30, 11),
            (50, 12),
            (100, 14),
            (200, 15),
            (500, 15),
            (1000, 16),
            (u32::MAX, 16),
        ];
        for (pods, size) in table {
            assert_eq!(sample_size(pods), size, "{pods} pods");
        }
    }

    #[test]
    fn half_of_a_sample_is_enough_unlike_in_knative() {
        for (answered, ours, knative) in [(6, false, false), (7, true, false), (14, true, true)] {
            let is_enough = |policy| enough(answered, 14, policy).is_ok();
            let got = (is_enough(Policy::default()), is_enough(Policy::KNATIVE));
            assert_eq!(got, (ours, knative), "{answered} of 14");
        }
        assert_eq!(
            enough(0, 1, Policy::default()).map_err(|few| few.to_string()),
            Err("0 of 1 pods answered".to_owned())
        );
    }

    #[test]
    fn small_fleets_are_asked_in_full_and_knative_calls_fewer_small() {
        for (pods, ours, knative) in [
            (3, 3, 3),
            (4, 4, 4),
            (20, 20, 9),
            (64, 64, 13),
            (65, 13, 13),
        ] {
            let got = [Policy::default(), Policy::KNATIVE].map(|policy| pods_to_ask(pods, policy));
            assert_eq!(got, [ours, knative], "{pods} pods");
        }
    }

    #[test]
    fn a_mean_stands_for_all() {
        let answer = |concurrency, requests| {
            let in_flight = Sample {
                concurrency,
                ..Sample::default()
            };
            in_flight.plus(Sample {
                requests,
                ..Sample::default()
            })
        };
        let all = extrapolate([answer(1.0, 4.0), answer(4.0, 2.0)], 2, 80);
        assert_eq!((all.concurrency, all.requests), (200.0, 240.0));
        assert_eq!(extrapolate([], 0, 80), Sample::default());
    }

    #[test]
    fn never_asks_more_pods_than_there_are() {
        assert!((0..500).all(|pods| sample_size(pods) <= pods));
    }
}
