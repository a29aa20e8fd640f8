//! Traces: requests as they were counted or logged.

use std::time::Duration;

use autoscaler_core::sim::{Scenario, Shape, Time};
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;

/// Requests of a trace at most: those that a simulation looks at.
const MAX_REQUESTS: u64 = 5_000_000;
/// Minutes of a trace at most: a month.
const MAX_MINUTES: usize = 31 * 24 * 60;

/// Requests per minute in the form of the Azure Functions traces: a header with the numbers of minutes among its columns, and a
/// row for each function. `row` is the number of one, from 1, or the beginning of one of its texts; without it all are added up.
pub(super) fn minutes(name: &str, text: &str, row: Option<&str>) -> Result<Scenario, String> {
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .from_reader(text.as_bytes());
    let header = reader
        .headers()
        .map_err(|error| format!("{name}: {error}"))?
        .clone();
    let columns: Vec<usize> = (0..header.len())
        .filter(|&column| header[column].parse::<u32>().is_ok())
        .collect();
    if columns.is_empty() || columns.len() > MAX_MINUTES {
        return Err(format!(
            "{name}: the header has {} columns whose name is the number of a minute; from 1 to {MAX_MINUTES} are allowed",
            columns.len()
        ));
    }
    let mut counts = vec![0u64; columns.len()];
    let mut rows = 0u64;
    for (number, record) in (1u64..).zip(reader.records()) {
        let record = record.map_err(|error| format!("{name}: {error}"))?;
        let wanted = row.is_none_or(|row| {
            row.parse() == Ok(number)
                || record
                    .iter()
                    .any(|text| row.len() > 3 && text.starts_with(row))
        });
        if !wanted {
            continue;
        }
        rows += 1;
        for (count, &column) in counts.iter_mut().zip(&columns) {
            let text = record.get(column).unwrap_or_default();
            let given: u64 = match text {
                "" => 0,
                text => text.parse().map_err(|_| {
                    format!(
                        "{name}: row {number}, column {}: {text:?} is no number of requests",
                        &header[column]
                    )
                })?,
            };
            *count = count.saturating_add(given);
        }
    }
    if rows == 0 {
        let what = row.map_or_else(|| "a row".to_owned(), |row| format!("row {row:?}"));
        return Err(format!("{name}: there is no {what}"));
    }
    let all = counts
        .iter()
        .fold(0u64, |sum, count| sum.saturating_add(*count));
    let length =
        Duration::from_mins(1).saturating_mul(u32::try_from(counts.len()).unwrap_or(u32::MAX));
    Ok(Scenario {
        name: name.to_owned(),
        about: format!("{all} requests of {rows} rows of a trace per minute"),
        length,
        arrivals: Shape::Minutes(counts),
        ..Scenario::default()
    })
}

