//! The readiness probe of a container.

use std::time::Duration;

use super::container::port_reference;
use super::cursor::Cursor;
use super::error::ManifestError;
use super::{ContainerPort, Probe, ProbeAction};

type Result<T> = std::result::Result<T, ManifestError>;

/// Reads a readiness probe; `None` if there is none or none that can be done locally, with a warning for the latter.
pub(super) fn read(
    probe: &Cursor<'_>,
    ports: &mut Vec<ContainerPort>,
    warnings: &mut Vec<String>,
) -> Result<Option<Probe>> {
    if !probe.exists() {
        return Ok(None);
    }
    let (http, tcp, grpc) = (
        probe.get("httpGet")?,
        probe.get("tcpSocket")?,
        probe.get("grpc")?,
    );
    let action = match (http.exists(), tcp.exists(), grpc.exists()) {
        (true, false, false) => http_get(&http, ports)?,
        (false, true, false) => ProbeAction::TcpSocket {
            port: required_port(&tcp.get("port")?, ports)?,
        },
        (false, false, true) => ProbeAction::Grpc {
            port: required_port(&grpc.get("port")?, ports)?,
            service: grpc.get("service")?.text()?.unwrap_or_default().to_owned(),
        },
        (false, false, false) => {
            if probe.get("exec")?.exists() {
                warnings.push(format!(
                    "{}: {}.exec: not done locally: a replica is ready once its port accepts connections",
                    probe.source(),
                    probe.path()
                ));
                return Ok(None);
            }
            return Err(probe.error("must have httpGet, tcpSocket or grpc"));
        }
        _ => return Err(probe.error("must have only one of httpGet, tcpSocket and grpc")),
    };
    let number = |key: &str, least: i64, default: u32| -> Result<u32> {
        let number = probe.get(key)?.integer(least..=i64::from(i32::MAX))?;
        Ok(number
            .and_then(|number| u32::try_from(number).ok())
            .unwrap_or(default))
    };
    let seconds = |key, least, default| -> Result<Duration> {
        Ok(Duration::from_secs(u64::from(number(key, least, default)?)))
    };
    Ok(Some(Probe {
        action,
        initial_delay: seconds("initialDelaySeconds", 0, 0)?,
        period: seconds("periodSeconds", 1, 10)?,
        timeout: seconds("timeoutSeconds", 1, 1)?,
        failure_threshold: number("failureThreshold", 1, 3)?,
        success_threshold: number("successThreshold", 1, 1)?,
    }))
}

fn http_get(field: &Cursor<'_>, ports: &mut Vec<ContainerPort>) -> Result<ProbeAction> {
    let scheme = field.get("scheme")?;
    if !matches!(scheme.text()?, None | Some("HTTP")) {
        return Err(scheme.error("must be HTTP: local mode speaks no TLS to a model"));
    }
    let path_field = field.get("path")?;
    let path = path_field.text()?.unwrap_or("/");
    let printable = |byte: u8| (b'!'..=b'~').contains(&byte);
    if !path.bytes().all(printable) {
        return Err(path_field.error(
            "must be a URL's path in printable ASCII, spaces and the like percent-encoded",
        ));
    }
    let path = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    };
    let port = required_port(&field.get("port")?, ports)?;
    let mut headers = Vec::new();
    for header in field.get("httpHeaders")?.items()? {
        let (name_field, value_field) = (header.get("name")?, header.get("value")?);
        let name = name_field
            .text()?
            .filter(|name| is_token(name))
            .ok_or_else(|| name_field.error("must be an HTTP header's name"))?;
        let value = value_field.text()?.unwrap_or_default();
        if !value
            .bytes()
            .all(|byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f))
        {
            return Err(value_field
                .error("must be an HTTP header's value: no line breaks or control characters"));
        }
        headers.push((name.to_owned(), value.to_owned()));
    }
    Ok(ProbeAction::HttpGet {
        path,
        port,
        headers,
    })
}

fn required_port(field: &Cursor<'_>, ports: &mut Vec<ContainerPort>) -> Result<u16> {
    port_reference(field, ports)?
        .ok_or_else(|| field.error("must be the number or name of a port of the container"))
}

/// RFC 9110 token.
fn is_token(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}
