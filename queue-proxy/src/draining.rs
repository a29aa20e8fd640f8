//! The drain of one pod, from the signal to the moment it may go.

use std::{sync::Arc, time::Duration};

use shared::{
    clock,
    http::serve::{Disposer, Disposition},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use crate::{drain::Rule, stats::Stats};

/// How long a model's preStop waits for the sidecar's: both are sent at the same moment, in no order.
const SIGNAL_PATIENCE: Duration = Duration::from_secs(1);

/// The drain of a pod: begun once, watched by several.
#[derive(Debug)]
pub(crate) struct Drain {
    begun: watch::Sender<Option<Instant>>,
    rule: Rule,
    grace: Duration,
    stats: Arc<Stats>,
}

/// Once a drain has begun, connections are closed after their next answer.
pub(crate) async fn close_when_draining(drain: Arc<Drain>, disposers: Vec<Disposer>) {
    if drain
        .begun
        .subscribe()
        .wait_for(Option::is_some)
        .await
        .is_ok()
    {
        for disposer in disposers {
            disposer.set(Disposition::CloseAfterAnswer);
        }
    }
}

impl Drain {
    /// Not begun.
    pub(crate) fn new(rule: Rule, grace: Duration, stats: Arc<Stats>) -> Self {
        Self {
            begun: watch::channel(None).0,
            rule,
            grace,
            stats,
        }
    }

    /// Begins; later calls change nothing.
    pub(crate) fn begin(&self) {
        self.begun
            .send_if_modified(|at| at.is_none() && at.replace(Instant::now()).is_none());
        self.stats.set_draining();
    }

    /// Waits until drained if a drain has begun or begins within a moment; else returns.
    pub(crate) async fn wait_if_begun(&self) {
        let mut begun = self.begun.subscribe();
        let begun = timeout(SIGNAL_PATIENCE, begun.wait_for(Option::is_some))
            .await
            .is_ok_and(|r| r.is_ok());
        if begun {
            self.drained(self.rule).await;
        }
    }

    /// Waits until drained by `rule`, at most for the grace period.
    pub(crate) async fn drained(&self, rule: Rule) {
        let begun = self.begun.borrow().unwrap_or_else(Instant::now);
        loop {
            let arrival = match self.stats.last_arrival_us() {
                0 => None,
                at => Some(Duration::from_micros(clock::micros().saturating_sub(at))),
            };
            let since = begun.elapsed();
            match rule.remaining(since, arrival, self.stats.open()) {
                Some(wait) if since < self.grace => {
                    sleep(wait.min(self.grace.saturating_sub(since))).await;
                }
                _ => return,
            }
        }
    }
}
