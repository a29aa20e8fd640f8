//! Two reports beside each other: ratios of the second to the first, and how far single seconds agree with them.
//!
//! The ratio is that of the whole runs: whatever went wrong in one is in it. Beside it the latencies of the slices of both runs are
//! paired, the first with the first, and so on; of these ratios the median is told, and an interval for it by bootstrap. Of runs that came one after the other it
//! knows nothing of what the machine did in between. Throughput has no pairs: in an open loop that of a slice is what was planned.

use std::{fmt, str::FromStr};

use serde::Serialize;

use crate::{
    bootstrap,
    bound::{self, Side},
    report::Report,
    series::{Point, Slices},
};

/// Fewer pairs than this have no interval.
const LEAST_PAIRS: usize = 5;
/// A slice counts that lies in the measurement to this share.
const WHOLE: f64 = 0.99;

const ALLOWED: &str = "a limit is throughput, p50, p90, p99, p999 or errors, then < or >, then a ratio, joined by commas, such as \
                       p99<1.1,throughput>0.95";

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Figure {
    /// Successful requests per second.
    Throughput,
    /// Median latency.
    P50,
    /// 90th percentile.
    P90,
    /// 99th percentile.
    P99,
    /// 99.9th percentile; of the whole run only.
    P999,
    /// Errors among all requests; of the whole run only.
    Errors,
}

/// One figure of both runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Which.
    pub figure: Figure,
    /// Of the first run: seconds, per second, or a share.
    pub a: Option<f64>,
    /// Of the second run.
    pub b: Option<f64>,
    /// The second to the first.
    pub ratio: Option<f64>,
    /// The median of the ratios of pairs of slices; none if there are too few.
    pub median: Option<f64>,
    /// Where that lies, with 95 per cent.
    pub interval: Option<(f64, f64)>,
    /// Pairs of slices.
    pub pairs: usize,
}

/// What a ratio is to be, as typed: `p99<1.1`.
#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    text: String,
    figure: Figure,
    side: Side,
    ratio: f64,
}

/// Limits as typed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limits(pub Vec<Limit>);

/// Both runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// All figures.
    pub rows: Vec<Row>,
    /// Limits, and whether each is kept.
    pub limits: Vec<(String, bool)>,
}

impl Comparison {
    /// Compares `b` to `a`.
    pub fn of(a: &Report, b: &Report, limits: &Limits) -> Self {
        let rows: Vec<_> = Figure::ALL.map(|figure| row(figure, a, b)).into();
        let kept = |limit: &Limit| {
            let row = rows.iter().find(|row| row.figure == limit.figure)?;
            let is_kept = |ratio: f64| limit.side.holds(ratio, limit.ratio);
            // A few bad seconds are in the one, a bit of each second in the other.
            Some(is_kept(row.ratio?) && row.median.is_none_or(is_kept))
        };
        let limits = limits.0.iter();
        Self {
            limits: limits
                .map(|limit| (limit.text.clone(), kept(limit).unwrap_or(false)))
                .collect(),
            rows,
        }
    }

    /// Whether every limit is kept.
    pub fn is_within(&self) -> bool {
        self.limits.iter().all(|(_, kept)| *kept)
    }
}

fn row(figure: Figure, a: &Report, b: &Report) -> Row {
    let (whole_a, whole_b) = (figure.of_run(a), figure.of_run(b));
    let mut ratios = pairs(figure, &a.series, &b.series);
    let pairs = ratios.len();
    let is_enough = pairs >= LEAST_PAIRS;
    let interval = is_enough.then(|| bootstrap::interval(&ratios));
    let median = is_enough.then(|| bootstrap::median(&mut ratios));
    Row {
        figure,
        a: whole_a,
        b: whole_b,
        ratio: ratio(figure, whole_a, whole_b),
        median,
        interval,
        pairs,
    }
}

fn ratio(figure: Figure, a: Option<f64>, b: Option<f64>) -> Option<f64> {
    match (a?, b?) {
        // No errors are as many as no errors.
        (a, b) if figure == Figure::Errors && a <= 0.0 && b <= 0.0 => Some(1.0),
        (a, b) => (a > 0.0).then(|| b / a),
    }
}

