//! Several reports as one: of load that came from several machines, or of runs one after the other.

use std::{collections::BTreeMap, fmt::Debug, time::Duration};

use crate::{
    plan::Shard,
    record::{Durations, Recorder},
    report::{Histograms, Pacing, Report, Summary},
    series::{Point, Slices, add},
    streams::Streams,
};

/// Why reports cannot be merged.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotMerge {
    /// There is none.
    #[error("there is no report to merge")]
    Nothing,
    /// One asked for something else.
    #[error(
        "report {number} has {setting} {got}, the first one has {wanted}: only runs of the same load can be merged"
    )]
    Differs {
        /// Which report, from 1.
        number: usize,
        /// The setting, as in the report.
        setting: &'static str,
        /// That of this report.
        got: String,
        /// That of the first one.
        wanted: String,
    },
    /// One is of cold starts, whose phases have no histograms.
    #[error("report {number} is of cold starts, which cannot be merged")]
    Cold {
        /// Which report, from 1.
        number: usize,
    },
    /// One has no histograms, or none that can be read.
    #[error(
        "report {number} has no histogram of {what} that can be read, so that its percentiles cannot be merged"
    )]
    Histogram {
        /// Which report, from 1.
        number: usize,
        /// Of what.
        what: &'static str,
    },
}

/// Merges reports. Counts are added, percentiles are those of all requests together, and the throughput is that of all requests over the time
/// from the first start of a measurement to the last end of one. The settings are those of the first report, with the connections and
/// threads of all.
///
/// # Errors
/// If the reports are of different loads, or of parts of different schedules or twice of the same one, or one has no histograms.
pub fn merge(reports: &[Report]) -> Result<Report, CannotMerge> {
    let first = reports.first().ok_or(CannotMerge::Nothing)?;
    let mut merged = first.clone();
    let mut total = Recorder::default();
    let (mut began, mut ended) = (f64::INFINITY, f64::NEG_INFINITY);
    (merged.config.connections, merged.config.threads) = (0, 0);
    (merged.runs, merged.interrupted) = (0, false);
    (merged.started_monotonic, merged.ready_after) = (None, None);
    let is_sharded = reports.iter().any(|report| report.config.shard.is_some());
    for (number, report) in (1..).zip(reports) {
        check(number, report, first)?;
        if is_sharded {
            check_plan(number, report, first)?;
        }
        total.merge(&recorder(number, report)?);
        let measured = report.started_at + report.config.warmup;
        began = began.min(measured);
        ended = ended.max(measured + report.summary.duration);
        merged.started_at = merged.started_at.min(report.started_at);
        merged.interrupted |= report.interrupted;
        merged.runs += report.runs;
        merged.config.connections += report.config.connections;
        merged.config.threads += report.config.threads;
        if report.config.tls_verified == Some(false) {
            merged.config.tls_verified = Some(false);
        }
    }
    if is_sharded {
        check_shards(reports)?;
    }
    // All parts of a schedule are the schedule; some of them, or several runs, are a plan that is nowhere written down.
    let shards = || reports.iter().map(|report| report.config.shard);
    if reports.len() > 1 && Shard::are_whole(shards()) {
        merged.config.shard = None;
    }
    merged.summary = Summary::of(&total, ended - began);
    merged.reasons = total.reasons.clone();
    merged.status = added(reports, |report| &report.status);
    merged.served_by = added(reports, |report| &report.served_by);
    merged.grpc_status = added(reports, |report| &report.grpc_status);
    let streams = total.streams.as_deref();
    merged.streams = streams.map(|counts| Streams::of(counts, ended - began));
    if merged.pacing.is_some() {
        merged.pacing = Some(Pacing::of(&total, merged.summary.latency.p50));
    }
    merged.series = series(reports);
    merged.histograms = Some(Histograms::of(&total));
    // Those were of its parts.
    merged.slo.clear();
    Ok(merged)
}

fn same<T: PartialEq + Debug>(
    number: usize,
    setting: &'static str,
    got: &T,
    wanted: &T,
) -> Result<(), CannotMerge> {
    if got == wanted {
        return Ok(());
    }
    let (got, wanted) = (format!("{got:?}"), format!("{wanted:?}"));
    Err(CannotMerge::Differs {
        number,
        setting,
        got,
        wanted,
    })
}

/// Parts are parts of one schedule.
fn check_plan(number: usize, report: &Report, first: &Report) -> Result<(), CannotMerge> {
    let (got, wanted) = (&report.config, &first.config);
    same(number, "config.stages", &got.stages, &wanted.stages)?;
    same(number, "config.trace", &got.trace, &wanted.trace)?;
    same(number, "config.duration", &got.duration, &wanted.duration)?;
    same(number, "config.requests", &got.requests, &wanted.requests)?;
    same(number, "config.arrivals", &got.arrivals, &wanted.arrivals)?;
    same(
        number,
        "config.variation",
        &got.variation,
        &wanted.variation,
    )?;
    same(number, "config.seed", &got.seed, &wanted.seed)
}

