//! Why a workload cannot start, found out before its clients lose patience.

use std::{sync::Arc, time::Duration};

use ::kubernetes::{PodView, Trouble, WorkloadView};
use tokio::time::Instant;

use crate::Failed;

/// How long a workload that failed is not tried again: at first, and at most. The kubelet's own back-off of a crashing
/// container.
const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_mins(5);

/// A failed pull may be an accident of the network, so it is given one more chance by the kubelet, which says
/// `ImagePullBackOff` if that fails too.
const MAY_PASS: &str = "ErrImagePull";

/// What is wrong with a workload now, if anything: a reason and what Kubernetes says with it.
///
/// As long as a pod is ready or on its way there is something to wait for. `now` and `patience` are in seconds, `now` since
/// 1970.
fn trouble(
    view: Option<&WorkloadView>,
    pods: &[Arc<PodView>],
    patience: i64,
    now: i64,
) -> Option<(String, String)> {
    let Some(view) = view else {
        let reason = "there is no such Deployment, or it is not enabled any more";
        return Some((reason.to_owned(), String::new()));
    };
    if view.paused && view.replicas == 0 {
        let reason = "it is paused at 0 replicas (annotation rouse.dev/paused)";
        return Some((reason.to_owned(), String::new()));
    }
    let mut staying: Vec<_> = pods.iter().filter(|pod| !pod.terminating).collect();
    if staying.iter().any(|pod| pod.ready) {
        return None;
    }
    // What the pods of an older template suffer from says nothing about the newest one.
    let newest = staying
        .iter()
        .max_by_key(|pod| pod.created)
        .map(|pod| pod.template.clone());
    staying.retain(|pod| Some(&pod.template) == newest.as_ref());
    if staying.is_empty() {
        let failure = view.failure.as_ref().filter(|_| view.replicas > 0)?;
        return Some((
            format!("no pod can be made: {}", one_line(failure)),
            String::new(),
        ));
    }
    let lasts = |trouble: &Trouble| {
        if trouble.is_unschedulable() {
            trouble
                .since
                .is_some_and(|since| now.saturating_sub(since) >= patience)
        } else {
            trouble.reason != MAY_PASS
        }
    };
    let mut found = None;
    for pod in staying {
        match &pod.trouble {
            Some(trouble) if lasts(trouble) => {
                found.get_or_insert_with(|| {
                    (
                        format!("pod {}: {}", pod.name, trouble.reason),
                        trouble.message.clone(),
                    )
                });
            }
            // This one may still come.
            _ => return None,
        }
    }
    found
}

/// The trouble of a workload over time.
#[derive(Debug, Default)]
pub(super) struct Failing {
    failed: Option<Failed>,
    strikes: u32,
}

