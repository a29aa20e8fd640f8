//! Quantities with units as people type and read them: durations and request rates.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The longest duration any setting accepts: one day, so that a slip of the keyboard is caught.
pub const MAX_DURATION: Duration = Duration::from_hours(24);

/// The highest request rate that is accepted: far above what one client machine can send.
pub const MAX_RATE: f64 = 1_000_000.0;

/// The lowest request rate other than a pause: about one request in three hours.
const MIN_RATE: f64 = 0.000_1;

/// Requests per second. Finite, never negative, at most [`MAX_RATE`]; zero only inside stages, where it is a pause.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Rate(f64);

impl Rate {
    /// No requests at all.
    pub const PAUSE: Self = Self(0.0);

    /// A rate in requests per second, or `None` outside `0.0001..=1000000` (zero, a pause, is accepted).
    pub fn new(per_second: f64) -> Option<Self> {
        (per_second == 0.0 || (MIN_RATE..=MAX_RATE).contains(&per_second))
            .then_some(Self(per_second))
    }

    /// Requests per second.
    pub const fn per_second(self) -> f64 {
        self.0
    }

    /// True for a rate of zero.
    pub fn is_pause(self) -> bool {
        self.0 == 0.0
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.trim().parse().ok().and_then(Self::new).ok_or_else(|| {
            format!("a rate is a number of requests per second, {MIN_RATE} to {MAX_RATE}")
        })
    }
}

/// Reads a duration such as `250us`, `500ms`, `1.5s`, `2m` or `1h`; a unit is required except for `0`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    const ALLOWED: &str =
        "a duration is a number with a unit (us, ms, s, m, h), at most 24h, such as 500ms or 1.5s";
    let text = text.trim();
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let split = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .ok_or(ALLOWED)?;
    let (number, unit) = text.split_at(split);
    let seconds_per_unit = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(ALLOWED.into()),
    };
    let number: f64 = number.parse().map_err(|_| ALLOWED)?;
    Duration::try_from_secs_f64(number * seconds_per_unit)
        .ok()
        .filter(|duration| *duration <= MAX_DURATION)
        .ok_or_else(|| ALLOWED.into())
}

/// A duration for people: three digits or so and a fitting unit.
pub(crate) fn human(seconds: f64) -> String {
    match seconds {
        s if s <= 0.0 => "0".into(),
        s if s < 1e-3 => format!("{:.0} us", s * 1e6),
        s if s < 1.0 => format!("{:.2} ms", s * 1e3),
        s => format!("{s:.2} s"),
    }
}

/// A whole number for people: in groups of three digits.
pub(crate) fn grouped(value: u64) -> String {
    let text = value.to_string();
    let mut out = String::new();
    for (index, digit) in text.chars().enumerate() {
        if index > 0 && (text.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{Rate, human, parse_duration};
    use std::time::Duration;

    #[test]
    fn reads_durations_with_every_unit() {
        for (text, want) in [
            ("250us", Duration::from_micros(250)),
            ("500ms", Duration::from_millis(500)),
            ("1.5s", Duration::from_millis(1500)),
            ("2m", Duration::from_mins(2)),
            ("1h", Duration::from_hours(1)),
            ("0", Duration::ZERO),
        ] {
            assert_eq!(parse_duration(text), Ok(want), "{text}");
        }
    }

    #[test]
    fn refuses_durations_that_are_not() {
        for text in ["", "10", "-1s", "1d", "25h", "1e9h", "s", "1..2s", "nan"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn refuses_absurd_rates_but_takes_a_pause() {
        for text in ["1e9", "-1", "nan", "inf", "", "10/s", "0.00001"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
        assert!("0".parse::<Rate>().is_ok_and(Rate::is_pause));
    }

    #[test]
    fn shows_durations_in_a_fitting_unit() {
        assert_eq!(human(0.000_025), "25 us");
        assert_eq!(human(0.012_345), "12.35 ms");
        assert_eq!(human(2.5), "2.50 s");
    }
}
