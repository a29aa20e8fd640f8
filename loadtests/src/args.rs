//! The command line as typed, and what it means.

use crate::ab::args::AbArgs;
use crate::check::{Check, JsonCheck};
use crate::cold::ColdArgs;
use crate::compare::Limits;
use crate::config::{Config, Expect, Limit, Load};
use crate::error::Error;
use crate::payload::Payload;
use crate::plan::{Arrivals, Replay, Schedule, Shard, Stage, Stages, Timing, Trace, VARIATIONS};
use crate::protocol::{Protocol, ProtocolArgs};
use crate::ready::Ready;
use crate::slo::Objectives;
use crate::tls::Tls;
use crate::unit::{MAX_DURATION, Rate, parse_duration};
use bytes::Bytes;
use clap::{Parser, Subcommand};
use http::{HeaderName, HeaderValue, Method};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Measure an HTTP server under load, honestly.
///
/// Without --rate, --stages or --trace the load is a closed loop: every connection sends its next request as soon as the last one
/// is answered. That finds the maximum, but a slow server slows the load down, so the latency of users who would not have
/// waited stays unseen.
///
/// With --rate, --stages or --trace the load is an open loop: requests are due by a schedule fixed beforehand, whatever the server
/// does, and latency counts from the instant a request was due, also if no connection was free then. The report says
/// whether the schedule was kept, or the tool itself was the limit.
///
/// Errors are counted by kind and are never retried; throughput and latency are those of successful requests.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "rouse-load",
    version,
    max_term_width = 100,
    after_help = AFTER_HELP,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
pub struct Args {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    /// What to request: an absolute http or https URL.
    #[arg(value_name = "URL", required = true)]
    url: Option<String>,

    #[command(flatten)]
    pub(crate) sending: Sending,

    #[command(flatten)]
    pub(crate) result: Results,
}

