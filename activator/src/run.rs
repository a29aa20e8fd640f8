//! Starting, adding and removing workloads, stopping: the shell around everything else.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use dashmap::DashMap;
use futures_util::future::join_all;
use shared::metrics::Exporter;
use shared::{
    TargetId,
    http::serve::{self, Disposition, Server, bind},
    shutdown,
    stat::boot_number,
};
use tokio::{
    net::TcpListener,
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep, timeout_at},
};

use crate::{
    Config, Endpoints, Scale, Workload, WorkloadConfig,
    admin::{State, stats_port},
    conductor::conduct,
    forward::Front,
    timeline::Wake,
    workload::Process,
};

/// What has been given to pods gets this long to end, however much of the grace those who were held have used up.
const LEAST_PATIENCE: Duration = Duration::from_secs(2);
/// What the pods of a removed workload have gets this long: Knative's default limit of a request.
const REMOVED_PATIENCE: Duration = Duration::from_mins(5);
/// How often a stopping activator looks whether it may go.
const LOOK: Duration = Duration::from_millis(10);

mod listeners;

pub(crate) use self::listeners::Listeners;

/// A listener could not be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} ({what})")]
pub struct StartError {
    what: String,
    address: SocketAddr,
    source: io::Error,
}

/// A running activator.
#[derive(Debug)]
pub struct Activator {
    process: Arc<Process>,
    workloads: Arc<DashMap<TargetId, Running>>,
    stats: Option<Server>,
    cut: shutdown::Tx,
    cut_rx: shutdown::Rx,
    _tasks: JoinSet<()>,
}

/// A workload with its listeners and its task.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) workload: Arc<Workload>,
    listeners: Arc<Listeners>,
    conductor: JoinHandle<()>,
}

impl Activator {
    /// Starts without any workload.
    ///
    /// # Errors
    /// When the port for statistics cannot be had.
    pub fn start(
        config: Config,
        scale: Arc<dyn Scale>,
        metrics: Option<Exporter>,
    ) -> Result<Self, StartError> {
        let stats = config
            .stats
            .map(|address| listen("statistics", address))
            .transpose()?;
        let serve = config.serve.clone();
        let mut tasks = JoinSet::new();
        if let Some(tls) = config.tls.clone() {
            tasks.spawn(tls.follow());
        }
        if let Some(tls) = config.client.tls.clone() {
            tasks.spawn(tls.follow());
        }
        let process = Process::new(config, scale);
        let workloads = Arc::new(DashMap::new());
        let port = stats_port(State {
            workloads: Arc::clone(&workloads),
            process: Arc::clone(&process),
            metrics,
            boot: boot_number(),
        });
        let stats = stats
            .map(|listener| {
                Server::spawn(listener, serve, port).map_err(|source| StartError {
                    what: "statistics".into(),
                    address: SocketAddr::from(([0, 0, 0, 0], 0)),
                    source,
                })
            })
            .transpose()?;
        let (cut, cut_rx) = shutdown::channel();
        Ok(Self {
            process,
            workloads,
            stats,
            cut,
            cut_rx,
            _tasks: tasks,
        })
    }

    /// Where statistics are served.
    pub fn stats_address(&self) -> Option<SocketAddr> {
        self.stats.as_ref().map(Server::address)
    }

    /// Takes a workload in, with one listener for each of its request ports: the port says which workload and which of
    /// its ports a connection is for. Adding it again replaces it.
    ///
    /// # Errors
    /// The first listener that cannot be served.
    pub fn add(
        &self,
        config: WorkloadConfig,
        listeners: Vec<TcpListener>,
        endpoints: watch::Receiver<Arc<Endpoints>>,
    ) -> Result<Arc<Workload>, StartError> {
        let target = config.target.clone();
        let workload = Workload::new(config, Arc::clone(&self.process));
        let served = Arc::new(Listeners::default());
        for (port, listener) in listeners.into_iter().enumerate() {
            served.add(self.serve(&workload, port, listener)?);
        }
        let conductor = tokio::spawn(conduct(
            Arc::clone(&workload),
            endpoints,
            Arc::clone(&served),
        ));
        let running = Running {
            workload: Arc::clone(&workload),
            listeners: served,
            conductor,
        };
        if let Some(old) = self.workloads.insert(target, running) {
            old.end();
        }
        Ok(workload)
    }

