//! From zero.

use integration::client::{Account, get};
use tokio::{task::JoinSet, time::Instant};

use crate::{
    Space,
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
    space.ledger("m", &account.told()).assert_exact();
    space.end().await;
}
