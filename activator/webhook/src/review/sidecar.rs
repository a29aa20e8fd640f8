//! The sidecar's container.
//!
//! It is the first init container and restarts always, which makes it a native sidecar: started first, stopped last. It has no
//! startup probe: Kubernetes starts the model only after that has succeeded, and ours waits for the model.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use k8s_openapi::{
    api::core::v1::{
        Capabilities, Container, ContainerPort, EnvVar, EnvVarSource, HTTPGetAction, Lifecycle,
        LifecycleHandler, ObjectFieldSelector, Probe, SeccompProfile, SecurityContext,
    },
    apimachinery::pkg::util::intstr::IntOrString,
};
use kubernetes::names::{
    self, ACTIVATOR_PORT, FIRST_REQUEST_PORT, LIFECYCLE_PORT, SIDECAR, STATS_PORT,
    request_port_name,
};
use shared::TargetId;

use super::plan::Plan;
use crate::{Settings, annotations::Asked};

/// Environment variable with the lifecycle token, by which an injected sidecar is known.
pub(super) const TOKEN: &str = "ROUSE_LIFECYCLE_TOKEN";

/// The container.
pub(super) fn container(
    plan: &Plan,
    asked: &Asked,
    target: &TargetId,
    token: &str,
    settings: &Settings,
) -> Container {
    Container {
        name: SIDECAR.to_owned(),
        image: Some(settings.image.clone()),
        image_pull_policy: settings.image_pull_policy.clone(),
        command: (!settings.command.is_empty()).then(|| settings.command.clone()),
        restart_policy: Some("Always".to_owned()),
        env: Some(environment(plan, asked, target, token, settings)),
        ports: Some(ports(plan.upstreams.len())),
        readiness_probe: Some(Probe {
            period_seconds: Some(1),
            timeout_seconds: Some(1),
            ..health("/readyz")
        }),
        // Slow on purpose: it is for a process that hangs, not for a node that is busy.
        liveness_probe: Some(Probe {
            period_seconds: Some(10),
            timeout_seconds: Some(5),
            failure_threshold: Some(6),
            // Not the pod's, which covers a drain.
            termination_grace_period_seconds: Some(30),
            ..health("/livez")
        }),
        lifecycle: Some(Lifecycle {
            pre_stop: Some(hook(token, "drain")),
            ..Lifecycle::default()
        }),
        resources: Some(asked.resources.requirements()),
        security_context: Some(restricted(settings.user)),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        ..Container::default()
    }
}

/// A hook at the sidecar's life cycle port. Who asks is the kubelet, at the pod's address.
pub(super) fn hook(token: &str, action: &str) -> LifecycleHandler {
    LifecycleHandler {
        http_get: Some(HTTPGetAction {
            path: Some(format!("/{token}/{action}")),
            port: IntOrString::Int(LIFECYCLE_PORT.into()),
            ..HTTPGetAction::default()
        }),
        ..LifecycleHandler::default()
    }
}

