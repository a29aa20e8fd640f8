//! Settings of the process, and of each workload.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use autoscaler_core::OptIns;
use shared::{
    TargetId, files,
    http::{body::Pace, client, sanitize::TrustedProxies, serve, tls::ServerTls},
    record::Recorder,
};

use crate::Access;

/// Bodies up to this size are buffered and can be sent again; the queue-proxy's limit is the same.
pub const RESENDABLE_BYTES: usize = 64 * 1024;

/// Requests held at once, all in all: as many as connections, of which HTTP/1 needs one for each.
pub const MAX_HELD: usize = 20_000;
/// Client connections at once, unless there are too few files. Each takes some 20 KB with its buffers.
pub const MAX_CONNECTIONS: usize = 20_000;

/// [`MAX_CONNECTIONS`], or half of the files that may be open: each may need a connection to a pod, which is one more.
pub fn max_connections() -> usize {
    let files = files::limit().and_then(|files| usize::try_from(files / 2).ok());
    MAX_CONNECTIONS.min(files.unwrap_or(usize::MAX)).max(1)
}

/// Whether requests of a ready workload still come through here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InPath {
    /// Always: local mode, and Knative's `target-burst-capacity: -1`.
    Always,
    /// Only while no pod is ready. Connections are closed once one is, so that the next one goes to a pod: after their
    /// next answer at once, idle ones after this delay, in which routing everywhere learns of the pod.
    UntilReady(Duration),
}

/// Settings of one workload.
#[derive(Clone, Debug)]
pub struct WorkloadConfig {
    /// The workload.
    pub target: TargetId,
    /// Requests at one pod at once; 0 = unlimited.
    pub container_concurrency: u32,
    /// Replicas to wake to: the largest of 1, initial scale, activation scale and min scale.
    pub wake_replicas: u32,
    /// Requests held at once. `rouse.dev/max-held`.
    pub max_held: usize,
    /// Bytes of bodies in memory that can still be sent to another pod: of requests that are held, and of those at a pod that
    /// has not admitted them yet as far as is known. Beyond it bodies wait unread; who has to wait with bytes is refused.
    pub max_held_bytes: usize,
    /// Longest time a request is held. `rouse.dev/max-cold-start`.
    pub max_cold_start: Duration,
    /// See [`InPath`].
    pub in_path: InPath,
    /// Who may send requests; none: everybody. `rouse.dev/allowed-namespaces`.
    pub access: Option<Arc<Access>>,
    /// What is done for clients beside holding their requests; none: nothing. See [`asked_for`].
    pub opt_ins: Option<Arc<OptIns>>,
}

/// What a workload's settings ask for, if it is anything: most ask for nothing, and a workload that sleeps should take no memory
/// for that.
pub fn asked_for(opt_ins: &OptIns) -> Option<Arc<OptIns>> {
    (*opt_ins != OptIns::default()).then(|| Arc::new(opt_ins.clone()))
}

impl WorkloadConfig {
    /// The defaults of design: 1,000 requests, 64 MiB, 10 minutes.
    pub fn new(target: TargetId) -> Self {
        Self {
            target,
            container_concurrency: 0,
            wake_replicas: 1,
            max_held: 1_000,
            max_held_bytes: 64 * 1024 * 1024,
            max_cold_start: Duration::from_mins(10),
            in_path: InPath::UntilReady(Duration::from_secs(5)),
            access: None,
            opt_ins: None,
        }
    }
}

/// Settings of the process.
#[derive(Clone, Debug)]
pub struct Config {
    /// Port for statistics, metrics and health.
    pub stats: Option<SocketAddr>,
    /// The same over all workloads.
    pub max_held_bytes: usize,
    /// Requests held at once over all workloads, shared among them as [`shared::share`] says.
    pub max_held: usize,
    /// Client connections over all listeners of all workloads, tunnels included; shared in the same way.
    pub max_connections: usize,
    /// Limits towards clients.
    pub serve: serve::Config,
    /// TLS of the workloads' listeners; none for none. The port for statistics never has it.
    pub tls: Option<ServerTls>,
    /// Connections to queue-proxies.
    pub client: client::Config,
    /// Whose `X-Forwarded-*` headers are believed.
    pub trusted: TrustedProxies,
    /// Least pace at which clients send their bodies; none for no limit.
    pub min_pace: Option<Pace>,
    /// Whether answers carry the timing headers.
    pub timing_header: bool,
    /// Whether a refusal says all that [`crate::Failed`] does of why a workload cannot start.
    pub explain_failures: bool,
    /// What is told of each request.
    pub recorder: Recorder,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            stats: None,
            max_held_bytes: 256 * 1024 * 1024,
            max_held: MAX_HELD,
            max_connections: max_connections(),
            serve: serve::Config::default(),
            tls: None,
            client: client::Config {
                // The queue-proxy keeps connections for 600 s, so this side always closes first.
                idle: Duration::from_secs(30),
                ..client::Config::default()
            },
            trusted: TrustedProxies::default(),
            min_pace: Some(Pace::default()),
            timing_header: true,
            explain_failures: false,
            recorder: Recorder::default(),
        }
    }
}
