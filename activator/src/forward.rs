//! The way of one request: check, answer it here if it is one of those, get a pod or wait for one, give it to the pod, answer.

use std::{fmt::Write as _, sync::Arc};

use autoscaler_core::OptIns;
use http::{
    HeaderValue, Request, Response, StatusCode, Version,
    header::{ACCEPT_ENCODING, EXPECT},
};
use hyper::body::Incoming;
use shared::{
    error::{CLIENT_GONE, CLIENT_STALLED, Form},
    headers::{SERVER_TIMING, TIMING},
    http::{
        body::{Body, End, Ending, Prefetch},
        h1::Refusal,
        sanitize::{self, Sender},
        serve::{Handler, Peer},
        tunnel,
    },
    record::{Place, Record},
    shutdown,
};
use tokio::time::{Duration, Instant};

use self::exchange::{Answered, Exchange, Pursued};
use crate::{
    config::RESENDABLE_BYTES,
    rescue::{self, BROKE, Failure},
    timeline::Timeline,
    workload::{Entered, Held, Lease, Workload},
};

mod accept;
mod attempt;
mod exchange;
mod heartbeat;
mod placeholder;
mod probe;

/// One port of one workload.
#[derive(Clone, Debug)]
pub(crate) struct Front {
    pub(crate) workload: Arc<Workload>,
    /// Its number, the same on every pod.
    pub(crate) port: usize,
    pub(crate) cut: shutdown::Rx,
}

/// What a request came to that did not fail.
enum Reply {
    /// A pod has answered, and the end of its body is the outcome.
    OfPod(Response<Body>),
    /// It was answered here, which counts as this.
    Own(Response<Body>, &'static str),
    /// It is held still, and its client gets a sign of life every so often.
    Held(Box<Exchange>, Held, Duration),
}

/// Counts and records the one outcome of a request that has no answer of a pod yet. Dropped without one, the client was gone
/// or the connection was cut.
struct Outcome {
    workload: Arc<Workload>,
    peer: Arc<Peer>,
    /// None once it is the business of [`Answering`].
    code: Option<&'static str>,
    record: Record,
}

impl Outcome {
    /// If nobody has said what it is, now is the time at which it is known.
    fn settle(&mut self) {
        if self.code == Some(CLIENT_GONE) {
            self.code = Some(self.peer.unfinished());
        }
        if let Some(code) = self.code {
            self.record.outcome(code);
        }
    }

    /// The outcome is known, and its record to end later.
    fn recorded(mut self) -> Record {
        self.settle();
        std::mem::take(&mut self.record)
    }

    /// An answer of our own, whose outcome is known: its record ends with its body.
    fn go_with(self, answer: Response<Body>) -> Response<Body> {
        self.recorded().go_with(answer)
    }
}

impl Drop for Outcome {
    fn drop(&mut self) {
        self.settle();
        if let Some(code) = self.code {
            self.workload.metrics.count(self.workload.id(), code);
        }
    }
}

/// What a request has of its workload while its answer is on its way. How that ends is the outcome, which it counts and records.
struct Answering {
    workload: Arc<Workload>,
    peer: Arc<Peer>,
    outcome: &'static str,
    record: Record,
    _lease: Lease,
}

impl Answering {
    /// Takes over from `outcome`.
    fn new(outcome: &mut Outcome, status: StatusCode, lease: Lease) -> Self {
        outcome.code = None;
        Self {
            workload: Arc::clone(&outcome.workload),
            peer: Arc::clone(&outcome.peer),
            outcome: class(status),
            record: std::mem::take(&mut outcome.record),
            _lease: lease,
        }
    }
}

impl Ending for Answering {
    fn end(&mut self, how: End) {
        self.outcome = match how {
            End::Whole => return,
            End::Broken | End::Late(_) => BROKE,
            End::Dropped => self.peer.unfinished(),
            End::Stalled => CLIENT_STALLED,
        };
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.workload
            .metrics
            .count(self.workload.id(), self.outcome);
        self.record.outcome(self.outcome);
    }
}

impl Handler for Front {
    async fn handle(&self, request: Request<Incoming>, peer: Arc<Peer>) -> Response<Body> {
        let opt_ins = self.workload.opt_ins();
        let opt_ins = opt_ins.as_deref();
        let mut outcome = Outcome {
            workload: Arc::clone(&self.workload),
            peer: Arc::clone(&peer),
            code: Some(CLIENT_GONE),
            record: self.record(&request, &peer, opt_ins),
        };
        let openai = opt_ins.is_some_and(|asked| asked.openai_errors);
        let form = Form::of(openai, request.uri().path());
        let explain = self.workload.process.config.explain_failures;
        match self.try_handle(request, &peer, opt_ins, &mut outcome).await {
            Ok(Reply::OfPod(answer)) => answer,
            Ok(Reply::Own(answer, code)) => {
                outcome.code = Some(code);
                outcome.go_with(answer)
            }
            Ok(Reply::Held(exchange, held, every)) => {
                let answering = self.clone().go_on(exchange, held, peer);
                heartbeat::answer(every, answering, outcome, explain)
            }
            Err(failure) => {
                let rule = failure.rule();
                outcome.code = Some(rule.code);
                tracing::debug!(target = %self.workload.id(), outcome = rule.code, origin = rule.origin.as_str(), "Not answered by a pod");
                outcome.go_with(failure.answer(explain, form))
            }
        }
    }

