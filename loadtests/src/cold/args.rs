//! `rouse-load cold` as typed, and what it means.

use crate::args::{Asking, parse_rate, parse_speed};
use crate::check::{Check, JsonCheck};
use crate::config::{Config, Expect};
use crate::error::Error;
use crate::payload::Payload;
use crate::plan::{Arrivals, Replay, Trace};
use crate::slo::Objectives;
use crate::tls::Tls;
use crate::unit::{MAX_DURATION, Rate, parse_duration};
use clap::ValueEnum;
use http::Method;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Targets of one run: each is watched by three requests to the API server.
const MOST_TARGETS: usize = 100;
/// Wakes of one target, and requests at once: both are kept until the report.
const MOST_WAKES: u32 = 10_000;
/// Requests of one run of a schedule, for the same reason.
const MOST_REQUESTS: u64 = 1_000_000;

/// How cold starts are brought about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// One request to one target at zero, again and again.
    #[default]
    Single,
    /// One request to each target at once, all at zero.
    Burst,
    /// Many requests at once to one target at zero.
    Storm,
    /// Requests at a rate, of which a share goes to a target at zero.
    Rate,
    /// The requests of a recording, its rows dealt out to the targets.
    Trace,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Single => "single",
            Self::Burst => "burst",
            Self::Storm => "storm",
            Self::Rate => "rate",
            Self::Trace => "trace",
        })
    }
}

/// What is woken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// What it is called in the report.
    pub name: String,
    /// Where requests go.
    pub url: String,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = text
            .split_once('=')
            .filter(|(name, _)| !name.is_empty() && !name.contains(['/', ':', '?']));
        let (name, url) = named.unwrap_or_else(|| {
            let host = text.split("://").nth(1).unwrap_or(text);
            (host.split(['/', '?']).next().unwrap_or(host), text)
        });
        if name.len() > 128 {
            return Err("a name has at most 128 bytes".to_owned());
        }
        Ok(Self {
            name: name.to_owned(),
            url: url.to_owned(),
        })
    }
}

/// A Deployment, as `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeploymentName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl FromStr for DeploymentName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((namespace, name))
                if !namespace.is_empty() && !name.is_empty() && !name.contains('/') =>
            {
                Ok(Self {
                    namespace: namespace.to_owned(),
                    name: name.to_owned(),
                })
            }
            _ => Err("a Deployment is NAMESPACE/NAME".to_owned()),
        }
    }
}