// What is sent, and how: flags of a run, and of `ab`. Neither group has a doc comment: clap would take it for the program's own.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Sending {
    /// Connections, each with at most one request in flight.
    #[arg(
        short,
        long,
        value_name = "N",
        default_value_t = 16,
        help_heading = "Load"
    )]
    connections: usize,

    /// How long to send requests [default: 10s, or the whole trace]. Those in flight at the end are awaited.
    #[arg(short, long, value_name = "TIME", value_parser = parse_duration, help_heading = "Load")]
    duration: Option<Duration>,

    /// Send exactly this many requests; in an open loop at most this many, and with --rate --duration is not needed.
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), help_heading = "Load")]
    requests: Option<u64>,

    /// Open loop at this many requests per second, 0.0001 to 1000000.
    #[arg(short, long, value_name = "R", value_parser = parse_rate, help_heading = "Load")]
    rate: Option<Rate>,

    /// Open loop in stages: 30s@50,10s@0,1m@200 is half a minute at 50 requests per second, ten seconds of silence, and
    /// a minute at 200. The rate of a stage may also go from one to another (1m@50..200), do that in steps (1m@50..200/4: 50, 100,
    /// 150, 200), swing around a mean (5m@100~50/1m: between 50 and 150, once a minute), or have bursts (1m@10+200/15s: 200 at once
    /// every 15 s, the first at once, and 10 per second in between).
    #[arg(long, value_name = "STAGES", conflicts_with_all = ["rate", "duration"], help_heading = "Load")]
    stages: Option<Stages>,

    /// Open loop with the requests of a recording: a CSV of requests per minute as that of Azure Functions (columns of text, then 1,
    /// 2, ..), Mooncake's JSONL ("timestamp" in milliseconds), or a number of seconds a line. Only the times are taken.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["rate", "stages"], help_heading = "Load")]
    trace: Option<PathBuf>,

    /// Replay the trace this many times as fast, 0.001 to 100000.
    #[arg(long, value_name = "FACTOR", requires = "trace", default_value_t = 1.0, value_parser = parse_speed, help_heading = "Load")]
    speed: f64,

    /// Of a trace by the minute, take only the rows with this text, such as the hash of a function; may be repeated.
    #[arg(long, value_name = "TEXT", requires = "trace", help_heading = "Load")]
    trace_row: Vec<String>,

    /// How requests of an open loop are spread around the rate.
    #[arg(
        long,
        value_enum,
        default_value_t,
        conflicts_with = "trace",
        help_heading = "Load"
    )]
    arrivals: Arrivals,

    /// Gamma arrivals: the standard deviation of the gaps, in means, 0.01 to 20. Below 1 is more regular than Poisson arrivals, above it
    /// in clusters.
    #[arg(long, value_name = "CV", default_value_t = 1.0, value_parser = parse_variation, help_heading = "Load")]
    variation: f64,

    /// Seed of what is random: the same seed gives the same schedule.
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Load")]
    seed: u64,

    /// Load before the measurement that is left out of the report, at the first rate of an open loop or the mean of a trace.
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = parse_duration, help_heading = "Load")]
    warmup: Duration,

    /// Send every N-th request of the open loop alone, from the I-th on, I from 0: with --shard 0/4, 1/4, 2/4 and 3/4 four machines send
    /// what one would without it. Rates and --requests are those of all of them.
    #[arg(long, value_name = "I/N", help_heading = "Load")]
    shard: Option<Shard>,

    /// Begin at this moment, in seconds since 1970 and at most an hour ahead, so that several machines begin together.
    #[arg(long, value_name = "SECONDS", value_parser = parse_moment, help_heading = "Load")]
    start_at: Option<SystemTime>,

    /// Open loop: requests that may wait for a free connection. Further ones are dropped, and counted as errors.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 65_536,
        help_heading = "Load"
    )]
    max_waiting: usize,

    /// Threads that send [default: one per core].
    #[arg(
        long,
        visible_alias = "workers",
        value_name = "N",
        help_heading = "Load"
    )]
    threads: Option<usize>,

    #[command(flatten)]
    asking: Asking,

    /// The body is a template: {{n}} is the number of the request, {{int 1 100}} a whole number at random, {{pick red|green}} one
    /// of these, {{uuid}} a UUID. The same request has the same body in every run of the same --seed.
    #[arg(long, help_heading = "Request")]
    template: bool,

    /// Request bodies from a file, a line each, such as JSONL: one after the other, and again from the first.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["body", "body_file", "template"], help_heading = "Request")]
    bodies: Option<PathBuf>,

    /// Close a connection after so many requests and make another one; 1 is no keep-alive [default: no limit].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), help_heading = "Request")]
    connection_requests: Option<u64>,

    /// HTTP/2, one request at a time per connection: with prior knowledge (h2c), or with https by agreement (ALPN).
    #[arg(long, help_heading = "Request")]
    http2: bool,

    #[command(flatten)]
    protocol: ProtocolArgs,

    #[command(flatten)]
    tls: Tls,

    /// How long a request may take, from sending to the end of its response.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration, help_heading = "Request")]
    timeout: Duration,

    /// Wait at most so long until the target is ready: until it takes connections, or answers --ready-path with 200 to 299.
    /// Nothing is measured meanwhile. Exit with 1 if it is not ready by then.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, help_heading = "Request")]
    wait_ready: Option<Duration>,

    /// What --wait-ready asks for on the host of the URL, such as /v2/health/ready.
    #[arg(
        long,
        value_name = "PATH",
        requires = "wait_ready",
        help_heading = "Request"
    )]
    ready_path: Option<String>,

    /// The one status that is a success [default: any 2xx].
    #[arg(long, value_name = "CODE", value_parser = clap::value_parser!(u16).range(100..=599), help_heading = "Result")]
    expect_status: Option<u16>,

    /// A text that the body of a successful response has to have; may be repeated. Of at most 1 MiB.
    #[arg(long, value_name = "TEXT", help_heading = "Result")]
    expect_body: Vec<String>,

    /// What the body of a successful response has to have as JSON: a JSON Pointer, such as /predictions, or one and its value, such as
    /// /predictions/0=1 or /status="ok"; may be repeated.
    #[arg(long, value_name = "POINTER[=JSON]", help_heading = "Result")]
    expect_json: Vec<JsonCheck>,
}

