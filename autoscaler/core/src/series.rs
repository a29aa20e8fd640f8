//! The measurements of one workload: two metrics, each over two windows.

use crate::{Averages, BurstCapacity, Metric, Moment, Policy, TargetSpec, Window, Written};

/// No second has this many requests in it. Larger numbers could overflow a sum, and one pod's nonsense would become
/// everyone's infinity.
const TOO_MANY: f64 = 1e12;

/// What was measured about one second, by one observer or by all together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    /// Requests in flight, averaged over the second. Those that waited are among them.
    pub concurrency: f64,
    /// Requests that arrived in the second.
    pub requests: f64,
    /// The part of `concurrency` on which no pod worked: held by an activator, or waiting for a place in a pod.
    pub waiting: f64,
    /// Requests that a pod finished in the second.
    pub ended: f64,
}

impl Sample {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            concurrency: self.concurrency + other.concurrency,
            requests: self.requests + other.requests,
            waiting: self.waiting + other.waiting,
            ended: self.ended + other.ended,
        }
    }

    /// So many times this.
    #[must_use]
    pub fn times(self, factor: f64) -> Self {
        Self {
            concurrency: self.concurrency * factor,
            requests: self.requests * factor,
            waiting: self.waiting * factor,
            ended: self.ended * factor,
        }
    }

    /// Whether this may count under `policy`.
    pub(crate) fn counts(&self, policy: Policy) -> bool {
        !policy.sound_samples_only || self.is_sound()
    }

    /// Whether all numbers can be a measurement: not negative, and not absurdly large or infinite.
    fn is_sound(&self) -> bool {
        [self.concurrency, self.requests, self.waiting, self.ended]
            .iter()
            .all(|value| (0.0..TOO_MANY).contains(value))
    }
}

/// What became of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// It counts.
    Kept,
    /// Its second has left the stable window.
    TooOld,
    /// It is no measurement: not finite, negative, or absurdly large.
    Unsound,
}

/// What was measured, one way: over both windows, and just now.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Trend {
    /// Over the stable and the panic window.
    pub(crate) over: Averages,
    /// Over the two newest seconds.
    pub(crate) recent: f64,
}

/// What is known of a workload's requests beside what is scaled on.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Flow {
    /// Arrivals per second.
    pub(crate) rate: Trend,
    /// Requests that waited.
    pub(crate) waiting: Trend,
    /// Requests that pods worked on in the two newest seconds.
    pub(crate) in_work: f64,
}

/// What is known of the load of one workload: a stable and a panic window for each metric, so that changing the metric finds its
/// history, and for what waited; and how asking the pods goes.
///
/// Knative calls it a collection too. Source: `pkg/autoscaler/metrics/collector.go`.
#[derive(Clone, Debug)]
pub struct Collection {
    concurrency: Pair,
    requests: Pair,
    waiting: Pair,
    /// Whether pods are asked. If not, that nothing was measured is no lack of data but no load.
    scraped: bool,
    failing: Option<&'static str>,
}

impl Collection {
    /// Nothing is known yet.
    pub fn new(spec: &TargetSpec) -> Self {
        Self {
            concurrency: Pair::new(spec),
            requests: Pair::new(spec),
            waiting: Pair::new(spec),
            scraped: is_scraped(spec),
            failing: None,
        }
    }

    /// Takes over changed settings and keeps what was measured.
    pub fn respec(&mut self, now: Moment, spec: &TargetSpec) {
        self.scraped = is_scraped(spec);
        for pair in [&mut self.concurrency, &mut self.requests, &mut self.waiting] {
            pair.stable.resize(now, spec.stable_window);
            pair.panic.resize(now, spec.panic_window);
        }
    }

    /// Adds a sample to the second of `at`. Samples of one second add up; late ones go into their own second.
    pub fn record(&mut self, at: Moment, sample: Sample, policy: Policy) -> Recorded {
        if !sample.counts(policy) {
            return Recorded::Unsound;
        }
        self.requests.record(at, sample.requests);
        self.waiting.record(at, sample.waiting);
        match self.concurrency.record(at, sample.concurrency) {
            Written::Kept => Recorded::Kept,
            Written::TooOld => Recorded::TooOld,
        }
    }

    /// Says how a round of asking the pods went: well, or why not, in words that stay the same for the same reason. Returns
    /// whether that is news. If pods are not asked at all, nothing can be wrong with it.
    pub fn asked(&mut self, outcome: Result<(), &'static str>) -> bool {
        let before = self.failing;
        self.failing = outcome.err().filter(|_| self.scraped);
        self.scraped && self.failing != before
    }

