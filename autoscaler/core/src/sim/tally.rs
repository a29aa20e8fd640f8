//! What a simulated second saw, and what the whole run adds up to.

use std::time::Duration;

use super::outcome::{Held, Point};
use crate::{Moment, Replicas, Sample};

/// What is there at a moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Level {
    /// Requests that pods work on.
    pub(super) in_work: usize,
    /// Requests that pods have taken and do not work on.
    pub(super) taken: usize,
    /// Requests in the common queue.
    pub(super) queued: usize,
    /// Pods that are there, whatever they do.
    pub(super) pods: usize,
    pub(super) ready: usize,
    pub(super) replicas: usize,
}

/// Integrals of one second.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Second {
    in_pods: f64,
    queued: f64,
    pub(super) arrived: u32,
    pub(super) ended: u32,
}

impl Second {
    pub(super) fn sample(&self) -> Sample {
        Sample {
            concurrency: self.in_pods + self.queued,
            requests: f64::from(self.arrived),
            waiting: self.queued,
            ended: f64::from(self.ended),
        }
    }
}

/// Everything that is added up.
#[derive(Debug)]
pub(super) struct Tally {
    last: Moment,
    pub(super) second: Second,
    pub(super) replica_seconds: f64,
    pub(super) over_target: u32,
    held: Vec<f32>,
    pub(super) wakes: u32,
    pub(super) flaps: u32,
    lowered: Option<Moment>,
    pub(super) peak: Replicas,
    pub(super) failed_starts: u32,
    pub(super) points: Vec<Point>,
}

impl Tally {
    pub(super) fn new() -> Self {
        Self {
            last: Moment::EPOCH,
            second: Second::default(),
            replica_seconds: 0.0,
            over_target: 0,
            held: Vec::new(),
            wakes: 0,
            flaps: 0,
            lowered: None,
            peak: Replicas::ZERO,
            failed_starts: 0,
            points: Vec::new(),
        }
    }

    /// Time passes until `now` with everything as `level` says.
    pub(super) fn pass(&mut self, now: Moment, level: &Level) {
        let passed = now.since(self.last).as_secs_f64();
        self.last = self.last.max(now);
        self.second.in_pods += passed * to_f64(level.in_work + level.taken);
        self.second.queued += passed * to_f64(level.queued);
        self.replica_seconds += passed * to_f64(level.pods);
    }

    /// A second is over: what it saw. `over`: there are more requests than the pods that have them should carry.
    pub(super) fn close(&mut self, now: Moment, level: &Level, over: bool) -> Second {
        let second = std::mem::take(&mut self.second);
        let load = second.in_pods + second.queued;
        self.over_target += u32::from(over);
        self.points.push(Point {
            second: u32::try_from(now.as_secs()).unwrap_or(u32::MAX),
            arrived: second.arrived,
            load,
            waiting: second.queued,
            ready: count(level.ready),
            replicas: count(level.replicas),
        });
        second
    }

    /// A pod began to work on a request that had waited for so long.
    pub(super) fn begun(&mut self, waited: Duration) {
        self.held.push(waited.as_secs_f32());
    }

    /// Replicas were written.
    pub(super) fn scaled(&mut self, now: Moment, from: Replicas, to: Replicas, window: Duration) {
        self.peak = self.peak.max(to);
        if to < from {
            self.lowered = Some(now);
        } else {
            let again = |lowered: Moment| now.since(lowered) <= window;
            self.flaps += u32::from(self.lowered.take().is_some_and(again));
            self.wakes += u32::from(from.is_zero());
        }
    }

    /// How long all requests were held.
    pub(super) fn held(&mut self) -> Held {
        Held::of(&mut self.held)
    }
}

pub(super) fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
pub(super) fn to_f64(count: usize) -> f64 {
    count as f64
}
