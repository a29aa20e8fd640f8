//! One task per workload that does what no request does by itself: learn of pods, wake, dispatch on time, and close
//! connections that need not come through here.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use shared::{http::serve::Disposition, metrics as names};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use self::backoff::Backoff;
use crate::{Endpoints, InPath, WakeOutcome, run::Listeners, workload::Workload};

mod backoff;

/// Limit on one write of the scale.
const WAKE_LIMIT: Duration = Duration::from_secs(5);

/// Runs until `endpoints` is closed, which ends the workload: where its pods are nobody would say any more.
pub(crate) async fn conduct(
    workload: Arc<Workload>,
    mut endpoints: watch::Receiver<Arc<Endpoints>>,
    listeners: Arc<Listeners>,
) {
    // At most one; a set, because dropping it ends what is in it.
    let mut waking: JoinSet<()> = JoinSet::new();
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
        if replicas > 0 && waking.is_empty() {
            // A write has shown its effect: the next sleep may be ended at once.
            backoff = Backoff::default();
        }
        workload.dispatch();
        let now = Instant::now();
        if waking.is_empty() && workload.needs_wake() && backoff.may_try(now) {
            waking.spawn(wake(Arc::clone(&workload)));
        }
        let routed = routing.update(&workload, &listeners, now);
        let retry = (waking.is_empty() && workload.needs_wake()).then(|| backoff.next());
        let next = [workload.next_wakeup(), retry.flatten(), routed]
            .into_iter()
            .flatten()
            .min();
        tokio::select! {
            told = endpoints.changed() => {
                if told.is_err() {
                    tracing::error!(target = %workload.id(), "Nobody tells what pods there are: removed");
                    workload.remove();
                    return;
                }
                changed = true;
            }
            () = workload.kick.notified() => {}
            () = until(next) => {}
            // Also if it panicked.
            Some(_) = waking.join_next() => backoff.tried(Instant::now()),
        }
    }
}

/// Writes the scale, once.
async fn wake(workload: Arc<Workload>) {
    let replicas = workload.config().wake_replicas;
    workload.mark(|t| {
        // One that only asks whether the last one still stands is no part of the start.
        if t.patched.is_none() {
            t.patch_sent = Some(Instant::now());
        }
    });
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
        }
        Ok(Ok(WakeOutcome::NotAtZero)) => count("not-at-zero"),
        Ok(Err(error)) => {
            count("error");
            tracing::warn!(%error, "Cannot wake");
        }
        Err(_) => {
            count("timeout");
            tracing::warn!(target = %workload.id(), limit = ?WAKE_LIMIT, "No answer to a wake");
        }
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
        listeners: &Listeners,
        now: Instant,
    ) -> Option<Instant> {
        let set = |disposition| listeners.set(disposition);
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

#[cfg(test)]
mod tests;
