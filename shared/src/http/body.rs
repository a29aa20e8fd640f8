//! The one body type of both proxies: what it holds, what it keeps alive, and how it can be taken back.

mod gate;
mod inbound;
mod limit;
mod prefetch;

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

pub use self::{
    gate::{Gate, TakenBack},
    inbound::{Pace, TooSlow},
    limit::{Late, Limits},
    prefetch::{BodyBroken, Prefetch},
};
use self::{inbound::Inbound, limit::Limited, prefetch::Prefixed};
use super::{client::Reply, sanitize::strip_trailers};
use crate::{BoxError, record::Tally};

/// Anything that must live exactly as long as a body: a slot, an in-flight count, a pooled connection.
pub trait Guard: Send + Sync {}
impl<T: Send + Sync> Guard for T {}

/// How a body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its last frame was handed over.
    Whole,
    /// Where it came from broke off.
    Broken,
    /// A limit of time ended it.
    Late(Late),
    /// Nobody read on: whoever it was for is gone.
    Dropped,
    /// Whoever it was for is there, and took nothing of it for too long.
    Stalled,
}

/// A [`Guard`] that is told how its body ended, before it is dropped.
pub trait Ending: Guard {
    /// The body has ended so. Called once.
    fn end(&mut self, how: End);
}

/// A guard that does not care.
struct Plain<G>(G);

impl<G: Guard> Ending for Plain<G> {
    fn end(&mut self, _: End) {}
}

/// A request or response body.
///
/// Guards attached with [`Body::guarded`] are dropped when the last frame was handed over, when an error ends the
/// body, or when the body itself is dropped; so "in flight" ends with the last byte, not with the head.
pub struct Body {
    kind: Kind,
    guards: Vec<Box<dyn Ending>>,
    tally: Tally,
}

enum Kind {
    Empty,
    Full(Bytes),
    Incoming(Inbound),
    Reply(Reply),
    Prefixed(Prefixed),
    Gated(Arc<Gate>),
    Made(Pin<Box<Made>>),
    Limited(Limited),
}

/// Something that makes a body as it is asked for.
type Made = dyn http_body::Body<Data = Bytes, Error = BoxError> + Send + Sync;

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

    /// A body that `made` makes as it is asked for. It cannot be taken back or sent again.
    pub fn made(
        made: impl http_body::Body<Data = Bytes, Error = BoxError> + Send + Sync + 'static,
    ) -> Self {
        Kind::Made(Box::pin(made)).into()
    }

    /// Keeps `guard` until the body has ended.
    #[must_use]
    pub fn guarded(self, guard: impl Guard + 'static) -> Self {
        self.ending(Plain(guard))
    }

    /// As [`Self::guarded`], for a guard that wants to know how the body ended.
    #[must_use]
    pub fn ending(mut self, ending: impl Ending + 'static) -> Self {
        self.guards.push(Box::new(ending));
        self
    }

    /// Adds what is read of it up in `tally`.
    #[must_use]
    pub fn tallied(mut self, tally: Tally) -> Self {
        self.tally = tally;
        self
    }

    /// Ends the body when one of `limits` is over, whether anybody reads it or not: its guards are dropped and what it comes
    /// from is cancelled at once, and whoever reads on meets the error [`Late`]. Costs nothing if there is no limit.
    #[must_use]
    pub fn limited(self, limits: Limits) -> Self {
        if limits.is_none() || self.is_end_stream() {
            return self;
        }
        Kind::Limited(Limited::new(self, limits)).into()
    }

    /// Whether the whole body is in memory, so that sending it again gives the same bytes.
    pub fn is_buffered(&self) -> bool {
        match &self.kind {
            Kind::Empty | Kind::Full(_) => true,
            Kind::Prefixed(prefixed) => prefixed.is_whole(),
            Kind::Incoming(incoming) => incoming.is_end_stream(),
            Kind::Reply(_) | Kind::Gated(_) | Kind::Made(_) | Kind::Limited(_) => false,
        }
    }

    /// All bytes of a buffered body; `None` if it is not buffered.
    pub fn whole(&self) -> Option<Bytes> {
        match &self.kind {
            Kind::Empty => Some(Bytes::new()),
            Kind::Full(bytes) => Some(bytes.clone()),
            Kind::Incoming(incoming) => incoming.is_end_stream().then(Bytes::new),
            Kind::Prefixed(prefixed) => prefixed.whole(),
            Kind::Reply(_) | Kind::Gated(_) | Kind::Made(_) | Kind::Limited(_) => None,
        }
    }

    /// A second copy of a buffered body, without its guards; `None` if it is not buffered.
    pub fn copy(&self) -> Option<Self> {
        match &self.kind {
            Kind::Empty => Some(Self::empty()),
            Kind::Full(bytes) => Some(Self::full(bytes.clone())),
            Kind::Incoming(incoming) if incoming.is_end_stream() => Some(Self::empty()),
            Kind::Prefixed(prefixed) => {
                let copy = prefixed.copy()?;
                Some(Kind::Prefixed(copy).into())
            }
            Kind::Incoming(_)
            | Kind::Reply(_)
            | Kind::Gated(_)
            | Kind::Made(_)
            | Kind::Limited(_) => None,
        }
    }

    /// The body of an answer to a request of ours.
    pub(crate) fn reply(reply: Reply) -> Self {
        Kind::Reply(reply).into()
    }

    /// Puts a frame back that was taken from a request's body, and was its first one. Its guards have ended if it was the last.
    pub(crate) fn put_back(&mut self, frame: Frame<Bytes>) {
        self.kind = match std::mem::replace(&mut self.kind, Kind::Empty) {
            Kind::Empty => Kind::Prefixed(Prefixed::beginning(frame, None)),
            Kind::Incoming(rest) => Kind::Prefixed(Prefixed::beginning(frame, Some(rest))),
            Kind::Prefixed(rest) => Kind::Prefixed(rest.behind(frame)),
            // None of these gives a frame before something was sent, or is a request's.
            other => other,
        };
    }

    /// The body is over. First what it came on is free again, then those who wait for its slot learn of it.
    fn finish(&mut self, how: End) {
        for guard in &mut self.guards {
            guard.end(how);
        }
        self.guards.clear();
    }

    /// The body is over before its end: what it came from is cancelled, then those who wait for its slot learn of it.
    pub(super) fn give_up(mut self, how: End) {
        self.cancel(how);
    }

    fn cancel(&mut self, how: End) {
        self.kind = Kind::Empty;
        self.finish(how);
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if self.is_end_stream() {
            self.finish(End::Whole);
        } else {
            self.cancel(End::Dropped);
        }
    }
}

