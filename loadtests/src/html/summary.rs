//! Verdicts, key figures and settings: what can be read at a glance.

use std::fmt::Write;

use serde_json::{Map, Value};

use super::text::{bytes, clipped, count, escaped, moment, rate, seconds, share, words};
use crate::report::{Percentiles, Report};

/// Objectives that are shown: more than anyone types.
const MOST_VERDICTS: usize = 50;
/// Values of one setting that are shown.
const MOST_VALUES: usize = 50;

/// What was measured when, and the verdicts.
pub(super) fn header(report: &Report) -> String {
    let config = &report.config;
    let url = escaped(&clipped(&config.url));
    let connections = match config.connections {
        1 => "1 connection".to_owned(),
        many => format!("{} connections", count(many as u64)),
    };
    let loop_of = format!("{} loop", clipped(&config.load));
    let under = [
        when(report.started_at),
        loop_of,
        connections,
        format!("HTTP/{}", clipped(&config.http)),
        clipped(&report.tool),
    ];
    let under: Vec<_> = under
        .iter()
        .filter(|text| !text.is_empty())
        .map(|text| escaped(text))
        .collect();
    format!(
        "<header><div class=\"top\"><div><p class=\"kicker\">Load test</p><h1>{} {url}</h1><p class=\"under\">{}</p></div>\
         <div class=\"actions\" id=\"actions\"></div></div><ul class=\"verdicts\">{}</ul></header>\n",
        escaped(&clipped(&config.method)),
        under.join(" · "),
        verdicts(report),
    )
}

/// In the calendar, where it is one of ours.
fn when(started_at: f64) -> String {
    #[expect(clippy::cast_possible_truncation, reason = "whole seconds")]
    let second = started_at as i64;
    jiff::Timestamp::from_second(second).map_or_else(
        |_| String::new(),
        |moment| moment.to_string().replace('T', " ").replace('Z', " UTC"),
    )
}

fn verdicts(report: &Report) -> String {
    let mut list = String::new();
    let mut say = |class: &str, sign: &str, text: &str| {
        let text = escaped(&clipped(text));
        // Writing to a string does not fail.
        let _ = write!(list, "<li class=\"{class}\"><b>{sign}</b>{text}</li>");
    };
    if report.interrupted {
        say("warn", "!", "stopped early: this report is partial");
    }
    for verdict in report.slo.iter().take(MOST_VERDICTS) {
        let got = verdict.value.map_or_else(
            || "no figure".to_owned(),
            |value| figure(&verdict.objective, value),
        );
        let (class, sign, word) = if verdict.met {
            ("good", "✓", "met")
        } else {
            ("bad", "✗", "missed")
        };
        say(
            class,
            sign,
            &format!("{word}: {}, got {got}", verdict.objective),
        );
    }
    if let Some(pacing) = &report.pacing {
        let (class, sign) = if pacing.tool_was_the_limit {
            ("bad", "✗")
        } else {
            ("good", "✓")
        };
        say(class, sign, &pacing.verdict);
        if pacing.dropped > 0 {
            let dropped = count(pacing.dropped);
            let text =
                format!("{dropped} requests were never sent: no connection came free for them");
            say("warn", "!", &text);
        }
    }
    let starved = report.cold.as_ref().map_or(0, |cold| cold.starved);
    if starved > 0 {
        let starved = count(starved);
        let text = format!("{starved} requests that were to be cold found no target at zero");
        say("warn", "!", &text);
    }
    if report.runs > 1 {
        say(
            "warn",
            "+",
            &format!("merged from {} runs", count(report.runs)),
        );
    }
    list
}

/// The figure of an objective in its unit, which its text says.
fn figure(objective: &str, value: f64) -> String {
    let objective = objective.trim();
    if objective.starts_with("throughput") {
        rate(value)
    } else if objective.starts_with("errors") {
        if objective.ends_with('%') {
            share(value)
        } else {
            value.to_string()
        }
    } else {
        seconds(value)
    }
}

