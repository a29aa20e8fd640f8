//! Starting mode: what is wanted while pods are on their way or requests wait for them.
//!
//! Knative's algorithm sees requests in flight and ready pods. While a model takes minutes to load, every request that
//! waits counts again each second, no pod seems to come of what was asked for, and two pods become fifty. Here the two
//! things that are in such a number are told apart:
//!
//! - *Work*: arrivals per second times the seconds that a pod works on one. This is what the pods will have to do for ever,
//!   and it goes through Knative's algorithm as ever, with pods on their way counted as pods ([`Scene::work`]).
//! - *Waiting*: requests that have piled up, and will until the next pods are there. This is done once, and so are the pods
//!   for it: as many as clear it in `backlog-clear-time` ([`Scene::backlog`]).
//!
//! With pods ready, never more is asked for than Knative would ask at the same moment; less, only once what is under way is
//! enough. While nothing is learned, starts take too long or fail, growth is bounded ([`Growth`]). Starts that are done
//! within a panic window need none of this: Knative's algorithm sees what came of its last answer before the next.

use std::time::Duration;

use crate::series::{Flow, Trend};
use crate::{Averages, Caution, Metric, Moment, Observed, Replicas, TargetSpec};

/// Up to this share of the load, requests that wait are the ordinary jostle of random arrivals: the load is taken as it is.
const JOSTLE: f64 = 0.05;
/// Waiting requests from which there is a backlog: half a request over two seconds is chance.
const BACKLOG: f64 = 1.0;
/// How much further than Knative one may look ahead from zero.
const EARLY: f64 = 2.0;
/// Before any start was seen, a pod may be added for each of these that the first start takes. As long as a start has taken
/// already it may well take again: so the count at most doubles per start time, which is not known to be shorter.
const UNLEARNED_STEP: Duration = Duration::from_secs(5);
/// What a start is taken to last at least when nothing was learned.
pub(crate) const UNLEARNED_START: Duration = Duration::from_secs(10);
/// Pods of which nothing is seen for so long will not be made: a quota, or an admission webhook, is against them.
const UNSEEN: Duration = Duration::from_secs(10);
/// Failed starts in a row after which waiting does not become longer.
const MAX_BACK_OFF: u32 = 6;

/// Everything that the rules of this mode look at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scene<'a> {
    pub(crate) now: Moment,
    pub(crate) spec: &'a TargetSpec,
    pub(crate) seen: &'a Observed,
    /// Pods that were asked for lately and are not seen yet: they are on their way too.
    pub(crate) unseen: Replicas,
    /// The load as Knative sees it.
    pub(crate) load: Averages,
    pub(crate) flow: Flow,
    /// How long the next start is expected to take.
    pub(crate) start: Option<Duration>,
    /// Seconds that a pod works on a request.
    pub(crate) service: Option<f64>,
}

/// What should be there for the requests that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Backlog {
    /// Replicas, those that are there included.
    pub(crate) count: Replicas,
    /// Whether the pods that are there or on their way will do.
    pub(crate) enough: bool,
}

