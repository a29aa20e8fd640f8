//! What a run found, as other programs read it. `schema.json` beside the crate is the contract; a test holds both together.

use crate::cold::report::Cold;
use crate::config::{Config, Expect, Limit, Load};
use crate::plan::{Arrivals, Shard, Timing};
use crate::protocol::Protocol;
use crate::record::{Durations, ErrorKind, Recorder};
use crate::series::Slices;
use crate::slo::{Objectives, Verdict};
use crate::streams::{StreamHistograms, Streams};
use crate::unit::human;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The version of the JSON form. Fields may be added within a version; none is removed or given a new meaning.
pub const SCHEMA_VERSION: u32 = 1;

/// Lag below this is no reason for doubt whatever the latency, in seconds: half a tick of a coarse timer.
const GOOD_LAG: f64 = 500e-6;

/// The whole report. Durations are in seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// See [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Name and version of the program.
    pub tool: String,
    /// When the load began, in seconds since 1970.
    pub started_at: f64,
    /// The same on the clock that all processes of the machine share (`CLOCK_MONOTONIC`), in seconds: for whoever compares the journal
    /// with a log of the server's. None of reports that are sums.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_monotonic: Option<f64>,
    /// True if the run was stopped early, so that the report is partial.
    pub interrupted: bool,
    /// Seconds until the target was ready, if that was waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_after: Option<f64>,
    /// What was asked for, without bodies and header values.
    pub config: Settings,
    /// The results in short.
    pub summary: Summary,
    /// What was said of the first error of a kind, of kinds where something is said.
    #[serde(default)]
    pub reasons: BTreeMap<ErrorKind, String>,
    /// Responses by status code.
    pub status: BTreeMap<String, u64>,
    /// Responses by the value of `x-served-by`.
    pub served_by: BTreeMap<String, u64>,
    /// Calls of gRPC by the name of their status.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub grpc_status: BTreeMap<String, u64>,
    /// Streams, if answers are such.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub streams: Option<Streams>,
    /// How well the schedule was kept; absent in a closed loop.
    pub pacing: Option<Pacing>,
    /// The run over time.
    #[serde(default)]
    pub series: Slices,
    /// Objectives, and whether each was met.
    #[serde(default)]
    pub slo: Vec<Verdict>,
    /// Cold starts, if the run was about these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cold: Option<Cold>,
    /// How many runs this is the sum of.
    #[serde(default = "one")]
    pub runs: u64,
    /// All durations, so that reports can be merged.
    #[serde(default)]
    pub histograms: Option<Histograms>,
}

fn one() -> u64 {
    1
}

fn plain() -> String {
    Protocol::Plain.name().to_owned()
}

/// Durations in nanoseconds, each in the form `HdrHistogram V2` and Base64.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histograms {
    /// Of successful requests.
    pub latency: String,
    /// Of requests that were sent and failed, up to the failure.
    pub failed_latency: String,
    /// By which the tool was late.
    pub lag: String,
    /// For which requests waited for a free connection.
    pub waited: String,
    /// Of streams, if answers are such.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub streams: Option<StreamHistograms>,
}

impl Histograms {
    pub(crate) fn of(total: &Recorder) -> Self {
        Self {
            latency: total.latency.encode(),
            failed_latency: total.failed_latency.encode(),
            lag: total.lag.encode(),
            waited: total.waited.encode(),
            streams: total.streams.as_deref().map(StreamHistograms::of),
        }
    }
}

