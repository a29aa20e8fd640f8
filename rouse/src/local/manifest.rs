//! Reads ordinary Kubernetes YAML for local mode: Deployments, the Services in front of them and the `ConfigMap`
//! `rouse-config`.
//!
//! What local mode takes from a Deployment is its first container's command, args, env, workingDir, ports and
//! readinessProbe, the annotations, `replicas` and `terminationGracePeriodSeconds`; the image is ignored. Fields that
//! cannot be honoured on one machine and that change what runs become warnings or errors, the rest is left unread.
//!
//! A relative command path and a relative `workingDir` start from the folder of the YAML file, and a replica runs in that
//! folder if the container names no `workingDir`.

mod container;
mod cursor;
mod deployment;
mod error;
mod expand;
mod load;
mod names;
mod node;
mod probe;
mod service;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use container::DEFAULT_PORT;
pub use error::{ManifestError, Source};
pub use expand::{expand, port_variables};
pub use load::{MAX_FILE_BYTES, load, load_text};

use error::{Fault, Position, shown_or_missing};

/// What the files of a `rouse local` call ask for.
#[derive(Clone, Debug, Default)]
pub struct Manifest {
    /// One per Deployment, in the order of the files.
    pub workloads: Vec<Workload>,
    /// The data of `ConfigMap` `rouse-config`: Knative's config-autoscaler keys. Empty without one.
    pub cluster_config: BTreeMap<String, String>,
    /// What was ignored or cannot be honoured, each a line with its place.
    pub warnings: Vec<String>,
    cluster_config_source: Option<Source>,
    cluster_config_places: BTreeMap<String, Place>,
}

impl Manifest {
    /// An error about the key `key` of [`Self::cluster_config`], at its place; `allowed` says what may stand there.
    pub fn cluster_config_error(&self, key: &str, allowed: impl Into<String>) -> ManifestError {
        match (
            self.cluster_config_places.get(key),
            &self.cluster_config_source,
        ) {
            (Some(place), _) => place.error(
                self.cluster_config.get(key).map(String::as_str),
                allowed.into(),
            ),
            (None, Some(source)) => source.error(&format!("data.{key}"), None, allowed),
            (None, None) => ManifestError::whole(Path::new("rouse-config"), allowed),
        }
    }
}

/// A Deployment to run.
#[derive(Clone, Debug)]
pub struct Workload {
    /// The namespace, `default` unless given.
    pub namespace: String,
    /// The Deployment's name.
    pub name: String,
    /// The Deployment's annotations merged with its pod template's; the template wins.
    pub annotations: BTreeMap<String, String>,
    /// The container to run: the first one.
    pub container: Container,
    /// `spec.replicas`, if given.
    pub replicas: Option<u32>,
    /// How long a replica may take to end by itself once asked (`terminationGracePeriodSeconds`, default 30 s).
    pub termination_grace: Duration,
    /// The ports of the Services of the files that select this workload's pods.
    pub service_ports: Vec<ServicePort>,
    /// Where the Deployment stands.
    pub source: Source,
    annotation_places: BTreeMap<String, Place>,
}

impl Workload {
    /// An error about the annotation `key`, at its place; `allowed` says what may stand there.
    pub fn annotation_error(&self, key: &str, allowed: impl Into<String>) -> ManifestError {
        let value = self.annotations.get(key).map(String::as_str);
        match self.annotation_places.get(key) {
            Some(place) => place.error(value, allowed.into()),
            None => self
                .source
                .error(&format!("metadata.annotations[{key:?}]"), value, allowed),
        }
    }
}

/// The part of a container that a child process can honour.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// The program and its first arguments, unexpanded. Never empty.
    pub command: Vec<String>,
    /// Further arguments, unexpanded.
    pub args: Vec<String>,
    /// Variables in the order of the file, values unexpanded.
    pub env: Vec<(String, String)>,
    /// The ports: the declared ones, then those that Services and the probe name by number; [`DEFAULT_PORT`] if there
    /// are none. The first is the one that `PORT` stands for.
    pub ports: Vec<ContainerPort>,
    /// The readiness probe, if it has one that can be done locally.
    pub readiness_probe: Option<Probe>,
    /// The folder to run in. Absolute or relative to where Rouse runs.
    pub working_dir: PathBuf,
}

/// A port of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerPort {
    /// `containerPort`: on a cluster the port itself, locally only its name; each replica gets a port of its own for it.
    pub port: u16,
    /// `name`, if given.
    pub name: Option<String>,
}

/// A readiness probe with Kubernetes' defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What is asked.
    pub action: ProbeAction,
    /// `initialDelaySeconds` (0).
    pub initial_delay: Duration,
    /// `periodSeconds` (10 s).
    pub period: Duration,
    /// `timeoutSeconds` (1 s).
    pub timeout: Duration,
    /// `failureThreshold` (3).
    pub failure_threshold: u32,
    /// `successThreshold` (1).
    pub success_threshold: u32,
}

/// What a probe does. Ports are container ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeAction {
    /// `httpGet` over plain HTTP.
    HttpGet {
        /// The path, starting with a slash.
        path: String,
        /// The container port.
        port: u16,
        /// Header fields to send.
        headers: Vec<(String, String)>,
    },
    /// `tcpSocket`: ready once a connection is accepted.
    TcpSocket {
        /// The container port.
        port: u16,
    },
    /// `grpc`: ready once the health service says so.
    Grpc {
        /// The container port.
        port: u16,
        /// The service asked for; empty for the whole server.
        service: String,
    },
}

/// A port of a Service that selects a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// The Service's name.
    pub service: String,
    /// The port's name, if given.
    pub name: Option<String>,
    /// The port that clients connect to.
    pub port: u16,
    /// The container port behind it: `targetPort`, resolved.
    pub target: u16,
}

/// Where a value stands, for errors found after reading.
#[derive(Clone, Debug)]
struct Place {
    source: Source,
    position: Position,
    path: String,
}

impl Place {
    fn error(&self, value: Option<&str>, allowed: String) -> ManifestError {
        let Self {
            source,
            position,
            path,
        } = self.clone();
        let value = Some((path, shown_or_missing(value)));
        Fault {
            place: source,
            position: Some(position),
            value,
            allowed,
        }
        .error()
    }
}
