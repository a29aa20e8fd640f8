//! Who may send requests to a workload: `rouse.dev/allowed-namespaces`.
//!
//! A decision is made from two things only: the address at the other end of the TCP connection, and whose pod has that
//! address now. No header plays a part, since anybody can write one. Finding out whose the address is costs a question to the
//! API server, so it is asked once a connection ([`Peer::known`]); the rule is read anew with every request, so that a
//! changed annotation counts at once. A workload without the annotation has no [`Access`] and asks nothing.

use std::{net::IpAddr, sync::Arc};

use autoscaler_core::annotations::AllowedNamespaces;
use shared::{TargetId, http::serve::Peer};

mod lookups;

pub use self::lookups::Lookups;
use crate::{BoxFuture, rescue::Failure};

/// It cannot be found out whose an address is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it cannot be found out whose {ip} is: {reason}")]
pub struct SourceError {
    /// The address.
    pub ip: IpAddr,
    /// One line.
    pub reason: String,
}

/// Says whose an address is. On a cluster that is the API server.
pub trait Sources: Send + Sync + std::fmt::Debug + 'static {
    /// The namespace of the pod that has `ip` now. None if no pod has it, or if it cannot be told which: an address of a
    /// node, which is shared by all that use its network, or of somebody outside of the cluster.
    fn namespace_of(&self, ip: IpAddr) -> BoxFuture<'_, Result<Option<Arc<str>>, SourceError>>;
}

/// The rule of one workload.
#[derive(Clone, Debug)]
pub struct Access {
    own: Arc<str>,
    allowed: AllowedNamespaces,
    lookups: Lookups,
}

impl Access {
    /// The rule of `target`, whose own namespace is always allowed.
    pub fn new(target: &TargetId, allowed: AllowedNamespaces, lookups: Lookups) -> Self {
        Self {
            own: target.namespace().into(),
            allowed,
            lookups,
        }
    }

    /// The namespace at the other end of a connection; none if it is nobody's.
    ///
    /// # Errors
    /// [`Failure::SourceUnknown`]. It is found out anew with the next request then.
    pub(crate) async fn namespace_of(&self, peer: &Peer) -> Result<Option<Arc<str>>, Failure> {
        if let Some(known) = peer.known.get() {
            return Ok(Some(Arc::clone(known)));
        }
        // An IPv4 address may come in the clothes of an IPv6 one.
        let ip = peer.address.ip().to_canonical();
        match self.lookups.find(ip).await {
            // Two requests of one connection may find it at the same time: the same.
            Ok(Some(found)) => Ok(Some(Arc::clone(peer.known.get_or_init(|| found)))),
            Ok(None) => Ok(None),
            Err(error) => {
                tracing::warn!(%error, "A request is refused");
                Err(Failure::SourceUnknown)
            }
        }
    }

    pub(crate) fn allows(&self, namespace: Option<&str>) -> bool {
        match &self.allowed {
            AllowedNamespaces::Everybody => true,
            only @ AllowedNamespaces::Only(_) => {
                namespace.is_some_and(|name| *name == *self.own || only.contains(name))
            }
        }
    }
}
