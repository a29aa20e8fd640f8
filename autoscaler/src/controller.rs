//! The loop of one workload: scrape every second, decide every two, write what changed.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use autoscaler_core::{
    Decider, Decision, Learned, Mode, Moment, Observed, Reason, Replicas, Sample, TICK,
};
use parking_lot::Mutex;
use serde::Serialize;
use shared::{TargetId, clock, metrics as names};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, timeout},
};

use crate::{
    Holds, Scaler, Target,
    fleet::Fleet,
    net::Net,
    scrape::{Dated, now},
    starts::Starts,
};

/// Decisions that are remembered of each workload.
const REMEMBERED: usize = 64;
/// By how much the learned time of a request must have changed to be worth keeping anew.
const MOVED: f64 = 0.2;
/// Limit on one write.
const WRITE_LIMIT: Duration = Duration::from_secs(5);
/// Why the load is not known in full, if it is not.
const SILENT: &str =
    "ready pods do not answer at their port of statistics; is there a NetworkPolicy?";

/// A decision with the sentence that says it.
#[derive(Clone, Debug, Serialize)]
pub struct Explained {
    /// One sentence.
    pub explain: String,
    /// The decision with its inputs.
    pub decision: Decision,
    /// Whether a write followed, and what became of it.
    pub written: Option<&'static str>,
}

/// A decision as it is remembered: its sentence is made when somebody asks.
#[derive(Debug)]
struct Remembered {
    decision: Decision,
    written: Option<&'static str>,
}

/// The last decisions about one workload.
#[derive(Clone, Debug, Default)]
pub struct History(Arc<Mutex<VecDeque<Remembered>>>);

impl History {
    /// The last one; none before the first.
    pub fn latest(&self) -> Option<Decision> {
        self.0.lock().back().map(|last| last.decision)
    }

    /// All that are remembered, oldest first.
    pub fn explained(&self) -> Vec<Explained> {
        let history = self.0.lock();
        let explained = history.iter().map(|one| Explained {
            explain: one.decision.to_string(),
            decision: one.decision,
            written: one.written,
        });
        explained.collect()
    }

    fn remember(&self, decision: Decision, written: Option<&'static str>) {
        let mut history = self.0.lock();
        // Ticks that say the same again are one entry, or an idle workload would forget why it came to be so.
        let same = |last: &Remembered| {
            let key = |d: &Decision| (d.want, d.mode, std::mem::discriminant::<Reason>(&d.reason));
            key(&last.decision) == key(&decision) && last.written == written
        };
        if history.back().is_some_and(same) {
            history.pop_back();
        } else if history.len() >= REMEMBERED {
            history.pop_front();
        }
        // A workload that sleeps has one or two, and there are many of those: no room ahead for the first ones.
        if history.len() < 4 {
            history.reserve_exact(1);
        }
        history.push_back(Remembered { decision, written });
    }
}

/// What was learned and nobody has asked for yet.
type News = Arc<Mutex<Option<Learned>>>;

/// What a loop asks and tells.
struct Ends {
    holds: Holds,
    scaler: Arc<dyn Scaler>,
    history: History,
    news: News,
}

/// The control loop of one workload. Dropping it ends the loop.
#[derive(Debug)]
pub struct Controller {
    history: History,
    news: News,
    task: tokio::task::JoinHandle<()>,
}

impl Controller {
    /// Starts the loop, with what an earlier one has learned.
    pub fn spawn(
        id: TargetId,
        target: watch::Receiver<Arc<Target>>,
        holds: Holds,
        scaler: Arc<dyn Scaler>,
        learned: Learned,
    ) -> Self {
        let history = History::default();
        let news = News::default();
        let ends = Ends {
            holds,
            scaler,
            history: history.clone(),
            news: Arc::clone(&news),
        };
        let task = tokio::spawn(run(id, target, ends, Box::new(learned)));
        Self {
            history,
            news,
            task,
        }
    }

    /// What it has learned, if that has changed since this was asked last.
    pub fn news(&self) -> Option<Learned> {
        self.news.lock().take()
    }

