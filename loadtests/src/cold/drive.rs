//! The modes: waits for zero, sends what is planned, and keeps what came of it.

use super::args::{Aim, Mode, Plan, Requests};
use super::board::Board;
use super::call::{Ask, Heard};
use super::cluster::Cluster;
use super::sums::{About, record, sums};
use super::timing::{Timing, Told};
use super::{Before, Observed};
use crate::config::{Config, Limit, Load};
use crate::error::Error;
use crate::plan::{Schedule, SplitMix, Timing as When};
use crate::record::ErrorKind;
use crate::report::Report;
use crate::run::stopped;
use crate::unit::human;
use futures_util::future::{join_all, try_join_all};
use futures_util::stream::{FuturesUnordered, StreamExt};
use parking_lot::Mutex;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::watch;
use tokio::time::{sleep, sleep_until, timeout_at};

/// How long a workload has to have been at zero before it is woken: whoever routes requests to it has to have learned that, too.
const SETTLE: Duration = Duration::from_secs(1);
/// How long after the last answer events of its pod may still come.
const EVENTS: Duration = Duration::from_secs(1);
/// Requests under way at the same time in the modes rate and trace.
const MOST_OPEN: usize = 10_000;
/// How long an activator may take to tell of its wakes.
const WAKES: Duration = Duration::from_secs(5);

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Of all requests that were sent.
    pub report: Report,
    /// Why it ended before its plan, if it did for a reason other than being stopped.
    pub problem: Option<String>,
}

/// Wakes what is to be woken and reports.
///
/// `tell` is given a line for people now and then. Sending `true` on the other side of `stop` ends the run early.
///
/// # Errors
/// A target, a kubeconfig or a Deployment that cannot be used, before anything is sent. Failed requests are part of the report.
///
/// # Cancel safety
/// Dropping the future stops the run.
pub async fn run(
    plan: Plan,
    tell: impl Fn(String),
    mut stop: watch::Receiver<bool>,
) -> Result<Outcome, Error> {
    let site = Site::new(plan).await?;
    let started_at = SystemTime::now();
    let ended = tokio::select! {
        ended = site.drive(&tell) => Some(ended),
        () = stopped(&mut stop) => None,
    };
    let length = site.board.now();
    if site.cluster.is_some() && ended.is_some() {
        sleep(EVENTS).await;
    }
    let interrupted = ended.is_none();
    let report = site.report(length, started_at, interrupted);
    Ok(Outcome {
        report,
        problem: ended.and_then(Result::err),
    })
}

/// A run.
struct Site {
    plan: Plan,
    /// Of each target, and of what is to be warm after these.
    asks: Vec<Ask>,
    wakes: Vec<Ask>,
    board: Arc<Board>,
    cluster: Option<Cluster>,
    /// When the last request of each ended, or the run began.
    last: Mutex<Vec<Instant>>,
    observed: Mutex<Vec<Observed>>,
    numbers: AtomicU64,
    /// Requests that were to be cold and found nothing at zero.
    starved: AtomicU64,
    /// Wakes of which activators have told.
    told: Mutex<HashSet<(String, u64)>>,
}

impl Site {
    async fn new(plan: Plan) -> Result<Self, Error> {
        let aims: Vec<&Aim> = plan.targets.iter().chain(&plan.warm).collect();
        let asks = try_join_all(aims.iter().map(|aim| Ask::new(&aim.config))).await?;
        let wakes = (plan.wakes_urls.iter())
            .map(|url| Config::new(url))
            .collect::<Result<Vec<_>, _>>()?;
        let wakes = try_join_all(wakes.iter().map(Ask::new)).await?;
        let start = Instant::now();
        let names = aims.iter().map(|aim| aim.name.clone()).collect();
        let board = Arc::new(Board::new(start, names));
        let last = vec![start; aims.len()];
        let cluster = Cluster::watch(plan.kubeconfig.as_deref(), &plan.targets, &board).await?;
        let site = Self {
            asks,
            wakes,
            board,
            cluster,
            last: Mutex::new(last),
            observed: Mutex::default(),
            numbers: AtomicU64::new(0),
            starved: AtomicU64::new(0),
            told: Mutex::default(),
            plan,
        };
        // What they tell of now was before.
        site.new_wakes().await;
        Ok(site)
    }