// What is asked: flags of a run, of `ab` and of `cold`. Without a doc comment, as the others.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Asking {
    /// Request method [default: GET, or POST with a body].
    #[arg(short = 'X', long, value_name = "METHOD", help_heading = "Request")]
    method: Option<Method>,

    /// A request header; may be repeated.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = parse_header, help_heading = "Request")]
    headers: Vec<(HeaderName, HeaderValue)>,

    /// Request body.
    #[arg(
        long,
        value_name = "TEXT",
        conflicts_with = "body_file",
        help_heading = "Request"
    )]
    body: Option<String>,

    /// Request body from a file.
    #[arg(long, value_name = "FILE", help_heading = "Request")]
    body_file: Option<PathBuf>,
}

impl Asking {
    /// The body, from wherever it is.
    pub(crate) fn body(&self) -> Result<Bytes, Error> {
        let Some(path) = &self.body_file else {
            return Ok(Bytes::from(self.body.clone().unwrap_or_default()));
        };
        std::fs::read(path).map(Bytes::from).map_err(|error| {
            let shown = path.display().to_string();
            Error::invalid("--body-file", shown, format!("a readable file ({error})"))
        })
    }

    /// Sets headers, and the method, which is `default` if none was given.
    pub(crate) fn apply(&self, config: &mut Config, default: Method) {
        config.method = self.method.clone().unwrap_or(default);
        for (name, value) in &self.headers {
            config.headers.append(name, value.clone());
        }
    }
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Results {
    /// Write the report as JSON to FILE, or with - to standard output instead of the table.
    #[arg(long, value_name = "FILE", help_heading = "Result")]
    pub(crate) json: Option<PathBuf>,

    /// Give each request a unique x-request-id, and write what became of each as a line of JSON.
    #[arg(long, value_name = "FILE", help_heading = "Result")]
    pub(crate) journal: Option<PathBuf>,

    /// Write the run over time as CSV, a line for each second or, of long runs, for each 2, 4, 8.. seconds.
    #[arg(long, value_name = "FILE", help_heading = "Result")]
    pub(crate) csv: Option<PathBuf>,

    /// Write the report as a page with charts: one file that needs no network and opens from disk.
    #[arg(long, value_name = "FILE", help_heading = "Result")]
    pub(crate) html: Option<PathBuf>,

    /// Write the results as metrics of Prometheus, for the textfile collector of its node exporter. The file appears whole.
    #[arg(long, value_name = "FILE", help_heading = "Result")]
    pub(crate) prometheus: Option<PathBuf>,

    /// Objectives: p99<250ms,errors<0.1%,throughput>100. Of mean, p50, p90, p95, p99, p999 and max (with lag. before it those of the
    /// tool's own lag, with ttfb., ttfe., ttft., itl. or tpot. those of streams: first byte, first event, first token, between tokens, mean
    /// per token), errors (a number, or a share with %), throughput and tokens (per second). Exit with 1 if one is missed.
    #[arg(long, value_name = "OBJECTIVES", help_heading = "Result")]
    pub(crate) slo: Option<Objectives>,

    /// Show nothing while the load runs. Without it, a terminal shows how it is doing; files and pipes never do.
    #[arg(long, visible_alias = "quiet", help_heading = "Result")]
    pub(crate) no_progress: bool,

    /// Exit with 1 if any request was an error.
    #[arg(long, help_heading = "Result")]
    pub(crate) fail_on_errors: bool,
}

const AFTER_HELP: &str = "\
Times are numbers with a unit: 250us, 500ms, 1.5s, 2m, 1h.

Exit status: 0 the load ran; 1 an objective of --slo was missed, or there were errors and --fail-on-errors was given, or
the target was not ready in time, or a result could not be written; 2 the arguments make no sense, nothing was sent; 130 stopped by Ctrl-C, with a partial report.

Examples:
  rouse-load --connections 64 --duration 10s http://127.0.0.1:8080/
  rouse-load --rate 500 --arrivals poisson --duration 1m --warmup 5s --json report.json http://127.0.0.1:8080/
  rouse-load --trace invocations.csv --speed 60 --duration 10m http://127.0.0.1:8080/
  rouse-load --stages 30s@50,1m@50..200 --header 'Content-Type: application/json' --body '{\"x\": 1}' http://127.0.0.1:8080/";

/// What else than to send a load.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Command {
    Cold(Box<ColdArgs>),
    /// Compare two servers in one run, slice by slice in turn: ratios with intervals, and what may be said.
    ///
    /// A block is D A B B A D, where D is --direct, and A and B change places in every second block. Each block has its ratios; told are
    /// their medians, and intervals (of the sign test) that have them with 95 %. Blocks of A against itself are among them: where the interval
    /// of any figure of theirs does not have 1 in it nothing is claimed, and of a figure whose interval is not within 5 % of 1 neither. Blocks are rejected by rules that cannot see who is better: steal over
    /// 1 %, other processes over 2 % of the CPU, a lag p99 over 10 % of the p50, or a tool that stood still for over 1 % of the time.
    ///
    /// The load is a closed loop, or with --rate an open one, the same for all. With 12 blocks and a null block for each it takes
    /// 10 minutes, and 15 with --direct.
    ///
    /// Exit status: 0; 1 a limit of --limit is not shown to be kept, a target was not ready in time, something ended the run early, or the
    /// result could not be written; 2 the arguments make no sense, nothing was sent; 130 stopped by Ctrl-C, with the whole blocks so far.
    #[command(
        mut_arg("duration", |arg| arg.hide(true)),
        mut_arg("requests", |arg| arg.hide(true)),
        mut_arg("stages", |arg| arg.hide(true)),
        mut_arg("trace", |arg| arg.hide(true)),
        mut_arg("speed", |arg| arg.hide(true)),
        mut_arg("trace_row", |arg| arg.hide(true)),
        mut_arg("warmup", |arg| arg.hide(true))
    )]
    Ab(Box<AbArgs>),
    /// Make one report of several of the same load, such as those of several machines.
    ///
    /// Percentiles are those of all requests together. Exit status: 0; 1 the result could not be written; 2 the reports cannot be
    /// merged, or read.
    Merge {
        /// Reports, as written with --json.
        #[arg(required = true, value_name = "REPORT")]
        reports: Vec<PathBuf>,

        /// Write the report as JSON to FILE, or with - to standard output instead of the table.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,

        /// Write the report as a page with charts, as --html of a run.
        #[arg(long, value_name = "FILE")]
        html: Option<PathBuf>,

        /// Objectives, as of a run. Exit with 1 if one is missed.
        #[arg(long, value_name = "OBJECTIVES")]
        slo: Option<Objectives>,
    },
    /// Make a page with charts of a report: one file that needs no network and opens from disk.
    ///
    /// Exit status: 0; 1 the page could not be written; 2 the report cannot be read.
    Html {
        /// A report, as written with --json.
        #[arg(value_name = "REPORT")]
        report: PathBuf,

        /// Where the page goes, or - for standard output.
        #[arg(value_name = "FILE")]
        page: PathBuf,
    },
    /// Compare two reports: ratios of the second to the first, with intervals.
    ///
    /// The seconds of both runs are paired. The ratio is the median of those of the pairs, and the interval, by bootstrap, has it with
    /// 95 %. It knows nothing of what the machine did between the runs. Exit status: 0; 1 a ratio is beyond its limit; 2 the
    /// reports cannot be read.
    Compare {
        /// The report to compare with.
        #[arg(value_name = "A")]
        a: PathBuf,

        /// The report that is compared.
        #[arg(value_name = "B")]
        b: PathBuf,

        /// What the ratios are to be, such as p99<1.1,throughput>0.95: of throughput, p50, p90, p99, p999 and errors.
        #[arg(long, value_name = "LIMITS")]
        limit: Option<Limits>,

        /// Write the comparison as JSON to FILE, or with - to standard output instead of the table.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
}