    /// What it has decided.
    pub fn history(&self) -> &History {
        &self.history
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(
    id: TargetId,
    mut target: watch::Receiver<Arc<Target>>,
    ends: Ends,
    learned: Box<Learned>,
) {
    let first = Arc::clone(&target.borrow_and_update());
    let ready = count(&first, |pod| pod.ready);
    let mut decider = Decider::new(Arc::clone(&first.spec), now(), ready);
    decider.recall(*learned);
    let mut starts = Starts::default();
    let mut service = decider.learned().service_time();
    let mut fleet = Fleet::default();
    let mut metrics = Metrics::new(&id);
    let mut tick = interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut since_decision = Duration::ZERO;
    let mut told = None;
    let mut net = Net::default();
    loop {
        tick.tick().await;
        if target.has_changed().is_err() {
            return;
        }
        let seen = Arc::clone(&target.borrow_and_update());
        if *decider.spec() != seen.spec {
            decider.respec(now(), Arc::clone(&seen.spec));
        }
        // What is seldom under way is boxed: most workloads sleep, and each of them has a future that has room for all of this.
        let round = Box::pin(fleet.round(&id, &seen)).await;
        if decider.asked(if round.missing { Err(SILENT) } else { Ok(()) }) {
            tell(&id, decider.failing());
        }
        let held = ends.holds.take(&id);
        // Activators name those alone that they hold something for. That all of them were heard and none did is a measured zero.
        let nobody = (held.complete && held.seconds.is_empty())
            .then(|| (Moment::from_secs(now().as_secs()), Sample::default()));
        let samples = round
            .samples
            .into_iter()
            .chain(held.seconds.iter().map(held_sample))
            .chain(nobody);
        for (at, sample) in net.settle(now(), samples) {
            decider.record(at, sample);
        }
        // In a block of its own, so that none of it is kept while a write is waited for.
        let decision = {
            let progress = starts.follow(&seen, &mut decider, now(), clock::unix_millis());
            if progress.learned || has_moved(service, decider.learned().service_time()) {
                *ends.news.lock() = Some(decider.learned().clone());
                service = decider.learned().service_time();
            }
            since_decision += Duration::from_secs(1);
            if since_decision < TICK {
                continue;
            }
            since_decision = Duration::ZERO;
            let observed = progress.starting.within(Observed {
                ready: count(&seen, |pod| pod.ready),
                failed: progress.failed,
                lapsed: progress.lapsed,
                current: Replicas(seen.replicas),
                held: held.held,
                open: round.open.filter(|_| held.complete),
                reachable: seen.reachable,
                ..Observed::default()
            });
            decider.decide(now(), &observed)
        };
        metrics.observe(&id, &decision);
        let written = match asks(&id, &decision, round.missing, ends.scaler.as_ref()) {
            Ok(want) => {
                Some(Box::pin(write(&id, &decision, want, &fleet, ends.scaler.as_ref())).await)
            }
            Err(why) => why,
        };
        if told != Some((decision.reason, decision.want)) || written.is_some() {
            tracing::debug!(target = %id, %decision, "Decided");
            told = Some((decision.reason, decision.want));
        }
        ends.history.remember(decision, written);
    }
}

/// Whether the time that a request takes is clearly another one.
fn has_moved(before: Option<f64>, now: Option<f64>) -> bool {
    match (before, now) {
        (Some(before), Some(now)) => (now - before).abs() > MOVED * before,
        (before, now) => before.is_some() != now.is_some(),
    }
}

/// Says once that pods cannot be asked, and once that they can again.
fn tell(id: &TargetId, failing: Option<&'static str>) {
    if let Some(why) = failing {
        tracing::warn!(target = %id, why, "The load cannot be measured in full");
    } else {
        tracing::info!(target = %id, "The load can be measured in full again");
    }
}

/// The replicas to write if a decision asks for something else than there is; if nothing is to be written, why, where there is
/// something to tell.
fn asks(
    id: &TargetId,
    decision: &Decision,
    missing: bool,
    scaler: &dyn Scaler,
) -> Result<Replicas, Option<&'static str>> {
    let current = decision.inputs.current;
    let want = decision.want.filter(|want| *want != current).ok_or(None)?;
    if decision.is_wake() && decision.inputs.held > 0 {
        // One writer per transition: the activator wakes what it holds requests for.
        return Err(None);
    }
    if want < current && missing {
        tracing::warn!(target = %id, "A pod cannot be asked for its load: the scale is not lowered");
        return Err(Some("held-back"));
    }
    scaler
        .permits(id, current.get(), want.get())
        .map_err(Some)?;
    Ok(want)
}

/// Writes the scale. Returns what became of it.
async fn write(
    id: &TargetId,
    decision: &Decision,
    want: Replicas,
    fleet: &Fleet,
    scaler: &dyn Scaler,
) -> &'static str {
    let current = decision.inputs.current;
    if want < current && !want.is_zero() {
        scaler.prefer(id, fleet.open()).await;
    }
    let result = match timeout(WRITE_LIMIT, scaler.scale(id, current.get(), want.get())).await {
        Ok(Ok(true)) => {
            tracing::info!(target = %id, %decision, "Scaled");
            "ok"
        }
        Ok(Ok(false)) => "conflict",
        Ok(Err(error)) => {
            tracing::warn!(target = %id, %error, "Cannot write the scale");
            "error"
        }
        Err(_) => {
            tracing::warn!(target = %id, limit = ?WRITE_LIMIT, "No answer to a write of the scale");
            "timeout"
        }
    };
    names::AUTOSCALER_SCALES
        .counter(&[&id.to_string(), result])
        .increment(1);
    result
}

