//! `uninstall`: Rouse leaves, and every workload goes on serving.

use std::time::Duration;

use k8s_openapi::api::{
    admissionregistration::v1::{
        MutatingWebhookConfiguration, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
        ValidatingWebhookConfiguration,
    },
    apps::v1::Deployment,
    core::v1::Namespace,
    rbac::v1::{ClusterRole, ClusterRoleBinding},
};
use kube::{
    Api, Resource,
    api::{DeleteParams, ListParams},
};
use kubernetes::{leaving, names};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};

use super::{
    Cluster, Failed,
    left::{self, Whose},
    write,
};

/// Label of everything that the manifests bring.
const PART_OF: &str = "app.kubernetes.io/part-of=rouse";
/// How long an autoscaler may take to go. It gives itself a minute.
const LEAVE_LIMIT: Duration = Duration::from_mins(1);

pub(super) async fn run(cluster: &Cluster, dry_run: bool) -> Result<(), Failed> {
    let deployments: Api<Deployment> = Api::all(cluster.client.clone());
    let enabled = ListParams::default().labels(names::ENABLED_SELECTOR);
    for deployment in deployments.list(&enabled).await?.items {
        let (Some(namespace), Some(name)) =
            (deployment.metadata.namespace, deployment.metadata.name)
        else {
            continue;
        };
        if dry_run {
            cluster
                .output
                .line(format!("would disable {namespace}/{name}"));
            continue;
        }
        let there = Cluster {
            client: cluster.client.clone(),
            namespace,
            ours: cluster.ours.clone(),
            output: cluster.output.clone(),
        };
        // The first that cannot be given back ends this: Rouse must stay for its sake. One that is deleted, or is so meanwhile,
        // needs nobody.
        if let Err(failed) = write::disable(&there, &name).await {
            if !write::is_going(&there, &name).await? {
                return Err(failed);
            }
            let line = format!("{}/{name} is being deleted: left alone", there.namespace);
            cluster.output.line(line);
        }
    }
    if !dry_run {
        // Also what belongs to one that was opted out by hand a moment ago.
        left::wait(cluster, Whose::Anybody).await?;
    }
    // Admission before the programs that serve it, or pods of nobody's concern could be refused meanwhile.
    delete_all::<MutatingWebhookConfiguration>(cluster, dry_run).await?;
    delete_all::<ValidatingWebhookConfiguration>(cluster, dry_run).await?;
    delete_all::<ValidatingAdmissionPolicyBinding>(cluster, dry_run).await?;
    delete_all::<ValidatingAdmissionPolicy>(cluster, dry_run).await?;
    delete_all::<ClusterRoleBinding>(cluster, dry_run).await?;
    delete_all::<ClusterRole>(cluster, dry_run).await?;
    if dry_run {
        cluster
            .output
            .line(format!("would delete namespace {}", cluster.ours));
        return Ok(());
    }
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    match namespaces
        .delete(&cluster.ours, &DeleteParams::background())
        .await
    {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.is_not_found() => {}
        Err(error) => return Err(error.into()),
    }
    let_go(cluster).await?;
    cluster
        .output
        .line("Rouse is gone; every workload that it had keeps at least one replica");
    Ok(())
}

/// The leading autoscaler takes the finalizers off when it goes. If none lives, or it could not, they are taken off here: every
/// workload has been given back, so nothing is left for them to wait for.
async fn let_go(cluster: &Cluster) -> Result<(), Failed> {
    let roles: Api<ClusterRole> = Api::all(cluster.client.clone());
    let ours = ListParams::default().labels(PART_OF);
    let end = Instant::now() + LEAVE_LIMIT;
    while !roles.list_metadata(&ours).await?.items.is_empty() {
        if Instant::now() > end {
            cluster
                .output
                .line("no autoscaler has let Rouse go; its finalizers are taken off");
            break;
        }
        sleep(Duration::from_millis(500)).await;
    }
    let failed = leaving::release(&cluster.client, &cluster.ours).await;
    if failed.is_empty() {
        Ok(())
    } else {
        Err(Failed(failed.join("\n")))
    }
}

/// Deletes what the manifests brought of one kind that is in no namespace.
async fn delete_all<K>(cluster: &Cluster, dry_run: bool) -> Result<(), Failed>
where
    K: Resource<Scope = kube::core::ClusterResourceScope>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
    K::DynamicType: Default,
{
    let api: Api<K> = Api::all(cluster.client.clone());
    for object in api
        .list(&ListParams::default().labels(PART_OF))
        .await?
        .items
    {
        let Some(name) = object.meta().name.clone() else {
            continue;
        };
        let kind = K::kind(&K::DynamicType::default()).into_owned();
        if dry_run {
            cluster.output.line(format!("would delete {kind} {name}"));
            continue;
        }
        api.delete(&name, &DeleteParams::default()).await?;
        cluster.output.line(format!("deleted {kind} {name}"));
    }
    Ok(())
}
