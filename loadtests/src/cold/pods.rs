//! What is known of a workload's pods over time. Times are those at which a watch told of it, from the start of the run on: object
//! timestamps have a resolution of one second and another machine's clock.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Pods that are remembered, those that are gone included.
const MOST: usize = 10_000;

/// By how much the kubelet and a watch may be late with what they tell.
const LATE: Duration = Duration::from_secs(2);

/// One pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Pod {
    pub(super) origin: Origin,
    pub(super) scheduled: Option<Duration>,
    /// When its init containers were done, if it has any.
    pub(super) initialised: Option<Duration>,
    /// When the first of its containers had started.
    pub(super) started: Option<Duration>,
    pub(super) ready: Option<Duration>,
    /// When it had ended, or its object was no more. One that is being deleted is not gone: it may still answer.
    pub(super) gone: Option<Duration>,
    /// When its node had pulled an image for it; none if the images were there.
    pub(super) pulled: Option<Duration>,
}

/// How it came to be known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    /// It was there when the watch began.
    #[default]
    There,
    /// A watch told of it then, when it was made.
    Made(Duration),
    /// A watch that had been interrupted told of it then: it was made some time before.
    Found(Duration),
}

impl Pod {
    /// When it was made, if that is known.
    pub(super) fn created(&self) -> Option<Duration> {
        match self.origin {
            Origin::Made(at) => Some(at),
            Origin::There | Origin::Found(_) => None,
        }
    }
}

/// Pods by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Pods(pub(super) BTreeMap<String, Pod>);

/// What a watch tells of a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a condition of a pod, and they come together"
)]
pub(super) struct Look {
    pub(super) is_scheduled: bool,
    /// None if it has no init containers.
    pub(super) is_initialised: Option<bool>,
    pub(super) is_started: bool,
    pub(super) is_ready: bool,
    /// Its containers have ended, for good.
    pub(super) has_ended: bool,
}

impl Pods {
    /// Takes what a watch told at `now`; `origin` is that of a pod that was not known.
    pub(super) fn look(&mut self, name: &str, look: Look, now: Duration, origin: Origin) {
        let is_new = !self.0.contains_key(name);
        if is_new && self.0.len() >= MOST {
            self.forget_one();
        }
        let pod = self.0.entry(name.to_owned()).or_default();
        if is_new {
            pod.origin = origin;
        }
        let mark = |at: &mut Option<Duration>, is: bool| {
            if is {
                at.get_or_insert(now);
            }
        };
        mark(&mut pod.scheduled, look.is_scheduled);
        mark(&mut pod.initialised, look.is_initialised == Some(true));
        mark(&mut pod.started, look.is_started);
        mark(&mut pod.ready, look.is_ready);
        mark(&mut pod.gone, look.has_ended);
    }

    /// The object is no more.
    pub(super) fn remove(&mut self, name: &str, now: Duration) {
        if let Some(pod) = self.0.get_mut(name) {
            pod.gone.get_or_insert(now);
        }
    }

    /// A whole list has these pods: others are no more.
    pub(super) fn keep(&mut self, listed: &BTreeSet<String>, now: Duration) {
        for (name, pod) in &mut self.0 {
            if !listed.contains(name) {
                pod.gone.get_or_insert(now);
            }
        }
    }

    /// Its node has pulled an image.
    pub(super) fn pulled(&mut self, name: &str, now: Duration) {
        let pod = self.0.get_mut(name);
        if let Some(pod) = pod.filter(|pod| pod.origin != Origin::There) {
            pod.pulled.get_or_insert(now);
        }
    }

    /// Whether every pod is gone.
    pub(super) fn is_empty(&self) -> bool {
        self.0.values().all(|pod| pod.gone.is_some())
    }

    /// Pods that could have answered a request that was sent at `sent` and had its answer's head at `head`.
    pub(super) fn could_answer(
        &self,
        sent: Duration,
        head: Duration,
    ) -> impl Iterator<Item = (&String, &Pod)> {
        self.0.iter().filter(move |(_, pod)| {
            let is_early = pod.created().is_none_or(|created| created <= head);
            // One that became ready only later has not answered, however late the watch was.
            let is_ready = pod.ready.is_none_or(|ready| ready <= head + LATE);
            let is_late = pod.gone.is_none_or(|gone| gone >= sent);
            is_early && is_ready && is_late
        })
    }

    /// The run begins: what was before counts as its first moment.
    pub(super) fn begin(&mut self) {
        for pod in self.0.values_mut() {
            pod.origin = Origin::There;
            pod.pulled = None;
            for mark in [
                &mut pod.scheduled,
                &mut pod.initialised,
                &mut pod.started,
                &mut pod.ready,
                &mut pod.gone,
            ] {
                *mark = mark.map(|_| Duration::ZERO);
            }
        }
    }

    fn forget_one(&mut self) {
        let oldest = self
            .0
            .iter()
            .filter(|(_, pod)| pod.gone.is_some())
            .min_by_key(|(_, pod)| pod.gone);
        let name = oldest
            .or_else(|| self.0.iter().next())
            .map(|(name, _)| name.clone());
        if let Some(name) = name {
            self.0.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn each_mark_is_that_of_the_first_look_that_shows_it() {
        let mut pods = Pods::default();
        let mut look = Look::default();
        pods.look("a", look, S(1), Origin::Made(S(1)));
        look.is_scheduled = true;
        pods.look("a", look, S(2), Origin::Made(S(2)));
        look.is_ready = true;
        pods.look("a", look, S(3), Origin::Made(S(3)));
        pods.look("a", Look::default(), S(4), Origin::Found(S(4)));
        pods.remove("a", S(5));
        pods.remove("a", S(6));
        let pod = &pods.0["a"];
        let marks = [pod.created(), pod.scheduled, pod.ready, pod.gone];
        assert_eq!(marks, [1, 2, 3, 5].map(|s| Some(S(s))));
        assert_eq!((pod.initialised, pod.started), (None, None));
        assert!(pods.is_empty());
    }

    #[test]
    fn a_pod_that_was_there_has_no_beginning_and_pulls_of_old_are_nothing() {
        let mut pods = Pods::default();
        pods.look("a", Look::default(), S(0), Origin::There);
        pods.pulled("a", S(1));
        assert_eq!((pods.0["a"].created(), pods.0["a"].pulled), (None, None));
        assert!(!pods.is_empty());
    }

    #[test]
    fn who_could_have_answered_was_there_in_time() {
        let mut pods = Pods::default();
        pods.look("old", Look::default(), S(0), Origin::There);
        pods.remove("old", S(10));
        pods.look("new", Look::default(), S(50), Origin::Made(S(50)));
        let names = |sent, head| {
            let could = pods.could_answer(S(sent), S(head));
            could.map(|(name, _)| name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(names(5, 6), ["old"]);
        assert_eq!(names(9, 60), ["new", "old"]);
        assert_eq!(names(11, 60), ["new"]);
        assert!(names(11, 49).is_empty());
        let ready = Look {
            is_ready: true,
            ..Look::default()
        };
        pods.look("new", ready, S(70), Origin::There);
        let late: Vec<_> = pods.could_answer(S(11), S(60)).collect();
        assert!(late.is_empty(), "{late:?}");
    }

    #[test]
    fn pods_are_remembered_in_bounded_memory() {
        let mut pods = Pods::default();
        for number in 0..MOST + 10 {
            pods.look(&number.to_string(), Look::default(), S(1), Origin::There);
            pods.remove(&number.to_string(), S(2));
        }
        assert_eq!(pods.0.len(), MOST);
    }
}
