//! The pod's account: every request is waiting, in flight, relayed or gone, and each second is remembered.
//!
//! A relayed request is no load of the pod: whoever holds it counts it, and then the pod that takes it. It only keeps this one
//! open, since its bytes pass through here.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use shared::{
    clock,
    load::{Count, Gauge, Ring},
    stat::{PodStat, VERSION, boot_number},
};

/// Counts of one pod.
#[derive(Debug)]
pub struct Stats {
    pod_uid: String,
    boot: u64,
    ring: Mutex<Ring>,
    open: AtomicU64,
    started: AtomicU64,
    ended: AtomicU64,
    /// What comes to it from a gauge or goes to one does so under the lock of the ring, so that nobody sees a request twice.
    relayed: AtomicU64,
    relayed_total: AtomicU64,
    draining: AtomicBool,
    last_arrival_us: AtomicU64,
    recent: Mutex<Recent>,
}

/// Times to the last byte of the most recent requests, for people who watch.
#[derive(Debug)]
struct Recent {
    micros: [u32; RECENT],
    count: usize,
}

/// Requests whose times are remembered: enough for a steady median, little enough to sort while somebody watches.
const RECENT: usize = 256;

/// One request in the account, from its arrival until this is dropped.
#[derive(Debug)]
pub struct Entry {
    stats: Arc<Stats>,
    gauge: Option<Gauge>,
    /// Counted as a request of some second.
    counted: bool,
    /// It is on its way through here to the activators.
    relayed: bool,
}

impl Stats {
    /// An empty account of the pod `pod_uid`.
    pub fn new(pod_uid: String) -> Arc<Self> {
        Arc::new(Self {
            pod_uid,
            boot: boot_number(),
            ring: Mutex::new(Ring::new(clock::micros())),
            open: AtomicU64::new(0),
            started: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            relayed: AtomicU64::new(0),
            relayed_total: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            last_arrival_us: AtomicU64::new(0),
            recent: Mutex::new(Recent {
                micros: [0; RECENT],
                count: 0,
            }),
        })
    }

    /// A request arrives and waits. `counts` is false for probe paths: they keep the pod open but are no load.
    pub fn arrive(self: &Arc<Self>, counts: bool) -> Entry {
        let now = clock::micros();
        self.open.fetch_add(1, Relaxed);
        self.started.fetch_add(1, Relaxed);
        self.last_arrival_us.store(now, Relaxed);
        if counts {
            let mut ring = self.ring.lock();
            ring.count(now, Count::Started);
            ring.enter(now, Gauge::Waiting);
        }
        Entry {
            stats: Arc::clone(self),
            gauge: counts.then_some(Gauge::Waiting),
            counted: counts,
            relayed: false,
        }
    }

    /// A request arrives that is for the activators.
    pub fn relay(self: &Arc<Self>) -> Entry {
        self.open.fetch_add(1, Relaxed);
        self.last_arrival_us.store(clock::micros(), Relaxed);
        self.relayed.fetch_add(1, Relaxed);
        Entry {
            stats: Arc::clone(self),
            gauge: None,
            counted: false,
            relayed: true,
        }
    }

    /// A slot is reserved for a request that follows. It is load from now on, but a request of the second in which it
    /// comes, if it is one: only then is its path known, and it may never come.
    pub fn reserve(self: &Arc<Self>) -> Entry {
        let now = clock::micros();
        self.open.fetch_add(1, Relaxed);
        self.started.fetch_add(1, Relaxed);
        self.last_arrival_us.store(now, Relaxed);
        self.ring.lock().enter(now, Gauge::Waiting);
        Entry {
            stats: Arc::clone(self),
            gauge: Some(Gauge::Waiting),
            counted: false,
            relayed: false,
        }
    }

    /// Requests that are here in any form.
    pub fn open(&self) -> u64 {
        self.open.load(Relaxed)
    }

    /// In flight and waiting, probe paths left out.
    pub fn load(&self) -> u64 {
        let ring = self.ring.lock();
        ring.in_flight() + ring.waiting()
    }

    /// (in flight, waiting).
    pub fn gauges(&self) -> (u64, u64) {
        let ring = self.ring.lock();
        (ring.in_flight(), ring.waiting())
    }

    /// Requests that are on their way through here to the activators.
    pub fn relayed(&self) -> u64 {
        self.relayed.load(Relaxed)
    }

