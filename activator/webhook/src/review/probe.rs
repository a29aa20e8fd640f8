//! Whether the sidecar can ask the model what the kubelet would ask it.
//!
//! Handing the probe over is worth it: the kubelet asks once a second at best, the sidecar every few milliseconds while the
//! model starts, and an activator waits on its answer.

use k8s_openapi::{
    api::core::v1::{Container, HTTPGetAction, HTTPHeader, Probe},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::port;

/// The readiness probe with numbers for ports, or why Kubernetes has to go on asking.
pub(super) fn hand_over(container: &Container, probe: &Probe) -> Result<Probe, String> {
    let mut probe = probe.clone();
    let stays = |why: &str| Err(format!("its readinessProbe {why}"));
    if let Some(get) = &mut probe.http_get {
        if !is_here(get.host.as_deref()) {
            return stays("asks another host");
        }
        if !is_sendable(get) {
            return stays("has a path or header that is none in HTTP");
        }
        get.host = None;
        get.port = resolve(container, &get.port)?;
    } else if let Some(connect) = &mut probe.tcp_socket {
        if !is_here(connect.host.as_deref()) {
            return stays("asks another host");
        }
        connect.host = None;
        connect.port = resolve(container, &connect.port)?;
    } else if probe.grpc.is_none() {
        return stays("is exec");
    }
    Ok(probe)
}

/// Makes the path one that starts with `/`, as the kubelet does. The sidecar would not start over what cannot be sent.
fn is_sendable(get: &mut HTTPGetAction) -> bool {
    let path = get.path.take().unwrap_or_default();
    let path = format!("/{}", path.strip_prefix('/').unwrap_or(&path));
    let has_path = path.parse::<http::uri::PathAndQuery>().is_ok();
    get.path = Some(path);
    let is_header = |header: &HTTPHeader| {
        header.name.parse::<http::HeaderName>().is_ok()
            && header.value.parse::<http::HeaderValue>().is_ok()
    };
    has_path && get.http_headers.iter().flatten().all(is_header)
}

fn is_here(host: Option<&str>) -> bool {
    matches!(host, None | Some("" | "localhost" | "127.0.0.1"))
}

fn resolve(container: &Container, port: &IntOrString) -> Result<IntOrString, String> {
    match port {
        IntOrString::Int(_) => Ok(port.clone()),
        // Kubernetes takes a number in quotes for a name, unless no port has it.
        IntOrString::String(name) => port::named(container, name)
            .or_else(|| name.parse().ok())
            .map(|number| IntOrString::Int(number.into()))
            .ok_or_else(|| format!("its readinessProbe names port {name}, which it does not have")),
    }
}
