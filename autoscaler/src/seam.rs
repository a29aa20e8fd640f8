//! The two seams of the autoscaler: what there is of a workload, and how its scale is written.

use std::{fmt, net::SocketAddr, pin::Pin, sync::Arc};

use autoscaler_core::TargetSpec;
use shared::TargetId;

/// A boxed future, for the one seam that is chosen at run time.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// When what happened in a pod's present life, in milliseconds since 1970: pods are older than the processes that look at them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Life {
    /// Its template, as the shell tells templates apart. Starts are learned by it.
    pub template: Arc<str>,
    /// It was made, or its model's container was started again.
    pub began: Option<u64>,
    /// All that comes before the model's container was done: from then on its image is pulled, if it has to be.
    pub prepared: Option<u64>,
    /// The model's container was started.
    pub started: Option<u64>,
    /// It became ready, which it still is.
    pub ready: Option<u64>,
}

/// One pod, as far as scaling cares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// UID; statistics that name another one are refused.
    pub uid: Arc<str>,
    /// Where its queue-proxy serves statistics. The unspecified address while it has none: then it cannot be asked.
    pub stats: SocketAddr,
    /// Takes requests.
    pub ready: bool,
    /// Never ready in this container's life, and nothing says that it will not be.
    pub starting: bool,
    /// It will not be ready as it is: its image cannot be had, it crashes, no node takes it.
    pub failed: bool,
    /// Its present life.
    pub life: Life,
}

/// A workload and what there is of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// What its annotations ask for. Workloads that ask for the same may share it.
    pub spec: Arc<TargetSpec>,
    /// `spec.replicas`.
    pub replicas: u32,
    /// Its pods, terminating ones left out.
    pub pods: Vec<Pod>,
    /// Whether requests can reach it.
    pub reachable: bool,
}

/// Writes the scale.
pub trait Scaler: Send + Sync + fmt::Debug + 'static {
    /// Whether the change may be written at all.
    ///
    /// # Errors
    /// What stands against it, in a word: nothing is written, and it is no failure.
    fn permits(&self, _target: &TargetId, _from: u32, _to: u32) -> Result<(), &'static str> {
        Ok(())
    }

    /// Called before fewer replicas, but not none, are written: how many requests each pod has open, by UID, where that is
    /// known. A scaler that can say which pods go first says so.
    fn prefer(&self, _target: &TargetId, _open: Vec<(Arc<str>, Option<u64>)>) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    /// Atomically changes `from` to `to` replicas. False if there were not `from`.
    fn scale(&self, target: &TargetId, from: u32, to: u32) -> BoxFuture<'_, Result<bool, String>>;
}
