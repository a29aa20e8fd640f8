//! Why a workload cannot start, found out before its clients lose patience.

use std::{sync::Arc, time::Duration};

use ::kubernetes::{PodView, Trouble, WorkloadView};
use tokio::time::Instant;

use crate::{Barred, Failed};

/// How long a workload that failed is not tried again: at first, and at most. The kubelet's own back-off of a crashing
/// container.
const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_mins(5);

/// A failed pull may be an accident of the network, so it is given one more chance by the kubelet, which says
/// [`AGAIN`] if that fails too, some 10 s later. After that the kubelet alternates between the two.
const MAY_PASS: &str = "ErrImagePull";
const AGAIN: &str = "ImagePullBackOff";

/// Why nobody is held for a workload that has nothing to be waited for, whatever it has tried before.
pub(super) fn barred(view: Option<&WorkloadView>, pods: &[Arc<PodView>]) -> Option<Barred> {
    match view {
        Some(view) if view.paused && view.replicas == 0 => Some(Barred::Paused),
        Some(view) if !view.terminating => None,
        // It is being opted out or deleted. What its pods can still take they get.
        _ if pods.iter().any(|pod| !pod.terminating) => None,
        _ => Some(Barred::Absent),
    }
}

/// What keeps a workload from starting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cause {
    /// Kubernetes' word, which clients are told.
    pub(super) reason: String,
    /// What Kubernetes says with it, in one line. It may name images, quotas and more: not for clients.
    pub(super) message: String,
    /// There is a pod, and it is in trouble. Otherwise not even one could be made.
    made: bool,
}

/// Why not even a pod can be made, although some are wanted and there is none.
pub(super) fn refused_creation(view: &WorkloadView, pods: &[Arc<PodView>]) -> Option<Cause> {
    if view.replicas == 0 || pods.iter().any(|pod| !pod.terminating) {
        return None;
    }
    let failure = view.failure.as_ref()?;
    let (reason, message) = failure.split_once(':').unwrap_or((failure, ""));
    Some(Cause {
        reason: one_line(reason),
        message: one_line(message),
        made: false,
    })
}

/// What is wrong with a workload now, if anything.
///
/// As long as a pod is ready or on its way there is something to wait for. `now` and `patience` are in seconds, `now` since
/// 1970. `failing`: it has failed before and nothing has become better since.
fn cause(
    view: &WorkloadView,
    pods: &[Arc<PodView>],
    patience: i64,
    now: i64,
    failing: bool,
) -> Option<Cause> {
    let staying = || pods.iter().filter(|pod| !pod.terminating);
    if staying().any(|pod| pod.ready || pod.starting) {
        return None;
    }
    // What the pods of an older template suffer from says nothing about the newest one.
    let Some(newest) = staying().max_by_key(|pod| pod.created) else {
        return refused_creation(view, pods);
    };
    let lasts = |trouble: &Trouble| {
        if trouble.is_unschedulable() {
            let waited = |since| now.saturating_sub(since) >= patience;
            trouble.since.is_some_and(waited)
        } else {
            failing || trouble.reason != MAY_PASS
        }
    };
    let mut found = None;
    for pod in staying().filter(|pod| pod.template == newest.template) {
        // One that lost its readiness without further trouble may get it back.
        let trouble = pod.trouble.as_ref().filter(|trouble| lasts(trouble))?;
        let reason = match trouble.reason.as_str() {
            MAY_PASS => AGAIN,
            reason => reason,
        };
        found.get_or_insert_with(|| Cause {
            reason: reason.to_owned(),
            message: one_line(&format!("pod {}: {}", pod.name, trouble.message)),
            made: true,
        });
    }
    found
}

/// The trouble of a workload over time.
#[derive(Debug, Default)]
pub(super) struct Failing {
    failed: Option<Failed>,
    strikes: u32,
    template: u64,
    /// Why no pod can be made, if that was told: it is told again and again and has begun once.
    unmade: Option<String>,
}

