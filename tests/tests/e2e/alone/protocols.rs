//! WebSocket, server-sent events and gRPC: from the first message at zero, and across a scale-down, to the last one.

use std::{collections::BTreeSet, time::Duration};

use integration::{client::Account, grpc::Channel};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Pod, Service},
};
use kube::{Api, api::ListParams};
use serde_json::{Value, json};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::{
    Space,
    space::{LONG, Model, service},
    talk::{Protocol, Talk},
};

/// Longer than what is idle takes to go to zero: the window, the grace and some ticks. What is open is open for so long.
const OPEN: Duration = Duration::from_secs(30);
/// What has to be left of it when the workload has come down to one replica: longer than an idle pod drains.
const REST: Duration = Duration::from_secs(9);
/// More than it ever takes to come to each of two pods by chance.
const ENOUGH: usize = 40;

/// A Service with this port as its only one.
fn with_port(name: &str, port: &Value) -> Service {
    let mut service = serde_json::to_value(service(name)).unwrap();
    service["spec"]["ports"] = port.clone();
    serde_json::from_value(service).unwrap()
}

fn http() -> Value {
    json!({"name": "http", "port": 80, "targetPort": 8080})
}

fn grpc(port: u16) -> Value {
    json!({"name": "grpc", "port": port, "targetPort": 8080, "appProtocol": "kubernetes.io/h2c"})
}

/// The container's port named after what it speaks.
fn named(deployment: Deployment, name: &str) -> Deployment {
    let mut object = serde_json::to_value(deployment).unwrap();
    let container = &mut object["spec"]["template"]["spec"]["containers"][0];
    container["ports"][0]["name"] = json!(name);
    container["readinessProbe"]["httpGet"]["port"] = json!(name);
    serde_json::from_value(object).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_protocol_s_first_message_wakes_and_what_stays_open_keeps_the_pod() {
    let space = Space::new("cold-streams").await;
    let workloads = [
        ("socket", Protocol::WebSocket),
        ("events", Protocol::Sse),
        ("call", Protocol::Grpc),
    ];
    for (name, protocol) in workloads {
        let (port, kind) = match protocol {
            Protocol::Grpc => (json!([grpc(80)]), "grpc"),
            Protocol::WebSocket | Protocol::Sse => (json!([http()]), "http"),
        };
        let deployment = named(space.deployment(&Model::new(name)), kind);
        space
            .create_objects(&with_port(name, &port), &deployment)
            .await;
    }
    // A unary call, which is over at once, wakes a workload like the others do.
    let unary = named(space.deployment(&Model::new("unary")), "grpc");
    space
        .create_objects(&with_port("unary", &json!([grpc(80)])), &unary)
        .await;
    let mut talks = Vec::new();
    for (name, protocol) in workloads {
        space.adopted(name).await;
        talks.push((
            name,
            protocol,
            space.address(name).await,
            Account::default(),
        ));
    }
    space.adopted("unary").await;
    let address = space.address("unary").await;
    let began = Instant::now();
    let asked = tokio::spawn(async move {
        let channel = Channel::open(address).await.unwrap();
        let answer = timeout(LONG, channel.unary("t-0", "hello")).await.unwrap();
        (answer.unwrap(), began.elapsed())
    });
    let end = began + OPEN;
    let mut opening = JoinSet::new();
    for (name, protocol, address, account) in talks {
        opening.spawn(async move {
            let talk = Talk::open(protocol, address, &account, end).await;
            (name, talk, began.elapsed(), account)
        });
    }
    let opened = opening.join_all().await;
    let ((message, head), took) = asked.await.unwrap();
    assert_eq!(message, "hello");
    println!("unary: {took:?}, {:?}", head["rouse-timing"]);
    for (name, talk, took, _) in &opened {
        println!("{name}: first message after {took:?}, {}", talk.timing);
        assert!(talk.timing.starts_with("hold;"), "through an activator");
    }
    // Until shortly before the end, each has the one pod that it began on.
    while Instant::now() < end - Duration::from_secs(1) {
        for (name, talk, ..) in &opened {
            assert!(talk.is_open(), "{name}");
            let pods = space.pods(name).await;
            let names: Vec<_> = pods
                .iter()
                .filter_map(|pod| pod.metadata.name.as_ref())
                .collect();
            assert_eq!(names, [&talk.served_by], "{name}");
        }
        sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(
        space.replicas("unary").await.0,
        0,
        "what is not open went to zero meanwhile"
    );
    for (name, talk, _, account) in opened {
        let count = talk.ended().await;
        println!("{name}: {count} messages");
        space.ledger(name, &account.told()).assert_exact();
    }
    for (name, _) in workloads {
        space.settled(name, 0, LONG * 2).await;
    }
    space.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_open_when_pods_are_taken_away_is_served_to_its_end() {
    let space = Space::new("open-streams").await;
    let model = Model::new("m")
        .replicas(2)
        .annotate("autoscaling.knative.dev/min-scale", "2");
    let service = with_port("m", &json!([http(), grpc(81)]));
    space
        .create_objects(&service, &space.deployment(&model))
        .await;
    space.adopted("m").await;
    space.settled("m", 2, LONG).await;
    let address = space.address("m").await;
    for port in [80, 81] {
        space.through_sidecars((address.ip(), port).into()).await;
    }
    let account = Account::default();
    let end = Instant::now() + OPEN + Duration::from_secs(6);
    let mut talks = Vec::new();
    let mut seen = BTreeSet::new();
    while seen.len() < 2 * Protocol::ALL.len() {
        assert!(talks.len() < ENOUGH, "one pod gets everything: {seen:?}");
        for protocol in Protocol::ALL {
            let port = if protocol == Protocol::Grpc { 81 } else { 80 };
            let address = (address.ip(), port).into();
            let talk = Talk::open(protocol, address, &account, end).await;
            seen.insert((protocol, talk.served_by.clone()));
            talks.push(talk);
        }
    }
    println!("{} open, of each protocol on both pods", talks.len());
    let down = json!({"metadata": {"annotations": {"autoscaling.knative.dev/min-scale": "0"}}});
    space.patch("m", down).await;
    space
        .until("one replica", LONG, async || {
            (space.replicas("m").await.0 == 1).then_some(())
        })
        .await;
    let left = end.saturating_duration_since(Instant::now());
    println!("one replica is wanted with {left:?} left");
    assert!(left > REST, "too late to show anything");
    sleep_until(end - Duration::from_secs(1)).await;
    assert!(talks.iter().all(Talk::is_open));
    let pods: Api<Pod> = space.api();
    let pods = pods
        .list(&ListParams::default().labels("app=m"))
        .await
        .unwrap()
        .items;
    let going = pods
        .iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_some());
    assert_eq!(
        (pods.len(), going.count()),
        (2, 1),
        "the pod that goes waits"
    );
    assert_eq!(space.replicas("m").await.0, 1);
    let mut messages = 0;
    for talk in talks {
        messages += talk.ended().await;
    }
    println!("{messages} messages");
    space.settled("m", 0, LONG * 2).await;
    space.ledger("m", &account.told()).assert_exact();
    space.end().await;
}
