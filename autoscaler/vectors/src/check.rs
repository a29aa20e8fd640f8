//! Comparing what came out of one case with what should have.

use std::fmt::{Debug, Display};

use crate::read::Unreadable;

/// The differences of one case.
#[derive(Debug)]
pub(crate) struct Check {
    id: String,
    differences: Vec<String>,
}

impl Check {
    pub(crate) fn new(id: String) -> Self {
        Self {
            id,
            differences: Vec::new(),
        }
    }

    pub(crate) fn into_differences(self) -> Vec<String> {
        self.differences
    }

    /// Both must be equal.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "most are small and made for the comparison"
    )]
    pub(crate) fn same<T: PartialEq + Debug>(&mut self, place: impl Display, got: T, want: T) {
        if got != want {
            self.differ(place, format_args!("{got:?}"), format_args!("{want:?}"));
        }
    }

    /// Both must be within `tolerance`; infinities must be equal, and `NaN` is near `NaN`.
    pub(crate) fn near(&mut self, place: impl Display, got: f64, want: f64, tolerance: f64) {
        let infinite = got.is_infinite() && got.to_bits() == want.to_bits();
        let neither = got.is_nan() && want.is_nan();
        if !(infinite || neither || (got - want).abs() <= tolerance) {
            self.differ(place, got, want);
        }
    }

    pub(crate) fn differ(&mut self, place: impl Display, got: impl Display, want: impl Display) {
        self.differences
            .push(format!("{}: {place}: got {got}, wanted {want}", self.id));
    }

    /// The case cannot be read any further.
    pub(crate) fn unreadable(&mut self, unreadable: &Unreadable) {
        self.differences
            .push(format!("{}: cannot be read: {unreadable}", self.id));
    }
}
