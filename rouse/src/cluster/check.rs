//! `check`: what enabling a workload would do, and what stands in the way.

use std::{fmt, process::ExitCode};

use autoscaler_core::{ClusterConfig, annotations};
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        autoscaling::v2::HorizontalPodAutoscaler,
        core::v1::{Container, PodSpec, Service},
    },
    apimachinery::pkg::util::intstr::IntOrString,
};
use kube::{Api, api::ListParams};
use kubernetes::{Labels, labels, names, pod::model, ports};

use super::{Cluster, Failed};

/// One thing that there is to know.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Finding {
    /// How it will be.
    Fine(String),
    /// It works, but not as one may expect.
    Warning(String),
    /// It cannot be enabled.
    Blocker(String),
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fine(text) => write!(f, "  ok       {text}"),
            Self::Warning(text) => write!(f, "  warning  {text}"),
            Self::Blocker(text) => write!(f, "  BLOCKED  {text}"),
        }
    }
}

pub(super) async fn run(cluster: &Cluster, name: &str) -> Result<ExitCode, Failed> {
    let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let services: Api<Service> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let scalers: Api<HorizontalPodAutoscaler> =
        Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let all = ListParams::default();
    let deployment = deployments.get(name).await?;
    let services = services.list(&all).await?.items;
    let scalers = scalers.list(&all).await?.items;
    let findings = findings(&deployment, &services, &scalers);
    cluster
        .output
        .line(format!("{}/{name}:", cluster.namespace));
    for finding in &findings {
        cluster.output.line(finding.to_string());
    }
    let blocked = findings
        .iter()
        .any(|finding| matches!(finding, Finding::Blocker(_)));
    Ok(ExitCode::from(u8::from(blocked)))
}

/// Pure: everything there is to say.
fn findings(
    deployment: &Deployment,
    services: &[Service],
    scalers: &[HorizontalPodAutoscaler],
) -> Vec<Finding> {
    let mut found = Vec::new();
    let name = deployment.metadata.name.as_deref().unwrap_or_default();
    let template = deployment.spec.as_ref().map(|spec| &spec.template);
    let meta = template.and_then(|template| template.metadata.as_ref());
    let Some(pod) = template.and_then(|template| template.spec.as_ref()) else {
        return vec![Finding::Blocker("it has no pod template".to_owned())];
    };
    let mut settings = annotations::Annotations::new();
    // The template's last: they win.
    let given = [
        deployment.metadata.annotations.as_ref(),
        meta.and_then(|meta| meta.annotations.as_ref()),
    ];
    for (key, value) in given.into_iter().flatten().flatten() {
        settings.insert(key.clone(), value.clone());
    }
    match annotations::parse(&settings, &ClusterConfig::default()) {
        Ok(parsed) => {
            found.extend(
                parsed.warnings.iter().map(|warning| {
                    Finding::Warning(format!("{}: {}", warning.key, warning.message))
                }),
            );
        }
        Err(invalid) => {
            found.extend(
                invalid
                    .errors
                    .iter()
                    .map(|error| Finding::Blocker(error.to_string())),
            );
        }
    }
    let upstreams = upstreams(
        pod,
        settings.get(names::PORTS).map(String::as_str),
        &mut found,
    );
    pod_findings(pod, &mut found);
    let pod_labels = labels::kept(meta.and_then(|meta| meta.labels.as_ref()));
    service_findings(pod, &pod_labels, services, &upstreams, &mut found);
    for scaler in scalers {
        let target = scaler.spec.as_ref().map(|spec| &spec.scale_target_ref);
        if target.is_some_and(|target| target.kind == "Deployment" && target.name == name) {
            let by = scaler.metadata.name.as_deref().unwrap_or_default();
            found.push(Finding::Blocker(format!(
                "HorizontalPodAutoscaler {by} scales it too: delete it first"
            )));
        }
    }
    found
}

