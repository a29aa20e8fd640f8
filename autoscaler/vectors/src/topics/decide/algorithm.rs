//! The algorithm alone: averages and ready pods in, a count out.

use autoscaler_core::{Averages, Kpa, Mode};
use serde_json::Value;

use super::{ready, spec};
use crate::check::Check;
use crate::read::{Read, boolean, count_of, field, float_of, int_of, list, moment, unknown};

pub(super) fn replay(case: &Value, check: &mut Check) -> Read<()> {
    let (mut current, mut reachable) = spec(field(case, "spec")?)?;
    let create = field(case, "create")?;
    let mut kpa = Kpa::new(
        &current,
        moment(case, &0.into())?,
        ready(field(create, "ready")?)?.unwrap_or_default(),
    );
    panic(&kpa, case, field(create, "want")?, "creation", check)?;
    for tick in list(case, "ticks")? {
        if let Some(changed) = tick.get("spec") {
            (current, reachable) = spec(changed)?;
            kpa.respec(&current);
        }
        let want = field(tick, "want")?;
        let at = format!("tick at {}", field(tick, "t")?);
        let seen = ready(field(tick, "ready")?)?.zip(load(tick)?);
        check.same(
            format_args!("valid, {at}"),
            seen.is_some(),
            boolean(want, "valid")?,
        );
        if let Some((ready, load)) = seen {
            let now = moment(case, field(tick, "t")?)?;
            let verdict = kpa.evaluate(now, &current, ready, reachable, load);
            let desired = i64::from(verdict.desired.get());
            check.same(
                format_args!("desired, {at}"),
                desired,
                int_of(want, "desired")?,
            );
            let headroom = verdict.burst_headroom;
            check.same(format_args!("ebc, {at}"), headroom, int_of(want, "ebc")?);
            let panics = verdict.mode == Mode::Panic;
            check.same(
                format_args!("mode is panic, {at}"),
                panics,
                boolean(want, "panic")?,
            );
        }
        panic(&kpa, case, want, &at, check)?;
    }
    Ok(())
}

/// The averages of a tick; none if they could not be had.
fn load(tick: &Value) -> Read<Option<Averages>> {
    match tick.get("err").map(Value::as_str) {
        None => Ok(Some(Averages {
            stable: float_of(tick, "s")?,
            panic: float_of(tick, "p")?,
        })),
        Some(Some("no_data" | "not_collecting" | "other")) => Ok(None),
        Some(err) => unknown("err", format_args!("{err:?}")),
    }
}

/// The state of panic.
fn panic(kpa: &Kpa, case: &Value, want: &Value, at: &str, check: &mut Check) -> Read<()> {
    let clock = kpa.panic();
    let since = match field(want, "panic_t")? {
        Value::Null => None,
        t => Some(moment(case, t)?),
    };
    check.same(format_args!("panic_t, {at}"), clock.since(), since);
    let panics = boolean(want, "panic")?;
    check.same(format_args!("panic, {at}"), clock.is_panicking(), panics);
    let peak = count_of(want, "max_panic")?;
    check.same(format_args!("max_panic, {at}"), clock.peak(), peak);
    Ok(())
}
