//! What all pods of a workload saw: every pod is asked, or of a large fleet a sample that stands for all.
//!
//! What must stay true: a second of a pod counts once; a pod that hangs costs the others nothing, since all are asked at
//! once and each has its own limit; what could not be asked is not taken for zero. A sample says nothing about whether
//! anything is open, so that nothing goes to zero by it: on the way there all pods are asked again.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use autoscaler_core::{
    Candidate, Moment, Policy, Sample, enough, extrapolate, in_order, pods_to_ask,
};
use shared::{
    TargetId,
    load::{SECONDS, Second},
    metrics as names,
    stat::{MAX_BYTES, PodStat},
};
use tokio::task::JoinSet;

use crate::{
    Pod, Target,
    scrape::{Source, now},
};

/// A pod that was not heard of so many times is missing: nothing is taken away while one is. So it is if too few of a
/// sample answered that often.
const MISSING_AFTER: u32 = 3;
/// For how long a pod that could not be asked is left out of samples while there are others.
const AVOIDED: Duration = Duration::from_secs(10);

/// All pods of a workload.
#[derive(Debug, Default)]
pub(crate) struct Fleet {
    pods: HashMap<Arc<str>, Watched>,
    /// The last second of ours that was asked for.
    asked: Option<u64>,
    /// Rounds in a row in which too few of a sample answered.
    short: u32,
    /// Draws samples.
    random: RandomState,
    rounds: u64,
}

/// A pod as it is known.
#[derive(Debug)]
struct Watched {
    source: Source,
    address: SocketAddr,
    /// When it was first seen.
    since: Moment,
    /// Open requests, if the last scrape succeeded.
    open: Option<u64>,
    failures: u32,
    failed: Option<Moment>,
}

/// What one round of scraping found.
#[derive(Debug, Default)]
pub(crate) struct Round {
    pub(crate) samples: Vec<(Moment, Sample)>,
    /// Open requests of all pods; none if one could not be asked, or was not.
    pub(crate) open: Option<u64>,
    /// A ready pod has not been heard of for a while.
    pub(crate) missing: bool,
}

/// Answers by pod, each with the time at which it came.
type Answers = HashMap<Arc<str>, (Moment, PodStat)>;

impl Fleet {
    /// One round.
    pub(crate) async fn round(&mut self, id: &TargetId, seen: &Target) -> Round {
        self.follow(seen);
        let ready: Vec<_> = seen.pods.iter().filter(|pod| pod.ready).collect();
        // Asking all is exact, and as many small answers a second are little work.
        if pods_to_ask(count(&ready), seen.spec.policy) < count(&ready) {
            self.sample(id, seen, &ready).await
        } else {
            self.all(id, seen).await
        }
    }

    /// Open requests of each pod, as far as the last scrape told.
    pub(crate) fn open(&self) -> Vec<(Arc<str>, Option<u64>)> {
        let pods = self.pods.iter();
        pods.map(|(uid, watched)| (Arc::clone(uid), watched.open))
            .collect()
    }

    /// Takes in which pods there are.
    fn follow(&mut self, seen: &Target) {
        self.pods.retain(|uid, watched| {
            let stays = seen.pods.iter().any(|pod| pod.uid == *uid);
            if !stays {
                watched.source.close();
            }
            stays
        });
        for pod in &seen.pods {
            if let Some(watched) = self.pods.get_mut(&pod.uid)
                && watched.address != pod.stats
            {
                // It was seen before it had an address.
                watched.source.close();
                watched.source = Source::new(pod.stats);
                watched.address = pod.stats;
            }
            self.pods
                .entry(Arc::clone(&pod.uid))
                .or_insert_with(|| Watched {
                    source: Source::new(pod.stats),
                    address: pod.stats,
                    since: now(),
                    open: None,
                    failures: 0,
                    failed: None,
                });
        }
    }

    /// Asks every pod.
    async fn all(&mut self, id: &TargetId, seen: &Target) -> Round {
        self.asked = Some(now().as_secs());
        self.short = 0;
        // A pod that has no address yet has nothing open: requests come to addresses.
        let has_address = |pod: &&Pod| pod.ready || !pod.stats.ip().is_unspecified();
        let pods = || seen.pods.iter().filter(has_address);
        let uids = pods().map(|pod| Arc::clone(&pod.uid)).collect();
        let answers = self.ask(id, uids).await;
        let mut round = Round {
            open: Some(0),
            ..Round::default()
        };
        for pod in pods() {
            let Some(watched) = self.pods.get_mut(&pod.uid) else {
                round.open = None;
                continue;
            };
            if let Some((at, stat)) = answers.get(&pod.uid) {
                if watched.source.restarted(stat.boot) {
                    tracing::info!(target = %id, pod = %pod.uid, "Queue-proxy was restarted");
                }
                let dated = watched
                    .source
                    .take(stat.boot, stat.last_second, &stat.seconds, *at);
                let samples = dated.iter().map(|dated| (dated.at, sample(&dated.second)));
                round.samples.extend(samples);
            }
            round.missing |= pod.ready && watched.failures >= MISSING_AFTER;
            round.open = round.open.zip(watched.open).map(|(sum, open)| sum + open);
        }
        round
    }