impl From<Kind> for Body {
    fn from(kind: Kind) -> Self {
        Self {
            kind,
            guards: Vec::new(),
            tally: Tally::default(),
        }
    }
}

impl From<Incoming> for Body {
    fn from(incoming: Incoming) -> Self {
        if incoming.is_end_stream() {
            Self::empty()
        } else {
            Kind::Incoming(incoming.into()).into()
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.kind {
            Kind::Empty => "empty",
            Kind::Full(_) => "full",
            Kind::Incoming(_) => "incoming",
            Kind::Reply(_) => "reply",
            Kind::Prefixed(_) => "prefixed",
            Kind::Gated(_) => "gated",
            Kind::Made(_) => "made",
            Kind::Limited(_) => "limited",
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
        let mut frame = match &mut this.kind {
            Kind::Empty => None,
            Kind::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                this.kind = Kind::Empty;
                Some(Ok(Frame::data(bytes)))
            }
            Kind::Incoming(incoming) => {
                ready!(incoming.poll_frame(cx))
            }
            Kind::Reply(reply) => ready!(reply.poll_frame(cx)),
            Kind::Prefixed(prefixed) => ready!(prefixed.poll_frame(cx)),
            Kind::Gated(gate) => ready!(gate.poll_frame(cx)),
            Kind::Made(made) => ready!(made.as_mut().poll_frame(cx)),
            Kind::Limited(limited) => ready!(limited.poll_frame(cx)),
        };
        if let Some(Ok(frame)) = &mut frame
            && let Some(trailers) = frame.trailers_mut()
        {
            strip_trailers(trailers);
        }
        // First, since whoever is told of the end wants to know.
        this.tally.add_frame(frame.as_ref());
        match &frame {
            None => this.finish(End::Whole),
            // An answer that was cut since its own request broke off: that is its client's doing.
            Some(Err(error)) if BodyBroken::behind(error).is_some() => this.finish(End::Dropped),
            Some(Err(_)) => this.finish(End::Broken),
            // Whoever asks whether this was the last frame may not come for another one.
            Some(Ok(_)) if this.is_end_stream() => this.finish(End::Whole),
            Some(Ok(_)) => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::Full(_) | Kind::Gated(_) => false,
            Kind::Limited(limited) => limited.is_end_stream(),
            Kind::Incoming(incoming) => incoming.is_end_stream(),
            Kind::Reply(reply) => reply.is_end_stream(),
            Kind::Prefixed(prefixed) => prefixed.is_end_stream(),
            Kind::Made(made) => made.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Incoming(incoming) => incoming.size_hint(),
            Kind::Reply(reply) => reply.size_hint(),
            Kind::Prefixed(prefixed) => prefixed.size_hint(),
            Kind::Gated(gate) => gate.size_hint(),
            Kind::Made(made) => made.size_hint(),
            Kind::Limited(limited) => limited.size_hint(),
        }
    }
}
