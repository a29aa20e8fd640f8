//! A queue-proxy on ephemeral ports, and waiting for what must come true.

use std::{collections::BTreeMap, net::SocketAddr, sync::OnceLock, time::Duration};

use queue_proxy::{
    Config, QueueProxy,
    config::Port,
    drain::Rule,
    model::{self},
};
use shared::{TargetId, http::probe::Probe, metrics::Exporter, stat::PodStat};
use tokio::time::{Instant, sleep, timeout};

use crate::raw::Raw;

/// The pod that activators must name.
pub(crate) const UID: &str = "pod-1";
/// The secret of the life cycle port.
pub(crate) const TOKEN: &str = "s3cret";
/// Far more than anything here takes; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Any port of loopback.
pub(crate) fn any() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

/// A pod with every port open, in front of `models`. A drained pod may go at once.
pub(crate) fn config(models: &[SocketAddr], limit: u32) -> Config {
    let port = |upstream| Port {
        listen: any(),
        upstream,
    };
    let target = TargetId::new("default", "model").unwrap();
    let mut config = Config::new(target, UID.to_owned(), port(models[0]), limit);
    config.ports = models.iter().copied().map(port).collect();
    config.activator = Some(any());
    config.stats = Some(any());
    config.lifecycle = Some((any(), TOKEN.to_owned()));
    config.model = model::Config::new(Probe::Tcp, models[0]);
    // Of a model that is gone most tests want to hear at once.
    config.restart_patience = Duration::ZERO;
    config.drain = Rule {
        settle: Duration::ZERO,
        quiet: Duration::ZERO,
    };
    config
}

/// Starts it without waiting for the model.
pub(crate) fn start(config: Config) -> QueueProxy {
    shared::telemetry::test();
    QueueProxy::start(config, None).unwrap()
}

/// Starts it and waits until the model was ready.
pub(crate) async fn ready(config: Config) -> QueueProxy {
    let proxy = start(config);
    let mut model = proxy.model();
    within("the model to be ready", model.wait_for(|m| m.ready))
        .await
        .unwrap();
    proxy
}

/// A pod with these limits, ready, in front of one model.
pub(crate) async fn pod(model: SocketAddr, limit: u32) -> QueueProxy {
    ready(config(&[model], limit)).await
}

/// The first request port.
pub(crate) fn front(proxy: &QueueProxy) -> SocketAddr {
    proxy.addresses()[0]
}

/// The port for activators.
pub(crate) fn activator(proxy: &QueueProxy) -> SocketAddr {
    proxy.activator_address().unwrap()
}

/// The header lines with which an activator addresses the pod's first port.
pub(crate) fn addressed() -> String {
    format!("rouse-pod-uid: {UID}\r\nrouse-port: 0\r\n")
}

/// Fails the test when `what` does not happen.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let done = timeout(PATIENCE, future).await;
    done.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// Waits until `holds`. Returns how long it took.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let started = Instant::now();
    within(what, async {
        while !holds() {
            sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    started.elapsed()
}

/// Waits until `holds`, and fails if that takes longer than `limit`.
pub(crate) async fn soon(limit: Duration, what: &str, holds: impl FnMut() -> bool) {
    let took = until(what, holds).await;
    assert!(took <= limit, "{what} took {took:?}, longer than {limit:?}");
}

/// The requests of the workload `default/NAME` by outcome, as `/metrics` tells them.
pub(crate) fn outcomes(name: &str) -> BTreeMap<String, u64> {
    let target = format!("target=\"default/{name}\"");
    let all = metrics().render();
    all.lines()
        .filter(|line| line.starts_with("rouse_queue_proxy_requests_total{"))
        .filter(|line| line.contains(&target))
        .map(|line| {
            let (_, rest) = line.split_once("outcome=\"").unwrap();
            let outcome = rest.split('"').next().unwrap().to_owned();
            let (_, count) = line.rsplit_once(' ').unwrap();
            (outcome, count.parse().unwrap())
        })
        .filter(|(_, count)| *count > 0)
        .collect()
}

/// The recorder of this process, which has to be there before the first queue-proxy whose outcomes are asked for.
pub(crate) fn metrics() -> &'static Exporter {
    static METRICS: OnceLock<Exporter> = OnceLock::new();
    METRICS.get_or_init(|| shared::metrics::install().unwrap())
}

/// What the autoscaler would be told.
pub(crate) async fn stat(proxy: &QueueProxy, query: &str) -> PodStat {
    let mut client = Raw::connect(proxy.stats_address().unwrap()).await;
    client
        .send(format!("GET /stat{query} HTTP/1.1\r\nhost: a\r\n\r\n"))
        .await;
    let answer = client.answer().await;
    assert_eq!(answer.status, 200);
    PodStat::decode(&answer.body).unwrap()
}