/// Held requests are load too. Each is counted as a request when it arrives and taken back when it is handed on, since
/// the pod counts it then: the number may be negative.
#[allow(
    clippy::cast_precision_loss,
    reason = "counts and microseconds of a second stay far below 2^52"
)]
fn held_sample(dated: &Dated) -> (Moment, Sample) {
    let second = dated.second;
    let concurrency = second.waiting_us as f64 / 1e6;
    let requests = second.started as f64 - second.released as f64;
    (
        dated.at,
        Sample {
            concurrency,
            requests,
            waiting: concurrency,
            // What ends while it is held was not worked on.
            ended: 0.0,
        },
    )
}

fn count(target: &Target, which: fn(&crate::Pod) -> bool) -> Replicas {
    Replicas(u32::try_from(target.pods.iter().filter(|pod| which(pod)).count()).unwrap_or(u32::MAX))
}

/// Metric handles. Those that tell of load are made when there is any for the first time: most workloads sleep.
struct Metrics {
    _kept: names::Tenure,
    desired: metrics::Gauge,
    load: Option<Box<Load>>,
}

/// What is told of a workload that has, or had, load or pods.
struct Load {
    ready: metrics::Gauge,
    stable: metrics::Gauge,
    panic: metrics::Gauge,
    panic_mode: metrics::Gauge,
    starting_mode: metrics::Gauge,
    /// Starting, overdue, failed.
    unready: [metrics::Gauge; 3],
    headroom: metrics::Gauge,
    /// Seconds of a start and of a request, once they are known.
    learned: [Option<metrics::Gauge>; 2],
}

impl Load {
    fn new(id: &TargetId) -> Self {
        let target = id.to_string();
        let labels: &[&str] = &[&target];
        Self {
            ready: names::AUTOSCALER_READY.gauge(labels),
            stable: names::AUTOSCALER_STABLE.gauge(labels),
            panic: names::AUTOSCALER_PANIC.gauge(labels),
            panic_mode: names::AUTOSCALER_PANIC_MODE.gauge(labels),
            starting_mode: names::AUTOSCALER_STARTING_MODE.gauge(labels),
            unready: ["starting", "overdue", "failed"]
                .map(|state| names::AUTOSCALER_UNREADY.gauge(&[&target, state])),
            learned: [None, None],
            headroom: names::AUTOSCALER_BURST_HEADROOM.gauge(labels),
        }
    }