fn environment(
    plan: &Plan,
    asked: &Asked,
    target: &TargetId,
    token: &str,
    settings: &Settings,
) -> Vec<EnvVar> {
    let on = |port: u16| SocketAddr::new(settings.listen, port).to_string();
    let joined =
        |addresses: &mut dyn Iterator<Item = String>| addresses.collect::<Vec<String>>().join(",");
    let mut env = vec![
        variable(
            "ROUSE_LISTEN",
            &joined(&mut request_ports(plan.upstreams.len()).map(on)),
        ),
        variable(
            "ROUSE_UPSTREAM",
            &joined(
                &mut plan
                    .upstreams
                    .iter()
                    .map(|port| format!("127.0.0.1:{port}")),
            ),
        ),
        variable("ROUSE_ACTIVATOR_LISTEN", &on(ACTIVATOR_PORT)),
        variable("ROUSE_STATS_LISTEN", &on(STATS_PORT)),
        variable("ROUSE_LIFECYCLE_LISTEN", &on(LIFECYCLE_PORT)),
        variable(TOKEN, token),
        variable("ROUSE_TARGET", &target.to_string()),
        EnvVar {
            name: "ROUSE_POD_UID".to_owned(),
            value: None,
            value_from: Some(EnvVarSource {
                field_ref: Some(ObjectFieldSelector {
                    api_version: Some("v1".to_owned()),
                    field_path: "metadata.uid".to_owned(),
                }),
                ..EnvVarSource::default()
            }),
        },
        variable(
            "ROUSE_CONTAINER_CONCURRENCY",
            &asked.container_concurrency.to_string(),
        ),
        variable(
            "ROUSE_SOFT_LIMIT",
            &asked.soft_limit.unwrap_or_default().to_string(),
        ),
        variable("ROUSE_GRACE", &plan.drain_seconds.to_string()),
        variable(
            "ROUSE_MAX_CONNECTION_AGE",
            &seconds(asked.max_connection_age.unwrap_or_default()),
        ),
        variable("ROUSE_LOG_JSON", "true"),
    ];
    for (name, limit) in [
        ("ROUSE_REQUEST_TIMEOUT", asked.request_timeout),
        ("ROUSE_RESPONSE_START_TIMEOUT", asked.response_start_timeout),
        ("ROUSE_IDLE_TIMEOUT", asked.idle_timeout),
    ] {
        env.extend(limit.map(|limit| variable(name, &seconds(limit))));
    }
    if let Some(relay) = names::relay(target.name()).filter(|_| asked.bounce) {
        let there = |port: u16| format!("{relay}.{}.svc:{port}", target.namespace());
        let all = joined(&mut request_ports(plan.upstreams.len()).map(there));
        env.push(variable("ROUSE_BOUNCE_TO", &all));
    }
    if let Some(path) = &plan.ready_path {
        env.push(variable("ROUSE_READY_PATH", path));
    }
    if let Some(probe) = &plan.probe
        && let Ok(probe) = serde_json::to_string(probe)
    {
        env.push(variable("ROUSE_READINESS_PROBE", &probe));
    }
    if !asked.probe_paths.is_empty() {
        env.push(variable("ROUSE_PROBE_PATH", &asked.probe_paths.join(",")));
    }
    if asked.openai_errors {
        env.push(variable("ROUSE_OPENAI_ERRORS", "true"));
    }
    if let Some(form) = &asked.request_log {
        env.push(variable("ROUSE_REQUEST_LOG", form));
    }
    env
}

/// As the sidecar's flags take it.
fn seconds(time: Duration) -> String {
    time.as_secs_f64().to_string()
}

/// A variable with exactly this value: Kubernetes would replace `$(NAME)` in it.
fn variable(name: &str, value: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: Some(value.replace('$', "$$")),
        value_from: None,
    }
}

fn request_ports(count: usize) -> impl Iterator<Item = u16> {
    (FIRST_REQUEST_PORT..).take(count)
}

/// Only request ports have names: Services find them by these.
fn ports(count: usize) -> Vec<ContainerPort> {
    let port = |number: u16, name| ContainerPort {
        container_port: number.into(),
        name,
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    };
    request_ports(count)
        .enumerate()
        .map(|(index, number)| port(number, Some(request_port_name(index))))
        .chain([LIFECYCLE_PORT, ACTIVATOR_PORT, STATS_PORT].map(|number| port(number, None)))
        .collect()
}

fn health(path: &str) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::Int(STATS_PORT.into()),
            ..HTTPGetAction::default()
        }),
        ..Probe::default()
    }
}

/// What the Pod Security Standard `restricted` asks for, and a file system that cannot be written.
fn restricted(user: i64) -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities {
            add: None,
            drop: Some(vec!["ALL".to_owned()]),
        }),
        read_only_root_filesystem: Some(true),
        run_as_group: Some(user),
        run_as_non_root: Some(true),
        run_as_user: Some(user),
        seccomp_profile: Some(SeccompProfile {
            localhost_profile: None,
            type_: "RuntimeDefault".to_owned(),
        }),
        ..SecurityContext::default()
    }
}

/// Whether a container of a pod is an injected sidecar.
pub(super) fn is_ours(container: &Container) -> bool {
    let names: BTreeMap<&str, &EnvVar> = container
        .env
        .iter()
        .flatten()
        .map(|variable| (variable.name.as_str(), variable))
        .collect();
    container.name == SIDECAR
        && container.restart_policy.as_deref() == Some("Always")
        && names.contains_key(TOKEN)
}