impl Args {
    /// The run that was asked for, without the journal, which needs its file opened.
    pub fn config(&self) -> Result<Config, Error> {
        // There is one, or a command, which has no configuration.
        self.sending.config(self.url.as_deref().unwrap_or_default())
    }
}

impl Sending {
    /// A slice of a comparison: a steady load of this length, after one that is discarded.
    pub(crate) fn slice(
        &self,
        url: &str,
        length: Duration,
        discard: Duration,
    ) -> Result<Config, Error> {
        let given = [
            ("--duration", self.duration.is_some()),
            ("--requests", self.requests.is_some()),
            ("--stages", self.stages.is_some()),
            ("--trace", self.trace.is_some()),
            ("--warmup", !self.warmup.is_zero()),
        ];
        if let Some((flag, _)) = given.into_iter().find(|(_, is_given)| *is_given) {
            let allowed = "not with ab, where --slice, --discard and --rate say what is sent";
            return Err(Error::invalid(flag, "", allowed));
        }
        let steady = Self {
            duration: Some(length),
            warmup: discard,
            ..self.clone()
        };
        steady.config(url)
    }

    /// A run against this URL.
    pub(crate) fn config(&self, url: &str) -> Result<Config, Error> {
        let mut config = Config::new(url)?;
        config.connections = self.connections;
        config.threads = self.threads.unwrap_or(config.threads);
        config.load = self.load()?;
        let (protocol, body) = self.protocol.protocol()?;
        let files = [&self.asking.body_file, &self.bodies];
        let brings =
            self.asking.body.is_some() || self.template || files.iter().any(|f| f.is_some());
        if body.is_some() && brings {
            let allowed = "no body with --grpc health or model-infer, which have their own";
            return Err(Error::invalid("--body", "", allowed));
        }
        config.body = body.map_or_else(|| self.body(), Ok)?;
        config.protocol = protocol;
        let is_call = matches!(config.protocol, Protocol::Grpc(_));
        let is_socket = matches!(config.protocol, Protocol::WebSocket { .. });
        let has_body = !config.body.is_empty() && !is_socket;
        let method = if has_body || is_call {
            Method::POST
        } else {
            Method::GET
        };
        self.asking.apply(&mut config, method);
        config.http2 = self.http2 || is_call;
        config.tls = self.tls.clone();
        config.timeout = self.timeout;
        config.warmup = self.warmup;
        config.expect = self.expect_status.map_or(Expect::Success, Expect::Status);
        let texts = self.expect_body.iter().cloned().map(Check::Contains);
        let json = self
            .expect_json
            .iter()
            .map(|JsonCheck(check)| check.clone());
        config.checks = texts.chain(json).collect();
        config.connection_requests = self.connection_requests;
        config.max_waiting = self.max_waiting;
        config.ready = self.wait_ready.map(|within| Ready {
            within,
            path: self.ready_path.clone(),
        });
        config.start_at = self.start_at;
        config.check()?;
        Ok(config)
    }

