//! What the two ends of a connection, its socket and its requests, know of each other.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{http::h1::Refusal, share::Place};

/// What the I/O wrapper and the service on one connection tell each other.
#[derive(Debug, Default)]
pub struct Link {
    active: AtomicUsize,
    /// Begins and ends of requests, so that somebody who looks twice can tell whether anything happened.
    events: AtomicUsize,
    /// Bytes of a request that has not begun have arrived.
    pub(super) receiving: AtomicBool,
    /// Bytes belong to an upgraded protocol.
    pub(super) raw: AtomicBool,
    /// The present request asks for an upgrade: bytes after it are kept until it is known whose they are.
    pub(super) held: AtomicBool,
    /// Somebody waits for `gone`.
    pub(super) watched: AtomicBool,
    pub(super) gone: Notify,
    /// The connection is to be reset, not closed.
    resets: AtomicBool,
    pub(super) refusal: Mutex<Option<(usize, Refusal)>>,
    /// The connection's place among all: the socket is part of what holds this, also once it is a tunnel.
    _place: Option<Place>,
}

/// Counts one request of the connection as being served while it lives.
#[derive(Debug)]
pub struct Active(Arc<Link>);

impl Link {
    /// Of a connection that takes up `place` as long as there is anything of it.
    pub fn new(place: Option<Place>) -> Self {
        Self {
            _place: place,
            ..Self::default()
        }
    }

    /// A request began; its idle time starts when the guard is dropped.
    pub fn begin(self: &Arc<Self>) -> Active {
        self.receiving.store(false, Relaxed);
        self.active.fetch_add(1, Relaxed);
        self.events.fetch_add(1, Relaxed);
        Active(Arc::clone(self))
    }

    /// How often a request began or ended, if none is being served.
    pub fn idle_since(&self) -> Option<usize> {
        (self.active.load(Relaxed) == 0).then(|| self.events.load(Relaxed))
    }

    /// Whether a part of a request has arrived that has not begun.
    pub fn is_receiving(&self) -> bool {
        self.receiving.load(Relaxed)
    }

    /// From the next read on bytes belong to an upgraded protocol and are passed as they are.
    pub fn switch_to_raw(&self) {
        self.raw.store(true, Relaxed);
    }

    /// Returns when the client of the present request closes its side without having sent more.
    ///
    /// hyper notices that only while it reads, which it does not do before somebody wants the body.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn gone(&self) {
        self.watched.store(true, Relaxed);
        self.gone.notified().await;
    }

    /// Has the connection reset when it is closed.
    pub fn reset(&self) {
        self.resets.store(true, Relaxed);
    }

    /// Whether the connection is to be reset.
    pub fn is_to_be_reset(&self) -> bool {
        self.resets.load(Relaxed)
    }

    /// Whether more than `count` requests are being served.
    pub fn is_busy_with(&self, count: usize) -> bool {
        self.active.load(Relaxed) > count
    }

    /// The refusal that request number `index` of this connection stands for.
    pub fn refusal_of(&self, index: usize) -> Option<Refusal> {
        self.refusal
            .lock()
            .filter(|(at, _)| *at == index)
            .map(|(_, refusal)| refusal)
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.held.store(false, Relaxed);
        self.0.watched.store(false, Relaxed);
        self.0.events.fetch_add(1, Relaxed);
        self.0.active.fetch_sub(1, Relaxed);
    }
}
