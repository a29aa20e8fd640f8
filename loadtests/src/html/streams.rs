//! Streams of events, if the report has figures of such: whatever distributions and numbers are in its part `streams`.

use serde_json::Value;

use super::{
    chart::{Cell, Chart, Kind, Row, Unit},
    text::{clipped, escaped, seconds, words},
};
use crate::report::Percentiles;

/// Figures of that part that are shown: several times those that there are.
const MOST: usize = 30;

fn entries(report: &Value) -> impl Iterator<Item = (&String, &Value)> {
    report
        .get("streams")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .take(MOST)
}

/// Its distributions.
pub(super) fn charts(report: &Value) -> Vec<Chart> {
    let mut chart = Chart::new("streams", "Times of streams", Kind::Bars, Unit::Seconds)
        .note("Medians, with a whisker up to the 99th percentile.")
        .column("", None, "c1")
        .column("count", None, "c1")
        .column("mean", None, "c1")
        .column("p50", Some("bar"), "c1")
        .column("p90", None, "c1")
        .column("p99", Some("whisker"), "c1")
        .column("max", None, "c1");
    chart.is_wide = true;
    for (name, value) in entries(report) {
        let Some(of) = distribution(value) else {
            continue;
        };
        let times = [of.mean, of.p50, of.p90, of.p99, of.max].map(|value| Cell::of(value, seconds));
        let first = vec![Cell::text(words(&clipped(name))), Cell::count(of.count)];
        chart.rows.push(Row::from([first, times.to_vec()].concat()));
    }
    vec![chart]
}

fn distribution(value: &Value) -> Option<Percentiles> {
    let of: Percentiles = serde_json::from_value(value.clone()).ok()?;
    (of.count > 0).then_some(of)
}

/// Its other numbers and words.
pub(super) fn figures(report: &Value) -> String {
    let figures: String = entries(report)
        .filter_map(|(name, value)| {
            let value = match value {
                Value::Number(number) => number.to_string(),
                Value::String(text) => clipped(text),
                _ => return None,
            };
            let name = escaped(&words(&clipped(name)));
            Some(format!("<dt>{name}</dt><dd>{}</dd>", escaped(&value)))
        })
        .collect();
    if figures.is_empty() {
        return figures;
    }
    format!("<div class=\"card wide\"><dl class=\"settings\">{figures}</dl></div>")
}

#[cfg(test)]
mod tests {
    use super::{charts, figures};
    use serde_json::json;

    #[test]
    fn distributions_are_drawn_and_numbers_listed_whatever_their_names() {
        let report = json!({"streams": {
            "first_token": {
                "count": 3, "mean": 0.2, "p50": 0.1, "p90": 0.3, "p95": 0.3, "p99": 0.3, "p999": 0.3, "max": 0.3
            },
            "none": {
                "count": 0, "mean": null, "p50": null, "p90": null, "p95": null, "p99": null, "p999": null, "max": null
            },
            "tokens": 12, "unknown": {"a": [1]}
        }});
        let rows = &charts(&report)[0].rows;
        assert_eq!(rows.len(), 1);
        assert_eq!(
            (
                rows[0].cells[0].text.as_str(),
                rows[0].cells[3].text.as_str()
            ),
            ("first token", "100 ms")
        );
        assert!(figures(&report).contains("<dt>tokens</dt><dd>12</dd>"));
        assert!(charts(&json!({}))[0].rows.is_empty() && figures(&json!({})).is_empty());
    }
}
