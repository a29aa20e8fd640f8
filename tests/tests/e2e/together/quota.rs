//! A namespace that has no room for all that Rouse makes: what is there works, and can be given back at any time.

use std::time::Duration;

use integration::client::{Account, get};
use k8s_openapi::api::core::v1::{ResourceQuota, Service};
use kube::{Api, api::PostParams};
use kubernetes::names;
use serde_json::json;
use tokio::time::sleep;

use crate::{
    Space,
    space::{LONG, Model},
};

/// The relay was refused so often by then that it is tried again only after 16 s.
const REFUSED: Duration = Duration::from_secs(17);
/// A moment, against that pause.
const SOON: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_that_leaves_no_room_for_the_relay_keeps_nothing_else_up() {
    let space = Space::new("no-room").await;
    let quotas: Api<ResourceQuota> = space.api();
    let quota = json!({
        "metadata": {"name": "two"},
        // The model's and its companion.
        "spec": {"hard": {"count/services": "2"}},
    });
    let quota = serde_json::from_value(quota).unwrap();
    quotas.create(&PostParams::default(), &quota).await.unwrap();
    space
        .until("the quota is in force", LONG, async || {
            quotas.get("two").await.ok()?.status?.hard.map(drop)
        })
        .await;
    let model = Model::new("m")
        .replicas(1)
        .annotate("autoscaling.knative.dev/min-scale", "1");
    let address = space.deploy_warm(&model).await;
    let account = Account::default();
    let answer = account.send(address, None, get("/work")).await.unwrap();
    assert_eq!(answer.status, 200);
    sleep(REFUSED).await;
    let services: Api<Service> = space.api();
    let relay = services.get_opt(&names::relay("m").unwrap()).await;
    assert!(relay.unwrap().is_none(), "the quota has let it through");

    let out = json!({"metadata": {"labels": {names::ENABLED: null}}});
    space.patch("m", out).await;
    let companion = names::companion("m");
    space
        .until("all is given back", SOON, async || {
            let gone = services.get_opt(&companion).await.ok()?.is_none();
            gone.then_some(())
        })
        .await;
    let answer = account.send(address, None, get("/work")).await.unwrap();
    assert_eq!(answer.status, 200);
    space.ledger("m", &account.told()).assert_exact();
    space.end().await;
}
