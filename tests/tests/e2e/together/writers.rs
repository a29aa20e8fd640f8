//! Others who write what we write: they are made harmless or left alone, and no request is lost over it.

use std::{collections::BTreeSet, time::Duration};

use integration::{Told, load};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Service, events::v1::Event};
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use crate::{
    Space,
    space::{LONG, Model},
};

/// Notes of Events of this reason about a model.
async fn notes(space: &Space, reason: &str) -> Vec<String> {
    let events: Api<Event> = space.api();
    let all = events.list(&ListParams::default()).await.unwrap().items;
    all.into_iter()
        .filter(|event| event.reason.as_deref() == Some(reason))
        .filter_map(|event| event.note)
        .collect()
}

fn load(
    address: std::net::SocketAddr,
    length: Duration,
    connections: usize,
) -> JoinHandle<Vec<Told>> {
    let url = format!("http://{address}/work");
    tokio::spawn(async move { load::run(&url, connections, load::closed(length)).await.1 })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_that_keeps_writing_a_service_back_changes_nothing() {
    let space = Space::new("writer").await;
    let model = Model::new("m")
        .replicas(2)
        .annotate("autoscaling.knative.dev/min-scale", "2")
        .flags(&["--service-time=20ms"]);
    let address = space.deploy_warm(&model).await;
    let load = load(address, Duration::from_secs(20), 4);
    let services: Api<Service> = space.api();
    let params = PostParams {
        field_manager: Some("kserve".to_owned()),
        ..PostParams::default()
    };
    let (mut versions, mut writes) = (BTreeSet::new(), 0);
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(20) {
        // As a controller does that knows nothing of us: it reads, sets what it wants, and writes the whole.
        let mut service = services.get("m").await.unwrap();
        versions.insert(service.metadata.resource_version.clone());
        let port = &mut service.spec.as_mut().unwrap().ports.as_mut().unwrap()[0];
        let flipped = serde_json::to_value(&port.target_port).unwrap();
        assert_eq!(flipped, json!("rouse-0"), "after {writes} writes");
        port.target_port = serde_json::from_value(json!(8080)).unwrap();
        services.replace("m", &params, &service).await.unwrap();
        writes += 1;
        sleep(Duration::from_millis(200)).await;
    }
    println!(
        "{writes} writes, {} versions of the Service",
        versions.len()
    );
    // The first write makes its writer known in the managed fields.
    assert!(versions.len() <= 3, "{versions:?}");
    assert_eq!(notes(&space, "RivalWriter").await, [""; 0]);
    let told = timeout(LONG, load).await.unwrap().unwrap();
    space.ledger("m", &told).assert_exact();
    space.end().await;
}

/// Writes the number of replicas back whenever it differs, as one does that keeps a cluster as it stands in Git.
async fn argocd(deployments: Api<Deployment>, stop: watch::Receiver<bool>) -> Vec<Instant> {
    let params = PatchParams {
        field_manager: Some("argocd".to_owned()),
        ..PatchParams::default()
    };
    let mut writes = Vec::new();
    while !*stop.borrow() {
        let replicas = deployments.get("m").await.unwrap().spec.unwrap().replicas;
        if replicas != Some(1) {
            let patch = Patch::Merge(json!({"spec": {"replicas": 1}}));
            deployments.patch("m", &params, &patch).await.unwrap();
            writes.push(Instant::now());
        }
        sleep(Duration::from_millis(20)).await;
    }
    writes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_that_keeps_writing_the_replicas_back_is_named_and_not_fought() {
    let space = Space::new("rival").await;
    let model = Model::new("m")
        .replicas(1)
        .annotate("autoscaling.knative.dev/min-scale", "1")
        .annotate("autoscaling.knative.dev/max-scale", "3")
        .annotate("autoscaling.knative.dev/target", "1")
        .flags(&["--service-time=50ms"]);
    let address = space.deploy_warm(&model).await;
    let (stop, stopped) = watch::channel(false);
    let rival = tokio::spawn(argocd(space.api(), stopped));
    let load = load(address, Duration::from_secs(40), 4);
    let note = space
        .until("the rival is named", LONG, async || {
            notes(&space, "RivalWriter").await.pop()
        })
        .await;
    let named = Instant::now();
    println!("{note}");
    assert!(note.starts_with("argocd "), "{note}");
    // What is left alone stays as the other one wants it.
    sleep(Duration::from_secs(8)).await;
    assert_eq!(space.replicas("m").await.0, 1);
    stop.send_replace(true);
    let writes = timeout(LONG, rival).await.unwrap().unwrap();
    let late = writes
        .iter()
        .filter(|at| **at > named + Duration::from_secs(1));
    println!("{} writes of the rival", writes.len());
    assert!(writes.len() <= 5, "{} is a fight", writes.len());
    assert_eq!(late.count(), 0, "it goes on although the rival was named");
    let told = timeout(LONG, load).await.unwrap().unwrap();
    space.ledger("m", &told).assert_exact();
    space.end().await;
}
