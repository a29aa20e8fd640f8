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
        client,
        h1::Refusal,
        sanitize,
        serve::{Handler, Peer},
        tunnel,
    },
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
        let mut outcome = Outcome::unknown(&self.pod.metrics);
        let to_activator = matches!(self.kind, FrontKind::Activator);
        let form = Form::of(self.pod.config.openai_errors, request.uri().path());
        match self.try_handle(request, &peer, &mut outcome).await {
            Ok(answer) => {
                outcome.is(class(answer.status()));
                answer
            }
            Err(failure) => {
                outcome.is(failure.rule().code);
                failure.answer(to_activator, form)
            }
        }
    }

    fn refuse(&self, refusal: Refusal) -> Response<Body> {
        self.pod.metrics.count("malformed");
        // What was refused may have no path.
        Failure::Refused(refusal).answer(matches!(self.kind, FrontKind::Activator), Form::Line)
    }
}

impl Front {
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

        let arrived = Instant::now();
        // An Expect means that reading the body answers 100 Continue, which means admitted: not before it is.
        let waits_for_continue = request.headers_mut().remove(EXPECT).is_some();
        let (parts, incoming) = request.into_parts();
        let limit = if waits_for_continue {
            0
        } else {
            RESENDABLE_BYTES
        };
        let pace = self.pod.config.min_pace;
        let pace = pace.filter(|_| source == Source::Service);
        let pace = pace.and_then(|pace| pace.of(&parts.headers));
        let mut prefetch = Prefetch::new(incoming, limit).paced(pace);
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
        self.finish(&mut answer, source, waited);
        let is_upgrade = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
        let upgrade = match client_upgrade {
            Some(client) if is_upgrade => {
                let model = client::upgraded(&mut answer).ok_or(Failure::ModelBroke)?;
                Some((client, model))
            }
            // An upgrade nobody asked for: nothing after it could be understood.
            None if is_upgrade => return Err(Failure::ModelBroke),
            Some(_) | None => None,
        };
        let code = class(answer.status());
        let guard = Admitted::new(&self.pod, admitted, code, slot, entry);
        outcome.hand_over();
        if let Some((client, model)) = upgrade {
            peer.switch_to_raw();
            sanitize::add_websocket(answer.headers_mut());
            let (idle, cut) = (timeouts.idle, self.pod.cut.clone());
            tunnel::join(client, model, guard, idle, cut);
            return Ok(answer.map(|_| Body::empty()));
        }
        let limits = timeouts.of_answer(admitted);
        Ok(answer.map(|body| body.ending(guard).limited(limits)))
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
                read = prefetch.read(), if may_read => read?,
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
