//! Response bodies that know when they end.

use crate::stats::Open;
use bytes::Bytes;
use futures_util::stream::unfold;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Either, Full, StreamBody};
use std::convert::Infallible;
use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

/// The bodies of all paths: short ones without an allocation.
pub(crate) type Content = Either<Full<Bytes>, UnsyncBoxBody<Bytes, BoxError>>;

pub(crate) fn text(text: impl Into<Bytes>) -> Content {
    Either::Left(Full::new(text.into()))
}

pub(crate) fn stream<B>(body: B) -> Content
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    Either::Right(UnsyncBoxBody::new(body.map_err(Into::into)))
}

/// `count` events, one every `gap`, then the end mark of OpenAI-style streams.
pub(crate) fn events(
    count: u64,
    gap: Duration,
) -> impl Body<Data = Bytes, Error = Infallible> + Send + 'static {
    let began = Instant::now();
    StreamBody::new(unfold(0, move |index| async move {
        if index > count {
            return None;
        }
        let steps = u32::try_from(index.min(count)).unwrap_or(u32::MAX);
        let due = began
            .checked_add(gap.saturating_mul(steps))
            .unwrap_or(began);
        sleep_until(due).await;
        let event = if index < count {
            format!("data: {{\"index\":{index}}}\n\n")
        } else {
            "data: [DONE]\n\n".into()
        };
        Some((Ok(Frame::data(Bytes::from(event))), index + 1))
    }))
}

/// So many zeros, in pieces. The length is known, so it goes out as `content-length`.
#[derive(Debug)]
pub(crate) struct Zeros(pub(crate) u64);

impl Body for Zeros {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        static PIECE: [u8; 1 << 16] = [0; 1 << 16];
        let piece = usize::try_from(self.0)
            .unwrap_or(usize::MAX)
            .min(PIECE.len());
        self.0 -= piece as u64;
        Poll::Ready((piece > 0).then(|| Ok(Frame::data(Bytes::from_static(&PIECE[..piece])))))
    }

    fn is_end_stream(&self) -> bool {
        self.0 == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0)
    }
}

/// A body that keeps its request open until its last frame was taken.
#[derive(Debug)]
pub(crate) struct Tracked {
    content: Content,
    open: Open,
}

impl Tracked {
    pub(crate) fn new(content: Content, mut open: Open) -> Self {
        if content.is_end_stream() {
            open.finish();
        }
        Self { content, open }
    }

    /// For answers to HEAD, whose body nobody asks for.
    pub(crate) fn finished(mut self) -> Self {
        self.open.finish();
        self.content = text("");
        self
    }
}

impl Body for Tracked {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.content).poll_frame(cx));
        if is_last(frame.as_ref(), &self.content) {
            self.open.finish();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.content.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.content.size_hint()
    }
}

/// True at the end of a body. hyper does not ask again once the body says that it ended, nor after trailers.
fn is_last<E>(frame: Option<&Result<Frame<Bytes>, E>>, body: &impl Body) -> bool {
    match frame {
        None => true,
        Some(Ok(frame)) => frame.is_trailers() || body.is_end_stream(),
        Some(Err(_)) => false,
    }
}

/// Calls `done` with the number of bytes once the inner body has ended.
#[derive(Debug)]
pub(crate) struct Counted<B, F> {
    pub(crate) inner: B,
    pub(crate) bytes: u64,
    pub(crate) done: Option<F>,
}

impl<B, F> Body for Counted<B, F>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
    F: FnOnce(u64) -> Result<(), BoxError> + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            self.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        if is_last(frame.as_ref(), &self.inner) {
            let bytes = self.bytes;
            if let Some(Err(error)) = self.done.take().map(|done| done(bytes)) {
                return Poll::Ready(Some(Err(error)));
            }
        }
        // The end of an HTTP/2 body may come as a frame without data. Sent back as one that is not the end, h2 would count it, and
        // close the connection to us at the hundredth.
        let is_end = matches!(&frame, Some(Ok(frame)) if frame.data_ref().is_some_and(Bytes::is_empty))
            && self.inner.is_end_stream();
        if is_end {
            return Poll::Ready(None);
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.done.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
