//! Pods on their way: how far each is, and what is learned when one is ready.
//!
//! What must stay true: a start is learned once, and only if it was seen under way. Of a pod that was ready when it was first
//! seen nobody knows whether it has always been.

use std::{collections::HashMap, sync::Arc, time::Duration};

use autoscaler_core::{Decider, Moment, Replicas, StartClass, Starting};

use crate::{Life, Target};

/// Longer than this between what comes before the model's container and its start, and its image was not there. The kubelet starts
/// a container whose image it has within a second or two, also on a busy node; pulling one of a model takes longer.
const IMAGE_WAIT: u64 = 3_000;

/// Pods that were seen starting, and since when, in milliseconds since 1970.
#[derive(Debug, Default)]
pub(crate) struct Starts(HashMap<Arc<str>, u64>);

/// How far pods are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) starting: Starting,
    /// Pods that will not be ready as they are.
    pub(crate) failed: Replicas,
    /// Pods that were ready and are not now.
    pub(crate) lapsed: Replicas,
    /// Whether a start was learned just now.
    pub(crate) learned: bool,
}

impl Starts {
    /// Takes in what there is now: `now` in the core's time, `unix` in milliseconds since 1970.
    pub(crate) fn follow(
        &mut self,
        target: &Target,
        decider: &mut Decider,
        now: Moment,
        unix: u64,
    ) -> Progress {
        self.0
            .retain(|uid, _| target.pods.iter().any(|pod| pod.uid == *uid));
        if self.0.is_empty() {
            // Most workloads sleep: no room is kept for what may come.
            self.0 = HashMap::new();
        }
        let longest = target.spec.max_cold_start;
        let mut progress = Progress::default();
        let mut under_way = Vec::new();
        let (mut failed, mut lapsed) = (0, 0);
        for pod in &target.pods {
            let class = class(&pod.life, unix);
            if pod.ready {
                let Some(first) = self.0.remove(&pod.uid) else {
                    continue;
                };
                let began = pod.life.began.unwrap_or(first);
                let ready = pod.life.ready.unwrap_or(unix);
                let took = Duration::from_millis(ready.saturating_sub(began));
                decider.learn_start(&class, took);
                progress.learned = true;
            } else if pod.starting {
                let first = *self.0.entry(Arc::clone(&pod.uid)).or_insert(unix);
                let began = pod.life.began.unwrap_or(first);
                let age = Duration::from_millis(unix.saturating_sub(began));
                if age < longest {
                    under_way.push((now.saturating_sub(age), class));
                } else {
                    // It may hang for ever, and must not hold the scale for as long.
                    failed += 1;
                }
            } else if pod.failed {
                failed += 1;
            } else {
                lapsed += 1;
            }
        }
        let pods = under_way.iter().map(|(began, class)| (*began, class));
        progress.starting = Starting::of(now, decider.learned(), longest, pods);
        progress.failed = Replicas(failed);
        progress.lapsed = Replicas(lapsed);
        progress
    }
}

