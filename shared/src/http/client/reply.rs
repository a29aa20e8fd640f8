//! The body of an answer as it comes in.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::PollSender;

use super::{
    Broken, Inner,
    coding::{Coding, Next},
    line::Line,
    upload::{Stopped, Upload},
};
use crate::{BoxError, http::body::Body};

/// How long a request body may still be on its way when its answer is through, before its connection is cut.
const UPLOAD_PATIENCE: Duration = Duration::from_millis(500);

/// An answer that is dropped with so few bytes left is read to its end, for so long: that is cheaper than a new connection.
const SHORT_REST: u64 = 8 * 1024;
const SHORT_REST_PATIENCE: Duration = Duration::from_millis(100);

/// The body. Read to its end it gives its connection back; dropped before that it resets it.
pub(crate) struct Reply {
    state: Box<State>,
}

struct State {
    /// `None` when the connection was given back or broke.
    line: Option<Line>,
    home: Arc<Inner>,
    coding: Coding,
    keeps: bool,
    /// Whether something was handed over since its reader last had to wait.
    fresh: bool,
    failed: Option<Broken>,
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply")
            .field("coding", &self.state.coding)
            .finish_non_exhaustive()
    }
}

impl Reply {
    pub(super) fn new(home: &Arc<Inner>, line: Line, coding: Coding, keeps: bool) -> Self {
        let state = State {
            line: Some(line),
            home: Arc::clone(home),
            coding,
            keeps,
            // The head.
            fresh: true,
            failed: None,
        };
        Self {
            state: Box::new(state),
        }
    }

    /// Whether all of it was handed over.
    pub(crate) fn is_end_stream(&self) -> bool {
        self.state.coding.is_over()
    }

    /// What is left.
    pub(crate) fn size_hint(&self) -> SizeHint {
        let left = self.state.coding.left();
        left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let state = &mut *self.state;
        if let Some(error) = state.failed.take() {
            return Poll::Ready(Some(Err(error.into())));
        }
        match state.poll_next(cx) {
            Poll::Ready(Ok(frame)) => {
                if state.coding.is_over() {
                    state.give_back();
                }
                state.fresh = true;
                Poll::Ready(frame.map(Ok))
            }
            Poll::Ready(Err(error)) => {
                // It is in use, so it is reset.
                state.line = None;
                if !state.fresh {
                    return Poll::Ready(Some(Err(error.into())));
                }
                // hyper throws away what it has not written when a body breaks, and writes when a body makes it wait.
                state.failed = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Pending => {
                state.fresh = false;
                Poll::Pending
            }
        }
    }
}

impl State {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, Broken>> {
        let Some(line) = &mut self.line else {
            return Poll::Ready(Ok(None));
        };
        loop {
            match self
                .coding
                .next(line.buffer(), self.home.config.head_bytes)?
            {
                Next::Frame(frame) => return Poll::Ready(Ok(Some(frame))),
                Next::Over => return Poll::Ready(Ok(None)),
                Next::More => {}
            }
            if !ready!(line.poll_fill(cx))? {
                return Poll::Ready(if self.coding.ends_with_connection() {
                    Ok(None)
                } else {
                    Err(Broken::Ended)
                });
            }
        }
    }

    fn give_back(&mut self) {
        if let Some(line) = self.end() {
            self.home.keep(line);
        }
    }

