//! Which ports of a pod take requests.
//!
//! The webhook gives each of them a port of the sidecar; the autoscaler must know them before a pod exists, since a workload
//! that is at zero when it is opted in has none to look at.

use k8s_openapi::api::core::v1::{Container, ContainerPort};
use litemap::LiteMap;

use crate::names;

/// Why a template's request ports are not known. One line that says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortsError {
    /// Neither a port nor the annotation.
    #[error(
        "container {container} names no TCP port: add its containerPort, or the annotation rouse.dev/ports with the port"
    )]
    None {
        /// The main container.
        container: String,
    },
    /// The annotation names something that is none.
    #[error(
        "{}: \"{text}\": {what:?} is neither a port from 1 to 65535 nor the name of a port of container {container}",
        names::PORTS
    )]
    Unknown {
        /// The annotation's value.
        text: String,
        /// Its part that is wrong.
        what: String,
        /// The main container.
        container: String,
    },
    /// More than the sidecar has ports for.
    #[error(
        "{count} request ports: at most {} are possible; choose with {}",
        names::MAX_REQUEST_PORTS,
        names::PORTS
    )]
    TooMany {
        /// How many there would be.
        count: usize,
    },
}

/// The model's request ports, in the order of the sidecar's ports in front of them: those that the annotation
/// [`names::PORTS`] lists as numbers or names; else the container's TCP ports whose names say HTTP or gRPC; else its first TCP
/// port.
///
/// # Errors
/// [`PortsError`] if there is none, an unknown one, or too many.
pub fn request_ports(main: &Container, chosen: Option<&str>) -> Result<Vec<u16>, PortsError> {
    let tcp: Vec<(Option<&str>, u16)> = main.ports.iter().flatten().filter_map(tcp).collect();
    let mut ports = match chosen {
        Some(text) => listed(main, text, &tcp)?,
        None => tcp
            .iter()
            .filter(|(name, _)| name.is_some_and(speaks_http))
            .map(|(_, port)| *port)
            .collect(),
    };
    if ports.is_empty() {
        ports.extend(tcp.first().map(|(_, port)| *port));
    }
    let mut seen = Vec::new();
    ports.retain(|port| {
        let new = !seen.contains(port);
        seen.push(*port);
        new
    });
    match ports.len() {
        0 => Err(PortsError::None {
            container: main.name.clone(),
        }),
        count if count > names::MAX_REQUEST_PORTS => Err(PortsError::TooMany { count }),
        _ => Ok(ports),
    }
}

/// The named TCP ports of a container, by which a Service may mean them.
pub fn named(main: &Container) -> LiteMap<String, u16> {
    let all = main.ports.iter().flatten().filter_map(tcp);
    all.filter_map(|(name, port)| Some((name?.to_owned(), port)))
        .collect()
}

fn listed(
    main: &Container,
    text: &str,
    tcp: &[(Option<&str>, u16)],
) -> Result<Vec<u16>, PortsError> {
    let port = |what: &str| {
        let number = what.parse().ok().filter(|port| *port > 0);
        let named = || {
            tcp.iter()
                .find(|(name, _)| *name == Some(what))
                .map(|(_, port)| *port)
        };
        number.or_else(named).ok_or_else(|| PortsError::Unknown {
            text: text.to_owned(),
            what: what.to_owned(),
            container: main.name.clone(),
        })
    };
    text.split(',').map(str::trim).map(port).collect()
}

/// By the conventions for names of ports: `http`, `http-metrics`, `http2`, `h2c`, `grpc`, `grpc-web`. KServe's are `http1` and
/// `h2c`.
pub fn speaks_http(name: &str) -> bool {
    ["http", "h2c", "grpc"]
        .iter()
        .any(|protocol| name.starts_with(protocol))
}

fn tcp(port: &ContainerPort) -> Option<(Option<&str>, u16)> {
    let tcp = port
        .protocol
        .as_deref()
        .is_none_or(|protocol| protocol == "TCP");
    let number = u16::try_from(port.container_port)
        .ok()
        .filter(|port| *port > 0)?;
    tcp.then_some((port.name.as_deref(), number))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ports(given: &serde_json::Value, chosen: Option<&str>) -> Result<Vec<u16>, String> {
        let container = json!({"name": "model", "ports": given});
        let container: Container = serde_json::from_value(container).unwrap();
        request_ports(&container, chosen).map_err(|error| error.to_string())
    }

    #[test]
    fn named_for_http_else_the_first() {
        let triton = json!([
            {"name": "http", "containerPort": 8000},
            {"name": "grpc", "containerPort": 8001},
            {"name": "metrics", "containerPort": 8002},
        ]);
        assert_eq!(ports(&triton, None), Ok(vec![8000, 8001]));
        assert_eq!(
            ports(&triton, Some("metrics, 8000,8000")),
            Ok(vec![8002, 8000])
        );
        let plain = json!([{"containerPort": 53, "protocol": "UDP"}, {"containerPort": 8080}, {"containerPort": 9}]);
        assert_eq!(ports(&plain, None), Ok(vec![8080]));
        assert_eq!(
            ports(&json!([]), Some("8080")),
            Ok(vec![8080]),
            "containerPort is only information"
        );
    }

    #[test]
    fn what_cannot_be_is_told_with_what_to_do() {
        assert!(
            ports(&json!([]), None)
                .unwrap_err()
                .contains("rouse.dev/ports")
        );
        for bad in ["web", "0", "70000", "8080,", ""] {
            let error = ports(&json!([{"containerPort": 8080}]), Some(bad)).unwrap_err();
            assert!(error.contains("neither a port"), "{error}");
        }
        let many: Vec<_> = (1..=9)
            .map(|n| json!({"name": format!("http-{n}"), "containerPort": n}))
            .collect();
        assert!(ports(&json!(many), None).unwrap_err().contains("at most 8"));
    }
}
