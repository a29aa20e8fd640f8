//! The two seams of the activator: what pods there are, and how a workload is woken.

use std::{fmt, net::SocketAddr, pin::Pin, sync::Arc};

use shared::TargetId;
use tokio::time::Instant;

/// A boxed future, for the one seam that is chosen at run time.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One pod, as soon as it has an address; ready or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// UID, checked by the pod's queue-proxy on every request.
    pub uid: Arc<str>,
    /// The queue-proxy's port for activators.
    pub address: SocketAddr,
    /// Going away: takes no new request.
    pub terminating: bool,
    /// When it was made (a process spawned, a pod object seen), for the wake timeline.
    pub created: Option<Instant>,
    /// When it was seen bound to a node, for the wake timeline. Local mode has no nodes.
    pub scheduled: Option<Instant>,
}

/// Why the workload cannot start, for the time being.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// One line, e.g. `exited with status 3 twice before it was ready`.
    pub reason: String,
    /// More lines, such as the last of its standard error. May be empty.
    pub detail: String,
    /// When the next attempt will be made: until then requests are refused at once.
    pub retry_at: Instant,
}

/// Why nobody is held for a workload that has no pod: it will not be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Barred {
    /// Its scale is frozen at zero.
    Paused,
    /// There is no such workload, for now.
    Absent,
}

/// What is known of a workload's pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// `spec.replicas`: 0 is what the activator may change.
    pub replicas: u32,
    /// The pods.
    pub pods: Vec<Endpoint>,
    /// Set while the workload cannot start.
    pub failed: Option<Failed>,
}

/// What became of a wake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WakeOutcome {
    /// Replicas were 0 and are N now.
    Woken,
    /// Replicas were not 0: someone else was faster.
    NotAtZero,
}

/// A wake that did not happen.
#[derive(Debug, thiserror::Error)]
#[error("cannot wake {target}: {reason}")]
pub struct WakeError {
    /// The workload.
    pub target: TargetId,
    /// One line.
    pub reason: String,
}

/// Writes the scale from 0 to N, and nothing else.
pub trait Scale: Send + Sync + fmt::Debug + 'static {
    /// Atomically: if `target` has 0 replicas, give it `replicas`.
    fn wake(
        &self,
        target: &TargetId,
        replicas: u32,
    ) -> BoxFuture<'_, Result<WakeOutcome, WakeError>>;
}
