//! One workload's decider: samples in, decisions out.
//!
//! It owns all memory of one workload and is all there is to call. The order of the rules is the order of
//! [`Decider::decide`]: measure, the algorithm, what is on its way, the bounds, the gate before zero, and last that nothing is
//! taken away while requests are held.

use std::{sync::Arc, time::Duration};

use crate::bounds::{self, InitialScale};
use crate::burst::headroom;
use crate::kpa::Verdict;
use crate::series::Flow;
use crate::starting::{Growth, Scene, Unseen, WorkPeak};
use crate::{
    Averages, Collection, Decision, Inputs, Kpa, Learned, Limit, Metric, Mode, Moment, Observed,
    Published, Reason, Recorded, Replicas, Sample, StartClass, TargetSpec, ZeroGate,
};

/// How often to decide. Source: `pkg/autoscaler/scaling/multiscaler.go`.
pub const TICK: Duration = Duration::from_secs(2);

/// What was handed in and not used, counted since the decider was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// Samples that were no measurement ([`Recorded::Unsound`]).
    pub unsound: u64,
    /// Samples of a second that had left the stable window.
    pub too_old: u64,
    /// Calls whose time was before that of an earlier one; they were taken as of the earlier one's.
    pub backward: u64,
}

/// The memory of one workload's scaling.
#[derive(Clone, Debug)]
pub struct Decider {
    spec: Arc<TargetSpec>,
    collection: Collection,
    kpa: Kpa,
    initial: InitialScale,
    gate: ZeroGate,
    published: Published,
    refused: Refused,
    latest: Moment,
    learned: Learned,
    growth: Growth,
    /// Whether that is why the last decision is no larger.
    limited: bool,
    unseen: Unseen,
    peak: WorkPeak,
    /// Requests that the ready pods can work on at once, as of the last decision.
    places: f64,
}

impl Decider {
    /// A decider for a workload that has `ready` pods at `now`.
    ///
    /// With more than one it starts in panic mode ([`crate::Policy::born_in_panic`]): nothing is known of the load before, so
    /// nothing is taken away for a stable window.
    ///
    /// Many workloads have the same settings, so the settings may be shared.
    pub fn new(spec: impl Into<Arc<TargetSpec>>, now: Moment, ready: Replicas) -> Self {
        let spec = spec.into();
        Self {
            collection: Collection::new(&spec),
            kpa: Kpa::new(&spec, now, ready),
            initial: InitialScale::new(now, ready),
            gate: ZeroGate::new(now),
            published: Published::new(&spec),
            refused: Refused::default(),
            latest: now,
            learned: Learned::default(),
            growth: Growth::default(),
            limited: false,
            unseen: Unseen::new(now),
            peak: WorkPeak::default(),
            places: places(&spec, ready),
            spec,
        }
    }

    /// Takes over what an earlier decider has learned. What cannot have been learned is left out.
    pub fn recall(&mut self, learned: Learned) {
        if learned.is_sound() {
            self.learned = learned;
        }
    }

    /// A pod of `class` became ready `took` after it was created.
    pub fn learn_start(&mut self, class: &StartClass, took: Duration) {
        self.learned
            .start(class, took.min(self.spec.max_cold_start));
    }

    /// What was learned, to be kept.
    pub fn learned(&self) -> &Learned {
        &self.learned
    }

    /// Takes over changed settings and keeps the history.
    pub fn respec(&mut self, now: Moment, spec: impl Into<Arc<TargetSpec>>) {
        let (now, spec) = (self.advance(now), spec.into());
        self.collection.respec(now, &spec);
        self.kpa.respec(&spec);
        self.spec = spec;
    }

    /// Adds a sample to the second of `at`. Samples of one second add up; late ones go into their own second.
    ///
    /// The caller vouches that `at` is not in the future: everything older than a window before it is given up.
    pub fn record(&mut self, at: Moment, sample: Sample) -> Recorded {
        let recorded = self.collection.record(at, sample, self.spec.policy);
        match recorded {
            Recorded::Kept => self.learn_work(sample),
            Recorded::TooOld => self.refused.too_old += 1,
            Recorded::Unsound => self.refused.unsound += 1,
        }
        recorded
    }

    /// Says how a round of asking the pods went. Returns whether that is news; see [`Collection::asked`].
    pub fn asked(&mut self, outcome: Result<(), &'static str>) -> bool {
        self.collection.asked(outcome)
    }

