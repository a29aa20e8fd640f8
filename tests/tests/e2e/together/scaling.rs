//! Up and down under load.

use std::time::Duration;

use integration::{client::get, load};
use tokio::time::timeout;

use crate::{
    Space,
    space::{LONG, Model},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_from_zero_to_three_and_back_to_zero_under_load() {
    let space = Space::new("scaling").await;
    let model = Model::new("m")
        .annotate("autoscaling.knative.dev/target", "4")
        .annotate("autoscaling.knative.dev/max-scale", "3")
        .flags(&["--service-time=50ms"]);
    let address = space.deploy(&model).await;
    let url = format!("http://{address}/work");
    let many =
        tokio::spawn(
            async move { load::run(&url, 12, load::closed(Duration::from_secs(25))).await },
        );
    space
        .until("three replicas", LONG, async || {
            (space.replicas("m").await == (3, 3)).then_some(())
        })
        .await;
    let (report, told) = timeout(LONG, many).await.unwrap().unwrap();
    println!("{} requests", report.summary.requests);
    space.settled("m", 0, LONG * 3).await;
    space.ledger("m", &told).assert_exact();
    space.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_is_deleted_under_load_takes_no_request_with_it() {
    let space = Space::new("deleted").await;
    let model = Model::new("m")
        .annotate("autoscaling.knative.dev/min-scale", "2")
        .replicas(2)
        .flags(&["--service-time=20ms"]);
    let address = space.deploy_warm(&model).await;
    let url = format!("http://{address}/work");
    let load =
        tokio::spawn(
            async move { load::run(&url, 4, load::closed(Duration::from_secs(15))).await },
        );
    tokio::time::sleep(Duration::from_secs(3)).await;
    let victim = space.pods("m").await[0].metadata.name.clone().unwrap();
    let pods: kube::Api<k8s_openapi::api::core::v1::Pod> = space.api();
    pods.delete(&victim, &kube::api::DeleteParams::default())
        .await
        .unwrap();
    let (_, told) = timeout(LONG, load).await.unwrap().unwrap();
    space.ledger("m", &told).assert_exact();
    let _answer = integration::client::fetch(address, get("/work"))
        .await
        .unwrap();
    space.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_update_under_load_loses_nothing() {
    let space = Space::new("rolling").await;
    let model = Model::new("m")
        .annotate("autoscaling.knative.dev/min-scale", "2")
        .replicas(2)
        .flags(&["--service-time=20ms"]);
    let address = space.deploy_warm(&model).await;
    let old: Vec<_> = space
        .pods("m")
        .await
        .into_iter()
        .filter_map(|pod| pod.metadata.name)
        .collect();
    let url = format!("http://{address}/work");
    let load =
        tokio::spawn(
            async move { load::run(&url, 4, load::closed(Duration::from_secs(25))).await },
        );
    let change =
        serde_json::json!({"spec": {"template": {"metadata": {"annotations": {"changed": "1"}}}}});
    space.patch("m", change).await;
    space
        .until("the old pods are gone", LONG, async || {
            let now = space.pods("m").await;
            let stays = now
                .iter()
                .filter_map(|pod| pod.metadata.name.as_ref())
                .any(|name| old.contains(name));
            (!stays && !now.is_empty()).then_some(())
        })
        .await;
    let (_, told) = timeout(LONG, load).await.unwrap().unwrap();
    space.ledger("m", &told).assert_exact();
    space.end().await;
}
