//! What is told of each request once it has ended: a line of the request log, and spans.
//!
//! A [`Record`] goes with a request and ends with its answer: at the last byte, when it is cut, or when the client is gone. Dropping
//! it is what writes, so that there is exactly one line, whatever becomes of the request. What is learned on the way is noted in
//! [`Notes`], which any part of the request may have. If nothing is to be told both are empty, and each call is one branch.

mod field;
mod form;
mod line;
mod log;
#[cfg(not(feature = "otlp"))]
#[path = "record/no_otlp.rs"]
mod otlp;
#[cfg(feature = "otlp")]
pub mod otlp;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header::USER_AGENT,
};
use http_body::Frame;
use parking_lot::Mutex;
use tokio::time::Instant;

pub use self::{
    field::{FIELDS, Field},
    form::{Form, InvalidForm},
    log::{Log, Settings},
};
use crate::{
    http::body::{Body, End, Ending},
    trace::{self, TRACEPARENT, TraceParent},
};

/// Bytes of a path that are told, query included. Longer ones are for attackers.
const PATH_BYTES: usize = 2 * 1024;
/// Bytes of a user agent that are told: those of browsers have some 120.
const AGENT_BYTES: usize = 256;
const METHOD_BYTES: usize = 32;

/// Makes records; one for each process, cheap to clone. The default makes none.
#[derive(Clone, Debug, Default)]
pub struct Recorder {
    log: Option<Log>,
    tracer: Option<otlp::Tracer>,
}

/// Where a request has come in.
#[derive(Clone, Debug)]
pub struct Place {
    /// `queue-proxy` or `activator`.
    pub program: &'static str,
    /// The workload.
    pub workload: String,
    /// Number of the request port, if it is known yet.
    pub port: Option<usize>,
    /// The pod, where all requests are of one.
    pub pod: Option<Arc<str>>,
    /// The other end of the connection.
    pub client: SocketAddr,
    /// Whether it is no load but a health check.
    pub is_probe: bool,
}

/// What its head says of a request. Of one that was refused before it was read nothing is known.
#[derive(Debug, Default)]
struct Head {
    method: Option<Method>,
    path: Option<Box<str>>,
    version: Option<Version>,
    agent: Option<Box<[u8]>>,
    parent: Option<TraceParent>,
}

/// One request. Dropping it tells what became of it: unless that was stated, its client has left.
#[derive(Debug, Default)]
pub struct Record(Option<Box<Open>>);

#[derive(Debug)]
struct Open {
    log: Option<Log>,
    traced: Option<(otlp::Tracer, otlp::Traced)>,
    place: Place,
    head: Head,
    began: SystemTime,
    arrived: Instant,
    status: Option<StatusCode>,
    outcome: &'static str,
    notes: Notes,
}

/// What is learned of a request on its way.
#[derive(Clone, Debug, Default)]
pub struct Notes(Option<Arc<Noted>>);

#[derive(Debug, Default)]
struct Noted {
    received: Arc<AtomicU64>,
    sent: Arc<AtomicU64>,
    way: Mutex<Way>,
    /// The context that the next hop gets, if that is one of ours.
    onward: Option<TraceParent>,
}

/// When and where it came by.
#[derive(Clone, Debug, Default)]
struct Way {
    port: Option<usize>,
    waits: Option<Instant>,
    given: Option<Instant>,
    answered: Option<Instant>,
    pod: Option<Arc<str>>,
}

/// Adds up bytes of a body.
#[derive(Clone, Debug, Default)]
pub struct Tally(Option<Arc<AtomicU64>>);

/// A request that has ended, and all that is known of it.
#[derive(Debug)]
struct Ended {
    place: Place,
    head: Head,
    began: SystemTime,
    status: Option<StatusCode>,
    outcome: &'static str,
    received: u64,
    sent: u64,
    /// These are since it arrived.
    waits: Option<Duration>,
    given: Option<Duration>,
    answered: Option<Duration>,
    took: Duration,
}

impl Recorder {
    /// Writes to `log`, if there is one.
    pub fn new(log: Option<Log>) -> Self {
        Self { log, tracer: None }
    }

    /// Whether nothing is told of any request.
    pub fn is_off(&self) -> bool {
        self.log.is_none() && self.tracer.is_none()
    }

