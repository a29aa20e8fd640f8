//! The container of a pod template.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::cursor::Cursor;
use super::error::ManifestError;
use super::names;
use super::{Container, ContainerPort};

/// The container port of a container that declares none and that no Service or probe names: Knative's default.
pub const DEFAULT_PORT: u16 = 8080;

type Result<T> = std::result::Result<T, ManifestError>;

/// Reads a container but for its probe. `folder` holds the YAML file.
pub(super) fn read(
    container: &Cursor<'_>,
    folder: &Path,
    warnings: &mut Vec<String>,
) -> Result<Container> {
    let name = names::label(&container.get("name")?)?.to_owned();
    let command_field = container.get("command")?;
    let command = command_field.texts()?;
    match command.first() {
        None => {
            let allowed = "must be a list with the program to run and its arguments, since the image is ignored locally";
            return Err(command_field.error(allowed));
        }
        Some(program) if program.is_empty() => {
            return Err(command_field.items()?[0].error("must be a program's name or path"));
        }
        Some(_) => {}
    }
    if container.get("volumeMounts")?.exists() {
        warnings.push(format!(
            "{}: {}.volumeMounts: ignored locally: paths in the container are paths on this machine",
            container.source(),
            container.path()
        ));
    }
    Ok(Container {
        name,
        command,
        args: container.get("args")?.texts()?,
        env: env(container, warnings)?,
        ports: ports(&container.get("ports")?)?,
        readiness_probe: None,
        working_dir: working_dir(&container.get("workingDir")?, folder)?,
    })
}

fn env(container: &Cursor<'_>, warnings: &mut Vec<String>) -> Result<Vec<(String, String)>> {
    let from = container.get("envFrom")?;
    if from.exists() {
        return Err(from.error("cannot be read locally: write name and value pairs under env"));
    }
    let mut variables = Vec::new();
    for variable in container.get("env")?.items()? {
        let name_field = variable.get("name")?;
        let allowed = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'=';
        let name = name_field
            .text()?
            .filter(|name| !name.is_empty() && name.bytes().all(allowed))
            .ok_or_else(|| {
                name_field.error("must be a variable's name: printable ASCII without `=`")
            })?;
        let from = variable.get("valueFrom")?;
        if from.exists() {
            return Err(from.error(format!("cannot be read locally: give {name} a value")));
        }
        if name == "PORT" || name.starts_with("PORT_") {
            warnings.push(format!(
                "{}: {}: Rouse sets PORT and PORT_* to the ports of each replica; if it sets {name}, this value is unused",
                variable.source(),
                variable.path()
            ));
        }
        let value = variable.get("value")?.text()?.unwrap_or_default();
        variables.push((name.to_owned(), value.to_owned()));
    }
    Ok(variables)
}

fn ports(field: &Cursor<'_>) -> Result<Vec<ContainerPort>> {
    let mut ports = Vec::new();
    let (mut numbers, mut names) = (BTreeSet::new(), BTreeSet::new());
    for port in field.items()? {
        let protocol = port.get("protocol")?;
        match protocol.text()? {
            None | Some("TCP") => {}
            Some("UDP" | "SCTP") => continue,
            Some(_) => return Err(protocol.error("must be TCP, UDP or SCTP")),
        }
        let number_field = port.get("containerPort")?;
        let number = port_number(&number_field)?.ok_or_else(|| number_field.error(PORT_RANGE))?;
        if !numbers.insert(number) {
            return Err(number_field.error("must differ from the container's other ports"));
        }
        let name_field = port.get("name")?;
        let name = name_field.text()?;
        if let Some(name) = name {
            if !is_port_name(name) {
                return Err(name_field.error(PORT_NAME));
            }
            if !names.insert(name) {
                return Err(
                    name_field.error("must differ from the names of the container's other ports")
                );
            }
        }
        ports.push(ContainerPort {
            port: number,
            name: name.map(str::to_owned),
        });
    }
    Ok(ports)
}

pub(super) const PORT_RANGE: &str = "must be a whole number from 1 to 65535";
const PORT_NAME: &str =
    "must be 1 to 15 lower-case letters, digits and single hyphens, at least one of them a letter";

fn is_port_name(name: &str) -> bool {
    name.len() <= 15
        && names::is_label(name)
        && !name.contains("--")
        && name.bytes().any(|byte| byte.is_ascii_lowercase())
}

/// A port given by number, if one is.
pub(super) fn port_number(field: &Cursor<'_>) -> Result<Option<u16>> {
    let number = field.integer(1..=65535)?;
    Ok(number.and_then(|number| u16::try_from(number).ok()))
}

/// A port given by number or by the name of one of the container's ports. A number that is not declared is added to them,
/// since on a cluster it would be reachable all the same.
pub(super) fn port_reference(
    field: &Cursor<'_>,
    ports: &mut Vec<ContainerPort>,
) -> Result<Option<u16>> {
    if field.is_text() {
        let name = field.text()?.unwrap_or_default();
        let known = ports.iter().find(|port| port.name.as_deref() == Some(name));
        return known.map(|port| Some(port.port)).ok_or_else(|| {
            let names: Vec<_> = ports
                .iter()
                .filter_map(|port| port.name.as_deref())
                .collect();
            field.error(if names.is_empty() {
                "names a port, but the container's ports have no names: must be a port's number"
                    .to_owned()
            } else {
                format!(
                    "must be the number or name of a port of the container (names: {})",
                    names.join(", ")
                )
            })
        });
    }
    let number = port_number(field)?;
    if let Some(number) = number {
        declare(number, ports);
    }
    Ok(number)
}

/// Adds a port unless the container has it.
pub(super) fn declare(number: u16, ports: &mut Vec<ContainerPort>) {
    if ports.iter().all(|port| port.port != number) {
        ports.push(ContainerPort {
            port: number,
            name: None,
        });
    }
}

fn working_dir(field: &Cursor<'_>, folder: &Path) -> Result<PathBuf> {
    let Some(path) = field.text()? else {
        return Ok(folder.to_path_buf());
    };
    let path = folder.join(path);
    if path.is_dir() {
        Ok(path)
    } else {
        Err(field.error(format!(
            "must be a folder on this machine; there is none at {}",
            path.display()
        )))
    }
}
