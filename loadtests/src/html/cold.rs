//! Cold starts: how many, whose time they took, each of them, and the replicas meanwhile.

use std::collections::BTreeMap;

use super::{
    chart::{Cell, Chart, Kind, Row, Unit},
    text::{clipped, count, moment, name, seconds, share, words},
};
use crate::{
    cold::report::{Cold, Moment, Owner, Phase, Wake},
    report::Percentiles,
};

/// Wakes that are drawn one by one: as many as a person may look through.
const MOST_WAKES: usize = 100;
/// Workloads whose replicas are drawn.
const MOST_WORKLOADS: usize = 8;
/// Moments of a chart that shares its row with another one.
const MOST_BESIDE: usize = 60;
/// Phases of a wake that are drawn: several times what there are kinds of them.
const MOST_PHASES: usize = 60;

const OWNERS: [Owner; 6] = [
    Owner::Tool,
    Owner::Control,
    Owner::ApiServer,
    Owner::Kubernetes,
    Owner::Model,
    Owner::Unknown,
];

pub(super) fn charts(cold: &Cold) -> Vec<Chart> {
    let mut charts = vec![classes(cold), owners(cold), phases(cold), waterfall(cold)];
    charts.extend(replicas(&cold.replicas));
    charts
}

/// In words, and its colour.
fn owner(owner: Owner) -> (&'static str, &'static str) {
    match owner {
        Owner::Tool => ("this tool", "c5"),
        Owner::Control => ("autoscaler and activator", "c1"),
        Owner::ApiServer => ("API server", "c4"),
        Owner::Kubernetes => ("Kubernetes", "c2"),
        Owner::Model => ("model", "c3"),
        Owner::Unknown => ("not known", "c6"),
    }
}

fn percentiles(of: &Percentiles) -> [Cell; 6] {
    let cell = |value| Cell::of(value, seconds);
    [
        Cell::count(of.count),
        cell(of.p50),
        cell(of.p90),
        cell(of.p95),
        cell(of.p99),
        cell(of.max),
    ]
}

/// Columns of [`percentiles`], of which the median is a bar, with a whisker up to the 99th percentile.
fn with_percentiles(chart: Chart) -> Chart {
    chart
        .column("requests", None, "c1")
        .column("p50", Some("bar"), "c1")
        .column("p90", None, "c1")
        .column("p95", None, "c1")
        .column("p99", Some("whisker"), "c1")
        .column("max", None, "c1")
}

fn classes(cold: &Cold) -> Chart {
    let mut chart = Chart::new(
        "cold-kinds",
        "Cold, and proven to be",
        Kind::Bars,
        Unit::Count,
    )
    .note("A request is cold only if the pod that answered it began after the request was planned.")
    .column("kind", None, "c1")
    .column("requests", Some("bar"), "c1");
    for figure in ["p50", "p90", "p95", "p99", "max"] {
        chart = chart.column(figure, None, "c1");
    }
    let row = |class: &crate::cold::report::Class| {
        let first = Cell::text(words(&name(&class.kind)));
        Row::from([vec![first], percentiles(&class.latency).to_vec()].concat())
    };
    chart.rows = cold.classes.iter().map(row).collect();
    chart
}

fn owners(cold: &Cold) -> Chart {
    let chart = Chart::new("cold-owners", "Whose time it was", Kind::Bars, Unit::Share)
        .note("Parts of all the time of proven cold requests.")
        .column("owner", None, "c1")
        .column("share", Some("bar"), "c1");
    let mut chart = with_percentiles(chart);
    // One bar says it: the percentiles are in the table.
    for column in chart.columns.iter_mut().skip(2) {
        column.draw = None;
    }
    let rows = cold.owners.iter().map(|sum| {
        let (owner, mark) = owner(sum.owner);
        let first = vec![Cell::text(owner), Cell::of(Some(sum.share), share)];
        Row {
            mark: Some(mark),
            cells: [first, percentiles(&sum.latency).to_vec()].concat(),
        }
    });
    chart.rows = rows.collect();
    chart
}

