//! The command line and environment of `rouse-queue-proxy`, and what they mean.

use std::{net::SocketAddr, time::Duration};

use clap::Parser;
use http::HeaderMap;
use shared::{
    TargetId,
    http::{body::Pace, probe::Probe, sanitize::TrustedProxies, tls::TlsError},
};

use crate::{
    bounce,
    config::{Config, Port},
    readiness::Readiness,
    relay::{HostPort, InvalidHostPort},
    timeouts::Timeouts,
};

/// The Rouse sidecar: admits requests to one model, counts them to the last byte, and knows when it
/// is ready.
///
/// It stands in front of one model server. At most --container-concurrency requests are at the
/// model at once; others wait in order, and beyond --queue-depth they are answered 503 with
/// Retry-After. Requests that arrive while the model starts wait for it. On SIGTERM it drains: what
/// is open ends, idle connections are closed, then it exits.
///
/// Example: in front of a model on port 8080, ten requests at once:
///
///     rouse-queue-proxy --listen 127.0.0.1:8012 --upstream 127.0.0.1:8080 --container-concurrency 10
///
/// Exit status: 0 after a drain, 2 for a flag that cannot be, a file that cannot be used, or a port
/// that cannot be had.
#[allow(clippy::struct_excessive_bools, reason = "each is a flag")]
#[derive(Debug, Parser)]
#[command(
    name = "rouse-queue-proxy",
    version,
    max_term_width = 100,
    verbatim_doc_comment
)]
pub struct Args {
    /// Address and port for requests. May be repeated: the n-th --listen belongs to the n-th --upstream.
    #[arg(
        long,
        env = "ROUSE_LISTEN",
        required = true,
        value_delimiter = ',',
        value_name = "ADDR:PORT"
    )]
    listen: Vec<SocketAddr>,

    /// Address and port of the model. The n-th belongs to the n-th --listen.
    #[arg(
        long,
        env = "ROUSE_UPSTREAM",
        required = true,
        value_delimiter = ',',
        value_name = "ADDR:PORT"
    )]
    upstream: Vec<SocketAddr>,

    /// Requests at the model at once; 0 = unlimited.
    #[arg(long, env = "ROUSE_CONTAINER_CONCURRENCY", default_value_t = 0, allow_hyphen_values = true, value_parser = clap::value_parser!(u32).range(0..=1_000), value_name = "N")]
    container_concurrency: u32,

    /// Requests that may wait for a slot [default: 10 x concurrency, or 1000 if unlimited].
    #[arg(long, env = "ROUSE_QUEUE_DEPTH", value_name = "N")]
    queue_depth: Option<usize>,

    /// Seconds that a request may wait for a slot before it is answered 504.
    #[arg(long, env = "ROUSE_QUEUE_TIMEOUT", default_value = "300", value_parser = seconds, value_name = "SECONDS")]
    queue_timeout: Duration,

    /// Address and port for activators: admission is explicit there and the pod's identity is checked.
    #[arg(long, env = "ROUSE_ACTIVATOR_LISTEN", value_name = "ADDR:PORT")]
    activator_listen: Option<SocketAddr>,

    /// Address and port for /stat (the autoscaler), /metrics (Prometheus), /livez and /readyz.
    #[arg(long, env = "ROUSE_STATS_LISTEN", value_name = "ADDR:PORT")]
    stats_listen: Option<SocketAddr>,

    /// Address and port of the pod's life cycle hooks, below /TOKEN/. Needs --lifecycle-token.
    #[arg(
        long,
        env = "ROUSE_LIFECYCLE_LISTEN",
        requires = "lifecycle_token",
        value_name = "ADDR:PORT"
    )]
    lifecycle_listen: Option<SocketAddr>,

    /// Secret first part of the life cycle paths: whoever knows it can drain the pod.
    #[arg(
        long,
        env = "ROUSE_LIFECYCLE_TOKEN",
        hide_env_values = true,
        value_parser = clap::builder::NonEmptyStringValueParser::new(),
        value_name = "TOKEN"
    )]
    lifecycle_token: Option<String>,

    /// Host and port at which the workload's activators can always be reached: requests that would wait here for long go there. May be
    /// repeated: the n-th belongs to the n-th --listen; - for none. Never the address of a queue-proxy. Requests go there without TLS.
    #[arg(
        long,
        env = "ROUSE_BOUNCE_TO",
        conflicts_with = "certificate",
        value_delimiter = ',',
        allow_hyphen_values = true,
        value_parser = bounce_target,
        value_name = "HOST:PORT"
    )]
    bounce_to: Vec<BounceTarget>,

    /// Requests that wait here for a slot before others are bounced [default: the concurrency].
    #[arg(long, env = "ROUSE_BOUNCE_DEPTH", value_name = "N")]
    bounce_depth: Option<usize>,

    /// Requests at the model above which others are bounced if the concurrency is unlimited; 0 = no such limit.
    #[arg(
        long,
        env = "ROUSE_SOFT_LIMIT",
        default_value_t = 0,
        allow_hyphen_values = true,
        value_name = "N"
    )]
    soft_limit: u32,

    /// Path that answers 200 to 399 when the model is ready [default: its port takes a connection].
    #[arg(long, env = "ROUSE_READY_PATH", value_parser = path, value_name = "PATH")]
    ready_path: Option<String>,

    /// The model's readiness probe: a Kubernetes Probe as JSON, with httpGet, tcpSocket or grpc and ports as numbers.
    #[arg(long, env = "ROUSE_READINESS_PROBE", value_parser = Readiness::parse, conflicts_with = "ready_path", value_name = "JSON")]
    readiness_probe: Option<Readiness>,

    /// Path whose requests are no load, such as a health check. May be repeated.
    #[arg(long, env = "ROUSE_PROBE_PATH", value_parser = path, value_delimiter = ',', value_name = "PATH")]
    probe_path: Vec<String>,

    /// Networks whose X-Forwarded-* headers are believed, comma-separated [default: none, they are replaced].
    #[arg(long, env = "ROUSE_TRUSTED_PROXIES", value_parser = TrustedProxies::parse, value_name = "CIDRS")]
    trusted_proxies: Option<TrustedProxies>,

    /// Workload that the pod belongs to, for labels.
    #[arg(
        long,
        env = "ROUSE_TARGET",
        default_value = "default/model",
        value_name = "NAMESPACE/NAME"
    )]
    target: TargetId,

    /// UID of the pod, which activators must state.
    #[arg(long, env = "ROUSE_POD_UID", default_value = "", value_name = "UID")]
    pod_uid: String,

    /// Longest time a drain may take, in seconds.
    #[arg(long, env = "ROUSE_GRACE", default_value = "300", value_parser = seconds, value_name = "SECONDS")]
    grace: Duration,

    /// Seconds, give or take a tenth, after which a client's connection ends with its next answer; 0 = no limit. New replicas get
    /// their share of kept connections by it. Those of activators have no limit.
    #[arg(long, env = "ROUSE_MAX_CONNECTION_AGE", default_value = "30", value_parser = seconds, value_name = "SECONDS")]
    max_connection_age: Duration,

    /// Longest time of a whole request in seconds, from the moment it goes to the model; 0 = no limit. Then it is answered 504, or
    /// its answer is broken off.
    #[arg(long, env = "ROUSE_REQUEST_TIMEOUT", default_value = "0", value_parser = seconds, value_name = "SECONDS")]
    request_timeout: Duration,

    /// Longest time in seconds until the model begins its answer; 0 = no limit. Then it is answered 504.
    #[arg(long, env = "ROUSE_RESPONSE_START_TIMEOUT", default_value = "0", value_parser = seconds, value_name = "SECONDS")]
    response_start_timeout: Duration,

    /// Longest silence of the model in seconds, before and in its answer; 0 = no limit. Then it is answered 504, or its answer is
    /// broken off. A WebSocket ends when neither side has sent anything for so long.
    #[arg(long, env = "ROUSE_IDLE_TIMEOUT", default_value = "0", value_parser = seconds, value_name = "SECONDS")]
    idle_timeout: Duration,

    /// Longest time in seconds in which a client may take nothing of an answer that is there for it; 0 = no limit. Then it is cut, and
    /// its slot is free. It must take about 1 KB/s to be seen to read.
    #[arg(long, env = "ROUSE_SEND_TIMEOUT", default_value = "60", value_parser = seconds, value_name = "SECONDS")]
    send_timeout: Duration,

    /// Leave out of answers the rouse-timing header, and what is added to Server-Timing.
    #[arg(long, env = "ROUSE_NO_TIMING_HEADER")]
    no_timing_header: bool,

    /// Answer errors of Rouse's own in the form of OpenAI's, as JSON, where the path begins with /v1/.
    #[arg(long, env = "ROUSE_OPENAI_ERRORS")]
    openai_errors: bool,

    /// Bytes a second that a client has to send of a request body while it is waited for, after 30 s of grace; 0 = no limit. Less is
    /// answered 408. Bodies of gRPC and Connect have no limit.
    #[arg(long, env = "ROUSE_MIN_BODY_RATE", default_value_t = 240, value_parser = clap::value_parser!(u32).range(0..=1_000_000_000), value_name = "BYTES")]
    min_body_rate: u32,

    /// Threads that serve requests; 0 = one per CPU. One carries some 30,000 requests a second, which few models do.
    #[arg(long, env = "ROUSE_WORKER_THREADS", default_value_t = 1, value_parser = clap::value_parser!(u16).range(0..=256), value_name = "N")]
    pub worker_threads: u16,

    #[command(flatten)]
    tls: flags::Listeners,

    #[command(flatten)]
    upstream_tls: flags::Upstream,

    #[command(flatten)]
    pub recording: flags::Recording,

    /// Log as JSON, one object a line. The level is set by `RUST_LOG`.
    #[arg(long, env = "ROUSE_LOG_JSON")]
    pub log_json: bool,
}