impl Failing {
    /// What is to be told now. A failure is told until it is over and, if no pod is left to show that, for its pause.
    pub(super) fn observe(
        &mut self,
        view: Option<&WorkloadView>,
        pods: &[Arc<PodView>],
        patience: i64,
        unix: i64,
        now: Instant,
    ) -> Option<Failed> {
        if pods.iter().any(|pod| pod.ready && !pod.terminating) {
            *self = Self::default();
            return None;
        }
        if let Some((reason, detail)) = trouble(view, pods, patience, unix) {
            let running_out = |failed: &Failed| failed.retry_at <= now;
            if self.failed.as_ref().is_none_or(running_out) {
                if self.failed.is_none() {
                    self.strikes = self.strikes.saturating_add(1);
                    tracing::warn!(reason, detail, "Workload cannot start");
                }
                let pause = FIRST * 2_u32.saturating_pow(self.strikes.saturating_sub(1).min(5));
                self.failed = Some(Failed {
                    reason: one_line(&reason),
                    detail,
                    retry_at: now + pause.min(LONGEST),
                });
            }
        } else if pods.iter().any(|pod| !pod.terminating)
            || self
                .failed
                .as_ref()
                .is_some_and(|failed| failed.retry_at <= now)
        {
            // Another attempt is under way, or due.
            self.failed = None;
        }
        self.failed.clone()
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const PATIENCE: i64 = 120;

    fn view(change: impl FnOnce(&mut WorkloadView)) -> WorkloadView {
        let object = json!({
            "metadata": {"namespace": "n", "name": "m", "uid": "u", "labels": {"rouse.dev/enabled": "true"}},
            "spec": {"replicas": 1, "selector": {}, "template": {"spec": {"containers": []}}},
        });
        let mut view = WorkloadView::of(&serde_json::from_value(object).unwrap()).unwrap();
        change(&mut view);
        view
    }

    fn pod(reason: Option<&str>, change: impl FnOnce(&mut PodView)) -> Arc<PodView> {
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
                message: "said".to_owned(),
                since: Some(1_000),
            }),
            created: Some(1),
            scheduled: None,
            started: None,
        };
        change(&mut pod);
        Arc::new(pod)
    }

    fn found(view: &WorkloadView, pods: &[Arc<PodView>], now: i64) -> Option<String> {
        trouble(Some(view), pods, PATIENCE, now).map(|(reason, _)| reason)
    }

    #[test]
    fn only_what_lasts_is_trouble() {
        let awake = view(|_| {});
        let stuck = |reason| found(&awake, &[pod(Some(reason), |_| {})], 1_001);
        assert_eq!(
            stuck("ImagePullBackOff").as_deref(),
            Some("pod m-1: ImagePullBackOff")
        );
        assert!(stuck("CrashLoopBackOff").is_some() && stuck("ErrImageNeverPull").is_some());
        assert_eq!(stuck("ErrImagePull"), None, "the kubelet tries once more");
        assert_eq!(stuck("Unschedulable"), None, "a node may be on its way");
        let late = found(
            &awake,
            &[pod(Some("Unschedulable"), |_| {})],
            1_000 + PATIENCE,
        );
        assert!(late.is_some());
    }

    #[test]
    fn one_pod_that_may_come_is_enough() {
        let awake = view(|_| {});
        let bad = || pod(Some("CrashLoopBackOff"), |_| {});
        assert_eq!(found(&awake, &[bad(), pod(None, |_| {})], 0), None);
        assert_eq!(
            found(&awake, &[bad(), pod(None, |p| p.ready = true)], 0),
            None
        );
        assert!(found(&awake, &[bad(), pod(None, |p| p.terminating = true)], 0).is_some());
        let mended = pod(None, |p| {
            (p.template, p.created) = (Some("b".into()), Some(2));
        });
        assert_eq!(
            found(&awake, &[bad(), mended], 0),
            None,
            "of the newer template"
        );
        let old = pod(None, |p| {
            (p.template, p.created) = (Some("z".into()), Some(0));
        });
        assert!(found(&awake, &[bad(), old], 0).is_some(), "of an older one");
    }

    #[test]
    fn what_no_pod_can_show_is_found_too() {
        assert!(trouble(None, &[], PATIENCE, 0).is_some());
        let quota = view(|view| view.failure = Some("FailedCreate:\n exceeded quota".into()));
        let said = found(&quota, &[], 0).unwrap();
        assert_eq!(said, "no pod can be made: FailedCreate: exceeded quota");
        let paused = |replicas| view(|view| (view.paused, view.replicas) = (true, replicas));
        assert!(found(&paused(0), &[], 0).unwrap().contains("paused"));
        assert_eq!(found(&paused(1), &[], 0), None);
        assert_eq!(found(&view(|_| {}), &[], 0), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_without_pods_is_told_for_its_pause_and_pauses_grow() {
        let (awake, asleep) = (view(|_| {}), view(|view| view.replicas = 0));
        let bad = [pod(Some("CrashLoopBackOff"), |_| {})];
        let mut failing = Failing::default();
        let now = Instant::now();
        let first = failing
            .observe(Some(&awake), &bad, PATIENCE, 0, now)
            .unwrap();
        assert_eq!(first.retry_at, now + FIRST);
        // Its pods are gone, and it sleeps: not woken again at once.
        let mut later = now + Duration::from_secs(5);
        assert!(
            failing
                .observe(Some(&asleep), &[], PATIENCE, 0, later)
                .is_some()
        );
        later = now + FIRST;
        assert!(
            failing
                .observe(Some(&asleep), &[], PATIENCE, 0, later)
                .is_none()
        );
        let second = failing
            .observe(Some(&awake), &bad, PATIENCE, 0, later)
            .unwrap();
        assert_eq!(second.retry_at, later + FIRST * 2);
        // A pod that runs again is an attempt; one that is ready makes up for everything.
        assert!(
            failing
                .observe(Some(&awake), &[pod(None, |_| {})], PATIENCE, 0, later)
                .is_none()
        );
        let ready = [pod(None, |p| p.ready = true)];
        assert!(
            failing
                .observe(Some(&awake), &ready, PATIENCE, 0, later)
                .is_none()
        );
        let third = failing
            .observe(Some(&awake), &bad, PATIENCE, 0, later)
            .unwrap();
        assert_eq!(third.retry_at, later + FIRST);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_that_lasts_goes_on_being_told() {
        let awake = view(|_| {});
        let bad = [pod(Some("ImagePullBackOff"), |_| {})];
        let mut failing = Failing::default();
        let mut now = Instant::now();
        for _ in 0..60 {
            let failed = failing
                .observe(Some(&awake), &bad, PATIENCE, 0, now)
                .unwrap();
            assert!(failed.retry_at > now && failed.retry_at <= now + FIRST);
            now += Duration::from_secs(1);
        }
    }
}
