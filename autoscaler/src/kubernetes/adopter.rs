//! The loop around the plans: looks, plans for every workload, and while we lead carries out what is planned.
//!
//! Standbys plan too, so that they know since when a workload is adopted. One workload has one part of a plan under way at a time; one
//! that failed or changed nothing is made anew after a pause that grows.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::SocketAddr,
    ops::Bound,
    sync::Arc,
    time::Duration,
};

use autoscaler_core::Learned;
use futures_util::{StreamExt as _, stream};
use k8s_openapi::{
    api::{apps::v1::Deployment, core::v1::Service},
    apimachinery::pkg::util::intstr::IntOrString as TargetPort,
};
use kube::{Api, Client};
use kubernetes::{Adopted, names, watch::any_change};
use parking_lot::Mutex;
use shared::{TargetId, clock, metrics};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{interval, sleep, timeout},
};

use super::{
    events::{Events, Reason, Regarding},
    execute::{Executor, Failed, reaches},
    leaving::{self, End, Leaving, Stage},
    pace::{Paces, Part},
    plan::{Action, Plan, Standing, World, plan},
    rival::{self, Rival},
    targets::Targets,
    view::{Refusal, ServiceView},
    world::{Caches, Snapshot},
};

/// Changes that come so close together are looked at together.
const MOMENT: Duration = Duration::from_millis(50);
/// Everything is looked at so often even if nothing changes: time alone changes some plans.
const LOOK: Duration = Duration::from_millis(500);
/// How old the answer about a Deployment that is not opted in may be.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// Plans carried out at the same time. Each takes a connection to the API server, with its buffers and TLS some tens of KB, which stay
/// for a while; a write takes some milliseconds.
const AT_ONCE: usize = 6;
/// A port on which an activator was seen listening is looked at again after so long.
const LISTENS: Duration = Duration::from_secs(30);
/// Ports looked at in one round.
const PROBES: usize = 256;
/// What was told last is written within this, as far as anybody waits for it.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// All that the loop remembers.
#[derive(Debug)]
pub(crate) struct Adopter {
    caches: Arc<Caches>,
    executor: Executor,
    targets: Targets,
    listening: Arc<Mutex<HashMap<u16, Duration>>>,
    /// Deployments that are not opted in, of which there still is something.
    outside: HashMap<TargetId, Outside>,
    /// By workload, Service and its port.
    rivals: HashMap<(TargetId, String, u16), Rival>,
    told: HashMap<TargetId, Told>,
    jobs: JoinSet<Outcome>,
    /// Whose plan is carried out, or who is asked for.
    busy: HashSet<TargetId>,
    /// Whether Rouse is being deleted.
    asked: watch::Receiver<bool>,
    leaving: Leaving,
    /// Workloads that were given back for that reason.
    given_back: HashSet<TargetId>,
    /// How many plans are being carried out.
    carrying: usize,
    paces: HashMap<TargetId, Paces>,
    /// Whose plan was started last.
    turn: Option<TargetId>,
}

/// What was told of a workload.
#[derive(Debug, Default)]
struct Told {
    adopted: Vec<String>,
    refused: Vec<(String, Refusal)>,
}

#[derive(Debug)]
struct Outside {
    standing: Standing,
    uid: String,
    asked: Duration,
}

/// What a job came to.
#[derive(Debug)]
enum Outcome {
    Carried(TargetId, Part, Result<Vec<Action>, (Vec<Action>, Failed)>),
    Asked(TargetId, Option<(Standing, String)>),
}

impl Adopter {
    pub(crate) fn new(
        caches: Arc<Caches>,
        executor: Executor,
        targets: Targets,
        asked: watch::Receiver<bool>,
    ) -> Self {
        Self {
            caches,
            executor,
            targets,
            listening: Arc::default(),
            outside: HashMap::new(),
            rivals: HashMap::new(),
            told: HashMap::new(),
            jobs: JoinSet::new(),
            busy: HashSet::new(),
            asked,
            leaving: Leaving::default(),
            given_back: HashSet::new(),
            carrying: 0,
            paces: HashMap::new(),
            turn: None,
        }
    }

