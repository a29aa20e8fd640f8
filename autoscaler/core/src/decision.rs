//! What is seen, what is decided, and why: the two ends of [`crate::Decider::decide`].

use std::fmt;
use std::time::Duration;

use crate::{Metric, Moment, Replicas};

/// The state of a workload at the moment of a decision, as the shell sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Pods that take requests.
    pub ready: Replicas,
    /// Pods that were never ready in their containers' present life and have not failed.
    pub starting: Replicas,
    /// Those of `starting` that have clearly passed the time that a start takes ([`crate::Starting`]).
    pub overdue: Replicas,
    /// Until the other starting pods are ready: the time that each is expected to take yet, added up.
    pub ahead: Duration,
    /// When the starting pod that waits longest was made; none if none is starting.
    pub oldest_start: Option<Moment>,
    /// Pods that will not be ready as they are: their image cannot be had, they crash, no node takes them.
    pub failed: Replicas,
    /// Pods that were ready and are not now: overloaded, or with a probe that fails. Neither capacity nor on their way.
    pub lapsed: Replicas,
    /// `spec.replicas`.
    pub current: Replicas,
    /// Requests that activators hold.
    pub held: u64,
    /// Requests, tunnels and connections that pods have open, together; none if a pod could not be asked.
    pub open: Option<u64>,
    /// Whether requests can reach the workload at all. An unreachable one is not kept up by its minimum.
    pub reachable: bool,
}

/// How the algorithm looks at the load.
///
/// Two modes as in Knative, and one of our own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "snake_case")
)]
pub enum Mode {
    /// The long average decides, up and down.
    #[default]
    Stable,
    /// The load outgrew the pods: the short average decides too, and the count never falls.
    Panic,
    /// Pods are on their way, and count as what they will be (`rouse.dev/cold-start-aware`).
    Starting,
}

impl Mode {
    /// The mode in a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stable => "stable",
            Self::Panic => "panic",
            Self::Starting => "starting",
        }
    }
}

/// Why growth is slower than the load asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "snake_case")
)]
pub enum Caution {
    /// Nothing is known yet of how long a start or a request takes.
    Unlearned,
    /// Pods have clearly passed the time that a start takes.
    Overdue,
    /// Starts fail.
    Failing,
}

/// Which way a decision was slowed down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "snake_case")
)]
pub enum Limit {
    /// `max-scale-up-rate`.
    ScaleUp,
    /// `max-scale-down-rate`.
    ScaleDown,
}

/// Why a decision is what it is: the last rule that had a say. Every branch has its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "snake_case")
)]
pub enum Reason {
    /// Nothing was measured within the stable window: the scale is left alone.
    NoData,
    /// The load asks for what is there.
    Steady,
    /// The load asks for more.
    ScaleUp,
    /// The load asks for less.
    ScaleDown,
    /// Less is wanted, but panic holds the most that was wanted since it began.
    PanicHold,
    /// The load asks for more or less than one decision may change.
    RateLimited {
        /// Which way.
        by: Limit,
    },
    /// Raised to `activation-scale`.
    ActivationScale,
    /// Raised to `initial-scale`, which was not yet reached since the wake.
    InitialScale,
    /// Raised to `min-scale`.
    MinScale,
    /// Cut to `max-scale`.
    MaxScale,
    /// Less is wanted, but not for as long as `scale-down-delay` yet.
    DelayHold,
    /// Idle, but not active for as long as the stable window yet.
    JustActive {
        /// Until it may count as idle.
        left: Duration,
    },
    /// Idle, within the grace period or pod retention.
    IdleGrace {
        /// Until zero, if nothing happens.
        left: Duration,
    },
    /// Requests wait that present pods and those on their way would not clear in time.
    Backlog,
    /// Requests wait, and the pods that are there or on their way are enough for them.
    Underway,
    /// Less is wanted, but what the work needed at most since pods were on their way is kept for a stable window.
    WorkHold,
    /// The load asks for more at once than is prudent.
    Cautious {
        /// Why.
        because: Caution,
    },
    /// Idle, but the last start took long: the model stays for a while (`rouse.dev/min-stay`).
    MinStay {
        /// Until it may go.
        left: Duration,
    },
    /// Activators hold requests: neither zero nor fewer.
    Held,
    /// Idle, but pods have requests or connections open: not zero.
    OpenRequests,
    /// Idle, but a pod could not be asked whether it has anything open: not zero.
    OpenUnknown,
    /// Pods are still starting: neither zero nor fewer.
    Starting,
    /// Idle long enough: the last replica goes.
    ToZero,
    /// There are no replicas and none are wanted.
    AtZero,
    /// Idle, but `enable-scale-to-zero` is off.
    ZeroDisabled,
}

