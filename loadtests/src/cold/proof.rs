//! Whether a request was cold, and what proves it.

use super::pods::{Origin, Pod, Pods};
use super::report::Kind;
use super::timing::Timing;
use super::{Before, Observed};
use crate::unit::human;
use std::time::Duration;

/// A watch tells of a pod this much after it was made, at most, on a machine that is not overloaded: a pod that is seen so soon
/// after a request was planned may have been there before it, unless the API server had just been asked and had none.
const WATCH_LAG: Duration = Duration::from_millis(500);
/// An answer that was held for less, in seconds, waited for no start: no container starts as fast.
const NO_WAIT: f64 = 0.001;

/// A wake of which one of the answers told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told<'a> {
    pub(super) timing: &'a Timing,
    /// When its demand was noticed, at the earliest.
    pub(super) noticed: Duration,
    /// When its pod began, at the earliest.
    began: Duration,
    /// When the model in it was ready, at the earliest.
    ready: Duration,
}

impl<'a> Told<'a> {
    /// What an answer tells, if it does. All of it is put as early as it can have been: as if the request had arrived when it was sent.
    pub(super) fn by(observed: &'a Observed) -> Option<Self> {
        let timing = observed.timing.as_ref()?;
        let noticed = observed.sent?.as_secs_f64() + timing.noticed();
        let began = timing.began()?;
        let ready = timing.at("model_ready").unwrap_or(began);
        let at = |seconds: f64| Duration::try_from_secs_f64(noticed + seconds).unwrap_or_default();
        Some(Self {
            timing,
            noticed: at(0.0),
            began: at(began),
            ready: at(ready),
        })
    }

    /// The order in which [`explaining`] needs them.
    pub(super) fn began(&self) -> Duration {
        self.began
    }
}

/// The first of these wakes, in order, that began after a request was planned, if its model was ready by `head`: the request can have waited for
/// it and for none before.
pub(super) fn explaining<'a, 'b>(
    told: &'b [Told<'a>],
    planned: Duration,
    head: Duration,
) -> Option<&'b Told<'a>> {
    let after = told.partition_point(|wake| wake.began <= planned);
    told.get(after).filter(|wake| wake.ready <= head)
}

/// What is known of a request.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Finding {
    pub(super) kind: Kind,
    pub(super) reason: String,
    /// Who answered.
    pub(super) pod: Option<String>,
}

/// What its request is held against.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Evidence<'a> {
    /// The workload's pods, if they are watched.
    pub(super) pods: Option<&'a Pods>,
    /// Wakes that answers of the same workload told of, in the order in which their pods began.
    pub(super) told: &'a [Told<'a>],
}

/// Decides.
pub(super) fn find(observed: &Observed, evidence: Evidence<'_>) -> Finding {
    let served_by = observed.served_by.as_deref();
    let finding = |kind, reason: String| Finding {
        kind,
        reason,
        pod: served_by.map(str::to_owned),
    };
    if let Some(error) = observed.error {
        return finding(Kind::Failed, format!("it failed: {}", error.name()));
    }
    let (Some(sent), Some(head)) = (observed.sent, observed.head) else {
        return finding(Kind::Failed, "it had no answer".to_owned());
    };
    if observed.before == Before::Warm {
        return finding(Kind::Warm, "it was for what is to be warm".to_owned());
    }
    let by_pods = evidence
        .pods
        .and_then(|pods| by_pods(observed, pods, sent, head));
    let by_wakes = by_wakes(observed, evidence.told, head);
    let found = match (by_pods, by_wakes) {
        (Some(found), _) => found,
        (None, Some((kind, reason))) => finding(kind, reason),
        (None, None) => finding(
            Kind::Unproven,
            "nothing tells when the pod that answered began".to_owned(),
        ),
    };
    let has_pulled = found.kind == Kind::Cold
        && evidence.pods.is_some_and(|pods| {
            let mut could = candidates(observed, pods, sent, head);
            could.any(|(_, pod)| pod.pulled.is_some())
        });
    if has_pulled {
        return Finding {
            kind: Kind::FirstOnNode,
            reason: found.reason + ", and its node had to pull an image",
            ..found
        };
    }
    found
}