impl fmt::Display for DeploymentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Wake what is scaled to zero, and find out where the time of a first request goes.
///
/// A request counts as cold only if something proves that the pod which answered began after the request was planned: the answer's own
/// timeline, which Rouse sends, or the API server, if --deployment says which Deployment it is. Others are listed as unproven. Wakes for
/// which a node had to pull an image are listed apart, too. Before each wake the target has to be at zero: the API server tells, or
/// --idle says how long it takes.
///
/// Works with whatever scales a Deployment from zero on demand (Rouse, Knative, KEDA's HTTP add-on), and with --scale also with plain
/// Deployments. Exit status: 0; 1 an objective of --slo was missed, a target did not come to zero, or a result could not be written; 2 the
/// arguments make no sense, nothing was sent; 130 stopped by Ctrl-C, with a partial report.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ColdArgs {
    /// What to wake; may be repeated. With a NAME, that is what the report calls it.
    #[arg(long = "target", value_name = "[NAME=]URL", required = true)]
    targets: Vec<Target>,

    /// The target's Deployment, which is watched by way of the API server; one for each --target, in the same order. For Knative that of
    /// the revision.
    #[arg(long = "deployment", value_name = "NAMESPACE/NAME")]
    deployments: Vec<DeploymentName>,

    /// Which kubeconfig to use for --deployment [default: as kubectl finds it, or the pod's service account].
    #[arg(long, value_name = "FILE", requires = "deployments")]
    kubeconfig: Option<PathBuf>,

    /// Scale the Deployments with this tool: to zero before a wake, and to one when it is planned; the request goes out when the pod is
    /// ready. What Kubernetes and the model take alone.
    #[arg(long, requires = "deployments")]
    scale: bool,

    /// An activator's /debug/wakes, for the timelines of wakes if answers have none; may be repeated.
    #[arg(long, value_name = "URL")]
    wakes_url: Vec<String>,

    /// What /debug/wakes calls the target, if it is not the Deployment; one for each --target.
    #[arg(
        long = "workload",
        value_name = "NAMESPACE/NAME",
        requires = "wakes_url"
    )]
    workloads: Vec<DeploymentName>,

    /// How cold starts are brought about.
    #[arg(long, value_enum, default_value_t)]
    mode: Mode,

    /// Wakes of each target (single, burst, storm) [default: 10].
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_WAKES)))]
    wakes: Option<u32>,

    /// Requests at once (storm) [default: 50].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_WAKES)))]
    at_once: Option<u32>,

    /// After so long without a request a target is thought to be at zero, where no Deployment tells.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    idle: Option<Duration>,

    /// How long to wait for a target to come to zero.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = parse_duration)]
    zero_timeout: Duration,

    /// Requests per second (rate).
    #[arg(short, long, value_name = "R", value_parser = parse_rate)]
    rate: Option<Rate>,

    /// The share of requests that goes to a target at zero, from 0.0001 to 1 (rate) [default: 1]. The others go to --warm.
    #[arg(long, value_name = "SHARE", value_parser = parse_share)]
    cold_share: Option<f64>,

    /// What is not to be woken, for the other requests (rate).
    #[arg(long, value_name = "[NAME=]URL")]
    warm: Option<Target>,

    /// How long to send requests (rate, trace) [default: 1m, or the whole trace].
    #[arg(short, long, value_name = "TIME", value_parser = parse_duration)]
    duration: Option<Duration>,

    /// How requests are spread around the rate.
    #[arg(long, value_enum, default_value = "poisson")]
    arrivals: Arrivals,

    /// The recording, as that of a run (trace). Row by row, or request by request where it has no rows, it is dealt out to the targets.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,

    /// Replay the trace this many times as fast, 0.001 to 100000.
    #[arg(long, value_name = "FACTOR", requires = "trace", default_value_t = 1.0, value_parser = parse_speed)]
    speed: f64,

    /// Of a trace by the minute, take only the rows with this text; may be repeated.
    #[arg(long, value_name = "TEXT", requires = "trace")]
    trace_row: Vec<String>,

    /// Seed of what is random.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    #[command(flatten)]
    asking: Asking,

    #[command(flatten)]
    tls: Tls,

    /// How long a request may take, from its planned instant to the end of its response.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = parse_duration, help_heading = "Request")]
    timeout: Duration,

    /// The one status that is a success [default: any 2xx].
    #[arg(long, value_name = "CODE", value_parser = clap::value_parser!(u16).range(100..=599), help_heading = "Result")]
    expect_status: Option<u16>,

    /// A text that the body of a successful response has to have; may be repeated.
    #[arg(long, value_name = "TEXT", help_heading = "Result")]
    expect_body: Vec<String>,

    /// What the body of a successful response has to have as JSON; may be repeated.
    #[arg(long, value_name = "POINTER[=JSON]", help_heading = "Result")]
    expect_json: Vec<JsonCheck>,

    /// Write the report as JSON to FILE, or with - to standard output instead of the table.
    #[arg(long, value_name = "FILE", help_heading = "Result")]
    pub(crate) json: Option<PathBuf>,

    /// Write the report as a page with charts: one file, which needs nothing else.
    #[arg(long, value_name = "FILE", help_heading = "Result")]
    pub(crate) html: Option<PathBuf>,

    /// Exit with 1 if any request was an error.
    #[arg(long, help_heading = "Result")]
    pub(crate) fail_on_errors: bool,

    /// Objectives, as of a run, and those of proven cold requests: cold.p95<3s, unproven<1.
    #[arg(long, value_name = "OBJECTIVES", help_heading = "Result")]
    pub(crate) slo: Option<Objectives>,
}

/// What to wake, how, and how often.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How cold starts are brought about.
    pub mode: Mode,
    /// What is woken.
    pub targets: Vec<Aim>,
    /// What is not, for the other requests of the mode rate.
    pub warm: Option<Aim>,
    /// The kubeconfig for the targets' Deployments, if it is not the usual one.
    pub kubeconfig: Option<PathBuf>,
    /// Whether this tool scales the Deployments.
    pub scale: bool,
    /// Where Rouse's activators tell of wakes.
    pub wakes_from: Vec<Config>,
    /// Wakes of each target.
    pub wakes: u32,
    /// Requests at once of a storm.
    pub at_once: u32,
    /// After so long without a request a target is thought to be at zero.
    pub idle: Option<Duration>,
    /// How long to wait for that, or for the API server to tell it.
    pub zero_timeout: Duration,
    /// The share of requests that is to be cold, in the mode rate.
    pub cold_share: f64,
    /// When requests are planned, in the modes rate and trace.
    pub timing: Option<Requests>,
    /// Seed of what is random.
    pub seed: u64,
}