    /// Takes over what earlier processes have learned of workloads.
    pub(crate) fn recall(&mut self, learned: HashMap<TargetId, Learned>) {
        self.targets.recalled = learned;
    }

    /// Until Rouse is deleted and every workload is given back, or the time for that is over.
    pub(crate) async fn run(mut self) {
        self.caches.complete().await;
        let prober = tokio::spawn(probe(Arc::clone(&self.caches), Arc::clone(&self.listening)));
        let _ends_with_us = Ends(prober);
        let mut changes = self.caches.changes();
        let mut tick = interval(LOOK);
        loop {
            if self.look() {
                sleep(LAST_WORDS).await;
                return;
            }
            tokio::select! {
                () = any_change(&mut changes, MOMENT) => {}
                Ok(()) = self.asked.changed() => {}
                _ = tick.tick() => {}
                Some(done) = self.jobs.join_next() => {
                    if let Ok(outcome) = done {
                        self.take(outcome);
                    }
                    while let Some(Ok(outcome)) = self.jobs.try_join_next() {
                        self.take(outcome);
                    }
                }
            }
        }
    }

    /// One look and what follows from it. True: it was the last.
    fn look(&mut self) -> bool {
        let now = clock::since_epoch();
        let seen = self.caches.snapshot();
        let stage = self.stage(now);
        let config = self
            .caches
            .config
            .get(&self.targets.namespace, names::CONFIG);
        self.targets.configure(config.as_deref());
        if stage == Stage::Stays {
            self.targets.follow(&seen);
        } else {
            // Nothing is scaled any more.
            self.targets.follow(&Snapshot::default());
        }
        let leads = self.executor.gate.tenure().is_some();
        if !leads {
            // Told anew by whoever leads next.
            self.told.clear();
        }
        let listening = self.listening(now);
        let targets = seen.targets();
        self.outside
            .retain(|target, _| targets.contains(target) && !seen.workloads.contains_key(target));
        self.told.retain(|target, _| targets.contains(target));
        self.paces.retain(|target, _| targets.contains(target));
        self.rivals
            .retain(|(target, ..), _| targets.contains(target));
        let mut left = Vec::new();
        let mut contested = self.contested(now);
        for target in in_turn(&targets, self.turn.as_ref()) {
            let standing = match seen.workloads.get(target) {
                Some(workload) => Some(Standing::In(Arc::clone(workload))),
                // Nothing is taken apart any more: nobody has to be asked.
                None if seen.only_rests(target) => Some(Standing::Gone),
                None if leads => self.ask_outside(target, now),
                None => None,
            };
            let Some(standing) = standing else {
                left.push(target.clone());
                continue;
            };
            let world = seen.world(
                target,
                standing,
                &listening,
                contested.remove(target).unwrap_or_default(),
                super::unix_seconds(),
            );
            if stage != Stage::Stays {
                if !self.give_back(world, stage, leads, now) {
                    left.push(target.clone());
                }
                continue;
            }
            self.watch_rivals(&world, now, leads);
            let plan = plan(&world);
            if let Some(mut state) = self.targets.states.get_mut(target) {
                state.saw(now, plan.may_sleep);
            }
            if leads {
                self.tell(&world, &plan);
                self.start(target, plan, now);
            }
        }
        let under_way = !left.is_empty() || !self.busy.is_empty();
        let Some(end) = self.leaving.end(now, leads, under_way) else {
            return false;
        };
        if end == End::OutOfTime {
            for target in &left {
                tracing::warn!(%target, "Not given back in time");
                if let Some(workload) = seen.workloads.get(target) {
                    let regarding =
                        Regarding::deployment(target.namespace(), target.name(), &workload.uid);
                    let note = "Rouse is deleted, and there was no time to give all of it back";
                    self.targets
                        .events
                        .tell(regarding, Reason::NotGivenBack, note);
                }
            }
        }
        true
    }