/// By what answers tell of wakes.
fn by_wakes(observed: &Observed, told: &[Told<'_>], head: Duration) -> Option<(Kind, String)> {
    let timing = observed.timing.as_ref();
    let after = |began: Duration| human(began.saturating_sub(observed.planned).as_secs_f64());
    if let Some(own) = Told::by(observed) {
        let (kind, reason) = if own.began > observed.planned {
            let after = after(own.began);
            let reason =
                format!("its answer tells of a pod that began {after} after it was planned");
            (Kind::Cold, reason)
        } else {
            let reason = "its answer tells of a pod that had begun before it was planned";
            (Kind::Joined, reason.to_owned())
        };
        return Some((kind, reason));
    }
    let waited = timing.and_then(|timing| timing.held)?;
    if waited < NO_WAIT {
        return Some((Kind::Warm, "it was not held".to_owned()));
    }
    if let Some(wake) = explaining(told, observed.planned, head) {
        let after = after(wake.began);
        let reason = format!(
            "the answer of another request tells that the first pod began {after} after this one was planned"
        );
        return Some((Kind::Cold, reason));
    }
    let is_during =
        |wake: &&Told<'_>| wake.began <= observed.planned && observed.planned < wake.ready;
    told.iter().rev().find(is_during).map(|_| {
        let reason = "the answer of another request tells of a pod that had begun before";
        (Kind::Joined, reason.to_owned())
    })
}

/// Pods that may have answered: the one that says so, or all that could have.
fn candidates<'a>(
    observed: &'a Observed,
    pods: &'a Pods,
    sent: Duration,
    head: Duration,
) -> Box<dyn Iterator<Item = (&'a String, &'a Pod)> + 'a> {
    let named = observed.served_by.as_ref();
    match named.and_then(|name| pods.0.get_key_value(name)) {
        Some(pod) => Box::new(std::iter::once(pod)),
        None => Box::new(pods.could_answer(sent, head)),
    }
}

