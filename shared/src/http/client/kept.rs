//! Unused connections: when one may be used again, and that every other one is closed.

use std::{
    sync::{Arc, Weak, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

use super::{Inner, line::Line};

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