    fn load(&self) -> Result<Load, Error> {
        if self.arrivals != Arrivals::Gamma && self.variation.to_bits() != 1.0_f64.to_bits() {
            let allowed = "only with --arrivals gamma";
            return Err(Error::invalid(
                "--variation",
                self.variation.to_string(),
                allowed,
            ));
        }
        if let (Some(shard), None, None, None) = (self.shard, &self.stages, self.rate, &self.trace)
        {
            let allowed = "only with --rate, --stages or --trace";
            return Err(Error::invalid("--shard", shard.to_string(), allowed));
        }
        let timed = |timing| {
            Load::Open(Schedule {
                timing,
                arrivals: self.arrivals,
                variation: self.variation,
                seed: self.seed,
                limit: self.requests,
                shard: self.shard,
            })
        };
        let steady = |length, rate| timed(Timing::Stages(vec![Stage::constant(length, rate)]));
        if let Some(file) = &self.trace {
            let replay = Replay {
                speed: self.speed,
                rows: self.trace_row.clone(),
                seed: self.seed,
                until: self.duration,
            };
            if self.duration.is_some_and(|length| length.is_zero()) {
                return Err(Error::invalid(
                    "--duration",
                    "0",
                    "more than 0 and at most 24h",
                ));
            }
            return Ok(timed(Timing::Trace(Trace::read(file, replay)?)));
        }
        let default = Duration::from_secs(10);
        Ok(
            match (&self.stages, self.rate, self.requests, self.duration) {
                (Some(Stages(stages)), ..) => timed(Timing::Stages(stages.clone())),
                (None, Some(rate), Some(requests), None) => {
                    steady(length_for(requests, rate, self.spread())?, rate)
                }
                (None, Some(rate), _, length) => steady(length.unwrap_or(default), rate),
                (None, None, Some(_), Some(length)) => {
                    let allowed = "either --requests or --duration in a closed loop";
                    return Err(Error::invalid("--duration", format!("{length:?}"), allowed));
                }
                (None, None, Some(requests), None) => Load::Closed(Limit::Requests(requests)),
                (None, None, None, length) => {
                    Load::Closed(Limit::Duration(length.unwrap_or(default)))
                }
            },
        )
    }

