//! A report in the forms of other tools: CSV over time, and Prometheus' text format.

use std::fmt::Write as _;

use crate::{
    report::{Percentiles, Report},
    streams::Streams,
};

/// The run over time, a line for each slice. Times are in seconds; there is nothing between commas where there is no figure.
pub fn csv(report: &Report) -> String {
    let mut text = "at,length,successes,errors,throughput,p50,p90,p99,max\n".to_owned();
    for point in &report.series.points {
        let throughput = point.throughput();
        let _ = write!(
            text,
            "{},{},{},{},{throughput}",
            point.at, point.length, point.successes, point.errors
        );
        for value in [point.p50, point.p90, point.p99, point.max] {
            text.push(',');
            if let Some(value) = value {
                let _ = write!(text, "{value}");
            }
        }
        text.push('\n');
    }
    text
}

/// Metrics for the textfile collector of Prometheus' node exporter.
/// Source of the form: <https://prometheus.io/docs/instrumenting/exposition_formats/>.
pub fn prometheus(report: &Report) -> String {
    let summary = &report.summary;
    let of = format!(
        "url=\"{}\",method=\"{}\"",
        escaped(&report.config.url),
        escaped(&report.config.method)
    );
    let mut text = String::new();
    let mut one = |name: &str, kind: &str, help: &str, lines: &[(String, f64)]| {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in lines {
            let _ = writeln!(text, "{name}{{{of}{labels}}} {value}");
        }
    };
    let none = String::new;
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
    let count = |count: u64| count as f64;
    one(
        "rouse_load_started_timestamp_seconds",
        "gauge",
        "When the load began.",
        &[(none(), report.started_at)],
    );
    one(
        "rouse_load_duration_seconds",
        "gauge",
        "How long was measured.",
        &[(none(), summary.duration)],
    );
    one(
        "rouse_load_throughput",
        "gauge",
        "Successful requests per second.",
        &[(none(), summary.throughput)],
    );
    let mut outcomes = vec![
        (",outcome=\"success\"".to_owned(), count(summary.successes)),
        (
            ",outcome=\"unfinished\"".to_owned(),
            count(summary.unfinished),
        ),
    ];
    for (kind, number) in &summary.errors {
        outcomes.push((format!(",outcome=\"{}\"", kind.name()), count(*number)));
    }
    one(
        "rouse_load_requests",
        "gauge",
        "Requests by what became of them.",
        &outcomes,
    );
    one(
        "rouse_load_latency_seconds",
        "gauge",
        "Latency of successful requests, from the planned instant.",
        &quantiles(&summary.latency),
    );
    for (name, help, lines) in report.streams.iter().flat_map(of_streams) {
        one(name, "gauge", help, &lines);
    }
    if let Some(pacing) = &report.pacing {
        one(
            "rouse_load_lag_seconds",
            "gauge",
            "How late the tool itself was.",
            &quantiles(&pacing.lag),
        );
    }
    if !report.slo.is_empty() {
        let verdicts: Vec<_> = report
            .slo
            .iter()
            .map(|verdict| {
                let labels = format!(",objective=\"{}\"", escaped(&verdict.objective));
                (labels, f64::from(u8::from(verdict.met)))
            })
            .collect();
        one(
            "rouse_load_objective_met",
            "gauge",
            "1 if the objective was met.",
            &verdicts,
        );
    }
    text
}

/// A metric: name, help, and figures with their labels.
type Metric = (&'static str, &'static str, Vec<(String, f64)>);

fn of_streams(streams: &Streams) -> [Metric; 4] {
    [
        (
            "rouse_load_first_event_seconds",
            "From the planned instant to the first event of a stream, or message of gRPC.",
            quantiles(&streams.first_event),
        ),
        (
            "rouse_load_first_token_seconds",
            "From the planned instant to the first token of a stream.",
            quantiles(&streams.first_token),
        ),
        (
            "rouse_load_inter_token_seconds",
            "Between a token of a stream and the one before.",
            quantiles(&streams.inter_token),
        ),
        (
            "rouse_load_tokens_per_second",
            "Tokens of all streams per second.",
            vec![(String::new(), streams.tokens_per_second)],
        ),
    ]
}

fn quantiles(of: &Percentiles) -> Vec<(String, f64)> {
    [
        ("0.5", of.p50),
        ("0.9", of.p90),
        ("0.95", of.p95),
        ("0.99", of.p99),
        ("0.999", of.p999),
        ("1", of.max),
    ]
    .into_iter()
    .filter_map(|(quantile, value)| Some((format!(",quantile=\"{quantile}\""), value?)))
    .collect()
}

/// As the value of a label.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}
