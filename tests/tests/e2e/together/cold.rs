//! From zero.

use integration::client::{Account, get};
use tokio::{task::JoinSet, time::Instant};

use crate::{
    Space, audit,
    space::{LONG, Model},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_request_at_zero_is_answered_and_the_workload_sleeps_again() {
    let space = Space::new("first").await;
    let address = space.deploy(&Model::new("m")).await;
    assert_eq!(space.replicas("m").await, (0, 0));
    let account = Account::default();
    let began = Instant::now();
    let answer = account.send(address, None, get("/work")).await.unwrap();
    println!(
        "first answer after {:?}: {}",
        began.elapsed(),
        answer.header("rouse-timing")
    );
    assert_eq!(answer.status, 200, "{}", answer.text());
    space.settled("m", 0, LONG * 2).await;
    space.ledger("m", &account.told()).assert_exact();
    space.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_clients_at_zero_cost_one_wake_and_lose_nothing() {
    let space = Space::new("fifty").await;
    let address = space
        .deploy(&Model::new("m").annotate("autoscaling.knative.dev/max-scale", "1"))
        .await;
    let before = generation(&space).await;
    let account = Account::default();
    let mut clients = JoinSet::new();
    for _ in 0..50 {
        let account = account.clone();
        clients.spawn(async move {
            account
                .send(address, None, get("/work"))
                .await
                .map(|answer| answer.status)
        });
    }
    for answer in clients.join_all().await {
        assert_eq!(answer.unwrap(), 200);
    }
    assert_eq!(generation(&space).await, before + 1, "written once");
    if let Some(writes) = audit::writes("rouse-activator") {
        let ours = |write: &&audit::Write| {
            write.namespace == space.name && write.resource == "deployments/scale"
        };
        assert_eq!(writes.iter().filter(ours).count(), 1);
    }
    space.ledger("m", &account.told()).assert_exact();
    space.end().await;
}

/// How often what is wanted of the Deployment was changed.
async fn generation(space: &Space) -> i64 {
    let deployments: kube::Api<k8s_openapi::api::apps::v1::Deployment> = space.api();
    let deployment = deployments.get("m").await.unwrap();
    deployment.metadata.generation.unwrap()
}