    /// The answer is over. Returns the connection if it may be used again.
    fn end(&mut self) -> Option<Line> {
        let mut line = self.line.take()?;
        let clean = line.end();
        (self.keeps && clean).then_some(line)
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        let is_short = self
            .state
            .coding
            .left()
            .is_some_and(|left| left <= SHORT_REST);
        let (Some(line), true, true, Ok(runtime)) = (
            self.state.line.take(),
            is_short,
            self.state.keeps,
            tokio::runtime::Handle::try_current(),
        ) else {
            return;
        };
        let coding = std::mem::replace(&mut self.state.coding, Coding::OVER);
        let home = Arc::clone(&self.state.home);
        runtime.spawn(async move {
            let mut rest = State {
                line: Some(line),
                home,
                coding,
                keeps: true,
                fresh: false,
                failed: None,
            };
            let read = async {
                while let Ok(Some(_)) = std::future::poll_fn(|cx| rest.poll_next(cx)).await {}
            };
            // Whatever is not over then is reset.
            let _late = timeout(SHORT_REST_PATIENCE, read).await;
            if rest.coding.is_over() {
                rest.give_back();
            }
        });
    }
}

/// Sends what is left of a request whose answer is through, for a while, and keeps the connection then.
pub(super) fn finish_upload(home: &Arc<Inner>, line: Line, upload: Upload, body: Body) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        let home = Arc::clone(home);
        runtime.spawn(async move {
            let (mut line, mut upload, mut body) = (line, upload, body);
            let sent = std::future::poll_fn(|cx| line.poll_upload(cx, &mut upload, &mut body));
            if let Ok(Ok(())) = timeout(UPLOAD_PATIENCE, sent).await {
                home.keep(line);
            }
        });
    }
}

/// An answer that began before all of its request was sent. Both go on in a task of their own, since neither may wait for the
/// other: a client that reads nothing before it has sent everything would wait for ever.
pub(super) fn pump(reply: Reply, upload: Upload, body: Body) -> Body {
    let left = reply.state.coding.left();
    let (frames, pumped) = mpsc::channel(1);
    let mut reply = reply;
    // However this ends, what is still to be sent of the request would be read as a part of the next one's.
    let keeps = std::mem::replace(&mut reply.state.keeps, false);
    let pump = Pump {
        reply,
        keeps,
        upload,
        body,
        frames: PollSender::new(frames),
    };
    tokio::spawn(pump.run());
    Body::made(Pumped {
        frames: pumped,
        left,
    })
}

type Pumping = Result<Frame<Bytes>, BoxError>;

struct Pump {
    reply: Reply,
    /// Whether the connection may be used again when both are through.
    keeps: bool,
    upload: Upload,
    body: Body,
    frames: PollSender<Pumping>,
}

impl Pump {
    async fn run(mut self) {
        let Some(frames) = self.frames.get_ref().cloned() else {
            return;
        };
        let done = tokio::select! {
            biased;
            // Who has the last frame need not wait to be told that it was.
            () = frames.closed() => if self.reply.state.coding.is_over() {
                Ok(())
            } else {
                return;
            },
            done = std::future::poll_fn(|cx| self.poll(cx)) => done,
        };
        if let Err(error) = done {
            // Its place for a frame is free again.
            drop(self);
            let _gone = frames.send(Err(error)).await;
            return;
        }
        let Self {
            mut reply,
            keeps,
            upload,
            body,
            ..
        } = self;
        reply.state.keeps = keeps;
        let home = Arc::clone(&reply.state.home);
        if let Some(line) = reply.state.end() {
            if upload.is_over() {
                home.keep(line);
            } else {
                finish_upload(&home, line, upload, body);
            }
        }
    }

    /// Ready when the answer is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let state = &mut self.reply.state;
        if let Some(line) = &mut state.line
            && !self.upload.is_over()
            && let Poll::Ready(Err(stopped)) =
                line.poll_upload(cx, &mut self.upload, &mut self.body)
        {
            return Poll::Ready(Err(match stopped {
                Stopped::Body(error) => error.into(),
                Stopped::Connection(error) => Broken::Connection(error).into(),
            }));
        }
        loop {
            ready!(self.frames.poll_reserve(cx))?;
            match ready!(state.poll_next(cx))? {
                Some(frame) => self.frames.send_item(Ok(frame))?,
                None => return Poll::Ready(Ok(())),
            }
        }
    }
}

/// What a pump hands over.
struct Pumped {
    frames: mpsc::Receiver<Pumping>,
    left: Option<u64>,
}

impl http_body::Body for Pumped {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Pumping>> {
        let frame = ready!(self.frames.poll_recv(cx));
        if let (Some(Ok(frame)), Some(left)) = (&frame, &mut self.left) {
            *left = left.saturating_sub(frame.data_ref().map_or(0, |data| data.len() as u64));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.left == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.left
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
