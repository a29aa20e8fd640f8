//! The metrics of one workload.

use std::{sync::OnceLock, time::Duration};

use metrics::{Counter, Gauge, Histogram};
use shared::{
    Origin, TargetId,
    error::{CLIENT_GONE, CLIENT_STALLED, CUT},
    metrics as names,
};

use crate::rescue::{CODES, OWN_CODES};

/// Metric handles, each made when there is something to tell for the first time: most workloads of an activator sleep, and a
/// series of each outcome for every one of them would be most of its memory.
#[derive(Debug)]
pub(crate) struct Metrics {
    _kept: names::Tenure,
    handles: OnceLock<Box<Handles>>,
}

#[derive(Debug, Default)]
struct Handles {
    /// In the order of [`outcomes`].
    outcomes:
        [OnceLock<Counter>; CLASSES.len() + CODES.len() + OWN_CODES.len() + CLIENTS.len() + 1],
    held: OnceLock<Gauge>,
    hold: OnceLock<Histogram>,
    resent: OnceLock<Counter>,
}

/// Classes of a pod's answers.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Of answers that their client did not take to the end: it has left, or stopped reading.
const CLIENTS: [&str; 2] = [CLIENT_GONE, CLIENT_STALLED];

/// Every outcome and whose doing it is.
fn outcomes() -> impl Iterator<Item = (&'static str, Origin)> {
    CLASSES
        .map(|class| (class, Origin::Upstream))
        .into_iter()
        .chain(CODES)
        .chain(OWN_CODES)
        .chain(CLIENTS.map(|code| (code, Origin::Client)))
        .chain([(CUT, Origin::Us)])
}

impl Metrics {
    /// Nothing to tell yet. Whatever will be is told for as long as this lives, and a while after.
    pub(crate) fn new(target: &TargetId) -> Self {
        Self {
            _kept: names::tenure(&target.to_string()),
            handles: OnceLock::new(),
        }
    }

    fn handles(&self) -> &Handles {
        self.handles.get_or_init(Box::default)
    }

    /// A request has ended so.
    pub(crate) fn count(&self, target: &TargetId, outcome: &str) {
        let mut all = self.handles().outcomes.iter().zip(outcomes());
        if let Some((counter, (code, origin))) = all.find(|(_, (code, _))| *code == outcome) {
            let make = || {
                let values = [&target.to_string(), code, origin.as_str()];
                names::ACTIVATOR_REQUESTS.counter(&values)
            };
            counter.get_or_init(make).increment(1);
        }
    }

    /// So many are held. As long as none has ever been, there is no series.
    #[allow(
        clippy::cast_precision_loss,
        reason = "counts of requests stay far below 2^52"
    )]
    pub(crate) fn held(&self, target: &TargetId, requests: usize) {
        if requests > 0
            || self
                .handles
                .get()
                .is_some_and(|all| all.held.get().is_some())
        {
            let make = || names::ACTIVATOR_HELD.gauge(&[&target.to_string()]);
            self.handles().held.get_or_init(make).set(requests as f64);
        }
    }

    /// One was held for so long.
    pub(crate) fn was_held(&self, target: &TargetId, waited: Duration) {
        let make = || names::ACTIVATOR_HOLD.histogram(&[&target.to_string()]);
        self.handles().hold.get_or_init(make).record(waited);
    }

    /// One was sent to another pod.
    pub(crate) fn resent(&self, target: &TargetId) {
        let make = || names::ACTIVATOR_RESENT.counter(&[&target.to_string()]);
        self.handles().resent.get_or_init(make).increment(1);
    }
}
