//! `enable`, `disable`, `wake` and `pause`.

use std::time::Duration;

use autoscaler_core::{ClusterConfig, wake_replicas};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Namespace};
use kube::{
    Api,
    api::{ObjectMeta, Patch, PatchParams},
};
use kubernetes::{WorkloadView, labels, names, scale};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{
    Cluster, Failed, check,
    left::{self, Whose},
};

/// Field manager of what is written here.
const MANAGER: &str = "kubectl-rouse";
/// How long a workload may take to wake before it is disabled.
const AWAKE_LIMIT: Duration = Duration::from_mins(5);

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

/// Awake first, while requests are still held for it; then Services: as long as they name the sidecar's ports, pods without it
/// would get no request.
pub(super) async fn disable(cluster: &Cluster, name: &str) -> Result<(), Failed> {
    let target = cluster.target(name)?;
    awake(cluster, name).await?;
    let change = json!({"metadata": {"labels": {names::ENABLED: null}}});
    let deployment = patch(cluster, name, change).await?;
    // It may have gone to sleep between the two, and nobody would wake it from now on.
    let woken = scale::change(&cluster.client, MANAGER, &target, 0, 1).await;
    woken.map_err(|error| Failed(error.to_string()))?;
    given_back(cluster, name, &deployment).await?;
    let change = json!({"spec": {"template": {"metadata": {"labels": {names::ENABLED: null}}}}});
    patch(cluster, name, change).await?;
    cluster
        .output
        .line(format!("{target} is disabled; its pods are being replaced"));
    Ok(())
}

/// Whether a workload is gone or being deleted, by itself or with its namespace, in which no pod can be made any more: it needs
/// nothing, and nothing of it needs anybody.
pub(super) async fn is_going(cluster: &Cluster, name: &str) -> Result<bool, Failed> {
    let is_deleted = |meta: &ObjectMeta| meta.deletion_timestamp.is_some();
    let deployment = deployments(cluster).get_metadata_opt(name).await?;
    if deployment.is_none_or(|one| is_deleted(&one.metadata)) {
        return Ok(true);
    }
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    match namespaces.get_metadata_opt(&cluster.namespace).await {
        Ok(namespace) => Ok(namespace.is_none_or(|one| is_deleted(&one.metadata))),
        // Whoever may write in a namespace need not be allowed to read it.
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Wakes a workload that sleeps, and waits until a pod of it is ready. One that does not become ready is told of and does not
/// hinder anybody from leaving.
async fn awake(cluster: &Cluster, name: &str) -> Result<(), Failed> {
    let target = cluster.target(name)?;
    let end = Instant::now() + AWAKE_LIMIT;
    let mut told = false;
    loop {
        if is_going(cluster, name).await? {
            return Err(Failed(format!("{target} is being deleted")));
        }
        let deployment = deployments(cluster).get(name).await?;
        let wanted = deployment.spec.and_then(|spec| spec.replicas);
        let ready = deployment.status.and_then(|status| status.ready_replicas);
        if wanted == Some(0) {
            let woken = scale::change(&cluster.client, MANAGER, &target, 0, 1).await;
            woken.map_err(|error| Failed(error.to_string()))?;
        } else if ready.unwrap_or(0) > 0 {
            return Ok(());
        }
        if Instant::now() > end {
            cluster.output.line(format!(
                "{target} is not ready after {AWAKE_LIMIT:?}; it is disabled all the same"
            ));
            return Ok(());
        }
        if !std::mem::replace(&mut told, true) {
            cluster
                .output
                .line(format!("{target} has no ready pod: waiting for one"));
        }
        sleep(Duration::from_millis(500)).await;
    }
}

/// Waits until the workload's Services are as they were, and nothing of ours stands beside them.
async fn given_back(cluster: &Cluster, name: &str, deployment: &Deployment) -> Result<(), Failed> {
    let template = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.template.metadata.as_ref());
    let labels = labels::kept(template.and_then(|meta| meta.labels.as_ref()));
    left::wait(cluster, Whose::Workload(name, &labels)).await
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
