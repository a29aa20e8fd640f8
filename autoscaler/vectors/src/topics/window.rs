//! The two kinds of averaging windows.

use autoscaler_core::{Aggregation, Window};
use serde_json::Value;

use super::Group;
use crate::check::Check;
use crate::read::{Read, float, item, list, millis, millis_of, moment, string, text, unknown};

pub(super) fn group(name: &str) -> Option<Group> {
    match name {
        "edge" | "random" => Some(Group::Replayed(replay)),
        _ => None,
    }
}

/// How far an average may be off: Knative rounds linear ones to six digits.
pub(super) fn tolerance(aggregation: Aggregation, want: f64) -> f64 {
    match aggregation {
        Aggregation::Linear => 1.5e-6,
        Aggregation::WeightedExponential => 1e-9 + 1e-9 * want.abs(),
    }
}

fn replay(case: &Value, check: &mut Check) -> Read<()> {
    let aggregation = match text(case, "kind")? {
        "linear" => Aggregation::Linear,
        "weighted" => Aggregation::WeightedExponential,
        kind => return unknown("kind", kind),
    };
    let mut window = Window::new(millis_of(case, "window_ms")?);
    for (step, op) in list(case, "ops")?.iter().enumerate() {
        let at = moment(case, item(op, 1)?)?;
        match string(item(op, 0)?)? {
            "r" => {
                window.record(at, float(item(op, 2)?)?);
            }
            "z" => window.resize(at, millis(item(op, 2)?)?),
            "q" => {
                let want = float(item(op, 2)?)?;
                let got = window.average(at, aggregation);
                let near = tolerance(aggregation, want);
                check.near(format_args!("average of op {step}"), got, want, near);
                let empty = item(op, 3)?.as_bool();
                check.same(
                    format_args!("emptiness of op {step}"),
                    Some(window.is_empty(at)),
                    empty,
                );
            }
            op => return unknown("op", op),
        }
    }
    Ok(())
}