/// What was asked for. Header values and bodies are left out, as they may be secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// The URL.
    pub url: String,
    /// Request method.
    pub method: String,
    /// What an exchange is: `http`, `sse`, `openai`, `grpc` or `websocket`.
    #[serde(default = "plain")]
    pub protocol: String,
    /// The path of the method that is called, if it is gRPC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc: Option<String>,
    /// `1.1` or `2`.
    pub http: String,
    /// With TLS: whether the certificate of the target was verified.
    #[serde(default)]
    pub tls_verified: Option<bool>,
    /// Names of further request headers.
    pub headers: Vec<String>,
    /// How the bodies of requests differ: `same`, `template` or `lines`.
    #[serde(default)]
    pub bodies: String,
    /// Length of the first request's body in bytes.
    pub body_bytes: usize,
    /// Requests after which a connection is closed.
    #[serde(default)]
    pub connection_requests: Option<u64>,
    /// How many checks there are of the bodies of responses.
    #[serde(default)]
    pub checks: usize,
    /// Number of connections.
    pub connections: usize,
    /// Number of load threads.
    pub threads: usize,
    /// Seconds from sending a request to the end of its response.
    pub timeout: f64,
    /// Seconds of load before the measurement.
    pub warmup: f64,
    /// `2xx`, or the one status that is good.
    pub expect_status: String,
    /// Requests that may wait for a connection.
    pub max_waiting: usize,
    /// `closed` or `open`.
    pub load: String,
    /// Seconds of load that were asked for, if it was a time.
    pub duration: Option<f64>,
    /// Requests that were asked for, if it was a number.
    pub requests: Option<u64>,
    /// Stages of an open loop.
    pub stages: Vec<StageSettings>,
    /// Trace of an open loop, if it replays one.
    #[serde(default)]
    pub trace: Option<TraceSettings>,
    /// Arrival process of the stages of an open loop.
    pub arrivals: Option<Arrivals>,
    /// Standard deviation of the gaps of Gamma arrivals, in means.
    #[serde(default)]
    pub variation: Option<f64>,
    /// Seed of the arrival process, or of the offsets of a trace by the minute.
    pub seed: Option<u64>,
    /// Which part of the schedule was sent, if others sent the rest.
    #[serde(default)]
    pub shard: Option<Shard>,
}

/// One stage of an open loop.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageSettings {
    /// Its length in seconds.
    pub duration: f64,
    /// Requests per second on average.
    pub rate: f64,
    /// How the rate goes, as it is typed: `50..200`.
    #[serde(default)]
    pub shape: String,
}

/// A trace that is replayed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TraceSettings {
    /// The file.
    pub file: String,
    /// Requests of the whole recording.
    pub requests: u64,
    /// How much faster it is replayed than it was recorded.
    pub speed: f64,
    /// Texts of which a row has one, if not all rows are taken.
    pub rows: Vec<String>,
}

/// The results in short. The warm-up is in none of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Requests that ended, well or as an error, dropped ones included.
    pub requests: u64,
    /// Requests that got the expected status and a whole body.
    pub successes: u64,
    /// Requests given up because the run was stopped: neither success nor error.
    pub unfinished: u64,
    /// From the start of the measurement to the last response, or the end of the schedule if that is later, in seconds.
    pub duration: f64,
    /// **Successful** requests per second.
    pub throughput: f64,
    /// Latency of successful requests.
    pub latency: Percentiles,
    /// Latency, up to the failure, of requests that were sent and failed.
    pub failed_latency: Percentiles,
    /// Number of errors of all kinds.
    pub error_count: u64,
    /// Errors by kind; kinds that did not occur are absent.
    pub errors: BTreeMap<ErrorKind, u64>,
    /// Bytes of response bodies.
    pub body_bytes: u64,
    /// Connections opened, for the warm-up too.
    pub connections_opened: u64,
}

/// A distribution of durations in seconds; all but the count are null if there are none.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// How many.
    pub count: u64,
    /// Mean.
    pub mean: Option<f64>,
    /// Median.
    pub p50: Option<f64>,
    /// 90th percentile.
    pub p90: Option<f64>,
    /// 95th percentile.
    pub p95: Option<f64>,
    /// 99th percentile.
    pub p99: Option<f64>,
    /// 99.9th percentile.
    pub p999: Option<f64>,
    /// The longest.
    pub max: Option<f64>,
}