impl Scene<'_> {
    /// Pods on their way that will be capacity.
    fn coming(&self) -> Replicas {
        sum(&[minus(self.seen.starting, self.seen.overdue), self.unseen])
    }

    /// Pods that are or will be capacity. Those that replicas were taken from are on their way out, whatever they look like.
    pub(crate) fn capacity(&self) -> Replicas {
        let stay = self.seen.current.max(self.seen.ready);
        sum(&[self.seen.ready, self.coming()]).min(stay)
    }

    /// Whether pods are on their way.
    pub(crate) fn is_starting(&self) -> bool {
        !self.seen.starting.is_zero() || !self.unseen.is_zero()
    }

    /// Whether this mode decides: pods are on their way, or requests are held because none is ready.
    pub(crate) fn is_on(&self) -> bool {
        self.is_starting() || (self.seen.held > 0 && self.seen.ready.is_zero())
    }

    /// Whether starts are done within a panic window, as far as is known and seen.
    pub(crate) fn starts_are_short(&self) -> bool {
        let short = |start: Duration| start <= self.spec.panic_window;
        self.start.is_some_and(short) && self.seen.overdue.is_zero() && self.seen.failed.is_zero()
    }

    /// What is scaled on without the requests that merely wait.
    pub(crate) fn work(&self) -> Averages {
        let over = |window: fn(&Averages) -> f64| {
            let of = |trend: &Trend| window(&trend.over);
            let (all, waiting) = (window(&self.load), of(&self.flow.waiting));
            if self.spec.metric == Metric::Rps || waiting <= JOSTLE * all {
                return all;
            }
            match self.service {
                Some(service) => (of(&self.flow.rate) * service).min(all),
                None => (all - waiting).max(0.0),
            }
        };
        Averages {
            stable: over(|averages| averages.stable),
            panic: over(|averages| averages.panic),
        }
    }

    /// Requests that wait now, also those that an unlimited pod has taken although it is full.
    fn waiting(&self) -> f64 {
        #[expect(
            clippy::cast_precision_loss,
            reason = "held requests stay far below 2^52"
        )]
        let held = self.seen.held as f64;
        let beyond = match self.spec.metric {
            Metric::Concurrency => self.flow.in_work - self.seen.ready.as_f64() * self.spec.total,
            Metric::Rps => 0.0,
        };
        self.flow.waiting.recent.max(held) + beyond.max(0.0)
    }

    /// What Knative would ask for now, were it in panic.
    fn knative(&self) -> Replicas {
        let load = self.load.stable.max(self.load.panic);
        Replicas::from_f64((load / self.spec.target).ceil())
    }

    /// Requests that one pod finishes per second, if that is known.
    fn pod_rate(&self) -> Option<f64> {
        match self.spec.metric {
            Metric::Rps => Some(self.spec.total),
            Metric::Concurrency => self
                .service
                .map(|service| self.spec.total / service.max(1e-6)),
        }
    }

    /// Arrivals per second that are there for sure: what was counted less its standard deviation, over the panic window and
    /// just now, whichever is less. What came all at once and is over will not come again.
    fn sure_rate(&self) -> f64 {
        let rate = &self.flow.rate;
        let sure = |rate: f64, seconds: f64| (rate - (rate / seconds).sqrt()).max(0.0);
        let window = self.spec.panic_window.as_secs_f64().max(1.0);
        sure(rate.over.panic, window).min(sure(rate.recent, 2.0))
    }

    /// Replicas for the requests that wait; none if hardly any do.
    pub(crate) fn backlog(&self) -> Option<Backlog> {
        let waiting = self.waiting();
        if waiting < BACKLOG.max(JOSTLE * self.load.stable) {
            return None;
        }
        let knative = self.knative();
        let Some(pod_rate) = self.pod_rate() else {
            // As many as have a place for each: what is there now is all that is known.
            let places = self.load.stable.max(self.load.panic) / self.spec.total;
            return Some(Backlog {
                count: Replicas::from_f64(places.ceil()).min(knative),
                enough: false,
            });
        };
        let rate = self.sure_rate();
        // Nothing is cleared in less time than one request takes.
        let clear = self.spec.backlog_clear_time.as_secs_f64();
        let clear = clear.max(self.service.unwrap_or_default());
        let start = self.next_start().as_secs_f64();
        // Whoever is asked for now is ready after a start, and should be done with the backlog a clear time later. What the
        // others will have done by then needs nobody.
        let until = start + clear;
        let ahead = self.seen.ahead.as_secs_f64() + self.unseen.as_f64() * start;
        let done = pod_rate * (self.capacity().as_f64() * until - ahead);
        let left = waiting + rate * until - done;
        let more = Replicas::from_f64((left / (pod_rate * clear)).ceil());
        let load_of_one = self.spec.target / self.spec.total * pod_rate;
        let steady = Replicas::from_f64((rate / load_of_one).ceil());
        // What holds a place and is no capacity has to be asked for beside.
        let idle = sum(&[self.seen.overdue, self.seen.failed]);
        let wanted = sum(&[self.capacity(), more]).max(steady);
        let wanted = sum(&[wanted, idle]);
        Some(Backlog {
            count: wanted.min(self.at_most(knative)),
            enough: more.is_zero() && steady <= self.capacity(),
        })
    }

    /// How long the next start is taken to last: as learned, else twice as long as the one that is under way has lasted.
    fn next_start(&self) -> Duration {
        let oldest = self.seen.oldest_start;
        let lasted = oldest.map_or(Duration::ZERO, |since| self.now.since(since));
        let unlearned = UNLEARNED_START.max(lasted.saturating_mul(2));
        self.start.unwrap_or(unlearned)
    }

    /// The most replicas after one decision. Source: `pkg/autoscaler/scaling/autoscaler.go`, with pods on their way as pods.
    pub(crate) fn most_at_once(&self) -> Replicas {
        let pods = self.capacity().max(Replicas::ONE).as_f64();
        Replicas::from_f64((self.spec.max_scale_up_rate * pods).ceil())
    }

    /// No more than Knative would ask for. While nothing is ready, what arrives until then is known better than from the
    /// requests that wait already, and asking early is all that helps.
    fn at_most(&self, knative: Replicas) -> Replicas {
        if self.seen.ready.is_zero() && self.spec.metric == Metric::Concurrency {
            Replicas::from_f64(knative.as_f64() * EARLY)
        } else {
            knative
        }
    }

    /// Why growth has to be bounded, if it has. `failing`: starts failed, and none has succeeded since.
    fn caution(&self, failing: bool) -> Option<Caution> {
        let no_start = self.start.is_none() && self.seen.ready.is_zero();
        let unlearned = no_start || self.pod_rate().is_none();
        if failing {
            Some(Caution::Failing)
        } else if !self.seen.overdue.is_zero() {
            Some(Caution::Overdue)
        } else if self.is_starting() && unlearned {
            Some(Caution::Unlearned)
        } else {
            None
        }
    }
}

