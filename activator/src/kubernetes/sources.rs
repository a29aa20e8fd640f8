//! Whose an address is, asked of the API server.
//!
//! Each question is one list of Pods by their address, of metadata only, answered from the API server's own cache and as fresh as
//! the last write (no `resourceVersion`, KEP-2340). The other way would be to watch every Pod of the cluster for as long as some
//! workload has the annotation. It would answer at once and know a pod's second address too, but costs every activator a copy of
//! every change of every Pod, and a watch cannot tell that it lags: for as long as that goes unnoticed (up to 35 s, see
//! [`::kubernetes::watch`]), a pod that got the address of a deleted one would have its rights. A list costs the API server a walk over its Pods;
//! [`crate::Lookups`] bounds how often, and only connections that reach an activator cost any.
//!
//! A reused address does not inherit the rights of its former owner: pods that have ended are left out, and an address that
//! pods of several namespaces have at once (one that goes and one that comes) is nobody's. What remains is the kubelet's
//! own delay, after a node was restarted, in replacing what it wrote down before; and who may write `pods/status`, which no
//! role but the kubelets' has by default, can pass for anybody.
//!
//! Pods with `hostNetwork` have the node's address, as has what is masqueraded (a `NodePort`, a client outside of the cluster),
//! so they are nobody in particular. A pod of two families is known by its first address only, since the API server
//! selects by no other (`ToSelectableFields` of `pkg/registry/core/pod`).

use std::{net::IpAddr, sync::Arc};

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, api::ListParams};

use crate::{BoxFuture, SourceError, Sources};

/// Asks the API server.
pub struct PodSources(Client);

impl std::fmt::Debug for PodSources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PodSources")
    }
}

impl PodSources {
    /// `client` should be nobody else's, so that no question waits behind a large list.
    pub fn new(client: Client) -> Self {
        Self(client)
    }
}

impl Sources for PodSources {
    fn namespace_of(&self, ip: IpAddr) -> BoxFuture<'_, Result<Option<Arc<str>>, SourceError>> {
        Box::pin(async move {
            let pods: Api<Pod> = Api::all(self.0.clone());
            let params = ListParams::default().fields(&selector(ip));
            let found = pods.list_metadata(&params).await;
            let found = found.map_err(|error| SourceError {
                ip,
                reason: error.to_string(),
            })?;
            let namespaces = found
                .items
                .iter()
                .map(|pod| pod.metadata.namespace.as_deref());
            Ok(the_one(namespaces.flatten()))
        })
    }
}

/// Pods that run, or may, and have this address for themselves.
fn selector(ip: IpAddr) -> String {
    format!("status.podIP={ip},spec.hostNetwork=false,status.phase!=Succeeded,status.phase!=Failed")
}

/// The namespace that all are of.
fn the_one<'a>(mut namespaces: impl Iterator<Item = &'a str>) -> Option<Arc<str>> {
    let first = namespaces.next()?;
    namespaces.all(|other| other == first).then(|| first.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_several_have_at_once_is_nobodys() {
        let of = |all: &[&'static str]| the_one(all.iter().copied()).map(|name| name.to_string());
        assert_eq!(of(&[]), None);
        assert_eq!(of(&["a"]).as_deref(), Some("a"));
        assert_eq!(of(&["a", "a"]).as_deref(), Some("a"));
        assert_eq!(of(&["a", "b"]), None);
    }

    #[test]
    fn addresses_are_written_as_kubernetes_writes_them() {
        for (ip, written) in [
            ("10.0.0.1", "status.podIP=10.0.0.1,"),
            ("fd00:0:0::01", "status.podIP=fd00::1,"),
        ] {
            assert!(selector(ip.parse().unwrap()).starts_with(written), "{ip}");
        }
    }
}
