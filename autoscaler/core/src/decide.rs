//! One workload's decider: samples in, decisions out.
//!
//! It owns all memory of one workload and is all there is to call. The order of the rules is the order of
//! [`Decider::decide`]: measure, the algorithm, the bounds, the gate before zero, and last that nothing is taken away
//! while requests are held.

use std::{sync::Arc, time::Duration};

use crate::bounds::{self, InitialScale};
use crate::{
    Averages, Collection, Decision, Inputs, Kpa, Mode, Moment, Observed, Published, Reason,
    Recorded, Replicas, Sample, TargetSpec, ZeroGate,
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
            spec,
        }
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
            Recorded::Kept => {}
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
        let Some(load) = self.collection.averages(now, self.spec.metric, &self.spec) else {
            return self.no_data(now, seen);
        };

        let verdict = self
            .kpa
            .evaluate(now, &self.spec, seen.ready, seen.reachable, load);
        let (bounded, bound) = bounds::apply(verdict.desired, &self.spec, seen, self.initial);
        let (count, rule) = if bounded.is_zero() {
            let gate = self.gate.idle(now, &self.spec, seen);
            (gate.want, Some(gate.reason))
        } else {
            self.gate.busy(now);
            (bounded, bound.or(verdict.rule))
        };
        let (want, reason) = settle(count, rule, seen);
        Decision {
            want,
            desired: Some(verdict.desired),
            mode: verdict.mode,
            reason,
            inputs: self.inputs(now, seen, Some(load)),
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
        [self.gate.next_wakeup(), calm].into_iter().flatten().min()
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

    fn inputs(&self, at: Moment, seen: &Observed, load: Option<Averages>) -> Inputs {
        Inputs {
            at,
            metric: self.spec.metric,
            stable: load.map(|load| load.stable),
            panic: load.map(|load| load.panic),
            target: self.spec.target,
            total: self.spec.total,
            ready: seen.ready,
            starting: seen.starting,
            current: seen.current,
            held: seen.held,
            open: seen.open,
            reachable: seen.reachable,
        }
    }
}

/// The last word: nothing is taken away while requests are held, and a reason for a count that no rule touched.
fn settle(count: Replicas, rule: Option<Reason>, seen: &Observed) -> (Option<Replicas>, Reason) {
    if seen.held > 0 && seen.current.is_zero() && count.is_zero() {
        // Requests wait and the average does not show them yet. The activator that holds them is waking the workload,
        // perhaps right now; an opinion of zero could only be in its way.
        return (None, Reason::Held);
    }
    if seen.held > 0 && count < seen.current {
        return (Some(seen.current), Reason::Held);
    }
    let by_load = match count.cmp(&seen.current) {
        std::cmp::Ordering::Less => Reason::ScaleDown,
        std::cmp::Ordering::Equal => Reason::Steady,
        std::cmp::Ordering::Greater => Reason::ScaleUp,
    };
    (Some(count), rule.unwrap_or(by_load))
}