fn upstreams(pod: &PodSpec, chosen: Option<&str>, found: &mut Vec<Finding>) -> Vec<u16> {
    let Some((_, main)) = model(pod) else {
        found.push(Finding::Blocker("its pods have no container".to_owned()));
        return Vec::new();
    };
    match ports::request_ports(main, chosen) {
        Ok(ports) => {
            let list: Vec<_> = ports.iter().map(u16::to_string).collect();
            found.push(Finding::Fine(format!(
                "requests go to port {} of container {}",
                list.join(" and "),
                main.name
            )));
            ports
        }
        Err(error) => {
            found.push(Finding::Blocker(error.to_string()));
            Vec::new()
        }
    }
}

fn pod_findings(pod: &PodSpec, found: &mut Vec<Finding>) {
    if pod.host_network == Some(true) {
        found.push(Finding::Blocker(
            "hostNetwork: the sidecar's ports would be the node's".to_owned(),
        ));
    }
    let is_ours = |port: i32| {
        u16::try_from(port).is_ok_and(|port| {
            let requests = names::FIRST_REQUEST_PORT
                ..names::FIRST_REQUEST_PORT + u16::try_from(names::MAX_REQUEST_PORTS).unwrap_or(0);
            requests.contains(&port)
                || [
                    names::LIFECYCLE_PORT,
                    names::ACTIVATOR_PORT,
                    names::STATS_PORT,
                ]
                .contains(&port)
        })
    };
    for container in &pod.containers {
        for port in container
            .ports
            .iter()
            .flatten()
            .filter(|port| is_ours(port.container_port))
        {
            found.push(Finding::Blocker(format!(
                "port {} of container {} is one that the sidecar needs",
                port.container_port, container.name
            )));
        }
    }
    if pod.containers.len() > 1 {
        let rest: Vec<_> = pod.containers[1..]
            .iter()
            .map(|container| container.name.as_str())
            .collect();
        found.push(Finding::Warning(format!(
            "only the first container is looked after; {} may stop before it when a pod ends",
            rest.join(", ")
        )));
    }
    if model(pod).is_some_and(|(_, main)| has_pre_stop(main)) {
        found.push(Finding::Warning(
            "its own preStop hook stays: the model may end before the sidecar has drained"
                .to_owned(),
        ));
    }
}

fn has_pre_stop(container: &Container) -> bool {
    container
        .lifecycle
        .as_ref()
        .is_some_and(|lifecycle| lifecycle.pre_stop.is_some())
}

fn service_findings(
    pod: &PodSpec,
    pod_labels: &Labels,
    services: &[Service],
    upstreams: &[u16],
    found: &mut Vec<Finding>,
) {
    let named = model(pod)
        .map(|(_, main)| ports::named(main))
        .unwrap_or_default();
    let mut any = false;
    for service in services {
        let Some(spec) = &service.spec else { continue };
        if !labels::selects(&labels::kept(spec.selector.as_ref()), pod_labels) {
            continue;
        }
        any = true;
        let name = service.metadata.name.as_deref().unwrap_or_default();
        if let Some(why) = why_left_alone(service) {
            found.push(Finding::Warning(format!(
                "Service {name}: {why}; it stays as it is, and the workload keeps a replica"
            )));
            continue;
        }
        for port in spec.ports.iter().flatten() {
            let target = match &port.target_port {
                Some(IntOrString::Int(number)) => u16::try_from(*number).ok(),
                Some(IntOrString::String(name)) => named.get(name).copied(),
                None => u16::try_from(port.port).ok(),
            };
            let adopted = match &port.target_port {
                Some(IntOrString::String(name)) => names::request_port_index(name),
                _ => None,
            };
            let through = adopted.or_else(|| {
                target.and_then(|target| upstreams.iter().position(|port| *port == target))
            });
            found.push(match through {
                Some(_) => Finding::Fine(format!("Service {name}, port {}: through the sidecar", port.port)),
                None => Finding::Warning(format!(
                    "Service {name}, port {}: goes to the pods past the sidecar and wakes nobody; list its target in {}",
                    port.port,
                    names::PORTS
                )),
            });
        }
    }
    if !any {
        found.push(Finding::Warning(
            "no Service selects its pods: nobody can wake it".to_owned(),
        ));
    }
}