    /// Asks a sample of the ready pods, and takes its mean for that of all.
    async fn sample(&mut self, id: &TargetId, seen: &Target, ready: &[&Pod]) -> Round {
        let at = now();
        self.rounds += 1;
        let policy = seen.spec.policy;
        let chosen = self.choose(at, ready, seen.spec.stable_window, policy);
        for uid in &chosen {
            // The others stood for it since it was last asked: what it saw meanwhile is counted.
            if let Some(watched) = self.pods.get_mut(uid) {
                watched.source.forget();
            }
        }
        let wanted = count(&chosen);
        let answers = self.ask(id, chosen).await;
        let stats: Vec<_> = answers.into_values().map(|(_, stat)| stat).collect();
        let mut round = Round::default();
        if let Err(few) = enough(count(&stats), wanted, policy) {
            tracing::debug!(target = %id, %few, "Sample not counted");
            // Their seconds are still there in the next round.
            self.short = self.short.saturating_add(1);
            round.missing = self.short >= MISSING_AFTER;
            return round;
        }
        self.short = 0;
        let last = self.asked.replace(at.as_secs());
        let seconds = last.map_or(1, |last| at.as_secs().saturating_sub(last));
        round.samples = stand_in(&stats, count(ready), at, seconds.min(SECONDS as u64 - 1));
        round
    }

    /// The pods to ask: those that have been there for a stable window first, since younger ones have not yet got their
    /// share of the load; those that could not be asked lately last; otherwise by lot.
    fn choose(
        &self,
        at: Moment,
        ready: &[&Pod],
        window: Duration,
        policy: Policy,
    ) -> Vec<Arc<str>> {
        let candidates = ready.iter().map(|pod| {
            let watched = self.pods.get(&pod.uid);
            let failed = watched.and_then(|watched| watched.failed);
            Candidate {
                pod: &pod.uid,
                age: watched.map_or(Duration::ZERO, |watched| at.since(watched.since)),
                avoided: failed.is_some_and(|failed| at.since(failed) < AVOIDED),
                lot: self.random.hash_one((self.rounds, &pod.uid)),
            }
        });
        let order = in_order(candidates.collect(), window);
        let size = pods_to_ask(count(ready), policy);
        let chosen = order.into_iter().take(size as usize);
        chosen.map(Arc::clone).collect()
    }

    /// Asks these pods, all at once. Who is not in the answer did not answer, or was another pod.
    async fn ask(&mut self, id: &TargetId, uids: Vec<Arc<str>>) -> Answers {
        let mut asking = JoinSet::new();
        for uid in uids {
            let Some(watched) = self.pods.remove(&uid) else {
                continue;
            };
            asking.spawn(async move {
                let answer = watched.source.ask(MAX_BYTES).await;
                (uid, watched, answer, now())
            });
        }
        let mut answers = Answers::new();
        let (mut ok, mut failed) = (0, 0);
        while let Some(asked) = asking.join_next().await {
            let Ok((uid, mut watched, answer, at)) = asked else {
                continue;
            };
            match answer.and_then(|bytes| Ok(PodStat::decode(&bytes)?)) {
                Ok(stat) if *stat.pod_uid == *uid => {
                    ok += 1;
                    watched.failures = 0;
                    watched.failed = None;
                    watched.open = Some(stat.open);
                    answers.insert(Arc::clone(&uid), (at, stat));
                }
                other => {
                    failed += 1;
                    watched.failures = watched.failures.saturating_add(1);
                    watched.failed = Some(at);
                    watched.open = None;
                    let error = other
                        .err()
                        .map_or_else(|| "another pod answered".to_owned(), |e| e.to_string());
                    tracing::debug!(target = %id, pod = %uid, error, "Pod not scraped");
                }
            }
            self.pods.insert(uid, watched);
        }
        for (result, times) in [("ok", ok), ("error", failed)] {
            if times > 0 {
                let values = [&*id.to_string(), result];
                names::AUTOSCALER_SCRAPES.counter(&values).increment(times);
            }
        }
        answers
    }
}

/// What one second of a pod measures. What it handed on to an activator is counted by the pod that takes it.
#[allow(
    clippy::cast_precision_loss,
    reason = "counts and microseconds of a second stay far below 2^52"
)]
pub(crate) fn sample(second: &Second) -> Sample {
    Sample {
        concurrency: (second.in_flight_us + second.waiting_us) as f64 / 1e6,
        requests: second.started as f64 - second.released as f64,
        waiting: second.waiting_us as f64 / 1e6,
        ended: second.ended as f64,
    }
}

/// The last `seconds` seconds of all `ready` pods, as far as the mean of these says. As with one pod, the last whole second
/// is dated now.
fn stand_in(stats: &[PodStat], ready: u32, at: Moment, seconds: u64) -> Vec<(Moment, Sample)> {
    let second = |back: u64| {
        let told = stats.iter().filter_map(|stat| {
            let number = stat.last_second.checked_sub(back)?;
            stat.seconds.iter().find(|second| second.second == number)
        });
        // Who does not tell of a second saw nothing in it.
        let sample = extrapolate(told.map(sample), count(stats), ready);
        (Moment::from_secs(at.as_secs().saturating_sub(back)), sample)
    };
    (0..seconds).map(second).collect()
}

fn count<T>(of: &[T]) -> u32 {
    u32::try_from(of.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
