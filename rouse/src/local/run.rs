//! Everything of local mode, tied together in one process.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use activator::{Activator, Endpoints, InPath, WorkloadConfig, config::asked_for, timeline::Wake};
use autoscaler::{Controller, History, Holds, Target, admin as decisions};
use autoscaler_core::{Learned, wake_replicas};
use dashmap::DashMap;
use shared::metrics::Exporter;
use shared::{
    TargetId,
    http::serve::{self, Server, bind},
};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

use super::{
    logs::Output,
    plan::{PlanError, Planned, plan},
    ports::Ports,
    process::Launcher,
    scale::LocalScale,
    supervisor::{Ends, Snapshot, Stop, Supervisor, Surroundings},
    watch::{publish_gauges, show_status},
};

/// First port for workloads without a Service.
const DEFAULT_PORT: u16 = 8080;
/// Most bytes of request bodies held for all workloads: a laptop's share.
const HELD_BYTES: usize = 128 * 1024 * 1024;

/// How long requests may go on when everything stops, before processes are asked to end.
const REQUESTS_GRACE: Duration = Duration::from_secs(2);

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// YAML files.
    pub files: Vec<PathBuf>,
    /// First port for workloads without a Service; the next free one is taken.
    pub port: Option<u16>,
    /// Listen on any free ports instead of those of Services.
    pub any_port: bool,
    /// Port for decisions, wakes and metrics; any free one if not given.
    pub admin: Option<SocketAddr>,
    /// Keys of config-autoscaler; they win over the files.
    pub settings: BTreeMap<String, String>,
    /// Annotations for every workload; they win over the files.
    pub annotations: BTreeMap<String, String>,
    /// A folder in front of `PATH`, for replicas.
    pub path: Option<PathBuf>,
    /// What starts replicas: this program, unless in tests.
    pub launcher: Launcher,
    /// Whether the live status is shown.
    pub status: bool,
}

impl Options {
    /// The defaults for `files`.
    pub fn new(files: Vec<PathBuf>) -> Self {
        Self {
            files,
            port: None,
            any_port: false,
            admin: None,
            settings: BTreeMap::new(),
            annotations: BTreeMap::new(),
            path: None,
            launcher: Launcher::this_program(),
            status: true,
        }
    }
}

/// Why local mode did not start. Nothing runs then.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The files or settings are wrong; a line for each mistake.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A port cannot be had.
    #[error("cannot listen on {address} for {what}: {source}; {hint}")]
    Listen {
        /// Which port.
        address: SocketAddr,
        /// What it is for.
        what: String,
        /// The system's reason.
        source: std::io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// No port is free.
    #[error(
        "no port from {from} to 65535 is free for {what}; choose another first port with --port"
    )]
    NoPort {
        /// First port tried.
        from: u16,
        /// What it is for.
        what: String,
    },
    /// The activator could not start.
    #[error(transparent)]
    Activator(#[from] activator::StartError),
}

/// A running local mode. Dropping it kills all replicas; see [`Local::stop`] for the polite way.
#[derive(Debug)]
pub struct Local {
    /// The workloads, in the order of the files.
    pub workloads: Vec<LocalWorkload>,
    /// Where decisions and metrics are served: `/debug/decisions`, `/debug/decisions/NAMESPACE/NAME`, `/metrics`.
    pub admin: SocketAddr,
    /// Where wakes and what is held are served: `/debug/wakes`, `/stat`.
    pub activator_admin: Option<SocketAddr>,
    activator: Activator,
    controllers: Arc<DashMap<TargetId, Controller>>,
    scale: LocalScale,
    stop: watch::Sender<Stop>,
    supervisors: JoinSet<()>,
    tasks: JoinSet<()>,
    _admin: Server,
}

/// One workload of a running local mode.
#[derive(Clone, Debug)]
pub struct LocalWorkload {
    /// Its identity.
    pub id: TargetId,
    /// Where clients connect, one address per request port.
    pub addresses: Vec<SocketAddr>,
    /// What there is of it, and changes.
    pub snapshot: watch::Receiver<Arc<Snapshot>>,
    /// The last decisions about it.
    pub decisions: History,
    /// Its part of the activator.
    pub activator: Arc<activator::Workload>,
}

