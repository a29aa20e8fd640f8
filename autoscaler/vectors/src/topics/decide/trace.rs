//! The whole decider: samples in, decisions out.

use autoscaler_core::{
    Aggregation, Decider, Decision, Mode, Moment, Observed, Policy, Reason, Replicas, Sample,
};
use serde_json::Value;

use super::super::window::tolerance;
use super::spec;
use crate::check::Check;
use crate::read::{
    Read, boolean, count, count_of, field, float, int_of, item, list, millis_of, moment, string,
    text, unknown,
};

pub(super) fn replay(case: &Value, check: &mut Check) -> Read<()> {
    let (mut spec, reachable) = spec(field(case, "spec")?)?;
    spec.panic_window = millis_of(case, "panic_window_ms")?;
    spec.aggregation = match text(case, "algorithm")? {
        "linear" => Aggregation::Linear,
        "weighted-exponential" => Aggregation::WeightedExponential,
        algorithm => return unknown("algorithm", algorithm),
    };
    // The recording's collection was scraped whatever the burst capacity.
    spec.policy = Policy {
        scrapes_always: true,
        ..spec.policy
    };
    let aggregation = spec.aggregation;
    let born = count_of(field(case, "create")?, "ready")?;
    let mut decider = Decider::new(spec, moment(case, &0.into())?, born);
    for event in list(case, "events")? {
        let now = moment(case, item(event, 1)?)?;
        match string(item(event, 0)?)? {
            "stat" => record(&mut decider, now, event)?,
            "tick" => {
                let seen = seen(count(item(event, 2)?)?, reachable);
                let got = decider.decide(now, &seen);
                let want = item(event, 3)?;
                let at = format!("tick at {}", item(event, 1)?);
                compare(&got, want, aggregation, &at, check)?;
                let peak = count_of(want, "max_panic")?;
                let got = decider.kpa().panic().peak();
                check.same(format_args!("max_panic, {at}"), got, peak);
            }
            event => return unknown("event", event),
        }
    }
    Ok(())
}

fn record(decider: &mut Decider, now: Moment, event: &Value) -> Read<()> {
    let sample = Sample {
        concurrency: float(item(event, 2)?)?,
        ..Sample::default()
    };
    let requests = float(item(event, 3)?)?;
    decider.record(now, Sample { requests, ..sample });
    Ok(())
}

/// A workload of which Knative's decider knows no more than this: nothing held, nothing open, nothing starting.
fn seen(ready: Replicas, reachable: bool) -> Observed {
    Observed {
        ready,
        starting: Replicas::ZERO,
        current: ready,
        held: 0,
        open: Some(0),
        reachable,
        ..Observed::default()
    }
}

fn compare(
    got: &Decision,
    want: &Value,
    aggregation: Aggregation,
    at: &str,
    check: &mut Check,
) -> Read<()> {
    if boolean(want, "valid")? {
        let desired = Some(count_of(want, "desired")?);
        check.same(format_args!("desired, {at}"), got.desired, desired);
        let headroom = int_of(want, "ebc")?;
        check.same(format_args!("ebc, {at}"), got.burst_headroom, headroom);
        for (place, got, name) in [
            ("stable average", got.inputs.stable, "s"),
            ("panic average", got.inputs.panic, "p"),
        ] {
            let want = float(field(want, name)?)?;
            let near = tolerance(aggregation, want);
            // Without data there is no average, which is near nothing.
            let got = got.unwrap_or(f64::NAN);
            check.near(format_args!("{place}, {at}"), got, want, near);
        }
    } else {
        let wanted = (None, Reason::NoData);
        check.same(
            format_args!("decision, {at}"),
            (got.want, got.reason),
            wanted,
        );
    }
    let panics = boolean(want, "panic")?;
    check.same(
        format_args!("mode is panic, {at}"),
        got.mode == Mode::Panic,
        panics,
    );
    Ok(())
}