impl Failing {
    /// What is to be told now, and the cause if it has just begun.
    ///
    /// A failure is told as long as it can be seen. If it cannot be seen because no pod is left and none is wanted, it is told
    /// for a pause that grows with every failure: that is the back-off between wakes. Another template or a pod that is
    /// ready makes all forgotten.
    ///
    /// If not even a pod can be made, it is tried again with nudges ([`super::nudge::Nudging`]), so the pauses are theirs: it is
    /// told until `rests`, and not told while a try is under way.
    pub(super) fn observe(
        &mut self,
        view: Option<&WorkloadView>,
        pods: &[Arc<PodView>],
        patience: i64,
        rests: Option<Instant>,
        (unix, now): (i64, Instant),
    ) -> (Option<Failed>, Option<Cause>) {
        let Some(view) = view else {
            *self = Self::default();
            return (None, None);
        };
        let ready = pods.iter().any(|pod| pod.ready && !pod.terminating);
        if ready || view.template != self.template {
            *self = Self {
                template: view.template,
                ..Self::default()
            };
        }
        let mut begun = None;
        let over = |failed: &Failed| failed.retry_at <= now;
        let cause = cause(view, pods, patience, unix, self.failed.is_some());
        if let Some(cause) = cause.as_ref().filter(|cause| !cause.made) {
            self.failed = rests.map(|retry_at| Failed {
                reason: cause.reason.clone(),
                detail: String::new(),
                retry_at,
            });
            let known = self.unmade.replace(cause.reason.clone());
            let news = known.as_ref() != Some(&cause.reason);
            return (self.failed.clone(), news.then(|| cause.clone()));
        }
        self.unmade = None;
        if let Some(cause) = cause {
            let known = self.failed.as_ref();
            let another = known.is_none_or(|failed| failed.reason != cause.reason);
            if known.is_none() {
                self.strikes = self.strikes.saturating_add(1);
            }
            if another || known.is_some_and(over) {
                self.failed = Some(Failed {
                    reason: cause.reason.clone(),
                    detail: String::new(),
                    retry_at: now + pause(self.strikes),
                });
            }
            begun = another.then_some(cause);
        } else if view.replicas > 0 || self.failed.as_ref().is_some_and(over) {
            // Another attempt is under way, or due.
            self.failed = None;
        }
        (self.failed.clone(), begun)
    }
}