/// When requests are planned.
#[derive(Clone, Debug)]
pub enum Requests {
    /// At a rate, for so long.
    Rate {
        /// Requests per second.
        rate: Rate,
        /// For so long.
        length: Duration,
        /// How they are spread.
        arrivals: Arrivals,
    },
    /// As they were recorded.
    Trace(Trace),
}

/// One target.
#[derive(Clone, Debug)]
pub struct Aim {
    /// What the report calls it.
    pub name: String,
    /// What to send where, and what the answer has to be. Its load is not looked at.
    pub config: Config,
    /// Its Deployment, if it is watched.
    pub deployment: Option<DeploymentName>,
    /// What `/debug/wakes` calls it.
    pub workload: Option<String>,
}

impl ColdArgs {
    /// The run that was asked for.
    pub(crate) fn plan(&self) -> Result<Plan, Error> {
        let count = self.targets.len();
        if count > MOST_TARGETS {
            return Err(Error::invalid(
                "--target",
                format!("{count} targets"),
                format!("1 to {MOST_TARGETS} targets"),
            ));
        }
        self.check_counts(count)?;
        self.check_mode()?;
        let targets = (self.targets.iter().enumerate())
            .map(|(number, target)| {
                let deployment = self.deployments.get(number).cloned();
                let workload = self.workloads.get(number).map(ToString::to_string);
                Ok(Aim {
                    workload: workload.or_else(|| deployment.as_ref().map(ToString::to_string)),
                    deployment,
                    ..self.aim("--target", target)?
                })
            })
            .collect::<Result<Vec<_>, Error>>()?;
        let wakes_from = (self.wakes_url.iter())
            .map(|url| self.wakes_config(url))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Plan {
            mode: self.mode,
            targets,
            warm: self
                .warm
                .as_ref()
                .map(|warm| self.aim("--warm", warm))
                .transpose()?,
            kubeconfig: self.kubeconfig.clone(),
            scale: self.scale,
            wakes_from,
            wakes: self.wakes.unwrap_or(10),
            at_once: self.at_once.unwrap_or(50),
            idle: self.idle,
            zero_timeout: self.zero_timeout,
            cold_share: self.cold_share.unwrap_or(1.0),
            timing: self.timing()?,
            seed: self.seed,
        })
    }

    /// As many Deployments and workloads as targets, or none; and no more requests than can be kept.
    fn check_counts(&self, targets: usize) -> Result<(), Error> {
        let wakes = u64::from(self.wakes.unwrap_or(10));
        let at_once = if self.mode == Mode::Storm {
            u64::from(self.at_once.unwrap_or(50))
        } else {
            1
        };
        let requests = wakes * at_once * targets as u64;
        if requests > MOST_REQUESTS {
            let allowed = format!("at most {MOST_REQUESTS} requests in all, not {requests}");
            return Err(Error::invalid("--wakes", wakes.to_string(), allowed));
        }
        for (setting, count) in [
            ("--deployment", self.deployments.len()),
            ("--workload", self.workloads.len()),
        ] {
            if count != 0 && count != targets {
                let allowed = format!("one for each --target, of which there are {targets}");
                return Err(Error::invalid(setting, format!("{count} times"), allowed));
            }
        }
        let all: Vec<_> = self.targets.iter().chain(&self.warm).collect();
        for (number, target) in all.iter().enumerate() {
            if all[..number].iter().any(|other| other.name == target.name) {
                let allowed = "targets with different names: NAME=URL";
                return Err(Error::invalid("--target", &target.name, allowed));
            }
        }
        Ok(())
    }

    /// What only some modes have, and what they have to have.
    fn check_mode(&self) -> Result<(), Error> {
        let mode = self.mode;
        let waits = matches!(mode, Mode::Single | Mode::Burst | Mode::Storm);
        let needs = |setting, allowed: &str| {
            Err(Error::invalid(
                setting,
                "none",
                format!("{allowed}, with --mode {mode}"),
            ))
        };
        let has_no = |setting, value: &str| {
            let allowed = format!("none, with --mode {mode}");
            Err(Error::invalid(setting, value, allowed))
        };
        let needs_zero = waits || mode == Mode::Rate;
        match () {
            () if needs_zero && self.deployments.is_empty() && self.idle.is_none() => {
                needs("--idle", "a time, or a --deployment which tells")
            }
            () if mode == Mode::Rate && self.rate.is_none() => needs("--rate", "a rate"),
            () if mode != Mode::Rate && self.rate.is_some() => has_no("--rate", "a rate"),
            () if mode == Mode::Trace && self.trace.is_none() => needs("--trace", "a file"),
            () if mode != Mode::Trace && self.trace.is_some() => has_no("--trace", "a file"),
            () if mode == Mode::Rate
                && self.cold_share.unwrap_or(1.0) < 1.0
                && self.warm.is_none() =>
            {
                needs("--warm", "a target for the other requests")
            }
            () if mode != Mode::Rate && self.warm.is_some() => has_no("--warm", "a target"),
            () if waits && self.duration.is_some() => has_no("--duration", "a time"),
            () if !waits && self.scale => has_no("--scale", "given"),
            () if !waits && !self.wakes_url.is_empty() => has_no("--wakes-url", "a URL"),
            () if mode != Mode::Rate && self.cold_share.is_some() => {
                has_no("--cold-share", "a share")
            }
            () if mode != Mode::Storm && self.at_once.is_some() => has_no("--at-once", "a number"),
            () if !waits && self.wakes.is_some() => has_no("--wakes", "a number"),
            () if !self.wakes_url.is_empty()
                && self.workloads.is_empty()
                && self.deployments.is_empty() =>
            {
                needs("--workload", "one for each --target, or a --deployment")
            }
            () if self.zero_timeout.is_zero() => {
                Err(Error::invalid("--zero-timeout", "0", "more than 0"))
            }
            () => Ok(()),
        }
    }

    fn aim(&self, flag: &'static str, target: &Target) -> Result<Aim, Error> {
        let mut config = Config::new(&target.url).map_err(|error| match error {
            Error::Invalid { value, allowed, .. } => Error::invalid(flag, value, allowed),
            other => other,
        })?;
        config.body = Payload::Same(self.asking.body()?);
        let method = if config.body.is_empty() {
            Method::GET
        } else {
            Method::POST
        };
        self.asking.apply(&mut config, method);
        if config.is_tls() || !self.has_tls() {
            config.tls = self.tls.clone();
        }
        config.timeout = self.timeout;
        config.expect = self.expect_status.map_or(Expect::Success, Expect::Status);
        let texts = self.expect_body.iter().cloned().map(Check::Contains);
        let json = self
            .expect_json
            .iter()
            .map(|JsonCheck(check)| check.clone());
        config.checks = texts.chain(json).collect();
        config.check()?;
        Ok(Aim {
            name: target.name.clone(),
            config,
            deployment: None,
            workload: None,
        })
    }

    /// Whether anything is reached over TLS: its settings are for that, and of no use to the rest.
    fn has_tls(&self) -> bool {
        let targets = self.targets.iter().chain(&self.warm);
        let mut urls = targets.map(|target| &target.url).chain(&self.wakes_url);
        urls.any(|url| {
            let scheme = url.get(..6);
            scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case("https:"))
        })
    }

    fn wakes_config(&self, url: &str) -> Result<Config, Error> {
        let mut config = Config::new(url).map_err(|error| match error {
            Error::Invalid { value, allowed, .. } => Error::invalid("--wakes-url", value, allowed),
            other => other,
        })?;
        if config.is_tls() {
            config.tls = self.tls.clone();
        }
        Ok(config)
    }

    fn timing(&self) -> Result<Option<Requests>, Error> {
        let until = self.duration.filter(Duration::is_zero);
        if until.is_some() || self.duration > Some(MAX_DURATION) {
            let allowed = "more than 0 and at most 24h";
            return Err(Error::invalid("--duration", "0", allowed));
        }
        if let Some(file) = &self.trace {
            let replay = Replay {
                speed: self.speed,
                rows: self.trace_row.clone(),
                seed: self.seed,
                until: self.duration,
            };
            let trace = Trace::read(file, replay)?;
            let most = usize::try_from(MOST_REQUESTS).unwrap_or(usize::MAX);
            if trace.due().take(most + 1).count() > most {
                let allowed = format!("at most {MOST_REQUESTS} requests");
                return Err(Error::invalid("--trace", trace.file(), allowed));
            }
            return Ok(Some(Requests::Trace(trace)));
        }
        let Some(rate) = self.rate else {
            return Ok(None);
        };
        let length = self.duration.unwrap_or(Duration::from_mins(1));
        #[expect(clippy::cast_precision_loss, reason = "a million is no large number")]
        if rate.per_second() * length.as_secs_f64() > MOST_REQUESTS as f64 {
            let allowed = format!("at most {MOST_REQUESTS} requests in all of --duration");
            return Err(Error::invalid("--rate", rate.to_string(), allowed));
        }
        let arrivals = self.arrivals;
        Ok(Some(Requests::Rate {
            rate,
            length,
            arrivals,
        }))
    }
}

