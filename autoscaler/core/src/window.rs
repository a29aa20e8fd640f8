//! Averages over the last so many seconds: a ring of one-second buckets.
//!
//! Knative keeps one ring per window and metric, and so do we: the panic window is not a suffix of the stable one,
//! because each ring notes for itself when its data began, and that is what the average is divided by.
//! The sums are taken afresh at each read rather than carried along, so rounding errors cannot build up over days; an
//! hour of buckets is a few microseconds. Source: `pkg/autoscaler/aggregation/bucketing.go`.

use std::num::NonZeroU64;
use std::time::Duration;

use crate::Moment;

mod average;
mod buckets;

use self::buckets::Buckets;

/// What became of a recorded value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It went into the bucket of its second.
    Kept,
    /// Its second had already left the window.
    TooOld,
}

/// A window of one-second buckets over one series of numbers.
///
/// Values of the same second add up. A value for an earlier second goes into that second's bucket as long as the window
/// still reaches it.
#[derive(Clone, Debug)]
pub struct Window {
    /// In nanoseconds, in eight bytes; no window is longer than the centuries that fit.
    nanos: u64,
    buckets: Buckets,
    /// First second written since the ring was last empty. Unset although `last` is set after a resize of stale data.
    first: Mark,
    /// Newest second written.
    last: Mark,
}

/// A second, or none, in eight bytes: each workload has a dozen of these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Mark(Option<NonZeroU64>);

impl Mark {
    /// The last second of all time is taken for the one before it.
    fn at(second: u64) -> Self {
        Self(NonZeroU64::new(second.saturating_add(1)))
    }

    fn get(self) -> Option<u64> {
        self.0.map(|after| after.get() - 1)
    }
}

impl Window {
    /// An empty window of this length, rounded up to whole seconds, at least one.
    pub fn new(length: Duration) -> Self {
        Self {
            nanos: nanos(length),
            buckets: Buckets::new(bucket_count(length)),
            first: Mark::default(),
            last: Mark::default(),
        }
    }

    /// How far back the window reaches.
    pub fn length(&self) -> Duration {
        Duration::from_nanos(self.nanos)
    }

    /// Adds `value` to the bucket of the second of `at`.
    pub fn record(&mut self, at: Moment, value: f64) -> Written {
        let second = at.as_secs();
        if self.last.get() != Some(second) {
            if self
                .last
                .get()
                .is_some_and(|last| last > second && self.reaches_past(last - second))
            {
                return Written::TooOld;
            }
            let first = self.first.get().map_or(second, |first| first.min(second));
            self.first = Mark::at(first);
            self.advance(second);
        }
        if value != 0.0 {
            let index = self.index(second);
            self.buckets.add(index, value);
        }
        Written::Kept
    }

    /// Whether the newest value is more than the window's length old, or there is none: the average is not a
    /// measurement then. At exactly the window's length the window counts as filled and averages 0; see
    /// [`Window::is_silent`].
    pub fn is_empty(&self, now: Moment) -> bool {
        self.age(now)
            .is_none_or(|age| Duration::from_secs(age) > self.length())
    }

    /// Whether no bucket is left inside the window. Unlike [`Window::is_empty`], this has no last second in which
    /// silence reads as a measured zero.
    pub fn is_silent(&self, now: Moment) -> bool {
        self.age(now).is_none_or(|age| self.reaches_past(age))
    }

    /// Changes the length and keeps the newest buckets that fit.
    ///
    /// The kept data counts as a full old window. Data older than the old window is dropped, but the time of the newest
    /// value is remembered, as in Knative: under a longer window a stale series can read as 0 rather than as empty.
    pub fn resize(&mut self, now: Moment, length: Duration) {
        let count = bucket_count(length);
        if count == self.buckets.len() {
            self.nanos = nanos(length);
            return;
        }
        let mut resized = Self {
            nanos: nanos(length),
            buckets: Buckets::new(count),
            first: Mark::default(),
            last: self.last,
        };
        let fresh = self.last.get().filter(|_| !self.is_empty(now));
        if let Some(last) = fresh {
            let old = self.buckets.len();
            for back in 0..to_u64(old.min(count)).min(last.saturating_add(1)) {
                let index = resized.index(last - back);
                resized
                    .buckets
                    .add(index, self.buckets.get(self.index(last - back)));
            }
            resized.first = Mark::at(last.saturating_sub(to_u64(old - 1)));
        }
        *self = resized;
    }

    /// Makes `second` the newest one if it is, and clears the buckets of the seconds in between.
    fn advance(&mut self, second: u64) {
        match self.last.get() {
            Some(last) if second < last => return,
            // Nothing to clear.
            Some(last) if !self.reaches_past(second - last) && self.buckets.is_zero() => {}
            Some(last) if !self.reaches_past(second - last) => {
                for between in last + 1..=second {
                    let index = self.index(between);
                    self.buckets.clear(index);
                }
            }
            _ => {
                self.buckets.clear_all();
                self.first = Mark::at(second);
            }
        }
        self.last = Mark::at(second);
    }

    /// Whole seconds from the newest value to `now`; zero if `now` is before it, nothing if there is no value.
    fn age(&self, now: Moment) -> Option<u64> {
        Some(now.as_secs().saturating_sub(self.last.get()?))
    }

    /// Whether something `seconds` old is out of the window.
    fn reaches_past(&self, seconds: u64) -> bool {
        Duration::from_secs(seconds) >= self.length()
    }

    fn index(&self, second: u64) -> usize {
        // The remainder is below the number of buckets, which is a usize.
        usize::try_from(second % to_u64(self.buckets.len())).unwrap_or(0)
    }
}

fn nanos(length: Duration) -> u64 {
    u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)
}

fn bucket_count(length: Duration) -> usize {
    let seconds = length.as_secs() + u64::from(length.subsec_nanos() > 0);
    // A day is far above every window that passes validation (an hour) and keeps a wrong caller's memory bounded.
    usize::try_from(seconds.clamp(1, 86_400)).unwrap_or(1)
}

fn to_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
