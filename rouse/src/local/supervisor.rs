//! The kubelet's part for one workload: as many replicas as its scale says, started, restarted and drained.
//!
//! One task owns everything. It is told of changes (the scale, a process that ended, a model that became ready) and tells
//! in turn what there is: to the activator (endpoints), to the autoscaler (the target) and to whoever watches.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use activator::{Endpoint, Endpoints, Failed};
use autoscaler::{Life, Pod, Target};
use autoscaler_core::TargetSpec;
use queue_proxy::{QueueProxy, drain, model::Model};
use shared::{TargetId, clock};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use super::{
    logs::Output,
    manifest,
    plan::Planned,
    ports::{Ports, Reserved},
    process::{Exit, Launcher, Replica},
};

mod backoff;

use backoff::{Backoff, Next};

/// Longest time that open requests of a replica that is taken away may go on, unless they may take longer. Knative's request timeout.
const DRAIN_LIMIT: Duration = Duration::from_mins(5);
/// How long a dead replica's queue-proxy stays, to give its open requests their answers.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// What a supervisor needs of its surroundings.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings {
    pub(crate) ports: Arc<Ports>,
    pub(crate) output: Output,
    pub(crate) launcher: Launcher,
    /// Folders put in front of `PATH`.
    pub(crate) path: Option<PathBuf>,
}

/// What there is of a workload, for people and tests.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// `spec.replicas`.
    pub wanted: u32,
    /// Replicas, in the order in which they were started.
    pub replicas: Vec<ReplicaView>,
    /// Why it cannot start, while it cannot.
    pub failed: Option<String>,
}

/// One replica.
#[derive(Clone, Debug)]
pub struct ReplicaView {
    /// UID of the pod that it stands for.
    pub uid: Arc<str>,
    /// The model takes requests.
    pub ready: bool,
    /// It is being taken away.
    pub terminating: bool,
    /// Where the model itself listens.
    pub model: SocketAddr,
    /// The request port of its queue-proxy.
    pub sidecar: SocketAddr,
    /// Process id of the model, once it runs.
    pub pid: Option<u32>,
    /// Its queue-proxy.
    pub proxy: Arc<QueueProxy>,
}

/// The ends that a supervisor is told by and tells.
pub(crate) struct Ends {
    pub(crate) scale: watch::Receiver<u32>,
    pub(crate) endpoints: watch::Sender<Arc<Endpoints>>,
    pub(crate) target: watch::Sender<Arc<Target>>,
    pub(crate) snapshot: watch::Sender<Arc<Snapshot>>,
    pub(crate) activator: Arc<activator::Workload>,
    pub(crate) stop: watch::Receiver<Stop>,
}

/// How to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Not yet.
    Run,
    /// Replicas get this long to end by themselves.
    Within(Duration),
}

/// One replica, owned by the supervisor.
struct Slot {
    number: u32,
    uid: Arc<str>,
    created: Instant,
    /// The same in milliseconds since 1970.
    began: u64,
    replica: Arc<Replica>,
    proxy: Arc<QueueProxy>,
    model: watch::Receiver<Model>,
    address: SocketAddr,
}

enum Event {
    /// The process ended.
    Ended(u32, Exit),
    /// The model's readiness changed.
    Changed,
    /// A replica that was taken away is gone.
    Gone,
}

/// The supervisor of one workload.
pub(crate) struct Supervisor {
    planned: Arc<Planned>,
    around: Surroundings,
    ends: Ends,
    slots: Vec<Slot>,
    /// Replicas that are being taken away: still shown, no longer counted.
    leaving: Vec<(ReplicaView, Arc<Replica>)>,
    backoff: Backoff,
    failed: Option<Failed>,
    started: u32,
    events: (mpsc::Sender<Event>, mpsc::Receiver<Event>),
    tasks: JoinSet<Option<Arc<str>>>,
}

impl Supervisor {
    pub(crate) fn new(planned: Arc<Planned>, around: Surroundings, ends: Ends) -> Self {
        Self {
            planned,
            around,
            ends,
            slots: Vec::new(),
            leaving: Vec::new(),
            backoff: Backoff::default(),
            failed: None,
            started: 0,
            // Each replica has at most a handful of events under way; a full channel only makes its watchers wait.
            events: mpsc::channel(64),
            tasks: JoinSet::new(),
        }
    }