/// How well the tool kept the schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pacing {
    /// How late requests were by the tool's own fault: from the planned instant to sending if a connection was free, else
    /// to the moment the request was let go.
    pub lag: Percentiles,
    /// How long requests waited for a free connection, of those that did. Their latency contains it.
    pub waited: Percentiles,
    /// Requests never sent because too many waited, or because their turn had not come when the run ended.
    pub dropped: u64,
    /// How often the tool stood still for more than 10 ms, so that the rest of the schedule was moved instead of sent in a burst.
    #[serde(default)]
    pub reanchored: u64,
    /// By how many seconds it was moved in all.
    #[serde(default)]
    pub lost: f64,
    /// True if the tool, not the target, may have shaped the results.
    pub tool_was_the_limit: bool,
    /// The same in words.
    pub verdict: String,
}

impl Report {
    pub(crate) fn new(
        config: &Config,
        total: &Recorder,
        duration: Duration,
        started_at: SystemTime,
        interrupted: bool,
    ) -> Self {
        let series = total.series.report(duration);
        let summary = Summary::of(total, duration.as_secs_f64());
        let median = summary.latency.p50;
        Self {
            schema_version: SCHEMA_VERSION,
            tool: concat!("rouse-load ", env!("CARGO_PKG_VERSION")).into(),
            started_at: started_at
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default()
                .as_secs_f64(),
            started_monotonic: None,
            interrupted,
            ready_after: None,
            config: Settings::of(config),
            summary,
            reasons: total.reasons.clone(),
            status: total
                .status
                .iter()
                .map(|(status, count)| (status.to_string(), *count))
                .collect(),
            served_by: total
                .served_by
                .iter()
                .map(|(server, count)| (server.clone(), *count))
                .collect(),
            grpc_status: total
                .grpc_status
                .iter()
                .map(|(code, count)| (code.name().to_owned(), *count))
                .collect(),
            streams: total
                .streams
                .as_deref()
                .map(|counts| Streams::of(counts, duration.as_secs_f64())),
            pacing: matches!(config.load, Load::Open(_)).then(|| Pacing::of(total, median)),
            series,
            slo: Vec::new(),
            cold: None,
            runs: 1,
            histograms: Some(Histograms::of(total)),
        }
    }

