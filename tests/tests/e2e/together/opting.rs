//! In and out.

use std::time::Duration;

use integration::load;
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use serde_json::json;
use tokio::time::timeout;

use crate::{
    Space,
    space::{LONG, Model, service},
};

/// What a user can see of a Service's ports.
async fn ports(space: &Space) -> serde_json::Value {
    let services: Api<Service> = space.api();
    serde_json::to_value(services.get("m").await.unwrap().spec.unwrap().ports).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn opting_in_and_out_under_load_loses_nothing_and_leaves_the_service_as_it_was() {
    let space = Space::new("opting").await;
    let model = Model::new("m")
        .plain()
        .replicas(2)
        .annotate("autoscaling.knative.dev/min-scale", "2")
        .flags(&["--service-time=10ms"]);
    // Without it a rolling update of plain pods loses requests by itself: kube-proxy learns a moment later than the model
    // that the pod goes.
    let mut deployment = space.deployment(&model);
    let pod = deployment.spec.as_mut().unwrap().template.spec.as_mut();
    let lifecycle = json!({"preStop": {"sleep": {"seconds": 5}}});
    pod.unwrap().containers[0].lifecycle = serde_json::from_value(lifecycle).unwrap();
    space.create_objects(&service("m"), &deployment).await;
    let address = space.address("m").await;
    space.settled("m", 2, LONG).await;
    space.reachable("m").await;
    let before = ports(&space).await;
    let url = format!("http://{address}/work");
    let load =
        tokio::spawn(async move { load::run(&url, 4, load::closed(Duration::from_mins(1))).await });
    let label = |value: serde_json::Value| {
        json!({
            "metadata": {"labels": {"rouse.dev/enabled": value}},
            "spec": {"template": {"metadata": {"labels": {"rouse.dev/enabled": value}}}},
        })
    };
    space.patch("m", label(json!("true"))).await;
    space.adopted("m").await;
    space.settled("m", 2, LONG).await;
    space.patch("m", label(json!(null))).await;
    space
        .until("the Service is as it was", LONG, async || {
            (ports(&space).await == before).then_some(())
        })
        .await;
    space.settled("m", 2, LONG).await;
    let (_, told) = timeout(LONG * 2, load).await.unwrap().unwrap();
    space.ledger("m", &told).assert_exact();
    space.end().await;
}
