//! Every case of decide.json.
//!
//! The groups `edge` and `random` give averages, so they drive the algorithm itself; ticks without averages or pod count
//! are decisions that Knative calls invalid, and here never reach it. `trace` goes through the whole decider.
//! `multiscaler` scripts the decisions and watches what is published of them. All run under [`Policy::KNATIVE`].

use autoscaler_core::{
    Aggregation, Averages, BurstCapacity, Decider, Kpa, Metric, Mode, Observed, Policy, Published,
    Reason, Recorded, Replicas, Sample, TargetSpec, activators_needed,
};
use serde_json::Value;

use crate::support::{self, Tally, calm, cases, count, float, int, millis, moment, text};

#[test]
fn agrees_with_knative_on_every_decision() {
    let mut tally = Tally::default();
    for case in cases("decide.json") {
        let group = text(&case, "group");
        match group {
            "edge" | "random" => algorithm(&case),
            "trace" => trace(&case),
            "multiscaler" => multiscaler(&case),
            "num_activators" => num_activators(&case),
            _ => panic!("unknown group {group}"),
        }
        tally.add(group);
    }
    tally.assert(&[
        ("edge", 61),
        ("multiscaler", 16),
        ("num_activators", 90),
        ("random", 58),
        ("trace", 10),
    ]);
}

/// A vector's spec, and whether it is reachable, which here is an observation.
fn spec(value: &Value) -> (TargetSpec, bool) {
    let activation = count(&value["activation_scale"]);
    let spec = TargetSpec {
        metric: match text(value, "scaling_metric") {
            // Knative takes an unset metric for concurrency.
            "concurrency" | "" => Metric::Concurrency,
            "rps" => Metric::Rps,
            metric => panic!("unknown metric {metric}"),
        },
        target: float(&value["target_value"]),
        total: float(&value["total_value"]),
        target_burst_capacity: BurstCapacity::from_f64(float(&value["target_burst_capacity"])),
        stable_window: millis(&value["stable_window_ms"]),
        panic_threshold: float(&value["panic_threshold"]),
        max_scale_up_rate: float(&value["max_scale_up_rate"]),
        max_scale_down_rate: float(&value["max_scale_down_rate"]),
        initial_scale: count(&value["initial_scale"]),
        activation_scale: (activation > Replicas::ONE).then_some(activation),
        scale_down_delay: millis(&value["scale_down_delay_ms"]),
        activator_capacity: float(&value["activator_capacity"]),
        policy: Policy::KNATIVE,
        ..support::spec(&[])
    };
    (spec, value["reachable"].as_bool().expect("reachable"))
}

/// A number of ready pods; none if the pods could not be listed.
fn ready(value: &Value) -> Option<Replicas> {
    match value.as_str() {
        None => Some(count(value)),
        Some("not_found") => Some(Replicas::ZERO),
        Some("error") => None,
        Some(other) => panic!("unknown ready {other}"),
    }
}

fn algorithm(case: &Value) {
    let base = &case["base_unix_ms"];
    let (mut current, mut reachable) = spec(&case["spec"]);
    let created = moment(base, &0.into());
    let mut kpa = Kpa::new(
        &current,
        created,
        ready(&case["create"]["ready"]).unwrap_or_default(),
    );
    assert_panic(&kpa, case, base, &case["create"]["want"]);
    for tick in case["ticks"].as_array().expect("ticks") {
        if tick.get("spec").is_some() {
            (current, reachable) = spec(&tick["spec"]);
            kpa.respec(&current);
        }
        let load = match tick.get("err").map(|err| err.as_str()) {
            None => Some(Averages {
                stable: float(&tick["s"]),
                panic: float(&tick["p"]),
            }),
            Some(Some("no_data" | "not_collecting" | "other")) => None,
            Some(err) => panic!("unknown err {err:?}"),
        };
        let want = &tick["want"];
        let valid = match (ready(&tick["ready"]), load) {
            (Some(ready), Some(load)) => {
                let verdict =
                    kpa.evaluate(moment(base, &tick["t"]), &current, ready, reachable, load);
                let got = (i64::from(verdict.desired.get()), verdict.burst_headroom);
                assert_eq!(
                    got,
                    (int(&want["desired"]), int(&want["ebc"])),
                    "{} at {}",
                    case["id"],
                    tick["t"]
                );
                assert_eq!(
                    verdict.mode == Mode::Panic,
                    want["panic"] == true,
                    "{} at {}",
                    case["id"],
                    tick["t"]
                );
                true
            }
            _ => false,
        };
        assert_eq!(
            Some(valid),
            want["valid"].as_bool(),
            "{} at {}",
            case["id"],
            tick["t"]
        );
        assert_panic(&kpa, case, base, want);
    }
}