    /// Runs until told to stop; then every replica has ended and was reaped.
    pub(crate) async fn run(mut self) {
        let mut scale = self.ends.scale.clone();
        let mut stop = self.ends.stop.clone();
        loop {
            let wanted = *scale.borrow_and_update();
            self.reconcile(wanted);
            self.publish(wanted);
            let retry = self.failed.as_ref().map(|failed| failed.retry_at);
            tokio::select! {
                changed = scale.changed() => if changed.is_err() { break },
                Some(event) = self.events.1.recv() => self.on(event),
                Some(gone) = self.tasks.join_next() => {
                    if let Ok(Some(uid)) = gone {
                        self.leaving.retain(|(view, _)| view.uid != uid);
                    }
                }
                () = until(retry) => self.failed = None,
                () = stopped(&mut stop) => break,
            }
        }
        let grace = match *self.ends.stop.borrow() {
            Stop::Within(grace) => grace,
            Stop::Run => Duration::ZERO,
        };
        let mut ending = JoinSet::new();
        let here = self.slots.drain(..).map(|slot| slot.replica);
        let leaving = self.leaving.drain(..).map(|(_, replica)| replica);
        for replica in here.chain(leaving) {
            ending.spawn(async move { replica.terminate(grace).await });
        }
        while ending.join_next().await.is_some() {}
        self.tasks.shutdown().await;
    }

    /// Starts or takes away replicas until there are as many as wanted.
    fn reconcile(&mut self, wanted: u32) {
        let wanted = wanted as usize;
        while self.slots.len() < wanted && self.failed.is_none() {
            if let Err(reason) = self.start() {
                let next = self.backoff.hopeless(Instant::now());
                self.fail(reason, String::new(), next);
            }
        }
        while self.slots.len() > wanted {
            // The one whose end disturbs least: not ready first, then the fewest requests, then the youngest. On a
            // cluster the same order is brought about by pod-deletion-cost.
            let victim = (0..self.slots.len()).min_by_key(|at| {
                let slot = &self.slots[*at];
                (
                    slot.model.borrow().ready,
                    slot.proxy.load(),
                    std::cmp::Reverse(slot.number),
                )
            });
            if let Some(at) = victim {
                let slot = self.slots.remove(at);
                self.take_away(slot);
            }
        }
    }

    /// Starts one replica: its process first, since that takes longest, then its queue-proxy.
    fn start(&mut self) -> Result<(), String> {
        let planned = &self.planned;
        let container = &planned.workload.container;
        let mut addresses: BTreeMap<u16, SocketAddr> = BTreeMap::new();
        let mut ports = Vec::new();
        for port in &container.ports {
            let reserved = self.around.ports.next().ok_or("no loopback port is free")?;
            addresses.insert(port.port, reserved.address);
            ports.push(reserved);
        }
        let local = |port: u16| addresses.get(&port).copied();
        let variables =
            manifest::port_variables(container, |port| local(port).map_or(0, |a| a.port()));
        let mut command = manifest::expand(container, &variables);
        if let Some(front) = &self.around.path
            && !command.env.iter().any(|(name, _)| name == "PATH")
        {
            let rest = std::env::var_os("PATH").unwrap_or_default();
            let joined = std::env::join_paths(
                std::iter::once(front.clone()).chain(std::env::split_paths(&rest)),
            );
            let joined = joined.map_err(|error| format!("PATH cannot be set: {error}"))?;
            command
                .env
                .push(("PATH".to_owned(), joined.to_string_lossy().into_owned()));
        }
        self.started += 1;
        let number = self.started;
        let created = Instant::now();
        let sink = self.around.output.replica(planned.id.name(), number);
        let replica = Replica::spawn(&self.around.launcher, &command, sink)
            .map_err(|error| error.to_string())?;
        let uid: Arc<str> = format!("{}-{number}", planned.id.name()).into();
        let config = proxy_config(planned, &uid, &addresses)
            .ok_or("a Service names a port that the container has not")?;
        let address = config
            .ports
            .first()
            .map_or_else(any_port, |port| port.upstream);
        let proxy = QueueProxy::start(config, None).map_err(|error| error.to_string())?;
        let slot = Slot {
            number,
            uid,
            created,
            began: clock::unix_millis(),
            replica: Arc::new(replica),
            model: proxy.model(),
            proxy: Arc::new(proxy),
            address,
        };
        self.watch(&slot, ports);
        self.slots.push(slot);
        Ok(())
    }