/// What its start can be compared with.
fn class(life: &Life, unix: u64) -> StartClass {
    let waited = life
        .prepared
        .map(|prepared| life.started.unwrap_or(unix).saturating_sub(prepared));
    StartClass {
        template: Arc::clone(&life.template),
        image_present: waited.is_none_or(|waited| waited <= IMAGE_WAIT),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use autoscaler_core::{Learned, TargetSpec};

    use super::*;
    use crate::Pod;

    const NOW: Moment = Moment::from_secs(10_000);
    /// The wall clock's zero of these tests.
    const UNIX: u64 = 1_000_000_000;

    fn pod(uid: &str, life: Life) -> Pod {
        Pod {
            uid: uid.into(),
            stats: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
            ready: false,
            starting: true,
            failed: false,
            life,
        }
    }

    fn target(pods: &[Pod]) -> Target {
        Target {
            spec: Arc::new(TargetSpec::default()),
            replicas: u32::try_from(pods.len()).unwrap(),
            pods: pods.to_vec(),
            reachable: true,
        }
    }

    fn decider() -> Decider {
        Decider::new(TargetSpec::default(), NOW, Replicas(0))
    }

    fn began(seconds: u64) -> Life {
        Life {
            template: "a".into(),
            began: Some(UNIX + seconds * 1000),
            ..Life::default()
        }
    }

    fn known(decider: &Decider, image_present: bool) -> Option<u64> {
        let class = StartClass {
            template: "a".into(),
            image_present,
        };
        let took = decider.learned().start_time(&class);
        took.map(|took| took.as_secs())
    }

    #[test]
    fn a_start_is_learned_once_and_only_if_it_was_seen() {
        let (mut starts, mut decider) = (Starts::default(), decider());
        let mut one = pod("one", began(0));
        let mut other = pod("other", began(0));
        (other.ready, other.starting) = (true, false);
        let seen = [one.clone(), other.clone()];
        let progress = starts.follow(&target(&seen), &mut decider, NOW, UNIX + 20_000);
        assert_eq!(progress.starting.pods, Replicas(1));
        assert_eq!(known(&decider, true), None, "the other was ready before");
        (one.ready, one.starting) = (true, false);
        one.life.ready = Some(UNIX + 40_000);
        let seen = [one, other];
        let now = NOW + Duration::from_secs(30);
        for learned in [true, false] {
            let progress = starts.follow(&target(&seen), &mut decider, now, UNIX + 50_000);
            assert_eq!(progress.learned, learned);
        }
        assert_eq!(known(&decider, true), Some(40));
        starts.follow(&target(&[]), &mut decider, now, UNIX + 60_000);
        assert_eq!(starts.0.capacity(), 0);
    }

    #[test]
    fn a_pod_without_times_began_when_it_was_first_seen() {
        let (mut starts, mut decider) = (Starts::default(), decider());
        let mut one = pod("one", Life::default());
        for second in [5, 9] {
            let progress = starts.follow(
                &target(&[one.clone()]),
                &mut decider,
                NOW,
                UNIX + second * 1000,
            );
            assert_eq!(progress.starting.pods, Replicas(1));
        }
        (one.ready, one.starting) = (true, false);
        starts.follow(&target(&[one]), &mut decider, NOW, UNIX + 12_000);
        assert_eq!(
            decider.learned().next_start_time(),
            Some(Duration::from_secs(7))
        );
    }

    #[test]
    fn pods_pass_their_time_and_in_the_end_have_failed() {
        let (mut starts, mut decider) = (Starts::default(), decider());
        let mut learned = Learned::default();
        learned.start(&class(&began(0), UNIX), Duration::from_secs(30));
        decider.recall(learned);
        let hangs = pod("hangs", began(0));
        let mut at = |second: u64| {
            let seen = target(std::slice::from_ref(&hangs));
            let now = NOW + Duration::from_secs(second);
            let progress = starts.follow(&seen, &mut decider, now, UNIX + second * 1000);
            let starting = progress.starting;
            [starting.pods, starting.overdue, progress.failed].map(Replicas::get)
        };
        assert_eq!(at(10), [1, 0, 0]);
        assert_eq!(at(47), [1, 0, 0]);
        assert_eq!(at(49), [1, 1, 0], "1.5 times 30 s and 3 s");
        assert_eq!(at(599), [1, 1, 0]);
        assert_eq!(at(600), [0, 0, 1], "max-cold-start");
    }

    #[test]
    fn what_has_failed_is_not_on_its_way() {
        let (mut starts, mut decider) = (Starts::default(), decider());
        let mut broken = pod("broken", began(0));
        (broken.starting, broken.failed) = (false, true);
        // It was ready once and is not any more: neither on its way nor failed.
        let mut overloaded = pod("overloaded", began(0));
        overloaded.starting = false;
        let seen = target(&[broken, overloaded]);
        let progress = starts.follow(&seen, &mut decider, NOW, UNIX);
        assert_eq!(
            [progress.starting.pods, progress.failed, progress.lapsed],
            [Replicas(0), Replicas(1), Replicas(1)]
        );
    }

    #[test]
    fn whether_an_image_was_pulled_is_told_by_the_wait_for_the_model() {
        let life = |prepared: Option<u64>, started: Option<u64>| Life {
            prepared: prepared.map(|ms| UNIX + ms),
            started: started.map(|ms| UNIX + ms),
            ..began(0)
        };
        for (life, at, present) in [
            (life(None, None), 60_000, true),
            (life(Some(1_000), None), 3_000, true),
            (life(Some(1_000), None), 10_000, false),
            (life(Some(1_000), Some(3_000)), 100_000, true),
            (life(Some(1_000), Some(90_000)), 100_000, false),
        ] {
            assert_eq!(
                class(&life, UNIX + at).image_present,
                present,
                "{life:?} {at}"
            );
        }
    }
}
