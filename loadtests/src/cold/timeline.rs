//! The phases of one request: what is known of it, put in order, so that they fill the time from its plan to its end.

use super::Observed;
use super::pods::Pod;
use super::report::{Owner, Phase};
use super::timing::Timing;
use std::time::Duration;

/// Owners of the phases that Rouse tells, by the name of what each ends with (`activator/src/timeline.rs`).
const TOLD: [(&str, Owner); 10] = [
    ("patch_sent", Owner::Control),
    ("patched", Owner::ApiServer),
    ("pod_created", Owner::Kubernetes),
    ("pod_scheduled", Owner::Kubernetes),
    ("pod_seen", Owner::Kubernetes),
    ("sidecar_started", Owner::Kubernetes),
    ("port_open", Owner::Model),
    ("model_ready", Owner::Model),
    ("forwarded", Owner::Control),
    ("first_byte", Owner::Model),
];

/// The place of a phase among others, by its name.
pub(super) fn rank(name: &str) -> usize {
    const BEFORE: [&str; 5] = ["begun", "reachable", "sent", "noticed", "scaled"];
    const WATCHED: [&str; 3] = ["image_pulled", "init_done", "container_started"];
    const AFTER: [&str; 3] = ["pod_ready", "answered", "last_byte"];
    let told = TOLD.iter().map(|(name, _)| *name);
    let (early, late): (Vec<_>, Vec<_>) = told.partition(|name| {
        let last = ["port_open", "model_ready", "forwarded", "first_byte"];
        !last.contains(name)
    });
    let (open, rest) = late.split_at(2);
    let order = BEFORE.iter().chain(&early).chain(&WATCHED).chain(open);
    let mut order = order.chain(&AFTER[..1]).chain(rest).chain(&AFTER[1..]);
    order.position(|one| *one == name).unwrap_or(usize::MAX)
}

/// Something that happened on the way, in seconds from the plan on. The time before it, up to what happened before, is its owner's.
#[derive(Clone, Debug, PartialEq)]
struct Event {
    name: &'static str,
    owner: Owner,
    at: f64,
}

/// What a request's phases are made of.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known<'a> {
    /// The wake that it waited for, as its own answer or another one tells, and when its demand was noticed.
    pub(super) wake: Option<(&'a Timing, Duration)>,
    /// The pod that answered, or the first that could have.
    pub(super) pod: Option<&'a Pod>,
    /// When replicas were wanted again, as a watch told.
    pub(super) scaled: Option<Duration>,
}

/// The phases of a request up to its end, or its failure.
pub(super) fn phases(observed: &Observed, known: Known<'_>) -> Vec<Phase> {
    let planned = observed.planned.as_secs_f64();
    let since = |at: Duration| at.as_secs_f64() - planned;
    let event = |name, owner, at| Event { name, owner, at };
    let mut events = vec![event("begun", Owner::Tool, since(observed.begun))];
    let sent = observed.sent.map(since);
    // A Service leads to a pod that is ready after a while: until then it refuses.
    let reachable = observed.reachable.map(since);
    events.extend(reachable.map(|at| event("reachable", Owner::Kubernetes, at)));
    events.extend(sent.map(|at| event("sent", Owner::Unknown, at)));
    if let Some((timing, noticed)) = known.wake {
        wake(&mut events, observed, timing, since(noticed));
    } else if let Some(at) = known.scaled.filter(|_| known.pod.is_some()) {
        let owner = if observed.reachable.is_some() {
            // By this tool: what it took is the API server's.
            Owner::ApiServer
        } else {
            Owner::Control
        };
        events.push(event("scaled", owner, since(at)));
    }
    if let Some(pod) = known.pod {
        let port_open = known
            .wake
            .and_then(|(timing, noticed)| Some(since(noticed) + timing.at("port_open")?));
        watched(&mut events, pod, port_open, known.wake.is_some(), &since);
    }
    if let Some(head) = observed.head.map(since) {
        // From a pod that is ready to its first byte somebody may have to notice, and to forward. With a timeline what is left is the way
        // of the answer.
        let (name, owner) = match (known.wake.is_some(), observed.reachable.is_some()) {
            (true, _) => ("answered", Owner::Unknown),
            (false, true) => ("first_byte", Owner::Model),
            (false, false) => ("first_byte", Owner::Unknown),
        };
        events.push(event(name, owner, head));
    }
    events.sort_by(|a, b| a.at.total_cmp(&b.at));
    let end = since(observed.done);
    events.push(match observed.error {
        None => event("last_byte", Owner::Model, end),
        Some(_) => event("failed", Owner::Unknown, end),
    });
    fill(&events, end)
}

