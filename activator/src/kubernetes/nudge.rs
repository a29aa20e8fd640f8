//! Nudging `ReplicaSet`s that could not make a pod.
//!
//! A creation that is refused (the webhook is away, a quota is used up) is tried again by the `ReplicaSet` controller after 5 ms,
//! doubled each time up to 1000 s (`DefaultTypedControllerRateLimiter` of `client-go/util/workqueue`), however soon the cause is gone.
//! A change of the `ReplicaSet` makes it try at once (`updateRS` of `pkg/controller/replicaset`). So while requests ask for a
//! workload that is in this state, an annotation on its newest `ReplicaSet` is changed, less and less often, and those who ask are
//! held for a moment, to see whether a pod comes; in between they are refused at once.
//!
//! The annotation is written through `/status`, which leaves `spec` as it is (`rsStatusStrategy` of `pkg/registry/apps/replicaset`): the
//! activator has no right to change which pods are made. If two activators nudge, the controller tries twice, which does no
//! harm: it makes as many pods as are wanted, and no more.

use std::{sync::Arc, time::Duration};

use ::kubernetes::{PodView, WorkloadView, names};
use futures_util::{StreamExt as _, stream::unfold};
use k8s_openapi::{
    api::apps::v1::ReplicaSet, apimachinery::pkg::apis::meta::v1::OwnerReference, jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;
use shared::TargetId;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

use super::failing::refused_creation;

/// How long a try may take to show a pod: a patch, a sync of the controller, a webhook and a watch.
const TRIAL: Duration = Duration::from_secs(3);
/// How long those who ask are refused after a try in vain: at first, and at most.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

/// Nudges that wait to be written. One that finds no place is made up for after the next pause.
const WAITING: usize = 256;
/// Writes under way.
const AT_ONCE: usize = 4;
/// Limit on one: a list and a patch.
const WRITE_LIMIT: Duration = Duration::from_secs(5);

/// When one workload is to be nudged. Pure.
#[derive(Debug, Default)]
pub(super) struct Nudging {
    phase: Phase,
    /// Tries in vain, since a pod was seen or the template changed.
    vain: u32,
    template: u64,
    /// Somebody has asked in the present phase.
    asked: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// Not stuck as far as is known, or nobody has asked: the next who asks starts a try.
    #[default]
    Open,
    /// Nudged: who asks is held.
    Trying(Instant),
    /// It was in vain: who asks is refused.
    Resting(Instant),
}

impl Nudging {
    /// Takes note; returns whether to nudge now. `asked`: something is held, or was refused since the last look. `freed`: a
    /// cause has just gone, so that a try is worth it although nobody asks and whatever was tried before.
    pub(super) fn observe(
        &mut self,
        view: Option<&WorkloadView>,
        pods: &[Arc<PodView>],
        (asked, freed): (bool, bool),
        now: Instant,
    ) -> bool {
        let template = view.map_or(0, |view| view.template);
        let made = pods.iter().any(|pod| !pod.terminating);
        if made || template != self.template {
            self.vain = 0;
        }
        self.template = template;
        if view.is_none_or(|view| refused_creation(view, pods).is_none()) {
            (self.phase, self.asked) = (Phase::Open, false);
            return false;
        }
        match self.phase {
            Phase::Trying(until) if now >= until => {
                self.phase = Phase::Resting(now + pause(self.vain));
                self.vain = self.vain.saturating_add(1);
                // Who was held has had his try.
                self.asked = false;
                return false;
            }
            Phase::Resting(until) if now >= until => self.phase = Phase::Open,
            _ => {}
        }
        self.asked |= asked;
        let due = match self.phase {
            Phase::Trying(_) => false,
            Phase::Resting(_) => freed,
            Phase::Open => freed || self.asked,
        };
        if due {
            self.phase = Phase::Trying(now + TRIAL);
        }
        due
    }

    /// Until when who asks is refused, if so.
    pub(super) fn rests(&self) -> Option<Instant> {
        match self.phase {
            Phase::Resting(until) => Some(until),
            Phase::Open | Phase::Trying(_) => None,
        }
    }
}

/// How long after the n-th try in vain, counted from 0.
fn pause(vain: u32) -> Duration {
    (FIRST * 2_u32.saturating_pow(vain.min(8))).min(LONGEST)
}

/// A workload whose `ReplicaSet` is to be nudged, with the UID of its Deployment.
#[derive(Clone, Debug)]
struct Stuck {
    target: TargetId,
    uid: Arc<str>,
}

/// Where to ask for a nudge. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Nudges(mpsc::Sender<Stuck>);

/// What was asked for and is not written yet.
#[derive(Debug)]
pub struct NudgeQueue(mpsc::Receiver<Stuck>);

/// Both ends.
pub fn nudges() -> (Nudges, NudgeQueue) {
    let (sender, receiver) = mpsc::channel(WAITING);
    (Nudges(sender), NudgeQueue(receiver))
}

impl Nudges {
    pub(super) fn ask(&self, view: &WorkloadView) {
        let stuck = Stuck {
            target: view.target.clone(),
            uid: Arc::clone(&view.uid),
        };
        if self.0.try_send(stuck).is_err() {
            tracing::debug!(target = %view.target, "Too many nudges: one is left out");
        }
    }
}

impl NudgeQueue {
    /// The next that was asked for, if any.
    #[cfg(test)]
    pub(super) fn take(&mut self) -> Option<TargetId> {
        Some(self.0.try_recv().ok()?.target)
    }

    /// Writes what is asked for, for ever.
    pub async fn write(self, client: Client) {
        let asked = unfold(self.0, |mut queue| async move {
            let next = queue.recv().await?;
            Some((next, queue))
        });
        asked
            .for_each_concurrent(AT_ONCE, |stuck| {
                let client = client.clone();
                async move {
                    let target = &stuck.target;
                    match timeout(WRITE_LIMIT, nudge(client, &stuck)).await {
                        Ok(Ok(Some(name))) => {
                            tracing::info!(%target, replicaset = name, "Nudged: it could not make a pod");
                        }
                        Ok(Ok(None)) => tracing::debug!(%target, "Nothing to nudge"),
                        Ok(Err(error)) => tracing::warn!(%target, %error, "Cannot nudge"),
                        Err(_) => {
                            tracing::warn!(%target, limit = ?WRITE_LIMIT, "Cannot nudge: no answer");
                        }
                    }
                }
            })
            .await;
    }
}

/// Returns the name of the one that was nudged.
async fn nudge(client: Client, stuck: &Stuck) -> kube::Result<Option<String>> {
    let api: Api<ReplicaSet> = Api::namespaced(client, stuck.target.namespace());
    // The template's labels are on the ReplicaSet too.
    let enabled = ListParams::default().labels(names::ENABLED_SELECTOR);
    let all = api.list(&enabled).await?.items;
    let Some(name) = newest_lacking(&all, &stuck.uid) else {
        return Ok(None);
    };
    let annotation = json!({names::NUDGED: Timestamp::now().to_string()});
    let patch = Patch::Merge(json!({"metadata": {"annotations": annotation}}));
    let params = PatchParams {
        field_manager: Some(names::ACTIVATOR_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    api.patch_status(name, &params, &patch).await?;
    Ok(Some(name.to_owned()))
}

/// Of the `ReplicaSet`s of a Deployment that have fewer pods than they want, the one of its newest template.
fn newest_lacking<'a>(all: &'a [ReplicaSet], deployment: &str) -> Option<&'a str> {
    let owns = |owner: &OwnerReference| owner.controller == Some(true) && owner.uid == deployment;
    let lacking = all.iter().filter(|set| {
        let owners = set.metadata.owner_references.as_deref();
        let wanted = set.spec.as_ref().and_then(|spec| spec.replicas);
        let made = set.status.as_ref().map_or(0, |status| status.replicas);
        owners.is_some_and(|owners| owners.iter().any(owns)) && wanted.unwrap_or(1) > made
    });
    let newest = lacking.max_by_key(|set| revision(set))?;
    newest.metadata.name.as_deref()
}

/// The Deployment controller's count of templates. An older one that is gone back to gets a new number, so it says more than
/// the age.
fn revision(set: &ReplicaSet) -> u64 {
    let annotations = set.metadata.annotations.as_ref();
    annotations
        .and_then(|all| all.get("deployment.kubernetes.io/revision"))
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::{super::failing::testing::*, *};

    const MOMENT: Duration = Duration::from_millis(1);

    struct Bed {
        nudging: Nudging,
        now: Instant,
    }

    impl Bed {
        fn new() -> Self {
            Self {
                nudging: Nudging::default(),
                now: Instant::now(),
            }
        }

        /// Looks at a workload that is stuck.
        fn stuck(&mut self, asked: bool) -> bool {
            self.see(&quota(1), &[], (asked, false))
        }

        fn see(&mut self, view: &WorkloadView, pods: &[Arc<PodView>], told: (bool, bool)) -> bool {
            self.nudging.observe(Some(view), pods, told, self.now)
        }

        fn rest(&self) -> Option<u64> {
            let until = self.nudging.rests()?;
            Some((until - self.now).as_secs())
        }

        /// A try that somebody has asked for and that is in vain; returns the pause after it.
        fn in_vain(&mut self) -> Option<u64> {
            assert!(self.stuck(true) && self.rest().is_none());
            let until = self.now + TRIAL;
            self.now = until.checked_sub(MOMENT).unwrap();
            assert!(!self.stuck(true) && self.rest().is_none(), "may show yet");
            self.now = until;
            assert!(!self.stuck(true), "those who are held now have had theirs");
            self.rest()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn tries_are_made_while_somebody_asks_less_and_less_often() {
        let mut bed = Bed::new();
        for rest in [1, 2, 4, 8, 16, 30, 30] {
            assert_eq!(bed.in_vain(), Some(rest));
            let until = bed.now + Duration::from_secs(rest);
            bed.now = until.checked_sub(MOMENT).unwrap();
            assert!(!bed.stuck(false));
            bed.now = until;
            for _ in 0..100 {
                assert!(!bed.stuck(false) && bed.rest().is_none(), "nobody asks");
                bed.now += Duration::from_mins(1);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_refused_need_not_come_back_for_a_try() {
        let mut bed = Bed::new();
        bed.in_vain();
        assert!(!bed.stuck(true), "not before the pause is over");
        bed.now += FIRST;
        assert!(bed.stuck(false));
        assert!(!bed.stuck(false), "once");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_or_another_template_makes_all_forgotten_and_a_sleep_does_not() {
        let mut bed = Bed::new();
        for _ in 0..3 {
            bed.in_vain();
            bed.now += LONGEST;
        }
        assert!(!bed.see(&quota(0), &[], (true, true)), "none is wanted");
        assert_eq!(bed.in_vain(), Some(8));
        assert!(!bed.see(&quota(1), &[pod(None, |_| {})], (true, true)));
        assert_eq!(bed.rest(), None);
        assert_eq!(bed.in_vain(), Some(1));
        let mut other = quota(1);
        other.template += 1;
        bed.now += LONGEST;
        assert!(bed.see(&other, &[], (true, false)));
        bed.now += TRIAL;
        bed.see(&other, &[], (true, false));
        assert_eq!(bed.rest(), Some(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_cause_that_is_known_to_be_gone_is_no_time_to_rest() {
        let mut bed = Bed::new();
        assert!(bed.see(&quota(1), &[], (false, true)), "nobody asks");
        assert!(
            !bed.see(&quota(1), &[], (false, true)),
            "it is tried already"
        );
        bed.now += TRIAL;
        bed.stuck(false);
        assert!(bed.rest().is_some());
        assert!(bed.see(&quota(1), &[], (false, true)));
        assert!(
            !Bed::new().see(&view(|_| {}), &[], (true, true)),
            "not stuck"
        );
    }

    fn set(name: &str, change: impl FnOnce(&mut Value)) -> ReplicaSet {
        let mut object = json!({
            "metadata": {
                "name": name,
                "annotations": {"deployment.kubernetes.io/revision": "9"},
                "ownerReferences": [{
                    "apiVersion": "apps/v1", "kind": "Deployment", "name": "m", "uid": "u", "controller": true,
                }],
            },
            "spec": {"replicas": 1, "selector": {}},
            "status": {"replicas": 0},
        });
        change(&mut object);
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn the_newest_that_lacks_pods_is_nudged() {
        let revision = |number: &'static str| {
            move |set: &mut Value| {
                set["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = json!(number);
            }
        };
        let all = [
            set("old", revision("2")),
            set("newer", revision("10")),
            set("whole", |set| set["status"]["replicas"] = json!(1)),
            set("unwanted", |set| set["spec"]["replicas"] = json!(0)),
            set("others", |set| {
                set["metadata"]["ownerReferences"][0]["uid"] = json!("x");
            }),
            set("nobodys", |set| {
                set["metadata"]["ownerReferences"] = json!(null);
            }),
        ];
        assert_eq!(newest_lacking(&all, "u"), Some("newer"));
        assert_eq!(newest_lacking(&all[2..], "u"), None);
    }

    #[tokio::test]
    async fn who_asks_never_waits() {
        let (nudges, _queue) = nudges();
        for _ in 0..2 * WAITING {
            nudges.ask(&quota(1));
        }
    }
}