    async fn drive(&self, tell: &impl Fn(String)) -> Result<(), String> {
        match (&self.plan.timing, self.plan.mode) {
            (Some(timing), _) => {
                self.schedule(timing).await;
                Ok(())
            }
            (None, Mode::Burst) => self.bursts(tell).await,
            (None, Mode::Storm) => self.ones(self.plan.at_once, tell).await,
            (None, _) => self.ones(1, tell).await,
        }
    }

    /// One target after the other, each with so many requests at once.
    async fn ones(&self, at_once: u32, tell: &impl Fn(String)) -> Result<(), String> {
        for round in 1..=self.plan.wakes {
            for workload in 0..self.plan.targets.len() {
                let before = self.zero(workload).await?;
                let planned = Instant::now();
                self.lift(workload, planned).await?;
                let from = self.observed.lock().len();
                let requests = (0..at_once).map(|_| self.request(workload, before, planned));
                join_all(requests).await;
                self.learn(from).await;
                self.say(round, from, tell);
            }
        }
        Ok(())
    }

    /// All targets at once.
    async fn bursts(&self, tell: &impl Fn(String)) -> Result<(), String> {
        let all = 0..self.plan.targets.len();
        for round in 1..=self.plan.wakes {
            let befores = loop {
                let zeros = all.clone().map(|workload| self.zero(workload));
                let befores = try_join_all(zeros).await?;
                // The first may have been woken by somebody while others were waited for.
                let still = |workload| !self.is_watched(workload) || self.board.is_zero(workload);
                if all.clone().all(still) {
                    break befores;
                }
            };
            let planned = Instant::now();
            let from = self.observed.lock().len();
            let wakes = befores.into_iter().enumerate();
            let wakes = wakes.map(|(workload, before)| async move {
                self.lift(workload, planned).await?;
                self.request(workload, before, planned).await;
                Ok::<_, String>(())
            });
            try_join_all(wakes).await?;
            self.learn(from).await;
            self.say(round, from, tell);
        }
        Ok(())
    }

    /// As they are planned, whatever becomes of those before.
    async fn schedule(&self, requests: &Requests) {
        let mut open = FuturesUnordered::new();
        let mut dice = SplitMix(self.plan.seed ^ 0xc01d);
        let start = Instant::now();
        let schedule = steady(requests, self.plan.seed);
        let planned = schedule.iter().flat_map(Schedule::instants);
        let recorded = match requests {
            Requests::Trace(trace) => Some(trace.due()),
            Requests::Rate { .. } => None,
        };
        let recorded = recorded.into_iter().flatten();
        // Whichever of the two there is.
        let dues = planned
            .map(|due| (due, None))
            .chain(recorded.map(|(due, whose)| (Duration::from_secs_f64(due), Some(whose))));
        for (due, whose) in dues {
            let planned = start + due;
            loop {
                tokio::select! {
                    biased;
                    () = sleep_until(planned.into()) => break,
                    Some(()) = open.next(), if !open.is_empty() => {}
                }
            }
            let chosen = match whose {
                Some(row) => Some(row as usize % self.plan.targets.len())
                    .map(|workload| (workload, self.before(workload))),
                None => self.choose(&mut dice),
            };
            match chosen {
                Some((workload, before)) if open.len() < MOST_OPEN => {
                    // Of its own from now on: nobody else is to choose it.
                    self.touch(workload);
                    open.push(self.request(workload, before, planned));
                }
                other => self.drop_one(other.map_or(0, |(workload, _)| workload), planned),
            }
        }
        while open.next().await.is_some() {}
    }

    /// Which target the next request of the mode rate is for.
    fn choose(&self, dice: &mut SplitMix) -> Option<(usize, Before)> {
        let warm = self.plan.warm.as_ref().map(|_| self.plan.targets.len());
        let warm = warm.map(|workload| (workload, Before::Unknown));
        if warm.is_some() && dice.uniform() >= self.plan.cold_share {
            return warm;
        }
        let at_zero = (0..self.plan.targets.len())
            .map(|workload| (workload, self.before(workload)))
            .filter(|(_, before)| *before != Before::Unknown);
        let last = self.last.lock().clone();
        let chosen = at_zero.min_by_key(|(workload, _)| last[*workload]);
        if chosen.is_none() {
            self.starved.fetch_add(1, Relaxed);
        }
        chosen.or(warm)
    }

    /// What is known of a workload now.
    fn before(&self, workload: usize) -> Before {
        if self.is_watched(workload) {
            return if self.board.is_zero(workload) && !self.board.is_open(workload) {
                Before::Zero
            } else {
                Before::Unknown
            };
        }
        let quiet = self.last.lock()[workload].elapsed();
        if self.plan.idle.is_some_and(|idle| quiet >= idle) && !self.board.is_open(workload) {
            Before::Supposed
        } else {
            Before::Unknown
        }
    }

