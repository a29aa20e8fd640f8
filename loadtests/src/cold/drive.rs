//! The modes: waits for zero, sends what is planned, and keeps what came of it.

use super::args::{Aim, Mode, Plan, Requests};
use super::board::{Board, State};
use super::call::{Ask, Heard};
use super::cluster::Cluster;
use super::report::{Settings, TargetSettings};
use super::sums::{About, record, sums};
use super::timing::{Timing, Told};
use super::{Before, Observed};
use crate::config::{Config, Limit, Load};
use crate::error::Error;
use crate::plan::{Schedule, SplitMix, Timing as When};
use crate::record::{ErrorKind, Recorder};
use crate::report::Report;
use crate::run::unless_stopped;
use crate::unit::human;
use futures_util::future::{FutureExt, join_all, try_join_all};
use futures_util::stream::{FuturesUnordered, StreamExt};
use parking_lot::Mutex;
use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::{sleep, sleep_until, timeout_at};

/// How long a workload has to have been at zero before it is woken: whoever routes requests to it has to have learned that, too.
const SETTLE: Duration = Duration::from_secs(1);
/// How long after the last answer events of its pod may still come.
const EVENTS: Duration = Duration::from_secs(1);
/// Requests under way at the same time in the modes rate and trace.
const MOST_OPEN: usize = 10_000;
/// Between two lines for people.
const SAY: Duration = Duration::from_secs(1);
/// The part of a wait that is not left to the timer.
const FINE: Duration = Duration::from_micros(1_500);
/// By how much more than the wake a request may have taken whose wake an activator tells, in seconds: the way there and back.
const AROUND: f64 = 0.25;
/// How long an activator may take to tell of its wakes.
const WAKES: Duration = Duration::from_secs(5);

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Of all requests that were sent.
    pub report: Report,
    /// What went wrong beside requests: why it ended before its plan, what could not be given back.
    pub problems: Vec<String>,
}

