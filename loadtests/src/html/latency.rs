//! Latency over time, and by percentile.

use super::{
    chart::{Cell, Chart, Kind, Row, Unit},
    text::seconds,
};
use crate::{
    record::Durations,
    report::{Histograms, Report},
};

/// Points of a curve between one nine and the next.
const POINTS: u32 = 12;

pub(super) fn charts(report: &Report) -> Vec<Chart> {
    vec![over_time(report), by_percentile(report)]
}

fn over_time(report: &Report) -> Chart {
    let note = if report.runs > 1 {
        "Percentiles over time are not merged; the longest of each slice is."
    } else if report.config.load == "open" {
        "Of successful requests, from the planned instant, by when they were planned."
    } else {
        "Of successful requests, by when they were begun."
    };
    let mut chart = Chart::new(
        "latency-over-time",
        "Latency over time",
        Kind::OverX,
        Unit::Seconds,
    )
    .note(note)
    .column("at", None, "c1")
    .column("p50", Some("line"), "c3")
    .column("p90", Some("line"), "c1")
    .column("p99", Some("line"), "c2")
    .column("max", Some("line thin"), "c6");
    chart.may_be_log = true;
    chart.end = report.summary.duration;
    let has_any = report.series.points.iter().any(|p| p.max.is_some());
    let points = report.series.points.iter().filter(|_| has_any);
    chart.rows = points
        .map(|point| {
            let mut cells = vec![Cell::moment(point.at, point.at + point.length / 2.0)];
            cells.extend(
                [point.p50, point.p90, point.p99, point.max].map(|value| Cell::of(value, seconds)),
            );
            Row::from(cells)
        })
        .collect();
    chart
}

/// Shares of requests, from none to all but one of `count`, ever closer to all.
fn shares(count: u64) -> Vec<f64> {
    #[expect(clippy::cast_precision_loss, reason = "for drawing")]
    let nines = (count as f64).log10();
    let steps = (0..)
        .map(|step| f64::from(step) / f64::from(POINTS))
        .take_while(|step| *step <= nines + 1e-9);
    let usual = [0.5, 0.95];
    let mut shares: Vec<f64> = steps
        .map(|step| 1.0 - 10_f64.powf(-step))
        // Of few requests they would lie beyond all of them.
        .chain(usual.into_iter().filter(|share| *share <= last(count)))
        .collect();
    shares.sort_by(f64::total_cmp);
    shares
}

fn by_percentile(report: &Report) -> Chart {
    type Of = fn(&Histograms) -> &str;
    let mut chart = Chart::new(
        "latency-by-percentile",
        "Latency by percentile",
        Kind::OverX,
        Unit::Seconds,
    )
    .note(
        "A share of requests took no longer than this. Each further nine is as wide as the last one.",
    )
    .column("share of requests", None, "c1");
    chart.label = "share of requests";
    chart.is_rank = true;
    chart.may_be_log = true;
    let all: [(&str, Option<&str>, &str, Of); 4] = [
        ("latency", Some("line"), "c1", |h| &h.latency),
        ("of failures", Some("line"), "c2", |h| &h.failed_latency),
        ("wait for a connection", Some("line"), "c4", |h| &h.waited),
        ("lag of the tool", Some("line dash"), "c6", |h| &h.lag),
    ];
    let mut found = Vec::new();
    for (name, draw, mark, of) in all {
        let histogram = report
            .histograms
            .as_ref()
            .and_then(|all| Durations::decode(of(all)));
        if let Some(histogram) = histogram.filter(|histogram| histogram.count() > 0) {
            chart = chart.column(name, draw, mark);
            found.push(histogram);
        }
    }
    let most = found.iter().map(Durations::count).max().unwrap_or_default();
    if most == 0 {
        return chart;
    }
    let row = |text: String, at: f64, share: f64| {
        let values = found.iter().map(|histogram| {
            let value = histogram.quantile(share).map(|value| value.as_secs_f64());
            Cell::of(value, seconds)
        });
        let first = Cell {
            value: Some(at),
            ..Cell::text(text)
        };
        Row::from(std::iter::once(first).chain(values).collect::<Vec<_>>())
    };
    chart.rows = shares(most)
        .into_iter()
        .map(|share| row(percent(share), share, share))
        .collect();
    chart.rows.push(row("all".to_owned(), last(most), 1.0));
    chart
}

/// Where all of `count` requests are drawn: half a request before the share that would be endlessly far away.
#[expect(clippy::cast_precision_loss, reason = "for drawing")]
fn last(count: u64) -> f64 {
    1.0 - 0.5 / count as f64
}

/// With as many digits as tell it from 100 %.
fn percent(share: f64) -> String {
    let left = 100.0 * (1.0 - share);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "from 0 to 20"
    )]
    let places = (1.0 - left.log10()).ceil().clamp(0.0, 20.0) as usize;
    let text = format!("{:.places$}", share * 100.0);
    let text = if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        &text
    };
    format!("{text} %")
}

#[cfg(test)]
mod tests {
    use super::{last, percent, shares};

    #[test]
    fn shares_come_ever_closer_to_all_and_have_the_usual_ones() {
        let shares = shares(1_000_000);
        assert!(
            shares.is_sorted() && shares.len() == 6 * 12 + 3,
            "{}",
            shares.len()
        );
        for usual in [0.0, 0.5, 0.9, 0.95, 0.99, 0.999, 0.999_999] {
            assert!(
                shares.iter().any(|share| (share - usual).abs() < 1e-12),
                "{usual}"
            );
        }
        for count in 1..30 {
            let shares = super::shares(count);
            assert!(
                shares.is_sorted() && shares.iter().all(|share| *share <= last(count)),
                "{count}: {shares:?}"
            );
        }
        assert_eq!(
            [0.0, 0.5, 0.9, 0.999, 0.999_99].map(percent),
            ["0 %", "50 %", "90 %", "99.9 %", "99.999 %"]
        );
    }
}
