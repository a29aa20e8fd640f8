//! The measurements of one workload: two metrics, each over two windows.

use crate::{Averages, Metric, Moment, TargetSpec, Window, Written};

/// No second has this many requests in it. Larger numbers could overflow a sum, and one pod's nonsense would become
/// everyone's infinity.
const TOO_MANY: f64 = 1e12;

/// What was measured about one second, by one observer or by all together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    /// Requests in flight, averaged over the second.
    pub concurrency: f64,
    /// Requests that arrived in the second.
    pub requests: f64,
}

impl Sample {
    /// Whether both numbers can be a measurement: not negative, and not absurdly large or infinite.
    pub(crate) fn is_sound(&self) -> bool {
        [self.concurrency, self.requests]
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

/// A stable and a panic window for each metric, so that changing the metric finds its history.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    concurrency: Pair,
    requests: Pair,
}

impl Series {
    pub(crate) fn new(spec: &TargetSpec) -> Self {
        Self {
            concurrency: Pair::new(spec),
            requests: Pair::new(spec),
        }
    }

    pub(crate) fn resize(&mut self, now: Moment, spec: &TargetSpec) {
        for pair in [&mut self.concurrency, &mut self.requests] {
            pair.stable.resize(now, spec.stable_window);
            pair.panic.resize(now, spec.panic_window);
        }
    }

    pub(crate) fn record(&mut self, at: Moment, sample: Sample) -> Recorded {
        if !sample.is_sound() {
            return Recorded::Unsound;
        }
        self.requests.record(at, sample.requests);
        match self.concurrency.record(at, sample.concurrency) {
            Written::Kept => Recorded::Kept,
            Written::TooOld => Recorded::TooOld,
        }
    }

    /// Both averages of the metric that is scaled on; none when the stable window holds no data.
    pub(crate) fn averages(&self, now: Moment, spec: &TargetSpec) -> Option<Averages> {
        let pair = match spec.metric {
            Metric::Concurrency => &self.concurrency,
            Metric::Rps => &self.requests,
        };
        let missing = if spec.policy.silence_is_no_data {
            pair.stable.is_silent(now)
        } else {
            pair.stable.is_empty(now)
        };
        (!missing).then(|| Averages {
            stable: pair.stable.average(now, spec.aggregation),
            panic: pair.panic.average(now, spec.aggregation),
        })
    }
}

#[derive(Clone, Debug)]
struct Pair {
    stable: Window,
    panic: Window,
}

impl Pair {
    fn new(spec: &TargetSpec) -> Self {
        Self {
            stable: Window::new(spec.stable_window),
            panic: Window::new(spec.panic_window),
        }
    }

    fn record(&mut self, at: Moment, value: f64) -> Written {
        // A late value may have left the short window and still be in the long one.
        self.panic.record(at, value);
        self.stable.record(at, value)
    }
}
