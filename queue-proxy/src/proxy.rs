//! The way of one request through the sidecar: check, count, wait for a slot, hand to the model (or to the activators), count out.

mod elsewhere;
mod exchange;
mod operations;
mod restart;

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Request, Response, header::EXPECT};
use hyper::body::Incoming;
use shared::{
    error::Form,
    headers::{OP, POD_UID, PORT, TICKET, op},
    http::{
        body::{Body, Pace, Prefetch},
        h1::Refusal,
        sanitize::{self, Sender},
        serve::{Handler, Peer},
    },
    record::{Place, Record},
};
use tokio::time::Instant;

use self::exchange::Call;
use crate::{
    breaker::Source,
    config::RESENDABLE_BYTES,
    pod::{Outcome, Pod, class},
    rescue::Failure,
};

/// A listener of the pod.
#[derive(Clone, Debug)]
pub(crate) struct Front {
    pub(crate) pod: Arc<Pod>,
    pub(crate) kind: FrontKind,
}

/// Who sends to a listener.
#[derive(Clone, Copy, Debug)]
pub(crate) enum FrontKind {
    /// Clients, to the request port of this number.
    Service(usize),
    /// Activators.
    Activator,
}

impl Handler for Front {
    async fn handle(&self, request: Request<Incoming>, peer: Arc<Peer>) -> Response<Body> {
        let mut outcome = Outcome::unknown(&self.pod.metrics, &peer, self.record(&request, &peer));
        let to_activator = matches!(self.kind, FrontKind::Activator);
        let form = Form::of(self.pod.config.openai_errors, request.uri().path());
        let answer = match self.try_handle(request, &peer, &mut outcome).await {
            Ok(answer) => {
                outcome.is(class(answer.status()));
                answer
            }
            Err(failure) => {
                outcome.is(failure.rule().code);
                failure.answer(to_activator, form)
            }
        };
        outcome.go_with(answer)
    }

    fn refuse(&self, refusal: Refusal, peer: &Arc<Peer>) -> Response<Body> {
        let recorder = &self.pod.config.recorder;
        let record = recorder.begin_refused(|| self.came_in(peer, false));
        let mut outcome = Outcome::unknown(&self.pod.metrics, peer, record);
        let failure = Failure::Refused(refusal);
        outcome.is(failure.rule().code);
        // What was refused may have no path.
        let to_activator = matches!(self.kind, FrontKind::Activator);
        outcome.go_with(failure.answer(to_activator, Form::Line))
    }
}

impl Front {
    /// What will be told of a request. What an activator asks of the pod itself is none.
    fn record(&self, request: &Request<Incoming>, peer: &Peer) -> Record {
        let recorder = &self.pod.config.recorder;
        if recorder.is_off()
            || matches!(self.kind, FrontKind::Activator) && request.headers().contains_key(OP)
        {
            return Record::default();
        }
        let is_probe = self.pod.is_probe_path(request.uri().path());
        recorder.begin(request, || self.came_in(peer, is_probe))
    }

    fn came_in(&self, peer: &Peer, is_probe: bool) -> Place {
        Place {
            program: "queue-proxy",
            workload: self.pod.config.target.to_string(),
            port: match self.kind {
                FrontKind::Service(port) => Some(port),
                FrontKind::Activator => None,
            },
            pod: Some(self.pod.config.pod_uid.as_str().into()),
            client: peer.address,
            is_probe,
        }
    }

    async fn try_handle(
        &self,
        mut request: Request<Incoming>,
        peer: &Arc<Peer>,
        outcome: &mut Outcome<'_>,
    ) -> Result<Response<Body>, Failure> {
        sanitize::check_request(&mut request).map_err(Failure::Refused)?;
        let (port, source) = match self.kind {
            FrontKind::Service(port) => (port, Source::Service),
            FrontKind::Activator => {
                let port = self.check_identity(request.headers())?;
                match request.headers().get(OP).map(HeaderValue::as_bytes) {
                    None => {}
                    Some(name) if name == op::WAIT_READY.as_bytes() => {
                        return self.wait_ready(request.headers()).await;
                    }
                    Some(name) if name == op::RESERVE.as_bytes() => {
                        return self.reserve(peer).await;
                    }
                    Some(_) => return Err(Failure::Refused(Refusal::bad("unknown operation"))),
                }
                (port, Source::Activator)
            }
        };
        let websocket = sanitize::websocket(&request).map_err(Failure::Refused)?;
        let client_upgrade = websocket.then(|| hyper::upgrade::on(&mut request));
        let ticket = ticket(request.headers()).filter(|_| source == Source::Activator);
        let sender = (source == Source::Service).then_some(Sender {
            address: peer.address.ip(),
            is_tls: peer.is_tls,
            trusted: &self.pod.config.trusted,
        });
        sanitize::prepare(&mut request, websocket, sender);
        let notes = outcome.notes();
        notes.port(port);
        notes.propagate(request.headers_mut());

        let arrived = Instant::now();
        notes.waits();
        // An Expect means that reading the body answers 100 Continue, which means admitted: not before it is.
        let waits_for_continue = request.headers_mut().remove(EXPECT).is_some();
        let (parts, incoming) = request.into_parts();
        let limit = if waits_for_continue {
            0
        } else {
            RESENDABLE_BYTES
        };
        let prefetch = Prefetch::new(incoming, limit, notes.received());
        let mut prefetch = prefetch.paced(self.pace(source, &parts.headers));
        let call = Call {
            port,
            source,
            counts: !self.pod.is_probe_path(parts.uri.path()),
            arrived,
            limit,
            ticket,
            notes,
        };
        let place = self.place(&call, &mut prefetch, peer).await?;
        let request = Request::from_parts(parts, prefetch.into_body());
        self.pursue(&call, place, request, client_upgrade, peer, outcome)
            .await
    }

    /// The least pace of a request's client. Activators see to theirs.
    fn pace(&self, source: Source, headers: &HeaderMap) -> Option<Pace> {
        let pace = self.pod.config.min_pace;
        pace.filter(|_| source == Source::Service)?.of(headers)
    }

    /// Checks that an activator means this pod, and returns the number of the port it means.
    fn check_identity(&self, headers: &HeaderMap) -> Result<usize, Failure> {
        if headers
            .get(POD_UID)
            .is_none_or(|uid| uid.as_bytes() != self.pod.config.pod_uid.as_bytes())
        {
            return Err(Failure::Misdirected);
        }
        headers
            .get(PORT)
            .and_then(|port| port.to_str().ok()?.parse().ok())
            .filter(|port| *port < self.pod.clients.len())
            .ok_or(Failure::UnknownPort)
    }
}

fn ticket(headers: &HeaderMap) -> Option<u64> {
    headers.get(TICKET)?.to_str().ok()?.parse().ok()
}
