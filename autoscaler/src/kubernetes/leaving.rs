//! When Rouse itself is deleted: every workload is given back first, and within a time that has an end.
//!
//! It begins with the signal to stop, if our `ServiceAccount` or our namespace is being deleted then. The namespace's deletion takes
//! our Pod away however many finalizers there are, so all of this happens in its grace period. Our token counts for a minute
//! from the deletion of the `ServiceAccount`, which is the other bound.
//!
//! What must stay true: the finalizers go, whatever happened. Whoever leads takes them off when all is given back or the time is
//! over; a standby does so a little later, in case that one died. It is not a write of the tenure: to take them off twice is the
//! same as once.

use std::time::Duration;

use kube::Client;
use kubernetes::{leaving, names};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{
    plan::{self, Action, Plan, Standing, World},
    world::Caches,
};

/// A workload that was woken gets so long until a pod is ready. Then its fallback goes all the same: it would lead to nobody once
/// the activators are gone.
const PATIENCE: Duration = Duration::from_secs(25);
/// For giving back altogether. With what it takes to let the finalizers go this is less than the minute of the token.
const LIMIT: Duration = Duration::from_secs(40);
/// Nothing was left to do for so long: what was still under way when it began would have shown by now.
const QUIET: Duration = Duration::from_secs(1);
/// A standby does what the leader should have done after so long.
const STANDBY: Duration = Duration::from_secs(2);
/// Activators that have nothing to do any more get so long to be gone. The namespace's controller looks again 5 s after the
/// finalizers went and the namespace was touched, and if a Pod is left then, it comes back only after minutes.
const OTHERS: Duration = Duration::from_secs(6);
/// For everything, seen from outside. What could not even begin by then, since the cluster was never seen whole, is left out.
const END: Duration = Duration::from_secs(50);
// To hurry takes a while; and the token's minute is the end of everything.
const _: () = assert!(PATIENCE.as_secs() + 10 < LIMIT.as_secs());
const _: () = assert!(LIMIT.as_secs() + STANDBY.as_secs() + OTHERS.as_secs() < END.as_secs());
const _: () = assert!(END.as_secs() < 60);

const LOOK: Duration = Duration::from_millis(100);

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Nobody deletes us.
    Stays,
    /// Workloads are given back, each in its own time.
    GivesBack,
    /// Workloads are given back, whether or not a pod is ready.
    Hurries,
}

/// How it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    GivenBack,
    OutOfTime,
}

/// The course of it. Times are since the start of the process.
#[derive(Debug, Default)]
pub(crate) struct Leaving {
    since: Option<Duration>,
    /// Since when nothing is left to do.
    quiet: Option<Duration>,
}

impl Leaving {
    /// `asked`: whether we were told to go and Rouse is being deleted.
    pub(crate) fn stage(&mut self, now: Duration, asked: bool) -> Stage {
        if asked {
            self.since.get_or_insert(now);
        }
        match self.since {
            None => Stage::Stays,
            Some(since) if now.saturating_sub(since) < PATIENCE => Stage::GivesBack,
            Some(_) => Stage::Hurries,
        }
    }

    /// Whether it is over. `left`: whether any workload is not given back, or something is under way.
    pub(crate) fn end(&mut self, now: Duration, leads: bool, left: bool) -> Option<End> {
        let since = self.since?;
        self.quiet = if left {
            None
        } else {
            Some(self.quiet.unwrap_or(now))
        };
        let later = if leads { Duration::ZERO } else { STANDBY };
        let over = |since: Duration, limit: Duration| now.saturating_sub(since) >= limit + later;
        if self.quiet.is_some_and(|quiet| over(quiet, QUIET)) {
            Some(End::GivenBack)
        } else if over(since, LIMIT) {
            Some(End::OutOfTime)
        } else {
            None
        }
    }
}

/// The world as if the workload had opted out. One that is being deleted, perhaps with its namespace, in which no pod can be made any
/// more, is as good as gone: nobody waits until it is ready.
pub(crate) fn opted_out(mut world: World, stage: Stage) -> World {
    // Where no pod can even be made, by a quota or since its namespace is being deleted, it would wait in vain.
    let is_stuck = matches!(&world.standing, Standing::In(workload) if workload.failure.is_some());
    let hurries = stage == Stage::Hurries || is_stuck;
    let (replicas, ready) = match &world.standing {
        Standing::In(workload) if workload.terminating => {
            world.standing = Standing::Gone;
            return world;
        }
        Standing::In(workload) => (workload.replicas, plan::has_ready_pod(&world)),
        Standing::Out { replicas, ready } => (*replicas, *ready),
        Standing::Gone => return world,
    };
    world.standing = Standing::Out {
        // One that cannot be woken keeps no fallback either when time runs out.
        replicas: if hurries { replicas.max(1) } else { replicas },
        ready: ready || hurries,
    };
    world
}