    /// Reports what happens to a replica by itself, and keeps its ports for it as long as its process lives.
    fn watch(&mut self, slot: &Slot, ports: Vec<Reserved>) {
        let (events, replica, number) = (
            self.events.0.clone(),
            Arc::clone(&slot.replica),
            slot.number,
        );
        self.tasks.spawn(async move {
            // Under load a model can be ready before we are told its process id.
            replica.started().await;
            let _gone = events.send(Event::Changed).await;
            let exit = replica.wait().await;
            drop(ports);
            // A supervisor that is gone needs no news.
            let _gone = events.send(Event::Ended(number, exit)).await;
            None
        });
        let (events, mut model) = (self.events.0.clone(), slot.model.clone());
        self.tasks.spawn(async move {
            while model.changed().await.is_ok() {
                if events.send(Event::Changed).await.is_err() {
                    break;
                }
            }
            None
        });
    }

    fn on(&mut self, event: Event) {
        let Event::Ended(number, exit) = event else {
            return; // what changed is seen when it is published
        };
        let Some(at) = self.slots.iter().position(|slot| slot.number == number) else {
            return; // it was being taken away
        };
        let slot = self.slots.remove(at);
        let ready_for = slot.model.borrow().first_ready.map(|at| at.elapsed());
        let never_ran = matches!(exit, Exit::NotStarted(_));
        let next = if never_ran {
            self.backoff.hopeless(Instant::now())
        } else {
            self.backoff.ended(Instant::now(), ready_for)
        };
        let when = if never_ran || ready_for.is_some() {
            ""
        } else {
            " before it was ready"
        };
        let what = format!("{}/{} {exit}{when}", self.planned.id.name(), slot.number);
        self.around.output.line(what.clone());
        if next != Next::Now {
            let before = if never_ran {
                ""
            } else {
                ", as did the one before it"
            };
            let tail = slot.replica.stderr_tail();
            let detail = tail.iter().flat_map(|line| ["  ", line, "\n"]).collect();
            self.fail(format!("{what}{before}"), detail, next);
        }
        self.bury(slot);
    }

    fn fail(&mut self, reason: String, detail: String, next: Next) {
        let Next::At(retry_at) = next else { return };
        let pause = retry_at
            .saturating_duration_since(Instant::now())
            .as_secs_f64();
        self.around.output.line(format!(
            "{}: cannot start: {reason}; next attempt in {pause:.0} s",
            self.planned.id.name()
        ));
        self.failed = Some(Failed {
            reason,
            detail,
            retry_at,
        });
    }

    /// A replica that died: its queue-proxy still gives requests their answers, those on their way to it included.
    fn bury(&mut self, slot: Slot) {
        let activator = Arc::clone(&self.ends.activator);
        self.tasks.spawn(async move {
            let _late = timeout(LAST_ANSWERS, let_go(&activator, &slot)).await;
            Some(slot.uid)
        });
    }

    /// A replica that is not wanted any more: no new requests, open ones end, then the process is asked to go.
    fn take_away(&mut self, slot: Slot) {
        if let Some(at) = slot.model.borrow().first_ready {
            self.backoff.served(at.elapsed());
        }
        let activator = Arc::clone(&self.ends.activator);
        let grace = self.planned.workload.termination_grace;
        let drain_limit = drain_limit(&self.planned.spec);
        let mut view = slot.view();
        view.terminating = true;
        self.leaving.push((view, Arc::clone(&slot.replica)));
        let events = self.events.0.clone();
        self.tasks.spawn(async move {
            {
                let mut drain = pin!(let_go(&activator, &slot));
                tokio::select! {
                    _late = timeout(drain_limit, drain.as_mut()) => {}
                    // A process that died meanwhile answers nothing more, but its queue-proxy has still to say so.
                    _exit = slot.replica.wait() => {
                        let _late = timeout(LAST_ANSWERS, drain.as_mut()).await;
                    }
                }
            }
            slot.replica.terminate(grace).await;
            let _gone = events.send(Event::Gone).await;
            Some(slot.uid)
        });
    }

    fn publish(&mut self, wanted: u32) {
        // While a replica is here, ready or on its way, there is something to wait for. When the next one may be started is
        // another matter.
        let failed = self.failed.clone().filter(|_| self.slots.is_empty());
        let stays = |slot: &Slot, terminating| Endpoint {
            uid: Arc::clone(&slot.uid),
            address: slot.proxy.activator_address().unwrap_or(slot.address),
            terminating,
            created: Some(slot.created),
            scheduled: None,
        };
        let endpoints = Endpoints {
            replicas: wanted,
            pods: self.slots.iter().map(|slot| stays(slot, false)).collect(),
            failed: failed.clone(),
        };
        set(&self.ends.endpoints, endpoints);
        let pods = self.slots.iter().map(|slot| {
            let model = *slot.model.borrow();
            Pod {
                uid: Arc::clone(&slot.uid),
                stats: slot.proxy.stats_address().unwrap_or(slot.address),
                ready: model.ready,
                starting: model.first_ready.is_none(),
                // One that died is no pod any more: until it is started again, one that was asked for is missing.
                failed: false,
                life: slot.life(),
            }
        });
        let target = Target {
            spec: Arc::new(self.planned.spec.clone()),
            replicas: wanted,
            pods: pods.collect(),
            reachable: true,
        };
        set(&self.ends.target, target);
        let leaving = self.leaving.iter().map(|(view, _)| view.clone());
        self.ends.snapshot.send_replace(Arc::new(Snapshot {
            wanted,
            replicas: self.slots.iter().map(Slot::view).chain(leaving).collect(),
            failed: failed.map(|failed| failed.reason),
        }));
    }
}

