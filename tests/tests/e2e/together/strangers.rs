//! A tenant who writes into his own namespace whatever he likes: nobody else's requests come to him, and nobody acts for him
//! anywhere else.

use std::time::Duration;

use integration::client::{Account, get};
use k8s_openapi::api::{
    core::v1::{Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api,
    api::{ListParams, PostParams},
};
use kubernetes::names;
use serde_json::json;
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    Space, activators,
    space::{LONG, Model, is_ready},
};

/// For so long the controllers may look at what was forged: they act on what they see at once, and look again each second.
const SEEN: Duration = Duration::from_secs(3);

/// A pod that says that it is one of a workload's, and listens where activators look for a sidecar. It answers everything.
fn pod(space: &Space, name: &str, workload: &str) -> Pod {
    let model = space.deployment(&Model::new("m"));
    let spec = model.spec.unwrap().template.spec.unwrap();
    let mut object = json!({
        "metadata": {
            "name": name,
            "labels": {"app": "m", names::ENABLED: names::TRUE},
            "annotations": {names::WORKLOAD: workload, names::UPSTREAM_PORTS: "8080"},
        },
        "spec": spec,
    });
    let container = &mut object["spec"]["containers"][0];
    container["args"][1] = json!(format!("--port={}", names::ACTIVATOR_PORT));
    container["ports"][0]["containerPort"] = json!(names::ACTIVATOR_PORT);
    serde_json::from_value(object).unwrap()
}

/// A Service that selects nothing, and a companion of it with a record as ours have.
fn services(name: &str, workload: &str) -> Vec<Service> {
    let record = json!({"workload": workload, "ports": [{"port": 80, "was": 8080, "index": 0}]});
    let spec = json!({"ports": [{"name": "http", "port": 80, "targetPort": 8030}]});
    let objects = [
        json!({"metadata": {"name": name}, "spec": spec}),
        json!({
            "metadata": {
                "name": names::companion(name),
                "labels": {names::COMPANION: name, names::MANAGED_BY: names::MANAGER},
                "annotations": {names::ADOPTED: record.to_string()},
            },
            "spec": spec,
        }),
    ];
    let objects = objects.into_iter();
    objects
        .map(|object| serde_json::from_value(object).unwrap())
        .collect()
}

/// A slice as ours are, that leads to a pod.
fn slice(service: &str, workload: &str, ip: &str) -> EndpointSlice {
    let object = json!({
        "metadata": {
            "name": format!("{service}-activators-ipv4"),
            "labels": {names::SERVICE_NAME: service, names::SLICE_MANAGED_BY: names::MANAGER},
            "annotations": {names::WORKLOAD: workload},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [ip], "conditions": {"ready": true, "serving": true}}],
        "ports": [{"name": "http", "port": names::ACTIVATOR_PORT, "protocol": "TCP"}],
    });
    serde_json::from_value(object).unwrap()
}

/// Forges everything that may say that pods of `space` are those of `workload`.
async fn forge(space: &Space, name: &str, workload: &str) {
    let params = PostParams::default();
    let (pods, all): (Api<Pod>, Api<Service>) = (space.api(), space.api());
    let forged = pod(space, name, workload);
    pods.create(&params, &forged).await.unwrap();
    let ip = space
        .until("the forged pod is ready", LONG, async || {
            let pod = pods.get(name).await.ok()?;
            is_ready(&pod).then_some(pod.status?.pod_ip?)
        })
        .await;
    let slices: Api<EndpointSlice> = space.api();
    for service in services(name, workload) {
        all.create(&params, &service).await.unwrap();
        let slice = slice(&service.metadata.name.unwrap(), workload, &ip);
        slices.create(&params, &slice).await.unwrap();
    }
}

/// What of a workload nobody may touch: its Services, where its slices lead, its claims.
async fn untouched(space: &Space) -> Vec<String> {
    let (services, slices): (Api<Service>, Api<EndpointSlice>) = (space.api(), space.api());
    let mut all = Vec::new();
    for name in ["m", "m-rouse"] {
        let service = services.get(name).await.unwrap();
        all.push(format!("{name}: {:?}", service.metadata.resource_version));
    }
    let managed = ListParams::default().labels(names::SLICES_SELECTOR);
    for slice in slices.list(&managed).await.unwrap() {
        let addresses: Vec<_> = slice.endpoints.iter().map(|one| &one.addresses).collect();
        all.push(format!("{:?}: {addresses:?}", slice.metadata.name));
    }
    for claim in activators::claims(space, "m").await {
        all.push(format!("{claim:?}"));
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_who_forges_everything_of_his_own_gets_no_request_of_another() {
    let (space, stranger) = (Space::new("tenant").await, Space::new("stranger").await);
    let address = space.deploy(&Model::new("m")).await;
    // The relay comes last.
    let slices: Api<EndpointSlice> = space.api();
    let relay = names::relay("m").unwrap();
    let relay = ListParams::default().labels(&format!("{}={relay}", names::SERVICE_NAME));
    space
        .until("its sidecars are led to activators", LONG, async || {
            let found = slices.list(&relay).await.ok()?.items;
            (!found.is_empty()).then_some(())
        })
        .await;
    let before = untouched(&space).await;
    // By the name alone, which is another workload in another namespace, and by the whole name.
    forge(&stranger, "m", "m").await;
    forge(&stranger, "n", &format!("{}/m", space.name)).await;
    sleep(SEEN).await;
    let account = Account::default();
    for (round, count) in [("cold", 20), ("warm", 40)] {
        let mut clients = JoinSet::new();
        for _ in 0..count {
            let account = account.clone();
            clients.spawn(async move {
                let sent = account.send(address, None, get("/work"));
                timeout(LONG, sent).await.unwrap().unwrap()
            });
        }
        for answer in clients.join_all().await {
            assert_eq!(answer.status, 200, "{round}: {}", answer.text());
        }
    }
    assert_eq!(untouched(&space).await, before);
    for pod in ["m", "n"] {
        assert!(activators::claims(&stranger, pod).await.is_empty());
    }
    let forged = stranger.journals("m");
    println!("the stranger's pods have executed {forged:?}");
    assert_eq!(forged.len(), 2, "both were there to be asked");
    assert!(forged.values().all(String::is_empty));
    space.ledger("m", &account.told()).assert_exact();
    stranger.end().await;
    space.end().await;
}
