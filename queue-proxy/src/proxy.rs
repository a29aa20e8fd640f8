//! The way of one request through the sidecar: check, count, wait for a slot, hand to the model, count out.

mod operations;
mod restart;

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version, header::EXPECT};
use hyper::body::Incoming;
use shared::{
    error::Form,
    headers::{
        self, ADMISSION, LOAD, OP, POD_UID, PORT, SERVER_TIMING, TICKET, TIMING, admission, op,
    },
    http::{
        body::{Body, Prefetch},
        h1::Refusal,
        sanitize,
        serve::{Handler, Peer},
        tunnel,
    },
    record::{Place, Record},
};
use tokio::time::{Instant, sleep_until, timeout_at};

use self::restart::Patience;
use crate::{
    breaker::Source,
    config::RESENDABLE_BYTES,
    pod::{Admitted, Budget, Outcome, Pod, class},
    rescue::Failure,
    slots::{Asked, Slot},
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
        let mut outcome = Outcome::unknown(&self.pod.metrics, self.record(&request, &peer));
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

    fn refuse(&self, refusal: Refusal, peer: &Peer) -> Response<Body> {
        let recorder = &self.pod.config.recorder;
        let record = recorder.begin_refused(|| self.place(peer, false));
        let mut outcome = Outcome::unknown(&self.pod.metrics, record);
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
        recorder.begin(request, || self.place(peer, is_probe))
    }

    fn place(&self, peer: &Peer, is_probe: bool) -> Place {
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
        let origin =
            (source == Source::Service).then_some((peer.address.ip(), &self.pod.config.trusted));
        sanitize::prepare(&mut request, websocket, origin);
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
        let mut prefetch = Prefetch::new(incoming, limit, notes.received());
        let counts = !self.pod.is_probe_path(parts.uri.path());
        let (slot, mut entry) = if let Some(ticket) = ticket {
            let reserved = self.pod.tickets.redeem(ticket);
            let (slot, mut entry) = reserved.ok_or(Failure::TicketExpired)?;
            entry.redeemed(counts);
            (slot, entry)
        } else {
            let (asked, entry) = match source {
                // Whoever is refused here was a request of this pod all the same: it goes nowhere else.
                Source::Service => {
                    let entry = self.pod.stats.arrive(counts);
                    (self.ask(source)?, entry)
                }
                // A refused request is counted by the pod that takes it. Counted here too, it would be two.
                Source::Activator => (self.ask(source)?, self.pod.stats.arrive(counts)),
            };
            (self.slot(asked, &mut prefetch, peer).await?, entry)
        };
        entry.admitted();
        let admitted = Instant::now();
        let waited = admitted - arrived;
        self.pod.metrics.queue_wait.record(waited);
        notes.given(None);

        let request = Request::from_parts(parts, prefetch.into_body());
        let patience = Patience {
            // An activator can go elsewhere, unless it had to give its only copy of the body.
            may_wait: source == Source::Service || ticket.is_some(),
            read_ahead: limit,
            deadline: arrived + self.pod.config.queue_timeout,
        };
        let timeouts = self.pod.config.timeouts;
        let sent = self.send(port, request, patience, peer);
        let mut answer = match timeouts.before_answer(admitted) {
            None => sent.await?,
            Some((at, failure)) => timeout_at(at, sent).await.map_err(|_| failure)??,
        };
        notes.answered();
        self.finish(&mut answer, source, waited);
        let is_upgrade = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
        if is_upgrade && client_upgrade.is_none() {
            // An upgrade nobody asked for: nothing after it could be understood.
            return Err(Failure::ModelBroke);
        }
        let code = class(answer.status());
        let mut record = outcome.hand_over();
        record.status(answer.status());
        let guard = Admitted::new(&self.pod, admitted, code, record, (slot, entry));
        if let (true, Some(client_upgrade)) = (is_upgrade, client_upgrade) {
            let upstream_upgrade = hyper::upgrade::on(&mut answer);
            peer.switch_to_raw();
            sanitize::add_websocket(answer.headers_mut());
            let (idle, cut) = (timeouts.idle, self.pod.cut.clone());
            tunnel::join(client_upgrade, upstream_upgrade, guard, idle, &notes, cut);
            return Ok(answer.map(|_| Body::empty()));
        }
        let limits = timeouts.of_answer(admitted);
        Ok(answer.map(|body| body.tallied(notes.sent()).ending(guard).limited(limits)))
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

    /// Asks for a slot: it is there, it will come, or there is no room to wait for one.
    fn ask(&self, source: Source) -> Result<Asked, Failure> {
        // An activator can go elsewhere, and asks anew until the model is ready again; a client of a Service cannot.
        if source == Source::Activator {
            if !self.pod.model.borrow().ready {
                return Err(Failure::NotReady);
            }
            // Who was told of readiness may be here before the task that opens the queues: it must not find them full.
            self.pod.slots.open();
        }
        self.pod.slots.ask(source).map_err(|_| Failure::QueueFull)
    }

    /// Waits for a slot. While it does, a small body is read, and a hang-up is noticed.
    async fn slot(
        &self,
        asked: Asked,
        prefetch: &mut Prefetch,
        peer: &Peer,
    ) -> Result<Slot, Failure> {
        let mut waiting = match asked {
            Asked::Slot(slot) => return Ok(slot),
            Asked::Wait(waiting) => waiting,
        };
        let deadline = Instant::now() + self.pod.config.queue_timeout;
        let mut budget = Budget::new(&self.pod);
        loop {
            let may_read = prefetch.wants_more() && budget.take();
            tokio::select! {
                biased;
                slot = waiting.slot() => return Ok(slot),
                read = prefetch.read(), if may_read => read.map_err(|_| Failure::BodyBroken)?,
                () = peer.gone() => return Err(Failure::BodyBroken),
                () = sleep_until(deadline) => return Err(Failure::QueueTimeout),
            }
        }
    }

    /// Removes what must not travel on and adds what the next hop is told.
    fn finish(&self, answer: &mut Response<Body>, source: Source, waited: Duration) {
        *answer.version_mut() = Version::HTTP_11;
        sanitize::strip_hop_by_hop(answer.headers_mut());
        headers::strip_ours(answer.headers_mut());
        match source {
            Source::Activator => {
                answer
                    .headers_mut()
                    .insert(ADMISSION, HeaderValue::from_static(admission::ADMITTED));
                answer
                    .headers_mut()
                    .insert(LOAD, self.pod.stats.load().into());
            }
            Source::Service if self.pod.config.timing_header => {
                let timing = timing(waited);
                // The model may have entries of its own, on a line of their own.
                answer.headers_mut().append(SERVER_TIMING, timing.clone());
                answer.headers_mut().insert(TIMING, timing);
            }
            Source::Service => {}
        }
    }
}

fn ticket(headers: &HeaderMap) -> Option<u64> {
    headers.get(TICKET)?.to_str().ok()?.parse().ok()
}

/// The value of both timing headers: milliseconds that the request waited here.
fn timing(waited: Duration) -> HeaderValue {
    let text = format!("queue;dur={:.3}", waited.as_secs_f64() * 1e3);
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("queue"))
}
