//! The test bed: an activator on real sockets, a scale that is only a record, and pods with real queue-proxies.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use activator::{
    Activator, BoxFuture, Config, Endpoint, Endpoints, InPath, Scale, WakeError, WakeOutcome,
    Workload, WorkloadConfig, listen,
};
use parking_lot::Mutex;
use queue_proxy::{QueueProxy, config::Port};
use shared::{TargetId, metrics::Exporter};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use crate::{http1::PATIENCE, model::Model};

/// What the scale does with the next wake.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Fail,
    Hang,
    NotAtZero,
}

/// Through which an activator is told what pods there are.
type Teller = watch::Sender<Arc<Endpoints>>;

/// A scale that records wakes and shows their effect at once.
#[derive(Debug, Default)]
pub(crate) struct FakeScale {
    pub(crate) wakes: Mutex<Vec<(String, u32, Instant)>>,
    pub(crate) script: Mutex<VecDeque<Step>>,
    watched: Mutex<Vec<(TargetId, Weak<Teller>)>>,
}

impl FakeScale {
    pub(crate) fn count(&self) -> usize {
        self.wakes.lock().len()
    }
}

impl Scale for FakeScale {
    fn wake(
        &self,
        target: &TargetId,
        replicas: u32,
    ) -> BoxFuture<'_, Result<WakeOutcome, WakeError>> {
        self.wakes
            .lock()
            .push((target.to_string(), replicas, Instant::now()));
        let step = self.script.lock().pop_front();
        let target = target.clone();
        Box::pin(async move {
            match step {
                Some(Step::Fail) => {
                    return Err(WakeError {
                        target,
                        reason: "scripted".into(),
                    });
                }
                Some(Step::Hang) => return std::future::pending().await,
                Some(Step::NotAtZero) => return Ok(WakeOutcome::NotAtZero),
                None => {}
            }
            let watched = self.watched.lock();
            for tx in watched
                .iter()
                .filter(|(t, _)| *t == target)
                .filter_map(|(_, tx)| tx.upgrade())
            {
                tx.send_modify(|e| Arc::make_mut(e).replicas = replicas);
            }
            Ok(WakeOutcome::Woken)
        })
    }
}

/// One workload of a bed.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) workload: Arc<Workload>,
    tx: Arc<Teller>,
}

/// A running activator.
#[derive(Debug)]
pub(crate) struct Bed {
    pub(crate) activator: Activator,
    pub(crate) scale: Arc<FakeScale>,
}

/// A pod: a real queue-proxy before a model.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) uid: Arc<str>,
    pub(crate) proxy: QueueProxy,
    pub(crate) model: Model,
}

pub(crate) fn loopback() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

impl Bed {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config {
            stats: Some(loopback()),
            ..Config::default()
        };
        change(&mut config);
        let scale = Arc::new(FakeScale::default());
        let activator = Activator::start(config, Arc::<FakeScale>::clone(&scale), None).unwrap();
        Self { activator, scale }
    }

    /// A workload at zero, with one port, always in the path.
    pub(crate) fn site(&self, name: &str, change: impl FnOnce(&mut WorkloadConfig)) -> Site {
        self.site_with_ports(name, 1, change)
    }

    pub(crate) fn site_with_ports(
        &self,
        name: &str,
        ports: usize,
        change: impl FnOnce(&mut WorkloadConfig),
    ) -> Site {
        let target: TargetId = format!("default/{name}").parse().unwrap();
        let mut config = WorkloadConfig::new(target.clone());
        config.in_path = InPath::Always;
        change(&mut config);
        let (tx, rx) = watch::channel(Arc::new(Endpoints::default()));
        let tx = Arc::new(tx);
        self.scale
            .watched
            .lock()
            .push((target, Arc::downgrade(&tx)));
        let listeners: Vec<_> = (0..ports)
            .map(|_| listen("requests", loopback()).unwrap())
            .collect();
        let addresses = listeners.iter().map(|l| l.local_addr().unwrap()).collect();
        let workload = self.activator.add(config, listeners, rx).unwrap();
        Site {
            addresses,
            workload,
            tx,
        }
    }
}

impl Site {
    pub(crate) fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// Changes what the activator is told.
    pub(crate) fn tell(&self, change: impl FnOnce(&mut Endpoints)) {
        self.tx
            .send_modify(|endpoints| change(Arc::make_mut(endpoints)));
    }

    /// These are the pods now.
    pub(crate) fn pods(&self, pods: &[&Pod]) {
        let list: Vec<_> = pods.iter().map(|pod| pod.endpoint()).collect();
        self.endpoints(list);
    }

    pub(crate) fn endpoints(&self, list: Vec<Endpoint>) {
        self.tell(|e| {
            e.replicas = u32::try_from(list.len()).unwrap();
            e.pods = list;
        });
    }

    /// To zero: no pod, no replica.
    pub(crate) fn zero(&self) {
        self.endpoints(Vec::new());
    }

    pub(crate) async fn holds(&self, n: usize) {
        until(&format!("{n} held"), || self.workload.held() == n).await;
    }

    pub(crate) async fn ready(&self) {
        until("a ready pod", || self.workload.any_ready()).await;
    }
}

impl Pod {
    pub(crate) fn start(uid: &str, concurrency: u32) -> Self {
        Self::with(uid, concurrency, |_| {})
    }

    pub(crate) fn with(
        uid: &str,
        concurrency: u32,
        change: impl FnOnce(&mut queue_proxy::Config),
    ) -> Self {
        let model = Model::start(uid);
        let port = Port {
            listen: loopback(),
            upstream: model.address,
        };
        let target = "default/pod".parse().unwrap();
        let mut config = queue_proxy::Config::new(target, uid.to_owned(), port, concurrency);
        config.activator = Some(loopback());
        change(&mut config);
        let proxy = QueueProxy::start(config, None).unwrap();
        Self {
            uid: uid.into(),
            proxy,
            model,
        }
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        endpoint(&self.uid, self.proxy.activator_address().unwrap())
    }
}

pub(crate) fn endpoint(uid: &str, address: SocketAddr) -> Endpoint {
    Endpoint {
        uid: uid.into(),
        address,
        terminating: false,
        created: None,
        scheduled: None,
    }
}

/// Waits until `holds`, with a deadline.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "never: {what}");
        sleep(Duration::from_millis(1)).await;
    }
}

/// Metrics of everything in this process. To be asked for before the workloads that are to be counted are made.
pub(crate) fn metrics() -> Exporter {
    static HANDLE: OnceLock<Exporter> = OnceLock::new();
    HANDLE
        .get_or_init(|| shared::metrics::install().unwrap())
        .clone()
}

/// How requests to `target` have ended so far.
pub(crate) fn outcomes(metrics: &Exporter, target: &str) -> Vec<(String, u64)> {
    let text = metrics.render();
    let mut found: Vec<_> = text
        .lines()
        .filter(|line| {
            line.starts_with("rouse_activator_requests_total")
                && line.contains(&format!("target=\"{target}\""))
        })
        .map(|line| {
            let (_, after) = line.split_once("outcome=\"").unwrap();
            let (outcome, _) = after.split_once('"').unwrap();
            let (_, count) = line.rsplit_once(' ').unwrap();
            (outcome.to_owned(), count.parse().unwrap())
        })
        .collect();
    found.sort();
    found
}