/// A value of --bounce-to.
#[derive(Clone, Debug)]
struct BounceTarget(Option<HostPort>);

/// Flags that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum InvalidArgs {
    /// A request port without a model, or the other way round.
    #[error(
        "--listen has {listen} addresses and --upstream has {upstream}: each --listen needs its --upstream"
    )]
    Upstream {
        /// How many there are.
        listen: usize,
        /// How many there are.
        upstream: usize,
    },
    /// Some request ports have a target, and nobody knows which.
    #[error(
        "--listen has {listen} addresses and --bounce-to has {bounce_to}: each --listen needs its --bounce-to, - for none, or none has one"
    )]
    BounceTo {
        /// How many there are.
        listen: usize,
        /// How many there are.
        bounce_to: usize,
    },
    /// A file that they name cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl Args {
    /// What was typed, as a checked configuration. Reads the files that it names.
    ///
    /// # Errors
    /// When flags contradict each other, or a file cannot be used.
    pub fn config(&self) -> Result<Config, InvalidArgs> {
        let (listen, upstream) = (self.listen.len(), self.upstream.len());
        let ports: Vec<Port> = self
            .listen
            .iter()
            .zip(&self.upstream)
            .map(|(&listen, &upstream)| Port { listen, upstream })
            .collect();
        let (Some(&first), true) = (ports.first(), listen == upstream) else {
            return Err(InvalidArgs::Upstream { listen, upstream });
        };
        let bounce_to = self.bounce_to.len();
        if ![0, listen].contains(&bounce_to) {
            return Err(InvalidArgs::BounceTo { listen, bounce_to });
        }
        let mut config = Config::new(
            self.target.clone(),
            self.pod_uid.clone(),
            first,
            self.container_concurrency,
        );
        config.ports = ports;
        config.activator = self.activator_listen;
        config.stats = self.stats_listen;
        config.lifecycle = self.lifecycle_listen.zip(self.lifecycle_token.clone());
        config.queue_depth = self.queue_depth.unwrap_or(config.queue_depth);
        config.queue_timeout = self.queue_timeout;
        config.bounce_to = self.bounce_to.iter().map(|to| to.0.clone()).collect();
        config.bounce = bounce::Rule {
            depth: self.bounce_depth.unwrap_or(config.bounce.depth),
            soft_limit: Some(self.soft_limit).filter(|soft| *soft > 0),
        };
        config.probe_paths.clone_from(&self.probe_path);
        config.trusted = self.trusted_proxies.clone().unwrap_or_default();
        config.grace = self.grace;
        let unless_zero = |time: Duration| Some(time).filter(|time| !time.is_zero());
        config.max_connection_age = unless_zero(self.max_connection_age);
        config.serve.send = unless_zero(self.send_timeout);
        config.min_pace = Pace::at_least(self.min_body_rate);
        config.timeouts = Timeouts {
            request: unless_zero(self.request_timeout),
            response_start: unless_zero(self.response_start_timeout),
            idle: unless_zero(self.idle_timeout),
        };
        config.tls = self.tls.load()?;
        config.client.tls = self.upstream_tls.load()?;
        config.timing_header = !self.no_timing_header;
        config.openai_errors = self.openai_errors;
        if let Some(readiness) = &self.readiness_probe {
            config.model = readiness.config(first.upstream);
        }
        if let Some(path) = &self.ready_path {
            config.model.probe = Probe::Http {
                path: path.clone(),
                headers: HeaderMap::new(),
                https: config.client.tls.is_some(),
            };
        }
        Ok(config)
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let expected = "expected seconds from 0 to 86400";
    let value: f64 = text.parse().map_err(|_| expected.to_owned())?;
    if (0.0..=86_400.0).contains(&value) {
        Ok(Duration::from_secs_f64(value))
    } else {
        Err(expected.to_owned())
    }
}

