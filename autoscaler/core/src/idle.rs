//! The gate before zero: when the last replica may go.
//!
//! Knative walks this way through conditions of a PodAutoscaler and the endpoints of its public Service; there is
//! neither here. What remains are its two waits, and what we know better: whether anything is open, held or starting.
//!
//! 1. The workload was active for at least the stable window. Then it counts as idle.
//! 2. It was idle for the grace period or the pod retention, whichever is longer, and for all of that time no pod had
//!    anything open and nothing was held. A pod that could not be asked counts as one that has something open.
//! 3. Nothing is starting, and the last start is as long ago as the workload has to stay after one. Then zero.
//!
//! Until then one replica stays, or none if there is none. Any load in between starts over.
//! Source of the waits: `pkg/reconciler/autoscaling/kpa/{kpa,scaler}.go`.

use std::time::Duration;

use crate::{Moment, Observed, Reason, Replicas, TargetSpec};

/// The gate's answer about an idle workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gate {
    /// The replicas to have for now.
    pub want: Replicas,
    /// Which rule of the gate says so.
    pub reason: Reason,
}

/// The gate's memory.
#[derive(Clone, Debug)]
pub struct ZeroGate {
    phase: Phase,
    /// Since when no pod had anything open and nothing was held.
    quiet: Option<Moment>,
    /// When the answer changes by itself.
    deadline: Option<Moment>,
    /// When the last start ended: from then on the workload stays for a while.
    started: Option<Moment>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No replicas.
    Asleep,
    /// Replicas since then, but no pod was ready yet.
    Waking(Moment),
    /// A pod became ready, or load came back, at that moment.
    Active(Moment),
    /// No load is left, and the active time was long enough, since that moment.
    Idle(Moment),
}

impl ZeroGate {
    /// The gate of a workload first seen at `now`. It counts as active from then on, since nothing is known of before.
    pub fn new(now: Moment) -> Self {
        Self {
            phase: Phase::Active(now),
            quiet: None,
            deadline: None,
            started: None,
        }
    }

    /// When the answer may change although nothing else does; none while something has to happen first.
    pub fn next_wakeup(&self) -> Option<Moment> {
        self.deadline
    }

    /// Takes in what is seen. To be called before every decision, with or without data.
    pub fn observe(&mut self, now: Moment, seen: &Observed) {
        self.deadline = None;
        self.quiet = if seen.open == Some(0) && seen.held == 0 {
            self.quiet.or(Some(now))
        } else {
            None
        };
        let before = self.phase;
        self.phase = match self.phase {
            // Asleep | Waking | Active | Idle => Asleep
            _ if seen.current.is_zero() && seen.ready.is_zero() => Phase::Asleep,
            // Asleep => Active | Waking
            Phase::Asleep if seen.ready.is_zero() => Phase::Waking(now),
            // Waking => Active
            Phase::Asleep | Phase::Waking(_) if !seen.ready.is_zero() => Phase::Active(now),
            same => same,
        };
        if matches!(before, Phase::Asleep | Phase::Waking(_)) && self.phase == Phase::Active(now) {
            self.started = Some(now);
        }
    }

    /// There is load: whatever idle time there was is over.
    pub fn busy(&mut self, now: Moment) {
        // Idle => Active
        if let Phase::Idle(_) = self.phase {
            self.phase = Phase::Active(now);
        }
    }

    /// There is no load: how many replicas may stay, and why. After a start the workload stays for `min_stay`.
    pub fn idle(
        &mut self,
        now: Moment,
        spec: &TargetSpec,
        seen: &Observed,
        min_stay: Duration,
    ) -> Gate {
        if !spec.enable_scale_to_zero {
            return Gate {
                want: Replicas::ONE,
                reason: Reason::ZeroDisabled,
            };
        }
        let since = match self.phase {
            Phase::Asleep => {
                return Gate {
                    want: Replicas::ZERO,
                    reason: Reason::AtZero,
                };
            }
            // Waking => Waking. A start is not active time: a client that gave up during it may well try again, and should
            // then find what it waited for.
            Phase::Waking(_) if !seen.starting.is_zero() => return keep(seen, Reason::Starting),
            Phase::Waking(since) | Phase::Active(since) => {
                let counts_from = since + spec.stable_window;
                if now < counts_from {
                    self.deadline = Some(counts_from);
                    return keep(
                        seen,
                        Reason::JustActive {
                            left: counts_from - now,
                        },
                    );
                }
                // Active => Idle
                self.phase = Phase::Idle(now);
                now
            }
            Phase::Idle(since) => since,
        };
        let Some(quiet) = self.quiet else {
            return keep(seen, blocker(seen));
        };
        if !seen.starting.is_zero() {
            return keep(seen, Reason::Starting);
        }
        let zero_from = since.max(quiet) + spec.idle_grace(seen.reachable);
        if now < zero_from {
            self.deadline = Some(zero_from);
            return keep(
                seen,
                Reason::IdleGrace {
                    left: zero_from - now,
                },
            );
        }
        if let Some(started) = self.started
            && now < started + min_stay
        {
            let stays_until = started + min_stay;
            self.deadline = Some(stays_until);
            return keep(
                seen,
                Reason::MinStay {
                    left: stays_until - now,
                },
            );
        }
        Gate {
            want: Replicas::ZERO,
            reason: Reason::ToZero,
        }
    }
}

/// One replica, or what is there if that is less: the gate never adds any.
fn keep(seen: &Observed, reason: Reason) -> Gate {
    Gate {
        want: seen.current.min(Replicas::ONE),
        reason,
    }
}

/// What keeps the workload from being quiet.
fn blocker(seen: &Observed) -> Reason {
    match seen.open {
        _ if seen.held > 0 => Reason::Held,
        None => Reason::OpenUnknown,
        Some(_) => Reason::OpenRequests,
    }
}
