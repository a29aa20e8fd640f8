//! Everything a run needs to know, and the check that it makes sense before anything is sent.

use crate::check::Check;
use crate::error::Error;
use crate::journal::Journal;
use crate::payload::Payload;
use crate::plan::{Arrivals, Schedule, Stage, Timing};
use crate::protocol::Protocol;
use crate::ready::Ready;
use crate::tls::{Connector, Tls};
use crate::unit::{MAX_DURATION, Rate};
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, Method, Uri};
use std::num::NonZero;
use std::thread::available_parallelism;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The request header that carries the unique id while a journal is kept.
pub const REQUEST_ID: &str = "x-request-id";
/// The response header by which a server names itself.
pub const SERVED_BY: &str = "x-served-by";
/// More connections than this to one address run out of client ports.
pub const MAX_CONNECTIONS: usize = 50_000;

/// How far ahead a start may be: whatever is further is a slip, or another unit.
const FURTHEST_START: Duration = Duration::from_hours(1);

/// How requests are issued.
#[derive(Clone, Debug, PartialEq)]
pub enum Load {
    /// Each connection sends its next request when the last one is answered. Finds maxima; hides queueing.
    Closed(Limit),
    /// Requests are due by a schedule, whatever the server does; latency counts from the planned instant.
    Open(Schedule),
}

/// When a closed loop ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// No request starts after this long; those in flight are still awaited.
    Duration(Duration),
    /// Exactly this many requests are sent.
    Requests(u64),
}

/// Which responses are good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expect {
    /// Any status from 200 to 299.
    #[default]
    Success,
    /// This status only.
    Status(u16),
}

impl Expect {
    pub(crate) fn accepts(self, status: u16) -> bool {
        match self {
            Self::Success => (200..300).contains(&status),
            Self::Status(wanted) => status == wanted,
        }
    }
}

/// What to send, where, how, and for how long.
#[derive(Clone, Debug)]
pub struct Config {
    /// An absolute `http` or `https` URL, or `ws` or `wss` for WebSocket.
    pub url: Uri,
    /// Closed or open loop, with its end.
    pub load: Load,
    /// Connections, each with at most one request in flight; so also the bound on requests in flight.
    pub connections: usize,
    /// Threads that send, each with its share of the connections. Default: one per core, at most one per connection.
    pub threads: usize,
    /// Request method.
    pub method: Method,
    /// Further request headers. `Host` follows from the URL unless it is set here.
    pub headers: HeaderMap,
    /// Request bodies.
    pub body: Payload,
    /// What an exchange is.
    pub protocol: Protocol,
    /// HTTP/2 instead of HTTP/1.1: with prior knowledge (h2c), or by agreement in the handshake of TLS.
    pub http2: bool,
    /// What TLS trusts and shows; for `https` only.
    pub tls: Tls,
    /// From sending (or connecting for) a request to the end of its response.
    pub timeout: Duration,
    /// Load sent before the measurement, kept out of the report.
    pub warmup: Duration,
    /// Which responses are good.
    pub expect: Expect,
    /// What the bodies of these have to have, all of it.
    pub checks: Vec<Check>,
    /// Requests after which a connection is closed and another one made; none for no limit.
    pub connection_requests: Option<u64>,
    /// Open loop: requests that may wait for a free connection; further ones are dropped and counted.
    pub max_waiting: usize,
    /// Where the outcome of each request is told, if anywhere.
    pub journal: Option<Journal>,
    /// Whether, and for what, it is waited before the load.
    pub ready: Option<Ready>,
    /// When the load is to begin, if not at once: so that several load testers begin together.
    pub start_at: Option<SystemTime>,
}

impl Config {
    /// A closed loop of one connection for ten seconds, `GET`, 30 s timeout, no warm-up.
    pub fn new(url: &str) -> Result<Self, Error> {
        let uri = url
            .parse()
            .map_err(|_| Error::invalid("URL", url, URL_ALLOWED))?;
        check_url(&uri)?;
        Ok(Self {
            url: uri,
            load: Load::Closed(Limit::Duration(Duration::from_secs(10))),
            connections: 1,
            threads: available_parallelism().map_or(1, NonZero::get),
            method: Method::GET,
            headers: HeaderMap::new(),
            body: Payload::default(),
            protocol: Protocol::Plain,
            http2: false,
            tls: Tls::default(),
            timeout: Duration::from_secs(30),
            warmup: Duration::ZERO,
            expect: Expect::Success,
            checks: Vec::new(),
            connection_requests: None,
            // At 10,000 requests/s this lets six seconds of load wait; it takes 3 MB.
            max_waiting: 65_536,
            journal: None,
            ready: None,
            start_at: None,
        })
    }

