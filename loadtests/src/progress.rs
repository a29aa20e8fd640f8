//! How a run is doing, while it runs.

use crate::flight::Tally;
use crate::record::Durations;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A look at a running load; counts leave out the warm-up.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// Since the load began, warm-up included.
    pub elapsed: Duration,
    /// True while nothing is counted yet.
    pub warming_up: bool,
    /// Requests finished, errors included.
    pub requests: u64,
    /// Requests finished per second since the last look.
    pub rate: f64,
    /// Requests due or sent and not finished, except those that wait for a free connection.
    pub in_flight: u64,
    /// Errors of all kinds.
    pub errors: u64,
    /// Median latency of successful requests so far.
    pub p50: Option<Duration>,
    /// 99th percentile of the latency of successful requests so far.
    pub p99: Option<Duration>,
}

/// Turns counts into rates.
#[derive(Debug)]
pub(crate) struct Meter {
    start: Instant,
    measure: Instant,
    last: (Instant, u64),
}

impl Meter {
    pub(crate) fn new(start: Instant, measure: Instant) -> Self {
        Self {
            start,
            measure,
            last: (measure, 0),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    pub(crate) fn read(&mut self, tallies: &[Arc<Tally>]) -> Progress {
        let now = Instant::now();
        let (mut latency, mut successes, mut errors, mut in_flight) =
            (Durations::default(), 0, 0, 0);
        for tally in tallies {
            in_flight += tally.in_flight.load(Ordering::Relaxed);
            let counts = tally.counts.lock();
            latency.merge(&counts.recorder.latency);
            successes += counts.recorder.successes();
            errors += counts.recorder.failures();
        }
        let requests = successes + errors;
        let (then, before) = self.last;
        let seconds = now.saturating_duration_since(then).as_secs_f64();
        let rate = if seconds > 0.0 {
            (requests - before) as f64 / seconds
        } else {
            0.0
        };
        if now > self.measure {
            self.last = (now, requests);
        }
        Progress {
            elapsed: now.saturating_duration_since(self.start),
            warming_up: now < self.measure,
            requests,
            rate,
            in_flight,
            errors,
            p50: latency.quantile(0.5),
            p99: latency.quantile(0.99),
        }
    }
}
