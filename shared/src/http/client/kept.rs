//! Unused connections: when one may be used again, and that every other one is closed. And who waits for one.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until},
};

use super::{Connection, Inner, line::Line};
use crate::BoxError;

/// Connections that may be on their way to one address at once.
///
/// A crowd that was held comes at once. With a connection for each of them its requests would be answered no sooner, since the other
/// side has to accept and to read them all: most are answered sooner on a connection that the first of them give back.
pub(super) const CONNECTING: usize = 32;

/// Unused connections, and who waits for one.
#[derive(Default)]
pub(super) struct Kept {
    /// The one that was used last is the last. There is none while somebody waits.
    pub(super) lines: Vec<Idle>,
    /// Whether a task closes those that are too old.
    swept: bool,
    /// Connections on their way.
    connecting: usize,
    /// Who waits, while as many as may be are on their way. Who left is still in it.
    pub(super) waiting: VecDeque<oneshot::Sender<Turn>>,
}

/// What somebody waited for, whichever came first.
pub(super) enum Turn {
    /// A connection that somebody else has given back.
    Kept(Line),
    /// That he may make one.
    New(Place),
}

/// The right to make a connection. Dropping it gives it to whoever waits.
pub(super) struct Place(Arc<Inner>);

impl Drop for Place {
    fn drop(&mut self) {
        let mut idle = self.0.idle.lock();
        idle.connecting -= 1;
        while let Some(next) = idle.waiting.pop_front() {
            if next.is_closed() {
                continue;
            }
            idle.connecting += 1;
            drop(idle);
            // Who has left in this moment drops it, and so does the same for the next one.
            let _left = next.send(Turn::New(Self(Arc::clone(&self.0))));
            return;
        }
    }
}

/// An unused connection.
pub(super) struct Idle {
    line: Line,
    since: Instant,
}

/// How late a connection that is too old may be closed: one look for many of them.
const SWEEP: Duration = Duration::from_millis(100);

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
    /// A kept connection, else a new one.
    ///
    /// # Errors
    /// When none is had within the limit, or the address takes none.
    pub(super) async fn connection(self: &Arc<Self>) -> Result<Connection, BoxError> {
        match self.take_idle() {
            Some(line) => Ok(Connection { line, reused: true }),
            // In a box, since few requests make a connection.
            None => Box::pin(self.new_connection()).await,
        }
    }

    async fn new_connection(self: &Arc<Self>) -> Result<Connection, BoxError> {
        let having = async {
            let place = loop {
                let turn = match self.place() {
                    Ok(place) => break place,
                    Err(turn) => turn.await,
                };
                match turn {
                    Ok(Turn::New(place)) => break place,
                    Ok(Turn::Kept(mut line)) => {
                        if line.is_silent() {
                            return Ok(Connection { line, reused: true });
                        }
                    }
                    // Nobody drops it while there is this client.
                    Err(_) => {}
                }
            };
            let line = Line::new(self.connect(false).await?);
            drop(place);
            Ok(Connection {
                line,
                reused: false,
            })
        };
        self.config.in_time(having).await
    }

    /// The right to make a connection, or a place in the queue.
    pub(super) fn place(self: &Arc<Self>) -> Result<Place, oneshot::Receiver<Turn>> {
        let mut idle = self.idle.lock();
        if idle.connecting < CONNECTING {
            idle.connecting += 1;
            return Ok(Place(Arc::clone(self)));
        }
        let (turn, waiting) = oneshot::channel();
        // Those who left are not more than those who are there, and it all ends with the crowd.
        if idle.waiting.len() == idle.waiting.capacity() {
            idle.waiting.retain(|one| !one.is_closed());
        }
        idle.waiting.push_back(turn);
        Err(waiting)
    }

    fn take_idle(&self) -> Option<Line> {
        let now = Instant::now();
        let mut idle = self.idle.lock();
        // The newest first, so that those which are not needed age out.
        while let Some(mut kept) = idle.lines.pop() {
            if now.saturating_duration_since(kept.since) > self.config.idle {
                idle.lines.clear();
                return None;
            }
            if kept.line.is_silent() {
                return Some(kept.line);
            }
        }
        None
    }

    pub(super) fn keep(self: &Arc<Self>, line: Line) {
        if self.closed.load(Relaxed) {
            return;
        }
        let mut line = line;
        let mut idle = self.idle.lock();
        while let Some(next) = idle.waiting.pop_front() {
            match next.send(Turn::Kept(line)) {
                Err(Turn::Kept(back)) => line = back,
                Ok(()) | Err(Turn::New(_)) => return,
            }
        }
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
