//! One task per workload that does what no request does by itself: learn of pods, wake, dispatch on time, and close
//! connections that need not come through here.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use shared::{
    http::serve::{Disposer, Disposition},
    metrics as names,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};

use crate::{Endpoints, InPath, WakeOutcome, workload::Workload};

/// Limit on one write of the scale.
const WAKE_LIMIT: Duration = Duration::from_secs(5);
/// How long the effect of a write may take to show before it is written again.
const SETTLE: Duration = Duration::from_secs(2);

/// Runs until `endpoints` is closed.
pub(crate) async fn conduct(
    workload: Arc<Workload>,
    mut endpoints: watch::Receiver<Arc<Endpoints>>,
    disposers: Vec<Disposer>,
) {
    let mut waking: Option<tokio::task::JoinHandle<bool>> = None;
    let mut backoff = Backoff::default();
    let mut routing = Routing::default();
    let mut changed = true;
    let mut replicas = 0;
    loop {
        if std::mem::take(&mut changed) {
            let seen = Arc::clone(&endpoints.borrow_and_update());
            workload.apply(&seen);
            replicas = seen.replicas;
        }
        if replicas > 0 && waking.is_none() {
            // A write has shown its effect: the next sleep may be ended at once.
            backoff = Backoff::default();
        }
        workload.dispatch();
        let now = Instant::now();
        if waking.is_none() && workload.needs_wake() && backoff.may_try(now) {
            waking = Some(tokio::spawn(wake(Arc::clone(&workload))));
        }
        let routed = routing.update(&workload, &disposers, now);
        let retry = (waking.is_none() && workload.needs_wake()).then_some(backoff.next);
        let next = [workload.next_wakeup(), retry.flatten(), routed]
            .into_iter()
            .flatten()
            .min();
        tokio::select! {
            seen = endpoints.changed() => match seen {
                Ok(()) => changed = true,
                Err(_) => return,
            },
            () = workload.kick.notified() => {}
            () = until(next) => {}
            woken = finished(&mut waking) => {
                waking = None;
                backoff.tried(woken, Instant::now());
            }
        }
    }
}

/// Writes the scale, once. True if it has or had what it needs.
async fn wake(workload: Arc<Workload>) -> bool {
    let replicas = workload.config().wake_replicas;
    workload.mark(|t| t.patch_sent = Some(Instant::now()));
    let outcome = timeout(
        WAKE_LIMIT,
        workload.process.scale.wake(workload.id(), replicas),
    )
    .await;
    let count = |result| {
        names::ACTIVATOR_WAKES
            .counter(&[&workload.id().to_string(), result])
            .increment(1);
    };
    match outcome {
        Ok(Ok(WakeOutcome::Woken)) => {
            workload.mark(|t| t.patched = Some(Instant::now()));
            count("woken");
            tracing::info!(target = %workload.id(), replicas, "Woken");
            true
        }
        Ok(Ok(WakeOutcome::NotAtZero)) => {
            count("not-at-zero");
            true
        }
        Ok(Err(error)) => {
            count("error");
            tracing::warn!(%error, "Cannot wake");
            false
        }
        Err(_) => {
            count("timeout");
            tracing::warn!(target = %workload.id(), limit = ?WAKE_LIMIT, "No answer to a wake");
            false
        }
    }
}

/// When the next write may be made.
#[derive(Debug, Default)]
struct Backoff {
    next: Option<Instant>,
    failures: u32,
}

impl Backoff {
    fn may_try(&self, now: Instant) -> bool {
        self.next.is_none_or(|at| now >= at)
    }

    /// After a success the effect gets time to show; after failures 50 ms, doubled up to about 2 s.
    fn tried(&mut self, success: bool, now: Instant) {
        self.failures = if success {
            0
        } else {
            (self.failures + 1).min(6)
        };
        let pause = if success {
            SETTLE
        } else {
            Duration::from_millis(25 << self.failures)
        };
        self.next = Some(now + pause);
    }
}

/// What becomes of connections, after [`InPath`].
#[derive(Debug, Default)]
struct Routing {
    ready_since: Option<Instant>,
}

impl Routing {
    /// Sets dispositions; returns when to look again.
    fn update(
        &mut self,
        workload: &Workload,
        disposers: &[Disposer],
        now: Instant,
    ) -> Option<Instant> {
        let set = |disposition| disposers.iter().for_each(|d| d.set(disposition));
        if workload.process.stopping.load(Relaxed) {
            set(Disposition::CloseAfterAnswer);
            return None;
        }
        let InPath::UntilReady(delay) = workload.config().in_path else {
            set(Disposition::Keep);
            return None;
        };
        if !workload.any_ready() {
            self.ready_since = None;
            set(Disposition::Keep);
            return None;
        }
        let since = *self.ready_since.get_or_insert(now);
        let idle_from = since + delay;
        if now < idle_from {
            set(Disposition::CloseAfterAnswer);
            return Some(idle_from);
        }
        set(Disposition::CloseIdle);
        None
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn finished(task: &mut Option<tokio::task::JoinHandle<bool>>) -> bool {
    match task {
        // A task that panicked has not woken anything.
        Some(task) => task.await.unwrap_or(false),
        None => std::future::pending().await,
    }
}
