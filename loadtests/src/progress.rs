//! How a run is doing, while it runs.

use crate::config::{Config, Limit, Load};
use crate::flight::{Shared, Tally};
use crate::plan::Schedule;
use crate::record::{Durations, ErrorKind};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// What "now" is: shorter, and a rate of a few per second would jump.
const RECENT: Duration = Duration::from_secs(1);

/// A look at a running load; counts leave out the warm-up.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// Since the load began, warm-up included.
    pub elapsed: Duration,
    /// When it is over.
    pub end: End,
    /// True while nothing is counted yet.
    pub warming_up: bool,
    /// Requests finished, errors included.
    pub requests: u64,
    /// Requests finished per second since the last look.
    pub rate: f64,
    /// Requests per second that are due now, in an open loop.
    pub planned_rate: Option<f64>,
    /// Requests due or sent and not finished, except those that wait for a free connection.
    pub in_flight: u64,
    /// Requests that wait for a free connection.
    pub waiting: u64,
    /// Errors of all kinds.
    pub errors: u64,
    /// The same by kind.
    pub errors_by_kind: BTreeMap<ErrorKind, u64>,
    /// Median latency of successful requests so far.
    pub p50: Option<Duration>,
    /// 99th percentile of the latency of successful requests so far.
    pub p99: Option<Duration>,
    /// The last second alone.
    pub recent: Recent,
    /// Replicas of what is measured, where they are known.
    pub replicas: Option<Replicas>,
}

/// When a load is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// After so long, warm-up included. What is in flight then is still awaited.
    At(Duration),
    /// After so many requests.
    After(u64),
}

impl End {
    /// That of a schedule that was moved.
    fn moved(self, by: Duration) -> Self {
        match self {
            Self::At(end) => Self::At(end + by),
            after @ Self::After(_) => after,
        }
    }
}

/// The last second of a load.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Recent {
    /// Requests finished per second.
    pub rate: f64,
    /// Median latency of successful requests.
    pub p50: Option<Duration>,
    /// 99th percentile of the latency of successful requests.
    pub p99: Option<Duration>,
}

/// Replicas at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replicas {
    /// That are ready.
    pub ready: u32,
    /// That are wanted.
    pub wanted: u32,
}

/// Counts at a moment.
#[derive(Debug)]
struct Moment {
    at: Instant,
    requests: u64,
    /// Requests due, finished or not.
    due: u64,
    /// By which the schedule had been moved.
    lost: Duration,
    latency: Durations,
}

/// Turns counts into rates.
#[derive(Debug)]
pub(crate) struct Meter {
    start: Instant,
    measure: Instant,
    end: End,
    plan: Option<Schedule>,
    last: (Instant, u64),
    /// Those of the last second and one that is older.
    moments: VecDeque<Moment>,
}

impl Meter {
    pub(crate) fn new(config: &Config, start: Instant, measure: Instant) -> Self {
        let end = match &config.load {
            Load::Closed(Limit::Duration(length)) => End::At(config.warmup + *length),
            Load::Closed(Limit::Requests(count)) => End::After(*count),
            Load::Open(schedule) => match (schedule.limit, schedule.shard) {
                (Some(limit), None) => End::After(limit),
                _ => End::At(config.warmup + schedule.length()),
            },
        };
        let plan = match &config.load {
            Load::Open(schedule) => Some(schedule.clone()),
            Load::Closed(_) => None,
        };
        Self {
            start,
            measure,
            end,
            plan,
            last: (measure, 0),
            moments: VecDeque::new(),
        }
    }

    pub(crate) fn read(&mut self, tallies: &[Arc<Tally>], shared: &Shared) -> Progress {
        let now = Instant::now();
        let (mut latency, mut successes, mut in_flight) = (Durations::default(), 0, 0);
        let mut lost = Duration::ZERO;
        let mut errors_by_kind = BTreeMap::new();
        for tally in tallies {
            in_flight += tally.in_flight.load(Ordering::Relaxed);
            let counts = tally.counts.lock();
            latency.merge(&counts.recorder.latency);
            successes += counts.recorder.successes();
            lost += counts.recorder.lost;
            for (kind, count) in &counts.recorder.errors {
                *errors_by_kind.entry(*kind).or_default() += count;
            }
        }
        let errors: u64 = errors_by_kind.values().sum();
        let waiting = shared.dispatch.waiting();
        let requests = successes + errors;
        let (then, before) = self.last;
        let rate = per_second(requests - before, now.saturating_duration_since(then));
        if now > self.measure {
            self.last = (now, requests);
        }
        let (p50, p99) = (latency.quantile(0.5), latency.quantile(0.99));
        let moment = Moment {
            at: now,
            requests,
            due: requests + in_flight + waiting,
            lost,
            latency,
        };
        let (recent, planned_rate) = self.recent(moment);
        Progress {
            elapsed: now.saturating_duration_since(self.start),
            end: self.end.moved(lost),
            warming_up: now < self.measure,
            requests,
            rate,
            planned_rate,
            in_flight,
            waiting,
            errors,
            errors_by_kind,
            p50,
            p99,
            recent,
            replicas: None,
        }
    }