    fn refuse(&self, refusal: Refusal, peer: &Arc<Peer>) -> Response<Body> {
        let recorder = &self.workload.process.config.recorder;
        let failure = Failure::Refused(refusal);
        let outcome = Outcome {
            workload: Arc::clone(&self.workload),
            peer: Arc::clone(peer),
            code: Some(failure.rule().code),
            record: recorder.begin_refused(|| self.place(peer, false)),
        };
        // What was refused may have no path.
        outcome.go_with(failure.answer(false, Form::Line))
    }
}

impl Front {
    /// What will be told of a request.
    fn record(&self, request: &Request<Incoming>, peer: &Peer, opt_ins: Option<&OptIns>) -> Record {
        let recorder = &self.workload.process.config.recorder;
        recorder.begin(request, || {
            let is_probe = opt_ins.is_some_and(|asked| probe::is_path(asked, request.uri().path()));
            self.place(peer, is_probe)
        })
    }

    fn place(&self, peer: &Peer, is_probe: bool) -> Place {
        Place {
            program: "activator",
            workload: self.workload.id().to_string(),
            port: Some(self.port),
            pod: None,
            client: peer.address,
            is_probe,
        }
    }

    async fn try_handle(
        &self,
        mut request: Request<Incoming>,
        peer: &Arc<Peer>,
        opt_ins: Option<&OptIns>,
        outcome: &mut Outcome,
    ) -> Result<Reply, Failure> {
        sanitize::check_request(&mut request).map_err(Failure::Refused)?;
        // Before anything of it is kept, counted or waited for.
        self.check_source(peer).await?;
        let websocket = sanitize::websocket(&request).map_err(Failure::Refused)?;
        if let Some(asked) = opt_ins
            && let Some(own) = self.own_answer(&request, asked)?
        {
            return Ok(own);
        }
        let client_upgrade = websocket.then(|| hyper::upgrade::on(&mut request));
        // To HTTP/1.0 nothing can be sent of which the length is not known but by closing the connection.
        let streams = !websocket && request.version() != Version::HTTP_10;
        let every = opt_ins.filter(|_| streams).and_then(|o| o.sse_heartbeat);
        self.workload.hears(request.headers(), peer.address.ip());
        let sender = Sender {
            address: peer.address.ip(),
            is_tls: peer.is_tls,
            trusted: &self.workload.process.config.trusted,
        };
        sanitize::prepare(&mut request, websocket, Some(sender));
        // Reading a body for which 100-continue is expected answers that at once: it waits for a pod.
        let limit = if request.headers_mut().remove(EXPECT).is_some() {
            0
        } else {
            RESENDABLE_BYTES
        };
        let notes = outcome.record.notes();
        notes.propagate(request.headers_mut());
        let (parts, incoming) = request.into_parts();
        let pace = self.workload.process.config.min_pace;
        let pace = pace.and_then(|pace| pace.of(&parts.headers));
        let prefetch = Prefetch::new(incoming, limit, notes.received()).paced(pace);
        let mut exchange = Exchange::new(self, parts, prefetch, every, notes.clone());
        exchange.read_ahead().await?;
        let entered = self.workload.enter()?;
        let mut answered = match exchange.pursue(self, entered, peer).await? {
            Pursued::Answered(answered) => answered,
            Pursued::Beats(held, every) => {
                return Ok(Reply::Held(Box::new(exchange), held, every));
            }
        };
        self.finish(&mut answered, exchange.arrived);
        let Answered {
            mut answer, lease, ..
        } = answered;
        let upgrade = tunnel::sides(client_upgrade, &mut answer);
        let upgrade = upgrade.map_err(|_| Failure::PodBroke)?;
        outcome.record.status(answer.status());
        let guard = Answering::new(outcome, answer.status(), lease);
        if let Some((client, pod)) = upgrade {
            peer.switch_to_raw();
            sanitize::add_websocket(answer.headers_mut());
            // Its silence is limited by the pod, if at all.
            tunnel::join(client, pod, guard, None, &notes, self.cut.clone());
            return Ok(Reply::OfPod(answer.map(|_| Body::empty())));
        }
        Ok(Reply::OfPod(
            answer.map(|body| body.tallied(notes.sent()).ending(guard)),
        ))
    }

