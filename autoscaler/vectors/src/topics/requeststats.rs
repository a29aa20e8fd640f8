//! The account of requests that both proxies keep.

use serde_json::Value;
use shared::load::{Count, Gauge, Ring, Totals};

use super::Group;
use crate::check::Check;
use crate::read::{Read, float, int, item, list, string, unknown};

const REPORTER: &str = "A queue-proxy's answer is whole numbers in JSON, a second each, which the autoscaler turns into \
                        load; there are no rates in Protobuf (decision 0004).";
const ACTIVATOR: &str = "Activators are asked for what they hold and push nothing, so that there is no first report to \
                         take back later (decision 0004).";

/// The collector's start, in microseconds: events may lie before it.
const START_US: i64 = 1 << 50;

pub(super) fn group(name: &str) -> Option<Group> {
    match name {
        "edge" | "random" => Some(Group::Replayed(replay)),
        "reporter" => Some(Group::NotApplicable(REPORTER)),
        "activator" => Some(Group::NotApplicable(ACTIVATOR)),
        _ => None,
    }
}

/// A proxied request is one more of the plain ones and has a gauge and a count of its own beside. Rouse knows no proxied ones:
/// its second gauge and its last count stand in.
fn replay(case: &Value, check: &mut Check) -> Read<()> {
    let mut ring = Ring::with_totals(clock(0)?);
    let mut before = Totals::default();
    for (step, event) in list(case, "events")?.iter().enumerate() {
        let now = clock(int(item(event, 1)?)?)?;
        let kind = string(item(event, 0)?)?;
        match kind {
            "in" | "pin" => {
                ring.enter(now, Gauge::InFlight);
                ring.count(now, Count::Started);
            }
            "out" | "pout" => ring.leave(now, Gauge::InFlight),
            "report" => {
                let totals = ring.totals(now).unwrap_or_default();
                report(before, totals, event, step, check)?;
                before = totals;
            }
            kind => return unknown("event", kind),
        }
        match kind {
            "pin" => {
                ring.enter(now, Gauge::Waiting);
                ring.count(now, Count::Released);
            }
            "pout" => ring.leave(now, Gauge::Waiting),
            _ => {}
        }
    }
    Ok(())
}

fn clock(t_us: i64) -> Read<u64> {
    let at = START_US
        .checked_add(t_us)
        .and_then(|at| u64::try_from(at).ok());
    at.map_or_else(|| unknown("time", t_us), Ok)
}

fn report(
    before: Totals,
    after: Totals,
    event: &Value,
    step: usize,
    check: &mut Check,
) -> Read<()> {
    let elapsed = after.elapsed_us - before.elapsed_us;
    for (place, index, sum) in [
        (
            "concurrency",
            2,
            after.in_flight_us.saturating_sub(before.in_flight_us),
        ),
        (
            "proxied",
            3,
            after.waiting_us.saturating_sub(before.waiting_us),
        ),
    ] {
        let got = average(sum, elapsed);
        let want = float(item(event, index)?)?;
        check.near(format_args!("{place} of event {step}"), got, want, 1e-9);
    }
    for (place, index, got) in [
        ("requests", 4, after.started - before.started),
        ("proxied requests", 5, after.released - before.released),
    ] {
        let want = int(item(event, index)?)?;
        check.same(
            format_args!("{place} of event {step}"),
            i64::try_from(got).unwrap_or(i64::MAX),
            want,
        );
    }
    Ok(())
}

#[expect(
    clippy::cast_precision_loss,
    reason = "microseconds of a recording stay far below 2^52"
)]
fn average(sum_us: i64, elapsed_us: u64) -> f64 {
    if elapsed_us == 0 {
        return 0.0;
    }
    sum_us as f64 / elapsed_us as f64
}
