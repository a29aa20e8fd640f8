//! Services, and which workloads they stand in front of.

use std::collections::BTreeMap;

use super::container::{PORT_RANGE, declare, port_number, port_reference};
use super::cursor::Cursor;
use super::deployment::Read;
use super::error::ManifestError;
use super::{ServicePort, names};

/// Gives every workload that the Service selects its ports. False if it selects none.
pub(super) fn attach(
    root: &Cursor<'_>,
    workloads: &mut [Read],
    warnings: &mut Vec<String>,
) -> Result<bool, ManifestError> {
    let service = names::label(&root.at(["metadata", "name"])?)?;
    let namespace = names::namespace(root)?;
    let spec = root.get("spec")?;
    let selector: BTreeMap<_, _> = spec
        .get("selector")?
        .text_map()?
        .into_iter()
        .map(|(key, (value, _))| (key, value))
        .collect();

    let ports_field = spec.get("ports")?;
    let ports = ports_field.items()?;
    if ports.is_empty() {
        return Err(ports_field.error("must be a list with at least one port"));
    }
    let mut seen = Vec::new();
    let mut selected = false;
    // Ports are read even if nothing is selected, so that a mistake in them is reported either way.
    let mut none = Vec::new();
    for port in &ports {
        let number_field = port.get("port")?;
        let number = port_number(&number_field)?.ok_or_else(|| number_field.error(PORT_RANGE))?;
        let protocol = port.get("protocol")?;
        match protocol.text()? {
            None | Some("TCP") => {}
            Some("UDP" | "SCTP") => {
                warnings.push(format!(
                    "{}: {}: ignored: only TCP is served",
                    root.source(),
                    port.path()
                ));
                continue;
            }
            Some(_) => return Err(protocol.error("must be TCP, UDP or SCTP")),
        }
        if seen.contains(&number) {
            return Err(number_field.error("must differ from the Service's other ports"));
        }
        seen.push(number);
        let name = port.get("name")?.text()?.map(str::to_owned);
        let target_field = port.get("targetPort")?;
        let matching = workloads.iter_mut().filter(|read| {
            read.workload.namespace == namespace
                && !selector.is_empty()
                && selector
                    .iter()
                    .all(|(key, value)| read.labels.get(key) == Some(value))
        });
        let mut matched = false;
        for read in matching {
            matched = true;
            let container_ports = &mut read.workload.container.ports;
            let target = port_reference(&target_field, container_ports)?.unwrap_or_else(|| {
                declare(number, container_ports);
                number
            });
            read.workload.service_ports.push(ServicePort {
                service: service.to_owned(),
                name: name.clone(),
                port: number,
                target,
            });
        }
        if !matched && !target_field.is_text() {
            port_reference(&target_field, &mut none)?;
        }
        selected |= matched;
    }
    Ok(selected)
}
