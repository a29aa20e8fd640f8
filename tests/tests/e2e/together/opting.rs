//! In and out.

use std::{net::SocketAddr, time::Duration};

use integration::client::{Account, Connection, get};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::{Api, ResourceExt as _, api::ListParams};
use kubernetes::names;
use serde_json::json;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{
    Space,
    space::{LONG, Model, service},
};

/// What a user can see of a Service's ports.
async fn ports(space: &Space) -> serde_json::Value {
    let services: Api<Service> = space.api();
    serde_json::to_value(services.get("m").await.unwrap().spec.unwrap().ports).unwrap()
}

/// Sends one request after the other until `end`, on a connection that is kept until a sidecar says that it closes it; from then on
/// each on a connection of its own, as new ones may lead past sidecars.
async fn keep(address: SocketAddr, account: Account, end: Instant) {
    let mut kept = Some(Connection::open(address).await.unwrap());
    while Instant::now() < end {
        let sent = account.send(address, kept.as_mut(), get("/work"));
        // Its fate is in the account.
        let answer = timeout(LONG, sent).await.unwrap();
        if answer.is_ok_and(|answer| answer.header("connection").eq_ignore_ascii_case("close")) {
            kept = None;
        }
    }
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
    // On a connection of its own each: a plain model that ends closes idle connections, as HTTP lets it (RFC 9112, section 9.5), and
    // a request that crosses that is lost without any fault of ours.
    let account = Account::default();
    let mut short = JoinSet::new();
    for _ in 0..4 {
        let account = account.clone();
        short.spawn(async move {
            let end = Instant::now() + Duration::from_mins(1);
            while Instant::now() < end {
                let sent = account.send(address, None, get("/work"));
                // Its fate is in the account.
                let _answer = timeout(LONG, sent).await.unwrap();
            }
        });
    }
    let label = |value: serde_json::Value| {
        json!({
            "metadata": {"labels": {"rouse.dev/enabled": value}},
            "spec": {"template": {"metadata": {"labels": {"rouse.dev/enabled": value}}}},
        })
    };
    space.patch("m", label(json!("true"))).await;
    space.adopted("m").await;
    space.settled("m", 2, LONG).await;
    let pods: Api<Pod> = space.api();
    let all = ListParams::default().labels("app=m");
    space
        .until("no plain pod is left", LONG, async || {
            let all = pods.list(&all).await.ok()?.items;
            let has_sidecar = |pod: &Pod| pod.annotations().contains_key(names::WORKLOAD);
            all.iter().all(has_sidecar).then_some(())
        })
        .await;
    // From here on only sidecars end, which say so before.
    let mut kept = JoinSet::new();
    for _ in 0..4 {
        kept.spawn(keep(
            address,
            account.clone(),
            Instant::now() + Duration::from_secs(30),
        ));
    }
    sleep(Duration::from_secs(1)).await;
    space.patch("m", label(json!(null))).await;
    space
        .until("the Service is as it was", LONG, async || {
            (ports(&space).await == before).then_some(())
        })
        .await;
    space.settled("m", 2, LONG).await;
    timeout(LONG * 2, short.join_all()).await.unwrap();
    timeout(LONG * 2, kept.join_all()).await.unwrap();
    space.ledger("m", &account.told()).assert_exact();
    space.end().await;
}
