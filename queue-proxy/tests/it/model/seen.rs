//! What a model has seen, and how it is counted.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, Request};
use hyper::body::{Body, Frame};
use parking_lot::Mutex;

use super::Reply;

/// What a model has seen.
#[derive(Default)]
pub(crate) struct Seen {
    /// Connections on which something was sent.
    pub(crate) connections: AtomicUsize,
    /// Of them, those still open.
    pub(crate) open: AtomicUsize,
    /// Heads of all requests, in order of arrival.
    pub(crate) requests: Mutex<Vec<Request<()>>>,
    /// Requests from their arrival to the last byte of their answer.
    pub(crate) active: AtomicUsize,
    /// The most of them there ever were.
    pub(crate) most: AtomicUsize,
    /// Requests that were given up before their answer was through.
    pub(crate) cancelled: AtomicUsize,
}

impl Seen {
    /// How many requests arrived.
    pub(crate) fn count(&self) -> usize {
        self.requests.lock().len()
    }

    /// The paths of the requests, in order of arrival.
    pub(crate) fn paths(&self) -> Vec<String> {
        let path = |r: &Request<()>| r.uri().path().to_owned();
        self.requests.lock().iter().map(path).collect()
    }

    /// The headers of the last request.
    pub(crate) fn last(&self) -> HeaderMap {
        self.requests.lock().last().unwrap().headers().clone()
    }

    pub(crate) fn active(&self) -> usize {
        self.active.load(SeqCst)
    }

    pub(crate) fn open(&self) -> usize {
        self.open.load(SeqCst)
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }

    pub(crate) fn cancelled(&self) -> usize {
        self.cancelled.load(SeqCst)
    }
}

/// Counts a connection as open.
pub(super) struct Open(Arc<Seen>);

impl Open {
    pub(super) fn new(seen: &Arc<Seen>) -> Self {
        seen.open.fetch_add(1, SeqCst);
        Self(Arc::clone(seen))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, SeqCst);
    }
}

/// Counts a request as active.
pub(super) struct Active {
    seen: Arc<Seen>,
    ended: AtomicBool,
}

impl Active {
    pub(super) fn new(seen: &Arc<Seen>) -> Self {
        let now = seen.active.fetch_add(1, SeqCst) + 1;
        seen.most.fetch_max(now, SeqCst);
        Self {
            seen: Arc::clone(seen),
            ended: AtomicBool::new(false),
        }
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.seen.active.fetch_sub(1, SeqCst);
        if !self.ended.load(SeqCst) {
            self.seen.cancelled.fetch_add(1, SeqCst);
        }
    }
}

/// A body that ends a request's activity when it ends.
pub(super) struct Counted {
    inner: Reply,
    active: Active,
}

impl Counted {
    pub(super) fn new(inner: Reply, active: Active) -> Self {
        Self { inner, active }
    }
}

impl Body for Counted {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = Pin::new(&mut self.inner).poll_frame(cx);
        if matches!(frame, Poll::Ready(None)) || self.inner.is_end_stream() {
            self.active.ended.store(true, SeqCst);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        let ended = self.inner.is_end_stream();
        self.active.ended.fetch_or(ended, SeqCst);
        ended
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.inner.size_hint()
    }
}