    /// A request arrives. `place` is asked for only if it is told of.
    pub fn begin<B>(&self, request: &Request<B>, place: impl FnOnce() -> Place) -> Record {
        if self.is_off() {
            return Record(None);
        }
        let place = place();
        let log = self.log.as_ref();
        let log = log.filter(|log| log.settings().probes || !place.is_probe);
        let with_query = log.is_some_and(|log| log.settings().query);
        self.open(log, place, || Head::of(request, with_query))
    }

    /// A message arrives that is refused before it is a request.
    pub fn begin_refused(&self, place: impl FnOnce() -> Place) -> Record {
        if self.is_off() {
            return Record(None);
        }
        self.open(self.log.as_ref(), place(), Head::default)
    }

    /// A record, if there is a log or a span for it.
    fn open(&self, log: Option<&Log>, place: Place, head: impl FnOnce() -> Head) -> Record {
        let tracer = self.tracer.as_ref().filter(|_| !place.is_probe);
        if log.is_none() && tracer.is_none() {
            return Record(None);
        }
        let head = head();
        let place_in_trace = tracer.map(|tracer| (tracer.clone(), tracer.begin(head.parent)));
        let onward = place_in_trace
            .as_ref()
            .and_then(|(_, traced)| traced.onward());
        let noted = Noted {
            onward,
            ..Noted::default()
        };
        Record(Some(Box::new(Open {
            log: log.cloned(),
            traced: place_in_trace,
            place,
            head,
            began: SystemTime::now(),
            arrived: Instant::now(),
            status: None,
            outcome: "client-gone",
            notes: Notes(Some(Arc::new(noted))),
        })))
    }

    /// Waits until what has ended so far is told, but no longer than `limit`.
    pub async fn flush(&self, limit: Duration) {
        let log = async {
            if let Some(log) = &self.log {
                log.flush(limit).await;
            }
        };
        let spans = async {
            if let Some(tracer) = &self.tracer {
                tracer.flush(limit).await;
            }
        };
        tokio::join!(log, spans);
    }
}

impl Head {
    fn of<B>(request: &Request<B>, with_query: bool) -> Self {
        let uri = request.uri();
        let path = match uri.path_and_query() {
            Some(target) if with_query => target.as_str(),
            _ => uri.path(),
        };
        let agent = request.headers().get(USER_AGENT).map(|agent| {
            let agent = agent.as_bytes();
            agent[..agent.len().min(AGENT_BYTES)].into()
        });
        Self {
            method: Some(short(request.method())),
            path: Some(path[..path.floor_char_boundary(PATH_BYTES)].into()),
            version: Some(request.version()),
            agent,
            parent: trace::context(request.headers()),
        }
    }
}

/// A method, shortened if it is longer than any that is registered: what is kept of a request must not be what its client likes.
fn short(method: &Method) -> Method {
    let name = method.as_str().as_bytes();
    if name.len() <= METHOD_BYTES {
        return method.clone();
    }
    // The beginning of a token is one.
    Method::from_bytes(&name[..METHOD_BYTES]).unwrap_or_default()
}

impl Record {
    /// Where to note what is learned on the way.
    pub fn notes(&self) -> Notes {
        self.0
            .as_ref()
            .map_or_else(Notes::default, |open| open.notes.clone())
    }

    /// What it has come to, or will have if nothing else is stated: a code of the error contract or a class of statuses.
    pub fn outcome(&mut self, outcome: &'static str) {
        if let Some(open) = &mut self.0 {
            open.outcome = outcome;
        }
    }

    /// The head of an answer with this status goes to the client.
    pub fn status(&mut self, status: StatusCode) {
        if let Some(open) = &mut self.0 {
            open.status = Some(status);
        }
    }

    /// Whether there is nothing to tell.
    pub fn is_off(&self) -> bool {
        self.0.is_none()
    }

    /// Ends with this answer.
    pub fn go_with(mut self, answer: Response<Body>) -> Response<Body> {
        self.status(answer.status());
        answer.map(|body| self.end_with(body))
    }

    /// Ends with this body.
    pub fn end_with(self, body: Body) -> Body {
        if self.is_off() {
            return body;
        }
        body.tallied(self.notes().sent()).ending(self)
    }
}

/// It ends with the body that it goes with. What that means for the outcome, others know.
impl Ending for Record {
    fn end(&mut self, _: End) {}
}

