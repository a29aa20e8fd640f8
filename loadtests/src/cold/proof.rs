//! Whether a request was cold, and what proves it.

use super::pods::{Pod, Pods};
use super::report::Kind;
use super::timing::Timing;
use super::{Before, Observed};
use crate::unit::human;
use std::time::Duration;

/// A watch tells of a pod this much after it was made, at most, on a machine that is not overloaded: a pod that is seen so soon
/// after a request was planned may have been there before it, unless there was none before.
const WATCH_LAG: Duration = Duration::from_millis(500);
/// An answer that was held for less, in seconds, waited for no start: no container starts as fast.
const NO_WAIT: f64 = 0.001;

/// A wake of which one of the answers told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told<'a> {
    pub(super) span: Span,
    pub(super) timing: &'a Timing,
    /// When that answer came.
    pub(super) head: Duration,
}

impl<'a> Told<'a> {
    /// What an answer tells, if it does.
    pub(super) fn by(observed: &'a Observed) -> Option<Self> {
        Some(Self {
            span: span(observed)?,
            timing: observed.timing.as_ref()?,
            head: observed.head?,
        })
    }

    /// Whether a request of the same workload, answered at `head`, can have waited for this wake and nothing earlier.
    pub(super) fn explains(&self, planned: Duration, head: Duration) -> bool {
        planned < self.span.began && self.span.ready <= head
    }
}

/// When the pod of a wake came to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Span {
    /// When the pod began.
    pub(super) began: Duration,
    /// When its model was ready.
    pub(super) ready: Duration,
}

/// What is known of a request.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Finding {
    pub(super) kind: Kind,
    pub(super) reason: String,
    /// Who answered.
    pub(super) pod: Option<String>,
}

/// The beginning and the readiness of the wake that an answer tells of, if it does.
fn span(observed: &Observed) -> Option<Span> {
    let (timing, head) = (observed.timing.as_ref()?, observed.head?);
    let total = timing.at("first_byte")?;
    let began = timing.began()?;
    let ready = timing.at("model_ready").unwrap_or(began);
    // The answer came after its first byte had reached whoever tells this: all of it lies a little earlier.
    let back = |at: f64| head.saturating_sub(Duration::from_secs_f64((total - at).max(0.0)));
    Some(Span {
        began: back(began),
        ready: back(ready),
    })
}