/// What Rouse tells of a wake whose demand was noticed `noticed` seconds after the plan.
fn wake(events: &mut Vec<Event>, observed: &Observed, timing: &Timing, noticed: f64) {
    let event = |name, owner, at| Event { name, owner, at };
    events.push(event("noticed", Owner::Control, noticed));
    let own = observed.timing.as_ref();
    let is_own = own == Some(timing);
    let told = TOLD
        .iter()
        .filter(|(name, _)| is_own || !matches!(*name, "forwarded" | "first_byte"))
        .filter_map(|(name, owner)| Some(event(name, *owner, noticed + timing.at(name)?)));
    events.extend(told);
    let held = own.and_then(|timing| timing.held);
    if let (false, Some(held), Some(sent)) = (is_own, held, observed.sent) {
        // It was held from a little after it was sent, and for no model that was not ready.
        let ready = noticed + timing.at("model_ready").unwrap_or_default();
        let sent = sent.as_secs_f64() - observed.planned.as_secs_f64();
        events.push(event("forwarded", Owner::Control, ready.max(sent + held)));
    }
}

/// What watches tell of a pod. The kubelet tells of a container that has started a moment later, sometimes together with what came of it: what
/// would then take the time of the model is left out. `port_open` is when the model's port is known to have been open.
fn watched(
    events: &mut Vec<Event>,
    pod: &Pod,
    port_open: Option<f64>,
    has_wake: bool,
    since: &dyn Fn(Duration) -> f64,
) {
    let is_early = |at: &f64| port_open.is_none_or(|open| *at < open);
    let started = pod.started.filter(|at| pod.ready != Some(*at));
    for (name, at, is_used) in [
        ("pod_created", pod.created(), !has_wake),
        ("pod_scheduled", pod.scheduled, !has_wake),
        ("image_pulled", pod.pulled, true),
        ("init_done", pod.initialised, true),
        ("container_started", started, true),
    ] {
        let at = at.filter(|_| is_used).map(since).filter(is_early);
        events.extend(at.map(|at| Event {
            name,
            owner: Owner::Kubernetes,
            at,
        }));
    }
    if let Some(ready) = pod.ready.filter(|_| !has_wake) {
        events.push(Event {
            name: "pod_ready",
            // Where nobody told when the container started, this is Kubernetes' time, too.
            owner: if started.is_some() {
                Owner::Model
            } else {
                Owner::Unknown
            },
            at: since(ready),
        });
    }
}

/// Phases without a gap: what is known to have come before the plan or after the end is left out.
fn fill(events: &[Event], end: f64) -> Vec<Phase> {
    let mut from = 0.0;
    let mut phases = Vec::with_capacity(events.len());
    for event in events {
        if event.at < 0.0 || event.at > end {
            continue;
        }
        let to = event.at.max(from);
        phases.push(Phase {
            name: event.name.to_owned(),
            owner: event.owner,
            from,
            to,
        });
        from = to;
    }
    phases
}

#[cfg(test)]
mod tests {
    use super::super::pods::Origin;
    use super::super::report::Phase;
    use super::*;
    use crate::record::ErrorKind;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn observed(timing: Option<Timing>) -> Observed {
        Observed {
            planned: MS(10_000),
            begun: MS(10_000),
            sent: Some(MS(10_001)),
            head: Some(MS(12_000)),
            done: MS(12_010),
            status: Some(200),
            timing,
            ..Observed::default()
        }
    }

    /// Names, and where each ends in milliseconds.
    fn ends(phases: &[Phase]) -> Vec<(&str, f64)> {
        let mut from = 0.0;
        for phase in phases {
            assert!(
                phase.from.to_bits() == f64::to_bits(from) && phase.to >= phase.from,
                "{phases:?}"
            );
            from = phase.to;
        }
        let ends = phases.iter();
        ends.map(|phase| (phase.name.as_str(), (phase.to * 1e4).round() / 10.0))
            .collect()
    }