fn assert_panic(kpa: &Kpa, case: &Value, base: &Value, want: &Value) {
    let since = (!want["panic_t"].is_null()).then(|| moment(base, &want["panic_t"]));
    assert_eq!(kpa.panic().since(), since, "{}: {want}", case["id"]);
    assert_eq!(
        kpa.panic().is_panicking(),
        want["panic"] == true,
        "{}: {want}",
        case["id"]
    );
    assert_eq!(
        kpa.panic().peak(),
        count(&want["max_panic"]),
        "{}: {want}",
        case["id"]
    );
}

fn trace(case: &Value) {
    let base = &case["base_unix_ms"];
    let (mut spec, reachable) = spec(&case["spec"]);
    spec.panic_window = millis(&case["panic_window_ms"]);
    spec.aggregation = match text(case, "algorithm") {
        "linear" => Aggregation::Linear,
        "weighted-exponential" => Aggregation::WeightedExponential,
        algorithm => panic!("unknown algorithm {algorithm}"),
    };
    let born = count(&case["create"]["ready"]);
    let mut decider = Decider::new(spec.clone(), moment(base, &0.into()), born);
    for event in case["events"].as_array().expect("events") {
        let now = moment(base, &event[1]);
        match event[0].as_str() {
            Some("stat") => {
                let sample = Sample {
                    concurrency: float(&event[2]),
                    requests: float(&event[3]),
                    ..Sample::default()
                };
                assert_ne!(
                    decider.record(now, sample),
                    Recorded::Unsound,
                    "{} {event}",
                    case["id"]
                );
            }
            Some("tick") => {
                let ready = count(&event[2]);
                let seen = Observed {
                    reachable,
                    ..calm(ready.get())
                };
                let want = &event[3];
                let got = decider.decide(now, &seen);
                let at = format!("{} at {}", case["id"], event[1]);
                if want["valid"] == true {
                    assert_eq!(got.desired, Some(count(&want["desired"])), "{at}");
                    assert_eq!(got.burst_headroom, int(&want["ebc"]), "{at}");
                    near(got.inputs.stable, &want["s"], spec.aggregation, &at);
                    near(got.inputs.panic, &want["p"], spec.aggregation, &at);
                } else {
                    assert_eq!((got.want, got.reason), (None, Reason::NoData), "{at}");
                }
                assert_eq!(got.mode == Mode::Panic, want["panic"] == true, "{at}");
                assert_eq!(
                    decider.kpa().panic().peak(),
                    count(&want["max_panic"]),
                    "{at}"
                );
            }
            event => panic!("unknown event {event:?}"),
        }
    }
}

fn near(got: Option<f64>, want: &Value, aggregation: Aggregation, at: &str) {
    let (got, want) = (got.expect("an average"), float(want));
    let tolerance = match aggregation {
        Aggregation::Linear => 1.5e-6,
        Aggregation::WeightedExponential => 1e-9 * want.abs(),
    };
    assert!(
        (got - want).abs() <= tolerance,
        "{at}: {got} instead of {want}"
    );
}

fn multiscaler(case: &Value) {
    let spec = TargetSpec {
        total: float(&case["total_value"]),
        target_burst_capacity: BurstCapacity::from_f64(float(&case["target_burst_capacity"])),
        initial_scale: count(&case["initial_scale"]),
        ..support::spec(&[])
    };
    let mut published = Published::new(&spec);
    assert_eq!(
        status(&published),
        pair(&case["create"]["status"]),
        "{}",
        case["id"]
    );
    for event in case["events"].as_array().expect("events") {
        let evaluated = match text(event, "kind") {
            "tick" => true,
            "poke" => {
                let poked = published.is_poked_by(float(&event["conc"]));
                assert_eq!(
                    Some(poked),
                    event["evaluated"].as_bool(),
                    "{} {event}",
                    case["id"]
                );
                poked
            }
            kind => panic!("unknown kind {kind}"),
        };
        let scripted = &event["scripted"];
        let informed = evaluated
            && scripted[0] == true
            && published.publish(count(&scripted[1]), int(&scripted[2]));
        assert_eq!(
            Some(informed),
            event["informed"].as_bool(),
            "{} {event}",
            case["id"]
        );
        assert_eq!(
            status(&published),
            pair(&event["status"]),
            "{} {event}",
            case["id"]
        );
    }
}

/// Knative writes an unknown count as -1.
fn status(published: &Published) -> (i64, i64) {
    (
        published
            .desired
            .map_or(-1, |desired| i64::from(desired.get())),
        published.burst_headroom,
    )
}

fn pair(value: &Value) -> (i64, i64) {
    (int(&value[0]), int(&value[1]))
}

fn num_activators(case: &Value) {
    let got = activators_needed(
        count(&case["ready"]),
        float(&case["total_value"]),
        BurstCapacity::from_f64(float(&case["target_burst_capacity"])),
        float(&case["activator_capacity"]),
    );
    assert_eq!(i64::from(got), int(&case["num_activators"]), "{case}");
}