/// Decides. `pods` are those of the workload, if they are watched, and `wakes` those of which answers of the same workload told.
pub(super) fn find(observed: &Observed, pods: Option<&Pods>, wakes: &[Told<'_>]) -> Finding {
    let finding = |kind, reason: String, pod: Option<&str>| Finding {
        kind,
        reason,
        pod: pod.map(str::to_owned),
    };
    let served_by = observed.served_by.as_deref();
    if let Some(error) = observed.error {
        let name = serde_json::to_value(error).unwrap_or_default();
        let reason = format!("it failed: {}", name.as_str().unwrap_or("error"));
        return finding(Kind::Failed, reason, served_by);
    }
    let (Some(sent), Some(head)) = (observed.sent, observed.head) else {
        return finding(Kind::Failed, "it had no answer".to_owned(), served_by);
    };
    if let Some(found) = pods.and_then(|pods| by_pods(observed, pods, sent, head)) {
        return found;
    }
    if let Some(span) = span(observed)
        && span.began > observed.planned
    {
        let after = shown(span.began.saturating_sub(observed.planned));
        let reason = format!("its answer tells of a pod that began {after} after it was planned");
        return finding(Kind::Cold, reason, served_by);
    }
    let waited = observed.timing.as_ref().and_then(|timing| timing.held);
    if waited.is_some_and(|waited| waited < NO_WAIT) {
        return finding(Kind::Warm, "it was not held".to_owned(), served_by);
    }
    if observed.before != Before::Unknown
        && let Some(wake) = wakes
            .iter()
            .find(|wake| wake.explains(observed.planned, head))
    {
        let after = shown(wake.span.began.saturating_sub(observed.planned));
        let reason = format!(
            "the answer of another request tells that the first pod began {after} after this one was planned"
        );
        return finding(Kind::Cold, reason, served_by);
    }
    match observed.before {
        Before::Unknown => finding(
            Kind::Warm,
            "nothing was thought to be at zero".to_owned(),
            served_by,
        ),
        Before::Zero | Before::Supposed => finding(
            Kind::Unproven,
            "nothing tells when the pod that answered began".to_owned(),
            served_by,
        ),
    }
}

fn shown(duration: Duration) -> String {
    human(duration.as_secs_f64())
}

/// By what the API server told of the pods; none if that decides nothing.
fn by_pods(observed: &Observed, pods: &Pods, sent: Duration, head: Duration) -> Option<Finding> {
    let named = observed.served_by.as_ref();
    let named = named.and_then(|name| pods.0.get_key_value(name));
    let could: Vec<(&String, &Pod)> = match named {
        Some(pod) => vec![pod],
        None => pods.could_answer(sent, head).collect(),
    };
    let margin = if observed.before == Before::Zero {
        Duration::ZERO
    } else {
        WATCH_LAG
    };
    let is_after = |pod: &Pod| {
        pod.created
            .is_some_and(|created| created > observed.planned + margin)
    };
    let is_before = |pod: &Pod| {
        pod.created
            .is_none_or(|created| created <= observed.planned)
    };
    let (name, first) = could.first()?;
    let only = (could.len() == 1).then(|| (*name).clone());
    if could.iter().all(|(_, pod)| is_after(pod)) {
        // Who of several answered is not known: what was made first is what it waited for.
        let created = first.created.unwrap_or_default();
        let after = shown(created.saturating_sub(observed.planned));
        let mut reason = format!("pod {name} was made {after} after it was planned");
        let has_pulled = could.iter().all(|(_, pod)| pod.pulled.is_some());
        let kind = if has_pulled {
            reason += ", and its node had to pull an image";
            Kind::FirstOnNode
        } else {
            Kind::Cold
        };
        return Some(Finding {
            kind,
            reason,
            pod: only,
        });
    }
    could
        .iter()
        .all(|(_, pod)| is_before(pod))
        .then(|| Finding {
            kind: Kind::Warm,
            reason: format!("pod {name} was there before"),
            pod: only,
        })
}

#[cfg(test)]
mod tests {
    use super::super::pods::Look;
    use super::*;
    use crate::record::ErrorKind;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    /// Planned after ten seconds, answered after twelve.
    fn observed(before: Before) -> Observed {
        Observed {
            workload: 0,
            before,
            lifted: false,
            planned: MS(10_000),
            begun: MS(10_000),
            sent: Some(MS(10_001)),
            head: Some(MS(12_000)),
            done: MS(12_001),
            status: Some(200),
            error: None,
            served_by: None,
            timing: None,
            body_bytes: 0,
        }
    }

    fn with_timing(before: Before, header: &str) -> Observed {
        Observed {
            timing: Timing::parse(header),
            ..observed(before)
        }
    }

    /// A workload with pods that were made at these moments, or were there.
    fn pods(made: &[Option<u64>]) -> Pods {
        let mut pods = Pods::default();
        for (number, made) in made.iter().enumerate() {
            let at = MS(made.unwrap_or_default());
            pods.look(&number.to_string(), Look::default(), at, made.is_none());
        }
        pods
    }

    fn kind(observed: &Observed, pods: Option<&Pods>) -> Kind {
        find(observed, pods, &[]).kind
    }

    #[test]
    fn a_pod_that_was_made_after_the_request_is_proof() {
        let zero = observed(Before::Zero);
        assert_eq!(kind(&zero, Some(&pods(&[Some(10_100)]))), Kind::Cold);
        assert_eq!(
            kind(&zero, Some(&pods(&[Some(10_100), Some(11_000)]))),
            Kind::Cold
        );
        // One that came later cannot have answered.
        assert_eq!(
            kind(&zero, Some(&pods(&[Some(10_100), Some(13_000)]))),
            Kind::Cold
        );
        assert_eq!(kind(&zero, Some(&pods(&[None]))), Kind::Warm);
        assert_eq!(kind(&zero, Some(&pods(&[Some(9_000)]))), Kind::Warm);
        // Either may have answered, unless one says so.
        let both = pods(&[None, Some(10_600)]);
        assert_eq!(kind(&zero, Some(&both)), Kind::Unproven);
        let named = |name: &str| Observed {
            served_by: Some(name.to_owned()),
            ..zero.clone()
        };
        assert_eq!(kind(&named("1"), Some(&both)), Kind::Cold);
        assert_eq!(kind(&named("0"), Some(&both)), Kind::Warm);
        assert_eq!(kind(&zero, Some(&pods(&[]))), Kind::Unproven);
    }

    #[test]
    fn a_watch_that_lags_proves_nothing_of_a_workload_that_was_not_seen_at_zero() {
        let supposed = observed(Before::Supposed);
        assert_eq!(
            kind(&supposed, Some(&pods(&[Some(10_100)]))),
            Kind::Unproven
        );
        assert_eq!(kind(&supposed, Some(&pods(&[Some(10_600)]))), Kind::Cold);
    }

    #[test]
    fn the_first_of_a_node_is_told_apart() {
        let mut one = pods(&[Some(10_100)]);
        one.pulled("0", MS(11_000));
        assert_eq!(kind(&observed(Before::Zero), Some(&one)), Kind::FirstOnNode);
    }

    #[test]
    fn an_answer_s_own_timeline_is_proof_if_its_pod_began_later() {
        let wake = "hold;dur=1900, patch_sent;dur=1, pod_created;dur=2, model_ready;dur=1890, first_byte;dur=1990";
        let of = |header: &str| with_timing(Before::Supposed, header);
        assert_eq!(kind(&of(wake), None), Kind::Cold);
        // The wake was on its way before the request was planned.
        let late = "hold;dur=1900, pod_created;dur=2, model_ready;dur=2900, first_byte;dur=2990";
        assert_eq!(kind(&of(late), None), Kind::Unproven);
        assert_eq!(kind(&of("hold;dur=0.02"), None), Kind::Warm);
        assert_eq!(kind(&of("hold;dur=1900"), None), Kind::Unproven);
        assert_eq!(kind(&of("x;dur=1"), None), Kind::Unproven);
    }

    #[test]
    fn others_of_a_storm_are_cold_by_the_one_that_tells() {
        let wake = "hold;dur=1900, pod_created;dur=2, model_ready;dur=1890, first_byte;dur=1990";
        let teller = with_timing(Before::Zero, wake);
        let told = Told::by(&teller).unwrap();
        assert_eq!((told.span.began, told.span.ready), (MS(10_012), MS(11_900)));
        let held = with_timing(Before::Supposed, "hold;dur=1950");
        assert_eq!(find(&held, None, &[told]).kind, Kind::Cold);
        // Planned after that pod had begun, or nothing was thought to be at zero.
        let later = Observed {
            planned: MS(10_020),
            ..held.clone()
        };
        assert_eq!(find(&later, None, &[told]).kind, Kind::Unproven);
        let other = Observed {
            before: Before::Unknown,
            ..held
        };
        assert_eq!(find(&other, None, &[told]).kind, Kind::Warm);
    }

    #[test]
    fn what_failed_is_neither_cold_nor_warm() {
        let failed = Observed {
            error: Some(ErrorKind::Connect),
            ..observed(Before::Zero)
        };
        let finding = find(&failed, Some(&pods(&[Some(10_100)])), &[]);
        assert_eq!(finding.kind, Kind::Failed);
        assert!(finding.reason.contains("connect"), "{}", finding.reason);
    }
}
