//! What was sent and answered: throughput beside the plan, errors, statuses, servers.

use std::{cmp::Reverse, collections::BTreeMap};

use super::{
    chart::{Cell, Chart, Kind, Row, Unit},
    text::{clipped, count, name, rate, share, words},
};
use crate::{
    plan::{Stage, Stages, load_until},
    report::{Report, StageSettings},
};

/// Bars of one chart; the rest is counted.
const MOST_BARS: usize = 20;

/// One slice of the run.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Slice {
    at: f64,
    /// How much of it lies in the measurement.
    length: f64,
    /// Successes that ended in it, if the report tells.
    answered: Option<u64>,
    /// Requests due in it.
    due: u64,
}

pub(super) fn charts(report: &Report) -> Vec<Chart> {
    vec![throughput(report), errors_over_time(report), errors(report)]
}

/// Statuses and servers.
pub(super) fn counts(report: &Report) -> Vec<Chart> {
    let mut status = bars("statuses", "Statuses", "status", &report.status);
    for row in &mut status.rows {
        let is_good = row.cells[0].text.starts_with('2');
        row.mark = Some(if is_good { "c1" } else { "c2" });
    }
    let servers = bars("servers", "Servers", "server", &report.served_by)
        .note("By the response header x-served-by.");
    vec![status, servers]
}

fn slices(report: &Report) -> Vec<Slice> {
    let series = &report.series;
    let has_answered = !series.answered.is_empty() || report.summary.successes == 0;
    let mut at = 0.0;
    (0..series.points.len().max(series.answered.len()))
        .map(|index| {
            let point = series.points.get(index);
            let slice = Slice {
                at,
                length: (report.summary.duration - at).clamp(0.0, series.length),
                answered: has_answered
                    .then(|| series.answered.get(index).copied().unwrap_or_default()),
                due: point.map_or(0, |point| point.successes + point.errors),
            };
            at += series.length;
            slice
        })
        .collect()
}

/// Of so many in so long a part of a slice; none where it is too short for that to say anything.
fn per_second(count: f64, part: f64, whole: f64) -> Option<f64> {
    (part > whole / 10.0).then(|| count / part)
}

#[expect(clippy::cast_precision_loss, reason = "for drawing")]
fn throughput(report: &Report) -> Chart {
    let whole = report.series.length;
    let is_open = report.config.load == "open";
    let stages = stages(report);
    let mut chart =
        Chart::new("throughput", "Throughput", Kind::OverX, Unit::Rate).column("at", None, "c1");
    chart.end = report.summary.duration;
    chart = match (&stages, is_open) {
        (Some(_), _) => chart
            .note("Successful requests by when they were answered, and all that were planned.")
            .column("planned", Some("line dash"), "c6"),
        (None, true) => chart
            .note("Successful requests by when they were answered, and all that were due.")
            .column("due", Some("line dash"), "c6"),
        _ => chart.note("Successful requests by when they were answered."),
    };
    chart = chart.column("answered", Some("line"), "c1");
    let part = report.config.shard.unwrap_or_default().of();
    let limit = report
        .config
        .requests
        .map_or(f64::INFINITY, |limit| limit as f64);
    let planned = |slice: &Slice| match &stages {
        Some(stages) => {
            let until = |at| load_until(stages, at).min(limit) / part;
            until(slice.at + slice.length) - until(slice.at)
        }
        None => slice.due as f64,
    };
    let known = !report.series.answered.is_empty() || is_open;
    let slices = slices(report);
    let rows = slices.iter().filter(|slice| known && slice.length > 0.0);
    chart.rows = rows
        .map(|slice| {
            let of = |count: Option<f64>| {
                let per_second = count.and_then(|count| per_second(count, slice.length, whole));
                Cell::of(per_second, rate)
            };
            let mut cells = vec![Cell::moment(slice.at, slice.at + slice.length / 2.0)];
            if is_open {
                cells.push(of(Some(planned(slice))));
            }
            cells.push(of(slice.answered.map(|count| count as f64)));
            Row::from(cells)
        })
        .collect();
    chart
}

/// The plan, where the report says it: not of traces, nor of the sum of several runs, nor where the tool moved it.
fn stages(report: &Report) -> Option<Vec<Stage>> {
    let config = &report.config;
    let typed = |stage: &StageSettings| {
        let shape = if stage.shape.is_empty() {
            stage.rate.to_string()
        } else {
            stage.shape.clone()
        };
        format!("{}s@{shape}", stage.duration)
    };
    let is_moved = report
        .pacing
        .as_ref()
        .is_some_and(|pacing| pacing.reanchored > 0);
    if is_moved || report.runs > 1 || config.trace.is_some() || config.stages.is_empty() {
        return None;
    }
    let typed: Vec<_> = config.stages.iter().map(typed).collect();
    let Stages(stages) = typed.join(",").parse().ok()?;
    Some(stages)
}

