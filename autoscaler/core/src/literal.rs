//! Numbers and durations in text, exactly as Knative's components read them, which is as Go does.
//!
//! No spaces anywhere, ASCII digits only. One departure: what is not a finite number is not a number, since a `NaN`
//! passes every range check ([`crate::Policy::finite_numbers_only`]). Source: measured (annotations.json), and the users of
//! these in `pkg/apis/autoscaling/annotation_validation.go`.

mod duration;
mod float;

pub(crate) use duration::{Nanos, parse_duration};
pub(crate) use float::parse_float;

/// A signed base-10 integer: a sign and leading zeros are fine; a prefix, an exponent or `_` is not.
pub(crate) fn parse_int(text: &str) -> Option<i64> {
    text.parse().ok()
}

/// As [`parse_int`], and it must fit 32 bits.
pub(crate) fn parse_int32(text: &str) -> Option<i32> {
    text.parse().ok()
}

/// One of the spellings `1 t T TRUE true True 0 f F FALSE false False`.
pub(crate) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_take_a_sign_and_zeros_only() {
        assert_eq!(
            ["+4", "007", "-0"].map(parse_int),
            [Some(4), Some(7), Some(0)]
        );
        for text in ["", "+", "1_0", "0x10", "1e2", " 1", "1.0", "１"] {
            assert_eq!(parse_int(text), None, "{text:?}");
        }
        assert_eq!(
            (parse_int32("2147483648"), parse_int("2147483648")),
            (None, Some(2_147_483_648))
        );
    }

    #[test]
    fn booleans_are_case_sensitive_words() {
        assert_eq!(
            ["T", "True", "tRUE", "yes", ""].map(parse_bool),
            [Some(true), Some(true), None, None, None]
        );
        assert_eq!(parse_bool("FALSE"), Some(false));
    }
}