fn parse_share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok();
    share
        .filter(|share| (0.000_1..=1.0).contains(share))
        .ok_or_else(|| "a share from 0.0001 to 1".into())
}

#[cfg(test)]
mod tests {
    use crate::args::{Args, Command};
    use clap::Parser;

    use super::*;

    fn plan(flags: &str) -> Result<Plan, String> {
        let words = ["rouse-load", "cold"].into_iter().chain(flags.split(' '));
        let args = Args::try_parse_from(words).map_err(|error| error.to_string())?;
        let Some(Command::Cold(args)) = args.command else {
            panic!("it is this command")
        };
        args.plan().map_err(|error| error.to_string())
    }

    #[test]
    fn targets_are_called_as_they_are_named_or_by_their_host() {
        for (text, name, url) in [
            ("iris=http://a:80/x?y=z", "iris", "http://a:80/x?y=z"),
            ("http://a:80/x?y=z", "a:80", "http://a:80/x?y=z"),
            ("http://a?y=z", "a", "http://a?y=z"),
        ] {
            let target: Target = text.parse().unwrap();
            assert_eq!((&*target.name, &*target.url), (name, url));
        }
    }

    #[test]
    fn each_mode_has_what_it_needs() {
        for flags in [
            "--target http://a/ --idle 5s",
            "--target http://a/ --deployment n/d --scale",
            "--mode burst --target a=http://a/ --target b=http://a/ --deployment n/a --deployment n/b",
            "--mode storm --target http://a/ --idle 5s --at-once 100",
            "--mode rate --target http://a/ --idle 5s --rate 2 --cold-share 0.1 --warm http://b/",
            "--target http://a/ --idle 5s --wakes-url http://c/debug/wakes --workload n/w",
        ] {
            let plan = plan(flags).unwrap_or_else(|error| panic!("{flags}: {error}"));
            assert!(!plan.targets.is_empty());
        }
    }