    /// The schedule of an open loop at one rate.
    pub fn steady(rate: Rate, length: Duration, arrivals: Arrivals, seed: u64) -> Load {
        Load::Open(Schedule {
            arrivals,
            seed,
            ..Schedule::of_stages(vec![Stage::constant(length, rate)])
        })
    }

    /// Says the first thing that makes no sense, if any does.
    pub fn check(&self) -> Result<(), Error> {
        check_url(&self.url)?;
        if let (false, Some((flag, value))) = (self.is_tls(), self.tls.given()) {
            return Err(Error::invalid(flag, value, "only with an https or wss URL"));
        }
        check_count("--connections", self.connections, MAX_CONNECTIONS)?;
        check_count("--threads", self.threads, 1_024)?;
        if self.max_waiting > 10_000_000 {
            return Err(Error::invalid(
                "--max-waiting",
                self.max_waiting.to_string(),
                "0 to 10000000 requests",
            ));
        }
        if self.timeout.is_zero() || self.timeout > Duration::from_hours(1) {
            return Err(Error::invalid(
                "--timeout",
                format!("{:?}", self.timeout),
                "more than 0 and at most 1h",
            ));
        }
        if self.warmup > MAX_DURATION {
            return Err(Error::invalid(
                "--warmup",
                format!("{:?}", self.warmup),
                "at most 24h",
            ));
        }
        match &self.load {
            Load::Closed(Limit::Duration(length)) if length.is_zero() || *length > MAX_DURATION => {
                Err(Error::invalid(
                    "--duration",
                    format!("{length:?}"),
                    "more than 0 and at most 24h",
                ))
            }
            Load::Closed(Limit::Requests(0)) => Err(Error::invalid("--requests", "0", "1 or more")),
            Load::Open(schedule) => schedule.check().map_err(|allowed| match &schedule.timing {
                Timing::Stages(stages) => Error::invalid("--stages", typed(stages), allowed),
                Timing::Trace(trace) => Error::invalid("--trace", trace.file(), allowed),
            }),
            Load::Closed(_) => Ok(()),
        }?;
        if self.connection_requests == Some(0) {
            return Err(Error::invalid("--connection-requests", "0", "1 or more"));
        }
        self.ready.as_ref().map_or(Ok(()), Ready::check)?;
        self.check_start()?;
        self.protocol.check(self)?;
        self.check_headers()
    }

    /// A run that begins too late is not part of what the others measure, and must not look as if it were.
    fn check_start(&self) -> Result<(), Error> {
        let Some(start) = self.start_at else {
            return Ok(());
        };
        let ahead = start.duration_since(SystemTime::now());
        if ahead.is_ok_and(|ahead| ahead <= FURTHEST_START) {
            return Ok(());
        }
        let since = start.duration_since(UNIX_EPOCH).unwrap_or_default();
        let allowed = "a moment that is still to come, and at most an hour ahead";
        Err(Error::invalid(
            "--start-at",
            since.as_secs_f64().to_string(),
            allowed,
        ))
    }

    fn check_headers(&self) -> Result<(), Error> {
        for name in [TRANSFER_ENCODING, CONNECTION, CONTENT_LENGTH] {
            if self.headers.contains_key(&name) {
                return Err(Error::invalid(
                    "--header",
                    name.as_str(),
                    "framing headers are set by the tool itself",
                ));
            }
        }
        if self.http2 && self.headers.contains_key(HOST) {
            return Err(Error::invalid(
                "--header",
                "host",
                "with --http2 the authority comes from the URL",
            ));
        }
        if self.journal.is_some() && self.headers.contains_key(REQUEST_ID) {
            return Err(Error::invalid(
                "--header",
                REQUEST_ID,
                "the journal sets it to a unique id per request",
            ));
        }
        Ok(())
    }

