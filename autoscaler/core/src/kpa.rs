//! The algorithm proper: two averages and a number of ready pods become a number of wanted pods.
//!
//! This is Knative's decision alone, without windows, bounds or the way to zero; [`crate::Decider`] adds those. The
//! [`crate::Inputs`] of a decision hold everything this takes, so a decision can be computed again from its record.
//! Source: `pkg/autoscaler/scaling/autoscaler.go`.

use crate::burst::headroom;
use crate::{DelayWindow, Limit, Mode, Moment, PanicClock, Reason, Replicas, TargetSpec};

/// What one decision starts from: the load over both windows, in units of the metric that is scaled on.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Averages {
    /// Over the stable window.
    pub stable: f64,
    /// Over the panic window.
    pub panic: f64,
}

/// What the algorithm says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// Wanted pods, before bounds.
    pub desired: Replicas,
    /// The mode that decided.
    pub mode: Mode,
    /// The rule that changed the number last; none when the load alone made it.
    pub rule: Option<Reason>,
    /// Room for requests beyond the target burst capacity; negative if there is too little.
    pub burst_headroom: i64,
}

/// The algorithm's memory: panic and the scale-down delay.
#[derive(Clone, Debug)]
pub struct Kpa {
    panic: PanicClock,
    delay: DelayWindow,
}

impl Kpa {
    /// The memory of a workload that has `ready` pods at `now`.
    pub fn new(spec: &TargetSpec, now: Moment, ready: Replicas) -> Self {
        Self {
            panic: PanicClock::new(now, ready, spec.policy.born_in_panic),
            delay: DelayWindow::new(spec.scale_down_delay),
        }
    }

    /// The state of panic.
    pub fn panic(&self) -> &PanicClock {
        &self.panic
    }

    /// Takes over what a changed spec says about memory.
    pub fn respec(&mut self, spec: &TargetSpec) {
        if spec.policy.delay_follows_spec {
            self.delay.resize(spec.scale_down_delay);
        }
    }

    /// Takes in that `wanted` is what came of it in the end, and says what panic makes of that: it never takes away.
    pub(crate) fn panicked(&mut self, wanted: Replicas) -> Replicas {
        if self.panic.is_panicking() {
            self.panic.hold(wanted)
        } else {
            wanted
        }
    }

    /// The same for the scale-down delay.
    pub(crate) fn delayed(&mut self, now: Moment, wanted: Replicas) -> Replicas {
        self.delay.record(now, wanted).max(wanted)
    }

    /// Decides. `ready` is the number of ready pods, zero included.
    pub fn evaluate(
        &mut self,
        now: Moment,
        spec: &TargetSpec,
        ready: Replicas,
        reachable: bool,
        load: Averages,
    ) -> Verdict {
        // One pod is assumed where there is none, so that rates and threshold have something to multiply.
        let base = ready.max(Replicas::ONE).as_f64();
        let rates = Rates {
            up: (spec.max_scale_up_rate * base).ceil(),
            down: if reachable {
                (base / spec.max_scale_down_rate).floor()
            } else {
                0.0
            },
        };
        let for_stable = (load.stable / spec.target).ceil();
        let for_panic = (load.panic / spec.target).ceil();
        let stable = rates
            .apply(for_stable)
            .at_least(spec.activation_scale, for_stable);
        let panic = rates
            .apply(for_panic)
            .at_least(spec.activation_scale, for_panic);

        self.panic.advance(
            now,
            for_panic / base >= spec.panic_threshold,
            spec.stable_window,
        );
        let (mode, mut step) = if self.panic.is_panicking() {
            let wanted = if panic.count > stable.count {
                panic
            } else {
                stable
            };
            (
                Mode::Panic,
                wanted.raised(self.panic.hold(wanted.count), Reason::PanicHold),
            )
        } else {
            (Mode::Stable, stable)
        };
        if reachable {
            step = step.raised(self.delay.record(now, step.count), Reason::DelayHold);
        }
        Verdict {
            desired: step.count,
            mode,
            rule: step.rule,
            burst_headroom: headroom(ready, spec.total, spec.target_burst_capacity, load.panic),
        }
    }
}

/// The most and the fewest pods that one decision may ask for.
struct Rates {
    up: f64,
    down: f64,
}

impl Rates {
    fn apply(&self, wanted: f64) -> Step {
        let (count, rule) = if wanted > self.up {
            (self.up, Some(Reason::RateLimited { by: Limit::ScaleUp }))
        } else if wanted < self.down {
            (
                self.down,
                Some(Reason::RateLimited {
                    by: Limit::ScaleDown,
                }),
            )
        } else {
            (wanted, None)
        };
        Step {
            count: Replicas::from_f64(count),
            rule,
        }
    }
}

/// A count on its way through the rules, with the rule that changed it last.
#[derive(Clone, Copy)]
struct Step {
    count: Replicas,
    rule: Option<Reason>,
}

impl Step {
    /// The activation scale, if the load (`unlimited`, before rates) asks for any pod at all. It may exceed the
    /// scale-up rate.
    fn at_least(self, activation: Option<Replicas>, unlimited: f64) -> Self {
        match activation {
            Some(floor) if unlimited > 0.0 => self.raised(floor, Reason::ActivationScale),
            _ => self,
        }
    }

    fn raised(self, to: Replicas, rule: Reason) -> Self {
        if to > self.count {
            Self {
                count: to,
                rule: Some(rule),
            }
        } else {
            self
        }
    }
}