    fn stage(&mut self, now: Duration) -> Stage {
        let asked = *self.asked.borrow_and_update();
        let before = self.leaving.stage(now, false);
        let stage = self.leaving.stage(now, asked);
        if before != stage {
            // What could not be done before may be possible now, and there is little time.
            self.paces.clear();
        }
        stage
    }

    /// Rouse is being deleted: a step towards a workload that is as it was. True if nothing is left to do.
    fn give_back(&mut self, world: World, stage: Stage, leads: bool, now: Duration) -> bool {
        let target = world.target.clone();
        let (replicas, uid) = match &world.standing {
            Standing::In(workload) => (workload.replicas, Some(Arc::clone(&workload.uid))),
            Standing::Out { replicas, .. } => (*replicas, None),
            Standing::Gone => (1, None),
        };
        let world = leaving::opted_out(world, stage);
        let plan = leaving::give_back(&world, replicas, stage);
        let done = leaving::is_given_back(&world, &plan);
        if leads {
            if let Some(uid) = uid.filter(|_| done && self.given_back.insert(target.clone())) {
                let regarding = Regarding::deployment(target.namespace(), target.name(), &uid);
                let note = "Rouse is deleted: its Services are given back, and nobody scales it";
                self.targets.events.tell(regarding, Reason::GivenBack, note);
            }
            if !done {
                self.start(&target, plan, now);
            }
        }
        done
    }

    fn listening(&self, now: Duration) -> BTreeSet<u16> {
        let seen = self.listening.lock();
        seen.iter()
            .filter(|(_, at)| now.saturating_sub(**at) < LISTENS * 2)
            .map(|(port, _)| *port)
            .collect()
    }

    /// What became of a Deployment that the watch does not show. The watch may be behind, so it is asked for by name before
    /// anything is taken apart.
    fn ask_outside(&mut self, target: &TargetId, now: Duration) -> Option<Standing> {
        let known = self.outside.get(target);
        let fresh = known.filter(|known| now.saturating_sub(known.asked) < ASK_AGAIN);
        if fresh.is_none() && self.busy.insert(target.clone()) {
            let client = self.executor.client.clone();
            let target = target.clone();
            self.jobs.spawn(async move {
                let api: Api<Deployment> = Api::namespaced(client, target.namespace());
                let asked = timeout(Duration::from_secs(5), api.get_opt(target.name())).await;
                let answer = match asked {
                    Ok(Ok(object)) => Some(outside(object.as_ref())),
                    Ok(Err(_)) | Err(_) => None,
                };
                Outcome::Asked(target, answer.flatten())
            });
        }
        fresh.map(|known| known.standing.clone())
    }

    /// Services that are left alone, by workload.
    fn contested(&self, now: Duration) -> HashMap<TargetId, BTreeSet<String>> {
        let mut contested: HashMap<_, BTreeSet<_>> = HashMap::new();
        let rivals = self.rivals.iter();
        for ((target, service, _), _) in rivals.filter(|(_, rival)| rival.is_contested(now)) {
            let of = contested.entry(target.clone()).or_default();
            of.insert(service.clone());
        }
        contested
    }

    /// Looks at whether adopted Services still are as we made them.
    fn watch_rivals(&mut self, world: &World, now: Duration, leads: bool) {
        let Standing::In(workload) = &world.standing else {
            return;
        };
        for service in &world.services {
            let companion = world.companions.get(&service.name);
            let Some(record) = companion.and_then(|one| one.adopted.as_ref()) else {
                continue;
            };
            let mut often = false;
            for (port, flipped) in watched(service, record) {
                let key = (world.target.clone(), service.name.clone(), port);
                let rival = self.rivals.entry(key).or_default();
                if record.leaving {
                    rival.forget_value();
                } else {
                    often |= rival.saw(now, flipped);
                }
            }
            if often && leads {
                metrics::AUTOSCALER_RIVALS
                    .counter(&[&world.target.to_string(), "service"])
                    .increment(1);
                tracing::warn!(target = %world.target, service = service.name, "A Service is written back again and again");
                let (namespace, name) = (world.target.namespace(), world.target.name());
                let regarding = Regarding::deployment(namespace, name, &workload.uid);
                tokio::spawn(name_rival(
                    self.executor.client.clone(),
                    self.targets.events.clone(),
                    regarding,
                    Arc::clone(service),
                ));
            }
        }
    }