    /// Microseconds of the process clock at which the last request arrived; 0 if none has.
    pub fn last_arrival_us(&self) -> u64 {
        self.last_arrival_us.load(Relaxed)
    }

    /// A request took so long from admission to its last byte.
    pub fn took(&self, duration: Duration) {
        let mut recent = self.recent.lock();
        let at = recent.count % RECENT;
        recent.micros[at] = u32::try_from(duration.as_micros()).unwrap_or(u32::MAX);
        recent.count += 1;
    }

    /// Median time from admission to the last byte of the most recent requests.
    pub fn median(&self) -> Option<Duration> {
        let mut micros = {
            let recent = self.recent.lock();
            recent.micros[..recent.count.min(RECENT)].to_vec()
        };
        let middle = micros.len() / 2;
        let (_, median, _) = (!micros.is_empty()).then(|| micros.select_nth_unstable(middle))?;
        Some(Duration::from_micros(u64::from(*median)))
    }

    /// Requests since the start, and of them those that ended.
    pub fn totals(&self) -> (u64, u64) {
        (self.started.load(Relaxed), self.ended.load(Relaxed))
    }

    /// The pod is going away.
    pub fn set_draining(&self) {
        self.draining.store(true, Relaxed);
    }

    /// Whether the pod is going away.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// What the autoscaler is told, with the seconds after `since`.
    pub fn snapshot(&self, since: Option<u64>, ready: bool) -> PodStat {
        let now = clock::micros();
        let mut ring = self.ring.lock();
        PodStat {
            version: VERSION,
            pod_uid: self.pod_uid.clone(),
            boot: self.boot,
            last_second: Ring::last_whole(now),
            ready,
            draining: self.draining.load(Relaxed),
            open: self.open(),
            load: ring.in_flight() + ring.waiting(),
            relayed: self.relayed.load(Relaxed),
            relayed_total: self.relayed_total.load(Relaxed),
            started_total: self.started.load(Relaxed),
            ended_total: self.ended.load(Relaxed),
            seconds: ring.seconds_after(now, since),
        }
    }
}

impl Entry {
    /// The request that a slot was reserved for is here. `counts` as in [`Stats::arrive`].
    pub fn redeemed(&mut self, counts: bool) {
        let now = clock::micros();
        self.stats.last_arrival_us.store(now, Relaxed);
        let mut ring = self.stats.ring.lock();
        if counts {
            ring.count(now, Count::Started);
            self.counted = true;
        } else if let Some(gauge) = self.gauge.take() {
            ring.leave(now, gauge);
        }
    }

    /// The request goes to the model.
    pub fn admitted(&mut self) {
        if self.gauge == Some(Gauge::Waiting) {
            let now = clock::micros();
            let mut ring = self.stats.ring.lock();
            ring.leave(now, Gauge::Waiting);
            ring.enter(now, Gauge::InFlight);
            self.gauge = Some(Gauge::InFlight);
        }
    }

    /// The request is for the activators after all: the model took no connection.
    pub fn relay(&mut self) {
        if std::mem::replace(&mut self.relayed, true) {
            return;
        }
        let stats = Arc::clone(&self.stats);
        let mut ring = stats.ring.lock();
        self.leave(&mut ring, Count::Released);
        stats.ended.fetch_add(1, Relaxed);
        stats.relayed.fetch_add(1, Relaxed);
    }

    /// No activator took the request: it waits here. `counts` as in [`Stats::arrive`].
    pub fn stay(&mut self, counts: bool) {
        if !std::mem::replace(&mut self.relayed, false) {
            return;
        }
        let now = clock::micros();
        let mut ring = self.stats.ring.lock();
        self.stats.relayed.fetch_sub(1, Relaxed);
        self.stats.started.fetch_add(1, Relaxed);
        if counts {
            ring.count(now, Count::Started);
            ring.enter(now, Gauge::Waiting);
            self.gauge = Some(Gauge::Waiting);
            self.counted = true;
        }
    }

