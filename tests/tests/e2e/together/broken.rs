//! Workloads that cannot start.

use std::time::Duration;

use integration::client::{Account, get};
use serde_json::json;
use tokio::time::{Instant, timeout};

use crate::{
    Space,
    space::{LONG, Model},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_that_is_not_there_fails_held_requests_fast_and_mending_it_wakes() {
    let space = Space::new("image").await;
    let address = space
        .deploy(&Model::new("m").image("docker.io/library/nowhere:dev"))
        .await;
    let account = Account::default();
    let began = Instant::now();
    let answer = timeout(LONG, account.send(address, None, get("/work")))
        .await
        .unwrap()
        .unwrap();
    println!("refused after {:?}", began.elapsed());
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(answer.text().contains("cannot-start"), "{}", answer.text());
    assert!(!answer.header("retry-after").is_empty());
    let mended = json!({"spec": {"template": {"spec": {"containers": [
        {"name": "model", "image": "docker.io/library/tiny-model:dev"},
    ]}}}});
    let deployments: kube::Api<k8s_openapi::api::apps::v1::Deployment> = space.api();
    let patch = kube::api::Patch::Strategic(mended);
    deployments
        .patch("m", &kube::api::PatchParams::default(), &patch)
        .await
        .unwrap();
    space
        .until("an answer", LONG, async || {
            let answer = account.send(address, None, get("/work")).await.ok()?;
            tokio::time::sleep(Duration::from_millis(200)).await;
            (answer.status == 200).then_some(())
        })
        .await;
    let _ledger = space.ledger("m", &account.told()).checked();
    space.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_crashes_fails_held_requests_fast() {
    let space = Space::new("crash").await;
    let address = space
        .deploy(&Model::new("m").flags(&["--crash-before-ready=100ms"]))
        .await;
    let began = Instant::now();
    let answer = timeout(LONG, Account::default().send(address, None, get("/work")))
        .await
        .unwrap()
        .unwrap();
    println!("refused after {:?}", began.elapsed());
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(answer.text().contains("cannot-start"), "{}", answer.text());
    space.end().await;
}
