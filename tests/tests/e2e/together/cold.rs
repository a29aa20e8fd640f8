//! From zero.

use integration::client::{Account, get};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::LogParams};
use tokio::{task::JoinSet, time::Instant};

use crate::{
    Space, activators, audit,
    space::{LONG, Model},
};

/// Every phase of a cold start that activators know of; some change places, as the second of two may be seen first.
const PHASES: [&str; 10] = [
    "patch_sent",
    "patched",
    "pod_created",
    "pod_scheduled",
    "pod_seen",
    "sidecar_started",
    "port_open",
    "model_ready",
    "forwarded",
    "first_byte",
];

/// The phases in a `rouse-timing`, in seconds.
fn timeline(header: &str) -> Vec<(String, f64)> {
    let parts = header
        .split(", ")
        .filter_map(|part| part.split_once(";dur="));
    parts
        .filter(|(name, _)| *name != "hold")
        .map(|(name, ms)| (name.to_owned(), ms.parse::<f64>().unwrap() / 1e3))
        .collect()
}

/// All phases are there, none goes back, and all of it lies within what the client has waited.
fn check(phases: &[(String, f64)], took: f64) {
    let has = |name: &&str| phases.iter().any(|(phase, _)| phase == name);
    assert!(PHASES.iter().all(has), "a phase is missing: {phases:?}");
    assert!(phases.is_sorted_by(|a, b| a.1 <= b.1), "{phases:?}");
    assert!(
        phases.iter().all(|(_, at)| (0.0..=took).contains(at)),
        "{phases:?}"
    );
    let at = |name| phases.iter().position(|(phase, _)| phase == name).unwrap();
    for pair in [
        ["patch_sent", "patched"],
        ["patch_sent", "pod_seen"],
        ["pod_scheduled", "pod_seen"],
        ["sidecar_started", "port_open"],
        ["port_open", "model_ready"],
        ["model_ready", "forwarded"],
        ["forwarded", "first_byte"],
    ] {
        assert!(at(pair[0]) < at(pair[1]), "{pair:?} in {phases:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_request_at_zero_is_answered_and_the_workload_sleeps_again() {
    let space = Space::new("first").await;
    let logged = ("rouse.dev/request-log", "told {method} {path} {status}");
    let address = space
        .deploy(&Model::new("m").annotate(logged.0, logged.1))
        .await;
    assert_eq!(space.replicas("m").await, (0, 0));
    let account = Account::default();
    let began = Instant::now();
    let answer = account.send(address, None, get("/work")).await.unwrap();
    println!(
        "first answer after {:?}: {}",
        began.elapsed(),
        answer.header("rouse-timing")
    );
    let took = began.elapsed().as_secs_f64();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let told = timeline(answer.header("rouse-timing"));
    check(&told, took);
    let wakes = activators::wakes(&space, "m").await;
    let [wake] = &wakes[..] else {
        panic!("one wake: {wakes:?}");
    };
    let kept: Vec<(String, f64)> = serde_json::from_value(wake["phases"].clone()).unwrap();
    check(&kept, took);
    let names =
        |all: &[(String, f64)]| all.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&kept), names(&told));
    println!("of {:.3} s, {:.4} s are ours", wake["total"], wake["ours"]);
    let pods: Api<Pod> = space.api();
    let pod = space.pods("m").await[0].metadata.name.clone().unwrap();
    let sidecar = LogParams {
        container: Some(kubernetes::names::SIDECAR.to_owned()),
        ..LogParams::default()
    };
    let line = space.until("the sidecar's line", LONG, async || {
        let log = pods.logs(&pod, &sidecar).await.unwrap();
        let told = log.lines().find(|line| line.starts_with("told "));
        told.map(str::to_owned)
    });
    assert_eq!(line.await, "told GET /work 200");
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
    let deployments: Api<k8s_openapi::api::apps::v1::Deployment> = space.api();
    let deployment = deployments.get("m").await.unwrap();
    deployment.metadata.generation.unwrap()
}