/// What is done for a workload of `replicas` in such a world. It is woken first, since its pods need longer than all the rest; in
/// a hurry last, since what fails ends a plan.
pub(crate) fn give_back(world: &World, replicas: u32, stage: Stage) -> Plan {
    let mut plan = plan::plan(world);
    plan.actions.retain(|action| *action != Action::Wake);
    if replicas == 0 && !matches!(world.standing, Standing::Gone) {
        let place = if stage == Stage::Hurries {
            plan.actions.len()
        } else {
            0
        };
        plan.actions.insert(place, Action::Wake);
    }
    plan
}

/// Whether nothing of ours is left at a workload. Ports that rest are in our own namespace, and go with it.
pub(crate) fn is_given_back(world: &World, plan: &Plan) -> bool {
    let rests = |action: &Action| matches!(action, Action::Forget { .. });
    plan.actions.iter().all(rests)
        && !plan::has_companions(world)
        && world.slices.is_empty()
        && world.claims.iter().all(|claim| claim.released.is_some())
}

/// Follows the signal to stop. If Rouse is being deleted, tells so by `asked`, and lets everything else end only when it is `gone`.
pub(crate) async fn follow(
    client: Client,
    namespace: String,
    mut stop: watch::Receiver<bool>,
    asked: watch::Sender<bool>,
    mut gone: watch::Receiver<bool>,
    end: watch::Sender<bool>,
) {
    drop(stop.wait_for(|stop| *stop).await);
    if leaving::is_asked(&client, &namespace, names::AUTOSCALER_ACCOUNT).await {
        tracing::warn!("Rouse is being deleted: every workload is given back first");
        asked.send_replace(true);
        // A standby has nothing to stay for when the leader has done it.
        let over = async {
            tokio::select! {
                _ = gone.wait_for(|gone| *gone) => {}
                () = leaving::is_released(&client, &namespace, names::AUTOSCALER_ACCOUNT) => {}
            }
        };
        if timeout(END, over).await.is_err() {
            tracing::error!("Nothing was given back: the cluster could not be watched");
            release(&client, &namespace).await;
        }
    }
    end.send_replace(true);
}

/// Takes the finalizers off when no activator is left, or they have had their time.
pub(crate) async fn release_last(client: &Client, namespace: &str, caches: &Caches) {
    let alone = async {
        while !caches.activators.is_empty() {
            sleep(LOOK).await;
        }
    };
    let _late = timeout(OTHERS, alone).await;
    release(client, namespace).await;
}

/// Takes the finalizers off: the API server deletes what had them.
pub(crate) async fn release(client: &Client, namespace: &str) {
    let failed = leaving::release(client, namespace).await;
    if failed.is_empty() {
        tracing::info!("Finalizers are taken off: Rouse may go");
    }
    for error in failed {
        tracing::warn!(
            error,
            "A finalizer stays, unless somebody else has taken it off"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn an_ordinary_stop_is_no_leaving() {
        let mut leaving = Leaving::default();
        assert_eq!(leaving.stage(at(1000), false), Stage::Stays);
        assert_eq!(leaving.end(at(1000), true, false), None);
    }

    #[test]
    fn it_ends_when_all_is_given_back_and_has_stayed_so() {
        let mut leaving = Leaving::default();
        assert_eq!(leaving.stage(at(100), true), Stage::GivesBack);
        assert_eq!(leaving.end(at(100), true, false), None, "just begun");
        assert_eq!(leaving.end(at(101), true, true), None, "it was not all");
        assert_eq!(leaving.end(at(105), true, false), None);
        assert_eq!(leaving.end(at(106), true, false), Some(End::GivenBack));
    }

    #[test]
    fn it_ends_whatever_happens_and_before_the_token_does() {
        let mut leaving = Leaving::default();
        leaving.stage(at(100), true);
        assert_eq!(leaving.stage(at(124), true), Stage::GivesBack);
        assert_eq!(leaving.stage(at(125), true), Stage::Hurries);
        assert_eq!(leaving.end(at(139), true, true), None);
        assert_eq!(leaving.end(at(140), true, true), Some(End::OutOfTime));
    }

    #[test]
    fn a_standby_waits_for_the_leader_and_not_for_ever() {
        let mut leaving = Leaving::default();
        leaving.stage(at(100), true);
        assert_eq!(leaving.end(at(100), false, false), None);
        assert_eq!(leaving.end(at(102), false, false), None);
        assert_eq!(leaving.end(at(103), false, false), Some(End::GivenBack));
        let mut leaving = Leaving::default();
        leaving.stage(at(100), true);
        assert_eq!(leaving.end(at(141), false, true), None);
        assert_eq!(leaving.end(at(142), false, true), Some(End::OutOfTime));
    }
}
