//! `enable`, `disable`, `wake` and `pause`.

use std::time::Duration;

use autoscaler_core::{ClusterConfig, wake_replicas};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Service};
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams},
};
use kubernetes::{WorkloadView, names, scale};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{Cluster, Failed, check};

/// Field manager of what is written here.
const MANAGER: &str = "kubectl-rouse";
/// How long Services may take to be given back.
const GIVE_BACK_LIMIT: Duration = Duration::from_mins(1);

fn deployments(cluster: &Cluster) -> Api<Deployment> {
    Api::namespaced(cluster.client.clone(), &cluster.namespace)
}

async fn patch(cluster: &Cluster, name: &str, patch: Value) -> Result<Deployment, Failed> {
    let params = PatchParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PatchParams::default()
    };
    Ok(deployments(cluster)
        .patch(name, &params, &Patch::Merge(patch))
        .await?)
}

pub(super) async fn enable(cluster: &Cluster, name: &str) -> Result<(), Failed> {
    if check::run(cluster, name).await? != std::process::ExitCode::SUCCESS {
        return Err(Failed(format!(
            "{}/{name} was not enabled: see above",
            cluster.namespace
        )));
    }
    let labels = json!({"labels": {names::ENABLED: names::TRUE}});
    let change = json!({"metadata": labels, "spec": {"template": {"metadata": labels}}});
    patch(cluster, name, change).await?;
    cluster.output.line(format!(
        "enabled; its pods are being replaced: kubectl -n {} rollout status deploy/{name}",
        cluster.namespace
    ));
    Ok(())
}

/// Services first: as long as they name the sidecar's ports, pods without it would get no request.
pub(super) async fn disable(cluster: &Cluster, name: &str) -> Result<(), Failed> {
    let change = json!({"metadata": {"labels": {names::ENABLED: null}}});
    let deployment = patch(cluster, name, change).await?;
    let target = cluster.target(name)?;
    let wanted = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or(1);
    if wanted == 0 {
        // Nobody would wake it from now on.
        let woken = scale::change(&cluster.client, MANAGER, &target, 0, 1).await;
        woken.map_err(|error| Failed(error.to_string()))?;
    }
    given_back(cluster, name, &deployment).await?;
    let change = json!({"spec": {"template": {"metadata": {"labels": {names::ENABLED: null}}}}});
    patch(cluster, name, change).await?;
    cluster
        .output
        .line(format!("{target} is disabled; its pods are being replaced"));
    Ok(())
}

/// Waits until no Service of the workload names a port of the sidecar.
async fn given_back(cluster: &Cluster, name: &str, deployment: &Deployment) -> Result<(), Failed> {
    let template = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.template.metadata.as_ref());
    let labels = template
        .and_then(|meta| meta.labels.clone())
        .unwrap_or_default();
    let services: Api<Service> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let end = Instant::now() + GIVE_BACK_LIMIT;
    loop {
        let all = services.list(&ListParams::default()).await?.items;
        let ours: Vec<_> = all
            .iter()
            .filter(|service| is_adopted(service, &labels))
            .filter_map(|service| service.metadata.name.clone())
            .collect();
        if ours.is_empty() {
            return Ok(());
        }
        if Instant::now() > end {
            return Err(Failed(format!(
                "Service {} still leads to the sidecar of {name}: is an autoscaler running? The pods keep their sidecar until then; \
                 run this again",
                ours.join(", ")
            )));
        }
        sleep(Duration::from_millis(200)).await;
    }
}

fn is_adopted(service: &Service, labels: &std::collections::BTreeMap<String, String>) -> bool {
    let Some(spec) = &service.spec else {
        return false;
    };
    let selects = spec.selector.as_ref().is_some_and(|selector| {
        !selector.is_empty()
            && selector
                .iter()
                .all(|(key, value)| labels.get(key) == Some(value))
    });
    selects && spec.ports.iter().flatten().any(|port| {
        use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::String;
        matches!(&port.target_port, Some(String(name)) if names::request_port_index(name).is_some())
    })
}

pub(super) async fn wake(cluster: &Cluster, name: &str) -> Result<(), Failed> {
    let deployment = deployments(cluster).get(name).await?;
    let target = cluster.target(name)?;
    let view = WorkloadView::of(&deployment).ok_or_else(|| {
        Failed(format!(
            "{target} is not enabled: kubectl rouse enable deploy/{name}"
        ))
    })?;
    let replicas = wake_replicas(&view.resolve(&ClusterConfig::default(), None).spec).get();
    let woken = scale::change(&cluster.client, MANAGER, &target, 0, replicas)
        .await
        .map_err(|error| Failed(error.to_string()))?;
    cluster.output.line(if woken.is_some() {
        format!("{target}: 0 to {replicas} replicas")
    } else {
        format!("{target} is awake: {} replicas", view.replicas)
    });
    Ok(())
}

pub(super) async fn pause(cluster: &Cluster, name: &str, pause: bool) -> Result<(), Failed> {
    let value = if pause {
        json!(names::TRUE)
    } else {
        Value::Null
    };
    patch(
        cluster,
        name,
        json!({"metadata": {"annotations": {names::PAUSED: value}}}),
    )
    .await?;
    let word = if pause { "frozen" } else { "scaled again" };
    cluster
        .output
        .line(format!("{}/{name} is {word}", cluster.namespace));
    Ok(())
}
