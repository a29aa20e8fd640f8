//! Reading vector files, and the values that several tests start from.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use autoscaler_core::{
    ClusterConfig, Decider, Decision, Moment, Observed, Reason, Replicas, Sample, TICK, TargetSpec,
    annotations,
};
use serde_json::Value;

/// The cases of a vector file.
pub(crate) fn cases(file: &str) -> Vec<Value> {
    let path = format!("{}/vectors/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(&path).expect("vector file is there");
    let whole: Value = serde_json::from_str(&text).expect("vector file is JSON");
    whole["cases"].as_array().expect("cases are a list").clone()
}

/// How many cases of each group were compared; asserts that nothing was skipped.
#[derive(Default)]
pub(crate) struct Tally(BTreeMap<String, usize>);

impl Tally {
    pub(crate) fn add(&mut self, group: &str) {
        *self.0.entry(group.to_owned()).or_default() += 1;
    }

    pub(crate) fn assert(&self, expected: &[(&str, usize)]) {
        let found: Vec<(&str, usize)> = self
            .0
            .iter()
            .map(|(group, count)| (group.as_str(), *count))
            .collect();
        assert_eq!(found, expected);
    }
}

pub(crate) fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field]
        .as_str()
        .unwrap_or_else(|| panic!("{field} is a string in {value}"))
}

pub(crate) fn float(value: &Value) -> f64 {
    value
        .as_f64()
        .unwrap_or_else(|| panic!("{value} is a number"))
}

pub(crate) fn int(value: &Value) -> i64 {
    value
        .as_i64()
        .unwrap_or_else(|| panic!("{value} is an integer"))
}

pub(crate) fn count(value: &Value) -> Replicas {
    Replicas(u32::try_from(int(value)).expect("a count"))
}

pub(crate) fn millis(value: &Value) -> Duration {
    Duration::from_millis(u64::try_from(int(value)).expect("milliseconds"))
}

/// The moment `t` milliseconds after the case's base.
pub(crate) fn moment(base: &Value, t: &Value) -> Moment {
    Moment::from_millis(u64::try_from(int(base) + int(t)).expect("after the epoch"))
}

pub(crate) fn map(value: &Value) -> BTreeMap<String, String> {
    let object = value.as_object().expect("an object");
    object
        .iter()
        .map(|(key, value)| (key.clone(), value.as_str().expect("a string").to_owned()))
        .collect()
}

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