/// The key figures, and all percentiles.
pub(super) fn figures(report: &Report) -> String {
    let summary = &report.summary;
    let time = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), seconds);
    let latency = &summary.latency;
    let errors = summary.error_share().map_or_else(
        || "no request".to_owned(),
        |of| format!("{} of all requests", share(of)),
    );
    let unfinished = match summary.unfinished {
        0 => format!("of {}", count(summary.requests)),
        some => format!("of {}, {} unfinished", count(summary.requests), count(some)),
    };
    let tiles = [
        (
            "Throughput",
            rate(summary.throughput),
            "successful requests".to_owned(),
            false,
        ),
        ("Successful", count(summary.successes), unfinished, false),
        (
            "Errors",
            count(summary.error_count),
            errors,
            summary.error_count > 0,
        ),
        (
            "Median latency",
            time(latency.p50),
            format!("mean {}", time(latency.mean)),
            false,
        ),
        (
            "p99 latency",
            time(latency.p99),
            format!("p90 {}", time(latency.p90)),
            false,
        ),
        (
            "Longest",
            time(latency.max),
            format!("p99.9 {}", time(latency.p999)),
            false,
        ),
        (
            "Measured for",
            moment(summary.duration),
            format!("warm-up {}", moment(report.config.warmup)),
            false,
        ),
        (
            "Received",
            bytes(summary.body_bytes),
            format!("{} connections opened", count(summary.connections_opened)),
            false,
        ),
    ];
    let tiles: String = tiles.iter().map(tile).collect();
    format!("<dl class=\"figures\">{tiles}</dl>{}", durations(report))
}

fn tile((name, value, more, is_bad): &(&str, String, String, bool)) -> String {
    format!(
        "<div{}><dt>{name}</dt><dd>{}<small>{}</small></dd></div>",
        if *is_bad { " class=\"is-bad\"" } else { "" },
        escaped(value),
        escaped(more)
    )
}

/// All distributions of the run as one table.
fn durations(report: &Report) -> String {
    let summary = &report.summary;
    let mut rows = vec![
        ("latency", &summary.latency),
        ("latency of failures", &summary.failed_latency),
    ];
    if let Some(pacing) = &report.pacing {
        rows.extend([
            ("wait for a connection", &pacing.waited),
            ("lag of the tool", &pacing.lag),
        ]);
    }
    let rows: String = rows
        .into_iter()
        .filter(|(_, of)| of.count > 0)
        .map(|(name, of)| durations_row(name, of))
        .collect();
    if rows.is_empty() {
        return rows;
    }
    let heads = [
        "", "requests", "mean", "p50", "p90", "p95", "p99", "p99.9", "max",
    ]
    .map(|head| format!("<th scope=\"col\">{head}</th>"))
    .concat();
    format!(
        "<section><h2>Durations</h2><div class=\"card\"><div class=\"scroll\" tabindex=\"0\"><table id=\"durations\"><thead><tr>{heads}</tr>\
         </thead><tbody>{rows}</tbody></table></div></div></section>"
    )
}

fn durations_row(name: &str, of: &Percentiles) -> String {
    let values = [of.mean, of.p50, of.p90, of.p95, of.p99, of.p999, of.max];
    let cells = values
        .map(|value| {
            let text = value.map_or_else(|| "–".to_owned(), seconds);
            format!("<td>{text}</td>")
        })
        .concat();
    format!(
        "<tr><th scope=\"row\">{name}</th><td>{}</td>{cells}</tr>",
        count(of.count)
    )
}

/// What was asked for, whatever settings there are.
pub(super) fn settings(report: &Value) -> String {
    let none = Map::new();
    let config = report["config"].as_object().unwrap_or(&none);
    let cold = report["cold"]["settings"].as_object().unwrap_or(&none);
    let config = config.iter().map(|(name, value)| (name.clone(), value));
    let cold = cold
        .iter()
        .map(|(name, value)| (format!("cold_{name}"), value));
    let list: String = config
        .chain(cold)
        .filter_map(|(name, value)| {
            let text = setting(&name, value)?;
            let (name, text) = (escaped(&words(&name)), escaped(&clipped(&text)));
            Some(format!("<dt>{name}</dt><dd>{text}</dd>"))
        })
        .collect();
    format!(
        "<section><h2>Settings</h2><div class=\"card\"><dl class=\"settings\">{list}</dl></div></section>"
    )
}