fn pairs(figure: Figure, a: &Slices, b: &Slices) -> Vec<f64> {
    if (a.length - b.length).abs() > 1e-9 {
        return Vec::new();
    }
    let is_whole = |point: &Point| point.length >= WHOLE * a.length;
    a.points
        .iter()
        .zip(&b.points)
        .filter(|(a, b)| is_whole(a) && is_whole(b))
        .filter_map(|(a, b)| ratio(figure, figure.of_slice(a), figure.of_slice(b)))
        .collect()
}

impl Figure {
    const ALL: [Self; 6] = [
        Self::Throughput,
        Self::P50,
        Self::P90,
        Self::P99,
        Self::P999,
        Self::Errors,
    ];

    fn of_run(self, report: &Report) -> Option<f64> {
        let summary = &report.summary;
        match self {
            Self::Throughput => Some(summary.throughput),
            Self::P50 => summary.latency.p50,
            Self::P90 => summary.latency.p90,
            Self::P99 => summary.latency.p99,
            Self::P999 => summary.latency.p999,
            Self::Errors => summary.error_share(),
        }
    }

    fn of_slice(self, point: &Point) -> Option<f64> {
        match self {
            Self::P50 => point.p50,
            Self::P90 => point.p90,
            Self::P99 => point.p99,
            Self::Throughput | Self::P999 | Self::Errors => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Throughput => "throughput",
            Self::P50 => "p50",
            Self::P90 => "p90",
            Self::P99 => "p99",
            Self::P999 => "p999",
            Self::Errors => "errors",
        }
    }

    fn show(self, value: Option<f64>) -> String {
        match (value, self) {
            (None, _) => "-".to_owned(),
            (Some(value), Self::Throughput) => format!("{value:.1}/s"),
            (Some(value), Self::Errors) => format!("{:.3}%", value * 100.0),
            (Some(value), _) => crate::unit::human(value),
        }
    }
}

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let read = bound::ratio(text, &Figure::ALL, Figure::name);
        let (figure, side, ratio) = read.ok_or_else(|| format!("{text:?}: {ALLOWED}"))?;
        Ok(Self {
            text: text.to_owned(),
            figure,
            side,
            ratio,
        })
    }
}

