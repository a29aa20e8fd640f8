//! Floating point literals: decimal and hexadecimal, with `_` between digits.

use crate::Policy;

/// A floating point number, finite unless `policy` takes others too.
///
/// Takes `.5`, `5.`, `+5`, exponents, `1_000`, and hexadecimal with a binary exponent (`0x1p4`). What overflows is no
/// number; what underflows is 0.
pub(crate) fn parse_float(text: &str, policy: Policy) -> Option<f64> {
    if policy.finite_numbers_only {
        finite(text)
    } else {
        word(text).or_else(|| finite(text))
    }
}

/// Go's words for what is not finite, in any case. `NaN` has no sign.
fn word(text: &str) -> Option<f64> {
    let (sign, unsigned) = match text.as_bytes().first()? {
        b'-' => (-1.0, &text[1..]),
        b'+' => (1.0, &text[1..]),
        _ => (1.0, text),
    };
    if text.eq_ignore_ascii_case("nan") {
        return Some(f64::NAN);
    }
    ["inf", "infinity"]
        .iter()
        .any(|word| unsigned.eq_ignore_ascii_case(word))
        .then_some(sign * f64::INFINITY)
}

fn finite(text: &str) -> Option<f64> {
    if !underscores_separate_digits(text) {
        return None;
    }
    let plain: String = text.chars().filter(|&c| c != '_').collect();
    let (negative, unsigned) = match plain.as_bytes().first()? {
        b'-' => (true, &plain[1..]),
        b'+' => (false, &plain[1..]),
        _ => (false, plain.as_str()),
    };
    let value = match unsigned
        .strip_prefix("0x")
        .or_else(|| unsigned.strip_prefix("0X"))
    {
        Some(digits) => parse_hex(digits)?,
        // The first character rules out a second sign and the words for infinity and NaN.
        None if unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') => {
            unsigned.parse().ok()?
        }
        None => return None,
    };
    value
        .is_finite()
        .then_some(if negative { -value } else { value })
}

/// Whether every `_` stands between two digits; the prefix `0x` counts as a digit.
fn underscores_separate_digits(text: &str) -> bool {
    if !text.contains('_') {
        return true;
    }
    let digits = text.trim_start_matches(['+', '-']).to_ascii_lowercase();
    let (hex, body) = match digits.strip_prefix("0x") {
        Some(body) => (true, body),
        None => (false, digits.as_str()),
    };
    let is_digit = |c: char| c.is_ascii_digit() || (hex && c.is_ascii_hexdigit());
    let mut after_digit = hex;
    let mut after_underscore = false;
    for c in body.chars() {
        let digit = is_digit(c);
        if (c == '_' && !after_digit) || (after_underscore && !digit) {
            return false;
        }
        after_digit = digit;
        after_underscore = c == '_';
    }
    !after_underscore
}

/// The part behind `0x`: hexadecimal digits with at most one point, then a mandatory `p` and a decimal exponent.
fn parse_hex(text: &str) -> Option<f64> {
    let (mantissa, exponent) = text.split_once(['p', 'P'])?;
    let (sign, digits) = match exponent.as_bytes().first()? {
        b'-' => (-1, &exponent[1..]),
        b'+' => (1, &exponent[1..]),
        _ => (1, exponent),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    // Far beyond the range of a double either way, so that a longer exponent may as well be this one.
    let exponent: i64 = sign * digits.parse::<i64>().unwrap_or(i64::MAX).min(1_000_000);

    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let mut bits: u64 = 0;
    let mut shift: i64 = 0;
    for (c, fractional) in whole
        .chars()
        .map(|c| (c, false))
        .chain(fraction.chars().map(|c| (c, true)))
    {
        let digit = u64::from(c.to_digit(16)?);
        if bits >> 60 == 0 {
            bits = bits << 4 | digit;
            shift -= if fractional { 4 } else { 0 };
        } else {
            // No room left. That something was cut off still decides which way a tie is rounded.
            bits |= u64::from(digit != 0);
            shift += if fractional { 0 } else { 4 };
        }
    }
    #[expect(
        clippy::cast_precision_loss,
        reason = "rounding to the nearest double is the point"
    )]
    let mut value = bits as f64;
    let mut power = exponent.saturating_add(shift);
    while power != 0 && value != 0.0 && value.is_finite() {
        // Steps that are powers of two are exact until the result leaves the normal range.
        let step = i32::try_from(power.clamp(-1000, 1000)).unwrap_or(0);
        value *= 2f64.powi(step);
        power -= i64::from(step);
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_go_reads() {
        for (text, value) in [
            ("5", 5.0),
            (".5", 0.5),
            ("5.", 5.0),
            ("+5", 5.0),
            ("-5e-1", -0.5),
            ("1_000", 1000.0),
            ("1E2", 100.0),
            ("0x1p4", 16.0),
            ("0X1.8P+1", 3.0),
            ("0x_1_0p0", 16.0),
            ("0x.8p0", 0.5),
            ("1e-400", 0.0),
            ("0x1.00000000000008p0", 1.0),
            ("0x1.0000000000000800000001p0", 1.000_000_000_000_000_2),
            ("0x1p-5000", 0.0),
            ("0x10000000000000000000p-76", 1.0),
        ] {
            assert_eq!(
                parse_float(text, Policy::default()).map(f64::to_bits),
                Some(f64::to_bits(value)),
                "{text}"
            );
        }
    }

    #[test]
    fn refuses_the_rest() {
        for text in [
            "",
            "+",
            ".",
            "e5",
            "5e",
            "0x10",
            "0x1p",
            "0xp1",
            "0x1p1_",
            "_1",
            "1_",
            "1__0",
            "1_.5",
            "1e400",
            "-1e400",
            "0x1p5000",
            "NaN",
            "nan",
            "Inf",
            "-inf",
            "+Infinity",
            " 5",
            "5 ",
            "5f",
            "1,5",
            "5%",
            "++5",
            "+-5",
            "０",
        ] {
            assert_eq!(parse_float(text, Policy::default()), None, "{text:?}");
        }
    }

    #[test]
    fn knative_reads_what_is_not_finite() {
        for (text, value) in [
            ("Inf", f64::INFINITY),
            ("+infinity", f64::INFINITY),
            ("-iNF", f64::NEG_INFINITY),
            ("1e300", 1e300),
        ] {
            assert_eq!(parse_float(text, Policy::KNATIVE), Some(value), "{text}");
        }
        assert!(parse_float("NAN", Policy::KNATIVE).is_some_and(f64::is_nan));
        for text in ["+nan", "-NaN", "infinit", "++inf", "1e400", " inf", ""] {
            assert_eq!(parse_float(text, Policy::KNATIVE), None, "{text:?}");
        }
    }
}
