//! Duration literals such as `1m30s`.

/// A signed duration in nanoseconds: what the text can say, before a range check makes it a `Duration`.
pub(crate) type Nanos = i64;

/// Units by name, in nanoseconds. Both spellings of micro (the sign and the Greek letter) are accepted.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// A duration: an optional sign, then numbers with a unit each (`1h30m`, `.5m`, `1.m`). A bare number is refused unless
/// it is 0, as is what 64 bits of nanoseconds cannot hold.
pub(crate) fn parse_duration(text: &str) -> Option<Nanos> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (part, behind) = parse_part(rest)?;
        total = total.checked_add(part)?;
        rest = behind;
    }
    if negative {
        0i64.checked_sub_unsigned(total)
    } else {
        i64::try_from(total).ok()
    }
}

/// The first number and unit of `text`, in nanoseconds, and what follows.
fn parse_part(text: &str) -> Option<(u64, &str)> {
    let (whole, behind) = split_digits(text);
    let (fraction, behind) = match behind.strip_prefix('.') {
        Some(behind) => split_digits(behind),
        None => ("", behind),
    };
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let end = behind
        .find(|c: char| c == '.' || c.is_ascii_digit())
        .unwrap_or(behind.len());
    let (name, rest) = behind.split_at(end);
    let (_, unit) = UNITS.into_iter().find(|&(unit, _)| unit == name)?;
    let whole: u64 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let nanos = whole
        .checked_mul(unit)?
        .checked_add(fraction_of(fraction, unit))?;
    Some((nanos, rest))
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(
        text.find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len()),
    )
}

/// The digits behind the point, as a part of `unit`, cut off below the nanosecond. Digits beyond what 63 bits hold are
/// ignored. In floating point, since that is how Go does it and the last nanosecond shows the difference.
fn fraction_of(digits: &str, unit: u64) -> u64 {
    let mut value: u64 = 0;
    let mut scale = 1.0;
    for digit in digits.bytes().map(|b| u64::from(b - b'0')) {
        match value.checked_mul(10).and_then(|v| v.checked_add(digit)) {
            Some(next) if i64::try_from(next).is_ok() => value = next,
            _ => break,
        }
        scale *= 10.0;
    }
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "not negative, and below one unit"
    )]
    let nanos = (value as f64 * (unit as f64 / scale)) as u64;
    nanos
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_go_reads() {
        for (text, nanos) in [
            ("0", 0),
            ("-0", 0),
            ("300ms", 300_000_000),
            ("1m30s", 90_000_000_000),
            ("2h45m", 9_900_000_000_000),
            (".5m", 30_000_000_000),
            ("1.m", 60_000_000_000),
            ("+10s", 10_000_000_000),
            ("-1.5s", -1_500_000_000),
            ("7µs", 7_000),
            ("7μs", 7_000),
            ("1.0000000000000000000000000000001s", 1_000_000_000),
            ("-9223372036854775808ns", i64::MIN),
        ] {
            assert_eq!(parse_duration(text), Some(nanos), "{text}");
        }
    }

    #[test]
    fn refuses_the_rest() {
        for text in [
            "", "+", ".", ".s", "60", "1h30", "10 s", " 10s", "10s ", "10S", "1d", "1e3s", "1s-1s",
            "--1s", "3000000h", "s",
        ] {
            assert_eq!(parse_duration(text), None, "{text:?}");
        }
    }
}
