//! Which ports take requests, and whether the sidecar's own are free.

use k8s_openapi::api::core::v1::{Container, ContainerPort, PodSpec};
use kubernetes::{
    names::{
        ACTIVATOR_PORT, FIRST_REQUEST_PORT, LIFECYCLE_PORT, PORTS, STATS_PORT, request_port_index,
    },
    ports::request_ports,
};

/// Names of ports that speak TLS, which the sidecar does not.
const TLS_NAME: &str = "https";

/// The model's ports that take requests, the n-th for the n-th request port; or one line about what stands in the way.
pub(super) fn upstreams(
    spec: &PodSpec,
    main: &Container,
    chosen: Option<&str>,
) -> Result<Vec<u16>, String> {
    let ports = request_ports(main, chosen).map_err(|error| error.to_string())?;
    let tls = all(main).find(|port| {
        name(port).starts_with(TLS_NAME) && number(port).is_some_and(|n| ports.contains(&n))
    });
    if let (Some(tls), None) = (tls, chosen) {
        return Err(format!(
            "port {} of container {} speaks TLS by its name, which Rouse does not speak to a model: list the ports that take \
             requests in annotation {PORTS}",
            name(tls),
            main.name
        ));
    }
    check_free(spec, &ports)?;
    Ok(ports)
}

/// The sidecar's ports, for as many request ports.
fn ours(count: usize) -> impl Iterator<Item = u16> {
    (FIRST_REQUEST_PORT..)
        .take(count)
        .chain([LIFECYCLE_PORT, ACTIVATOR_PORT, STATS_PORT])
}

fn check_free(spec: &PodSpec, upstreams: &[u16]) -> Result<(), String> {
    let is_ours = |port: u16| ours(upstreams.len()).any(|our| our == port);
    let clash = |what: String| {
        let needed: Vec<String> = ours(upstreams.len()).map(|port| port.to_string()).collect();
        Err(format!(
            "{what}, which the sidecar needs (ports {}): move the container to another port",
            needed.join(", ")
        ))
    };
    let containers = spec
        .init_containers
        .iter()
        .flatten()
        .chain(&spec.containers);
    for container in containers {
        for port in all(container) {
            if number(port).is_some_and(is_ours) && is_tcp(port) {
                return clash(format!(
                    "container {} uses port {}",
                    container.name, port.container_port
                ));
            }
            if request_port_index(name(port)).is_some() {
                return Err(format!(
                    "container {} has a port named {}, which is the name of a port of the sidecar: rename it",
                    container.name,
                    name(port)
                ));
            }
        }
    }
    match upstreams.iter().find(|port| is_ours(**port)) {
        Some(port) => clash(format!("annotation {PORTS} has port {port}")),
        None => Ok(()),
    }
}

/// The number of a container's port of that name.
pub(super) fn named(container: &Container, wanted: &str) -> Option<u16> {
    all(container)
        .find(|port| port.name.as_deref() == Some(wanted))
        .and_then(number)
}

fn all(container: &Container) -> impl Iterator<Item = &ContainerPort> {
    container.ports.iter().flatten()
}

fn name(port: &ContainerPort) -> &str {
    port.name.as_deref().unwrap_or_default()
}

fn number(port: &ContainerPort) -> Option<u16> {
    u16::try_from(port.container_port).ok().filter(|n| *n > 0)
}

fn is_tcp(port: &ContainerPort) -> bool {
    port.protocol
        .as_deref()
        .is_none_or(|protocol| protocol == "TCP")
}