/// Why a Service cannot lead to activators.
fn why_left_alone(service: &Service) -> Option<&'static str> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        Some("it is an ExternalName")
    } else if spec.publish_not_ready_addresses == Some(true) {
        Some("publishNotReadyAddresses sends requests to pods that are not ready")
    } else if spec.internal_traffic_policy.as_deref() == Some("Local")
        || spec.external_traffic_policy.as_deref() == Some("Local")
    {
        Some("its traffic policy is Local, and an activator may be on another node")
    } else if spec.cluster_ip.as_deref() == Some("None") {
        Some("it is headless, so clients choose pods themselves")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn deployment() -> Value {
        json!({"metadata": {"name": "iris"}, "spec": {"selector": {}, "template": {
            "metadata": {"labels": {"app": "iris"}},
            "spec": {"containers": [{"name": "model", "ports": [{"name": "http", "containerPort": 8080}]}]},
        }}})
    }

    fn service() -> Value {
        json!({"metadata": {"name": "web"}, "spec": {
            "selector": {"app": "iris"}, "clusterIP": "10.0.0.1",
            "ports": [{"port": 80, "targetPort": "http"}, {"port": 90, "targetPort": 9000}],
        }})
    }

    fn said(deployment: Value, services: Value, scalers: Value) -> String {
        let found = findings(
            &serde_json::from_value(deployment).unwrap(),
            &serde_json::from_value::<Vec<Service>>(services).unwrap(),
            &serde_json::from_value::<Vec<HorizontalPodAutoscaler>>(scalers).unwrap(),
        );
        let lines: Vec<_> = found.iter().map(Finding::to_string).collect();
        lines.join(
            "
",
        )
    }

    #[test]
    fn a_workload_that_can_be_enabled() {
        let said = said(deployment(), json!([service()]), json!([]));
        assert!(said.contains("ok       requests go to port 8080"), "{said}");
        assert!(said.contains("Service web, port 80: through"), "{said}");
        assert!(
            said.contains("warning  Service web, port 90: goes to the pods past"),
            "{said}"
        );
        assert!(!said.contains("BLOCKED"), "{said}");
    }

    #[test]
    fn the_templates_annotations_are_looked_at_before_the_deployments() {
        let with = |template: &str, deployed: &str| {
            let key = "autoscaling.knative.dev/target";
            let mut both = deployment();
            both["metadata"]["annotations"] = json!({key: deployed});
            both["spec"]["template"]["metadata"]["annotations"] = json!({key: template});
            said(both, json!([service()]), json!([]))
        };
        assert!(!with("1", "-1").contains("BLOCKED"));
        assert!(with("-1", "1").contains("BLOCKED"));
    }

    #[test]
    fn what_stands_in_the_way_is_named() {
        let mut bad = deployment();
        bad["metadata"]["annotations"] = json!({"autoscaling.knative.dev/target": "-1"});
        bad["spec"]["template"]["spec"]["hostNetwork"] = json!(true);
        bad["spec"]["template"]["spec"]["containers"][0]["ports"][0]["containerPort"] = json!(8030);
        let scaler = json!({"metadata": {"name": "h"}, "spec": {"maxReplicas": 2,
            "scaleTargetRef": {"kind": "Deployment", "name": "iris"}}});
        let said = said(bad, json!([]), json!([scaler]));
        for part in [
            "autoscaling.knative.dev/target",
            "hostNetwork",
            "port 8030 of container model is one",
            "HorizontalPodAutoscaler h",
        ] {
            let line = said.lines().find(|line| line.contains(part));
            assert!(
                line.is_some_and(|line| line.contains("BLOCKED")),
                "{part}: {said}"
            );
        }
        assert!(said.contains("no Service selects"), "{said}");
    }

    #[test]
    fn services_that_stay_as_they_are_say_why() {
        for (change, why) in [
            (json!({"publishNotReadyAddresses": true}), "not ready"),
            (json!({"externalTrafficPolicy": "Local"}), "Local"),
            (json!({"clusterIP": "None"}), "headless"),
        ] {
            let mut service = service();
            for (key, value) in change.as_object().unwrap() {
                service["spec"][key] = value.clone();
            }
            let said = said(deployment(), json!([service]), json!([]));
            assert!(
                said.contains(why) && said.contains("keeps a replica"),
                "{said}"
            );
        }
    }
}