/// First the activator lets go of the replica, so that no request can be on its way there, then the replica drains.
async fn let_go(activator: &activator::Workload, slot: &Slot) {
    activator.retire(&slot.uid).await;
    slot.proxy.begin_drain();
    slot.proxy.drained(NOW).await;
}

/// A drain without waiting for anyone to learn of it: here all learn at once.
const NOW: drain::Rule = drain::Rule {
    settle: Duration::ZERO,
    quiet: Duration::ZERO,
};

impl Slot {
    fn life(&self) -> Life {
        let ready = self.model.borrow().first_ready;
        let took = ready.map(|at| at.saturating_duration_since(self.created));
        let took = took.map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        Life {
            // Replicas of one run of local mode are all alike, and nothing has to be pulled.
            template: Arc::default(),
            began: Some(self.began),
            ready: took.map(|took| self.began.saturating_add(took)),
            ..Life::default()
        }
    }

    fn view(&self) -> ReplicaView {
        ReplicaView {
            uid: Arc::clone(&self.uid),
            ready: self.model.borrow().ready,
            terminating: false,
            model: self.address,
            sidecar: self
                .proxy
                .addresses()
                .first()
                .copied()
                .unwrap_or(self.address),
            pid: self.replica.pid(),
            proxy: Arc::clone(&self.proxy),
        }
    }
}

/// How long open requests of a replica that is taken away may go on.
fn drain_limit(spec: &TargetSpec) -> Duration {
    spec.request_timeout.unwrap_or_default().max(DRAIN_LIMIT)
}

/// The queue-proxy of a replica whose container ports are at `addresses`.
fn proxy_config(
    planned: &Planned,
    uid: &str,
    addresses: &BTreeMap<u16, SocketAddr>,
) -> Option<queue_proxy::Config> {
    let any = any_port();
    let ports: Option<Vec<_>> = planned
        .ports
        .iter()
        .map(|(_, port)| {
            Some(queue_proxy::config::Port {
                listen: any,
                upstream: *addresses.get(port)?,
            })
        })
        .collect();
    let ports = ports?;
    let id: TargetId = planned.id.clone();
    let limit = planned.spec.container_concurrency;
    let mut config = queue_proxy::Config::new(id, uid.to_owned(), *ports.first()?, limit);
    config.ports = ports;
    config.activator = Some(any);
    config.stats = Some(any);
    config.grace = drain_limit(&planned.spec);
    config.max_connection_age = planned.spec.max_connection_age;
    config
        .probe_paths
        .clone_from(&planned.spec.opt_ins.probe_paths);
    config.openai_errors = planned.spec.opt_ins.openai_errors;
    config.timeouts = queue_proxy::timeouts::Timeouts {
        request: planned.spec.request_timeout,
        response_start: planned.spec.response_start_timeout,
        idle: planned.spec.idle_timeout,
    };
    // A program that ended is replaced by one on another port: nobody comes back to this one.
    config.restart_patience = Duration::ZERO;
    config.model =
        queue_proxy::model::Config::new(planned.probe.0.clone(), *addresses.get(&planned.probe.1)?);
    if let Some(probe) = &planned.workload.container.readiness_probe {
        config.model.period = probe.period;
        config.model.timeout = probe.timeout;
        config.model.failure_threshold = probe.failure_threshold;
        config.model.success_threshold = probe.success_threshold;
    }
    Some(config)
}

/// Any free port of this machine alone.
fn any_port() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

/// Publishes a value if it differs from the last.
fn set<T: PartialEq>(sender: &watch::Sender<Arc<T>>, value: T) {
    sender.send_if_modified(|current| {
        let differs = **current != value;
        if differs {
            *current = Arc::new(value);
        }
        differs
    });
}

async fn stopped(stop: &mut watch::Receiver<Stop>) {
    // An error means that whoever could say it is gone, which is a stop too.
    let _gone = stop.wait_for(|stop| *stop != Stop::Run).await;
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
