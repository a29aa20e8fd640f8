//! What happened over time: a run in at most [`MOST`] slices of equal length, whatever its own length.
//!
//! A slice begins as long as a second. When there is no room for another one, each two become one that is twice as long, so that
//! memory is bounded and no run has to be known to be long beforehand. A request counts in the slice in which it was *planned*: that is
//! where its load was, also if its answer came much later.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Slices of a run, at most.
pub const MOST: usize = 128;
/// Length of a slice to begin with.
const SHORTEST: Duration = Duration::from_secs(1);
/// In nanoseconds, as those of the whole run: see [`crate::record`].
const LOWEST: u64 = 32;
const HIGHEST: u64 = 2 * 3_600 * 1_000_000_000;
/// Two digits: a percentile is right within one per cent. A slice takes some 15 KB.
const DIGITS: u8 = 2;

/// Slices of one load thread, or of several once merged.
#[derive(Clone, Debug)]
pub struct Series {
    length: Duration,
    slices: Vec<Slice>,
    /// Successes by the slice in which they ended, which may be later ones than there are of `slices`.
    answered: Vec<u64>,
}

/// One slice.
#[derive(Clone, Debug, Default)]
struct Slice {
    errors: u64,
    /// Of successful requests; none as long as there are none.
    latency: Option<Box<Histogram<u32>>>,
}

impl Default for Series {
    fn default() -> Self {
        Self {
            length: SHORTEST,
            slices: Vec::new(),
            answered: Vec::new(),
        }
    }
}

impl Series {
    /// Counts a request that was planned `at` after the measurement began; `latency` is none for an error.
    pub(crate) fn record(&mut self, at: Duration, latency: Option<Duration>) {
        let slice = self.slice(at);
        match latency {
            None => slice.errors += 1,
            Some(latency) => {
                let nanos = u64::try_from(latency.as_nanos()).unwrap_or(HIGHEST);
                slice.histogram().saturating_record(nanos);
                let ended = self.index(at + latency);
                if self.answered.len() <= ended {
                    self.answered.resize(ended + 1, 0);
                }
                self.answered[ended] += 1;
            }
        }
    }

    fn slice(&mut self, at: Duration) -> &mut Slice {
        let index = self.index(at);
        if self.slices.len() <= index {
            self.slices.resize_with(index + 1, Slice::default);
        }
        &mut self.slices[index]
    }

    /// In which slice an instant is, which there is room for after this.
    fn index(&mut self, at: Duration) -> usize {
        // In 64 bits, as this is asked twice for each request: half a thousand years.
        let at = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
        loop {
            let length = u64::try_from(self.length.as_nanos()).unwrap_or(u64::MAX);
            match usize::try_from(at / length) {
                Ok(index) if index < MOST => return index,
                _ => self.halve(),
            }
        }
    }

    /// Each two slices become one.
    fn halve(&mut self) {
        self.length *= 2;
        let mut slices = std::mem::take(&mut self.slices).into_iter();
        while let Some(mut slice) = slices.next() {
            if let Some(second) = slices.next() {
                slice.merge(&second);
            }
            self.slices.push(slice);
        }
        let pairs = self.answered.chunks(2).map(|pair| pair.iter().sum());
        self.answered = pairs.collect();
    }

    /// Adds all of the other's.
    pub(crate) fn merge(&mut self, other: &Self) {
        let mut other = other.clone();
        while self.length < other.length {
            self.halve();
        }
        while other.length < self.length {
            other.halve();
        }
        let most = self.slices.len().max(other.slices.len());
        self.slices.resize_with(most, Slice::default);
        for (slice, more) in self.slices.iter_mut().zip(&other.slices) {
            slice.merge(more);
        }
        add(&mut self.answered, &other.answered);
    }

    /// What a report says of them, where the measurement took `whole`.
    pub(crate) fn report(&self, whole: Duration) -> Slices {
        let length = self.length.as_secs_f64();
        let whole = whole.as_secs_f64();
        let mut began = 0.0;
        let points = self.slices.iter().map(|slice| {
            let point = slice.point(began, (whole - began).clamp(0.0, length));
            began += length;
            point
        });
        Slices {
            length,
            points: points.collect(),
            answered: self.answered.clone(),
        }
    }
}

/// Adds counts of slices to those of the same slices.
pub(crate) fn add(sums: &mut Vec<u64>, more: &[u64]) {
    if sums.len() < more.len() {
        sums.resize(more.len(), 0);
    }
    for (sum, count) in sums.iter_mut().zip(more) {
        *sum += count;
    }
}

