//! What a `rouse local` call asks for, checked as a whole before anything starts.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    path::PathBuf,
};

use autoscaler_core::{ClusterConfig, SETTINGS, TargetSpec, annotations};
use http::{HeaderMap, HeaderName, HeaderValue};
use shared::{TargetId, http::probe::Probe};

use super::manifest::{self, Manifest, ManifestError, ProbeAction, Workload};

/// What is to be run.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) workloads: Vec<Planned>,
    pub(crate) warnings: Vec<String>,
}

/// One workload, with its settings resolved.
#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) id: TargetId,
    pub(crate) workload: Workload,
    pub(crate) spec: TargetSpec,
    /// Where clients connect and which container port is behind it. A port of `None` is the next free one.
    pub(crate) ports: Vec<(Option<u16>, u16)>,
    pub(crate) probe: (Probe, u16),
    /// Replicas at the start.
    pub(crate) replicas: u32,
}

/// Everything that is wrong, a line each.
#[derive(Debug, thiserror::Error)]
pub struct PlanError(Vec<String>);

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl From<ManifestError> for PlanError {
    fn from(error: ManifestError) -> Self {
        Self(vec![error.to_string()])
    }
}

/// Reads the files and resolves everything. `settings` win over the `ConfigMap` of the files, `extra` annotations over
/// those of the workloads.
pub(crate) fn plan(
    files: &[PathBuf],
    settings: &BTreeMap<String, String>,
    extra: &BTreeMap<String, String>,
) -> Result<Plan, PlanError> {
    let mut manifest = manifest::load(files)?;
    let config = cluster_config(&manifest, settings)?;
    let mut warnings = std::mem::take(&mut manifest.warnings);
    let mut errors = Vec::new();
    let mut workloads = Vec::new();
    let mut taken: HashMap<u16, String> = HashMap::new();
    for mut workload in std::mem::take(&mut manifest.workloads) {
        workload.annotations.extend(extra.clone());
        let id = match TargetId::new(&workload.namespace, &workload.name) {
            Ok(id) => id,
            Err(error) => {
                errors.push(error.to_string());
                continue;
            }
        };
        for service in &workload.service_ports {
            let service_name = format!("Service {} of {id}", service.service);
            if let Some(other) = taken.insert(service.port, service_name) {
                errors.push(format!(
                    "{}: port {} of Service {} is also asked for by {other}: on one machine each Service needs a port \
                     of its own",
                    workload.source, service.port, service.service
                ));
            }
        }
        match annotations::parse(&workload.annotations, &config) {
            Ok(parsed) => {
                warnings.extend(parsed.warnings.iter().map(|warning| {
                    if extra.contains_key(&warning.key) {
                        return format!("--annotation {warning}");
                    }
                    format!("{}: {warning}", workload.source)
                }));
                warnings.extend(unheard(&workload));
                workloads.push(planned(id, workload, parsed.spec));
            }
            Err(invalid) => errors.extend(invalid.errors.iter().map(|error| {
                if extra.contains_key(&error.key) {
                    return format!("--annotation {error}");
                }
                let allowed = match &error.allowed {
                    Some(allowed) => format!("{} (allowed: {allowed})", error.message),
                    None => error.message.clone(),
                };
                workload.annotation_error(&error.key, allowed).to_string()
            })),
        }
    }
    // What a flag has wrong is wrong for every workload.
    for lines in [&mut errors, &mut warnings] {
        let mut told = HashSet::new();
        lines.retain(|line| told.insert(line.clone()));
    }
    if errors.is_empty() {
        Ok(Plan {
            workloads,
            warnings,
        })
    } else {
        Err(PlanError(errors))
    }
}

/// Annotations that mean something on a cluster and nothing here: said, so that nobody relies on them.
fn unheard(workload: &Workload) -> impl Iterator<Item = String> {
    const UNHEARD: [&str; 8] = [
        "rouse.dev/paused",
        "rouse.dev/ports",
        "rouse.dev/fallback",
        "rouse.dev/drain-grace",
        "rouse.dev/request-log",
        "rouse.dev/allowed-namespaces",
        "rouse.dev/bounce",
        "rouse.dev/soft-limit",
    ];
    let present = UNHEARD
        .iter()
        .filter(|key| workload.annotations.contains_key(**key));
    present.map(|key| format!("{}: {key} has no effect in local mode", workload.source))
}

fn cluster_config(
    manifest: &Manifest,
    settings: &BTreeMap<String, String>,
) -> Result<ClusterConfig, PlanError> {
    // In a ConfigMap an unknown key is somebody else's; on the command line it is a slip.
    let known = || SETTINGS.iter().map(|setting| setting.name);
    if let Some(key) = settings
        .keys()
        .find(|key| !known().any(|name| name == **key))
    {
        let known: Vec<_> = known().collect();
        return Err(PlanError(vec![format!(
            "--set {key}: no such setting, it must be one of {}",
            known.join(", ")
        )]));
    }
    let mut data = manifest.cluster_config.clone();
    data.extend(settings.clone());
    ClusterConfig::parse(&data).map_err(|error| {
        if settings.contains_key(error.key) {
            return PlanError(vec![format!("--set {error}")]);
        }
        manifest
            .cluster_config_error(error.key, error.allowed.clone())
            .into()
    })
}

fn planned(id: TargetId, workload: Workload, spec: TargetSpec) -> Planned {
    let container = &workload.container;
    let first = container
        .ports
        .first()
        .map_or(manifest::DEFAULT_PORT, |port| port.port);
    let ports = if workload.service_ports.is_empty() {
        vec![(None, first)]
    } else {
        workload
            .service_ports
            .iter()
            .map(|port| (Some(port.port), port.target))
            .collect()
    };
    let probe = match (&container.readiness_probe, &spec.ready_path) {
        (Some(probe), _) => match &probe.action {
            ProbeAction::HttpGet {
                path,
                port,
                headers,
            } => (http_probe(path, headers), *port),
            ProbeAction::TcpSocket { port } => (Probe::Tcp, *port),
            ProbeAction::Grpc { port, service } => {
                let service = service.clone();
                (Probe::Grpc { service }, *port)
            }
        },
        (None, Some(path)) => (http_probe(path, &[]), first),
        (None, None) => (Probe::Tcp, first),
    };
    let wanted = workload.replicas.unwrap_or(0).max(spec.min_scale.get());
    let replicas = spec.cap(autoscaler_core::Replicas(wanted)).get();
    Planned {
        id,
        workload,
        spec,
        ports,
        probe,
        replicas,
    }
}

fn http_probe(path: &str, fields: &[(String, String)]) -> Probe {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.append(name, value);
        }
    }
    Probe::Http {
        path: path.to_owned(),
        headers,
        https: false,
    }
}