fn phases(cold: &Cold) -> Chart {
    let chart = Chart::new("cold-phases", "Phases", Kind::Bars, Unit::Seconds)
        .note("Median of each phase, with a whisker up to its 99th percentile, in the order in which they come.")
        .column("phase", None, "c1");
    let mut chart = with_percentiles(chart)
        .column("owner", None, "c1")
        .column("share", None, "c1");
    chart.keys = keys();
    chart.is_wide = true;
    let rows = cold.phases.iter().map(|phase| {
        let (owner, mark) = owner(phase.owner);
        let last = vec![Cell::text(owner), Cell::of(Some(phase.share), share)];
        Row {
            mark: Some(mark),
            cells: [
                vec![Cell::text(words(&clipped(&phase.name)))],
                percentiles(&phase.latency).to_vec(),
                last,
            ]
            .concat(),
        }
    });
    chart.rows = rows.collect();
    chart
}

fn keys() -> Vec<(String, &'static str)> {
    OWNERS
        .iter()
        .map(|of| owner(*of))
        .map(|(name, mark)| (name.to_owned(), mark))
        .collect()
}

fn waterfall(cold: &Cold) -> Chart {
    let mut chart = Chart::new(
        "cold-wakes",
        "Each wake",
        Kind::Waterfall,
        Unit::Seconds,
    )
    .note("Requests that were not warm, in the order in which they were planned, from the planned instant to the answer.")
    .column("workload", None, "c1")
    .column("planned at", None, "c1")
    .column("latency", Some("whole"), "c1")
    .column("kind", None, "c1")
    .column("why", None, "c1")
    .column("status", None, "c1")
    .column("pod", None, "c1")
    .column("phases", None, "c1");
    chart.keys = keys();
    chart.is_wide = true;
    chart.rows = cold.wakes.iter().take(MOST_WAKES).map(wake).collect();
    let shown = chart.rows.len() as u64;
    let rest = cold.wakes.len() as u64 - shown + cold.wakes_omitted;
    if rest > 0 {
        chart.omitted = format!("The first {} of {}.", count(shown), count(shown + rest));
    }
    chart
}

fn wake(wake: &Wake) -> Row {
    let drawn = || wake.phases.iter().take(MOST_PHASES);
    let parts: Vec<_> = drawn().map(part).collect();
    let told: Vec<_> = drawn()
        .map(|phase| {
            let took = seconds(phase.to - phase.from);
            format!("{} {took}", words(&clipped(&phase.name)))
        })
        .collect();
    let status = wake.status.map(|status| status.to_string());
    Row::from(vec![
        Cell::text(clipped(&wake.workload)),
        Cell::of(Some(wake.planned), moment),
        Cell::of(Some(wake.latency), seconds),
        Cell::text(words(&name(&wake.kind))),
        Cell::words(clipped(&wake.reason)),
        Cell::text(status.unwrap_or_default()),
        Cell::text(clipped(wake.pod.as_deref().unwrap_or_default())),
        Cell {
            parts: serde_json::to_string(&parts).ok(),
            ..Cell::words(told.join(", "))
        },
    ])
}

/// A part of a waterfall as the script takes it.
fn part(phase: &Phase) -> (&str, f64, f64, &'static str) {
    (&phase.name, phase.from, phase.to, owner(phase.owner).1)
}

