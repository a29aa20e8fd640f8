//! Counts of pods, and the one place where floating point becomes a count.
//!
//! Loads are `f64`, replicas are whole. Every conversion between the two is here, saturates, and says how it rounds.

use std::fmt;

/// A number of pods of one workload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(transparent))]
pub struct Replicas(pub u32);

impl Replicas {
    /// None at all.
    pub const ZERO: Self = Self(0);
    /// One.
    pub const ONE: Self = Self(1);
    /// The most that `spec.replicas`, a signed 32 bit number, can say.
    pub const MAX: Self = Self(2_147_483_647);

    /// The bare number.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Whether this is none at all.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// A count computed in floating point, cut off after the point: negative numbers and NaN become zero, what is too
    /// large becomes [`Replicas::MAX`].
    pub fn from_f64(count: f64) -> Self {
        let max = f64::from(Self::MAX.0);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped to 0..=2^31-1; NaN casts to 0"
        )]
        Self(count.clamp(0.0, max) as u32)
    }

    /// This count for arithmetic; exact.
    pub fn as_f64(self) -> f64 {
        f64::from(self.0)
    }
}

impl From<u32> for Replicas {
    fn from(count: u32) -> Self {
        Self(count)
    }
}

impl From<Replicas> for u32 {
    fn from(count: Replicas) -> Self {
        count.0
    }
}

impl fmt::Display for Replicas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The largest whole number not above `value`, saturating at what an `i64` holds.
pub(crate) fn floor_i64(value: f64) -> i64 {
    truncate_i64(value.floor())
}

/// `value` cut off after the point, saturating at what an `i64` holds.
pub(crate) fn truncate_i64(value: f64) -> i64 {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "`as` saturates, which is what is wanted; NaN becomes 0"
    )]
    let whole = value as i64;
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_saturate_and_never_go_negative() {
        for (value, count) in [
            (-3.0, 0),
            (f64::NAN, 0),
            (f64::NEG_INFINITY, 0),
            (2.999, 2),
            (1e18, 2_147_483_647),
            (f64::INFINITY, 2_147_483_647),
        ] {
            assert_eq!(Replicas::from_f64(value), Replicas(count), "{value}");
        }
    }

    #[test]
    fn floor_and_truncation_differ_below_zero() {
        assert_eq!((floor_i64(-10.5), truncate_i64(-10.5)), (-11, -10));
        assert_eq!(floor_i64(f64::NEG_INFINITY), i64::MIN);
    }
}
