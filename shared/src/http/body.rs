//! The one body type of both proxies: what it holds, what it keeps alive, and how it can be taken back.

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::time::timeout;

use crate::BoxError;

/// Anything that must live exactly as long as a body: a slot, an in-flight count, a pooled connection.
pub trait Guard: Send + Sync {}
impl<T: Send + Sync> Guard for T {}

/// A request or response body.
///
/// Guards attached with [`Body::guarded`] are dropped when the last frame was handed over, when an error ends the
/// body, or when the body itself is dropped; so "in flight" ends with the last byte, not with the head.
pub struct Body {
    kind: Kind,
    guards: Vec<Box<dyn Guard>>,
    on_end: Option<OnEnd>,
}

/// What to do when a body has ended as it should.
type OnEnd = Box<dyn FnOnce() + Send + Sync>;

/// A body that is dropped with so few bytes left is read to its end, for so long: that is cheaper than a new connection.
const SHORT_REST: u64 = 8 * 1024;
const SHORT_REST_PATIENCE: Duration = Duration::from_millis(100);

enum Kind {
    Empty,
    Full(Bytes),
    Incoming(Incoming),
    Prefixed(Prefixed),
    Gated(Arc<Gate>),
}

/// A body whose first frames were already read.
struct Prefixed {
    frames: VecDeque<Bytes>,
    trailers: Option<HeaderMap>,
    rest: Option<Incoming>,
}

impl Body {
    /// No body.
    pub fn empty() -> Self {
        Kind::Empty.into()
    }

    /// These bytes.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        if bytes.is_empty() {
            Self::empty()
        } else {
            Kind::Full(bytes).into()
        }
    }

    /// Keeps `guard` until the body has ended.
    #[must_use]
    pub fn guarded(mut self, guard: impl Guard + 'static) -> Self {
        self.guards.push(Box::new(guard));
        self
    }

    /// Whether the whole body is in memory, so that sending it again gives the same bytes.
    pub fn is_buffered(&self) -> bool {
        match &self.kind {
            Kind::Empty | Kind::Full(_) => true,
            Kind::Prefixed(p) => p.rest.is_none(),
            Kind::Incoming(incoming) => incoming.is_end_stream(),
            Kind::Gated(_) => false,
        }
    }

    /// A second copy of a buffered body, without its guards; `None` if it is not buffered.
    pub fn copy(&self) -> Option<Self> {
        match &self.kind {
            Kind::Empty => Some(Self::empty()),
            Kind::Full(bytes) => Some(Self::full(bytes.clone())),
            Kind::Incoming(incoming) if incoming.is_end_stream() => Some(Self::empty()),
            Kind::Prefixed(p) if p.rest.is_none() => Some(
                Kind::Prefixed(Prefixed {
                    frames: p.frames.clone(),
                    trailers: p.trailers.clone(),
                    rest: None,
                })
                .into(),
            ),
            _ => None,
        }
    }

    /// Calls `on_end` when the body has ended as it should; drops it uncalled when the body ends in any other way.
    #[must_use]
    pub(crate) fn on_end(mut self, on_end: impl FnOnce() + Send + Sync + 'static) -> Self {
        self.on_end = Some(Box::new(on_end));
        self
    }

    /// The body is over. First what it came on is free again, then those who wait for its slot learn of it.
    fn finish(&mut self, whole: bool) {
        if let (Some(on_end), true) = (self.on_end.take(), whole) {
            on_end();
        }
        self.guards.clear();
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if self.on_end.is_none() || self.is_end_stream() {
            self.finish(true);
            return;
        }
        let short = self.size_hint().exact().is_some_and(|n| n <= SHORT_REST);
        let (Kind::Incoming(mut rest), Some(on_end), true, Ok(runtime)) = (
            std::mem::replace(&mut self.kind, Kind::Empty),
            self.on_end.take(),
            short,
            tokio::runtime::Handle::try_current(),
        ) else {
            return;
        };
        runtime.spawn(async move {
            let read = async {
                while !rest.is_end_stream() {
                    match std::future::poll_fn(|cx| Pin::new(&mut rest).poll_frame(cx)).await {
                        Some(Ok(_)) => {}
                        Some(Err(_)) => return false,
                        None => break,
                    }
                }
                true
            };
            if timeout(SHORT_REST_PATIENCE, read).await == Ok(true) {
                on_end();
            }
        });
    }
}

