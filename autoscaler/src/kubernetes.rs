//! The autoscaler on a cluster: what there is comes from watches, the leader adopts Services and writes scales, standbys do
//! everything but write.
//!
//! Decisions are pure and tested by themselves: `plan` (adoption), `leaving` (when Rouse is deleted), `lease` (who leads), `rival`
//! (who keeps undoing our writes), `state` (what stands against a write), `view` (what is kept of objects). The rest is their shell.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use dashmap::DashMap;
use kubernetes::{client, names};
use shared::TargetId;
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use crate::{Controller, Holds};

mod adopter;
mod claims;
mod events;
mod execute;
mod gate;
mod learned;
mod lease;
mod leaving;
mod pace;
mod plan;
mod rival;
mod scaler;
mod state;
mod targets;
mod view;
mod world;

/// How a program runs on a cluster.
#[derive(Clone, Debug)]
pub struct Config {
    /// Our own namespace: claims, settings, the Lease and the activators are there.
    pub namespace: String,
    /// The name of our Pod, for the Lease and Events.
    pub pod: String,
}

/// Runs until `stop` is true, and gives up the Lease then; if Rouse is being deleted, gives every workload back before. `ready`
/// becomes true when everything is seen.
///
/// # Errors
/// One line if there is no access to a cluster.
pub async fn run(
    config: Config,
    controllers: Arc<DashMap<TargetId, Controller>>,
    ready: Arc<AtomicBool>,
    stop: watch::Receiver<bool>,
) -> Result<(), String> {
    let access = client::config().await.map_err(|error| error.to_string())?;
    // Lists are large and writes are urgent: they share no connection.
    let connect = || client::connect(&access).map_err(|error| error.to_string());
    let (watching, writing, electing) = (connect()?, connect()?, connect()?);
    let parting = connect()?;
    let caches = Arc::new(world::Caches::watch(&watching, &config.namespace));
    let gate = gate::Gate::closed();
    let events = events::Events::start(writing.clone(), gate.clone(), config.pod.clone());
    let scaler = Arc::new(scaler::ClusterScaler {
        client: writing.clone(),
        gate: gate.clone(),
        states: Arc::default(),
        events,
        caches: Arc::clone(&caches),
    });
    let holds = Holds::default();
    let (activators, asked) = watch::channel(Vec::new());
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(holds.clone().watch(asked));
    tasks.spawn(follow_activators(
        Arc::clone(&caches),
        activators,
        Arc::clone(&ready),
    ));
    let executor = execute::Executor {
        client: writing,
        gate: gate.clone(),
        ours: config.namespace.clone(),
        ports: Arc::new(claims::Ports::new(Arc::clone(&caches.claims))),
    };
    tasks.spawn(learned::keep(
        executor.client.clone(),
        config.namespace.clone(),
        gate.clone(),
        Arc::clone(&controllers),
    ));
    let targets = targets::Targets::new(controllers, holds, scaler, config.namespace.clone());
    let (asked, leave) = watch::channel(false);
    let (gone, is_gone) = watch::channel(false);
    let (end, ended) = watch::channel(false);
    let mut adopter = adopter::Adopter::new(Arc::clone(&caches), executor, targets, leave);
    let (client, namespace) = (parting.clone(), config.namespace.clone());
    let left = Arc::clone(&caches);
    tasks.spawn(async move {
        // Before the first decision, and once the API server answers.
        left.complete().await;
        adopter.recall(learned::read(&client, &namespace).await);
        adopter.run().await;
        leaving::release_last(&client, &namespace, &left).await;
        gone.send_replace(true);
    });
    let namespace = config.namespace.clone();
    tasks.spawn(leaving::follow(
        parting, namespace, stop, asked, is_gone, end,
    ));
    // Whoever leads knows everything: a process that cannot watch must not keep others from leading.
    let mut stopped = ended.clone();
    tokio::select! {
        () = caches.complete() => {}
        _ = stopped.wait_for(|ended| *ended) => return Ok(()),
    }
    gate::stand(
        electing,
        config.namespace,
        identity(&config.pod),
        gate,
        ended,
    )
    .await;
    Ok(())
}

/// Of this process alone: a container that is restarted in the same Pod is another candidate.
fn identity(pod: &str) -> String {
    use std::hash::{BuildHasher as _, RandomState};
    let lot = RandomState::new().hash_one(std::process::id());
    kubernetes::leader::holder(pod, lot)
}

/// Keeps the activators to be asked in step, and says when everything is seen.
async fn follow_activators(
    caches: Arc<world::Caches>,
    activators: watch::Sender<Vec<SocketAddr>>,
    ready: Arc<AtomicBool>,
) {
    let mut tick = interval(Duration::from_millis(500));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        ready.store(caches.are_complete(), Ordering::Relaxed);
        let seen = caches.activators.all();
        let wanted = to_ask(seen.iter().map(|(_, view)| &**view), unix_seconds());
        activators.send_if_modified(|known| {
            *known != wanted && {
                *known = wanted;
                true
            }
        });
    }
}

/// All activators that may hold requests: terminating ones do until they are gone, and one that is not ready may. One that can
/// hold none must not be asked: while anybody who is does not answer, no workload goes to zero.
fn to_ask<'a>(
    activators: impl Iterator<Item = &'a view::ActivatorView>,
    now: i64,
) -> Vec<SocketAddr> {
    activators
        .filter(|one| one.may_hold(now))
        .filter_map(|one| one.ips.first())
        .map(|ip| SocketAddr::new(*ip, names::ACTIVATOR_STATS_PORT))
        .collect()
}

/// Now, for what is written into objects.
fn unix_seconds() -> i64 {
    k8s_openapi::jiff::Timestamp::now().as_second()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_life_of_a_pod_is_another_candidate() {
        assert_ne!(identity("a"), identity("a"));
    }

    #[test]
    fn whoever_may_hold_something_is_asked() {
        let all = [
            (true, None),
            (false, None),
            (true, Some(100)),
            (false, Some(100)),
        ];
        let all = all.map(|(ready, gone_by)| view::ActivatorView {
            ips: vec![[10, 0, 0, 1].into(), "fd00::1".parse().unwrap()],
            ready,
            gone_by,
        });
        let asked = to_ask(all.iter(), 100);
        assert_eq!(asked.len(), 4);
        assert_eq!(
            to_ask(all.iter(), 200).len(),
            3,
            "its node must have killed it"
        );
        assert_eq!(asked[0].port(), names::ACTIVATOR_STATS_PORT);
    }
}
