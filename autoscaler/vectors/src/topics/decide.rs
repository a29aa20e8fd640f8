//! Decisions.
//!
//! The groups `edge` and `random` give averages, so they drive the algorithm itself; ticks without averages or pod count
//! are decisions that Knative calls invalid, and here never reach it. `trace` goes through the whole decider.
//! `multiscaler` scripts the decisions and watches what is published of them. All run under [`Policy::KNATIVE`].

use autoscaler_core::{
    BurstCapacity, Metric, Policy, Published, Replicas, TargetSpec, activators_needed,
};
use serde_json::Value;

use super::Group;
use crate::check::Check;
use crate::read::{
    Read, boolean, count, count_of, field, float_of, int, int_of, item, list, millis_of, text,
    unknown,
};

mod algorithm;
mod trace;

pub(super) fn group(name: &str) -> Option<Group> {
    let replay = match name {
        "edge" | "random" => algorithm::replay,
        "trace" => trace::replay,
        "multiscaler" => multiscaler,
        "num_activators" => num_activators,
        _ => return None,
    };
    Some(Group::Replayed(replay))
}

/// A vector's spec, and whether it is reachable, which here is an observation.
fn spec(value: &Value) -> Read<(TargetSpec, bool)> {
    let activation = count_of(value, "activation_scale")?;
    let spec = TargetSpec {
        metric: match text(value, "scaling_metric")? {
            // Knative takes an unset metric for concurrency.
            "concurrency" | "" => Metric::Concurrency,
            "rps" => Metric::Rps,
            metric => return unknown("metric", metric),
        },
        target: float_of(value, "target_value")?,
        total: float_of(value, "total_value")?,
        target_burst_capacity: burst_capacity(value)?,
        stable_window: millis_of(value, "stable_window_ms")?,
        panic_threshold: float_of(value, "panic_threshold")?,
        max_scale_up_rate: float_of(value, "max_scale_up_rate")?,
        max_scale_down_rate: float_of(value, "max_scale_down_rate")?,
        initial_scale: count_of(value, "initial_scale")?,
        activation_scale: (activation > Replicas::ONE).then_some(activation),
        scale_down_delay: millis_of(value, "scale_down_delay_ms")?,
        activator_capacity: float_of(value, "activator_capacity")?,
        policy: Policy::KNATIVE,
        ..TargetSpec::default()
    };
    Ok((spec, boolean(value, "reachable")?))
}

fn burst_capacity(value: &Value) -> Read<BurstCapacity> {
    float_of(value, "target_burst_capacity").map(BurstCapacity::from_f64)
}

/// A number of ready pods; none if the pods could not be listed.
fn ready(value: &Value) -> Read<Option<Replicas>> {
    match value.as_str() {
        None => count(value).map(Some),
        Some("not_found") => Ok(Some(Replicas::ZERO)),
        Some("error") => Ok(None),
        Some(other) => unknown("ready", other),
    }
}

fn multiscaler(case: &Value, check: &mut Check) -> Read<()> {
    let spec = TargetSpec {
        total: float_of(case, "total_value")?,
        target_burst_capacity: burst_capacity(case)?,
        initial_scale: count_of(case, "initial_scale")?,
        policy: Policy::KNATIVE,
        ..TargetSpec::default()
    };
    let mut published = Published::new(&spec);
    let want = pair(field(field(case, "create")?, "status")?)?;
    check.same("status at creation", status(&published), want);
    for (step, event) in list(case, "events")?.iter().enumerate() {
        let evaluated = match text(event, "kind")? {
            "tick" => true,
            "poke" => {
                let poked = published.is_poked_by(float_of(event, "conc")?);
                let want = boolean(event, "evaluated")?;
                check.same(format_args!("evaluated by event {step}"), poked, want);
                poked
            }
            kind => return unknown("kind", kind),
        };
        let scripted = field(event, "scripted")?;
        let valid = item(scripted, 0)?.as_bool() == Some(true);
        let informed = evaluated
            && valid
            && published.publish(count(item(scripted, 1)?)?, int(item(scripted, 2)?)?);
        let want = boolean(event, "informed")?;
        check.same(format_args!("informed by event {step}"), informed, want);
        let want = pair(field(event, "status")?)?;
        check.same(
            format_args!("status after event {step}"),
            status(&published),
            want,
        );
    }
    Ok(())
}

/// Knative writes an unknown count as -1.
fn status(published: &Published) -> (i64, i64) {
    let desired = published
        .desired
        .map_or(-1, |desired| i64::from(desired.get()));
    (desired, published.burst_headroom)
}

fn pair(value: &Value) -> Read<(i64, i64)> {
    Ok((int(item(value, 0)?)?, int(item(value, 1)?)?))
}

fn num_activators(case: &Value, check: &mut Check) -> Read<()> {
    let got = activators_needed(
        count_of(case, "ready")?,
        float_of(case, "total_value")?,
        burst_capacity(case)?,
        float_of(case, "activator_capacity")?,
    );
    let want = int_of(case, "num_activators")?;
    check.same("num_activators", i64::from(got), want);
    Ok(())
}
