//! When Rouse's own programs die.

use std::time::Duration;

use integration::{
    client::{Account, get},
    load,
};
use k8s_openapi::api::{apps::v1::Deployment, coordination::v1::Lease, core::v1::Pod};
use kube::{
    Api,
    api::{DeleteParams, ListParams},
};
use tokio::time::timeout;

use crate::{
    Space,
    space::{LONG, Model, SYSTEM, order},
};

/// Kills all of Rouse's own pods without a grace, or those that `selector` names.
async fn kill(space: &Space, selector: &str) {
    let pods: Api<Pod> = Api::namespaced(space.client.clone(), SYSTEM);
    let params = DeleteParams::default().grace_period(0);
    pods.delete_collection(&params, &ListParams::default().labels(selector))
        .await
        .unwrap();
}

/// Waits until Rouse's own pods are ready again.
pub(super) async fn whole_again(space: &Space) {
    let pods: Api<Pod> = Api::namespaced(space.client.clone(), SYSTEM);
    space
        .until("Rouse is ready again", LONG * 2, async || {
            let all = pods.list(&ListParams::default()).await.ok()?.items;
            let ready = |pod: &Pod| {
                let conditions = pod.status.as_ref()?.conditions.as_ref()?;
                conditions
                    .iter()
                    .find(|c| c.type_ == "Ready")
                    .map(|c| c.status == "True")
            };
            let alive: Vec<_> = all
                .iter()
                .filter(|pod| pod.metadata.deletion_timestamp.is_none())
                .collect();
            (alive.len() == 4 && alive.iter().all(|pod| ready(pod) == Some(true))).then_some(())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn warm_traffic_does_not_notice_that_all_of_rouse_is_killed() {
    let space = Space::new("killed").await;
    let model = Model::new("m")
        .annotate("autoscaling.knative.dev/min-scale", "1")
        .replicas(1);
    let address = space.deploy_warm(&model).await;
    let url = format!("http://{address}/work");
    let load =
        tokio::spawn(
            async move { load::run(&url, 4, load::closed(Duration::from_secs(15))).await },
        );
    tokio::time::sleep(Duration::from_secs(3)).await;
    kill(&space, "app.kubernetes.io/part-of=rouse").await;
    let (_, told) = timeout(LONG, load).await.unwrap().unwrap();
    space.ledger("m", &told).assert_exact();
    whole_again(&space).await;
    space.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_at_zero_is_woken_although_no_autoscaler_lives() {
    let space = Space::new("headless").await;
    let address = space.deploy(&Model::new("m")).await;
    kill(&space, "app.kubernetes.io/name=rouse-autoscaler").await;
    let account = Account::default();
    let answer = account.send(address, None, get("/work")).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    whole_again(&space).await;
    space.ledger("m", &account.told()).assert_exact();
    space.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn activators_that_were_restarted_at_zero_wake_on_the_next_request() {
    let space = Space::new("restarted").await;
    let address = space.deploy(&Model::new("m")).await;
    kill(&space, "app.kubernetes.io/name=rouse-activator").await;
    whole_again(&space).await;
    space.adopted("m").await;
    let account = Account::default();
    let answer = space
        .until("an answer", LONG, async || {
            account.send(address, None, get("/work")).await.ok()
        })
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    space.end().await;
}

/// How long the API server is away.
const AWAY: Duration = Duration::from_mins(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn warm_traffic_does_not_notice_an_api_server_that_is_away_and_nothing_is_scaled_down() {
    let space = Space::new("away").await;
    let model = Model::new("m")
        .annotate("autoscaling.knative.dev/target", "4")
        .annotate("autoscaling.knative.dev/max-scale", "3")
        .replicas(3)
        .flags(&["--service-time=50ms"]);
    let address = space.deploy(&model).await;
    let url = format!("http://{address}/work");
    let length = AWAY + Duration::from_mins(1);
    let load = tokio::spawn(async move { load::run(&url, 12, load::closed(length)).await });
    space.settled("m", 3, LONG).await;
    // As long as its windows need to fill, so that the load asks for all three.
    tokio::time::sleep(Duration::from_secs(8)).await;
    if order(&["kill", "apiserver"]) {
        tokio::time::sleep(AWAY).await;
        order(&["cont", "apiserver"]);
    }
    let deployments: Api<Deployment> = space.api();
    while !load.is_finished() {
        if let Ok(deployment) = deployments.get("m").await {
            assert_eq!(deployment.spec.unwrap().replicas, Some(3), "a burst");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let (_, told) = load.await.unwrap();
    space.ledger("m", &told).assert_exact();
    renewed(&space).await;
    whole_again(&space).await;
    space.end().await;
}

/// Waits until an autoscaler leads by a Lease that was renewed from now on. Pods reach an API server that was away again only
/// once kube-proxy has learned of it, and its watches are in a back-off of up to a minute.
async fn renewed(space: &Space) {
    let leases: Api<Lease> = Api::namespaced(space.client.clone(), SYSTEM);
    let time = async || {
        leases
            .get(kubernetes::names::LEASE)
            .await
            .ok()?
            .spec?
            .renew_time
    };
    let before = space.until("a Lease", LONG, time).await;
    space
        .until("the Lease is renewed", LONG * 2, async || {
            time().await.filter(|now| *now > before)
        })
        .await;
}
