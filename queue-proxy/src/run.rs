//! Starting, draining and stopping: the shell around everything else.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::future::join_all;
use shared::metrics::Exporter;
use shared::{
    http::serve::{self, Server, bind},
    metrics as names, shutdown,
};
use tokio::{
    net::TcpListener,
    sync::watch,
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use crate::{
    Config,
    admin::{LifecyclePort, stats_port},
    drain::Rule,
    draining::{Drain, close_when_draining},
    model::{self, Model},
    pod::Pod,
    proxy::{Front, FrontKind},
    stats::Stats,
};

/// How long hooks that are being answered keep a stopping queue-proxy.
const HOOK_PATIENCE: Duration = Duration::from_secs(1);

/// A listener could not be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} ({what})")]
pub struct StartError {
    what: &'static str,
    address: SocketAddr,
    source: io::Error,
}

/// A running queue-proxy. Dropping it cuts everything; see [`QueueProxy::begin_drain`] for the other way.
#[derive(Debug)]
pub struct QueueProxy {
    pod: Arc<Pod>,
    fronts: Vec<Server>,
    activator: Option<Server>,
    stats: Option<Server>,
    lifecycle: Option<Server>,
    drain: Arc<Drain>,
    cut: shutdown::Tx,
    _tasks: JoinSet<()>,
}

impl QueueProxy {
    /// Binds every port, then starts.
    ///
    /// # Errors
    /// The first port that cannot be had; nothing runs then.
    pub fn start(config: Config, metrics: Option<Exporter>) -> Result<Self, StartError> {
        let fronts: Vec<TcpListener> = config
            .ports
            .iter()
            .map(|port| listen("requests", port.listen))
            .collect::<Result<_, _>>()?;
        let activator = config
            .activator
            .map(|a| listen("activators", a))
            .transpose()?;
        let stats = config.stats.map(|a| listen("statistics", a)).transpose()?;
        let lifecycle = config
            .lifecycle
            .clone()
            .map(|(a, token)| Ok((listen("life cycle", a)?, token)))
            .transpose()?;

        let (cut, cut_rx) = shutdown::channel();
        let (model_tx, model) = watch::channel(Model::default());
        let (serve, activator_serve) = (config.serve.clone(), config.activator_serve());
        let front_serve = config.front_serve();
        let model_config = config.model.clone();
        let (tls, model_tls) = (config.tls.clone(), config.client.tls.clone());
        let (rule, grace) = (config.drain, config.grace);
        let pod = Pod::new(config, model, cut_rx);
        let drain = Arc::new(Drain::new(rule, grace, Arc::clone(&pod.stats)));
        let mut tasks = JoinSet::new();
        tasks.spawn(model::watch(model_config, model_tx));
        tasks.spawn(open_when_ready(Arc::clone(&pod)));
        tasks.spawn(expire_tickets(Arc::clone(&pod)));
        if let Some(tls) = tls {
            tasks.spawn(tls.follow());
        }
        if let Some(tls) = model_tls {
            tasks.spawn(tls.follow());
        }

        let front = |kind| Front {
            pod: Arc::clone(&pod),
            kind,
        };
        let fronts: Vec<Server> = fronts
            .into_iter()
            .enumerate()
            .map(|(index, listener)| {
                spawn(
                    "requests",
                    listener,
                    front_serve.clone(),
                    front(FrontKind::Service(index)),
                )
            })
            .collect::<Result<_, _>>()?;
        let activator = activator
            .map(|l| {
                spawn(
                    "activators",
                    l,
                    activator_serve,
                    front(FrontKind::Activator),
                )
            })
            .transpose()?;
        let disposers = fronts
            .iter()
            .chain(&activator)
            .map(Server::disposer)
            .collect();
        tasks.spawn(close_when_draining(Arc::clone(&drain), disposers));
        let port = stats_port(Arc::clone(&pod), metrics);
        let stats = stats
            .map(|l| spawn("statistics", l, serve.clone(), port))
            .transpose()?;
        let lifecycle = lifecycle
            .map(|(l, token)| {
                let drain = Arc::clone(&drain);
                spawn("life cycle", l, serve, LifecyclePort { drain, token })
            })
            .transpose()?;
        Ok(Self {
            pod,
            fronts,
            activator,
            stats,
            lifecycle,
            drain,
            cut,
            _tasks: tasks,
        })
    }

    /// Where the request ports listen.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.fronts.iter().map(Server::address).collect()
    }

    /// Where the port for activators listens.
    pub fn activator_address(&self) -> Option<SocketAddr> {
        self.activator.as_ref().map(Server::address)
    }

    /// Where statistics are served.
    pub fn stats_address(&self) -> Option<SocketAddr> {
        self.stats.as_ref().map(Server::address)
    }

    /// Where the life cycle port listens.
    pub fn lifecycle_address(&self) -> Option<SocketAddr> {
        self.lifecycle.as_ref().map(Server::address)
    }

    /// What is known of the model, and changes of it.
    pub fn model(&self) -> watch::Receiver<Model> {
        self.pod.model.clone()
    }

    /// Requests that are here in any form.
    pub fn open(&self) -> u64 {
        self.pod.stats.open()
    }

    /// In flight and waiting, probe paths left out.
    pub fn load(&self) -> u64 {
        self.pod.stats.load()
    }

    /// The pod's account.
    pub fn stats(&self) -> &Stats {
        &self.pod.stats
    }

    /// The pod is going away: connections are closed after their next answer, requests are still served.
    pub fn begin_drain(&self) {
        self.drain.begin();
    }

    /// Waits until drained by `rule`, at most for the configured grace period.
    pub async fn drained(&self, rule: Rule) {
        self.drain.drained(rule).await;
    }

    /// Closes what is idle, gives answers and tunnels `patience` to end, then cuts. Returns how many requests were cut.
    pub async fn stop(self, patience: Duration) -> u64 {
        let Self {
            pod,
            fronts,
            activator,
            lifecycle,
            cut,
            ..
        } = self;
        let closing: Vec<_> = fronts.into_iter().chain(activator).collect();
        for server in &closing {
            server.stop_accepting();
        }
        let ended = async {
            join_all(closing.iter().map(Server::closed_gracefully)).await;
            // Tunnels are no connections of a server any more.
            while pod.stats.open() > 0 {
                sleep(Duration::from_millis(5)).await;
            }
        };
        let _late = timeout(patience, ended).await;
        // Counted before anything is cut, or some would be gone already.
        let late = pod.stats.open();
        drop(closing);
        cut.trigger();
        if late > 0 {
            names::PROXY_CUT
                .counter(&[&pod.config.target.to_string()])
                .increment(late);
        }
        // A model's hook that waits for the drain is about to learn that it is over.
        if let Some(lifecycle) = lifecycle {
            lifecycle.shut_down(HOOK_PATIENCE).await;
        }
        late
    }
}