impl FromStr for Limits {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        bound::list(text).map(Self)
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "  {:<12}{:>12}{:>12}{:>9}  of pairs of seconds, and 95 % interval",
            "", "a", "b", "b / a"
        )?;
        for row in &self.rows {
            let (a, b) = (row.figure.show(row.a), row.figure.show(row.b));
            let shown = |ratio: Option<f64>| {
                ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.3}"))
            };
            let ratio = shown(row.ratio);
            write!(f, "  {:<12}{a:>12}{b:>12}{ratio:>9}", row.figure.name())?;
            match row.interval {
                Some((low, high)) => writeln!(
                    f,
                    "  {}, {low:.3} to {high:.3}, {} pairs",
                    shown(row.median),
                    row.pairs
                )?,
                None => writeln!(f)?,
            }
        }
        for (limit, kept) in &self.limits {
            let word = if *kept { "met" } else { "MISSED" };
            writeln!(f, "  {word}: {limit}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds that fail and seconds that stall do not get through for being few.
    #[test]
    fn limits_see_the_whole_run() {
        let report = |p99: f64, series: Slices, throughput: f64| {
            let summary = serde_json::json!({
                "requests": 100, "successes": 100, "unfinished": 0, "duration": 10.0, "throughput": throughput,
                "latency": {"count": 100, "mean": p99, "p50": p99, "p90": p99, "p95": p99, "p99": p99, "p999": p99, "max": p99},
                "failed_latency": {"count": 0, "mean": null, "p50": null, "p90": null, "p95": null, "p99": null, "p999": null, "max": null},
                "error_count": 0, "errors": {}, "body_bytes": 0, "connections_opened": 1
            });
            let config = serde_json::json!({
                "url": "", "method": "GET", "http": "1.1", "headers": [], "body_bytes": 0, "connections": 1, "threads": 1,
                "timeout": 1.0, "warmup": 0.0, "expect_status": "2xx", "max_waiting": 0, "load": "closed", "duration": 10.0,
                "requests": null, "stages": [], "arrivals": null, "seed": null
            });
            let report = serde_json::json!({
                "schema_version": 1, "tool": "", "started_at": 0.0, "interrupted": false, "config": config,
                "summary": summary, "status": {}, "served_by": {}, "pacing": null, "series": series
            });
            serde_json::from_value::<Report>(report).unwrap()
        };
        let limits: Limits = "p99<1.1,throughput>0.95".parse().unwrap();
        let a = report(0.1, slices(|_| 0.1, 10), 100.0);
        // Three of ten seconds stall, and nothing is answered in two others.
        let mut series = slices(|n| if n < 3 { 1.0 } else { 0.1 }, 10);
        for point in &mut series.points[8..] {
            *point = Point {
                successes: 0,
                errors: 100,
                p50: None,
                p99: None,
                ..*point
            };
        }
        let b = report(1.0, series, 80.0);
        let kept: Vec<_> = Comparison::of(&a, &b, &limits)
            .limits
            .into_iter()
            .map(|(_, kept)| kept)
            .collect();
        assert_eq!(kept, [false, false]);
        // A little of each second, which one quick second hides in the whole run.
        let b = report(0.1, slices(|_| 0.12, 10), 100.0);
        let compared = Comparison::of(&a, &b, &limits);
        assert!(!compared.limits[0].1);
        assert!(Comparison::of(&a, &a, &limits).is_within());
    }

    fn slices(p99: impl Fn(u32) -> f64, count: u32) -> Slices {
        let point = |n| Point {
            at: f64::from(n),
            length: 1.0,
            successes: 100,
            errors: 0,
            p50: Some(p99(n) / 2.0),
            p90: None,
            p99: Some(p99(n)),
            max: None,
        };
        Slices {
            length: 1.0,
            points: (0..count).map(point).collect(),
            answered: Vec::new(),
        }
    }

    #[test]
    fn the_interval_has_the_median_of_the_pairs_and_knows_noise_from_none() {
        let noisy = |n: u32| 0.1 + 0.01 * f64::from(n * 7 % 11);
        let a = slices(noisy, 60);
        let b = slices(|n| noisy(n) * 1.2, 60);
        let mut exact = pairs(Figure::P99, &a, &b);
        let (low, high) = bootstrap::interval(&exact);
        assert!((bootstrap::median(&mut exact) - 1.2).abs() < 1e-9 && high - low < 1e-9);
        let b = slices(|n| noisy(n * 3 + 1), 60);
        let mut same = pairs(Figure::P99, &a, &b);
        let (low, high) = bootstrap::interval(&same);
        let middle = bootstrap::median(&mut same);
        assert!(
            low < 1.0 && high > 1.0 && low < middle && middle < high,
            "{low} {high}"
        );
        assert_eq!(
            bootstrap::interval(&same),
            bootstrap::interval(&same),
            "drawn alike each time"
        );
    }

    #[test]
    fn parts_of_slices_and_slices_of_other_lengths_are_no_pairs() {
        let (a, mut b) = (slices(|_| 1.0, 9), slices(|_| 2.0, 7));
        b.points[6].length = 0.5;
        assert_eq!(pairs(Figure::P99, &a, &b), [2.0; 6]);
        assert_eq!(pairs(Figure::P90, &a, &b), [0.0; 0]);
        b.length = 2.0;
        assert_eq!(pairs(Figure::P99, &a, &b), [0.0; 0]);
    }

    #[test]
    fn limits_are_read_as_typed() {
        let Limits(read) = "p99<1.1, throughput>0.95".parse().unwrap();
        assert_eq!((read[0].figure, read[0].side), (Figure::P99, Side::Below));
        assert_eq!(
            (read[1].figure, read[1].side),
            (Figure::Throughput, Side::Above)
        );
        for text in [
            "", "p99", "p99<", "p98<1", "p99<0", "p99<nan", "p99<1,", "p99=1",
        ] {
            let error = text.parse::<Limits>().expect_err(text);
            assert!(error.contains("such as"), "{error}");
        }
    }
}