impl Drop for Record {
    fn drop(&mut self) {
        if let Some(open) = self.0.take() {
            open.tell(Instant::now());
        }
    }
}

impl Open {
    fn tell(mut self, now: Instant) {
        let log = self.log.take();
        let traced = self.traced.take();
        if let (Some((_, traced)), None) = (&traced, self.head.parent) {
            // So that the log names the trace that begins here.
            self.head.parent = Some(traced.own());
        }
        let ended = self.ended(now);
        if let Some((tracer, traced)) = traced {
            tracer.tell(&traced, &ended);
        }
        if let Some(log) = log {
            log.tell(ended);
        }
    }

    fn ended(self, now: Instant) -> Ended {
        let noted = self.notes.0.unwrap_or_default();
        let way = noted.way.lock().clone();
        let since = |at: Instant| at.saturating_duration_since(self.arrived);
        Ended {
            place: Place {
                port: self.place.port.or(way.port),
                pod: self.place.pod.or(way.pod),
                ..self.place
            },
            head: self.head,
            began: self.began,
            status: self.status,
            outcome: self.outcome,
            received: noted.received.load(Relaxed),
            sent: noted.sent.load(Relaxed),
            waits: way.waits.map(since),
            given: way.given.map(since),
            answered: way.answered.map(since),
            took: since(now),
        }
    }
}

impl Ended {
    /// How long it waited: until it was given to somebody for the last time, or in vain.
    fn waited(&self) -> Option<Duration> {
        let until = self.given.unwrap_or(self.took);
        self.waits.map(|since| until.saturating_sub(since))
    }

    /// How long whoever it was given to took to begin the answer.
    fn first_byte(&self) -> Option<Duration> {
        Some(self.answered?.saturating_sub(self.given?))
    }
}

impl Notes {
    fn note(&self, note: impl FnOnce(&mut Way)) {
        if let Some(noted) = &self.0 {
            note(&mut noted.way.lock());
        }
    }

    /// It is for the request port of this number.
    pub fn port(&self, port: usize) {
        self.note(|way| way.port = Some(port));
    }

    /// It waits, for a slot or for a pod.
    pub fn waits(&self) {
        self.note(|way| {
            way.waits.get_or_insert_with(Instant::now);
        });
    }

    /// It is given to whoever answers it: to the model, or to this pod. It may be given to another one later.
    pub fn given(&self, pod: Option<&Arc<str>>) {
        self.note(|way| {
            way.given = Some(Instant::now());
            way.answered = None;
            way.pod = pod.cloned();
        });
    }

    /// The head of the answer is there.
    pub fn answered(&self) {
        self.note(|way| way.answered = Some(Instant::now()));
    }

    /// It goes back to waiting: whoever it was given to has not taken it.
    pub fn returned(&self) {
        self.note(|way| way.given = None);
    }

    /// Names the span that it is for the next hop, if it is one.
    pub fn propagate(&self, headers: &mut HeaderMap) {
        let onward = self.0.as_ref().and_then(|noted| noted.onward);
        if let Some(onward) = onward
            && let Ok(value) = HeaderValue::try_from(onward.to_string())
        {
            headers.insert(TRACEPARENT, value);
        }
    }

    /// Where bytes of the request's body are added up.
    pub fn received(&self) -> Tally {
        Tally(self.0.as_ref().map(|noted| Arc::clone(&noted.received)))
    }

    /// Where bytes of the answer's body are added up.
    pub fn sent(&self) -> Tally {
        Tally(self.0.as_ref().map(|noted| Arc::clone(&noted.sent)))
    }
}

impl Tally {
    /// So many more.
    pub fn add(&self, bytes: usize) {
        if let Some(sum) = &self.0 {
            sum.fetch_add(bytes as u64, Relaxed);
        }
    }

    /// The bytes of a frame, if it has any.
    pub(crate) fn add_frame<E>(&self, frame: Option<&Result<Frame<Bytes>, E>>) {
        if self.0.is_some()
            && let Some(Ok(frame)) = frame
            && let Some(data) = frame.data_ref()
        {
            self.add(data.len());
        }
    }

    /// Whether nobody wants to know.
    pub fn is_off(&self) -> bool {
        self.0.is_none()
    }
}

#[cfg(test)]
mod tests;