    /// Standard deviation of the gaps, in means.
    fn spread(&self) -> f64 {
        match self.arrivals {
            Arrivals::Constant => 0.0,
            Arrivals::Poisson => 1.0,
            Arrivals::Gamma => self.variation,
        }
    }

    fn body(&self) -> Result<Payload, Error> {
        if let Some(path) = &self.bodies {
            return Payload::lines("--bodies", path);
        }
        let body = self.asking.body()?;
        if !self.template {
            return Ok(Payload::Same(body));
        }
        let wrong = |what: String| Error::invalid("--template", "the body", what);
        let text = std::str::from_utf8(&body)
            .map_err(|error| wrong(format!("a template is text ({error})")))?;
        Payload::template(text, self.seed).map_err(wrong)
    }
}

/// A stage long enough for so many requests, with room for the spread of random arrivals.
#[expect(
    clippy::cast_precision_loss,
    reason = "a count of requests stays far below 2^53"
)]
fn length_for(requests: u64, rate: Rate, spread: f64) -> Result<Duration, Error> {
    let expected = if spread > 0.0 {
        // Ten standard deviations: falling short is less likely than a cosmic ray. The one more is for few and irregular gaps, of which
        // some are many times the mean.
        requests as f64 + 10.0 * spread * (requests as f64).sqrt() + 100.0 * spread.max(1.0).powi(2)
    } else {
        requests as f64
    };
    let seconds = expected / rate.per_second();
    if requests as f64 / rate.per_second() > MAX_DURATION.as_secs_f64() {
        return Err(Error::invalid(
            "--requests",
            requests.to_string(),
            format!("at most 24h of load at {rate} per second"),
        ));
    }
    // It ends with the last request: the room for irregular gaps is not to be used up.
    Ok(Duration::from_secs_f64(
        seconds.min(MAX_DURATION.as_secs_f64()),
    ))
}

pub(crate) fn parse_speed(text: &str) -> Result<f64, String> {
    let speed = text.parse().ok();
    speed
        .filter(|speed| (0.001..=100_000.0).contains(speed))
        .ok_or_else(|| "a factor from 0.001 to 100000".into())
}

fn parse_variation(text: &str) -> Result<f64, String> {
    let variation = text.parse().ok();
    variation
        .filter(|variation| VARIATIONS.contains(variation))
        .ok_or_else(|| "a coefficient of variation from 0.01 to 20".into())
}

pub(crate) fn parse_rate(text: &str) -> Result<Rate, String> {
    let rate: Rate = text.parse()?;
    if rate.is_pause() {
        Err("a rate is a number of requests per second, 0.0001 to 1000000".into())
    } else {
        Ok(rate)
    }
}

fn parse_moment(text: &str) -> Result<SystemTime, String> {
    let seconds = text.parse().ok().map(Duration::try_from_secs_f64);
    seconds
        .and_then(Result::ok)
        .and_then(|since| UNIX_EPOCH.checked_add(since))
        .ok_or_else(|| "a number of seconds since 1970, as date +%s prints it".into())
}

pub(crate) fn parse_header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    const ALLOWED: &str = "a header is 'Name: value'";
    let (name, value) = text.split_once(':').ok_or(ALLOWED)?;
    Ok((
        name.trim().parse().map_err(|_| ALLOWED)?,
        value.trim().parse().map_err(|_| ALLOWED)?,
    ))
}