/// A setting in words; none where nothing was set.
fn setting(name: &str, value: &Value) -> Option<String> {
    match (name, value) {
        (_, Value::Null) => None,
        (
            "timeout" | "warmup" | "duration" | "cold_idle" | "cold_zero_timeout",
            Value::Number(number),
        ) => number.as_f64().map(moment),
        (_, Value::Number(number)) => {
            Some(number.as_u64().map_or_else(|| number.to_string(), count))
        }
        (_, Value::Bool(is)) => Some(if *is { "yes" } else { "no" }.to_owned()),
        (_, Value::String(text)) => (!text.is_empty()).then(|| text.clone()),
        (_, Value::Array(values)) => {
            let texts: Vec<_> = values
                .iter()
                .take(MOST_VALUES)
                .filter_map(|value| setting("", value))
                .collect();
            let more = if values.len() > MOST_VALUES {
                ", .."
            } else {
                ""
            };
            (!texts.is_empty()).then(|| texts.join(", ") + more)
        }
        (_, Value::Object(fields)) => Some(stage(fields).unwrap_or_else(|| listed(fields))),
    }
}

/// A stage as it is typed.
fn stage(fields: &Map<String, Value>) -> Option<String> {
    let (duration, shape) = (fields.get("duration")?, fields.get("shape")?.as_str()?);
    Some(format!("{}s@{shape}", duration.as_f64()?))
}

fn listed(fields: &Map<String, Value>) -> String {
    let texts: Vec<_> = fields
        .iter()
        .filter_map(|(name, value)| Some(format!("{} {}", words(name), setting(name, value)?)))
        .collect();
    texts.join(", ")
}

/// Where the numbers come from.
pub(super) fn footer(report: &Report) -> String {
    format!(
        "<footer>Made by {} from its report, which is in this file as JSON. Warm-up is in none of the figures.</footer>",
        escaped(&clipped(&report.tool))
    )
}

#[cfg(test)]
mod tests {
    use super::super::tests::{empty, report};
    use super::{figure, figures, header, settings, when};
    use serde_json::json;

    #[test]
    fn verdicts_say_more_than_their_colour() {
        let mut value = empty();
        value["interrupted"] = true.into();
        value["runs"] = 3.into();
        value["slo"] = json!([
            {"objective": "p99<1s", "value": 0.25, "limit": 1.0, "met": true},
            {"objective": "errors<1%", "value": 0.5, "limit": 0.01, "met": false},
            {"objective": "p50<1s", "value": null, "limit": 1.0, "met": false}
        ]);
        let header = header(&report(value));
        for text in [
            "met: p99&lt;1s, got 250 ms",
            "missed: errors&lt;1%, got 50 %",
            "missed: p50&lt;1s, got no figure",
            "this report is partial",
            "merged from 3 runs",
        ] {
            assert!(header.contains(text), "{text}: {header}");
        }
        assert_eq!(figure("throughput>100", 1_234.0), "1,234/s");
        assert_eq!(figure("errors<5", 7.0), "7");
    }

    #[test]
    fn a_run_without_a_request_has_figures_without_numbers_that_are_none() {
        let figures = figures(&report(empty()));
        assert!(
            figures.contains("no request") && !figures.contains("NaN"),
            "{figures}"
        );
        assert!(!figures.contains("<table"), "nothing to tell");
    }

    #[test]
    fn settings_are_as_typed_and_those_not_set_are_left_out() {
        let mut value = empty();
        value["config"]["stages"] = json!([{"duration": 30.0, "rate": 75.0, "shape": "50..100"}]);
        value["config"]["trace"] =
            json!({"file": "t.csv", "requests": 9, "speed": 2.0, "rows": []});
        let settings = settings(&value);
        assert!(
            settings.contains("<dt>stages</dt><dd>30s@50..100</dd>"),
            "{settings}"
        );
        assert!(settings.contains("file t.csv, requests 9"), "{settings}");
        assert!(
            settings.contains("<dt>timeout</dt><dd>1 s</dd>"),
            "{settings}"
        );
        assert!(
            !settings.contains("seed") && !settings.contains("headers"),
            "{settings}"
        );
        value["cold"]["settings"] =
            json!({"idle": 30.0, "warm": null, "targets": [{"name": "a", "url": "http://a/"}]});
        let settings = super::settings(&value);
        for text in [
            "<dt>cold idle</dt><dd>30 s</dd>",
            "<dt>cold targets</dt><dd>name a, url http://a/</dd>",
        ] {
            assert!(settings.contains(text), "{text}: {settings}");
        }
        assert!(!settings.contains("warm</dt>"), "{settings}");
    }

    #[test]
    fn the_start_is_in_the_calendar() {
        assert_eq!(when(1_700_000_000.4), "2023-11-14 22:13:20 UTC");
        assert_eq!(when(1e300), "");
    }
}
