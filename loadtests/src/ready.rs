//! Waiting until the target is ready, before anything is sent that counts.
//!
//! Without a path that is a connection that is accepted. With one it is an answer of 200 to 299 to a `GET` of it, over a
//! connection as the load has them and with its headers. The name is looked up each time: a Service may not be there yet either.
//! Nothing of this is measured but how long it took.

use crate::client::{BodyEnd, Connection, Failure, Order, Stage, Target, Template, Watchdog};
use crate::config::{Config, Expect};
use crate::error::Error;
use crate::listen::Sink;
use crate::payload::Payload;
use crate::protocol::Protocol;
use crate::run::{resolve, template};
use crate::unit::{MAX_DURATION, human};
use http::uri::PathAndQuery;
use http::{Method, Uri};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout_at};

/// Between two tries: short beside any start of a server, and nothing that it would notice.
const PAUSE: Duration = Duration::from_millis(100);

/// A try that has less time than this, as the wait is over, says nothing by its silence.
const SHORT: Duration = Duration::from_secs(1);

/// What to wait for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The longest to wait.
    pub within: Duration,
    /// What is asked for on the host of the URL; a connection is enough if there is none.
    pub path: Option<String>,
}

impl Ready {
    /// Says what makes no sense, if anything does.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.within.is_zero() || self.within > MAX_DURATION {
            let within = format!("{:?}", self.within);
            return Err(Error::invalid(
                "--wait-ready",
                within,
                "more than 0 and at most 24h",
            ));
        }
        self.target().map(drop)
    }

    fn target(&self) -> Result<Option<PathAndQuery>, Error> {
        let Some(path) = &self.path else {
            return Ok(None);
        };
        let parsed = path.parse().ok().filter(|_| path.starts_with('/'));
        let allowed = "a path that begins with /, such as /v2/health/ready";
        parsed
            .map(Some)
            .ok_or_else(|| Error::invalid("--ready-path", path, allowed))
    }
}

/// Waits until the target of `config` is ready, if that is asked for; gives how long it took.
///
/// # Errors
/// If it is not ready in time, with the reason of the last try.
///
/// # Cancel safety
/// Dropping the future ends the wait.
pub(crate) async fn wait(config: &Config) -> Result<Option<Duration>, Error> {
    let Some(ready) = &config.ready else {
        return Ok(None);
    };
    let began = Instant::now();
    let end = began + ready.within;
    let mut probe = probe(config, ready)?;
    let mut kept = None;
    loop {
        let tried_at = Instant::now();
        let deadline = end.min(tried_at + config.timeout);
        let tried = timeout_at(deadline.into(), attempt(config, probe.as_mut(), deadline)).await;
        let reason = match tried {
            Ok(Ok(())) => return Ok(Some(began.elapsed())),
            Ok(Err(reason)) => reason,
            Err(_) => SILENT.to_owned(),
        };
        // What the try before had to say says more than that there was no time left for this one.
        let reason = match kept.take() {
            Some(kept) if reason == SILENT && tried_at + SHORT > end => kept,
            _ => reason,
        };
        if Instant::now() + PAUSE >= end {
            return Err(Error::NotReady {
                url: probe
                    .as_ref()
                    .map_or(&config.url, |probe| &probe.url)
                    .to_string(),
                within: human(ready.within.as_secs_f64()),
                reason,
            });
        }
        kept = Some(reason);
        sleep(PAUSE).await;
    }
}

const SILENT: &str = "no answer in time";

/// A request and its answer, whatever the load is made of.
struct Probe {
    url: Uri,
    template: Template,
    /// Without its addresses, which are looked up each time.
    target: Target,
}

/// What is asked for, if anything is. Files that TLS cannot use show here: waiting would not make them better.
fn probe(config: &Config, ready: &Ready) -> Result<Option<Probe>, Error> {
    let tls = config.connector()?;
    let Some(path) = ready.target()? else {
        return Ok(None);
    };
    let mut parts = config.url.clone().into_parts();
    parts.path_and_query = Some(path);
    let url = Uri::from_parts(parts)
        .map_err(|_| Error::invalid("URL", config.url.to_string(), "a URL with a host"))?;
    let request = Config {
        url: url.clone(),
        method: Method::GET,
        body: Payload::default(),
        // Whether it is there shows in any answer.
        protocol: Protocol::Plain,
        ..config.clone()
    };
    Ok(Some(Probe {
        url,
        template: template(&request)?,
        target: Target {
            addresses: Vec::new(),
            http2: config.http2,
            tls,
            upgrade: None,
        },
    }))
}

/// One try; else why not.
async fn attempt(
    config: &Config,
    probe: Option<&mut Probe>,
    deadline: Instant,
) -> Result<(), String> {
    let addresses = resolve(config).await.map_err(|error| error.to_string())?;
    let Some(probe) = probe else {
        let connected = TcpStream::connect(addresses.as_slice()).await;
        return connected.map(drop).map_err(|error| error.to_string());
    };
    probe.target.addresses = addresses;
    let opened = Connection::open(&probe.target, &mut Stage::default()).await;
    let mut connection = opened.map_err(|refused| {
        let unknown = || "the connection was not set up".to_owned();
        refused.reason.unwrap_or_else(unknown)
    })?;
    let mut watchdog = Watchdog::new(deadline);
    let order = Order {
        template: &probe.template,
        number: 0,
        id: None,
    };
    if !connection.ready(&mut watchdog, deadline).await {
        return Err("the connection was closed".to_owned());
    }
    match connection
        .exchange(order, &mut Sink::Nothing, &mut watchdog, deadline)
        .await
    {
        Ok(answer)
            if !answer
                .status
                .is_some_and(|status| Expect::Success.accepts(status)) =>
        {
            Err(format!("it answered {}", answer.status.unwrap_or_default()))
        }
        Ok(answer) if answer.end != BodyEnd::Whole => Err("its answer broke off".to_owned()),
        Ok(_) => Ok(()),
        Err(Failure::Timeout) => Err(SILENT.to_owned()),
        Err(Failure::Because(_, reason)) => Err(reason),
        Err(Failure::Unsent | Failure::Error(_)) => Err(
            "the connection was closed without an answer, or the answer was not HTTP".to_owned(),
        ),
    }
}