    /// Why asking the pods fails; none if it does not.
    pub fn failing(&self) -> Option<&'static str> {
        self.collection.failing()
    }

    /// Decides. To be called every [`TICK`], and whenever else the caller likes.
    pub fn decide(&mut self, now: Moment, seen: &Observed) -> Decision {
        let now = self.advance(now);
        self.gate.observe(now, seen);
        self.initial.advance(now, &self.spec, seen);
        let (observed, unseen) = self.unseen.observe(now, seen);
        let seen = &observed;
        self.places = places(&self.spec, seen.ready);
        let Some(load) = self.collection.averages(now, self.spec.metric, &self.spec) else {
            return self.no_data(now, seen);
        };

        let flow = self.collection.flow(now, &self.spec);
        let verdict = self.evaluate(now, seen, unseen, load, flow);
        let (bounded, bound) = bounds::apply(verdict.desired, &self.spec, seen, self.initial);
        let (count, rule) = if bounded.is_zero() {
            let gate = self.gate.idle(now, &self.spec, seen, self.min_stay());
            (gate.want, Some(gate.reason))
        } else {
            self.gate.busy(now);
            (bounded, bound.or(verdict.rule))
        };
        let (want, reason) = self.settle(count, rule, seen, unseen);
        Decision {
            want,
            desired: Some(verdict.desired),
            mode: verdict.mode,
            reason,
            inputs: self.inputs(now, seen, Some((load, flow))),
            burst_headroom: verdict.burst_headroom,
            changed: self
                .published
                .publish(verdict.desired, verdict.burst_headroom),
        }
    }

    /// When a decision may come out differently although nothing new is seen; none if only news can change it. It holds
    /// until the next call of `decide` or `respec`. Calling `decide` at other times does no harm.
    pub fn next_wakeup(&self) -> Option<Moment> {
        let calm = self.kpa.panic().ends_at(self.spec.stable_window);
        let growth = self.limited.then(|| self.latest + TICK);
        let all = [self.gate.next_wakeup(), calm, growth];
        all.into_iter().flatten().min()
    }

    /// Whether this sample should be answered at once rather than at the next tick: the last answer was zero.
    pub fn is_poked_by(&self, sample: Sample) -> bool {
        sample.counts(self.spec.policy) && self.published.is_poked_by(sample.concurrency)
    }

    /// The settings in force.
    pub fn spec(&self) -> &Arc<TargetSpec> {
        &self.spec
    }

    /// The algorithm's memory.
    pub fn kpa(&self) -> &Kpa {
        &self.kpa
    }

    /// What was handed in and not used.
    pub fn refused(&self) -> Refused {
        self.refused
    }

    /// The algorithm, and what our own rules make of its answer.
    fn evaluate(
        &mut self,
        now: Moment,
        seen: &Observed,
        unseen: Replicas,
        load: Averages,
        flow: Flow,
    ) -> Verdict {
        let spec = Arc::clone(&self.spec);
        let scene = Scene {
            now,
            spec: &spec,
            seen,
            unseen,
            load,
            flow,
            start: self.learned.next_start_time(),
            service: self.learned.service_time(),
        };
        let aware = spec.policy.cold_start_aware;
        let mut verdict = if aware && !scene.starts_are_short() {
            self.aware(&scene)
        } else {
            let ready = seen.ready;
            self.kpa.evaluate(now, &spec, ready, seen.reachable, load)
        };
        if aware && scene.is_on() {
            verdict.mode = Mode::Starting;
        }
        verdict
    }

    /// The algorithm on what the pods have to work on, with pods on their way as pods; and then what should be there for
    /// requests that wait.
    fn aware(&mut self, scene: &Scene<'_>) -> Verdict {
        let (spec, seen) = (scene.spec, scene.seen);
        let capacity = scene.capacity();
        let mut verdict =
            self.kpa
                .evaluate(scene.now, spec, capacity, seen.reachable, scene.work());
        verdict.burst_headroom = headroom(
            seen.ready,
            spec.total,
            spec.target_burst_capacity,
            scene.load.panic,
        );
        let mut raise = |to: Replicas, rule: Reason| {
            if to > verdict.desired {
                verdict.desired = to;
                verdict.rule = Some(rule);
            }
        };
        let backlog = scene.backlog();
        if let Some(backlog) = backlog {
            let most = scene.most_at_once();
            if backlog.count > most {
                raise(most, Reason::RateLimited { by: Limit::ScaleUp });
            } else if backlog.enough {
                raise(backlog.count, Reason::Underway);
            } else {
                raise(backlog.count, Reason::Backlog);
            }
        }
        let peak = self.peak.hold(scene, backlog.is_some());
        raise(peak, Reason::WorkHold);
        self.growth.observe(scene);
        let limit = self.growth.limit(scene);
        // What is there stays: a limit on growth takes nothing away.
        let most = limit.map_or(Replicas::MAX, |(most, _)| most.max(seen.current));
        self.limited = verdict.desired > most;
        if let Some((_, because)) = limit
            && self.limited
        {
            verdict.desired = most;
            verdict.rule = Some(Reason::Cautious { because });
        }
        // Both take in what came of it, and keep no more than the limit lets through.
        let kept = self.kpa.panicked(verdict.desired).min(most);
        if kept > verdict.desired {
            verdict.desired = kept;
            verdict.rule = Some(Reason::PanicHold);
        }
        if seen.reachable {
            let delayed = self.kpa.delayed(scene.now, verdict.desired).min(most);
            if delayed > verdict.desired {
                verdict.desired = delayed;
                verdict.rule = Some(Reason::DelayHold);
            }
        }
        verdict
    }

    /// The last word: nothing is taken away while requests are held or pods are starting.
    fn settle(
        &self,
        count: Replicas,
        rule: Option<Reason>,
        seen: &Observed,
        unseen: Replicas,
    ) -> (Option<Replicas>, Reason) {
        if seen.held > 0 && seen.current.is_zero() && count.is_zero() {
            // Requests wait and the average does not show them yet. The activator that holds them is waking the workload,
            // perhaps right now; an opinion of zero could only be in its way.
            return (None, Reason::Held);
        }
        if seen.held > 0 && count < seen.current {
            return (Some(seen.current), Reason::Held);
        }
        let starting = !seen.starting.is_zero() || !unseen.is_zero();
        let stay = self.spec.cap(seen.current);
        let stays = self.spec.policy.cold_start_aware && starting && seen.reachable;
        if stays && count < stay {
            return (Some(stay), Reason::Starting);
        }
        (Some(count), rule.unwrap_or_else(|| by_load(count, seen)))
    }

    /// How long the workload stays after a start. What was not asked for is learned: staying idle for as long as a start
    /// takes costs at most twice what it would cost to know whether the next request comes before that.
    fn min_stay(&self) -> Duration {
        let learned = || {
            let aware = self.spec.policy.cold_start_aware;
            aware.then(|| self.learned.next_start_time()).flatten()
        };
        self.spec.min_stay.or_else(learned).unwrap_or_default()
    }

    /// What a second says about how long requests take. A full pod works on no more than it has places for, however many
    /// it has taken.
    fn learn_work(&mut self, sample: Sample) {
        if !self.spec.policy.cold_start_aware {
            return;
        }
        let in_work = (sample.concurrency - sample.waiting).clamp(0.0, self.places);
        if in_work > 0.0 || sample.ended > 0.0 {
            self.learned.work(in_work, sample.ended);
        }
    }

    /// Time for us never goes back.
    fn advance(&mut self, now: Moment) -> Moment {
        if now < self.latest {
            self.refused.backward += 1;
        }
        self.latest = self.latest.max(now);
        self.latest
    }

    /// Without data nothing changes: not the scale, not panic, not what was last published.
    fn no_data(&self, now: Moment, seen: &Observed) -> Decision {
        Decision {
            want: None,
            desired: None,
            mode: if self.kpa.panic().is_panicking() {
                Mode::Panic
            } else {
                Mode::Stable
            },
            reason: Reason::NoData,
            inputs: self.inputs(now, seen, None),
            burst_headroom: self.published.burst_headroom,
            changed: false,
        }
    }

    fn inputs(&self, at: Moment, seen: &Observed, measured: Option<(Averages, Flow)>) -> Inputs {
        let load = measured.map(|(load, _)| load);
        let flow = measured.map(|(_, flow)| flow);
        Inputs {
            at,
            metric: self.spec.metric,
            stable: load.map(|load| load.stable),
            panic: load.map(|load| load.panic),
            target: self.spec.target,
            total: self.spec.total,
            ready: seen.ready,
            starting: seen.starting,
            overdue: seen.overdue,
            failed: seen.failed,
            waiting: flow.map(|flow| flow.waiting.recent),
            rate: flow.map(|flow| flow.rate.over.panic),
            start_time: self
                .learned
                .next_start_time()
                .map(|time| time.as_secs_f64()),
            service_time: self.learned.service_time(),
            current: seen.current,
            held: seen.held,
            open: seen.open,
            reachable: seen.reachable,
        }
    }
}

/// Requests that `ready` pods, or the first one, can work on at once.
fn places(spec: &TargetSpec, ready: Replicas) -> f64 {
    match spec.metric {
        Metric::Concurrency => spec.total * ready.max(Replicas::ONE).as_f64(),
        Metric::Rps => f64::INFINITY,
    }
}

/// A reason for a count that no rule touched.
fn by_load(count: Replicas, seen: &Observed) -> Reason {
    match count.cmp(&seen.current) {
        std::cmp::Ordering::Less => Reason::ScaleDown,
        std::cmp::Ordering::Equal => Reason::Steady,
        std::cmp::Ordering::Greater => Reason::ScaleUp,
    }
}
