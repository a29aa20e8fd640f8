//! A running listener, and how it ends.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    net::TcpListener,
    sync::{Notify, watch},
    task::JoinHandle,
    time::timeout,
};

use super::{Config, Disposition, Handler, accept::accept};
use crate::share::Share;

/// How long a listener that stops waits for first requests that may be on their way.
const FIRST_REQUEST_PATIENCE: Duration = Duration::from_millis(250);

/// A running listener. Dropping it stops accepting and cuts its connections.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    disposition: Disposer,
    open: Arc<Open>,
    accept: JoinHandle<()>,
}

/// Decides what happens to a listener's present and future connections. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Disposer(Arc<watch::Sender<Disposition>>);

impl Disposer {
    /// Sets the disposition; setting it again changes nothing.
    pub fn set(&self, disposition: Disposition) {
        self.0
            .send_if_modified(|d| std::mem::replace(d, disposition) != disposition);
    }
}

/// Open connections, and a way to wait until there are none.
#[derive(Debug, Default)]
pub(super) struct Open {
    pub(super) count: AtomicUsize,
    pub(super) none: Notify,
    pub(super) stop: Notify,
    pub(super) stopping: AtomicBool,
    pub(super) stopped: AtomicBool,
}

pub(super) struct OpenGuard(pub(super) Arc<Open>);

impl Drop for OpenGuard {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Relaxed) == 1 {
            self.0.none.notify_waiters();
        }
    }
}

impl Server {
    /// Starts serving `listener` with `handler`.
    ///
    /// # Errors
    /// When the listener has no local address.
    pub fn spawn<H: Handler>(
        listener: TcpListener,
        config: Config,
        handler: H,
    ) -> io::Result<Self> {
        Self::spawn_within(listener, config, handler, None)
    }

    /// The same, where each connection takes a place of `share` as well: as long as its socket is open, so also while it is a
    /// tunnel. Where there is none, it is answered 503 and closed.
    ///
    /// # Errors
    /// When the listener has no local address.
    pub fn spawn_within<H: Handler>(
        listener: TcpListener,
        config: Config,
        handler: H,
        share: Option<Arc<Share>>,
    ) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (disposition, watch) = watch::channel(Disposition::Keep);
        let open = Arc::new(Open::default());
        let accepting = accept(listener, config, handler, watch, Arc::clone(&open), share);
        let accept = tokio::spawn(accepting);
        Ok(Self {
            address,
            disposition: Disposer(Arc::new(disposition)),
            open,
            accept,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections open now, upgraded ones not counted.
    pub fn connections(&self) -> usize {
        self.open.count.load(Relaxed)
    }

    /// The handle that decides what happens to its connections.
    pub fn disposer(&self) -> Disposer {
        self.disposition.clone()
    }

    /// Stops accepting; connections already open go on, and those that the kernel has made already are taken first.
    pub fn stop_accepting(&self) {
        self.open.stopping.store(true, Relaxed);
        self.open.stop.notify_one();
    }

    /// Returns when no connection is open.
    pub async fn closed(&self) {
        loop {
            let none = self.open.none.notified();
            let accepting = self.open.stopping.load(Relaxed) && !self.open.stopped.load(Relaxed);
            if self.connections() == 0 && !accepting {
                return;
            }
            none.await;
        }
    }

    /// Closes what is idle, and after a moment also connections that were never used.
    pub async fn closed_gracefully(&self) {
        self.disposition.set(Disposition::CloseIdle);
        if timeout(FIRST_REQUEST_PATIENCE, self.closed())
            .await
            .is_err()
        {
            self.disposition.set(Disposition::CloseUnused);
            self.closed().await;
        }
    }

    /// Stops accepting, lets answers finish, closes idle connections, and cuts what is left after `grace`.
    /// Returns how many connections were cut.
    pub async fn shut_down(self, grace: Duration) -> usize {
        self.stop_accepting();
        let _late = timeout(grace, self.closed_gracefully()).await;
        let cut = self.connections();
        self.disposition.set(Disposition::Abort);
        cut
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accept.abort();
        self.disposition.set(Disposition::Abort);
    }
}
