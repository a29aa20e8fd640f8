//! Workloads that cannot start.

use std::time::Duration;

use integration::client::{Account, get};
use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::ResourceQuota,
};
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams, PostParams},
};
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
    let deployments: Api<Deployment> = space.api();
    let patch = Patch::Strategic(mended);
    deployments
        .patch("m", &PatchParams::default(), &patch)
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_that_is_used_up_fails_held_requests_fast_and_raising_it_wakes_on_the_next_one() {
    let space = Space::new("quota").await;
    let quotas: Api<ResourceQuota> = space.api();
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "0"}}});
    let quota = serde_json::from_value(quota).unwrap();
    quotas.create(&PostParams::default(), &quota).await.unwrap();
    space
        .until("the quota is in force", LONG, async || {
            quotas.get("q").await.ok()?.status?.hard
        })
        .await;
    // It stays awake, so that nothing but a nudge ends Kubernetes' back-off.
    let model = Model::new("m").annotate("autoscaling.knative.dev/min-scale", "1");
    let address = space.deploy(&model).await;
    let account = Account::default();
    let ask = async || {
        let asked = account.send(address, None, get("/work"));
        timeout(LONG, asked).await.unwrap().unwrap()
    };
    let began = Instant::now();
    let answer = ask().await;
    println!("refused after {:?}", began.elapsed());
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(answer.text().contains("cannot-start"), "{}", answer.text());
    assert!(answer.text().contains("FailedCreate"), "{}", answer.text());
    // Kubernetes waits for as long again before it tries next.
    while began.elapsed() < Duration::from_secs(40) {
        assert_eq!(ask().await.status, 503);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }

    let raised = Patch::Merge(json!({"spec": {"hard": {"pods": "9"}}}));
    quotas
        .patch("q", &PatchParams::default(), &raised)
        .await
        .unwrap();
    let raised = Instant::now();
    space
        .until("an answer", Duration::from_secs(35), async || {
            let answer = ask().await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            (answer.status == 200).then_some(())
        })
        .await;
    println!("answered {:?} after the quota was raised", raised.elapsed());
    let sets: Api<ReplicaSet> = space.api();
    let sets = sets.list(&ListParams::default()).await.unwrap().items;
    let nudged = sets.iter().find_map(|set| {
        let annotations = set.metadata.annotations.as_ref()?;
        annotations.get(kubernetes::names::NUDGED)
    });
    println!("nudged at {nudged:?}");
    assert!(nudged.is_some());
    let _ledger = space.ledger("m", &account.told()).checked();
    space.end().await;
}