impl From<Kind> for Body {
    fn from(kind: Kind) -> Self {
        Self {
            kind,
            guards: Vec::new(),
            on_end: None,
        }
    }
}

impl From<Incoming> for Body {
    fn from(incoming: Incoming) -> Self {
        if incoming.is_end_stream() {
            Self::empty()
        } else {
            Kind::Incoming(incoming).into()
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.kind {
            Kind::Empty => "empty",
            Kind::Full(_) => "full",
            Kind::Incoming(_) => "incoming",
            Kind::Prefixed(_) => "prefixed",
            Kind::Gated(_) => "gated",
        };
        f.debug_struct("Body")
            .field("kind", &kind)
            .field("guards", &self.guards.len())
            .finish_non_exhaustive()
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let frame = match &mut this.kind {
            Kind::Empty => None,
            Kind::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                this.kind = Kind::Empty;
                Some(Ok(Frame::data(bytes)))
            }
            Kind::Incoming(incoming) => {
                ready!(Pin::new(incoming).poll_frame(cx)).map(|frame| frame.map_err(BoxError::from))
            }
            Kind::Prefixed(prefixed) => ready!(prefixed.poll_frame(cx)),
            Kind::Gated(gate) => ready!(gate.poll_frame(cx)),
        };
        match &frame {
            None => this.finish(true),
            Some(Err(_)) => this.finish(false),
            // Whoever asks whether this was the last frame may not come for another one.
            Some(Ok(_)) if this.is_end_stream() => this.finish(true),
            Some(Ok(_)) => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::Full(_) | Kind::Gated(_) => false,
            Kind::Incoming(incoming) => incoming.is_end_stream(),
            Kind::Prefixed(p) => {
                p.frames.is_empty()
                    && p.trailers.is_none()
                    && p.rest.as_ref().is_none_or(Incoming::is_end_stream)
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Incoming(incoming) => incoming.size_hint(),
            Kind::Prefixed(p) => p.size_hint(),
            Kind::Gated(gate) => gate.size_hint,
        }
    }
}

impl Prefixed {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(bytes) = self.frames.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        match &mut self.rest {
            Some(rest) => Pin::new(rest).poll_frame(cx).map_err(BoxError::from),
            None => Poll::Ready(self.trailers.take().map(|t| Ok(Frame::trailers(t)))),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let have: u64 = self.frames.iter().map(|f| f.len() as u64).sum();
        match &self.rest {
            // With trailers a chunked coding is needed, which an exact size would rule out.
            None if self.trailers.is_none() => SizeHint::with_exact(have),
            None => SizeHint::default(),
            Some(rest) => match rest.size_hint().exact() {
                Some(more) => SizeHint::with_exact(have + more),
                None => SizeHint::default(),
            },
        }
    }
}

/// Reads the first frames of a request body into memory while its request waits, up to a limit.
///
/// Small bodies become [`Body::is_buffered`], so that the request can be sent again if it was not admitted, and a
/// hang-up of an HTTP/1 client is noticed, which hyper only does while the body is being read.
#[derive(Debug)]
pub struct Prefetch {
    frames: VecDeque<Bytes>,
    bytes: usize,
    limit: usize,
    trailers: Option<HeaderMap>,
    rest: Option<Incoming>,
}

/// The client went away or broke the framing while its body was read.
#[derive(Debug, thiserror::Error)]
#[error("the request body ended early")]
pub struct BodyBroken(#[source] BoxError);

impl Prefetch {
    /// Starts with nothing read. Bodies declared larger than `limit` bytes are not read ahead at all.
    pub fn new(incoming: Incoming, limit: usize) -> Self {
        let rest = (!incoming.is_end_stream()).then_some(incoming);
        Self {
            frames: VecDeque::new(),
            bytes: 0,
            limit,
            trailers: None,
            rest,
        }
    }

    /// A body that is already over.
    pub fn empty() -> Self {
        Self {
            frames: VecDeque::new(),
            bytes: 0,
            limit: 0,
            trailers: None,
            rest: None,
        }
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether the whole length was declared and fits the limit.
    pub fn is_declared_small(&self) -> bool {
        self.rest.as_ref().is_some_and(|rest| {
            rest.size_hint()
                .exact()
                .is_some_and(|n| n <= self.limit as u64)
        })
    }

    /// Whether reading further makes sense: there is more, and it may fit.
    pub fn wants_more(&self) -> bool {
        self.rest.as_ref().is_some_and(|rest| {
            self.bytes < self.limit && rest.size_hint().lower() <= self.limit as u64
        })
    }

    /// Reads one frame. Returns at once if [`Self::wants_more`] is false.
    ///
    /// # Errors
    /// When the body breaks, which for a proxy means that the client is gone or malformed.
    ///
    /// # Cancel safety
    /// Cancel safe: a frame is stored in the same poll in which it arrives.
    pub async fn read(&mut self) -> Result<(), BodyBroken> {
        std::future::poll_fn(|cx| self.poll_read(cx)).await
    }

    /// As [`Self::read`], by poll.
    pub fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyBroken>> {
        if !self.wants_more() {
            return Poll::Ready(Ok(()));
        }
        let Some(rest) = &mut self.rest else {
            return Poll::Ready(Ok(()));
        };
        match ready!(Pin::new(&mut *rest).poll_frame(cx)) {
            None => self.rest = None,
            Some(Err(error)) => return Poll::Ready(Err(BodyBroken(error.into()))),
            Some(Ok(frame)) => {
                match frame.into_data() {
                    Ok(data) => {
                        self.bytes += data.len();
                        self.frames.push_back(data);
                    }
                    Err(frame) => self.trailers = frame.into_trailers().ok(),
                }
                // Nothing follows trailers, whether the end was seen or not.
                if self.trailers.is_some() || rest.is_end_stream() {
                    self.rest = None;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// The body, with what was read in front.
    pub fn into_body(mut self) -> Body {
        match (self.frames.len(), &self.trailers, self.rest.take()) {
            (0, None, None) => Body::empty(),
            (0, None, Some(rest)) => Kind::Incoming(rest).into(),
            (1, None, None) => Body::full(self.frames.pop_front().unwrap_or_default()),
            (_, _, rest) => Kind::Prefixed(Prefixed {
                frames: self.frames,
                trailers: self.trailers,
                rest,
            })
            .into(),
        }
    }
}

/// Holds a body back until the other side has said that it wants it (`100 Continue`), so that until then it can be
/// taken back and sent elsewhere.
pub struct Gate {
    inner: Mutex<GateState>,
    size_hint: SizeHint,
}

#[derive(Debug)]
enum GateState {
    Shut(Body, Option<Waker>),
    Open(Body),
    /// Taken back, or given up: the connection that waited for it must end.
    Gone,
}

/// The body was taken back before it was sent.
#[derive(Debug, thiserror::Error)]
#[error("the request was not admitted, its body was taken back")]
pub struct TakenBack(());

impl Gate {
    /// A shut gate with `body` behind it, and the body to send.
    pub fn shut(body: Body) -> (Arc<Self>, Body) {
        let gate = Arc::new(Self {
            size_hint: body.size_hint(),
            inner: Mutex::new(GateState::Shut(body, None)),
        });
        (Arc::clone(&gate), Kind::Gated(gate).into())
    }

    /// Lets the body flow.
    pub fn open(&self) {
        let mut state = self.inner.lock();
        *state = match std::mem::replace(&mut *state, GateState::Gone) {
            GateState::Shut(body, waker) => {
                if let Some(waker) = waker {
                    waker.wake();
                }
                GateState::Open(body)
            }
            other => other,
        };
    }

    /// Whether it was opened.
    pub fn is_open(&self) -> bool {
        matches!(*self.inner.lock(), GateState::Open(_))
    }

    /// Takes the body back if the gate is still shut, and ends the attempt that waited for it.
    pub fn take_back(&self) -> Option<Body> {
        let mut state = self.inner.lock();
        match std::mem::replace(&mut *state, GateState::Gone) {
            GateState::Shut(body, waker) => {
                if let Some(waker) = waker {
                    waker.wake();
                }
                Some(body)
            }
            other => {
                *state = other;
                None
            }
        }
    }

    fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut state = self.inner.lock();
        match &mut *state {
            GateState::Shut(_, waker) => {
                *waker = Some(cx.waker().clone());
                Poll::Pending
            }
            GateState::Open(body) => Pin::new(body).poll_frame(cx),
            GateState::Gone => Poll::Ready(Some(Err(Box::new(TakenBack(()))))),
        }
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}
