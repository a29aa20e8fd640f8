//! Stories that users have told, in the simulator: what Knative makes of them, and what we do.
//!
//! Numbers behind `serving#` are issues of knative/serving, behind `kserve#` those of kserve/kserve. The full comparison with
//! its bars is `rouse simulate --standard --check`; here are a few seeds of each, as many as a test has time for.

use autoscaler_core::sim::{self, Comparison, Outcome, Overall, Policy, Scenario};
use autoscaler_core::{ClusterConfig, Replicas, TargetSpec, annotations};

const SEEDS: u32 = 3;

fn scenario(name: &str) -> Scenario {
    let mut all = sim::standard().into_iter();
    all.find(|one| one.name == name).expect(name)
}

fn spec(scenario: &Scenario) -> TargetSpec {
    let mut given = scenario.annotations.clone();
    // Staying costs replica-seconds that Knative does not spend: the two are compared without it.
    given.insert("rouse.dev/min-stay".into(), "0s".into());
    annotations::parse(&given, &ClusterConfig::default())
        .expect("valid annotations")
        .spec
}

fn both(name: &str) -> (Outcome, Outcome) {
    let scenario = scenario(name);
    let of = |policy| sim::run(&scenario, &spec(&scenario), policy, 1);
    (of(Policy::Knative), of(Policy::Rouse))
}

#[test]
fn one_request_wakes_one_pod_serving_8682() {
    let (knative, rouse) = both("one-request-wakes-a-large-model");
    assert_eq!(rouse.peak_replicas, Replicas(1));
    assert_eq!(knative.peak_replicas, Replicas(2));
    assert_eq!((rouse.unserved, knative.unserved), (0, 0));
}

#[test]
fn a_crowd_at_a_large_model_does_not_become_fifty_pods_serving_4344_13284_15121() {
    let (knative, rouse) = both("crowd-wakes-a-large-model");
    assert!(
        knative.peak_replicas > Replicas(200),
        "{}",
        knative.peak_replicas
    );
    assert!(
        rouse.peak_replicas < Replicas(50),
        "{}",
        rouse.peak_replicas
    );
    assert!(rouse.held.p95 <= knative.held.p95 * 1.2);
}

#[test]
fn the_first_wake_of_all_stays_bounded_serving_13284() {
    let (knative, rouse) = both("crowd-wakes-a-model-for-the-first-time");
    assert!(
        rouse.peak_replicas < Replicas(50),
        "{}",
        rouse.peak_replicas
    );
    assert!(rouse.replica_seconds < knative.replica_seconds / 2.0);
}

#[test]
fn a_slow_starter_is_not_taken_away_before_it_is_ready_kserve_1247_1641_serving_15316() {
    // A start of ten times a window, and one request that has gone long before it is over.
    let mut slow = scenario("one-request-wakes-a-large-model");
    slow.annotations
        .insert("autoscaling.knative.dev/window".into(), "15s".into());
    let outcome = sim::run(&slow, &spec(&slow), Policy::Rouse, 1);
    assert_eq!(outcome.unserved, 0);
    assert_eq!(u64::from(outcome.cold_starts), outcome.requests);
    let down_while_starting = outcome.points.windows(2).any(|pair| {
        pair[1].replicas < pair[0].replicas && pair[1].ready == 0 && pair[0].ready == 0
    });
    assert!(!down_while_starting);
}

#[test]
fn when_a_registry_slows_pods_do_not_pile_up() {
    let (knative, rouse) = both("a-registry-slows");
    assert!(
        rouse.peak_replicas.get() * 2 < knative.peak_replicas.get(),
        "{} {}",
        rouse.peak_replicas,
        knative.peak_replicas
    );
}

#[test]
fn a_true_burst_is_met_as_fast_as_by_panic() {
    for name in ["burst-on-a-warm-small-model", "burst-on-a-warm-model"] {
        let scenario = scenario(name);
        let compared = Comparison::run(&scenario, &spec(&scenario), SEEDS);
        assert!(compared.held() <= 1.1, "{name}: {}", compared.held());
        assert!(
            compared.over_target() <= 1.05,
            "{name}: {}",
            compared.over_target()
        );
    }
}

#[test]
fn steady_load_does_not_flap() {
    let mut steady = scenario("steady-load");
    steady.spacing = sim::Spacing::Even;
    steady.service = sim::Time::Fixed(std::time::Duration::from_secs(1));
    let outcome = sim::run(&steady, &spec(&steady), Policy::Rouse, 1);
    assert_eq!((outcome.flaps, outcome.peak_replicas), (0, Replicas(3)));
}

#[test]
fn the_same_seed_gives_the_same_run_and_every_request_is_served() {
    for scenario in sim::standard() {
        let run = |seed| sim::run(&scenario, &spec(&scenario), Policy::Rouse, seed);
        let outcome = run(7);
        assert_eq!(outcome.unserved, 0, "{}", scenario.name);
        assert!(outcome.requests > 0, "{}", scenario.name);
        assert_eq!(outcome, run(7), "{}", scenario.name);
    }
}

#[test]
fn ours_costs_less_and_waits_no_longer_than_knatives() {
    let compared: Vec<_> = sim::standard()
        .iter()
        .map(|scenario| Comparison::run(scenario, &spec(scenario), SEEDS))
        .collect();
    let overall = Overall::of(&compared);
    assert!(overall.cost <= 0.6, "{overall:?}");
    assert!(
        overall.held <= 1.03 && overall.worst_held <= 1.3,
        "{overall:?}"
    );
    assert!(
        overall.over_target <= 1.03 && overall.worst_over_target <= 1.3,
        "{overall:?}"
    );
}