impl Local {
    /// Checks everything, binds every port, then starts.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running.
    pub fn start(
        options: &Options,
        output: &Output,
        metrics: Option<Exporter>,
    ) -> Result<Self, StartError> {
        let plan = plan(&options.files, &options.settings, &options.annotations)?;
        for warning in &plan.warnings {
            output.line(format!("warning: {warning}"));
        }
        let mut next = options.port.unwrap_or(DEFAULT_PORT);
        let listeners = plan
            .workloads
            .iter()
            .map(|planned| listen(planned, options.any_port, &mut next))
            .collect::<Result<Vec<_>, _>>()?;
        let admin = options
            .admin
            .unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let admin_listener = bind(admin).map_err(|source| StartError::Listen {
            address: admin,
            what: "decisions and metrics".to_owned(),
            source,
            hint: "choose another port with --admin",
        })?;

        let scale = LocalScale::new(
            plan.workloads
                .iter()
                .map(|planned| (planned.id.clone(), planned.replicas)),
        );
        let config = activator::Config {
            stats: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
            max_held_bytes: HELD_BYTES,
            explain_failures: true,
            ..activator::Config::default()
        };
        let activator = Activator::start(config, Arc::new(scale.clone()), metrics.clone())?;
        let controllers = Arc::new(DashMap::new());
        let port = decisions::port(Arc::clone(&controllers), metrics);
        let admin_server =
            Server::spawn(admin_listener, serve::Config::default(), port).map_err(|source| {
                StartError::Listen {
                    address: admin,
                    what: "decisions and metrics".to_owned(),
                    source,
                    hint: "choose another port with --admin",
                }
            })?;

        let holds = Holds::default();
        let (_fixed, activators) = watch::channel(activator.stats_address().into_iter().collect());
        let mut tasks = JoinSet::new();
        tasks.spawn(holds.clone().watch(activators));
        let around = Surroundings {
            ports: Arc::new(Ports::new()),
            output: output.clone(),
            launcher: options.launcher.clone(),
            path: options.path.clone(),
        };
        let (stop, _) = watch::channel(Stop::Run);
        let mut started = Self {
            workloads: Vec::new(),
            admin: admin_server.address(),
            activator_admin: activator.stats_address(),
            activator,
            controllers,
            scale: scale.clone(),
            stop,
            supervisors: JoinSet::new(),
            tasks,
            _admin: admin_server,
        };
        for (planned, listeners) in plan.workloads.into_iter().zip(listeners) {
            started.add(planned, listeners, &scale, &holds, &around)?;
        }
        let workloads = started.workloads.clone();
        started.tasks.spawn(publish_gauges(workloads.clone()));
        if options.status {
            started.tasks.spawn(show_status(workloads, output.clone()));
        }
        Ok(started)
    }

