//! HTTP/2 connections to one address, as many as its streams need.
//!
//! A server says how many streams a connection may carry, and hyper keeps the ones above that waiting, unseen: behind
//! streams that last, a later one would wait for ever. So another connection is made in good time.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use hyper::client::conn::http2::SendRequest;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::Body;
use crate::BoxError;

/// Streams on one connection: RFC 9113 section 6.5.2 asks servers to allow at least so many.
const STREAMS: usize = 100;

/// The connections.
#[derive(Default)]
pub(super) struct Pool {
    lines: Mutex<Vec<Arc<Line>>>,
    /// Held while a connection is made; when making one last failed.
    making: tokio::sync::Mutex<Option<Instant>>,
}

struct Line {
    sender: SendRequest<Body>,
    streams: AtomicUsize,
}

/// A place for one stream on a connection, taken until it is dropped.
pub(super) struct Place {
    line: Arc<Line>,
    pool: Arc<Pool>,
}

/// The address took no connection while this request waited for one to be made.
#[derive(Debug, thiserror::Error)]
#[error("no connection could be made")]
struct NotMade(());

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

impl Pool {
    /// A place on a connection that there is, else on one that `connect` makes.
    pub(super) async fn place(
        self: &Arc<Self>,
        connect: impl Future<Output = Result<SendRequest<Body>, BoxError>>,
    ) -> Result<Place, BoxError> {
        if let Some(place) = self.free_place() {
            return Ok(place);
        }
        let came = Instant::now();
        let mut failed = self.making.lock().await;
        if let Some(place) = self.free_place() {
            return Ok(place);
        }
        // Whoever waited for that attempt shares its outcome: one after the other they would wait for ever.
        if failed.is_some_and(|at| at >= came) {
            return Err(Box::new(NotMade(())));
        }
        match connect.await {
            Ok(sender) => {
                let line = Arc::new(Line {
                    sender,
                    streams: AtomicUsize::new(1),
                });
                self.lines.lock().push(Arc::clone(&line));
                Ok(Place {
                    line,
                    pool: Arc::clone(self),
                })
            }
            Err(error) => {
                *failed = Some(Instant::now());
                Err(error)
            }
        }
    }

    /// Forgets every connection; each is closed when its last stream has ended.
    pub(super) fn clear(&self) {
        self.lines.lock().clear();
    }

    fn free_place(self: &Arc<Self>) -> Option<Place> {
        let mut lines = self.lines.lock();
        lines.retain(|line| !line.sender.is_closed());
        // The first that has room: the later ones then empty, and are let go.
        let line = lines
            .iter()
            .find(|line| line.streams.load(Relaxed) < STREAMS)?;
        line.streams.fetch_add(1, Relaxed);
        Some(Place {
            line: Arc::clone(line),
            pool: Arc::clone(self),
        })
    }
}

impl Place {
    /// A handle to send on.
    pub(super) fn sender(&self) -> SendRequest<Body> {
        self.line.sender.clone()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut lines = self.pool.lines.lock();
        if self.line.streams.fetch_sub(1, Relaxed) == 1 && lines.len() > 1 {
            lines.retain(|line| !Arc::ptr_eq(line, &self.line));
        }
    }
}
