//! Which ports of a Service take requests, and which request port of the pods each of them means.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString as TargetPort;
use kubernetes::{Adopted, WorkloadView, names, ports::speaks_http};

use super::Flip;
use crate::kubernetes::view::{PortView, Refusal, ServiceView};

/// One request port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) place: usize,
    pub(super) name: String,
    pub(super) port: u16,
    pub(super) app_protocol: Option<String>,
    /// Its target before it is, or was, flipped.
    pub(super) was: TargetPort,
    /// The request port of the pods.
    pub(super) index: usize,
    /// The model's port behind it.
    pub(super) upstream: u16,
    /// It leads to the sidecars.
    pub(super) flipped: bool,
}

impl Entry {
    pub(super) fn flip(&self) -> Flip {
        Flip {
            place: self.place,
            port: self.port,
            from: self.was.clone(),
            to: TargetPort::String(names::request_port_name(self.index)),
            index: self.index,
        }
    }
}

/// The request ports of a Service: those in its annotation `rouse.dev/ports`, by name or number; else all that are named for
/// HTTP or gRPC, or say so in appProtocol, or lead to a request port of the pods; else its first.
pub(super) fn entries(
    service: &ServiceView,
    workload: &WorkloadView,
    record: Option<&Adopted>,
) -> Result<Vec<Entry>, Refusal> {
    let tcp: Vec<_> = service.ports.iter().filter(|port| port.tcp).collect();
    let chosen: Vec<&PortView> = if let Some(chosen) = &service.chosen {
        let given: Vec<_> = chosen.split(',').map(str::trim).collect();
        let is_given = |port: &PortView| {
            given.contains(&port.name.as_str()) || given.contains(&port.port.to_string().as_str())
        };
        tcp.into_iter().filter(|port| is_given(port)).collect()
    } else {
        let http = |port: &PortView| {
            speaks_http(&port.name)
                || port.app_protocol.as_deref().is_some_and(is_http)
                || entry(port, workload, record).is_some()
        };
        let found: Vec<_> = tcp.iter().copied().filter(|port| http(port)).collect();
        if found.is_empty() {
            tcp.into_iter().take(1).collect()
        } else {
            found
        }
    };
    if chosen.is_empty() {
        return Err(Refusal::NoPort);
    }
    chosen
        .into_iter()
        .map(|port| {
            entry(port, workload, record).ok_or_else(|| Refusal::UnknownUpstream {
                port: port.port,
                target: text(&port.target),
                known: workload
                    .upstreams
                    .iter()
                    .map(u16::to_string)
                    .collect::<Vec<_>>()
                    .join(", "),
            })
        })
        .collect()
}

/// `kubernetes.io/h2c` and `kubernetes.io/ws` are Kubernetes' own values of appProtocol.
fn is_http(protocol: &str) -> bool {
    let protocol = protocol.strip_prefix("kubernetes.io/").unwrap_or(protocol);
    speaks_http(protocol) || protocol == "ws"
}

fn entry(port: &PortView, workload: &WorkloadView, record: Option<&Adopted>) -> Option<Entry> {
    let make = |was: TargetPort, index: usize, flipped| {
        Some(Entry {
            place: port.place,
            name: port.name.clone(),
            port: port.port,
            app_protocol: port.app_protocol.clone(),
            was,
            index,
            upstream: *workload.upstreams.get(index)?,
            flipped,
        })
    };
    if let Some(index) = flipped_to(&port.target) {
        // Without a record, because somebody deleted it, the number is as good as what it was.
        let was = recorded(record, port.port)
            .unwrap_or(TargetPort::Int(i32::from(*workload.upstreams.get(index)?)));
        return make(was, index, true);
    }
    let number = match &port.target {
        TargetPort::Int(number) => u16::try_from(*number).ok()?,
        TargetPort::String(name) => *workload.named_ports.get(name)?,
    };
    let index = workload.upstreams.iter().position(|one| *one == number)?;
    make(port.target.clone(), index, false)
}

/// The index if a target is one of the sidecars' ports.
pub(super) fn flipped_to(target: &TargetPort) -> Option<usize> {
    match target {
        TargetPort::String(name) => names::request_port_index(name),
        TargetPort::Int(_) => None,
    }
}

/// What a port's target was.
pub(super) fn recorded(record: Option<&Adopted>, port: u16) -> Option<TargetPort> {
    let one = record?.ports.iter().find(|one| one.port == port)?;
    Some(one.was.clone())
}

fn text(target: &TargetPort) -> String {
    match target {
        TargetPort::Int(number) => number.to_string(),
        TargetPort::String(name) => name.clone(),
    }
}