/// By what the API server told of the pods; none if that decides nothing.
fn by_pods(observed: &Observed, pods: &Pods, sent: Duration, head: Duration) -> Option<Finding> {
    let could: Vec<_> = candidates(observed, pods, sent, head).collect();
    // Who of several answered is not known: what was made first is what it waited for.
    let (name, first) = could.iter().min_by_key(|(_, pod)| pod.origin)?;
    let margin = match observed.before {
        Before::Zero => Duration::ZERO,
        Before::Warm | Before::Unknown => WATCH_LAG,
    };
    let is_after = |pod: &Pod| {
        pod.created()
            .is_some_and(|created| created > observed.planned + margin)
    };
    let is_before = |pod: &Pod| match pod.origin {
        Origin::There => true,
        Origin::Made(at) => at <= observed.planned,
        Origin::Found(_) => false,
    };
    let is_ready = |pod: &Pod| pod.ready.is_some_and(|ready| ready <= observed.planned);
    let all = |is: &dyn Fn(&Pod) -> bool| could.iter().all(|(_, pod)| is(pod));
    let (kind, reason) = if all(&is_after) {
        let after = first
            .created()
            .unwrap_or_default()
            .saturating_sub(observed.planned);
        let after = human(after.as_secs_f64());
        (
            Kind::Cold,
            format!("pod {name} was made {after} after it was planned"),
        )
    } else if all(&is_ready) {
        (Kind::Warm, format!("pod {name} was ready before"))
    } else if all(&is_before) {
        (
            Kind::Joined,
            format!("pod {name} had been made, and was not ready"),
        )
    } else {
        return None;
    };
    Some(Finding {
        kind,
        reason,
        pod: (could.len() == 1).then(|| (*name).clone()),
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
            before,
            planned: MS(10_000),
            begun: MS(10_000),
            sent: Some(MS(10_001)),
            head: Some(MS(12_000)),
            done: MS(12_001),
            status: Some(200),
            ..Observed::default()
        }
    }

    fn with_timing(before: Before, header: &str) -> Observed {
        Observed {
            timing: Timing::parse(header),
            ..observed(before)
        }
    }

    /// A workload with pods that were made at these moments, or were there, and ready since then, if they are.
    fn pods(made: &[(Option<u64>, bool)]) -> Pods {
        let mut pods = Pods::default();
        for (number, (made, is_ready)) in made.iter().enumerate() {
            let origin = made.map_or(Origin::There, |at| Origin::Made(MS(at)));
            let look = Look {
                is_ready: *is_ready,
                ..Look::default()
            };
            let at = MS(made.unwrap_or_default());
            pods.look(&number.to_string(), look, at, origin);
        }
        pods
    }

    fn kind(observed: &Observed, pods: Option<&Pods>) -> Kind {
        find(observed, Evidence { pods, told: &[] }).kind
    }

    #[test]
    fn a_pod_that_was_made_after_the_request_is_proof() {
        let zero = observed(Before::Zero);
        let kind_of = |made: &[(Option<u64>, bool)]| kind(&zero, Some(&pods(made)));
        assert_eq!(kind_of(&[(Some(10_100), true)]), Kind::Cold);
        let two = [(Some(11_000), true), (Some(10_100), true)];
        let finding = find(
            &zero,
            Evidence {
                pods: Some(&pods(&two)),
                told: &[],
            },
        );
        assert_eq!(finding.kind, Kind::Cold);
        assert!(
            finding.reason.starts_with("pod 1 was made 100"),
            "{finding:?}"
        );
        // One that came later cannot have answered.
        assert_eq!(
            kind_of(&[(Some(10_100), true), (Some(13_000), true)]),
            Kind::Cold
        );
        assert_eq!(kind_of(&[(None, true)]), Kind::Warm);
        assert_eq!(kind_of(&[(Some(9_000), true)]), Kind::Warm);
        // It was on its way.
        assert_eq!(kind_of(&[(Some(9_000), false)]), Kind::Joined);
        // Either may have answered, unless one says so.
        let both = pods(&[(None, true), (Some(10_600), true)]);
        assert_eq!(kind(&zero, Some(&both)), Kind::Unproven);
        let named = |name: &str| Observed {
            served_by: Some(name.to_owned()),
            ..zero.clone()
        };
        assert_eq!(kind(&named("1"), Some(&both)), Kind::Cold);
        assert_eq!(kind(&named("0"), Some(&both)), Kind::Warm);
        assert_eq!(kind_of(&[]), Kind::Unproven);
    }

    #[test]
    fn what_a_watch_that_lags_tells_is_no_proof() {
        let unknown = observed(Before::Unknown);
        let soon = pods(&[(Some(10_100), true)]);
        assert_eq!(kind(&unknown, Some(&soon)), Kind::Unproven);
        let later = pods(&[(Some(10_600), true)]);
        assert_eq!(kind(&unknown, Some(&later)), Kind::Cold);
        // Nor what one that had been interrupted found.
        let mut found = Pods::default();
        found.look("a", Look::default(), MS(11_000), Origin::Found(MS(11_000)));
        assert_eq!(kind(&observed(Before::Zero), Some(&found)), Kind::Unproven);
    }

    #[test]
    fn the_first_of_a_node_is_told_apart_whatever_the_proof() {
        let mut one = pods(&[(Some(10_100), true)]);
        one.pulled("0", MS(11_000));
        assert_eq!(kind(&observed(Before::Zero), Some(&one)), Kind::FirstOnNode);
        let own = with_timing(
            Before::Unknown,
            "hold;dur=1, pod_created;dur=2, forwarded;dur=1, first_byte;dur=3",
        );
        assert_eq!(kind(&own, Some(&one)), Kind::FirstOnNode);
    }

    #[test]
    fn an_answer_s_own_timeline_is_proof_if_its_pod_began_later() {
        let of = |header: &str| kind(&with_timing(Before::Unknown, header), None);
        let wake = "hold;dur=1900, pod_created;dur=2, model_ready;dur=1890, forwarded;dur=1900, first_byte;dur=1990";
        assert_eq!(of(wake), Kind::Cold);
        // Others had woken it: it arrived 500 ms after that was noticed.
        let late = "hold;dur=1400, pod_created;dur=2, model_ready;dur=1890, forwarded;dur=1900, first_byte;dur=1990";
        assert_eq!(of(late), Kind::Joined);
        // When an activator saw a pod says nothing of when it was made.
        let seen = "hold;dur=1900, pod_seen;dur=2, forwarded;dur=1900, first_byte;dur=1990";
        assert_eq!(of(seen), Kind::Unproven);
        assert_eq!(of("hold;dur=0.02"), Kind::Warm);
        for nothing in ["hold;dur=1900", "queue;dur=0.02", "x;dur=1"] {
            assert_eq!(of(nothing), Kind::Unproven, "{nothing}");
        }
    }

    #[test]
    fn others_of_a_storm_are_cold_by_the_one_that_tells() {
        let wake = "hold;dur=1900, pod_created;dur=2, model_ready;dur=1890, forwarded;dur=1900, first_byte;dur=1990";
        let teller = with_timing(Before::Zero, wake);
        let told = [Told::by(&teller).unwrap()];
        assert_eq!((told[0].began, told[0].ready), (MS(10_003), MS(11_891)));
        let kind = |one: &Observed| {
            find(
                one,
                Evidence {
                    pods: None,
                    told: &told,
                },
            )
            .kind
        };
        let held = with_timing(Before::Unknown, "hold;dur=1950");
        assert_eq!(kind(&held), Kind::Cold);
        // Planned after that pod had begun.
        let later = Observed {
            planned: MS(10_020),
            ..held.clone()
        };
        assert_eq!(kind(&later), Kind::Joined);
        // Answered before that pod was ready.
        let earlier = Observed {
            head: Some(MS(11_000)),
            ..held
        };
        assert_eq!(kind(&earlier), Kind::Unproven);
    }

    #[test]
    fn what_failed_is_neither_cold_nor_warm() {
        let failed = Observed {
            error: Some(ErrorKind::Connect),
            ..observed(Before::Zero)
        };
        let finding = find(&failed, Evidence::default());
        assert_eq!(finding.kind, Kind::Failed);
        assert!(finding.reason.contains("connect"), "{}", finding.reason);
    }
}