/// Replicas and held requests of each workload.
fn replicas(moments: &[Moment]) -> Vec<Chart> {
    let mut workloads: BTreeMap<&str, Vec<&Moment>> = BTreeMap::new();
    for moment in moments {
        workloads.entry(&moment.workload).or_default().push(moment);
    }
    let all = workloads.len();
    let end = moments.iter().map(|moment| moment.at).fold(0.0, f64::max);
    let mut charts = Vec::new();
    for (number, (workload, moments)) in workloads.into_iter().take(MOST_WORKLOADS).enumerate() {
        charts.push(ready(number, workload, &moments, end));
        charts.extend(held(number, workload, &moments, end));
    }
    if let Some(last) = charts.last_mut().filter(|_| all > MOST_WORKLOADS) {
        last.omitted = format!(
            "{} further workloads are in the JSON.",
            all - MOST_WORKLOADS
        );
    }
    charts
}

fn ready(number: usize, workload: &str, moments: &[&Moment], end: f64) -> Chart {
    let title = format!("Replicas of {}", clipped(workload));
    let mut chart = Chart::new(
        format!("replicas-{number}"),
        title,
        Kind::OverX,
        Unit::Count,
    )
    .column("at", None, "c1")
    .column("wanted", Some("step dash"), "c2")
    .column("ready", Some("step"), "c1");
    chart.label = "since the start of the run";
    chart.end = end;
    let row = |moment: &&Moment| {
        Row::from(vec![
            Cell::moment(moment.at, moment.at),
            Cell::count(moment.wanted.into()),
            Cell::count(moment.ready.into()),
        ])
    };
    chart.rows = moments.iter().map(row).collect();
    chart.is_wide = moments.len() > MOST_BESIDE;
    chart
}

fn held(number: usize, workload: &str, moments: &[&Moment], end: f64) -> Option<Chart> {
    let title = format!("Held requests of {}", clipped(workload));
    let mut chart = Chart::new(format!("held-{number}"), title, Kind::OverX, Unit::Count)
        .note("Requests that wait for a replica.")
        .column("at", None, "c1")
        .column("held", Some("step"), "c4");
    chart.label = "since the start of the run";
    chart.end = end;
    let row = |moment: &&Moment| {
        let held = moment.held?;
        Some(Row::from(vec![
            Cell::moment(moment.at, moment.at),
            Cell::count(held),
        ]))
    };
    chart.rows = moments.iter().filter_map(row).collect();
    chart.is_wide = moments.len() > MOST_BESIDE;
    chart.has_rows().then_some(chart)
}

#[cfg(test)]
mod tests {
    use super::{MOST_WAKES, charts};
    use crate::cold::report::Cold;
    use serde_json::json;

    #[test]
    fn wakes_beyond_those_drawn_are_counted() {
        let wake = json!({
            "workload": "m", "planned": 0.0, "latency": 2.0, "kind": "first_on_node", "reason": "r", "status": 200, "pod": null,
            "phases": [{"name": "patch_sent", "owner": "api_server", "from": 0.0, "to": 2.0}]
        });
        let moments: Vec<_> = (0..10)
            .map(|n| json!({"at": n, "workload": format!("m{n}"), "wanted": 1, "ready": 0, "held": null}))
            .collect();
        let cold: Cold = serde_json::from_value(json!({
            "mode": "storm", "classes": [], "phases": [], "owners": [], "wakes": vec![wake; 150], "wakes_omitted": 7,
            "replicas": moments
        }))
        .unwrap();
        let charts = charts(&cold);
        let of = |id: &str| charts.iter().find(|chart| chart.id == id).unwrap();
        let wakes = of("cold-wakes");
        assert_eq!(
            (wakes.rows.len(), wakes.omitted.as_str()),
            (MOST_WAKES, "The first 100 of 157.")
        );
        let phases = wakes.rows[0].cells.last().unwrap();
        assert_eq!(phases.text, "patch sent 2 s");
        assert_eq!(
            phases.parts.as_deref(),
            Some(r#"[["patch_sent",0.0,2.0,"c4"]]"#)
        );
        assert_eq!(
            of("replicas-7").omitted,
            "2 further workloads are in the JSON."
        );
        assert!(charts.iter().all(|chart| !chart.id.starts_with("held")));
    }
}
