//! What the documentation promises of the standard scenarios.

use autoscaler_core::sim::{Comparison, Overall};

/// Replica-seconds as a multiple of Knative's, in the mean over scenarios with long starts.
const COST: f64 = 0.9;
/// Waiting and seconds over target as a multiple of Knative's: in the mean, and in the worst scenario.
const MEAN: f64 = 1.0;
const WORST: f64 = 1.2;
/// The same where a burst meets a warm workload.
const BURST: f64 = 1.05;

/// What was promised and is not so, a line each.
pub(super) fn missed(compared: &[Comparison], overall: &Overall) -> Vec<String> {
    let mut missed = Vec::new();
    let mut at_most = |what: String, is: f64, most: f64| {
        if is.is_nan() || is > most {
            missed.push(format!("{what}: {is:.3}, at most {most}"));
        }
    };
    at_most(
        "replica-seconds with starts from 30 s".into(),
        overall.cost,
        COST,
    );
    at_most("held p95".into(), overall.held, MEAN);
    at_most(
        "held p95 in the worst scenario".into(),
        overall.worst_held,
        WORST,
    );
    at_most("seconds over target".into(), overall.over_target, MEAN);
    let worst = overall.worst_over_target;
    at_most(
        "seconds over target in the worst scenario".into(),
        worst,
        WORST,
    );
    for one in compared
        .iter()
        .filter(|one| one.scenario.starts_with("burst"))
    {
        at_most(format!("{}: held p95", one.scenario), one.held(), BURST);
        let over = one.over_target();
        at_most(
            format!("{}: seconds over target", one.scenario),
            over,
            BURST,
        );
    }
    for one in compared.iter().filter(|one| one.has_higher_peak()) {
        missed.push(format!(
            "{}: {} replicas at once, Knative has {}",
            one.scenario, one.rouse.peak_replicas, one.knative.peak_replicas
        ));
    }
    missed
}

#[cfg(test)]
mod tests {
    use autoscaler_core::sim::Summary;

    use super::*;

    #[test]
    fn what_is_worse_is_named_and_what_is_as_good_is_not() {
        let summary = Summary {
            replica_seconds: 100.0,
            ..Summary::default()
        };
        let mut one = Comparison {
            scenario: "burst-x".to_owned(),
            start: std::time::Duration::from_secs(30),
            knative: summary,
            rouse: Summary {
                replica_seconds: 50.0,
                ..summary
            },
        };
        let all = [one.clone()];
        assert!(missed(&all, &Overall::of(&all)).is_empty());
        one.rouse.replica_seconds = 95.0;
        one.rouse.seconds_over_target = 1.0;
        one.rouse.peak_replicas = autoscaler_core::Replicas(1);
        let all = [one];
        let told = missed(&all, &Overall::of(&all)).join("\n");
        for says in [
            "replica-seconds with starts from 30 s: 0.950, at most 0.9",
            "seconds over target: 2.000, at most 1",
            "burst-x: seconds over target: 2.000, at most 1.05",
            "burst-x: 1 replicas at once, Knative has 0",
        ] {
            assert!(told.contains(says), "{told}");
        }
    }
}
