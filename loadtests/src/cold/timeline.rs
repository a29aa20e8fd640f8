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
    /// The wake that it waited for: its own timeline, or that of another request with the moment at which that one's answer came.
    pub(super) wake: Option<(&'a Timing, Duration)>,
    /// The pod that answered, or the first that could have.
    pub(super) pod: Option<&'a Pod>,
    /// When replicas were wanted again, as a watch told.
    pub(super) scaled: Option<Duration>,
}

/// The phases of a request that was answered; none of one that was not.
pub(super) fn phases(observed: &Observed, known: Known<'_>) -> Vec<Phase> {
    let (Some(sent), Some(head)) = (observed.sent, observed.head) else {
        return Vec::new();
    };
    let since = |at: Duration| at.as_secs_f64() - observed.planned.as_secs_f64();
    let event = |name, owner, at| Event { name, owner, at };
    let mut events = vec![
        event("begun", Owner::Tool, since(observed.begun)),
        // A Service leads to a pod that is ready after a while: until then it refuses.
        if observed.lifted {
            event("reachable", Owner::Kubernetes, since(sent))
        } else {
            event("sent", Owner::Unknown, since(sent))
        },
    ];
    let wake = known.wake.and_then(|(timing, head)| {
        let total = timing.at("first_byte")?;
        Some((timing, since(head) - total))
    });
    if let Some((timing, noticed)) = wake {
        // How long the first byte took to come back is not told apart: it is in this phase, too.
        events.push(event("noticed", Owner::Control, noticed));
        let is_own = observed.timing.as_ref() == Some(timing);
        let told = TOLD
            .iter()
            .filter(|(name, _)| is_own || !matches!(*name, "forwarded" | "first_byte"))
            .filter_map(|(name, owner)| Some(event(name, *owner, noticed + timing.at(name)?)));
        events.extend(told);
        let waited = observed.timing.as_ref().and_then(|timing| timing.held);
        if let Some(waited) = waited.filter(|_| !is_own) {
            // It was held from a little after it was sent, and for no model that was not ready.
            let ready = noticed + timing.at("model_ready").unwrap_or_default();
            let at = ready.max(since(sent) + waited);
            events.push(event("forwarded", Owner::Control, at));
        }
        if !is_own {
            events.push(event("first_byte", Owner::Model, since(head)));
        }
    } else if let Some(at) = known.scaled.filter(|_| known.pod.is_some()) {
        events.push(event("scaled", Owner::Control, since(at)));
    }
    if let Some(pod) = known.pod {
        let seen = [
            ("pod_created", pod.created, wake.is_none()),
            ("pod_scheduled", pod.scheduled, wake.is_none()),
            ("image_pulled", pod.pulled, true),
            ("init_done", pod.initialised, true),
            ("container_started", pod.started, true),
        ];
        for (name, at, is_used) in seen {
            if let Some(at) = at.filter(|_| is_used) {
                events.push(event(name, Owner::Kubernetes, since(at)));
            }
        }
        if let Some(at) = pod.ready.filter(|_| wake.is_none()) {
            events.push(event("pod_ready", Owner::Model, since(at)));
        }
    }
    if wake.is_none() {
        // From a pod that is ready to its first byte: somebody notices, forwards, and the model answers.
        events.push(event("first_byte", Owner::Unknown, since(head)));
    }
    events.sort_by(|a, b| a.at.total_cmp(&b.at));
    events.push(event("last_byte", Owner::Model, since(observed.done)));
    fill(&events, since(observed.done))
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
    use super::super::Before;
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn observed(timing: Option<Timing>) -> Observed {
        Observed {
            workload: 0,
            before: Before::Zero,
            lifted: false,
            planned: MS(10_000),
            begun: MS(10_000),
            sent: Some(MS(10_001)),
            head: Some(MS(12_000)),
            done: MS(12_010),
            status: Some(200),
            error: None,
            served_by: None,
            timing,
            body_bytes: 0,
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
            "hold;dur=1900, patch_sent;dur=1, pod_created;dur=2, patched;dur=3, port_open;dur=1880, model_ready;dur=1890, forwarded;dur=1900, first_byte;dur=1990",
        );
        let own = observed(timing.clone());
        let known = Known {
            wake: Some((timing.as_ref().unwrap(), MS(12_000))),
            ..Known::default()
        };
        let phases = phases(&own, known);
        assert_eq!(
            ends(&phases),
            [
                ("begun", 0.0),
                ("sent", 1.0),
                ("noticed", 10.0),
                ("patch_sent", 11.0),
                ("pod_created", 12.0),
                ("patched", 13.0),
                ("port_open", 1890.0),
                ("model_ready", 1900.0),
                ("forwarded", 1910.0),
                ("first_byte", 2000.0),
                ("last_byte", 2010.0),
            ]
        );
        // Another one of the same storm, planned at the same time and answered later.
        let other = Observed {
            head: Some(MS(12_100)),
            done: MS(12_100),
            ..observed(Timing::parse("hold;dur=1950"))
        };
        let ends: Vec<_> = super::phases(&other, known)
            .iter()
            .map(|phase| (phase.name.clone(), (phase.to * 1e3).round()))
            .collect();
        // One whose hold seems to end before its model was ready.
        let early = Observed {
            timing: Timing::parse("hold;dur=1850"),
            ..other
        };
        let early: Vec<_> = super::phases(&early, known)
            .into_iter()
            .map(|phase| phase.name)
            .collect();
        assert_eq!(early[7..9], ["model_ready", "forwarded"]);
        let last: Vec<_> = ends[7..].iter().map(|(name, at)| (&**name, *at)).collect();
        assert_eq!(
            last,
            [
                ("model_ready", 1900.0),
                ("forwarded", 1951.0),
                ("first_byte", 2100.0),
                ("last_byte", 2100.0)
            ]
        );
    }

    #[test]
    fn watches_tell_what_nobody_else_does() {
        let pod = Pod {
            created: Some(MS(10_050)),
            scheduled: Some(MS(10_060)),
            pulled: Some(MS(10_500)),
            started: Some(MS(10_600)),
            ready: Some(MS(11_900)),
            ..Pod::default()
        };
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
    fn what_cannot_belong_to_the_request_is_left_out() {
        let pod = Pod {
            created: Some(MS(9_000)),
            ready: Some(MS(13_000)),
            ..Pod::default()
        };
        let known = Known {
            pod: Some(&pod),
            scaled: None,
            wake: None,
        };
        let phases = phases(&observed(None), known);
        let names: Vec<_> = phases.iter().map(|phase| &*phase.name).collect();
        assert_eq!(names, ["begun", "sent", "first_byte", "last_byte"]);
        let unanswered = Observed {
            head: None,
            ..observed(None)
        };
        assert!(super::phases(&unanswered, known).is_empty());
    }
}