    fn is_watched(&self, workload: usize) -> bool {
        let cluster = self.cluster.as_ref();
        cluster.is_some_and(|cluster| cluster.knows(workload))
    }

    /// Waits until a workload is at zero, as far as that is known.
    async fn zero(&self, workload: usize) -> Result<Before, String> {
        let name = &self.plan.targets[workload].name;
        let limit = self.plan.zero_timeout;
        let until = Instant::now() + limit;
        if let Some(idle) = self.plan.idle {
            let last = self.last.lock()[workload];
            sleep_until((last + idle).into()).await;
        }
        let cluster = self.cluster.as_ref();
        let Some(cluster) = cluster.filter(|cluster| cluster.knows(workload)) else {
            return Ok(Before::Supposed);
        };
        if self.plan.scale {
            let scaled = cluster.scale(workload, 0).await;
            scaled.map_err(|error| format!("{name} cannot be scaled to zero: {error}"))?;
        }
        loop {
            let zero = timeout_at(until.into(), self.board.until_zero(workload));
            if zero.await.is_err() {
                return Err(format!("{name} did not come to zero within {limit:?}"));
            }
            sleep(SETTLE).await;
            if self.board.is_zero(workload) {
                return Ok(Before::Zero);
            }
        }
    }

    /// Where this tool scales: to one, and waits for it.
    async fn lift(&self, workload: usize, planned: Instant) -> Result<(), String> {
        let Some(cluster) = self.cluster.as_ref().filter(|_| self.plan.scale) else {
            return Ok(());
        };
        let aim = &self.plan.targets[workload];
        let scaled = cluster.scale(workload, 1).await;
        scaled.map_err(|error| format!("{} cannot be scaled: {error}", aim.name))?;
        let ready = self.board.until(workload, |state| state.ready > 0);
        // One that is not ready in time is asked all the same, and that fails.
        let _in_time = timeout_at((planned + aim.config.timeout).into(), ready).await;
        Ok(())
    }

    /// A request to this workload begins or ends now.
    fn touch(&self, workload: usize) {
        self.last.lock()[workload] = Instant::now();
    }

    async fn request(&self, workload: usize, before: Before, planned: Instant) {
        let ask = &self.asks[workload];
        let mut flight = Flight {
            site: self,
            observed: Some(Observed {
                workload,
                before,
                lifted: self.plan.scale,
                planned: self.board.since(planned),
                begun: self.board.now(),
                sent: None,
                head: None,
                done: Duration::ZERO,
                status: None,
                error: Some(ErrorKind::Interrupted),
                served_by: None,
                timing: None,
                body_bytes: 0,
            }),
        };
        if self.plan.scale {
            // All of the waiting was for the pod.
            flight.begun_at(planned);
        }
        let open = self.board.open(workload);
        let number = self.numbers.fetch_add(1, Relaxed);
        let until = planned + self.timeout(workload);
        let heard = ask.send(number, false, self.plan.scale, until).await;
        drop(open);
        flight.end(heard);
    }

    fn timeout(&self, workload: usize) -> Duration {
        let aim = self.plan.targets.get(workload).or(self.plan.warm.as_ref());
        aim.map_or(Duration::ZERO, |aim| aim.config.timeout)
    }

    /// A request that is not sent.
    fn drop_one(&self, workload: usize, planned: Instant) {
        let now = self.board.now();
        self.observed.lock().push(Observed {
            workload,
            before: Before::Unknown,
            lifted: false,
            planned: self.board.since(planned),
            begun: now,
            sent: None,
            head: None,
            done: now,
            status: None,
            error: Some(ErrorKind::Dropped),
            served_by: None,
            timing: None,
            body_bytes: 0,
        });
    }

    /// Takes timelines from activators for what was observed from `from` on, where the answers had none.
    async fn learn(&self, from: usize) {
        if self.wakes.is_empty() {
            return;
        }
        let told = self.new_wakes().await;
        let mut observed = self.observed.lock();
        let Some(recent) = observed.get_mut(from..) else {
            return;
        };
        for told in told {
            let one = recent.iter_mut().find(|one| {
                let aim = self.plan.targets.get(one.workload);
                let is_its = aim.and_then(|aim| aim.workload.as_ref()) == Some(&told.target);
                let waited = one.head.map(|head| head.saturating_sub(one.planned));
                let has_none = one.timing.as_ref().is_none_or(|t| t.phases.is_empty());
                is_its
                    && has_none
                    && waited.is_some_and(|waited| waited.as_secs_f64() >= told.total)
            });
            if let Some(one) = one {
                let held = one.timing.as_ref().and_then(|timing| timing.held);
                one.timing = Some(Timing {
                    held,
                    phases: told.phases,
                });
            }
        }
    }