/// Wakes what is to be woken and reports.
///
/// `tell` is given a line for people now and then. Sending `true` on the other side of `stop` ends the run early. Where this tool scales
/// Deployments, they have in the end as many replicas as before.
///
/// # Errors
/// A target, a kubeconfig, a Deployment or an activator that cannot be used, before anything is sent. Failed requests are part of the report.
///
/// # Cancel safety
/// Dropping the future stops the run; what was scaled stays so.
pub async fn run(
    plan: Plan,
    tell: impl Fn(String),
    mut stop: watch::Receiver<bool>,
) -> Result<Outcome, Error> {
    let (seed, mode) = (plan.seed, plan.mode);
    let nothing = (plan.targets[0].config.clone(), settings(&plan));
    let found = unless_stopped(&mut stop, Site::new(plan)).await;
    let Some(site) = found.transpose()? else {
        let (config, settings) = nothing;
        let none = Recorder::default();
        let mut report = Report::new(&config, &none, Duration::ZERO, SystemTime::now(), true);
        let mut cold = sums(mode, &[], Vec::new(), Vec::new());
        cold.settings = settings;
        report.cold = Some(cold);
        return Ok(Outcome {
            report,
            problems: Vec::new(),
        });
    };
    let (start, started_at) = (site.board.begin(), SystemTime::now());
    site.last.lock().fill(start);
    let ended = unless_stopped(&mut stop, site.drive(&tell, seed)).await;
    let length = site.board.now();
    let mut problems = Vec::new();
    if let Some(cluster) = &site.cluster {
        if site.plan.scale {
            problems = cluster.restore().await;
        }
        if ended.is_some() {
            sleep(EVENTS).await;
        }
    }
    let report = site.report(length, started_at, ended.is_none());
    problems.extend(ended.and_then(Result::err));
    Ok(Outcome { report, problems })
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
        let wakes = try_join_all(plan.wakes_from.iter().map(Ask::new)).await?;
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
        // What they tell of now was before; and they are to tell something.
        for (list, config) in site.lists().await.into_iter().zip(&site.plan.wakes_from) {
            if list.is_none() {
                let allowed = "the /debug/wakes of an activator, which answers with a list";
                return Err(Error::invalid(
                    "--wakes-url",
                    config.url.to_string(),
                    allowed,
                ));
            }
            site.unknown(list.unwrap_or_default());
        }
        Ok(site)
    }

    async fn drive(&self, tell: &impl Fn(String), seed: u64) -> Result<(), String> {
        match (&self.plan.timing, self.plan.mode) {
            (Some(timing), _) => {
                self.schedule(timing, seed, tell).await;
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
                if round == 1 && workload == 0 {
                    tell("waiting for zero".to_owned());
                }
                let until = self.quiet(workload).await;
                let before = self.zero(workload, until).await?;
                let planned = Instant::now();
                let reachable = self.lift(workload, planned).await?;
                let from = self.observed.lock().len();
                let requests =
                    (0..at_once).map(|_| self.request(workload, before, planned, reachable));
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
        tell("waiting for zero".to_owned());
        for round in 1..=self.plan.wakes {
            let quiet = join_all(all.clone().map(|workload| self.quiet(workload))).await;
            let until = quiet.into_iter().max().unwrap_or_else(Instant::now);
            let befores = loop {
                let zeros = all.clone().map(|workload| self.zero(workload, until));
                let befores = try_join_all(zeros).await?;
                // The first may have been woken by somebody while others were waited for.
                let still = |workload| {
                    !self.is_watched(workload) || self.board.is_zero_for(workload, SETTLE)
                };
                if all.clone().all(still) {
                    break befores;
                }
                if Instant::now() > until {
                    let limit = self.plan.zero_timeout;
                    return Err(format!(
                        "the targets were not at zero together within {limit:?}"
                    ));
                }
            };
            let planned = Instant::now();
            let from = self.observed.lock().len();
            let wakes = befores.into_iter().enumerate();
            let wakes = wakes.map(|(workload, before)| async move {
                let reachable = self.lift(workload, planned).await?;
                self.request(workload, before, planned, reachable).await;
                Ok::<_, String>(())
            });
            // Those that go on are not given up because one cannot.
            let ended = join_all(wakes).await;
            self.learn(from).await;
            self.say(round, from, tell);
            ended.into_iter().collect::<Result<(), String>>()?;
        }
        Ok(())
    }

    /// As they are planned, whatever becomes of those before.
    async fn schedule(&self, requests: &Requests, seed: u64, tell: &impl Fn(String)) {
        let mut open = FuturesUnordered::new();
        let mut dice = SplitMix(seed ^ 0xc01d);
        let start = Instant::now();
        let schedule = steady(requests, seed);
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
        let (mut sent, mut said) = (0_u64, start);
        for (due, whose) in dues {
            let planned = start + due;
            wait_until(planned, &mut open).await;
            sent += 1;
            let chosen = match whose {
                Some(row) => Some((row as usize % self.plan.targets.len(), Before::Unknown)),
                None => self.choose(&mut dice),
            };
            match chosen {
                Some((workload, before)) if open.len() < MOST_OPEN => {
                    // Of its own from now on: nobody else is to choose it.
                    self.touch(workload);
                    open.push(self.request(workload, before, planned, None));
                }
                Some((workload, _)) => self.drop_one(workload, planned),
                // Counted where it was to be chosen.
                None => {}
            }
            // What was begun goes on, also while more is due than can be begun.
            while let Some(Some(())) = open.next().now_or_never() {}
            if said.elapsed() >= SAY {
                said = Instant::now();
                let at = due.as_secs_f64();
                tell(format!("{at:>6.1} s  {sent} planned, {} open", open.len()));
            }
        }
        while open.next().await.is_some() {}
    }

    /// Which target the next request of the mode rate is for.
    fn choose(&self, dice: &mut SplitMix) -> Option<(usize, Before)> {
        let warm = self.plan.warm.as_ref().map(|_| self.plan.targets.len());
        let warm = warm.map(|workload| (workload, Before::Warm));
        if warm.is_some() && dice.uniform() >= self.plan.cold_share {
            return warm;
        }
        let at_zero = (0..self.plan.targets.len()).filter(|workload| self.is_at_zero(*workload));
        let last = self.last.lock().clone();
        let chosen = at_zero.min_by_key(|workload| last[*workload]);
        if chosen.is_none() {
            self.starved.fetch_add(1, Relaxed);
        }
        // Nobody has just been asked: the watch may be a moment late.
        let chosen = chosen.map(|workload| (workload, Before::Unknown));
        chosen.or(warm)
    }

    /// Whether a workload is thought to be at zero, and has no request of this tool.
    fn is_at_zero(&self, workload: usize) -> bool {
        if self.board.is_open(workload) {
            return false;
        }
        if self.is_watched(workload) {
            return self.board.is_zero_for(workload, SETTLE);
        }
        let quiet = self.last.lock()[workload].elapsed();
        self.plan.idle.is_some_and(|idle| quiet >= idle)
    }

    fn is_watched(&self, workload: usize) -> bool {
        let cluster = self.cluster.as_ref();
        cluster.is_some_and(|cluster| cluster.knows(workload))
    }

    /// Waits for as long as a workload is to be without a request; until when it may then take to zero.
    async fn quiet(&self, workload: usize) -> Instant {
        if let Some(idle) = self.plan.idle {
            let last = self.last.lock()[workload];
            sleep_until((last + idle).into()).await;
        }
        Instant::now() + self.plan.zero_timeout
    }

    /// Waits until a workload is at zero, as far as that is known.
    async fn zero(&self, workload: usize, until: Instant) -> Result<Before, String> {
        let name = &self.plan.targets[workload].name;
        let cluster = self.cluster.as_ref();
        let Some(cluster) = cluster.filter(|cluster| cluster.knows(workload)) else {
            return Ok(Before::Unknown);
        };
        if self.plan.scale {
            self.scale(cluster, workload, 0, until).await?;
        }
        let late = || {
            let limit = self.plan.zero_timeout;
            format!("{name} did not come to zero within {limit:?}")
        };
        loop {
            let zero = timeout_at(until.into(), self.board.until_zero(workload));
            zero.await.map_err(|_| late())?;
            if self.board.look(workload, |state| state.is_gone) {
                return Err(format!("the Deployment of {name} is no more"));
            }
            sleep(SETTLE).await;
            if self.board.is_zero_for(workload, SETTLE) {
                // What a watch tells is a little old: the request is planned right after this.
                let asked = cluster.has_none(workload).await;
                if asked == Ok(true) {
                    return Ok(Before::Zero);
                }
                if let (Err(error), true) = (asked, Instant::now() > until) {
                    return Err(format!("{name}: {error}"));
                }
            }
            if Instant::now() > until {
                return Err(late());
            }
        }
    }

    /// Scales, and tries again for a while.
    async fn scale(
        &self,
        cluster: &Cluster,
        workload: usize,
        replicas: i32,
        until: Instant,
    ) -> Result<(), String> {
        loop {
            let Err(error) = cluster.scale(workload, replicas).await else {
                return Ok(());
            };
            if Instant::now() > until {
                let name = &self.plan.targets[workload].name;
                return Err(format!("{name} cannot be scaled to {replicas}: {error}"));
            }
            sleep(SETTLE).await;
        }
    }

    /// Where this tool scales: to one. When its address took connections, if it did in the time that a request may take.
    async fn lift(&self, workload: usize, planned: Instant) -> Result<Option<Duration>, String> {
        let Some(cluster) = self.cluster.as_ref().filter(|_| self.plan.scale) else {
            return Ok(None);
        };
        let until = planned + self.timeout(workload);
        self.scale(cluster, workload, 1, until).await?;
        let reached = async {
            let is_up = |pod: &super::pods::Pod| pod.ready.is_some() && pod.gone.is_none();
            let has_one = |state: &State| state.pods.0.values().any(is_up);
            self.board.until(workload, has_one).await;
            self.asks[workload].reached().await
        };
        // One that is not there in time is asked all the same, and that fails.
        let reached = timeout_at(until.into(), reached).await;
        Ok(reached.ok().map(|at| self.board.since(at)))
    }

    /// A request to this workload begins or ends now.
    fn touch(&self, workload: usize) {
        self.last.lock()[workload] = Instant::now();
    }

    async fn request(
        &self,
        workload: usize,
        before: Before,
        planned: Instant,
        reachable: Option<Duration>,
    ) {
        let ask = &self.asks[workload];
        let since = self.board.since(planned);
        // Where this tool scales, all of the waiting was for the pod.
        let begun = reachable.map_or_else(|| self.board.now(), |_| since);
        let flight = Flight {
            site: self,
            observed: Some(Observed {
                workload,
                before,
                planned: since,
                begun,
                reachable,
                error: Some(ErrorKind::Interrupted),
                ..Observed::default()
            }),
        };
        let open = self.board.open(workload);
        let number = self.numbers.fetch_add(1, Relaxed);
        let until = planned + self.timeout(workload);
        let heard = ask.send(number, false, until).await;
        drop(open);
        flight.end(heard);
    }

    fn timeout(&self, workload: usize) -> Duration {
        let aim = self.plan.targets.get(workload).or(self.plan.warm.as_ref());
        aim.map_or(Duration::ZERO, |aim| aim.config.timeout)
    }

    /// A request that is not sent, as too many are under way.
    fn drop_one(&self, workload: usize, planned: Instant) {
        let now = self.board.now();
        self.observed.lock().push(Observed {
            workload,
            planned: self.board.since(planned),
            begun: now,
            done: now,
            error: Some(ErrorKind::Dropped),
            ..Observed::default()
        });
    }

    /// Takes timelines from activators for what was observed from `from` on, where the answers had none. A wake belongs to the first
    /// answer of its workload if it is the only new one, and as long as that answer took.
    async fn learn(&self, from: usize) {
        if self.wakes.is_empty() {
            return;
        }
        let told: Vec<_> = self.lists().await.into_iter().flatten().flatten().collect();
        let told = self.unknown(told);
        let mut observed = self.observed.lock();
        let Some(recent) = observed.get_mut(from..) else {
            return;
        };
        for (workload, aim) in self.plan.targets.iter().enumerate() {
            let is_its = |told: &&Told| aim.workload.as_ref() == Some(&told.target);
            let mut its = told.iter().filter(is_its);
            let (Some(told), None) = (its.next(), its.next()) else {
                continue;
            };
            let own = recent.iter_mut().filter(|one| one.workload == workload);
            let Some(first) = own
                .filter(|one| one.head.is_some())
                .min_by_key(|one| one.head)
            else {
                continue;
            };
            let took = (first.head.zip(first.sent)).map_or(0.0, |(head, sent)| {
                (head.saturating_sub(sent)).as_secs_f64()
            });
            let has_phases = first.timing.as_ref().is_some_and(|t| !t.phases.is_empty());
            if !has_phases && (told.total..told.total + AROUND).contains(&took) {
                first.timing = Some(Timing {
                    held: None,
                    phases: told.phases.clone(),
                });
            }
        }
    }

    /// What each activator tells of wakes; none of one that tells no list.
    async fn lists(&self) -> Vec<Option<Vec<Told>>> {
        let lists = self
            .wakes
            .iter()
            .map(|ask| ask.send(0, true, Instant::now() + WAKES));
        let heard = join_all(lists).await;
        heard.iter().map(|heard| Told::list(&heard.body)).collect()
    }

    /// Those of these wakes that were not known before.
    fn unknown(&self, told: Vec<Told>) -> Vec<Told> {
        let mut known = self.told.lock();
        told.into_iter()
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
        cold.settings = settings(&self.plan);
        report.cold = Some(cold);
        report
    }
}

/// Waits for an instant while requests under way go on: to a millisecond by tokio's timer, which ticks in these, and the rest by looking
/// again and again, which takes up to [`FINE`] of a core for each request.
async fn wait_until<F: Future<Output = ()>>(due: Instant, open: &mut FuturesUnordered<F>) {
    loop {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        let coarse = left.saturating_sub(FINE);
        if coarse.is_zero() {
            while let Some(Some(())) = open.next().now_or_never() {}
            yield_now().await;
            continue;
        }
        tokio::select! {
            () = sleep(coarse) => {}
            Some(()) = open.next(), if !open.is_empty() => {}
        }
    }
}

/// What was asked for, for the report.
fn settings(plan: &Plan) -> Settings {
    let target = |aim: &Aim| TargetSettings {
        name: aim.name.clone(),
        url: aim.config.url.to_string(),
        deployment: aim.deployment.as_ref().map(ToString::to_string),
    };
    let (mode, waits) = (plan.mode, plan.timing.is_none());
    Settings {
        targets: plan.targets.iter().map(target).collect(),
        warm: plan.warm.as_ref().map(target),
        scale: plan.scale,
        wakes: waits.then_some(plan.wakes),
        at_once: (mode == Mode::Storm).then_some(plan.at_once),
        idle: plan.idle.map(|idle| idle.as_secs_f64()),
        zero_timeout: plan.zero_timeout.as_secs_f64(),
        cold_share: (mode == Mode::Rate).then_some(plan.cold_share),
        seed: plan.seed,
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
    fn end(mut self, heard: Heard) {
        let since = |at: Instant| self.site.board.since(at);
        if let Some(observed) = &mut self.observed {
            observed.sent = heard.sent.map(since);
            observed.head = heard.head.map(since);
            observed.status = heard.status;
            observed.error = heard.error;
            observed.reason = heard.reason;
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