    fn observe(&mut self, id: &TargetId, decision: &Decision) {
        self.ready.set(f64::from(decision.inputs.ready.get()));
        if let Some(stable) = decision.inputs.stable {
            self.stable.set(stable);
        }
        if let Some(panic) = decision.inputs.panic {
            self.panic.set(panic);
        }
        let is = |mode| if decision.mode == mode { 1.0 } else { 0.0 };
        self.panic_mode.set(is(Mode::Panic));
        self.starting_mode.set(is(Mode::Starting));
        let inputs = &decision.inputs;
        let unready = [inputs.starting, inputs.overdue, inputs.failed];
        for (gauge, count) in self.unready.iter().zip(unready) {
            gauge.set(f64::from(count.get()));
        }
        let rows = [
            names::AUTOSCALER_START_SECONDS,
            names::AUTOSCALER_REQUEST_SECONDS,
        ];
        let learned = [inputs.start_time, inputs.service_time];
        for ((gauge, row), seconds) in self.learned.iter_mut().zip(rows).zip(learned) {
            if let Some(seconds) = seconds {
                let gauge = gauge.get_or_insert_with(|| row.gauge(&[&id.to_string()]));
                gauge.set(seconds);
            }
        }
        #[allow(
            clippy::cast_precision_loss,
            reason = "a metric needs no more than 52 bits"
        )]
        self.headroom.set(decision.burst_headroom as f64);
    }
}

impl Metrics {
    fn new(id: &TargetId) -> Self {
        let target = id.to_string();
        let labels: &[&str] = &[&target];
        Self {
            _kept: names::tenure(&target),
            desired: names::AUTOSCALER_DESIRED.gauge(labels),
            load: None,
        }
    }

    fn observe(&mut self, id: &TargetId, decision: &Decision) {
        if let Some(want) = decision.want {
            self.desired.set(f64::from(want.get()));
        }
        let inputs = &decision.inputs;
        let busy = |average: Option<f64>| average.is_some_and(|average| average > 0.0);
        if self.load.is_some()
            || !inputs.current.is_zero()
            || !inputs.ready.is_zero()
            || busy(inputs.stable)
            || busy(inputs.panic)
        {
            let load = self.load.get_or_insert_with(|| Box::new(Load::new(id)));
            load.observe(id, decision);
        }
    }
}

#[cfg(test)]
mod tests {
    use shared::load::Second;

    use super::*;
    use crate::{BoxFuture, fleet};

    /// Nobody asks it.
    #[derive(Debug)]
    struct Never;

    impl Scaler for Never {
        fn scale(&self, _: &TargetId, _: u32, _: u32) -> BoxFuture<'_, Result<bool, String>> {
            Box::pin(std::future::pending())
        }
    }

    /// A workload whose pod is not there yet, and whose requests have gone.
    async fn measured(holds: &Holds, heard: bool) -> Option<f64> {
        let target = Target {
            spec: Arc::default(),
            replicas: 1,
            pods: Vec::new(),
            reachable: true,
        };
        let (_sender, target) = watch::channel(Arc::new(target));
        let id = TargetId::new("n", "iris").unwrap();
        let controller = Controller::spawn(
            id,
            target,
            holds.clone(),
            Arc::new(Never),
            Learned::default(),
        );
        for _ in 0..10 {
            if heard {
                holds.hear_nothing();
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        controller.history().latest().unwrap().inputs.stable
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn that_all_activators_hold_nothing_is_a_measured_zero_and_their_silence_is_not() {
        let holds = Holds::default();
        assert_eq!(measured(&holds, false).await, None);
        assert_eq!(measured(&holds, true).await, Some(0.0));
    }

    #[test]
    fn a_request_that_was_held_counts_once() {
        let dated = |at, second| Dated {
            at: Moment::from_secs(at),
            second,
        };
        // Held in second 1, handed on and served in second 2, beside three that were never held.
        let held = [
            dated(
                1,
                Second {
                    started: 1,
                    waiting_us: 500_000,
                    ..Second::default()
                },
            ),
            dated(
                2,
                Second {
                    released: 1,
                    ..Second::default()
                },
            ),
        ];
        let pod = dated(
            2,
            Second {
                started: 4,
                in_flight_us: 1_000_000,
                ..Second::default()
            },
        );
        let samples = held
            .iter()
            .map(held_sample)
            .chain([(pod.at, fleet::sample(&pod.second))]);
        let sums = Net::default().settle(Moment::from_secs(2), samples);
        let counts: Vec<_> = sums
            .iter()
            .map(|(at, s)| (at.as_secs(), s.requests, s.concurrency))
            .collect();
        assert_eq!(counts, [(1, 1.0, 0.5), (2, 3.0, 1.0)]);
    }
}