    /// Tells what is new about Services.
    fn tell(&mut self, world: &World, plan: &Plan) {
        let Standing::In(workload) = &world.standing else {
            return;
        };
        let target = &world.target;
        let told = self.told.entry(target.clone()).or_default();
        let events = &self.targets.events;
        let regarding = || Regarding::deployment(target.namespace(), target.name(), &workload.uid);
        for name in plan
            .adopted
            .iter()
            .filter(|name| !told.adopted.contains(name))
        {
            let note = format!("Service {name} leads through the sidecars");
            events.tell(regarding(), Reason::Adopted, note);
        }
        for one @ (name, refusal) in &plan.refused {
            if !told.refused.contains(one) {
                let note = format!("Service {name} is left as it is: {refusal}");
                events.tell(regarding(), Reason::NotAdopted, note);
            }
        }
        *told = Told {
            adopted: plan.adopted.clone(),
            refused: plan.refused.clone(),
        };
    }

    /// Starts to carry out a plan, unless one is under way or it is too early.
    fn start(&mut self, target: &TargetId, plan: Plan, now: Duration) {
        let due = match self.paces.get_mut(target) {
            Some(paces) => paces.due(plan, now),
            None => Paces::default().due(plan, now),
        };
        let Some((part, actions)) = due else {
            return;
        };
        if self.carrying >= AT_ONCE || !self.busy.insert(target.clone()) {
            return;
        }
        self.carrying += 1;
        self.turn = Some(target.clone());
        for action in &actions {
            let Action::FlipBack { service, ports, .. } = action else {
                continue;
            };
            for flip in ports {
                let key = (target.clone(), service.clone(), flip.port);
                self.rivals.entry(key).or_default().forget_value();
            }
        }
        let executor = self.executor.clone();
        let target = target.clone();
        self.jobs.spawn(async move {
            for action in &actions {
                tracing::debug!(%target, ?action, "Adoption");
                let done = Box::pin(executor.carry_out(&target, action)).await;
                let result = if done.is_ok() { "ok" } else { "error" };
                metrics::AUTOSCALER_ADOPTION
                    .counter(&[action.word(), result])
                    .increment(1);
                if let Err(error) = done {
                    return Outcome::Carried(target, part, Err((actions, error)));
                }
                tracing::info!(%target, step = action.word(), "Adoption");
            }
            Outcome::Carried(target, part, Ok(actions))
        });
    }

    fn take(&mut self, outcome: Outcome) {
        let now = clock::since_epoch();
        match outcome {
            Outcome::Asked(target, answer) => {
                self.busy.remove(&target);
                if let Some((standing, uid)) = answer {
                    self.outside.insert(
                        target,
                        Outside {
                            standing,
                            uid,
                            asked: now,
                        },
                    );
                }
            }
            Outcome::Carried(target, part, Ok(actions)) => {
                self.busy.remove(&target);
                self.carrying -= 1;
                let given_back = self.outside.get(&target);
                let given_back = given_back.filter(|_| part == Part::Services);
                if let Some(outside) = given_back.filter(|one| !one.uid.is_empty()) {
                    let regarding =
                        Regarding::deployment(target.namespace(), target.name(), &outside.uid);
                    if self.told.remove(&target).is_some() {
                        let note = "opted out: its Services are given back";
                        self.targets.events.tell(regarding, Reason::GivenBack, note);
                    }
                }
                let soon = *self.asked.borrow();
                let pace = self.paces.entry(target).or_default().of(part);
                pace.carried(now, actions, soon);
            }
            Outcome::Carried(target, part, Err((actions, error))) => {
                self.busy.remove(&target);
                self.carrying -= 1;
                if matches!(error, Failed::NoPortLeft(_))
                    && let Some(state) = self.targets.states.get(&target)
                {
                    let regarding =
                        Regarding::deployment(target.namespace(), target.name(), &state.uid);
                    self.targets
                        .events
                        .tell(regarding, Reason::NoPortLeft, error.to_string());
                }
                // Who leaves has little time.
                let soon = matches!(error, Failed::Conflict) || *self.asked.borrow();
                let pace = self.paces.entry(target.clone()).or_default().of(part);
                let pause = pace.failed(now, actions, soon);
                tracing::warn!(%target, %error, ?pause, "Adoption is tried again");
            }
        }
    }
}

