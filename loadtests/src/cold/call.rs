//! One request on a connection of its own, and when each part of it happened.

use super::timing::{HEADER, Timing};
use crate::check;
use crate::client::{Refused, Stage, Stream, Target, Template};
use crate::config::{Config, SERVED_BY};
use crate::error::Error;
use crate::record::ErrorKind;
use crate::run::{resolve, target, template};
use http::HeaderMap;
use http_body_util::BodyExt;
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout, timeout_at};

/// Between two attempts to connect to what refuses: far below what a Service takes to lead to a new pod.
const AGAIN: Duration = Duration::from_millis(2);
/// How long such an attempt may take.
const ATTEMPT: Duration = Duration::from_millis(200);

/// What a target is asked, ready to be sent.
#[derive(Debug)]
pub(super) struct Ask {
    template: Template,
    target: Target,
    config: Config,
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// When it had a connection.
    pub(super) sent: Option<Instant>,
    /// When the head of the answer was here.
    pub(super) head: Option<Instant>,
    pub(super) status: Option<u16>,
    pub(super) error: Option<ErrorKind>,
    /// Of the error, in words.
    pub(super) reason: Option<String>,
    pub(super) served_by: Option<String>,
    pub(super) timing: Option<Timing>,
    pub(super) body_bytes: u64,
    /// The beginning of the body, if it is to be looked at.
    pub(super) body: Vec<u8>,
}

impl Ask {
    /// Looks the address up.
    pub(super) async fn new(config: &Config) -> Result<Self, Error> {
        Ok(Self {
            template: template(config)?,
            target: target(config, resolve(config).await?)?,
            config: config.clone(),
        })
    }

    /// Sends it. `until` bounds all of it.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub(super) async fn send(&self, number: u64, keep: bool, until: Instant) -> Heard {
        let mut heard = Heard::default();
        let keeps = keep || !self.config.checks.is_empty();
        let mut stage = Stage::default();
        let exchange = self.exchange(number, keeps, &mut heard, &mut stage);
        let refused = match timeout_at(until.into(), exchange).await {
            Ok(Ok(())) => return heard,
            Ok(Err(refused)) => refused,
            Err(_) if heard.sent.is_none() => stage.late(),
            Err(_) => ErrorKind::Timeout.into(),
        };
        (heard.error, heard.reason) = (Some(refused.kind), refused.reason);
        heard
    }

    /// Waits until the address takes connections, which a Service does a while after its pod is ready. TLS is part of the request.
    pub(super) async fn reached(&self) -> Instant {
        loop {
            // One that gets no answer at all would be tried again only after a second.
            if let Ok(Ok(_)) =
                timeout(ATTEMPT, TcpStream::connect(&self.target.addresses[..])).await
            {
                return Instant::now();
            }
            sleep(AGAIN).await;
        }
    }

    async fn exchange(
        &self,
        number: u64,
        keep: bool,
        heard: &mut Heard,
        stage: &mut Stage,
    ) -> Result<(), Refused> {
        let stream = Stream::open(&self.target, stage).await?;
        let (mut sender, connection) = handshake(TokioIo::new(stream))
            .await
            .map_err(|_| ErrorKind::Connect)?;
        // Ends with this future, whatever becomes of it.
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        heard.sent = Some(Instant::now());
        let answer = sender.send_request(self.template.outgoing(number, None));
        let answer = answer.await.map_err(|error| {
            if error.is_parse() {
                ErrorKind::Protocol
            } else {
                ErrorKind::ClosedFresh
            }
        })?;
        heard.head = Some(Instant::now());
        let status = answer.status().as_u16();
        heard.status = Some(status);
        heard.served_by = text(answer.headers(), SERVED_BY);
        heard.timing = text(answer.headers(), HEADER).and_then(|header| Timing::parse(&header));
        let mut body = answer.into_body();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| ErrorKind::Body)?;
            let Some(data) = frame.data_ref() else {
                continue;
            };
            heard.body_bytes += data.len() as u64;
            if keep {
                check::keep(&mut heard.body, data);
            }
        }
        if !self.config.expect.accepts(status) {
            return Err(ErrorKind::of_status(status).into());
        }
        match check::judge(&self.config.checks, &heard.body) {
            check::Judged::Passed => Ok(()),
            check::Judged::Failed => Err(ErrorKind::Content.into()),
            check::Judged::TooLong => Err(Refused {
                reason: Some(check::TOO_LONG.to_owned()),
                ..ErrorKind::Content.into()
            }),
        }
    }
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    let value = headers.get(name)?.to_str().ok()?;
    Some(value.to_owned())
}
