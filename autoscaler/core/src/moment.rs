//! Time as a number: what the shell reads from its clock and passes in.
//!
//! Nothing in this crate reads a clock. All arithmetic saturates, so no input can make it panic. It deliberately
//! knows nothing of calendars or time zones.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

/// A point in time: nanoseconds since an epoch that the caller chooses and never changes.
///
/// The epoch matters in two places. Samples fall into buckets aligned to whole seconds of it, and the slots of the
/// scale-down delay are aligned to even seconds. Unix time satisfies both, and reaches to the year 2554.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Moment(u64);

impl Moment {
    /// The epoch itself.
    pub const EPOCH: Self = Self(0);
    /// The last moment there is; additions stop here.
    pub const MAX: Self = Self(u64::MAX);

    /// The moment `nanos` nanoseconds after the epoch.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// The moment `millis` milliseconds after the epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// The moment `secs` seconds after the epoch.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1_000_000_000))
    }

    /// Nanoseconds since the epoch.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Whole milliseconds since the epoch, rounded down.
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// Whole seconds since the epoch, rounded down: the number of this moment's bucket.
    pub const fn as_secs(self) -> u64 {
        self.0 / 1_000_000_000
    }

    /// How long after `earlier` this is; zero when it is not after it.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// This moment moved forward, at most to [`Moment::MAX`].
    #[must_use]
    pub fn saturating_add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(nanos(by)))
    }

    /// This moment moved back, at most to [`Moment::EPOCH`].
    #[must_use]
    pub fn saturating_sub(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(by)))
    }
}

/// A duration's nanoseconds, at most what a `u64` holds (584 years).
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Saturating, as [`Moment::saturating_add`].
impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, by: Duration) -> Self {
        self.saturating_add(by)
    }
}

/// Saturating, as [`Moment::saturating_sub`].
impl Sub<Duration> for Moment {
    type Output = Self;

    fn sub(self, by: Duration) -> Self {
        self.saturating_sub(by)
    }
}

/// Saturating, as [`Moment::since`].
impl Sub for Moment {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.since(earlier)
    }
}

/// Seconds since the epoch with three decimals.
impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}s", self.as_secs(), self.as_millis() % 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        assert_eq!(Moment::EPOCH - Duration::from_secs(1), Moment::EPOCH);
        assert_eq!(Moment::MAX + Duration::MAX, Moment::MAX);
        assert_eq!(Moment::from_secs(1) - Moment::from_secs(2), Duration::ZERO);
        assert_eq!(Moment::from_secs(u64::MAX), Moment::MAX);
    }

    #[test]
    fn units_agree() {
        let moment = Moment::from_millis(1_999);
        assert_eq!((moment.as_secs(), moment.as_millis()), (1, 1_999));
        assert_eq!(moment, Moment::from_nanos(1_999_000_000));
        assert_eq!(moment.to_string(), "1.999s");
    }
}
