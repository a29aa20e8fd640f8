//! What activators hold: each of them is asked once a second for all workloads together.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use dashmap::DashMap;
use parking_lot::Mutex;
use shared::{
    TargetId, metrics as names,
    stat::{ACTIVATOR_MAX_BYTES, ActivatorStat},
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};

use crate::scrape::{Dated, Source, now};

/// An answer older than this says nothing about now.
const FRESH: Duration = Duration::from_secs(3);

/// What is held for each workload, from all activators.
#[derive(Clone, Debug, Default)]
pub struct Holds {
    workloads: Arc<DashMap<TargetId, Pending>>,
    /// When every activator was last heard of; none before the first time.
    heard: Arc<Mutex<Option<Instant>>>,
}

/// What was told of a workload and not yet taken.
#[derive(Debug, Default)]
struct Pending {
    /// Requests held now, by activator.
    held: Vec<(SocketAddr, u64)>,
    seconds: Vec<Dated>,
}

/// Seconds of one workload that wait to be taken. A controller takes them every second; more than a stable window of
/// several activators means that nobody does.
const MAX_PENDING: usize = 4_096;

/// What a controller takes.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pub(crate) held: u64,
    pub(crate) seconds: Vec<Dated>,
    /// Whether all activators answered lately. If not, `held` is a lower bound and nothing may go to zero.
    pub(crate) complete: bool,
}

impl Holds {
    /// Takes what is new for `target`.
    pub(crate) fn take(&self, target: &TargetId) -> Taken {
        let complete = self.heard.lock().is_some_and(|at| at.elapsed() < FRESH);
        match self.workloads.get_mut(target) {
            Some(mut pending) => Taken {
                held: pending.held.iter().map(|(_, held)| held).sum(),
                seconds: std::mem::take(&mut pending.seconds),
                complete,
            },
            None => Taken {
                complete,
                ..Taken::default()
            },
        }
    }

    /// Forgets a workload that is no more.
    pub fn forget(&self, target: &TargetId) {
        self.workloads.remove(target);
    }

    /// Asks `activators` once a second, for ever.
    pub async fn watch(self, activators: watch::Receiver<Vec<SocketAddr>>) {
        let mut sources: Vec<(SocketAddr, Source)> = Vec::new();
        let mut tick = interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let wanted = activators.borrow().clone();
            sources.retain(|(address, source)| {
                let stays = wanted.contains(address);
                if !stays {
                    source.close();
                    self.drop_activator(*address);
                }
                stays
            });
            for address in wanted {
                if !sources.iter().any(|(known, _)| *known == address) {
                    sources.push((address, Source::new(address)));
                }
            }
            self.round(&mut sources).await;
        }
    }

    /// One GET per activator, all at once.
    async fn round(&self, sources: &mut Vec<(SocketAddr, Source)>) {
        let mut asking = JoinSet::new();
        for (address, source) in std::mem::take(sources) {
            asking.spawn(async move {
                let answer = source.ask(ACTIVATOR_MAX_BYTES).await;
                (address, source, answer)
            });
        }
        let mut complete = !asking.is_empty();
        while let Some(asked) = asking.join_next().await {
            let Ok((address, mut source, answer)) = asked else {
                complete = false;
                continue;
            };
            match answer.and_then(|bytes| Ok(ActivatorStat::decode(&bytes)?)) {
                Ok(stat) => self.absorb(address, &mut source, &stat),
                Err(error) => {
                    complete = false;
                    names::AUTOSCALER_SCRAPES
                        .counter(&["activators", "error"])
                        .increment(1);
                    tracing::debug!(%address, %error, "Activator not scraped");
                }
            }
            sources.push((address, source));
        }
        if complete {
            *self.heard.lock() = Some(Instant::now());
        }
    }

    fn absorb(&self, address: SocketAddr, source: &mut Source, stat: &ActivatorStat) {
        let mut named = Vec::new();
        // One answer is for many workloads, but what was seen is noted once: all are dated from the same state.
        let seen = source.mark();
        for workload in &stat.workloads {
            let Ok(target) = workload.target.parse::<TargetId>() else {
                continue;
            };
            source.reset(seen);
            let dated = source.take(stat.boot, stat.last_second, &workload.seconds, now());
            let mut pending = self.workloads.entry(target.clone()).or_default();
            match pending.held.iter_mut().find(|(known, _)| *known == address) {
                Some((_, held)) => *held = workload.held,
                None => pending.held.push((address, workload.held)),
            }
            if pending.seconds.len() < MAX_PENDING {
                pending.seconds.extend(dated);
            }
            named.push(target);
        }
        if stat.workloads.is_empty() {
            source.take(stat.boot, stat.last_second, &[], now());
        }
        // A workload that this activator no longer names is not held there.
        for mut entry in self.workloads.iter_mut() {
            if !named.contains(entry.key()) {
                entry
                    .value_mut()
                    .held
                    .retain(|(known, _)| *known != address);
            }
        }
        names::AUTOSCALER_SCRAPES
            .counter(&["activators", "ok"])
            .increment(1);
    }

    fn drop_activator(&self, address: SocketAddr) {
        for mut entry in self.workloads.iter_mut() {
            entry
                .value_mut()
                .held
                .retain(|(known, _)| *known != address);
        }
    }
}
