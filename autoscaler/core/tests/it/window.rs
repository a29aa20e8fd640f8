//! Every case of window.json.

use autoscaler_core::{Aggregation, Window};
use serde_json::Value;

use crate::support::{Tally, cases, float, millis, moment, text};

#[test]
fn agrees_with_knative_on_every_window() {
    let mut tally = Tally::default();
    for case in cases("window.json") {
        let group = text(&case, "group");
        assert!(matches!(group, "edge" | "random"), "unknown group {group}");
        replay(&case);
        tally.add(group);
    }
    tally.assert(&[("edge", 64), ("random", 80)]);
}

fn replay(case: &Value) {
    let aggregation = match text(case, "kind") {
        "linear" => Aggregation::Linear,
        "weighted" => Aggregation::WeightedExponential,
        kind => panic!("unknown kind {kind}"),
    };
    let mut window = Window::new(millis(&case["window_ms"]));
    for (step, op) in case["ops"].as_array().expect("ops").iter().enumerate() {
        let at = moment(&case["base_unix_ms"], &op[1]);
        match op[0].as_str() {
            Some("r") => {
                window.record(at, float(&op[2]));
            }
            Some("z") => window.resize(at, millis(&op[2])),
            Some("q") => {
                let (want, got) = (float(&op[2]), window.average(at, aggregation));
                let tolerance = match aggregation {
                    Aggregation::Linear => 1.5e-6,
                    Aggregation::WeightedExponential => 1e-9 + 1e-9 * want.abs(),
                };
                assert!(
                    (got - want).abs() <= tolerance,
                    "{} op {step}: {got} instead of {want}",
                    case["id"]
                );
                assert_eq!(
                    Some(window.is_empty(at)),
                    op[3].as_bool(),
                    "{} op {step}",
                    case["id"]
                );
            }
            op => panic!("unknown op {op:?}"),
        }
    }
}