    /// Host and port to connect to.
    pub(crate) fn authority(&self) -> (&str, u16) {
        let host = self.url.host().unwrap_or_default();
        let default = if self.is_tls() { 443 } else { 80 };
        (
            host.trim_start_matches('[').trim_end_matches(']'),
            self.url.port_u16().unwrap_or(default),
        )
    }

    /// Whether connections have TLS.
    pub(crate) fn is_tls(&self) -> bool {
        matches!(self.url.scheme_str(), Some("https" | "wss"))
    }

    /// How they get it, if they do. Reads the files.
    pub(crate) fn connector(&self) -> Result<Option<Connector>, Error> {
        let (host, _) = self.authority();
        let make = || self.tls.connector(host, self.http2);
        self.is_tls().then(make).transpose()
    }
}

const URL_ALLOWED: &str = "an absolute http or https URL, such as http://127.0.0.1:8080/path";

/// Stages as they are typed, the first few of many.
fn typed(stages: &[Stage]) -> String {
    let text: Vec<_> = stages.iter().take(10).map(ToString::to_string).collect();
    text.join(",")
}

fn check_url(url: &Uri) -> Result<(), Error> {
    // Whether a protocol goes with one is its own business: see `Protocol::check`.
    let scheme = ["http", "https", "ws", "wss"].map(Some);
    let plain =
        scheme.contains(&url.scheme_str()) && url.host().is_some_and(|host| !host.is_empty());
    // `Uri` keeps user:password@ in the authority, where it would be sent as the host.
    let bare = url
        .authority()
        .is_some_and(|authority| !authority.as_str().contains('@'));
    let port = url.port().is_none_or(|port| port.as_u16() != 0);
    if plain && bare && port {
        Ok(())
    } else {
        Err(Error::invalid("URL", url.to_string(), URL_ALLOWED))
    }
}

fn check_count(setting: &'static str, value: usize, most: usize) -> Result<(), Error> {
    if (1..=most).contains(&value) {
        Ok(())
    } else {
        Err(Error::invalid(
            setting,
            value.to_string(),
            format!("1 to {most}"),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::{Config, Limit, Load};
    use crate::journal::Journal;
    use http::{HeaderName, HeaderValue};
    use std::time::Duration;

    fn complaint(change: impl FnOnce(&mut Config)) -> String {
        let mut config = Config::new("http://127.0.0.1:8080/work").unwrap();
        change(&mut config);
        config
            .check()
            .expect_err("the change makes no sense")
            .to_string()
    }

    #[test]
    fn the_defaults_make_sense() {
        Config::new("http://[::1]:8080/work?x=1")
            .unwrap()
            .check()
            .unwrap();
    }

    #[test]
    fn bad_urls_are_named_with_what_is_allowed() {
        for url in [
            "",
            "/path",
            "ftp://host/",
            "https://",
            "http://",
            "http://a b/",
            "http://user:pw@host/",
            "host:80",
        ] {
            let error = Config::new(url).expect_err(url).to_string();
            assert!(
                error.starts_with("URL: ") && error.contains("is not allowed"),
                "{error}"
            );
        }
    }

    #[test]
    fn settings_without_sense_are_named() {
        let id = HeaderName::from_static(super::REQUEST_ID);
        for (flag, message) in [
            ("--connections", complaint(|c| c.connections = 0)),
            ("--connections", complaint(|c| c.connections = 1_000_000)),
            ("--threads", complaint(|c| c.threads = 0)),
            ("--timeout", complaint(|c| c.timeout = Duration::ZERO)),
            (
                "--duration",
                complaint(|c| c.load = Load::Closed(Limit::Duration(Duration::ZERO))),
            ),
            (
                "--requests",
                complaint(|c| c.load = Load::Closed(Limit::Requests(0))),
            ),
            (
                "--header",
                complaint(|c| {
                    c.headers.insert(id, HeaderValue::from_static("mine"));
                    c.journal = Some(Journal::new(|_| ()));
                }),
            ),
        ] {
            assert!(message.starts_with(flag), "{message}");
        }
    }
}
