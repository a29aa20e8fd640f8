//! What came of a run.

use crate::Replicas;

/// How long requests waited until a pod worked on them, in seconds; of all requests, those that did not wait among them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Held {
    /// Half of them no longer.
    pub p50: f64,
    /// 95 % of them no longer.
    pub p95: f64,
    /// 99 % of them no longer.
    pub p99: f64,
    /// None of them longer.
    pub max: f64,
}

impl Held {
    pub(super) fn of(all: &mut [f32]) -> Self {
        all.sort_unstable_by(f32::total_cmp);
        let at = |percent: usize| {
            // The smallest that is not below that many percent of them.
            let rank = (all.len() * percent).div_ceil(100).max(1);
            all.get(rank - 1).copied().map_or(0.0, f64::from)
        };
        Self {
            p50: at(50),
            p95: at(95),
            p99: at(99),
            max: at(100),
        }
    }
}

/// One second of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Point {
    /// The second's end, counted from the beginning.
    pub second: u32,
    /// Requests that arrived in it.
    pub arrived: u32,
    /// Requests that were there, on average.
    pub load: f64,
    /// Those of them that waited.
    pub waiting: f64,
    /// Ready pods at its end.
    pub ready: u32,
    /// Replicas at its end.
    pub replicas: u32,
}

/// What came of a run.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Outcome {
    /// Requests that arrived.
    pub requests: u64,
    /// Those that no pod had begun to work on when the run was given up, an hour after the last arrival.
    pub unserved: u64,
    /// Pods times seconds, from their creation until they are gone: what is paid for.
    pub replica_seconds: f64,
    /// Seconds at whose end requests waited, or a pod had more of them than it can carry (`target`).
    pub seconds_over_target: u32,
    /// How long requests waited.
    pub held: Held,
    /// Times that there were no replicas and then some.
    pub cold_starts: u32,
    /// Times that replicas were added within a stable window after some had been taken away.
    pub flaps: u32,
    /// The most replicas.
    pub peak_replicas: Replicas,
    /// Starts that failed.
    pub failed_starts: u32,
    /// Second by second.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub points: Vec<Point>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_all_requests() {
        let mut all: Vec<f32> = (1..=100u8).map(f32::from).collect();
        all.reverse();
        let held = Held::of(&mut all);
        let got = [held.p50, held.p95, held.p99, held.max].map(f64::round);
        assert_eq!(format!("{got:?}"), "[50.0, 95.0, 99.0, 100.0]");
        assert_eq!(Held::of(&mut []), Held::default());
    }
}
