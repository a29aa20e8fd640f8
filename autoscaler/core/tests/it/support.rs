//! The values that several tests start from.

use std::time::Duration;

use autoscaler_core::{
    ClusterConfig, Decider, Decision, Moment, Observed, Reason, Replicas, Sample, TICK, TargetSpec,
    annotations,
};

/// A spec from annotations under `autoscaling.knative.dev/`, with Knative's defaults.
pub(crate) fn spec(pairs: &[(&str, &str)]) -> TargetSpec {
    let given = pairs
        .iter()
        .map(|(key, value)| {
            (
                format!("autoscaling.knative.dev/{key}"),
                (*value).to_owned(),
            )
        })
        .collect();
    annotations::parse(&given, &ClusterConfig::default())
        .expect("valid annotations")
        .spec
}

/// A workload whose pods are all ready, with nothing held or open.
pub(crate) fn calm(pods: u32) -> Observed {
    Observed {
        ready: Replicas(pods),
        starting: Replicas(0),
        current: Replicas(pods),
        held: 0,
        open: Some(0),
        reachable: true,
        ..Observed::default()
    }
}

/// When every world begins.
pub(crate) const START: Moment = Moment::from_secs(1_000_000);

/// A workload in a world where time moves in ticks.
pub(crate) struct World {
    pub(crate) decider: Decider,
    pub(crate) now: Moment,
}

impl World {
    pub(crate) fn new(spec: &TargetSpec, ready: u32) -> Self {
        Self {
            decider: Decider::new(spec.clone(), START, Replicas(ready)),
            now: START,
        }
    }

    /// One tick with this concurrency and this state.
    pub(crate) fn tick(&mut self, concurrency: f64, seen: &Observed) -> Decision {
        let sample = Sample {
            concurrency,
            requests: concurrency,
            ..Sample::default()
        };
        self.decider.record(self.now, sample);
        self.decider
            .record(self.now + Duration::from_secs(1), sample);
        self.now = self.now + TICK;
        self.decider.decide(self.now, seen)
    }

    /// Idle ticks for at least `seconds`; returns the last decision.
    pub(crate) fn idle(&mut self, seconds: u64, seen: &Observed) -> Decision {
        let end = self.now + Duration::from_secs(seconds);
        loop {
            let decision = self.tick(0.0, seen);
            if self.now >= end {
                return decision;
            }
        }
    }
}

/// What a table of decisions compares.
pub(crate) fn outcome(decision: &Decision) -> (Option<u32>, Reason) {
    (decision.want.map(Replicas::get), decision.reason)
}
