//! Everything a queue-proxy needs to know, checked before anything binds.

use std::{net::SocketAddr, time::Duration};

use shared::{
    TargetId,
    http::{body::Pace, client, guard, sanitize::TrustedProxies, serve, tls::ServerTls},
    record::Recorder,
};

use crate::{bounce, drain, model, relay::HostPort, timeouts::Timeouts};

/// Bodies up to this size travel with the request and can be sent again; larger ones wait for admission.
///
/// Both proxies must agree on it. 64 KiB covers most inference requests in JSON and one flow-control window of HTTP/2.
pub const RESENDABLE_BYTES: usize = 64 * 1024;

/// Tickets for HTTP/2 requests that may be out at once.
pub const MAX_TICKETS: usize = 10_000;

/// Half of Knative's default stable window (60 s): the average that decides on the next replica has seen the last one carry its
/// share of kept connections.
const MAX_CONNECTION_AGE: Duration = Duration::from_secs(30);

/// The kubelet restarts a container at once the first time, and 10 s later the second time (its back-off doubles from there):
/// that is when a pod has long left its Services, and its clients are better told.
const RESTART_PATIENCE: Duration = Duration::from_secs(10);

/// One request port of the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// Where requests come in.
    pub listen: SocketAddr,
    /// Where the model listens.
    pub upstream: SocketAddr,
}

/// Configuration of one queue-proxy.
#[derive(Clone, Debug)]
pub struct Config {
    /// The workload, for labels.
    pub target: TargetId,
    /// UID of the pod; activators state whom they mean.
    pub pod_uid: String,
    /// Request ports. Their order is the number that activators use.
    pub ports: Vec<Port>,
    /// Port for activators.
    pub activator: Option<SocketAddr>,
    /// Port for statistics, metrics and health.
    pub stats: Option<SocketAddr>,
    /// Port for the pod's life cycle, and the token its paths begin with.
    pub lifecycle: Option<(SocketAddr, String)>,
    /// Requests at the model at once; 0 = unlimited.
    pub container_concurrency: u32,
    /// Requests of Services that may wait.
    pub queue_depth: usize,
    /// Requests of activators that may wait; short, since an activator can go elsewhere.
    pub activator_queue_depth: usize,
    /// How long a request may wait for a slot.
    pub queue_timeout: Duration,
    /// Memory that bodies of waiting requests may take together. Beyond it they are left unread.
    pub queue_bytes: usize,
    /// How the model is asked whether it is ready.
    pub model: model::Config,
    /// Paths that are no load.
    pub probe_paths: Vec<String>,
    /// Whose `X-Forwarded-*` headers are believed.
    pub trusted: TrustedProxies,
    /// Limits towards clients.
    pub serve: serve::Config,
    /// TLS of the ports for clients and for activators; none for none. The other ports never have it.
    pub tls: Option<ServerTls>,
    /// Connections to the model.
    pub client: client::Config,
    /// When a draining pod may go.
    pub drain: drain::Rule,
    /// Longest time a drain may take.
    pub grace: Duration,
    /// Age at which clients' connections end after their next answer, give or take a tenth; none for no limit. Those of activators
    /// have none: activators balance requests.
    pub max_connection_age: Option<Duration>,
    /// How long a request that the model took no connection for waits for it to be restarted.
    pub restart_patience: Duration,
    /// Where requests of each port are bounced to, the n-th for the n-th port; none where there is none. It has to be where activators
    /// listen, never where sidecars do.
    pub bounce_to: Vec<Option<HostPort>>,
    /// When they are.
    pub bounce: bounce::Rule,
    /// How long the model may take; no limits by default.
    pub timeouts: Timeouts,
    /// Least pace at which clients of Services send their bodies; none for no limit. Activators see to theirs.
    pub min_pace: Option<Pace>,
    /// Whether answers carry the timing headers.
    pub timing_header: bool,
    /// Whether errors have OpenAI's form where the path is one of its API.
    pub openai_errors: bool,
    /// What is told of each request.
    pub recorder: Recorder,
}

impl Config {
    /// Defaults for one port; as many may wait as there are slots before others are bounced, so that each slot has its next request at
    /// hand and nobody waits here for longer than for one other; Knative's depth of ten times the concurrency (`pkg/queue/sharedmain/main.go`), and for an
    /// unlimited pod, which queues only while it starts, what an activator holds by default.
    pub fn new(target: TargetId, pod_uid: String, port: Port, container_concurrency: u32) -> Self {
        let limit = container_concurrency as usize;
        Self {
            target,
            pod_uid,
            ports: vec![port],
            activator: None,
            stats: None,
            lifecycle: None,
            container_concurrency,
            queue_depth: if limit == 0 { 1_000 } else { limit * 10 },
            activator_queue_depth: limit.max(1),
            queue_timeout: Duration::from_mins(5),
            queue_bytes: 64 * 1024 * 1024,
            model: model::Config::new(shared::http::probe::Probe::Tcp, port.upstream),
            probe_paths: Vec::new(),
            trusted: TrustedProxies::default(),
            serve: serve::Config::default(),
            tls: None,
            client: client::Config {
                max_idle: if limit == 0 { 256 } else { limit },
                ..client::Config::default()
            },
            drain: drain::Rule::default(),
            grace: Duration::from_mins(5),
            max_connection_age: Some(MAX_CONNECTION_AGE),
            restart_patience: RESTART_PATIENCE,
            bounce_to: Vec::new(),
            bounce: bounce::Rule {
                depth: limit,
                soft_limit: None,
            },
            timeouts: Timeouts::default(),
            min_pace: Some(Pace::default()),
            timing_header: true,
            openai_errors: false,
            recorder: Recorder::default(),
        }
    }

    /// Limits of the ports for clients.
    pub(crate) fn front_serve(&self) -> serve::Config {
        serve::Config {
            max_age: self.max_connection_age,
            tls: self.tls.clone(),
            ..self.serve.clone()
        }
    }

    /// Limits of the port for activators: they keep connections for 30 s, so this side must keep them longer, or a
    /// request could meet a connection that is being closed. A client of theirs that does not read is theirs to cut; this side only
    /// does it if they do not.
    pub(crate) fn activator_serve(&self) -> serve::Config {
        serve::Config {
            timeouts: guard::Timeouts {
                first_byte: Duration::from_mins(10),
                idle: Duration::from_mins(10),
                ..self.serve.timeouts
            },
            send: self.serve.send.map(|limit| limit.saturating_mul(2)),
            tls: self.tls.clone().map(ServerTls::any_protocol),
            ..self.serve.clone()
        }
    }
}