    #[test]
    fn rouse_s_timeline_is_laid_into_the_client_s() {
        let timing = Timing::parse(
            "hold;dur=1902, patch_sent;dur=1, pod_created;dur=2, patched;dur=3, port_open;dur=1880, model_ready;dur=1890, forwarded;dur=1900, first_byte;dur=1990",
        );
        let own = observed(timing.clone());
        let timing = timing.unwrap();
        let known = Known {
            wake: Some((&timing, MS(10_003))),
            ..Known::default()
        };
        let phases = phases(&own, known);
        assert_eq!(
            ends(&phases),
            [
                ("begun", 0.0),
                ("sent", 1.0),
                ("noticed", 3.0),
                ("patch_sent", 4.0),
                ("pod_created", 5.0),
                ("patched", 6.0),
                ("port_open", 1883.0),
                ("model_ready", 1893.0),
                ("forwarded", 1903.0),
                ("first_byte", 1993.0),
                ("answered", 2000.0),
                ("last_byte", 2010.0),
            ]
        );
        // Another one of the same storm, answered later; and one whose hold seems to end before its model was ready.
        for (header, forwarded) in [("hold;dur=1950", 1951.0), ("hold;dur=1850", 1893.0)] {
            let other = Observed {
                head: Some(MS(12_100)),
                done: MS(12_100),
                ..observed(Timing::parse(header))
            };
            let phases = super::phases(&other, known);
            assert_eq!(
                ends(&phases)[7..],
                [
                    ("model_ready", 1893.0),
                    ("forwarded", forwarded),
                    ("answered", 2100.0),
                    ("last_byte", 2100.0)
                ]
            );
        }
    }

    fn pod() -> Pod {
        Pod {
            origin: Origin::Made(MS(10_050)),
            scheduled: Some(MS(10_060)),
            pulled: Some(MS(10_500)),
            started: Some(MS(10_600)),
            ready: Some(MS(11_900)),
            ..Pod::default()
        }
    }

    #[test]
    fn watches_tell_what_nobody_else_does() {
        let pod = pod();
        let known = Known {
            pod: Some(&pod),
            scaled: Some(MS(10_040)),
            wake: None,
        };
        let phases = phases(&observed(None), known);
        assert_eq!(
            ends(&phases),
            [
                ("begun", 0.0),
                ("sent", 1.0),
                ("scaled", 40.0),
                ("pod_created", 50.0),
                ("pod_scheduled", 60.0),
                ("image_pulled", 500.0),
                ("container_started", 600.0),
                ("pod_ready", 1900.0),
                ("first_byte", 2000.0),
                ("last_byte", 2010.0)
            ]
        );
    }

    #[test]
    fn a_start_that_the_kubelet_tells_late_takes_nothing_of_the_model_s_time() {
        let names = |phases: &[Phase]| {
            let names = phases.iter().map(|phase| phase.name.clone());
            names.collect::<Vec<_>>()
        };
        let together = Pod {
            started: Some(MS(11_900)),
            ..pod()
        };
        let known = Known {
            pod: Some(&together),
            ..Known::default()
        };
        let told = phases(&observed(None), known);
        assert!(!names(&told).contains(&"container_started".to_owned()));
        let ready = told.iter().find(|phase| phase.name == "pod_ready").unwrap();
        assert_eq!(ready.owner, Owner::Unknown);
        // After the model's port was open.
        let timing = Timing::parse("hold;dur=1, port_open;dur=100, forwarded;dur=1").unwrap();
        let known = Known {
            pod: Some(&together),
            wake: Some((&timing, MS(10_001))),
            scaled: None,
        };
        let told = phases(&observed(None), known);
        assert!(!names(&told).contains(&"container_started".to_owned()));
    }

    #[test]
    fn what_cannot_belong_to_the_request_is_left_out_and_failures_are_told_as_far_as_they_came() {
        let pod = Pod {
            origin: Origin::Made(MS(9_000)),
            ready: Some(MS(13_000)),
            ..Pod::default()
        };
        let known = Known {
            pod: Some(&pod),
            ..Known::default()
        };
        let names = |observed: &Observed| {
            let phases = phases(observed, known).into_iter();
            phases.map(|phase| phase.name).collect::<Vec<_>>()
        };
        assert_eq!(
            names(&observed(None)),
            ["begun", "sent", "first_byte", "last_byte"]
        );
        let unanswered = Observed {
            head: None,
            error: Some(ErrorKind::Timeout),
            ..observed(None)
        };
        assert_eq!(names(&unanswered), ["begun", "sent", "failed"]);
    }
}