    /// Why asking the pods fails; none if it does not.
    pub fn failing(&self) -> Option<&'static str> {
        self.failing
    }

    /// Both averages of `metric`; none when the stable window holds no data.
    pub fn averages(&self, now: Moment, metric: Metric, spec: &TargetSpec) -> Option<Averages> {
        let pair = match metric {
            Metric::Concurrency => &self.concurrency,
            Metric::Rps => &self.requests,
        };
        let missing = if spec.policy.silence_is_no_data {
            pair.stable.is_silent(now)
        } else {
            pair.stable.is_empty(now)
        };
        (!(missing && self.scraped)).then(|| pair.averages(now, spec))
    }

    /// What is known of the requests at `now`.
    pub(crate) fn flow(&self, now: Moment, spec: &TargetSpec) -> Flow {
        let trend = |pair: &Pair| Trend {
            over: pair.averages(now, spec),
            recent: pair.recent.average(now),
        };
        let waiting = trend(&self.waiting);
        let all = self.concurrency.recent.average(now);
        Flow {
            rate: trend(&self.requests),
            in_work: (all - waiting.recent).max(0.0),
            waiting,
        }
    }
}

fn is_scraped(spec: &TargetSpec) -> bool {
    spec.policy.scrapes_always || spec.target_burst_capacity != BurstCapacity::Unlimited
}

/// One series over both windows, and its two newest seconds.
#[derive(Clone, Debug)]
struct Pair {
    stable: Window,
    panic: Window,
    recent: Recent,
}

/// The two newest seconds of a series.
#[derive(Clone, Copy, Debug, Default)]
struct Recent {
    second: u64,
    newest: f64,
    before: f64,
}

impl Recent {
    fn record(&mut self, at: Moment, value: f64) {
        let second = at.as_secs();
        match second.checked_sub(self.second) {
            Some(0) => self.newest += value,
            Some(1) => {
                *self = Self {
                    second,
                    newest: value,
                    before: self.newest,
                }
            }
            Some(_) => {
                *self = Self {
                    second,
                    newest: value,
                    before: 0.0,
                }
            }
            None if self.second - second == 1 => self.before += value,
            None => {}
        }
    }

    /// The mean of both; nothing if they are no longer new.
    fn average(&self, now: Moment) -> f64 {
        if now.as_secs().saturating_sub(self.second) > 2 {
            return 0.0;
        }
        f64::midpoint(self.newest, self.before)
    }
}

impl Pair {
    fn new(spec: &TargetSpec) -> Self {
        Self {
            stable: Window::new(spec.stable_window),
            panic: Window::new(spec.panic_window),
            recent: Recent::default(),
        }
    }

    fn averages(&self, now: Moment, spec: &TargetSpec) -> Averages {
        Averages {
            stable: self.stable.average(now, spec.aggregation),
            panic: self.panic.average(now, spec.aggregation),
        }
    }

    fn record(&mut self, at: Moment, value: f64) -> Written {
        // A late value may have left the short window and still be in the long one.
        self.recent.record(at, value);
        self.panic.record(at, value);
        self.stable.record(at, value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_change_of_how_asking_goes_is_news() {
        let mut collection = Collection::new(&TargetSpec::default());
        let mut news = |outcome| collection.asked(outcome);
        assert!(!news(Ok(())), "nobody thought otherwise");
        assert!(news(Err("silence")));
        assert!(!news(Err("silence")));
        assert!(news(Err("refused")), "another reason");
        assert!(news(Ok(())));
        assert!(!news(Ok(())));
        assert_eq!(collection.failing(), None);
    }

    #[test]
    fn where_pods_are_not_asked_silence_is_no_load_in_knative_alone() {
        let now = Moment::from_secs(1_000_000);
        for (policy, load) in [(Policy::KNATIVE, Some(0.0)), (Policy::default(), None)] {
            let spec = TargetSpec {
                target_burst_capacity: BurstCapacity::Unlimited,
                policy,
                ..TargetSpec::default()
            };
            let mut collection = Collection::new(&spec);
            let read = collection.averages(now, Metric::Rps, &spec);
            assert_eq!(read.map(|load| load.stable), load, "{policy:?}");
            assert_eq!(collection.asked(Err("silence")), policy.scrapes_always);
        }
    }

    #[test]
    fn knative_adds_up_what_is_no_measurement() {
        let (spec, now) = (TargetSpec::default(), Moment::from_secs(1_000_000));
        let sample = Sample {
            requests: -1.0,
            ..Sample::default()
        };
        let mut collection = Collection::new(&spec);
        for (policy, recorded) in [
            (Policy::default(), Recorded::Unsound),
            (Policy::KNATIVE, Recorded::Kept),
        ] {
            assert_eq!(collection.record(now, sample, policy), recorded);
        }
        let load = collection.averages(now, Metric::Rps, &spec);
        assert_eq!(load.map(|load| load.stable), Some(-1.0));
    }
}
