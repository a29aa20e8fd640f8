//! What activators hold: each of them is asked once a second for all workloads together.
//!
//! Memory is bounded by what activators name now and controllers take: whatever is told of a workload is kept for a while
//! only, whether it is no more, was never ours, or its activator went silent.

use std::{collections::HashSet, net::SocketAddr, sync::Arc, time::Duration};

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

/// What is told of a workload and not taken for so long is forgotten: it is another autoscaler's, or nobody's. A controller
/// takes every second, or some seconds later while it waits for a write.
const WANTED: Duration = Duration::from_secs(30);

/// Whoever has not answered for so long is named in the log. A restart is over by then.
const SILENT: Duration = Duration::from_secs(30);

/// What is held for each workload, from all activators.
#[derive(Clone, Debug, Default)]
pub struct Holds {
    workloads: Arc<DashMap<TargetId, Pending>>,
    /// When every activator was last heard of; none before the first time.
    heard: Arc<Mutex<Option<Instant>>>,
}

/// What was told of a workload and not yet taken.
#[derive(Debug)]
struct Pending {
    held: Vec<Held>,
    seconds: Vec<Dated>,
    /// When it was last taken, or first told.
    taken: Instant,
}

/// Requests that one activator held when it was asked.
#[derive(Debug)]
struct Held {
    activator: SocketAddr,
    requests: u64,
    told: Instant,
}

/// An activator that is asked.
type Asked = (SocketAddr, Source, Silence);

/// Since when an activator has not answered.
#[derive(Debug, Default)]
struct Silence {
    since: Option<Instant>,
    told: bool,
}

impl Silence {
    /// It was asked. True once, when it has not answered for so long that somebody should know.
    fn asked(&mut self, answered: bool, now: Instant) -> bool {
        if answered {
            *self = Self::default();
            return false;
        }
        let since = *self.since.get_or_insert(now);
        let tell = !self.told && now.saturating_duration_since(since) >= SILENT;
        self.told |= tell;
        tell
    }
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
                held: pending.held(),
                seconds: pending.take(),
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
        let mut sources: Vec<Asked> = Vec::new();
        let mut tick = interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let wanted = activators.borrow().clone();
            sources.retain(|(address, source, _)| {
                let stays = wanted.contains(address);
                if !stays {
                    source.close();
                    self.drop_activator(*address);
                }
                stays
            });
            for address in wanted {
                if !sources.iter().any(|(known, ..)| *known == address) {
                    sources.push((address, Source::new(address), Silence::default()));
                }
            }
            self.round(&mut sources).await;
            self.tidy();
        }
    }

    /// One GET per activator, all at once.
    async fn round(&self, sources: &mut Vec<Asked>) {
        let mut asking = JoinSet::new();
        for (address, source, silence) in std::mem::take(sources) {
            asking.spawn(async move {
                let answer = source.ask(ACTIVATOR_MAX_BYTES).await;
                (address, source, silence, answer)
            });
        }
        let mut complete = !asking.is_empty();
        while let Some(asked) = asking.join_next().await {
            let Ok((address, mut source, mut silence, answer)) = asked else {
                complete = false;
                continue;
            };
            let answer = answer.and_then(|bytes| Ok(ActivatorStat::decode(&bytes)?));
            let tell = silence.asked(answer.is_ok(), Instant::now());
            match answer {
                Ok(stat) => self.absorb(address, &mut source, &stat),
                Err(error) => {
                    complete = false;
                    names::AUTOSCALER_SCRAPES
                        .counter(&["activators", "error"])
                        .increment(1);
                    tracing::debug!(%address, %error, "Activator not scraped");
                    if tell {
                        tracing::warn!(
                            %address, %error,
                            "An activator has not answered for {} s: until it does or is gone, no workload goes to zero",
                            SILENT.as_secs()
                        );
                    }
                }
            }
            sources.push((address, source, silence));
        }
        if complete {
            *self.heard.lock() = Some(Instant::now());
        }
    }

    fn absorb(&self, address: SocketAddr, source: &mut Source, stat: &ActivatorStat) {
        let mut named = HashSet::new();
        // One answer is for many workloads, but what was seen is noted once: all are dated from the same state.
        let seen = source.mark();
        for workload in &stat.workloads {
            let Ok(target) = workload.target.parse::<TargetId>() else {
                continue;
            };
            source.reset(seen);
            let dated = source.take(stat.boot, stat.last_second, &workload.seconds, now());
            let mut pending = self
                .workloads
                .entry(target.clone())
                .or_insert_with(Pending::new);
            pending.held.retain(|held| held.activator != address);
            pending.held.push(Held {
                activator: address,
                requests: workload.held,
                told: Instant::now(),
            });
            if pending.seconds.len() < MAX_PENDING {
                pending.seconds.extend(dated);
            }
            named.insert(target);
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
                    .retain(|held| held.activator != address);
            }
        }
        names::AUTOSCALER_SCRAPES
            .counter(&["activators", "ok"])
            .increment(1);
    }

    /// As if all activators had just answered, and held nothing.
    #[cfg(test)]
    pub(crate) fn hear_nothing(&self) {
        *self.heard.lock() = Some(Instant::now());
    }

    fn drop_activator(&self, address: SocketAddr) {
        for mut entry in self.workloads.iter_mut() {
            entry
                .value_mut()
                .held
                .retain(|held| held.activator != address);
        }
    }

    /// Forgets what is too old to say anything, and workloads that no activator names or nobody asks for.
    fn tidy(&self) {
        self.workloads.retain(|_, pending| {
            pending.held.retain(Held::is_fresh);
            let told = !pending.held.is_empty() || !pending.seconds.is_empty();
            told && pending.taken.elapsed() < WANTED
        });
    }
}