    /// Wakes that activators had not told of before.
    async fn new_wakes(&self) -> Vec<Told> {
        let lists = self
            .wakes
            .iter()
            .map(|ask| ask.send(0, true, false, Instant::now() + WAKES));
        let heard = join_all(lists).await;
        let mut known = self.told.lock();
        let told = heard.iter().filter_map(|heard| Told::list(&heard.body));
        told.flatten()
            .filter(|told| known.insert((told.target.clone(), told.total.to_bits())))
            .collect()
    }

    fn say(&self, round: u32, from: usize, tell: &impl Fn(String)) {
        let observed = self.observed.lock();
        let of = self.plan.wakes;
        for (number, one) in observed.iter().skip(from).enumerate() {
            if number == 3 {
                let more = observed.len() - from - number;
                tell(format!("wake {round} of {of}  and {more} more"));
                break;
            }
            let took = human(one.done.saturating_sub(one.planned).as_secs_f64());
            let name = &self.plan.targets[one.workload].name;
            let how = match (one.error, one.status) {
                (Some(error), _) => format!("{error:?}"),
                (None, status) => status.unwrap_or_default().to_string(),
            };
            tell(format!("wake {round} of {of}  {name}  {took}  {how}"));
        }
    }

    fn report(&self, length: Duration, started_at: SystemTime, interrupted: bool) -> Report {
        let observed = std::mem::take(&mut *self.observed.lock());
        let total = record(&observed);
        let mut config = self.plan.targets[0].config.clone();
        config.load = match &self.plan.timing {
            Some(requests @ Requests::Rate { .. }) => steady(requests, self.plan.seed)
                .map_or(Load::Closed(Limit::Requests(0)), Load::Open),
            Some(Requests::Trace(trace)) => Load::Open(Schedule {
                timing: When::Trace(trace.clone()),
                ..Schedule::of_stages(Vec::new())
            }),
            None => Load::Closed(Limit::Requests(observed.len() as u64)),
        };
        config.threads = 1;
        let aims = self.plan.targets.iter().chain(&self.plan.warm);
        let abouts: Vec<_> = (aims.enumerate())
            .map(|(workload, aim)| About {
                name: aim.name.clone(),
                pods: self
                    .is_watched(workload)
                    .then(|| self.board.look(workload, |state| state.pods.clone())),
                scaled: self.board.look(workload, |state| state.scaled.clone()),
            })
            .collect();
        let mut report = Report::new(&config, &total, length, started_at, interrupted);
        let mut cold = sums(self.plan.mode, &abouts, observed, self.board.moments());
        cold.starved = self.starved.load(Relaxed);
        report.cold = Some(cold);
        report
    }
}

/// The schedule of the mode rate.
fn steady(requests: &Requests, seed: u64) -> Option<Schedule> {
    let Requests::Rate {
        rate,
        length,
        arrivals,
    } = requests
    else {
        return None;
    };
    match Config::steady(*rate, *length, *arrivals, seed) {
        Load::Open(schedule) => Some(schedule),
        Load::Closed(_) => None,
    }
}

/// A request under way: kept as interrupted if it is dropped before its end.
struct Flight<'a> {
    site: &'a Site,
    observed: Option<Observed>,
}

impl Flight<'_> {
    fn begun_at(&mut self, begun: Instant) {
        if let Some(observed) = &mut self.observed {
            observed.begun = self.site.board.since(begun);
        }
    }

    fn end(mut self, heard: Heard) {
        let since = |at: Instant| self.site.board.since(at);
        if let Some(observed) = &mut self.observed {
            observed.sent = heard.sent.map(since);
            observed.head = heard.head.map(since);
            observed.status = heard.status;
            observed.error = heard.error;
            observed.served_by = heard.served_by;
            observed.timing = heard.timing;
            observed.body_bytes = heard.body_bytes;
        }
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let Some(mut observed) = self.observed.take() else {
            return;
        };
        observed.done = self.site.board.now();
        self.site.touch(observed.workload);
        self.site.observed.lock().push(observed);
    }
}