    /// It is neither waiting nor in flight any more, which counts as `count`.
    fn leave(&mut self, ring: &mut Ring, count: Count) {
        let now = clock::micros();
        if let Some(gauge) = self.gauge.take() {
            ring.leave(now, gauge);
            if std::mem::take(&mut self.counted) {
                ring.count(now, count);
            }
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let stats = Arc::clone(&self.stats);
        if self.relayed {
            stats.relayed.fetch_sub(1, Relaxed);
            stats.relayed_total.fetch_add(1, Relaxed);
        } else {
            if self.gauge.is_some() {
                self.leave(&mut stats.ring.lock(), Count::Ended);
            }
            stats.ended.fetch_add(1, Relaxed);
        }
        stats.open.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn a_request_is_waiting_then_in_flight_then_gone() {
        let stats = Stats::new("p".into());
        let mut entry = stats.arrive(true);
        let probe = stats.arrive(false);
        assert_eq!((stats.gauges(), stats.open(), stats.load()), ((0, 1), 2, 1));
        advance(Duration::from_millis(500)).await;
        entry.admitted();
        assert_eq!(stats.gauges(), (1, 0));
        advance(Duration::from_secs(2)).await;
        drop((entry, probe));
        let stat = stats.snapshot(None, true);
        assert_eq!(
            (stat.open, stat.load, stat.started_total, stat.ended_total),
            (0, 0, 2, 2)
        );
        let waited: u64 = stat.seconds.iter().map(|s| s.waiting_us).sum();
        assert_eq!(waited, 500_000);
        let started: u64 = stat.seconds.iter().map(|s| s.started).sum();
        assert_eq!(started, 1, "a probe is no load");
        PodStat::decode(&serde_json::to_vec(&stat).unwrap()).unwrap();
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn a_reservation_is_load_at_once_and_a_request_when_it_is_used_for_one() {
        let stats = Stats::new("p".into());
        let mut used = stats.reserve();
        let mut probe = stats.reserve();
        let unused = stats.reserve();
        assert_eq!((stats.gauges(), stats.open()), ((0, 3), 3));
        advance(Duration::from_secs(1)).await;
        used.redeemed(true);
        used.admitted();
        probe.redeemed(false);
        probe.admitted();
        assert_eq!((stats.gauges(), stats.open()), ((1, 1), 3));
        drop((used, probe, unused));
        advance(Duration::from_secs(1)).await;
        let stat = stats.snapshot(None, true);
        let sums = stat
            .seconds
            .iter()
            .fold((0, 0), |(started, ended), second| {
                (started + second.started, ended + second.ended)
            });
        assert_eq!(sums, (1, 1), "{stat:?}");
        assert_eq!((stat.load, stat.open), (0, 0));
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn a_relayed_request_keeps_the_pod_open_and_is_none_of_its_load() {
        let stats = Stats::new("p".into());
        let relayed = stats.relay();
        advance(Duration::from_secs(1)).await;
        assert_eq!(
            (stats.gauges(), stats.load(), stats.relayed()),
            ((0, 0), 0, 1)
        );
        let stat = stats.snapshot(None, true);
        assert_eq!((stat.open, stat.load, stat.relayed), (1, 0, 1));
        assert!(stat.seconds.iter().all(shared::load::Second::is_empty));
        drop(relayed);
        let stat = stats.snapshot(None, true);
        assert_eq!((stat.open, stat.relayed, stat.relayed_total), (0, 0, 1));
        assert_eq!(stats.totals(), (0, 0));
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn a_request_is_waiting_in_flight_or_relayed_and_the_net_of_it_is_one_or_none() {
        let stats = Stats::new("p".into());
        let now = || (stats.gauges(), stats.relayed(), stats.open());
        let (mut goes, mut remains) = (stats.arrive(true), stats.relay());
        let mut probe = stats.arrive(false);
        assert_eq!(now(), ((0, 1), 1, 3));
        goes.admitted();
        assert_eq!(now(), ((1, 0), 1, 3));
        goes.relay();
        goes.relay();
        probe.relay();
        assert_eq!(now(), ((0, 0), 3, 3));
        remains.stay(true);
        remains.stay(true);
        assert_eq!(now(), ((0, 1), 2, 3));
        remains.admitted();
        assert_eq!(now(), ((1, 0), 2, 3));
        drop((goes, remains, probe));
        assert_eq!(now(), ((0, 0), 0, 0));
        advance(Duration::from_secs(1)).await;
        let stat = stats.snapshot(None, true);
        let sum = |of: fn(&shared::load::Second) -> u64| stat.seconds.iter().map(of).sum::<u64>();
        let sums = (sum(|s| s.started), sum(|s| s.released), sum(|s| s.ended));
        assert_eq!(sums, (2, 1, 1), "one was handed on, one ended here");
        assert_eq!((stat.started_total, stat.ended_total), (3, 3));
        assert_eq!(stat.relayed_total, 2);
    }
}
