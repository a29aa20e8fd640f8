//! Text and figures as a page shows them.

pub(super) use crate::unit::grouped as count;

/// Characters of one text from elsewhere that are shown; the JSON in the page has all.
const LONGEST: usize = 300;

/// Text inside an element or an attribute in double quotes. Separators of lines that some readers take for line breaks are left out.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\u{2028}' | '\u{2029}' => out.push(' '),
            char => out.push(char),
        }
    }
    out
}

/// JSON inside a script element, which only `</script` and `<!--` could end or change.
pub(super) fn in_script(json: &str) -> String {
    json.replace('<', "\\u003c")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}

/// The beginning of a text that may be long.
pub(super) fn clipped(text: &str) -> String {
    let mut clipped: String = text.chars().take(LONGEST).collect();
    if clipped.len() < text.len() {
        clipped.push('…');
    }
    clipped
}

/// Three digits or so, without zeros at the end.
fn digits(value: f64) -> String {
    let places = match value.abs() {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.places$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

/// A duration, in seconds.
pub(super) fn seconds(value: f64) -> String {
    match value {
        s if s <= 0.0 => "0 s".to_owned(),
        s if s < 1e-3 => format!("{} µs", digits(s * 1e6)),
        s if s < 1.0 => format!("{} ms", digits(s * 1e3)),
        s => format!("{} s", digits(s)),
    }
}

/// A moment of the run, in seconds.
pub(super) fn moment(value: f64) -> String {
    let text = format!("{value:.3}");
    format!("{} s", text.trim_end_matches('0').trim_end_matches('.'))
}

/// A number per second.
pub(super) fn rate(value: f64) -> String {
    if value >= 1_000.0 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a positive number that is far below 2^53"
        )]
        let whole = value.round() as u64;
        return format!("{}/s", count(whole));
    }
    format!("{}/s", digits(value))
}

/// A part of a whole, from 0 to 1.
pub(super) fn share(value: f64) -> String {
    let percent = value * 100.0;
    if percent > 0.0 && percent < 0.01 {
        return "under 0.01 %".to_owned();
    }
    format!("{} %", digits(percent))
}

/// Bytes.
#[expect(clippy::cast_precision_loss, reason = "a size for people")]
pub(super) fn bytes(value: u64) -> String {
    let of = |unit: f64| digits(value as f64 / unit);
    match value {
        v if v < 1_000 => format!("{v} B"),
        v if v < 1_000_000 => format!("{} kB", of(1e3)),
        v if v < 1_000_000_000 => format!("{} MB", of(1e6)),
        _ => format!("{} GB", of(1e9)),
    }
}

/// A name of the JSON form as words: `status_5xx`, `first_on_node`.
pub(super) fn words(name: &str) -> String {
    name.replace('_', " ")
}

/// The name of a value whose JSON form is one.
pub(super) fn name(value: &impl serde::Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().unwrap_or("?").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_units_and_few_digits() {
        assert_eq!(
            [0.0, 12.3e-6, 0.001_25, 0.25, 1.5, 120.0].map(seconds),
            ["0 s", "12.3 µs", "1.25 ms", "250 ms", "1.5 s", "120 s"]
        );
        assert_eq!(
            [7, 1_000, 12_345_678].map(count),
            ["7", "1,000", "12,345,678"]
        );
        assert_eq!(
            [0.5, 498.66, 12_345.6].map(rate),
            ["0.5/s", "499/s", "12,346/s"]
        );
        assert_eq!(
            [0.0, 0.000_01, 0.125, 1.0].map(share),
            ["0 %", "under 0.01 %", "12.5 %", "100 %"]
        );
        assert_eq!(
            [12, 1_200, 3_400_000].map(bytes),
            ["12 B", "1.2 kB", "3.4 MB"]
        );
        assert_eq!([0.0, 1.5, 10.0].map(moment), ["0 s", "1.5 s", "10 s"]);
    }

    #[test]
    fn nothing_ends_the_script_it_is_in() {
        let json = in_script("\"</script><!--\u{2028}\u{2029}\"");
        assert_eq!(json, "\"\\u003c/script>\\u003c!--\\u2028\\u2029\"");
        let text: String = serde_json::from_str(&json).unwrap();
        assert_eq!(text, "</script><!--\u{2028}\u{2029}");
    }

    #[test]
    fn long_texts_are_shown_by_their_beginning() {
        assert_eq!(clipped("short"), "short");
        assert_eq!(clipped(&"ü".repeat(1_000)).chars().count(), LONGEST + 1);
    }
}