/// Everybody, beginning after whoever had the last turn: those whose plans change nothing would keep all others waiting if
/// they always came first.
fn in_turn<'a>(
    targets: &'a BTreeSet<TargetId>,
    last: Option<&TargetId>,
) -> impl Iterator<Item = &'a TargetId> + use<'a> {
    let (before, after) = match last {
        Some(last) => (
            Some(targets.range(..=last)),
            targets.range((Bound::Excluded(last), Bound::Unbounded)),
        ),
        None => (None, targets.range::<TargetId, _>(..)),
    };
    after.chain(before.into_iter().flatten())
}

/// The ports of a Service that we lead elsewhere, and whether each does lead to the sidecars. UDP may have the same number as
/// TCP (HTTP/3), and is never ours: taken for the same port, each would seem to undo the other.
fn watched<'a>(
    service: &'a ServiceView,
    record: &'a Adopted,
) -> impl Iterator<Item = (u16, bool)> + 'a {
    let tcp = service.ports.iter().filter(|port| port.tcp);
    tcp.filter_map(|port| {
        let one = record.ports.iter().find(|one| one.port == port.port)?;
        let flipped = TargetPort::String(names::request_port_name(one.index));
        Some((port.port, port.target == flipped))
    })
}

/// Tells who keeps writing a Service back.
async fn name_rival(
    client: Client,
    events: Events,
    regarding: Regarding,
    service: Arc<ServiceView>,
) {
    let api: Api<Service> = Api::namespaced(client, &service.namespace);
    let name = &service.name;
    let asked = timeout(Duration::from_secs(5), api.get_metadata(name)).await;
    let fields = match asked {
        Ok(Ok(object)) => object.metadata.managed_fields.unwrap_or_default(),
        Ok(Err(_)) | Err(_) => Vec::new(),
    };
    let who = rival::writer(&fields, "ports").unwrap_or_else(|| "somebody".to_owned());
    let note = format!(
        "{who} keeps writing the targetPort of Service {name} back; it is left alone for 10 minutes"
    );
    events.tell(regarding, Reason::RivalWriter, note);
}

/// What there is of a Deployment that is not opted in. None if it is, and the watch is behind.
fn outside(object: Option<&Deployment>) -> Option<(Standing, String)> {
    let Some(object) = object else {
        return Some((Standing::Gone, String::new()));
    };
    if kubernetes::WorkloadView::of(object).is_some() {
        return None;
    }
    let replicas = object.spec.as_ref().and_then(|spec| spec.replicas);
    let ready = object.status.as_ref().and_then(|s| s.ready_replicas);
    let standing = Standing::Out {
        replicas: replicas.map_or(1, |count| count.try_into().unwrap_or(0)),
        ready: ready.unwrap_or(0) > 0,
    };
    Some((standing, object.metadata.uid.clone().unwrap_or_default()))
}

/// Looks which claimed ports activators listen on, for ever.
async fn probe(caches: Arc<Caches>, listening: Arc<Mutex<HashMap<u16, Duration>>>) {
    let mut tick = interval(LOOK);
    loop {
        tick.tick().await;
        let (live, activators) = caches.to_probe();
        let now = clock::since_epoch();
        let due: Vec<u16> = {
            let mut known = listening.lock();
            known.retain(|port, _| live.contains(port));
            live.into_iter()
                .filter(|port| {
                    let at = known.get(port);
                    at.is_none_or(|at| now.saturating_sub(*at) >= LISTENS)
                })
                .take(PROBES)
                .collect()
        };
        let asked = stream::iter(due).map(|port| {
            let activators = &activators;
            async move {
                for ip in activators {
                    if reaches(SocketAddr::new(*ip, port)).await {
                        return Some(port);
                    }
                }
                None
            }
        });
        let mut asked = std::pin::pin!(asked.buffer_unordered(32));
        while let Some(answer) = asked.next().await {
            if let Some(port) = answer {
                listening.lock().insert(port, clock::since_epoch());
            }
        }
    }
}