    #[test]
    fn tls_is_for_those_who_are_reached_over_it() {
        let both = "--target a=https://a/ --target b=http://b/ --idle 5s --tls-insecure";
        let targets = plan(both).unwrap().targets;
        let insecure: Vec<_> = targets.iter().map(|aim| aim.config.tls.insecure).collect();
        assert_eq!(insecure, [true, false]);
        let error = plan("--target http://b/ --idle 5s --tls-insecure").unwrap_err();
        assert!(error.starts_with("--tls-insecure"), "{error}");
    }

    #[test]
    fn what_makes_no_sense_names_flag_and_value() {
        for (flags, flag, says) in [
            ("--target https:// --idle 5s", "--target", "https://"),
            ("--target http://a/", "--idle", "--mode single"),
            (
                "--target http://a/ --idle 1s --deployment a",
                "--deployment",
                "'a'",
            ),
            (
                "--target a=http://a/ --target b=http://a/ --deployment n/a",
                "--deployment",
                "2",
            ),
            (
                "--target http://a/ --target http://a/x --idle 1s",
                "--target",
                "different names",
            ),
            ("--target http://a/ --mode rate --idle 1s", "--rate", "none"),
            (
                "--target http://a/ --mode rate --idle 1s --rate 5 --cold-share 0.5",
                "--warm",
                "none",
            ),
            (
                "--target http://a/ --mode rate --idle 1s --rate 1000 --duration 1h",
                "--rate",
                "1000000 requests",
            ),
            (
                "--target http://a/ --idle 1s --mode rate --cold-share 2",
                "--cold-share",
                "'2'",
            ),
            ("--target http://a/ --mode trace", "--trace", "none"),
            (
                "--target http://a/ --idle 1s --duration 5s",
                "--duration",
                "--mode single",
            ),
            ("--target http://a/ --idle 1s -n 0", "--wakes", "0"),
            (
                "--target http://a/ --idle 1s --wakes-url x --workload n/w",
                "--wakes-url",
                "x",
            ),
            (
                "--target http://a/ --idle 1s --wakes-url http://b/",
                "--workload",
                "none",
            ),
            (
                "--target http://a/ --idle 1s --at-once 5",
                "--at-once",
                "--mode single",
            ),
            (
                "--target http://a/ --idle 1s --mode storm --at-once 10000 -n 10000",
                "--wakes",
                "100000000",
            ),
            (
                "--target http://a/ --mode rate --idle 1s --rate 5 --warm ftp://b/",
                "--warm",
                "ftp",
            ),
            (
                "--target http://a/ --idle 1s --body-file /nonexistent",
                "--body-file",
                "/nonexistent",
            ),
            ("--idle 1s", "--target", "required"),
        ] {
            let error = plan(flags).expect_err(flags);
            assert!(
                error.contains(flag) && error.contains(says),
                "{flags}: {error}"
            );
        }
    }
}
