//! The values in force at run time, whether or not they would have been accepted.

use std::time::Duration;

use autoscaler_core::{
    Aggregation, BurstCapacity, ClusterConfig, Metric, Policy, Replicas, TargetSpec, annotations,
};
use serde_json::Value;

use super::cluster;
use crate::check::Check;
use crate::read::{Read, boolean, field, float_of, int_of, text, texts, unknown};

pub(super) fn replay(case: &Value, check: &mut Check) -> Read<()> {
    let mut given = texts(case, "annotations")?;
    given.insert(
        "rouse.dev/container-concurrency".to_owned(),
        int_of(case, "container_concurrency")?.to_string(),
    );
    let config = cluster(case)?;
    let spec = annotations::resolve_with(&given, &config, Policy::KNATIVE);
    let want = field(case, "want")?;
    let reachable = match text(case, "reachability")? {
        "" | "Reachable" => true,
        "Unreachable" => false,
        other => return unknown("reachability", other),
    };
    check.same("reachable", reachable, boolean(want, "reachable")?);
    loads(&spec, want, check)?;
    spans(&spec, want, check)?;
    scales(&spec, &config, reachable, want, check)?;
    let rps = text(want, "metric")? == "rps";
    check.same("metric is rps", spec.metric == Metric::Rps, rps);
    let weighted = matches!(
        text(want, "algorithm")?,
        "weighted-exponential" | "weightedExponential"
    );
    check.same(
        "algorithm is weighted",
        spec.aggregation == Aggregation::WeightedExponential,
        weighted,
    );
    Ok(())
}

fn loads(spec: &TargetSpec, want: &Value, check: &mut Check) -> Read<()> {
    let burst = match spec.target_burst_capacity {
        // Any negative number means it.
        BurstCapacity::Unlimited => float_of(want, "target_burst_capacity")?.min(-0.0),
        BurstCapacity::Requests(requests) => requests,
    };
    for (place, got) in [
        ("target", spec.target),
        ("total", spec.total),
        ("panic_threshold", spec.panic_threshold),
        ("target_burst_capacity", burst),
    ] {
        let want = float_of(want, place)?;
        check.near(place, got, want, 1e-12 * want.abs());
    }
    Ok(())
}

/// A span cannot be negative here.
fn spans(spec: &TargetSpec, want: &Value, check: &mut Check) -> Read<()> {
    let nanos = |span: Duration| i64::try_from(span.as_nanos()).unwrap_or(i64::MAX);
    for (place, span) in [
        ("stable_window_ns", spec.stable_window),
        ("panic_window_ns", spec.panic_window),
        ("scale_down_delay_ns", spec.scale_down_delay),
        ("pod_retention_ns", spec.pod_retention),
    ] {
        check.same(place, nanos(span), int_of(want, place)?.max(0));
    }
    Ok(())
}

fn scales(
    spec: &TargetSpec,
    config: &ClusterConfig,
    reachable: bool,
    want: &Value,
    check: &mut Check,
) -> Read<()> {
    let number = |count: Option<Replicas>| i64::from(count.map_or(0, Replicas::get));
    let min = number(Some(spec.lower_bound(reachable)));
    check.same("min_scale", min, int_of(want, "min_scale")?.max(0));
    let max = number(spec.max_scale);
    check.same("max_scale", max, int_of(want, "max_scale")?.max(0));
    let initial = match int_of(want, "initial_scale")? {
        ..0 => number(Some(config.initial_scale)),
        initial => initial,
    };
    check.same("initial_scale", number(Some(spec.initial_scale)), initial);
    // 1 and less change nothing in Knative's algorithm either.
    let activation = match int_of(want, "activation_scale")? {
        ..2 => 0,
        scale => scale,
    };
    check.same(
        "activation_scale",
        number(spec.activation_scale),
        activation,
    );
    Ok(())
}