    /// The answer to a request that need not go to a pod, if it is one.
    ///
    /// # Errors
    /// When it could be, but for what keeps the workload from starting.
    fn own_answer(
        &self,
        request: &Request<Incoming>,
        asked: &OptIns,
    ) -> Result<Option<Reply>, Failure> {
        // A pod that is there, full or not, answers for itself.
        if let Some(status) = probe::answered_with(request, asked)
            && self.workload.is_without_pod()
        {
            let answer = probe::answer(status);
            return Ok(Some(Reply::Own(answer, rescue::PROBE_ANSWERED)));
        }
        if let Some(title) = &asked.placeholder
            && placeholder::is_wanted(request.method(), request.headers())
            && self.workload.want()?
        {
            let answer = placeholder::answer(title);
            return Ok(Some(Reply::Own(answer, rescue::PLACEHOLDER)));
        }
        Ok(None)
    }

    /// What becomes of a held request whose answer has begun.
    async fn go_on(
        self,
        mut exchange: Box<Exchange>,
        held: Held,
        peer: Arc<Peer>,
    ) -> Result<Answered, Failure> {
        // The head is sent, so a coding of the body could not be named any more.
        exchange.parts.headers.remove(ACCEPT_ENCODING);
        let mut place = Entered::Held(held);
        loop {
            match exchange.pursue(&self, place, &peer).await? {
                Pursued::Answered(mut answered) => {
                    self.finish(&mut answered, exchange.arrived);
                    return Ok(answered);
                }
                // Its body sees to it.
                Pursued::Beats(held, _) => place = Entered::Held(held),
            }
        }
    }

    /// A pod has answered: takes note of how long that took, and tells the client.
    fn finish(&self, answered: &mut Answered, arrived: Instant) {
        answered.lease.answered();
        let forwarded = answered.forwarded;
        let timeline = self
            .workload
            .end_timeline(arrived, forwarded, Instant::now());
        let waited = forwarded - arrived;
        if waited.as_micros() > 1_000 {
            let metrics = &self.workload.metrics;
            metrics.was_held(self.workload.id(), waited);
        }
        if self.workload.process.config.timing_header {
            let headers = answered.answer.headers_mut();
            // The model may have entries of its own, on a line of their own.
            headers.append(SERVER_TIMING, timing(waited, None));
            headers.insert(TIMING, timing(waited, timeline.as_ref()));
        }
    }

    /// Whether this workload takes requests from the other end of the connection.
    async fn check_source(&self, peer: &Peer) -> Result<(), Failure> {
        let Some(access) = self.workload.access() else {
            return Ok(());
        };
        let found = tokio::select! {
            biased;
            found = access.namespace_of(peer) => found?,
            () = peer.gone() => return Err(Failure::BodyBroken),
        };
        // The rule may be another one by now.
        match self.workload.access() {
            Some(access) if !access.allows(found.as_deref()) => Err(Failure::NamespaceNotAllowed),
            _ => Ok(()),
        }
    }
}

/// The value of the timing headers: milliseconds held, and for the first answer of a cold start its phases.
fn timing(waited: Duration, timeline: Option<&Timeline>) -> HeaderValue {
    let mut text = format!("hold;dur={:.3}", waited.as_secs_f64() * 1e3);
    for (phase, at) in timeline.map(Timeline::phases).unwrap_or_default() {
        // Writing to a String cannot fail.
        let _ = write!(text, ", {phase};dur={:.3}", at.as_secs_f64() * 1e3);
    }
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("hold"))
}

fn class(status: StatusCode) -> &'static str {
    match status.as_u16() / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
}