/// Runs a queue-proxy until `stop` returns, then drains. `stop` says whether anyone else has to learn that the pod is
/// going: only then the drain waits for them. Returns how many requests were cut.
///
/// # Errors
/// When a port cannot be had.
pub async fn run(
    config: Config,
    metrics: Option<Exporter>,
    stop: impl Future<Output = bool>,
) -> Result<u64, StartError> {
    let rule = config.drain;
    let proxy = QueueProxy::start(config, metrics)?;
    for (port, address) in proxy.pod.config.ports.iter().zip(proxy.addresses()) {
        tracing::info!(%address, upstream = %port.upstream, "Taking requests");
    }
    let propagate = stop.await;
    tracing::info!(open = proxy.open(), "Draining");
    proxy.begin_drain();
    let rule = if propagate {
        rule
    } else {
        Rule {
            settle: Duration::ZERO,
            quiet: Duration::ZERO,
        }
    };
    proxy.drained(rule).await;
    Ok(proxy.stop(Duration::from_secs(2)).await)
}

fn listen(what: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    bind(address).map_err(|source| StartError {
        what,
        address,
        source,
    })
}

fn spawn<H: serve::Handler>(
    what: &'static str,
    listener: TcpListener,
    config: serve::Config,
    handler: H,
) -> Result<Server, StartError> {
    Server::spawn(listener, config, handler).map_err(|source| StartError {
        what,
        address: SocketAddr::from(([0, 0, 0, 0], 0)),
        source,
    })
}

/// Lets waiting requests in once the model was ready for the first time.
async fn open_when_ready(pod: Arc<Pod>) {
    let mut model = pod.model.clone();
    if model.wait_for(|m| m.first_ready.is_some()).await.is_ok() {
        pod.slots.open();
    }
}

async fn expire_tickets(pod: Arc<Pod>) {
    let mut tick = interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        pod.tickets.expire(tick.tick().await);
    }
}