    /// The last second up to `now`, and the rate that was planned in it.
    fn recent(&mut self, now: Moment) -> (Recent, Option<f64>) {
        while self
            .moments
            .get(1)
            .is_some_and(|next| now.at.duration_since(next.at) >= RECENT)
        {
            self.moments.pop_front();
        }
        let first = self.moments.front();
        let from = first.map_or(self.measure, |first| first.at);
        let span = now.at.saturating_duration_since(from);
        let before = first.map_or(0, |first| first.requests);
        let latency = first.map_or_else(
            || now.latency.clone(),
            |first| now.latency.since(&first.latency),
        );
        let recent = Recent {
            rate: per_second(now.requests - before, span),
            p50: latency.quantile(0.5),
            p99: latency.quantile(0.99),
        };
        // In the time of the plan, which stood still while it was moved.
        let since = |at: Instant, lost: Duration| {
            let since = at.saturating_duration_since(self.measure);
            since.saturating_sub(lost).as_secs_f64()
        };
        let lost = first.map_or(Duration::ZERO, |first| first.lost);
        let (planned_from, planned_to) = (since(from, lost), since(now.at, now.lost));
        let due_before = first.map_or(0, |first| first.due);
        let planned = self.plan.as_ref().map(|plan| {
            // A trace has no rate but that of what was due.
            plan.rate_between(planned_from, planned_to)
                .unwrap_or_else(|| per_second(now.due.saturating_sub(due_before), span))
        });
        self.moments.push_back(now);
        (recent, planned)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
fn per_second(count: u64, span: Duration) -> f64 {
    let seconds = span.as_secs_f64();
    if seconds > 0.0 {
        count as f64 / seconds
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::{Durations, End, Load, Meter, Moment, Schedule};
    use crate::Config;
    use crate::plan::{Arrivals, Stages};
    use crate::unit::Rate;
    use std::time::{Duration, Instant};

    #[test]
    fn the_last_second_forgets_what_was_before_it() {
        let mut config = Config::new("http://h/").unwrap();
        let rate = Rate::new(40.0).unwrap();
        config.load = Config::steady(rate, Duration::from_secs(10), Arrivals::Constant, 1);
        let start = Instant::now();
        let mut meter = Meter::new(&config, start, start);
        let mut latency = Durations::default();
        // Ten seconds, four looks each: 10 requests a look that take 5 ms, then 20 that take 80 ms.
        let mut told = None;
        let mut requests = 0;
        for look in 1..=40 {
            let (count, millis) = if look <= 20 { (10, 5) } else { (20, 80) };
            for _ in 0..count {
                latency.record(Duration::from_millis(millis));
            }
            requests += count;
            told = Some(meter.recent(Moment {
                at: start + Duration::from_millis(250) * look,
                requests,
                due: requests,
                lost: Duration::ZERO,
                latency: latency.clone(),
            }));
            assert!(meter.moments.len() <= 6);
        }
        let (recent, planned) = told.unwrap();
        assert!((recent.rate - 80.0).abs() < 1e-6, "{recent:?}");
        assert!((planned.unwrap() - 40.0).abs() < 1e-6, "{planned:?}");
        let p50 = recent.p50.unwrap().as_secs_f64();
        assert!((p50 / 0.08 - 1.0).abs() < 0.01, "{p50}");
    }

    #[test]
    fn a_plan_that_was_moved_is_looked_up_where_it_was() {
        let mut config = Config::new("http://h/").unwrap();
        let Stages(stages) = "4s@10,4s@90".parse().unwrap();
        config.load = Load::Open(Schedule::of_stages(stages));
        let start = Instant::now();
        let mut meter = Meter::new(&config, start, start);
        let lost = Duration::from_secs(2);
        let mut at = |millis| {
            let moment = Moment {
                at: start + Duration::from_millis(millis),
                requests: 0,
                due: 0,
                lost,
                latency: Durations::default(),
            };
            meter.recent(moment).1.unwrap()
        };
        at(4_500);
        assert!(
            (at(5_500) - 10.0).abs() < 1e-6,
            "the second stage begins at 6 s"
        );
        at(6_500);
        assert!((at(7_500) - 90.0).abs() < 1e-6);
        assert_eq!(meter.end.moved(lost), End::At(Duration::from_secs(10)));
    }
}