fn errors_over_time(report: &Report) -> Chart {
    let mut chart = Chart::new(
        "errors-over-time",
        "Errors over time",
        Kind::OverX,
        Unit::Count,
    )
    .note("Errors of every kind, by when their requests were planned.")
    .column("at", None, "c1")
    .column("errors", Some("column"), "c2")
    .column("of all requests", None, "c1");
    chart.end = report.summary.duration;
    if report.summary.error_count == 0 {
        return chart;
    }
    let points = report.series.points.iter();
    chart.rows = points
        .map(|point| {
            Row::from(vec![
                Cell::moment(point.at, point.at + point.length / 2.0),
                Cell::count(point.errors),
                Cell::of(part(point.errors, point.successes + point.errors), share),
            ])
        })
        .collect();
    chart
}

#[expect(clippy::cast_precision_loss, reason = "a share for people")]
fn part(of: u64, all: u64) -> Option<f64> {
    (all > 0).then(|| of as f64 / all as f64)
}

fn errors(report: &Report) -> Chart {
    let kinds = &report.summary.errors;
    let named = kinds
        .iter()
        .map(|(kind, count)| (words(&name(kind)), *count));
    let mut chart = bars("errors-by-kind", "Errors by kind", "kind", &named.collect());
    for row in &mut chart.rows {
        row.mark = Some("c2");
    }
    chart
}

/// Counts by name, the largest first.
fn bars(id: &str, title: &str, what: &str, counts: &BTreeMap<String, u64>) -> Chart {
    let all: u64 = counts.values().sum();
    let mut sorted: Vec<_> = counts.iter().collect();
    sorted.sort_by_key(|(_, count)| Reverse(**count));
    let mut chart = Chart::new(id, title, Kind::Bars, Unit::Count)
        .column(what, None, "c1")
        .column("requests", Some("bar"), "c1")
        .column("share", None, "c1");
    chart.rows = sorted
        .iter()
        .take(MOST_BARS)
        .map(|(name, count)| {
            Row::from(vec![
                Cell::text(clipped(name)),
                Cell::count(**count),
                Cell::of(part(**count, all), share),
            ])
        })
        .collect();
    if sorted.len() > MOST_BARS {
        let rest = &sorted[MOST_BARS..];
        let requests: u64 = rest.iter().map(|(_, count)| **count).sum();
        chart.omitted = format!(
            "{} more, with {} requests, are in the JSON.",
            count(rest.len() as u64),
            count(requests)
        );
    }
    chart
}

#[cfg(test)]
mod tests {
    use super::super::tests::{empty, report};
    use super::{bars, throughput};
    use serde_json::{Value, json};

    fn point(at: u64, successes: u64, errors: u64) -> Value {
        json!({
            "at": at, "length": 1.0, "successes": successes, "errors": errors, "p50": 0.1, "p90": 0.1, "p99": 0.1, "max": 0.1
        })
    }

    fn open(stages: Value) -> Value {
        let mut value = empty();
        value["config"]["load"] = "open".into();
        value["config"]["stages"] = stages;
        value["summary"]["duration"] = 4.5.into();
        value["series"] = json!({
            "length": 1.0, "points": [point(0, 10, 0), point(1, 20, 0), point(2, 15, 15)], "answered": [10, 5, 20, 10, 1]
        });
        value
    }

    fn rates(value: Value) -> Vec<Vec<Option<f64>>> {
        let rows = throughput(&report(value)).rows;
        let cells = |row: super::Row| row.cells[1..].iter().map(|cell| cell.value).collect();
        rows.into_iter().map(cells).collect()
    }

    #[test]
    fn the_plan_is_that_of_the_stages_and_answers_are_where_they_came() {
        let stages = json!([
            {"duration": 1.0, "rate": 10.0, "shape": "10"}, {"duration": 2.0, "rate": 25.0, "shape": "20..30"}
        ]);
        let of = |planned: f64, answered: f64| vec![Some(planned), Some(answered)];
        let whole = rates(open(stages.clone()));
        let wanted = [
            of(10.0, 10.0),
            of(22.5, 5.0),
            of(27.5, 20.0),
            of(0.0, 10.0),
            of(0.0, 2.0),
        ];
        assert_eq!(whole, wanted);
        // One of two parts has half of it, and of the sum of runs only what was due is known.
        let mut shard = open(stages);
        shard["config"]["shard"] = "1/2".into();
        assert_eq!(rates(shard.clone())[1], of(11.25, 5.0));
        shard["runs"] = 2.into();
        assert_eq!(rates(shard.clone())[2], of(30.0, 20.0));
        // Old reports do not tell when answers came.
        shard["series"]["answered"] = json!([]);
        shard["summary"]["successes"] = 45.into();
        assert_eq!(rates(shard)[2], [Some(30.0), None]);
    }

    #[test]
    fn of_many_bars_the_largest_are_drawn_and_the_rest_is_counted() {
        let counts = (0..50_u64).map(|n| (format!("server-{n}"), n)).collect();
        let chart = bars("servers", "Servers", "server", &counts);
        assert_eq!(chart.rows.len(), 20);
        assert_eq!(chart.rows[0].cells[0].text, "server-49");
        assert_eq!(
            chart.omitted,
            "30 more, with 435 requests, are in the JSON."
        );
    }
}
