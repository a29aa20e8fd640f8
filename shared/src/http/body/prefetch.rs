//! Reading a request body ahead, and a body that begins with what was read.

use std::{
    collections::VecDeque,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;

use super::{Body, Inbound, Kind, Pace, TooSlow};
use crate::{BoxError, error::cause_ref, http::client::RequestBroken, record::Tally};

/// A body whose first frames were already read.
pub(super) struct Prefixed {
    frames: VecDeque<Bytes>,
    trailers: Option<HeaderMap>,
    rest: Option<Inbound>,
}

impl Prefixed {
    /// `frame`, then `rest`.
    pub(super) fn beginning(frame: Frame<Bytes>, rest: Option<Inbound>) -> Self {
        let none = Self {
            frames: VecDeque::new(),
            trailers: None,
            rest,
        };
        none.behind(frame)
    }

    /// `frame`, then this.
    pub(super) fn behind(mut self, frame: Frame<Bytes>) -> Self {
        match frame.into_data() {
            Ok(data) => self.frames.push_front(data),
            Err(frame) => {
                self.trailers = frame.into_trailers().ok();
                // Nothing follows them.
                self.rest = None;
            }
        }
        self
    }

    /// Whether all of it is in memory.
    pub(super) fn is_whole(&self) -> bool {
        self.rest.is_none()
    }

    /// A second copy, if all of it is in memory.
    pub(super) fn copy(&self) -> Option<Self> {
        self.is_whole().then(|| Self {
            frames: self.frames.clone(),
            trailers: self.trailers.clone(),
            rest: None,
        })
    }

    /// Its bytes, if all of them are in memory.
    pub(super) fn whole(&self) -> Option<Bytes> {
        self.is_whole().then(|| {
            let mut bytes = BytesMut::new();
            self.frames
                .iter()
                .for_each(|frame| bytes.extend_from_slice(frame));
            bytes.freeze()
        })
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.frames.is_empty()
            && self.trailers.is_none()
            && self.rest.as_ref().is_none_or(Inbound::is_end_stream)
    }

    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(bytes) = self.frames.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        match &mut self.rest {
            Some(rest) => rest.poll_frame(cx),
            None => Poll::Ready(self.trailers.take().map(|t| Ok(Frame::trailers(t)))),
        }
    }

    pub(super) fn size_hint(&self) -> SizeHint {
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
    /// Small ones that come after those, in one piece.
    small: BytesMut,
    bytes: usize,
    limit: usize,
    trailers: Option<HeaderMap>,
    rest: Option<Inbound>,
}

/// The client went away or broke the framing while its body was read.
#[derive(Debug, thiserror::Error)]
#[error("the request body ended early")]
pub struct BodyBroken(BrokenBy);

#[derive(Debug, thiserror::Error)]
enum BrokenBy {
    #[error(transparent)]
    Slow(#[from] TooSlow),
    #[error("it broke off")]
    End,
}

impl BodyBroken {
    fn by(error: &BoxError) -> Self {
        Self(match error.downcast_ref() {
            Some(slow) => BrokenBy::Slow(*slow),
            None => BrokenBy::End,
        })
    }

    /// That of the request, if it is why sending it failed with `error`.
    pub fn behind(error: &BoxError) -> Option<Self> {
        if let Some(slow) = cause_ref::<TooSlow>(error.as_ref()) {
            return Some(Self(BrokenBy::Slow(*slow)));
        }
        let of_user = cause_ref::<RequestBroken>(error.as_ref()).is_some()
            || cause_ref::<hyper::Error>(error.as_ref()).is_some_and(hyper::Error::is_user);
        of_user.then_some(Self(BrokenBy::End))
    }

    /// Whether it came too slowly, rather than not at all.
    pub fn is_too_slow(&self) -> bool {
        matches!(self.0, BrokenBy::Slow(_))
    }
}

impl Prefetch {
    /// Starts with nothing read. Bodies declared larger than `limit` bytes are not read ahead at all. What is read of it, here and
    /// later, is added up in `tally`.
    pub fn new(incoming: Incoming, limit: usize, tally: Tally) -> Self {
        Self::begin(Inbound::tallied(incoming, tally), limit)
    }

    fn begin(inbound: Inbound, limit: usize) -> Self {
        Self {
            frames: VecDeque::new(),
            small: BytesMut::new(),
            bytes: 0,
            limit,
            trailers: None,
            rest: (!inbound.is_end_stream()).then_some(inbound),
        }
    }

    /// Holds the client to `pace` for as long as the body lasts, whoever reads it then.
    #[must_use]
    pub fn paced(mut self, pace: Option<Pace>) -> Self {
        if let Some(rest) = &mut self.rest {
            rest.set_pace(pace);
        }
        self
    }

    /// A body that is already over.
    pub fn empty() -> Self {
        Self {
            frames: VecDeque::new(),
            small: BytesMut::new(),
            bytes: 0,
            limit: 0,
            trailers: None,
            rest: None,
        }
    }

    /// Goes on with a request body that was given back, none of it sent. `limit` as in [`Self::new`]; the body's guards end.
    /// `None` if it is gated, since whoever has its gate takes it back, or of a kind that no request body is.
    pub fn resume(mut body: Body, limit: usize) -> Option<Self> {
        let ahead = Self {
            limit,
            ..Self::empty()
        };
        Some(match std::mem::replace(&mut body.kind, Kind::Empty) {
            Kind::Reply(_) | Kind::Gated(_) | Kind::Made(_) | Kind::Limited(_) => return None,
            Kind::Empty => ahead,
            Kind::Full(bytes) => Self {
                bytes: bytes.len(),
                frames: VecDeque::from([bytes]),
                ..ahead
            },
            Kind::Incoming(inbound) => Self::begin(inbound, limit),
            Kind::Prefixed(prefixed) => Self {
                bytes: prefixed.frames.iter().map(Bytes::len).sum(),
                frames: prefixed.frames,
                trailers: prefixed.trailers,
                rest: prefixed.rest,
                ..ahead
            },
        })
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

    /// Whether all of it is in memory.
    pub fn is_whole(&self) -> bool {
        self.rest.is_none()
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
        match ready!(rest.poll_frame(cx)) {
            None => self.rest = None,
            Some(Err(error)) => return Poll::Ready(Err(BodyBroken::by(&error))),
            Some(Ok(frame)) => {
                match frame.into_data() {
                    Ok(data) => keep(&mut self.frames, &mut self.small, &mut self.bytes, data),
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
        seal(&mut self.frames, &mut self.small);
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

/// A frame that is smaller than this is put together with others. A client decides how its body is cut, and a frame of one byte
/// takes up forty times as much, beside the buffer that it came in.
const SMALL: usize = 1_024;

fn keep(frames: &mut VecDeque<Bytes>, small: &mut BytesMut, bytes: &mut usize, data: Bytes) {
    *bytes += data.len();
    if data.len() < SMALL && !frames.is_empty() {
        small.extend_from_slice(&data);
    } else {
        seal(frames, small);
        frames.push_back(data);
    }
}

fn seal(frames: &mut VecDeque<Bytes>, small: &mut BytesMut) {
    if !small.is_empty() {
        frames.push_back(small.split().freeze());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_in_tiny_frames_is_kept_in_few_pieces_and_in_order() {
        let (mut frames, mut small, mut bytes) = (VecDeque::new(), BytesMut::new(), 0);
        let mut sent = Vec::new();
        for n in 0..10_000_u32 {
            // Now and then one that is large.
            let size = if n % 4_000 == 3_999 { SMALL } else { 1 };
            let data = vec![n.to_le_bytes()[0]; size];
            sent.extend_from_slice(&data);
            keep(&mut frames, &mut small, &mut bytes, data.into());
        }
        seal(&mut frames, &mut small);
        assert_eq!((bytes, frames.len()), (sent.len(), 6));
        assert_eq!(Vec::from_iter(frames).concat(), sent);
    }
}