/// How long after the n-th failure in a row.
fn pause(strikes: u32) -> Duration {
    let doubled = FIRST * 2_u32.saturating_pow(strikes.saturating_sub(1).min(8));
    doubled.min(LONGEST)
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Workloads and pods for tests.
#[cfg(test)]
pub(super) mod testing {
    use serde_json::json;

    use super::*;

    pub(crate) fn view(change: impl FnOnce(&mut WorkloadView)) -> WorkloadView {
        let object = json!({
            "metadata": {"namespace": "n", "name": "m", "uid": "u", "labels": {"rouse.dev/enabled": "true"}},
            "spec": {"replicas": 1, "selector": {}, "template": {"spec": {"containers": []}}},
        });
        let mut view = WorkloadView::of(&serde_json::from_value(object).unwrap()).unwrap();
        change(&mut view);
        view
    }

    pub(crate) fn pod(reason: Option<&str>, change: impl FnOnce(&mut PodView)) -> Arc<PodView> {
        let mut pod = PodView {
            name: "m-1".into(),
            uid: "u".into(),
            target: "n/m".parse().unwrap(),
            ip: None,
            upstreams: vec![8080],
            template: Some("a".into()),
            ready: false,
            starting: reason.is_none(),
            terminating: false,
            trouble: reason.map(|reason| Trouble {
                reason: reason.to_owned(),
                message: "said\n so".to_owned(),
                since: Some(1_000),
            }),
            created: Some(1),
            scheduled: None,
            started: None,
            began: None,
            prepared: None,
            ready_since: None,
        };
        change(&mut pod);
        Arc::new(pod)
    }

    /// One that is refused its pods.
    pub(crate) fn quota(replicas: u32) -> WorkloadView {
        view(|view| {
            view.failure = Some("FailedCreate: exceeded\n quota: pods".into());
            view.replicas = replicas;
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{testing::*, *};

    const PATIENCE: i64 = 120;

    fn found(view: &WorkloadView, pods: &[Arc<PodView>], now: i64) -> Option<String> {
        cause(view, pods, PATIENCE, now, false).map(|cause| cause.reason)
    }

    #[test]
    fn only_what_lasts_is_trouble() {
        let awake = view(|_| {});
        for (reason, after, lasts) in [
            ("ImagePullBackOff", 0, true),
            ("ErrImageNeverPull", 0, true),
            ("InvalidImageName", 0, true),
            ("CrashLoopBackOff", 0, true),
            ("CreateContainerError", 0, true),
            ("CreateContainerConfigError", 0, true),
            ("RunContainerError", 0, true),
            // The kubelet tries once more.
            ("ErrImagePull", 1_000, false),
            // A node may be on its way.
            ("Unschedulable", PATIENCE - 1, false),
            ("Unschedulable", PATIENCE, true),
        ] {
            let seen = found(&awake, &[pod(Some(reason), |_| {})], 1_000 + after);
            assert_eq!(seen.as_deref(), lasts.then_some(reason));
        }
        let again = [pod(Some("ErrImagePull"), |_| {})];
        let seen = cause(&awake, &again, PATIENCE, 0, true).unwrap();
        assert_eq!(seen.reason, AGAIN);
        assert_eq!(seen.message, "pod m-1: said so");
    }

    #[test]
    fn one_pod_that_may_come_is_enough() {
        let awake = view(|_| {});
        let bad = || pod(Some("CrashLoopBackOff"), |_| {});
        let with = |other| found(&awake, &[bad(), other], 0).is_some();
        assert!(!with(pod(None, |_| {})), "starting");
        assert!(!with(pod(None, |p| (p.ready, p.starting) = (true, false))));
        assert!(!with(pod(None, |p| p.starting = false)), "may recover");
        assert!(with(pod(None, |p| p.terminating = true)), "is going");
        let of = |template: &'static str, created, trouble| {
            pod(trouble, |p| {
                (p.template, p.created) = (Some(template.into()), Some(created));
            })
        };
        let unready = |template, created| {
            let mut pod = (*of(template, created, None)).clone();
            pod.starting = false;
            Arc::new(pod)
        };
        assert!(!with(unready("b", 2)), "of the newer template");
        assert!(with(unready("z", 0)), "of an older one, and not starting");
        assert!(!with(of("z", 0, None)), "of an older one, and starting");
    }

    #[test]
    fn a_refused_pod_is_trouble_while_one_is_wanted() {
        let seen = cause(&quota(1), &[], PATIENCE, 0, false).unwrap();
        assert_eq!(
            (seen.reason.as_str(), seen.message.as_str()),
            ("FailedCreate", "exceeded quota: pods")
        );
        assert_eq!(found(&quota(0), &[], 0), None);
        assert_eq!(found(&quota(1), &[pod(None, |_| {})], 0), None, "one came");
    }

    #[test]
    fn who_has_nothing_to_wait_for_is_told_so() {
        let paused = |replicas| view(|view| (view.paused, view.replicas) = (true, replicas));
        let going = view(|view| view.terminating = true);
        let staying = [pod(None, |_| {})];
        let leaving = [pod(None, |p| p.terminating = true)];
        for (view, pods, bar) in [
            (Some(&view(|_| {})), &[][..], None),
            (Some(&paused(0)), &[][..], Some(Barred::Paused)),
            (Some(&paused(1)), &[][..], None),
            (Some(&going), &leaving[..], Some(Barred::Absent)),
            (Some(&going), &staying[..], None),
            (None, &staying[..], None),
            (None, &[][..], Some(Barred::Absent)),
        ] {
            assert_eq!(barred(view, pods), bar, "{view:?} {pods:?}");
        }
    }

    struct Bed {
        failing: Failing,
        now: Instant,
    }

    impl Bed {
        fn new() -> Self {
            Self {
                failing: Failing::default(),
                now: Instant::now(),
            }
        }

        /// The pause that is told, in seconds, and whether a failure has begun.
        fn see(&mut self, view: &WorkloadView, pods: &[Arc<PodView>]) -> (Option<u64>, bool) {
            self.see_until(view, pods, None)
        }

        fn see_until(
            &mut self,
            view: &WorkloadView,
            pods: &[Arc<PodView>],
            rests: Option<Instant>,
        ) -> (Option<u64>, bool) {
            let (failed, begun) =
                self.failing
                    .observe(Some(view), pods, PATIENCE, rests, (0, self.now));
            let pause = failed.map(|failed| (failed.retry_at - self.now).as_secs());
            (pause, begun.is_some())
        }

        fn pass(&mut self, seconds: u64) {
            self.now += Duration::from_secs(seconds);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_whose_pods_are_gone_is_told_for_a_pause_that_grows() {
        let (awake, asleep) = (view(|_| {}), view(|view| view.replicas = 0));
        let bad = [pod(Some("CrashLoopBackOff"), |_| {})];
        let mut bed = Bed::new();
        for pause in [10, 20, 40, 80, 160, 300, 300] {
            assert_eq!(bed.see(&awake, &bad), (Some(pause), true));
            bed.pass(pause - 1);
            assert_eq!(bed.see(&asleep, &[]), (Some(1), false), "not woken at once");
            bed.pass(1);
            assert_eq!(bed.see(&asleep, &[]), (None, false));
            assert_eq!(bed.see(&awake, &[pod(None, |_| {})]), (None, false));
        }
        let ready = [pod(None, |p| (p.ready, p.starting) = (true, false))];
        assert_eq!(bed.see(&awake, &ready), (None, false));
        assert_eq!(
            bed.see(&awake, &bad),
            (Some(10), true),
            "it made up for all"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_mended_is_tried_at_once() {
        let (awake, asleep) = (view(|_| {}), view(|view| view.replicas = 0));
        let bad = [pod(Some("ImagePullBackOff"), |_| {})];
        let mut bed = Bed::new();
        bed.see(&awake, &bad);
        assert_eq!(bed.see(&asleep, &[]), (Some(10), false));
        let mended = view(|view| (view.replicas, view.template) = (0, 7));
        assert_eq!(bed.see(&mended, &[]), (None, false));
        // A quota that was raised: the condition goes before the pod comes.
        let rests = Some(bed.now + Duration::from_secs(4));
        assert_eq!(bed.see_until(&quota(1), &[], rests), (Some(4), true));
        assert_eq!(bed.see(&awake, &[]), (None, false));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_creation_is_told_between_tries_and_has_begun_once() {
        let mut bed = Bed::new();
        assert_eq!(bed.see(&quota(1), &[]), (None, true), "it is tried");
        for rest in [1, 2, 4] {
            let until = Some(bed.now + Duration::from_secs(rest));
            assert_eq!(bed.see_until(&quota(1), &[], until), (Some(rest), false));
            bed.pass(rest);
            assert_eq!(bed.see(&quota(1), &[]), (None, false), "it is tried");
        }
        // It goes to sleep meanwhile: nobody wakes it before the pause is over.
        let until = Some(bed.now + Duration::from_secs(8));
        assert_eq!(bed.see_until(&quota(1), &[], until), (Some(8), false));
        assert_eq!(bed.see(&quota(0), &[]), (Some(8), false));
        bed.pass(8);
        assert_eq!(bed.see(&quota(0), &[]), (None, false));
        assert_eq!(bed.see(&quota(1), &[]), (None, true), "anew");
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_that_lasts_goes_on_being_told_and_has_begun_once() {
        let awake = view(|_| {});
        let mut bed = Bed::new();
        let mut begun = 0;
        for second in 0..60 {
            // As the kubelet alternates.
            let reason = if second % 5 == 3 {
                "ErrImagePull"
            } else {
                "ImagePullBackOff"
            };
            let (pause, new) = bed.see(&awake, &[pod(Some(reason), |_| {})]);
            assert!(pause.is_some_and(|pause| pause <= 10), "{second}");
            begun += u32::from(new);
            bed.pass(1);
        }
        assert_eq!(begun, 1);
    }
}