    /// Holds it to `objectives`. Returns whether it meets all of them.
    pub fn judge(&mut self, objectives: &Objectives) -> bool {
        self.slo = objectives.0.iter().map(|o| o.verdict(self)).collect();
        self.slo.iter().all(|verdict| verdict.met)
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
pub(crate) fn per_second(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 {
        count as f64 / seconds
    } else {
        0.0
    }
}

impl Percentiles {
    pub(crate) fn of(durations: &Durations) -> Self {
        let at = |quantile| {
            durations
                .quantile(quantile)
                .map(|value| value.as_secs_f64())
        };
        Self {
            count: durations.count(),
            mean: durations.mean().map(|value| value.as_secs_f64()),
            p50: at(0.5),
            p90: at(0.9),
            p95: at(0.95),
            p99: at(0.99),
            p999: at(0.999),
            max: durations.max().map(|value| value.as_secs_f64()),
        }
    }
}

impl Summary {
    /// Of all that was counted in `duration` seconds.
    pub(crate) fn of(total: &Recorder, duration: f64) -> Self {
        let (successes, error_count) = (total.successes(), total.failures());
        Self {
            requests: successes + error_count,
            successes,
            unfinished: total.unfinished,
            duration,
            throughput: per_second(successes, duration),
            latency: Percentiles::of(&total.latency),
            failed_latency: Percentiles::of(&total.failed_latency),
            error_count,
            errors: total.errors.clone(),
            body_bytes: total.body_bytes,
            connections_opened: total.connections,
        }
    }

    /// Errors among all requests, from 0 to 1; none if there was no request.
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
    pub fn error_share(&self) -> Option<f64> {
        (self.requests > 0).then(|| self.error_count as f64 / self.requests as f64)
    }
}

impl Pacing {
    pub(crate) fn of(total: &Recorder, median: Option<f64>) -> Self {
        let (lag, waited) = (Percentiles::of(&total.lag), Percentiles::of(&total.waited));
        let dropped = total
            .errors
            .get(&ErrorKind::Dropped)
            .copied()
            .unwrap_or_default();
        let p99 = lag.p99.unwrap_or_default();
        // A tenth of the median: more would be visible in the numbers that people quote.
        let (reanchored, lost) = (total.reanchored, total.lost.as_secs_f64());
        let limit = reanchored > 0 || p99 > GOOD_LAG.max(median.unwrap_or_default() / 10.0);
        let verdict = match (lag.count, limit) {
            (0, _) => "nothing was sent".into(),
            (_, true) if reanchored > 0 => format!(
                "the tool was the limit: it stood still {}, and the schedule was moved by {}; lag p99 {}",
                times(reanchored),
                human(lost),
                human(p99)
            ),
            (_, true) => format!("the tool was the limit: lag p99 {}", human(p99)),
            (_, false) => format!("the schedule was kept: lag p99 {}", human(p99)),
        };
        Self {
            lag,
            waited,
            dropped,
            reanchored,
            lost,
            tool_was_the_limit: limit,
            verdict,
        }
    }
}

fn times(count: u64) -> String {
    if count == 1 {
        "once".into()
    } else {
        format!("{count} times")
    }
}

impl Settings {
    pub(crate) fn of(config: &Config) -> Self {
        let schedule = if let Load::Open(schedule) = &config.load {
            Some(schedule)
        } else {
            None
        };
        let (duration, requests) = match &config.load {
            Load::Closed(Limit::Duration(length)) => (Some(length.as_secs_f64()), None),
            Load::Closed(Limit::Requests(count)) => (None, Some(*count)),
            Load::Open(schedule) => (Some(schedule.length().as_secs_f64()), schedule.limit),
        };
        Self {
            url: config.url.to_string(),
            method: config.method.to_string(),
            protocol: config.protocol.name().into(),
            grpc: match &config.protocol {
                Protocol::Grpc(call) => Some(call.path().to_owned()),
                _ => None,
            },
            http: if config.http2 { "2" } else { "1.1" }.into(),
            tls_verified: config.is_tls().then_some(!config.tls.insecure),
            headers: config.headers.keys().map(ToString::to_string).collect(),
            bodies: config.body.kind().into(),
            body_bytes: config.body.body(0).len(),
            connection_requests: config.connection_requests,
            checks: config.checks.len(),
            connections: config.connections,
            threads: config.threads.min(config.connections),
            timeout: config.timeout.as_secs_f64(),
            warmup: config.warmup.as_secs_f64(),
            expect_status: match config.expect {
                Expect::Success => "2xx".into(),
                Expect::Status(status) => status.to_string(),
            },
            max_waiting: config.max_waiting,
            load: if schedule.is_some() { "open" } else { "closed" }.into(),
            duration,
            requests,
            stages: match schedule.map(|schedule| &schedule.timing) {
                Some(Timing::Stages(stages)) => stages
                    .iter()
                    .map(|stage| StageSettings {
                        duration: stage.length.as_secs_f64(),
                        rate: stage.mean_rate(),
                        shape: stage.shape.to_string(),
                    })
                    .collect(),
                _ => Vec::new(),
            },
            trace: match schedule.map(|schedule| &schedule.timing) {
                Some(Timing::Trace(trace)) => Some(TraceSettings {
                    file: trace.file().to_owned(),
                    requests: trace.requests(),
                    speed: trace.replay().speed,
                    rows: trace.replay().rows.clone(),
                }),
                _ => None,
            },
            arrivals: schedule
                .filter(|schedule| matches!(schedule.timing, Timing::Stages(_)))
                .map(|schedule| schedule.arrivals),
            variation: schedule
                .filter(|schedule| schedule.arrivals == Arrivals::Gamma)
                .map(|schedule| schedule.variation),
            seed: schedule.map(|schedule| schedule.seed),
            shard: schedule.and_then(|schedule| schedule.shard),
        }
    }
}