impl Reason {
    /// The reason as a bounded label for metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::NoData => "no_data",
            Self::Steady => "steady",
            Self::ScaleUp => "scale_up",
            Self::ScaleDown => "scale_down",
            Self::PanicHold => "panic_hold",
            Self::RateLimited { by: Limit::ScaleUp } => "scale_up_rate",
            Self::RateLimited {
                by: Limit::ScaleDown,
            } => "scale_down_rate",
            Self::ActivationScale => "activation_scale",
            Self::InitialScale => "initial_scale",
            Self::MinScale => "min_scale",
            Self::MaxScale => "max_scale",
            Self::DelayHold => "delay_hold",
            Self::JustActive { .. } => "just_active",
            Self::IdleGrace { .. } => "idle_grace",
            Self::Backlog => "backlog",
            Self::Underway => "underway",
            Self::WorkHold => "work_hold",
            Self::Cautious {
                because: Caution::Unlearned,
            } => "unlearned",
            Self::Cautious {
                because: Caution::Overdue,
            } => "overdue",
            Self::Cautious {
                because: Caution::Failing,
            } => "failing",
            Self::MinStay { .. } => "min_stay",
            Self::Held => "held",
            Self::OpenRequests => "open_requests",
            Self::OpenUnknown => "open_unknown",
            Self::Starting => "starting",
            Self::ToZero => "to_zero",
            Self::AtZero => "at_zero",
            Self::ZeroDisabled => "zero_disabled",
        }
    }
}

/// Everything a decision was made from, for a log line and for computing it again.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Inputs {
    /// When.
    pub at: Moment,
    /// What is scaled on; the unit of the four numbers that follow.
    pub metric: Metric,
    /// The average over the stable window; none without data.
    pub stable: Option<f64>,
    /// The average over the panic window; none without data.
    pub panic: Option<f64>,
    /// The load one replica should carry.
    pub target: f64,
    /// The load one replica can carry.
    pub total: f64,
    /// Ready pods.
    pub ready: Replicas,
    /// Starting pods.
    pub starting: Replicas,
    /// Those of them that have clearly passed their time.
    pub overdue: Replicas,
    /// Pods that will not be ready as they are.
    pub failed: Replicas,
    /// Requests that waited in the newest seconds; none without data.
    pub waiting: Option<f64>,
    /// Arrivals per second over the panic window; none without data.
    pub rate: Option<f64>,
    /// Seconds that a start takes, as learned; none if nothing was.
    pub start_time: Option<f64>,
    /// Seconds that a pod works on a request, as learned; none if nothing was.
    pub service_time: Option<f64>,
    /// `spec.replicas`.
    pub current: Replicas,
    /// Requests held by activators.
    pub held: u64,
    /// What pods have open; none if unknown.
    pub open: Option<u64>,
    /// Whether requests can reach the workload.
    pub reachable: bool,
}

/// What to run and why: enough for a log line, a metric, an Event and a replay.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Decision {
    /// The replicas to have; none means leave it alone.
    ///
    /// It is stated even when it is what is there. From zero, the activator is who writes: see [`Decision::is_wake`].
    pub want: Option<Replicas>,
    /// The algorithm's own answer, before bounds and the way to zero; none without data.
    pub desired: Option<Replicas>,
    /// The mode that decided. Without data, the mode that the workload is in.
    pub mode: Mode,
    /// The rule that had the last say.
    pub reason: Reason,
    /// What it was decided from.
    pub inputs: Inputs,
    /// Requests the ready pods could take beyond the target burst capacity and the present load. Negative means that
    /// traffic is safer behind an activator.
    pub burst_headroom: i64,
    /// Whether this says something new: another `desired`, or the sign of the headroom changed.
    pub changed: bool,
}

impl Decision {
    /// Whether this asks for replicas where there are none. Such a write is the activator's while requests wait there;
    /// the autoscaler's own only when settings demand replicas without any load.
    pub fn is_wake(&self) -> bool {
        self.inputs.current.is_zero() && self.want.is_some_and(|want| !want.is_zero())
    }
}

/// One sentence that an operator can act on.
impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let current = self.inputs.current;
        match self.want {
            None => write!(f, "leave {current}")?,
            Some(want) if want == current => write!(f, "keep {current}")?,
            Some(want) => write!(f, "scale {current} -> {want}")?,
        }
        write!(
            f,
            ": {} ({} mode, {}",
            self.reason,
            self.mode.as_str(),
            self.inputs
        )?;
        if let Some(desired) = self.desired {
            write!(f, ", load asks for {desired}")?;
        }
        write!(f, ", burst headroom {})", self.burst_headroom)
    }
}

