//! The metrics of one workload.

use shared::{Origin, metrics as names};

use crate::rescue::CODES;

/// Metric handles, resolved once.
#[derive(Debug)]
pub(crate) struct Metrics {
    outcomes: Vec<(&'static str, metrics::Counter)>,
    pub(crate) held: metrics::Gauge,
    pub(crate) hold: metrics::Histogram,
    pub(crate) resent: metrics::Counter,
}

impl Metrics {
    pub(super) fn new(target: &str) -> Self {
        let classes = ["1xx", "2xx", "3xx", "4xx", "5xx"].map(|class| (class, Origin::Upstream));
        let outcomes = classes
            .into_iter()
            .chain(CODES)
            .chain([("client-gone", Origin::Client)])
            .map(|(code, origin)| {
                (
                    code,
                    names::ACTIVATOR_REQUESTS.counter(&[target, code, origin.as_str()]),
                )
            })
            .collect();
        Self {
            outcomes,
            held: names::ACTIVATOR_HELD.gauge(&[target]),
            hold: names::ACTIVATOR_HOLD.histogram(&[target]),
            resent: names::ACTIVATOR_RESENT.counter(&[target]),
        }
    }

    pub(crate) fn count(&self, outcome: &str) {
        if let Some((_, counter)) = self.outcomes.iter().find(|(code, _)| *code == outcome) {
            counter.increment(1);
        }
    }
}
