//! What is the same for every review.

use std::net::{IpAddr, Ipv4Addr};

use autoscaler_core::ClusterConfig;
use kubernetes::names;

/// Settings of the webhook. They may be replaced while it serves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The sidecar's image.
    pub image: String,
    /// The sidecar's command; empty for the image's own.
    pub command: Vec<String>,
    /// When the image is pulled: `Always`, `IfNotPresent`, `Never`, or as Kubernetes decides.
    pub image_pull_policy: Option<String>,
    /// The user that the sidecar runs as, and its group. The Pod Security Standard `restricted` wants a number above 0.
    pub user: i64,
    /// The address on which the sidecar listens: `0.0.0.0`, or `::` on a cluster of IPv6 alone.
    pub listen: IpAddr,
    /// Defaults and limits that annotations are checked against.
    pub config: ClusterConfig,
    /// Our own namespace: nothing in it is ever touched.
    pub namespace: String,
}

/// The number of `nonroot` in distroless images: above every user that an image is likely to have.
const NONROOT: i64 = 65_532;

impl Settings {
    /// Settings with defaults for everything but the image.
    pub fn new(image: impl Into<String>) -> Self {
        Self {
            image: image.into(),
            command: Vec::new(),
            image_pull_policy: None,
            user: NONROOT,
            listen: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            config: ClusterConfig::default(),
            namespace: names::NAMESPACE.to_owned(),
        }
    }
}