fn bounce_target(text: &str) -> Result<BounceTarget, InvalidHostPort> {
    if text == "-" {
        return Ok(BounceTarget(None));
    }
    text.parse().map(|to| BounceTarget(Some(to)))
}

/// Bytes of a path, with its query.
const LONGEST_PATH: usize = 2_048;

/// A path as the annotations have it, from which the webhook takes it.
fn path(text: &str) -> Result<String, String> {
    let allowed = |b: u8| b.is_ascii_graphic() && !b"\"#<>`".contains(&b);
    let valid = text.starts_with('/') && text.len() <= LONGEST_PATH && text.bytes().all(allowed);
    if valid {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "expected an absolute path such as /ready, of at most {LONGEST_PATH} visible characters of ASCII other than \" # < > `"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(flags: &str) -> Result<Config, String> {
        let args = std::iter::once("rouse-queue-proxy").chain(flags.split_whitespace());
        let args = Args::try_parse_from(args).map_err(|e| e.to_string())?;
        args.config().map_err(|e| e.to_string())
    }

    #[test]
    fn pairs_listeners_with_models() {
        let config =
            parse("--listen 127.0.0.1:1,127.0.0.1:2 --upstream 127.0.0.1:3 --upstream 127.0.0.1:4")
                .unwrap();
        assert_eq!(config.ports[1].upstream.port(), 4);
        assert_eq!(config.queue_depth, 1_000);
    }

    #[test]
    fn requests_are_bounced_only_where_it_was_said_where_to() {
        let base = "--listen 127.0.0.1:1,127.0.0.1:2 --upstream 127.0.0.1:3,127.0.0.1:4 \
                    --container-concurrency 3";
        let config = parse(base).unwrap();
        assert!(config.bounce_to.is_empty());
        let rule = |depth, soft_limit| bounce::Rule { depth, soft_limit };
        assert_eq!(config.bounce, rule(3, None));
        let config = parse(&format!(
            "{base} --bounce-to -,a-rouse.b.svc:80 --bounce-depth 0 --soft-limit 20"
        ));
        let config = config.unwrap();
        let target = "a-rouse.b.svc:80".parse().unwrap();
        assert_eq!(config.bounce_to, [None, Some(target)]);
        assert_eq!(config.bounce, rule(0, Some(20)));
    }

    #[test]
    fn a_connection_s_age_is_limited_unless_it_is_0() {
        let base = "--listen 127.0.0.1:1 --upstream 127.0.0.1:2";
        let age = |more: &str| parse(&format!("{base} {more}")).unwrap().max_connection_age;
        assert_eq!(age(""), Some(Duration::from_secs(30)));
        assert_eq!(
            age("--max-connection-age 2.5"),
            Some(Duration::from_millis(2_500))
        );
        assert_eq!(age("--max-connection-age 0"), None);
    }

    #[test]
    fn the_model_has_all_the_time_it_wants_unless_it_is_limited() {
        let base = "--listen 127.0.0.1:1 --upstream 127.0.0.1:2";
        let timeouts = |more: &str| parse(&format!("{base} {more}")).unwrap().timeouts;
        assert_eq!(timeouts(""), Timeouts::default());
        assert_eq!(
            timeouts("--request-timeout 600 --response-start-timeout 0.5 --idle-timeout 0"),
            Timeouts {
                request: Some(Duration::from_mins(10)),
                response_start: Some(Duration::from_millis(500)),
                idle: None,
            }
        );
        let wrong = format!("{base} --idle-timeout -1");
        assert!(parse(&wrong).is_err());
    }

    #[test]
    fn a_path_is_taken_if_the_annotations_take_it_and_can_be_asked_for() {
        let asked = |key: &str, path: &str| {
            let annotations = [(key.to_owned(), path.to_owned())].into();
            let config = autoscaler_core::ClusterConfig::default();
            autoscaler_core::annotations::parse(&annotations, &config).is_ok()
        };
        let odd = ["", "ready", "/\u{e9}", "/a b", "/v2?ready=1", "*", "?a"].map(str::to_owned);
        let long = [2_047, 2_048].map(|n| format!("/{}", "x".repeat(n)));
        let signs = (0..=127).flat_map(|b| {
            let sign = char::from(b);
            [format!("/{sign}"), format!("/a?{sign}")]
        });
        let mut taken = 0;
        for text in signs.chain(odd).chain(long) {
            let is_path = path(&text).is_ok();
            assert_eq!(is_path, asked("rouse.dev/ready-path", &text), "{text:?}");
            // A list may have blanks around its parts, which are not handed on, and an empty one names nothing.
            let part = text.trim();
            assert!(
                part.is_empty() || path(part).is_ok() || !asked("rouse.dev/probe-paths", part),
                "{text:?}"
            );
            assert!(
                !is_path || text.parse::<http::uri::PathAndQuery>().is_ok(),
                "{text:?}"
            );
            taken += usize::from(is_path);
        }
        // 94 visible signs but five, in a path and in a query; one with both, and one of just the length.
        assert_eq!(taken, 2 * 89 + 2);
    }

    #[test]
    fn refuses_what_cannot_be_and_says_what_can() {
        let base = "--listen 127.0.0.1:1 --upstream 127.0.0.1:2 ";
        for (flags, says) in [
            ("--listen 127.0.0.1:1", "--upstream"),
            (
                "--listen 127.0.0.1:1,127.0.0.1:2 --upstream 127.0.0.1:3",
                "each --listen needs its --upstream",
            ),
            ("--listen nowhere --upstream 127.0.0.1:2", "nowhere"),
            (
                &format!("{base}--container-concurrency -1"),
                "container-concurrency",
            ),
            (&format!("{base}--queue-timeout NaN"), "from 0 to 86400"),
            (
                &format!("{base}--max-connection-age 86401"),
                "from 0 to 86400",
            ),
            (&format!("{base}--ready-path ready"), "absolute path"),
            (&format!("{base}--readiness-probe {{}}"), "exactly one"),
            (
                &format!("{base}--trusted-proxies 10.0.0.0/99"),
                "10.0.0.0/99",
            ),
            (
                &format!("{base}--lifecycle-listen 127.0.0.1:5"),
                "--lifecycle-token",
            ),
            (&format!("{base}--target a/b/c"), "NAMESPACE/NAME"),
            (&format!("{base}--bounce-to a.b.svc"), "HOST:PORT"),
            (
                &format!("{base}--bounce-to a:1,b:2"),
                "each --listen needs its --bounce-to",
            ),
            (&format!("{base}--soft-limit -1"), "soft-limit"),
            (&format!("{base}--bounce-depth x"), "bounce-depth"),
            (&format!("{base}--tls-certificate a"), "--tls-key"),
            (
                &format!("{base}--tls-certificate a --tls-key b --bounce-to c:1"),
                "cannot be used with",
            ),
            (&format!("{base}--tls-mode permissive"), "--tls-certificate"),
            (
                &format!("{base}--tls-certificate a --tls-key b --tls-mode any"),
                "strict, permissive",
            ),
            (
                &format!("{base}--tls-certificate a --tls-key b --tls-protocols h3"),
                "http/1.1, h2",
            ),
            (
                &format!("{base}--tls-certificate a --tls-key b --tls-client-name c"),
                "--tls-client-ca",
            ),
            (
                &format!(
                    "{base}--tls-certificate a --tls-key b --tls-client-ca c --tls-client-name spiffe://A/b"
                ),
                "a DNS name, or spiffe://",
            ),
            (&format!("{base}--upstream-tls-ca a"), "--upstream-tls-name"),
            (
                &format!("{base}--upstream-tls-ca a --upstream-tls-name b --upstream-tls-key c"),
                "--upstream-tls-certificate",
            ),
            (
                &format!("{base}--tls-certificate /none.crt --tls-key /none.key"),
                "--tls-certificate /none.crt: cannot be read: No such file",
            ),
            (
                &format!("{base}--request-log {{methd}}"),
                "no field \"methd\": expected one of time, program",
            ),
            (&format!("{base}--request-log-query"), "--request-log"),
        ] {
            let error = parse(flags).unwrap_err();
            assert!(error.contains(says), "{flags}: {error}");
        }
    }
}