impl Pending {
    fn new() -> Self {
        Self {
            held: Vec::new(),
            seconds: Vec::new(),
            taken: Instant::now(),
        }
    }

    /// Requests held, as far as was told lately.
    fn held(&self) -> u64 {
        let fresh = self.held.iter().filter(|held| held.is_fresh());
        fresh.map(|held| held.requests).sum()
    }

    fn take(&mut self) -> Vec<Dated> {
        self.taken = Instant::now();
        std::mem::take(&mut self.seconds)
    }
}

impl Held {
    fn is_fresh(&self) -> bool {
        self.told.elapsed() < FRESH
    }
}

#[cfg(test)]
mod tests {
    use shared::{
        load::Second,
        stat::{HoldStat, VERSION},
    };
    use tokio::time::advance;

    use super::*;

    /// Two activators, and what they say.
    struct Told {
        holds: Holds,
        sources: [(SocketAddr, Source); 2],
        second: u64,
    }

    impl Told {
        fn new() -> Self {
            let source = |port| {
                let address = SocketAddr::from(([127, 0, 0, 1], port));
                (address, Source::new(address))
            };
            Self {
                holds: Holds::default(),
                sources: [source(1), source(2)],
                second: 0,
            }
        }

        /// The activator of that number holds one request for each of `targets`.
        fn tells(&mut self, activator: usize, targets: &[&str]) {
            let last_second = self.second;
            let workload = |target: &&str| HoldStat {
                target: (*target).to_owned(),
                held: 1,
                seconds: vec![Second {
                    second: last_second,
                    ..Second::default()
                }],
            };
            let stat = ActivatorStat {
                version: VERSION,
                boot: 1,
                last_second,
                workloads: targets.iter().map(workload).collect(),
            };
            let (address, source) = &mut self.sources[activator];
            self.holds.absorb(*address, source, &stat);
        }

        async fn second(&mut self) {
            self.second += 1;
            advance(Duration::from_secs(1)).await;
            self.holds.tidy();
        }
    }

    fn id(target: &str) -> TargetId {
        target.parse().unwrap()
    }

    #[test]
    fn an_activator_that_stays_silent_is_named_once_until_it_has_answered() {
        let mut silence = Silence::default();
        let start = Instant::now();
        let mut told = Vec::new();
        for second in 0..100_u32 {
            if silence.asked(second == 50, start + Duration::from_secs(1) * second) {
                told.push(second);
            }
        }
        assert_eq!(told, [30, 81]);
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn what_an_activator_that_went_silent_held_is_dropped_when_it_is_old() {
        let mut told = Told::new();
        told.tells(0, &["a/a"]);
        told.tells(1, &["a/a"]);
        assert_eq!(told.holds.take(&id("a/a")).held, 2);
        advance(FRESH).await;
        told.tells(1, &["a/a"]);
        assert_eq!(told.holds.take(&id("a/a")).held, 1);
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn a_workload_that_no_activator_names_is_forgotten_once_it_was_taken() {
        let mut told = Told::new();
        told.tells(0, &["a/gone", "a/stays"]);
        told.second().await;
        told.tells(0, &["a/stays"]);
        told.second().await;
        let taken = told.holds.take(&id("a/gone"));
        assert_eq!((taken.held, taken.seconds.len()), (0, 1));
        told.second().await;
        assert_eq!(told.holds.workloads.len(), 1);
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn what_nobody_takes_is_forgotten() {
        let mut told = Told::new();
        for _ in 0..WANTED.as_secs() * 3 {
            told.tells(0, &["a/ours", "a/other"]);
            told.holds.take(&id("a/ours"));
            told.second().await;
            let pending = told.holds.workloads.get(&id("a/other"));
            let kept = pending.map_or(0, |pending| pending.seconds.len());
            assert!(kept as u64 <= WANTED.as_secs(), "{kept} seconds kept");
        }
        told.tells(0, &["a/ours"]);
        for _ in 0..WANTED.as_secs() {
            told.second().await;
            told.holds.take(&id("a/ours"));
        }
        assert!(told.holds.workloads.is_empty());
    }
}