impl Slice {
    fn histogram(&mut self) -> &mut Histogram<u32> {
        self.latency.get_or_insert_with(|| {
            let made = Histogram::new_with_bounds(LOWEST, HIGHEST, DIGITS);
            Box::new(made.expect("the bounds are constants that the type accepts"))
        })
    }

    fn merge(&mut self, other: &Self) {
        self.errors += other.errors;
        if let Some(latency) = &other.latency {
            self.histogram()
                .add(&**latency)
                .expect("all histograms have the same bounds");
        }
    }

    fn point(&self, at: f64, length: f64) -> Point {
        let successes = self.latency.as_ref().map_or(0, |latency| latency.len());
        let quantile = |q: f64| {
            let latency = self.latency.as_ref()?;
            let nanos = latency.value_at_quantile(q).min(latency.max());
            Some(Duration::from_nanos(nanos).as_secs_f64())
        };
        Point {
            at,
            length,
            successes,
            errors: self.errors,
            p50: quantile(0.5),
            p90: quantile(0.9),
            p99: quantile(0.99),
            max: quantile(1.0),
        }
    }
}

/// A run over time. Times are in seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Slices {
    /// Length of each slice.
    pub length: f64,
    /// One for each slice, in order, from the start of the measurement on.
    pub points: Vec<Point>,
    /// Successes by the slice in which they **ended**. There may be more of these than of `points`: what was planned last is answered
    /// later.
    #[serde(default)]
    pub answered: Vec<u64>,
}

/// The requests that were planned in one slice, or that a closed loop began in it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// When it begins.
    pub at: f64,
    /// How much of it lies in the measurement: all but for the last one.
    pub length: f64,
    /// Requests that got the expected status and a whole body.
    pub successes: u64,
    /// Errors of every kind.
    pub errors: u64,
    /// Median latency of successful requests, right within one per cent as are the others.
    pub p50: Option<f64>,
    /// 90th percentile.
    pub p90: Option<f64>,
    /// 99th percentile.
    pub p99: Option<f64>,
    /// The longest.
    pub max: Option<f64>,
}

impl Point {
    /// Successful requests per second.
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
    pub fn throughput(&self) -> f64 {
        if self.length > 0.0 {
            self.successes as f64 / self.length
        } else {
            0.0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn requests_count_where_they_were_planned() {
        let mut series = Series::default();
        for (at, latency) in [(0, 5), (999, 7), (1_000, 9_000), (2_500, 1)] {
            series.record(MS(at), Some(MS(latency)));
        }
        series.record(MS(2_999), None);
        let slices = series.report(MS(2_750));
        let counts: Vec<_> = slices
            .points
            .iter()
            .map(|p| (p.successes, p.errors))
            .collect();
        assert_eq!(counts, [(2, 0), (1, 0), (1, 1)]);
        let last = slices.points[2];
        assert!((last.length - 0.75).abs() < 1e-9 && (last.throughput() - 4.0 / 3.0).abs() < 1e-9);
        let slow = slices.points[1].max.unwrap();
        assert!((slow / 9.0 - 1.0).abs() < 0.01, "{slow}");
        // The one of nine seconds, planned at 1 s, was answered at 10 s.
        assert_eq!(slices.answered, [1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn a_run_of_any_length_has_as_many_slices_and_loses_none() {
        let mut series = Series::default();
        for second in 0..100_000 {
            series.record(Duration::from_secs(second), Some(MS(1)));
            assert!(series.slices.len() <= MOST);
        }
        let slices = series.report(Duration::from_secs(100_000));
        assert_eq!(
            slices.points.iter().map(|p| p.successes).sum::<u64>(),
            100_000
        );
        assert_eq!(slices.answered.iter().sum::<u64>(), 100_000);
        assert!(slices.points.len() > MOST / 2 && (slices.length - 1_024.0).abs() < 1e-9);
        let full = &slices.points[..slices.points.len() - 1];
        assert!(full.iter().all(|point| point.successes == 1_024));
        // A single one far away leads to the same.
        let mut far = Series::default();
        far.record(Duration::from_secs(99_999), None);
        assert_eq!(far.length, series.length);
    }

    #[test]
    fn merging_equals_recording_in_one_place_whatever_the_lengths() {
        let (mut one, mut left, mut right) =
            (Series::default(), Series::default(), Series::default());
        for i in 0..600 {
            let (at, latency) = (Duration::from_secs(i), (i % 7 > 0).then(|| MS(i)));
            one.record(at, latency);
            // The left ones are few and early, so that its slices are shorter.
            (if i < 50 { &mut left } else { &mut right }).record(at, latency);
        }
        assert_ne!(left.length, right.length);
        left.merge(&right);
        let whole = Duration::from_mins(10);
        assert_eq!(left.report(whole), one.report(whole));
    }
}