/// One request: when, and how long it took if that is known.
#[derive(Debug, Deserialize)]
struct Line {
    timestamp: When,
    duration: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum When {
    Seconds(f64),
    Text(String),
}

/// Requests with their timestamps, a JSON object each: seconds, or a time as in RFC 3339. Durations in seconds become the
/// distribution of service times.
pub(super) fn timestamps(name: &str, text: &str) -> Result<Scenario, String> {
    let mut at = Vec::new();
    let mut took = Vec::new();
    for (number, line) in (1u64..).zip(text.lines()) {
        if line.trim().is_empty() {
            continue;
        }
        bounded(name, number)?;
        let wrong = |what: &str| format!("{name}: line {number}: {what}");
        let line: Line = serde_json::from_str(line).map_err(|_| {
            wrong("expected a JSON object with a timestamp (seconds, or a text as in RFC 3339) and perhaps a duration (seconds)")
        })?;
        let seconds = match line.timestamp {
            When::Seconds(seconds) => seconds,
            When::Text(text) => {
                let time: Timestamp = text
                    .parse()
                    .map_err(|_| wrong(&format!("{text:?} is no time as in RFC 3339")))?;
                time.as_duration().as_secs_f64()
            }
        };
        if !seconds.is_finite() || seconds.abs() > 1e12 {
            return Err(wrong("the timestamp is out of range"));
        }
        at.push(seconds);
        if let Some(duration) = line.duration {
            if !(0.0..=86_400.0).contains(&duration) {
                return Err(wrong("the duration is not from 0 to 86400 seconds"));
            }
            took.push(duration);
        }
    }
    let first = at.iter().copied().fold(f64::INFINITY, f64::min);
    let last = at.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if at.is_empty() {
        return Err(format!("{name}: there is no request in it"));
    }
    let longest =
        Duration::from_mins(1).saturating_mul(u32::try_from(MAX_MINUTES).unwrap_or(u32::MAX));
    let span = |seconds: f64| Duration::try_from_secs_f64(seconds - first).unwrap_or(Duration::MAX);
    if span(last) > longest {
        return Err(format!(
            "{name}: from the first request to the last it is more than a month"
        ));
    }
    let service = fitted(&took).unwrap_or_else(|| Scenario::default().service);
    Ok(Scenario {
        name: name.to_owned(),
        about: format!("{} requests of a log", at.len()),
        length: span(last) + Duration::from_secs(1),
        arrivals: Shape::At(at.into_iter().map(span).collect()),
        service,
        ..Scenario::default()
    })
}

/// The log-normal distribution with the mean and the relative deviation of these.
fn fitted(seconds: &[f64]) -> Option<Time> {
    let count = f64::from(u32::try_from(seconds.len()).ok()?);
    let mean = seconds.iter().sum::<f64>() / count;
    if mean.is_nan() || mean <= 0.0 {
        return None;
    }
    let variance = seconds.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / count;
    let deviation = (variance.sqrt() / mean).min(100.0);
    Some(Time::LogNormal(
        Duration::try_from_secs_f64(mean).ok()?,
        deviation,
    ))
}

fn bounded(name: &str, requests: u64) -> Result<(), String> {
    if requests <= MAX_REQUESTS {
        Ok(())
    } else {
        Err(format!(
            "{name}: more than {MAX_REQUESTS} requests; choose a --row, or cut the trace"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CSV: &str = "HashOwner,HashApp,HashFunction,Trigger,1,2,3\n\
                       aaaa1,bbbb1,cccc1,http,1,0,5\n\
                       aaaa1,bbbb1,cccc2,timer,10,,0\n";

    #[test]
    fn functions_are_added_up_or_chosen() {
        let counts = |row| match minutes("t.csv", CSV, row).unwrap() {
            Scenario {
                arrivals: Shape::Minutes(counts),
                length,
                ..
            } => (counts, length.as_secs()),
            other => panic!("{other:?}"),
        };
        assert_eq!(counts(None), (vec![11, 0, 5], 180));
        assert_eq!(counts(Some("1")), (vec![1, 0, 5], 180));
        assert_eq!(counts(Some("cccc2")), (vec![10, 0, 0], 180));
    }

    #[test]
    fn what_is_no_trace_per_minute_is_told() {
        for (text, row, says) in [
            (CSV, Some("7"), "t.csv: there is no row \"7\""),
            (
                "a,b\n1,2\n",
                None,
                "0 columns whose name is the number of a minute",
            ),
            (
                "f,1\nx,-3\n",
                None,
                "t.csv: row 1, column 1: \"-3\" is no number of requests",
            ),
            ("f,1\nx\n", None, "t.csv: "),
            ("f,1\n", None, "there is no a row"),
        ] {
            let error = minutes("t.csv", text, row).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn a_log_is_read_from_its_first_request_on() {
        let text = "{\"timestamp\": \"2026-01-02T03:04:06.5Z\", \"duration\": 1}\n\n\
                    {\"timestamp\": \"2026-01-02T03:04:05Z\", \"duration\": 3}\n";
        let scenario = timestamps("l.jsonl", text).unwrap();
        let Shape::At(moments) = &scenario.arrivals else {
            panic!("{scenario:?}");
        };
        assert_eq!(moments, &[Duration::from_millis(1500), Duration::ZERO]);
        assert_eq!(
            scenario.service,
            Time::LogNormal(Duration::from_secs(2), 0.5)
        );
        let numbers =
            timestamps("l.jsonl", "{\"timestamp\": 100.5}\n{\"timestamp\": 101}").unwrap();
        assert_eq!(numbers.length, Duration::from_millis(1500));
    }

    #[test]
    fn what_is_no_log_is_told() {
        for (text, says) in [
            ("", "l.jsonl: there is no request in it"),
            (
                "{\"time\": 1}",
                "l.jsonl: line 1: expected a JSON object with a timestamp",
            ),
            (
                "{\"timestamp\": 1}\n{\"timestamp\": \"noon\"}",
                "line 2: \"noon\" is no time as in RFC 3339",
            ),
            (
                "{\"timestamp\": 1, \"duration\": -1}",
                "line 1: the duration is not from 0 to 86400 seconds",
            ),
            (
                "{\"timestamp\": 1}\n{\"timestamp\": 1e9}",
                "more than a month",
            ),
        ] {
            let error = timestamps("l.jsonl", text).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