/// Pods that were asked for and of which nothing is seen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unseen {
    count: Replicas,
    /// Since when there are as many.
    since: Moment,
}

impl Unseen {
    pub(crate) fn new(now: Moment) -> Self {
        Self {
            count: Replicas::ZERO,
            since: now,
        }
    }

    /// Takes in what is seen. Returns it with those that are not coming as failed, and how many are on their way.
    pub(crate) fn observe(&mut self, now: Moment, seen: &Observed) -> (Observed, Replicas) {
        let known = sum(&[seen.ready, seen.starting, seen.failed, seen.lapsed]);
        let count = minus(seen.current, known);
        if count != self.count {
            *self = Self { count, since: now };
        }
        if now.since(self.since) <= UNSEEN {
            return (*seen, count);
        }
        let seen = Observed {
            failed: sum(&[seen.failed, count]),
            ..*seen
        };
        (seen, Replicas::ZERO)
    }
}

/// Bounded growth: how many replicas there may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Growth {
    bound: Option<Bound>,
    /// Starts that failed since one succeeded.
    failures: u32,
    /// Failed and ready pods when last looked.
    failed: Replicas,
    ready: Replicas,
}

/// Since when growth is bounded, from how many replicas on, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bound {
    because: Caution,
    since: Moment,
    base: Replicas,
}

impl Growth {
    /// Takes in what is seen; to be called at every decision.
    pub(crate) fn observe(&mut self, scene: &Scene<'_>) {
        let seen = scene.seen;
        let failed = minus(seen.failed, self.failed).get();
        self.failures = self.failures.saturating_add(failed);
        if seen.ready > self.ready || (seen.current.is_zero() && seen.failed.is_zero()) {
            self.failures = 0;
        }
        (self.failed, self.ready) = (seen.failed, seen.ready);
        let caution = scene.caution(self.failures > 0);
        if self.bound.map(|bound| bound.because) == caution {
            return;
        }
        self.bound = caution.map(|because| Bound {
            because,
            since: match because {
                Caution::Unlearned => seen.oldest_start.unwrap_or(scene.now).min(scene.now),
                Caution::Overdue | Caution::Failing => scene.now,
            },
            base: seen.current.max(Replicas::ONE),
        });
    }

    /// The most replicas there may be now, and why no more.
    pub(crate) fn limit(&self, scene: &Scene<'_>) -> Option<(Replicas, Caution)> {
        let bound = self.bound?;
        let passed = scene.now.since(bound.since).as_secs_f64();
        let start = scene.start.unwrap_or(UNLEARNED_START).as_secs_f64();
        let base = bound.base.as_f64();
        let most = match bound.because {
            Caution::Unlearned => base * (1.0 + passed / UNLEARNED_STEP.as_secs_f64()),
            // Twice as many at once, and again with each further start time.
            Caution::Overdue => base * (1.0 + (passed / start).floor()).exp2(),
            Caution::Failing => {
                // Others may come in their place, but where all fail, asking for more is only tried again after a while.
                let at_once = if scene.capacity().is_zero() { 0.0 } else { 1.0 };
                let patience = f64::from(self.failures.clamp(1, MAX_BACK_OFF) - 1).exp2();
                base * (at_once + (passed / (start * patience)).floor()).exp2()
            }
        };
        Some((Replicas::from_f64(most.floor()), bound.because))
    }
}

/// The most that the work needed while requests waited or no pod was ready: it is kept for a stable window after that,
/// as Knative keeps the most of a panic. The average over that window does not tell yet what the work needs: before the
/// workload woke there was none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WorkPeak(Option<(Moment, Replicas)>);

impl WorkPeak {
    /// Takes in what is seen, and says what is to be kept.
    pub(crate) fn hold(&mut self, scene: &Scene<'_>, waits: bool) -> Replicas {
        let peak = self.0.map_or(Replicas::ZERO, |(_, peak)| peak);
        if waits || (scene.is_on() && scene.seen.ready.is_zero()) {
            let needed = (scene.work().panic / scene.spec.target).ceil();
            let needed = Replicas::from_f64(needed).min(scene.most_at_once());
            self.0 = Some((scene.now, peak.max(needed)));
        }
        let kept = |since: Moment| scene.now.since(since) <= scene.spec.stable_window;
        self.0 = self.0.filter(|(since, _)| kept(*since));
        self.0.map_or(Replicas::ZERO, |(_, peak)| peak)
    }
}

fn sum(counts: &[Replicas]) -> Replicas {
    let sum = counts
        .iter()
        .fold(0u32, |sum, count| sum.saturating_add(count.get()));
    Replicas(sum).min(Replicas::MAX)
}

fn minus(count: Replicas, less: Replicas) -> Replicas {
    Replicas(count.get().saturating_sub(less.get()))
}