    fn add(
        &mut self,
        planned: Planned,
        listeners: Vec<TcpListener>,
        scale: &LocalScale,
        holds: &Holds,
        around: &Surroundings,
    ) -> Result<(), StartError> {
        let id = planned.id.clone();
        let addresses = listeners
            .iter()
            .filter_map(|listener| listener.local_addr().ok())
            .collect();
        let Some(replicas) = scale.watch(&id) else {
            unreachable!("the scale was made from the same plan")
        };
        let (endpoints, endpoints_rx) = watch::channel(Arc::new(Endpoints::default()));
        let (target, target_rx) = watch::channel(Arc::new(Target {
            spec: Arc::new(planned.spec.clone()),
            replicas: planned.replicas,
            pods: Vec::new(),
            reachable: true,
        }));
        let (snapshot, snapshot_rx) = watch::channel(Arc::new(Snapshot::default()));
        let config = WorkloadConfig {
            container_concurrency: planned.spec.container_concurrency,
            wake_replicas: wake_replicas(&planned.spec).get(),
            max_held: planned.spec.max_held as usize,
            max_cold_start: planned.spec.max_cold_start,
            in_path: InPath::Always,
            opt_ins: asked_for(&planned.spec.opt_ins),
            ..WorkloadConfig::new(id.clone())
        };
        let workload = self.activator.add(config, listeners, endpoints_rx)?;
        let controller = Controller::spawn(
            id.clone(),
            target_rx,
            holds.clone(),
            Arc::new(scale.clone()),
            Learned::default(),
        );
        self.workloads.push(LocalWorkload {
            id: id.clone(),
            addresses,
            snapshot: snapshot_rx,
            decisions: controller.history().clone(),
            activator: Arc::clone(&workload),
        });
        self.controllers.insert(id.clone(), controller);
        let ends = Ends {
            scale: replicas,
            endpoints,
            target,
            snapshot,
            activator: workload,
            stop: self.stop.subscribe(),
        };
        let told = TellsOfPanic {
            id,
            output: around.output.clone(),
        };
        let supervisor = Supervisor::new(Arc::new(planned), around.clone(), ends);
        self.supervisors.spawn(async move {
            let _told = told;
            supervisor.run().await;
        });
        Ok(())
    }

    /// The workload of this name.
    pub fn workload(&self, name: &str) -> Option<&LocalWorkload> {
        self.workloads
            .iter()
            .find(|workload| workload.id.name() == name)
    }

    /// The last wakes, oldest first.
    pub fn wakes(&self) -> Vec<Wake> {
        self.activator.wakes()
    }

    /// The decisions about a workload, oldest first.
    pub fn decisions(&self, id: &TargetId) -> Vec<autoscaler::Explained> {
        self.controllers
            .get(id)
            .map(|controller| controller.history().explained())
            .unwrap_or_default()
    }

    /// Changes the replicas of a workload from `from` to `to`, as `kubectl scale --current-replicas` does. False if there
    /// are not `from`, or there is no such workload. The autoscaler goes on deciding and may change it again.
    pub fn scale(&self, id: &TargetId, from: u32, to: u32) -> bool {
        self.scale.change(id, from, to).unwrap_or(false)
    }

    /// Stops: requests, held or open, get up to 2 s of `grace` to end, then every process gets `grace` to end. Returns when
    /// every process has ended and was reaped.
    pub async fn stop(mut self, grace: Duration) {
        self.tasks.abort_all();
        self.controllers.clear();
        // Requests first, so that processes are not taken away from under them.
        self.activator.stop(grace.min(REQUESTS_GRACE)).await;
        self.stop.send_replace(Stop::Within(grace));
        while self.supervisors.join_next().await.is_some() {}
    }
}

/// A mistake of ours in the part that starts replicas leaves their workload without any: that must not go unnoticed. Its
/// requests are refused from then on, since the activator's view of it has ended.
struct TellsOfPanic {
    id: TargetId,
    output: Output,
}

impl Drop for TellsOfPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.output.line(format!(
                "{}: its replicas are not looked after any more, because of a mistake in Rouse: restart it and report this",
                self.id
            ));
        }
    }
}

/// Binds the ports of a workload: those of its Services unless any will do, else the next free one from `next` on.
fn listen(planned: &Planned, any: bool, next: &mut u16) -> Result<Vec<TcpListener>, StartError> {
    let what = planned.id.to_string();
    let bind_port = |port: u16| bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    planned
        .ports
        .iter()
        .map(|(port, _)| {
            let wanted = if any { Some(0) } else { *port };
            if let Some(port) = wanted {
                return bind_port(port).map_err(|source| StartError::Listen {
                    address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
                    what: format!("the Service of {what}"),
                    source,
                    hint: "stop what uses it or change the Service's port",
                });
            }
            let from = *next;
            let found = (from..=u16::MAX).find_map(|port| Some((port, bind_port(port).ok()?)));
            let (port, listener) = found.ok_or_else(|| StartError::NoPort {
                from,
                what: what.clone(),
            })?;
            *next = port.saturating_add(1);
            Ok(listener)
        })
        .collect()
}