    fn serve(
        &self,
        workload: &Arc<Workload>,
        port: usize,
        listener: TcpListener,
    ) -> Result<Server, StartError> {
        let address = listener
            .local_addr()
            .unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)));
        let front = Front {
            workload: Arc::clone(workload),
            port,
            cut: self.cut_rx.clone(),
        };
        let share = Some(Arc::clone(&workload.connections));
        let config = &self.process.config;
        let serve = serve::Config {
            tls: config.tls.clone(),
            ..config.serve.clone()
        };
        let served = Server::spawn_within(listener, serve, front, share);
        served.map_err(|source| StartError {
            what: workload.id().to_string(),
            address,
            source,
        })
    }

    /// One more listener for the request port `port` of a workload that was added. It may be the second of that port, for
    /// another family of addresses.
    ///
    /// # Errors
    /// When it cannot be served.
    pub fn open(
        &self,
        target: &TargetId,
        port: usize,
        listener: TcpListener,
    ) -> Result<(), StartError> {
        if let Some(running) = self.workloads.get(target) {
            let server = self.serve(&running.workload, port, listener)?;
            running.listeners.add(server);
        }
        Ok(())
    }

    /// Closes the listener at `address` of a workload. Its connections end with what they have begun; a request that comes
    /// on one of them later is never another workload's, since a connection belongs to the workload that accepted it.
    pub fn close(&self, target: &TargetId, address: SocketAddr) {
        let server = self
            .workloads
            .get(target)
            .and_then(|running| running.listeners.take(address));
        if let Some(server) = server {
            tokio::spawn(server.shut_down(REMOVED_PATIENCE));
        }
    }

    /// Whether `/readyz` says so. It does unless it was told otherwise.
    pub fn set_ready(&self, ready: bool) {
        self.process.unready.store(!ready, Relaxed);
    }

    /// From now on `/readyz` never says so again.
    pub fn leave(&self) {
        self.process.leaving.store(true, Relaxed);
    }

    /// Lets a workload go: what is held is answered 503, nothing new is taken, and what pods have may end.
    pub fn remove(&self, target: &TargetId) {
        if let Some((_, running)) = self.workloads.remove(target) {
            running.end();
        }
    }

    /// The last wakes, oldest first.
    pub fn wakes(&self) -> Vec<Wake> {
        self.process.wakes.lock().iter().cloned().collect()
    }

    /// Requests held now, over all workloads.
    pub fn held(&self) -> usize {
        self.workloads
            .iter()
            .map(|running| running.workload.held())
            .sum()
    }

    /// The first part of [`Activator::stop`], during which it can still be told of pods: no new connection is taken, and what is
    /// held gets up to `grace` to be handed out.
    pub async fn hand_out(&self, grace: Duration) {
        let end = Instant::now() + grace;
        self.process.stopping.store(true, Relaxed);
        for running in self.workloads.iter() {
            running.listeners.stop_accepting();
            running.listeners.set(Disposition::CloseAfterAnswer);
            // The conductor, which may just be deciding otherwise, sees to it that it stays so.
            running.workload.kick.notify_one();
        }
        let handed_out = async {
            while self.held() > 0 {
                sleep(LOOK).await;
            }
        };
        let _late = timeout_at(end, handed_out).await;
    }

    /// Stops: answers say `Connection: close`, what is held gets up to `grace` to be handed out, and what pods have what is
    /// left of it (but 2 s, if `grace` is no shorter) to end. Then all is cut.
    pub async fn stop(self, grace: Duration) {
        self.stop_patiently(grace, LEAST_PATIENCE.min(grace)).await;
    }

    /// As [`Activator::stop`], but what pods have gets no less than `patience` to end, also if nothing of `grace` is left.
    pub async fn stop_patiently(self, grace: Duration, patience: Duration) {
        let end = Instant::now() + grace;
        self.process.stopping.store(true, Relaxed);
        for running in self.workloads.iter() {
            running.listeners.set(Disposition::CloseAfterAnswer);
            // The conductor, which may just be deciding otherwise, sees to it that it stays so.
            running.workload.kick.notify_one();
        }
        let handed_out = async {
            while self.held() > 0 {
                sleep(LOOK).await;
            }
        };
        let _late = timeout_at(end, handed_out).await;
        let targets: Vec<_> = self
            .workloads
            .iter()
            .map(|running| running.key().clone())
            .collect();
        let patience = end.saturating_duration_since(Instant::now()).max(patience);
        let mut closing = JoinSet::new();
        for (_, running) in targets
            .iter()
            .filter_map(|target| self.workloads.remove(target))
        {
            running.conductor.abort();
            running.workload.remove();
            closing.spawn(close(running, patience));
        }
        while closing.join_next().await.is_some() {}
        self.cut.trigger();
    }
}

/// Lets the answers and tunnels of a workload end, for at most `patience`.
async fn close(running: Running, patience: Duration) {
    let end = Instant::now() + patience;
    // It must not change what happens to connections any more.
    let _aborted = running.conductor.await;
    let servers = running.listeners.take_all();
    for server in &servers {
        server.stop_accepting();
    }
    let ended = async {
        join_all(servers.iter().map(Server::closed_gracefully)).await;
        // What is left are tunnels, which are no connections of a server any more.
        while running.workload.leased() > 0 {
            sleep(LOOK).await;
        }
    };
    // Dropped after that, the servers cut what is left.
    let _late = timeout_at(end, ended).await;
}

impl Running {
    fn end(self) {
        self.conductor.abort();
        self.workload.remove();
        tokio::spawn(close(self, REMOVED_PATIENCE));
    }
}

/// Runs an activator for workloads that `add` takes in, until `stop` returns; then hands out what it holds for at most
/// `grace`.
///
/// # Errors
/// When a port cannot be had.
pub async fn run(
    config: Config,
    scale: Arc<dyn Scale>,
    metrics: Option<Exporter>,
    add: impl FnOnce(&Activator) -> Result<(), StartError>,
    stop: impl Future<Output = ()>,
    grace: Duration,
) -> Result<(), StartError> {
    let activator = Activator::start(config, scale, metrics)?;
    add(&activator)?;
    stop.await;
    tracing::info!(held = activator.held(), "Stopping");
    activator.stop(grace).await;
    Ok(())
}

/// Binds a listener for [`Activator::add`].
///
/// # Errors
/// Names the address and what it is for.
pub fn listen(what: &str, address: SocketAddr) -> Result<TcpListener, StartError> {
    bind(address).map_err(|source| StartError {
        what: what.to_owned(),
        address,
        source,
    })
}
