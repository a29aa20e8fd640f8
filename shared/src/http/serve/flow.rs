//! Noticing a client that stopped reading its answer.
//!
//! Such a client holds the model's slot for as long as it likes. On HTTP/1 it shows at the socket, which takes nothing more; on HTTP/2
//! at its stream, whose window stays shut while others go on. Either way the answer is asked for nothing more, so a limit that is
//! kept by whoever reads it would never be looked at.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::rt::Executor;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep};

use crate::{
    BoxError,
    http::body::{Body, End},
};

/// What an answer and the way to its client tell each other.
#[derive(Debug, Default)]
pub(super) struct Flow {
    /// A frame was taken and no further one asked for: it waits for the client.
    waits: AtomicBool,
    /// Frames taken so far.
    frames: AtomicUsize,
    /// The client took nothing for too long.
    stalled: AtomicBool,
}

impl Flow {
    /// The client has taken nothing for too long: how its answer ends.
    pub(super) fn stall(&self) {
        self.stalled.store(true, Relaxed);
    }
}

/// An answer on its way to a client.
pub(super) struct Flowing {
    body: Body,
    flow: Arc<Flow>,
}

impl Flowing {
    pub(super) fn new(body: Body, flow: Arc<Flow>) -> Self {
        Self { body, flow }
    }
}

impl Drop for Flowing {
    fn drop(&mut self) {
        if self.flow.stalled.load(Relaxed) {
            std::mem::replace(&mut self.body, Body::empty()).give_up(End::Stalled);
        }
    }
}

impl http_body::Body for Flowing {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.flow.waits.store(false, Relaxed);
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        self.flow.frames.fetch_add(1, Relaxed);
        self.flow.waits.store(true, Relaxed);
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

tokio::task_local! {
    /// That of the HTTP/2 stream whose task this is.
    static FLOW: Arc<Flow>;
}

/// That of the present HTTP/2 stream.
pub(super) fn of_stream() -> Arc<Flow> {
    FLOW.try_with(Arc::clone).unwrap_or_default()
}

/// Runs the streams of an HTTP/2 connection, and resets each whose client takes nothing of it for as long as this.
#[derive(Clone, Copy, Debug)]
pub(super) struct Streams(pub(super) Option<Duration>);

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        let flow = Arc::new(Flow::default());
        let stream = Stream {
            task: Some(task),
            flow: Arc::clone(&flow),
            limit: self.0,
            patience: None,
        };
        tokio::spawn(FLOW.scope(flow, stream));
    }
}

pin_project! {
    /// One stream, until it has ended or its client has stalled. Dropping its task resets it.
    struct Stream<F> {
        #[pin]
        task: Option<F>,
        flow: Arc<Flow>,
        limit: Option<Duration>,
        patience: Option<Patience>,
    }
}

/// How long a client is waited for.
struct Patience {
    over: Pin<Box<Sleep>>,
    /// How many frames had been taken when it began.
    frames: usize,
}

impl<F: Future<Output = ()>> Future for Stream<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        if let Some(task) = this.task.as_mut().as_pin_mut()
            && task.poll(cx).is_pending()
        {
            match this.limit {
                Some(limit) if this.flow.waits.load(Relaxed) => {
                    ready!(Patience::poll(this.patience, this.flow, *limit, cx));
                    this.flow.stall();
                    this.task.set(None);
                }
                _ => return Poll::Pending,
            }
        }
        Poll::Ready(())
    }
}

impl Patience {
    /// Ready when no further frame was taken for as long as `limit`. Nothing is allocated before a client is waited for.
    fn poll(
        slot: &mut Option<Self>,
        flow: &Flow,
        limit: Duration,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let frames = flow.frames.load(Relaxed);
        let patience = slot.get_or_insert_with(|| Self {
            over: Box::pin(sleep(limit)),
            frames,
        });
        if patience.frames != frames {
            patience.frames = frames;
            patience.over.as_mut().reset(Instant::now() + limit);
        }
        patience.over.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use http_body::Body as _;

    use super::*;

    const LIMIT: Duration = Duration::from_mins(1);
    const NEARLY: Duration = Duration::from_secs(59);

    /// A stream whose client takes a frame each time that `taken` is told so.
    fn stream(
        flow: &Arc<Flow>,
        mut taken: tokio::sync::mpsc::Receiver<()>,
    ) -> Stream<impl Future<Output = ()> + use<>> {
        let mut answer = Flowing::new(Body::full("x"), Arc::clone(flow));
        let task = async move {
            while taken.recv().await.is_some() {
                answer.body = Body::full("x");
                let frame = poll_fn(|cx| Pin::new(&mut answer).poll_frame(cx)).await;
                assert!(frame.is_some());
            }
        };
        Stream {
            task: Some(task),
            flow: Arc::clone(flow),
            limit: Some(LIMIT),
            patience: None,
        }
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn a_client_that_takes_nothing_for_as_long_as_the_limit_has_stalled() {
        let start = Instant::now();
        let flow = Arc::new(Flow::default());
        let (take, taken) = tokio::sync::mpsc::channel(1);
        let stream = tokio::spawn(stream(&flow, taken));
        // Before there is anything to take there is no limit.
        sleep(3 * LIMIT).await;
        // Each that is taken begins the time anew.
        for _ in 0..3 {
            take.send(()).await.unwrap();
            sleep(NEARLY).await;
            assert!(!stream.is_finished());
        }
        stream.await.unwrap();
        let expected = 3 * LIMIT + 2 * NEARLY + LIMIT;
        assert_eq!(start.elapsed(), expected);
        assert!(flow.stalled.load(Relaxed));
        assert!(take.is_closed(), "its task is dropped, which resets it");
    }
}
