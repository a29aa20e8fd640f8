//! The two ways to read a window: the linear average and the exponentially weighted one.

use crate::{Aggregation, Moment};

use super::{Window, to_u64};

/// Weight that everything older than a full window may still have together, from which the decay is derived.
/// Source: `pkg/autoscaler/aggregation/bucketing.go`.
const LEFTOVER: f64 = 0.0001;

/// The smallest share that the newest bucket gets, however long the window. Source: as above.
const MIN_SMOOTHING: f64 = 0.2;

/// Linear averages are rounded to this many parts of one. It is the only guard against a sum's last bits asking for one
/// more replica. Source: as above.
const PRECISION: f64 = 1e6;

impl Window {
    /// The average at `now`, the way `aggregation` says; 0 when nothing is in the window.
    pub fn average(&self, now: Moment, aggregation: Aggregation) -> f64 {
        match aggregation {
            Aggregation::Linear => self.linear(now),
            Aggregation::WeightedExponential => self.weighted(now),
        }
    }

    /// Sum of the buckets still in the window over the seconds that had a chance to be filled.
    ///
    /// Seconds without data between two values count as zero. Seconds after the newest value do not: silence keeps the
    /// average of what is left, and it is the shell's explicit zero samples that bring it down.
    fn linear(&self, now: Moment) -> f64 {
        let (Some(last), Some(age)) = (self.last.get(), self.age(now)) else {
            return 0.0;
        };
        if self.reaches_past(age) || self.buckets.is_zero() {
            return 0.0;
        }
        let left = to_u64(self.buckets.len()) - age;
        let span = self.first.get().map_or(u64::MAX, |first| {
            last.saturating_sub(first).saturating_add(1)
        });
        let sum: f64 = self.newest_first(last, left).sum();
        (sum / count(span.min(left)) * PRECISION).round() / PRECISION
    }

    /// Sum of the buckets, each weighted a fixed factor less than the next newer one.
    ///
    /// The weights add up to one only over a full window, so a window that is filling under-reports.
    fn weighted(&self, now: Moment) -> f64 {
        let (Some(last), Some(age)) = (self.last.get(), self.age(now)) else {
            return 0.0;
        };
        if self.is_empty(now) {
            return 0.0;
        }
        let buckets = to_u64(self.buckets.len());
        let smoothing = (1.0 - LEFTOVER.powf(1.0 / count(buckets))).max(MIN_SMOOTHING);
        let decay = 1.0 - smoothing;
        let mut weight = smoothing * decay.powf(count(age));
        let mut average = 0.0;
        for value in self.newest_first(last, buckets.saturating_sub(age)) {
            average += value * weight;
            weight *= decay;
        }
        average
    }

    /// The `count` newest buckets, newest first; none if all are zero.
    fn newest_first(&self, last: u64, count: u64) -> impl Iterator<Item = f64> {
        let (newer, older) = self.buckets.split(self.index(last));
        let all = newer.iter().rev().chain(older.iter().rev());
        all.copied()
            .take(usize::try_from(count).unwrap_or(usize::MAX))
    }
}

/// A number of seconds for arithmetic; exact, since it never exceeds the buckets of a ring.
fn count(seconds: u64) -> f64 {
    f64::from(u32::try_from(seconds).unwrap_or(u32::MAX))
}