#[cfg(test)]
mod tests {
    use super::Args;
    use crate::config::{Limit, Load};
    use clap::{CommandFactory, Parser};

    fn load(flags: &[&str]) -> Result<Load, String> {
        let args = ["rouse-load", "http://127.0.0.1:1/"].iter().chain(flags);
        let args = Args::try_parse_from(args).map_err(|error| error.to_string())?;
        args.config()
            .map(|config| config.load)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn requests_without_a_rate_are_a_closed_loop() {
        assert_eq!(
            load(&["--requests", "7"]),
            Ok(Load::Closed(Limit::Requests(7)))
        );
    }

    #[test]
    fn requests_with_a_rate_are_exactly_that_many() {
        for arrivals in [
            &["constant"][..],
            &["poisson"],
            &["gamma", "--variation", "0.1"],
            &["gamma", "--variation", "20"],
        ] {
            for seed in ["1", "2", "3", "4", "5"] {
                let rate = [
                    "--requests",
                    "50",
                    "--rate",
                    "7",
                    "--seed",
                    seed,
                    "--arrivals",
                ];
                let Ok(Load::Open(schedule)) = load(&[&rate[..], arrivals].concat()) else {
                    panic!("a rate makes an open loop");
                };
                assert_eq!(schedule.instants().count(), 50, "{arrivals:?}");
            }
        }
    }

    #[test]
    fn what_makes_no_sense_names_flag_and_value() {
        for (flags, flag, value) in [
            (&["--rate", "0"][..], "--rate", "'0'"),
            (&["--rate", "1e9"], "--rate", "'1e9'"),
            (&["--stages", "30s@"], "--stages", "'30s@'"),
            (&["--stages", "30s@5~6/1s"], "--stages", "at most its mean"),
            (&["--stages", "1s@1+1000000/1ms"], "--stages", "1000000"),
            (&["--trace", "/nonexistent"], "--trace", "/nonexistent"),
            (&["--trace", "/dev/null"], "--trace", "no request"),
            (&["--speed", "2"], "--trace", "required"),
            (&["--trace", "a", "--speed", "0"], "--speed", "'0'"),
            (&["--variation", "2"], "--variation", "gamma"),
            (
                &["--template", "--body", "{{x}}"],
                "--template",
                "\"x\" is no gap",
            ),
            (&["--bodies", "/nonexistent"], "--bodies", "/nonexistent"),
            (
                &["--bodies", "a", "--body", "b"],
                "--bodies",
                "cannot be used with",
            ),
            (&["--expect-json", "a"], "--expect-json", "JSON Pointer"),
            (
                &["--connection-requests", "0"],
                "--connection-requests",
                "0",
            ),
            (
                &["--arrivals", "gamma", "--variation", "0"],
                "--variation",
                "'0'",
            ),
            (&["--duration", "0"], "--duration", "0ns"),
            (&["--rate", "1", "--shard", "4/4"], "--shard", "'4/4'"),
            (&["--shard", "0/4"], "--shard", "--rate"),
            (&["--start-at", "soon"], "--start-at", "'soon'"),
            (&["--start-at", "1e30"], "--start-at", "'1e30'"),
            (
                &["--start-at", "1000"],
                "--start-at",
                "at most an hour ahead",
            ),
            (
                &["--start-at", "99999999999"],
                "--start-at",
                "at most an hour ahead",
            ),
            (&["--duration", "10"], "--duration", "'10'"),
            (&["--connections", "0"], "--connections", "\"0\""),
            (&["--header", "nonsense"], "--header", "'nonsense'"),
            (
                &["--body-file", "/nonexistent"],
                "--body-file",
                "/nonexistent",
            ),
            (&["--expect-status", "99"], "--expect-status", "'99'"),
            (&["--requests", "1", "--duration", "1s"], "--duration", "1s"),
            (
                &["--rate", "0.001", "--requests", "1000000"],
                "--requests",
                "1000000",
            ),
        ] {
            let message = load(flags).expect_err(flag);
            assert!(
                message.contains(flag) && message.contains(value),
                "{flags:?}: {message}"
            );
        }
    }
}