/// Ends a task with its owner.
#[derive(Debug)]
struct Ends(tokio::task::JoinHandle<()>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Action {
    /// What it does, for logs and metrics.
    fn word(&self) -> &'static str {
        match self {
            Self::Claim { .. } => "claim",
            Self::Reclaim { .. } => "reclaim",
            Self::KeepCompanion(_) => "companion",
            Self::KeepRelay(_) => "relay",
            Self::KeepSlice { .. } => "slice",
            Self::Flip { .. } => "flip",
            Self::FlipBack { .. } => "flip-back",
            Self::MarkLeaving { .. } => "mark-leaving",
            Self::Wake => "wake",
            Self::RemoveSlice { .. } => "remove-slice",
            Self::RemoveCompanion { .. } => "remove-companion",
            Self::Release { .. } => "release",
            Self::Forget { .. } => "forget",
        }
    }
}

#[cfg(test)]
mod tests {
    use kubernetes::AdoptedPort;
    use serde_json::json;

    use super::*;

    #[test]
    fn whoever_had_the_last_turn_comes_last() {
        let targets: BTreeSet<TargetId> =
            ["n/a", "n/b", "n/c"].map(|id| id.parse().unwrap()).into();
        let order = |last: Option<&str>| {
            let last = last.map(|last| last.parse().unwrap());
            let order = in_turn(&targets, last.as_ref());
            order.map(TargetId::name).collect::<Vec<_>>().join("")
        };
        assert_eq!(order(None), "abc");
        assert_eq!(order(Some("n/a")), "bca");
        assert_eq!(order(Some("n/c")), "abc");
        assert_eq!(order(Some("n/bb")), "cab", "one that is gone");
    }

    #[test]
    fn a_udp_port_of_the_same_number_is_not_taken_for_a_rival() {
        let object = json!({
            "metadata": {"namespace": "n", "name": "iris", "uid": "s"},
            "spec": {"selector": {"app": "iris"}, "ports": [
                {"name": "https", "port": 443, "targetPort": "rouse-0"},
                {"name": "http3", "port": 443, "protocol": "UDP", "targetPort": 8443},
            ]},
        });
        let object: Service = serde_json::from_value(object).unwrap();
        let service = ServiceView::of(&object).unwrap();
        let record = Adopted {
            ports: vec![AdoptedPort {
                port: 443,
                was: TargetPort::Int(8080),
                index: 0,
            }],
            ..Adopted::default()
        };
        let mut rival = Rival::default();
        for secs in 0..10 {
            for (_, flipped) in watched(&service, &record) {
                assert!(!rival.saw(Duration::from_secs(secs), flipped));
            }
        }
        let seen: Vec<_> = watched(&service, &record).collect();
        assert_eq!(seen, [(443, true)]);
    }

    #[test]
    fn a_deployment_that_the_watch_does_not_show_is_judged_by_itself() {
        assert!(matches!(outside(None), Some((Standing::Gone, _))));
        let object = |label: &str| -> Deployment {
            serde_json::from_value(json!({
                "metadata": {"namespace": "n", "name": "iris", "uid": "w", "labels": {"rouse.dev/enabled": label}},
                "spec": {"replicas": 0, "selector": {}, "template": {"spec": {"containers": [{"name": "m"}]}}},
                "status": {"readyReplicas": 1},
            }))
            .unwrap()
        };
        assert!(outside(Some(&object("true"))).is_none());
        let seen = outside(Some(&object("false"))).unwrap();
        assert!(matches!(
            seen.0,
            Standing::Out {
                replicas: 0,
                ready: true
            }
        ));
    }
}