/// Each part is of as many, and there once.
fn check_shards(reports: &[Report]) -> Result<(), CannotMerge> {
    let mut seen: Vec<Shard> = Vec::new();
    for (number, report) in (1..).zip(reports) {
        let shard = report.config.shard;
        let fits = |shard: &Shard| seen.iter().all(|other| shard.goes_with(*other));
        let Some(shard) = shard.filter(fits) else {
            let shown = |shard: Option<Shard>| {
                shard.map_or_else(|| "none".to_owned(), |shard| shard.to_string())
            };
            return Err(CannotMerge::Differs {
                number,
                setting: "config.shard",
                got: shown(shard),
                wanted: format!(
                    "{}, and each part of a schedule is needed once",
                    shown(reports[0].config.shard)
                ),
            });
        };
        seen.push(shard);
    }
    Ok(())
}

fn check(number: usize, report: &Report, first: &Report) -> Result<(), CannotMerge> {
    if report.cold.is_some() {
        return Err(CannotMerge::Cold { number });
    }
    let (got, wanted) = (&report.config, &first.config);
    same(number, "config.url", &got.url, &wanted.url)?;
    same(number, "config.method", &got.method, &wanted.method)?;
    same(number, "config.protocol", &got.protocol, &wanted.protocol)?;
    same(number, "config.grpc", &got.grpc, &wanted.grpc)?;
    same(number, "config.http", &got.http, &wanted.http)?;
    same(number, "config.load", &got.load, &wanted.load)?;
    same(number, "config.warmup", &got.warmup, &wanted.warmup)?;
    same(
        number,
        "config.expect_status",
        &got.expect_status,
        &wanted.expect_status,
    )
}

/// What was counted, from what a report says of it.
fn recorder(number: usize, report: &Report) -> Result<Recorder, CannotMerge> {
    let histograms = report.histograms.as_ref();
    let read = |what, text: fn(&Histograms) -> &str| {
        histograms
            .and_then(|histograms| Durations::decode(text(histograms)))
            .ok_or(CannotMerge::Histogram { number, what })
    };
    let pacing = report.pacing.as_ref();
    let lost = pacing.and_then(|pacing| Duration::try_from_secs_f64(pacing.lost).ok());
    let streams = match &report.streams {
        None => None,
        Some(streams) => {
            let read = histograms.and_then(|h| h.streams.as_ref()?.counts(streams));
            let what = "streams";
            Some(Box::new(
                read.ok_or(CannotMerge::Histogram { number, what })?,
            ))
        }
    };
    Ok(Recorder {
        reanchored: pacing.map_or(0, |pacing| pacing.reanchored),
        lost: lost.unwrap_or_default(),
        latency: read("latency", |h| &h.latency)?,
        failed_latency: read("failed latency", |h| &h.failed_latency)?,
        lag: read("lag", |h| &h.lag)?,
        waited: read("waits", |h| &h.waited)?,
        streams,
        errors: report.summary.errors.clone(),
        reasons: report.reasons.clone(),
        unfinished: report.summary.unfinished,
        body_bytes: report.summary.body_bytes,
        connections: report.summary.connections_opened,
        ..Recorder::default()
    })
}

fn added(
    reports: &[Report],
    counts: impl Fn(&Report) -> &BTreeMap<String, u64>,
) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for (name, count) in reports.iter().flat_map(counts) {
        *sums.entry(name.clone()).or_default() += count;
    }
    sums
}

/// Counts over time, where all began together and have slices of the same length. Percentiles of slices are not merged: their histograms are not kept.
fn series(reports: &[Report]) -> Slices {
    if let [one] = reports {
        return one.series.clone();
    }
    let length = reports.first().map_or(0.0, |report| report.series.length);
    let starts = reports.iter().map(|r| r.started_at + r.config.warmup);
    let first = starts.clone().fold(f64::INFINITY, f64::min);
    let last = starts.fold(f64::NEG_INFINITY, f64::max);
    let is_same = |report: &Report| (report.series.length - length).abs() < 1e-9;
    if last - first >= length || !reports.iter().all(is_same) {
        return Slices::default();
    }
    let mut answered = Vec::new();
    for report in reports {
        add(&mut answered, &report.series.answered);
    }
    let mut points: Vec<Point> = Vec::new();
    for (index, point) in reports
        .iter()
        .flat_map(|r| r.series.points.iter().enumerate())
    {
        match points.get_mut(index) {
            None => points.push(Point {
                p50: None,
                p90: None,
                p99: None,
                ..*point
            }),
            Some(sum) => {
                sum.successes += point.successes;
                sum.errors += point.errors;
                sum.length = sum.length.max(point.length);
                sum.max = sum.max.into_iter().chain(point.max).reduce(f64::max);
            }
        }
    }
    Slices {
        length,
        points,
        answered,
    }
}