/// The sentence's because; durations in seconds.
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::NoData => "no data within the stable window; check that pods can be scraped",
            Self::Steady => "the load fits",
            Self::ScaleUp => "the load asks for more",
            Self::ScaleDown => "the load asks for less",
            Self::PanicHold => "panic keeps the most wanted since it began",
            Self::RateLimited { by: Limit::ScaleUp } => "max-scale-up-rate limits the step up",
            Self::RateLimited {
                by: Limit::ScaleDown,
            } => "max-scale-down-rate limits the step down",
            Self::ActivationScale => "activation-scale is the least above zero",
            Self::InitialScale => "initial-scale was not ready yet since the wake",
            Self::MinScale => "min-scale is the least",
            Self::MaxScale => "max-scale is the most",
            Self::DelayHold => "scale-down-delay holds a larger count",
            Self::JustActive { left } => {
                return write!(
                    f,
                    "idle, but active too recently; {:.1}s until it counts as idle",
                    left.as_secs_f64()
                );
            }
            Self::IdleGrace { left } => {
                return write!(f, "idle; {:.1}s until zero", left.as_secs_f64());
            }
            Self::Backlog => {
                "requests wait that the pods there and on their way would not clear in time"
            }
            Self::Underway => {
                "requests wait, and the pods that are there or on their way are enough for them"
            }
            Self::WorkHold => {
                "what the work needed at most is kept for a window after pods started or requests waited"
            }
            Self::Cautious {
                because: Caution::Unlearned,
            } => {
                "nothing is known yet of how long a start and a request take; growth is bounded until a pod is ready"
            }
            Self::Cautious {
                because: Caution::Overdue,
            } => {
                "pods should have been ready by now; growth is bounded until one is. Look at why they are slow"
            }
            Self::Cautious {
                because: Caution::Failing,
            } => "pods fail to start; growth is bounded and slows down. Look at their events",
            Self::MinStay { left } => {
                return write!(
                    f,
                    "idle, but the last start took long; {:.1}s until it may go",
                    left.as_secs_f64()
                );
            }
            Self::Held => "activators hold requests",
            Self::OpenRequests => "idle, but pods have requests or connections open",
            Self::OpenUnknown => "idle, but a pod did not say whether it has anything open",
            Self::Starting => "less is asked for, but pods are starting",
            Self::ToZero => "idle for the whole grace period",
            Self::AtZero => "asleep",
            Self::ZeroDisabled => "idle, but enable-scale-to-zero is false",
        };
        f.write_str(text)
    }
}

impl fmt::Display for Inputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let metric = match self.metric {
            Metric::Concurrency => "concurrency",
            Metric::Rps => "rps",
        };
        match (self.stable, self.panic) {
            (Some(stable), Some(panic)) => {
                write!(f, "{metric} {stable:.2} stable {panic:.2} panic")?;
            }
            _ => write!(f, "{metric} unknown")?,
        }
        write!(
            f,
            " at target {:.2}, {} ready, {} starting, ",
            self.target, self.ready, self.starting
        )?;
        for (count, what) in [(self.overdue, "overdue"), (self.failed, "failed")] {
            if !count.is_zero() {
                write!(f, "{count} {what}, ")?;
            }
        }
        write!(f, "{} held", self.held)?;
        if let Some(waiting) = self.waiting.filter(|waiting| *waiting > 0.0) {
            write!(f, ", {waiting:.1} waiting")?;
        }
        for (seconds, what) in [(self.start_time, "start"), (self.service_time, "request")] {
            if let Some(seconds) = seconds {
                write!(f, ", a {what} takes {seconds:.3}s")?;
            }
        }
        match self.open {
            Some(open) => write!(f, ", {open} open")?,
            None => f.write_str(", open unknown")?,
        }
        if self.reachable {
            Ok(())
        } else {
            f.write_str(", unreachable")
        }
    }
}

#[cfg(all(test, feature = "serde"))]
mod tests {
    use super::*;
    use crate::{Decider, TargetSpec};

    #[test]
    fn a_decision_is_plain_json() {
        let now = Moment::from_secs(1);
        let seen = Observed {
            ready: Replicas(1),
            starting: Replicas(0),
            current: Replicas(1),
            held: 0,
            open: None,
            reachable: true,
            ..Observed::default()
        };
        let decision = Decider::new(TargetSpec::default(), now, Replicas(1)).decide(now, &seen);
        let json = serde_json::to_value(decision).expect("serializes");
        assert_eq!(json["reason"], "no_data");
        assert_eq!(json["inputs"]["current"], 1);
        assert!(json["want"].is_null());
    }
}
