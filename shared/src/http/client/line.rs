//! HTTP/1 connections: when one may be used again, and that every other one is closed.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use http::{
    Response, StatusCode,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING},
};
use hyper::{body::Incoming, client::conn::http1};
use parking_lot::Mutex;
use tokio::{
    task::AbortHandle,
    time::{Instant, sleep_until, timeout},
};

use super::Inner;
use crate::http::body::Body;

/// Unused connections.
#[derive(Default)]
pub(super) struct Kept {
    /// The one that was used last is the last.
    pub(super) lines: Vec<Idle>,
    /// Whether a task closes those that are too old.
    swept: bool,
}

/// An unused connection.
pub(super) struct Idle {
    line: Line,
    since: Instant,
}

/// How late a connection that is too old may be closed: one look for many of them.
const SWEEP: Duration = Duration::from_millis(100);

/// How long a request body may still be on its way when its answer is through, before its connection is cut.
const UPLOAD_PATIENCE: Duration = Duration::from_millis(500);

/// An HTTP/1 connection. Dropping it closes it, in whatever state it is: hyper alone would notice that nobody wants an
/// answer any more only when more of it arrives.
pub(super) struct Line {
    pub(super) sender: http1::SendRequest<Body>,
    pub(super) task: AbortHandle,
    /// Whose answer has not come to its end.
    pub(super) use_of: Use,
    /// Has the socket reset when it is dropped.
    pub(super) cancelled: Arc<AtomicBool>,
}

/// What a connection is in use for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// Nothing.
    Unused,
    /// A request was given to it and its answer has not ended.
    Request,
    /// It is another protocol's now.
    Upgraded,
}

impl Drop for Line {
    fn drop(&mut self) {
        match self.use_of {
            Use::Unused => {}
            Use::Request => self.cancelled.store(true, Relaxed),
            // The task has the connection to hand over, and ends by itself.
            Use::Upgraded => return,
        }
        self.task.abort();
    }
}

/// Closes unused connections as they get too old, until there is none.
async fn sweep(of: Weak<Inner>, age: Duration) {
    let mut next = Instant::now() + age + SWEEP;
    loop {
        sleep_until(next).await;
        match of.upgrade().and_then(|inner| inner.close_old(age)) {
            Some(at) => next = at,
            None => return,
        }
    }
}

impl Inner {
    pub(super) fn take_idle(&self) -> Option<Line> {
        let now = Instant::now();
        let mut idle = self.idle.lock();
        // The newest first, so that those which are not needed age out.
        while let Some(kept) = idle.lines.pop() {
            if now.saturating_duration_since(kept.since) > self.config.idle {
                idle.lines.clear();
                return None;
            }
            if kept.line.sender.is_ready() {
                return Some(kept.line);
            }
        }
        None
    }

    pub(super) fn finish(
        self: &Arc<Self>,
        mut line: Line,
        response: Response<Incoming>,
    ) -> Response<Body> {
        let (mut parts, incoming) = response.into_parts();
        let body = Body::from(incoming);
        if parts.status == StatusCode::SWITCHING_PROTOCOLS {
            line.use_of = Use::Upgraded;
            return Response::from_parts(parts, body);
        }
        // Both framings at once: the chunked one was used (RFC 9112 section 6.3), the length must not travel on, and
        // the connection cannot be trusted to be in step.
        let suspicious = parts.headers.contains_key(TRANSFER_ENCODING)
            && parts.headers.remove(CONTENT_LENGTH).is_some();
        let home = Arc::clone(self);
        let line = Mutex::new(line);
        let body = body.on_end(move || {
            let mut line = line.into_inner();
            line.use_of = Use::Unused;
            if !suspicious {
                home.give_back(line);
            }
        });
        Response::from_parts(parts, body)
    }

    /// Keeps a connection whose answer was read to its end.
    fn give_back(self: Arc<Self>, mut line: Line) {
        if line.sender.is_ready() {
            self.keep(line);
            return;
        }
        // The other task is about to say so, or the answer came before the request was read to its end.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        runtime.spawn(async move {
            if matches!(
                timeout(UPLOAD_PATIENCE, line.sender.ready()).await,
                Ok(Ok(()))
            ) {
                self.keep(line);
            }
        });
    }

    fn keep(self: &Arc<Self>, line: Line) {
        if self.closed.load(Relaxed) {
            return;
        }
        let mut idle = self.idle.lock();
        if idle.lines.len() < self.config.max_idle {
            let since = Instant::now();
            idle.lines.push(Idle { line, since });
            // Whoever is not asked again should not keep what a busy hour took.
            if !idle.swept
                && let Ok(runtime) = tokio::runtime::Handle::try_current()
            {
                idle.swept = true;
                let sweeping = sweep(Arc::downgrade(self), self.config.idle);
                runtime.spawn(sweeping);
            }
        }
    }

    /// Closes connections that are too old; returns when to look again, if any is left.
    fn close_old(&self, age: Duration) -> Option<Instant> {
        let now = Instant::now();
        let mut idle = self.idle.lock();
        let old = idle
            .lines
            .partition_point(|kept| now.saturating_duration_since(kept.since) > age);
        let old: Vec<_> = idle.lines.drain(..old).collect();
        let next = idle.lines.first().map(|kept| kept.since + age + SWEEP);
        if next.is_none() {
            idle.lines = Vec::new();
            idle.swept = false;
        }
        drop(idle);
        drop(old);
        next
    }
}
