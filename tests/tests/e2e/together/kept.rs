//! Connections that clients keep: after a scale-up they are spread over all pods, although kube-proxy balances connections alone.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use http::HeaderMap;
use integration::{
    Fate,
    client::{Account, Connection, fetch, get},
    grpc::Channel,
};
use serde_json::json;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{
    Space,
    space::{LONG, Model, service},
};

const REPLICAS: i32 = 5;
/// Of each protocol.
const CLIENTS: usize = 20;
const AGE: Duration = Duration::from_secs(2);
/// With n connections over five pods, the share of one pod varies by 2 / √n of itself. 20 clients have 600 in this time: the largest
/// is 1.6 times the smallest once in some thousand runs.
const MEASURED: Duration = Duration::from_mins(1);
/// Between two requests of a client.
const GAP: Duration = Duration::from_millis(100);

/// When an answer came, and from which pod.
type Served = Vec<(Instant, String)>;

fn served(head: &HeaderMap) -> (Instant, String) {
    let pod = head["x-served-by"].to_str().unwrap().to_owned();
    (Instant::now(), pod)
}

/// Keeps its connection until an answer says that it was the last.
async fn http_1(address: SocketAddr, account: Account, stop: watch::Receiver<bool>) -> Served {
    let mut connection = Connection::open(address).await.unwrap();
    let mut all = Vec::new();
    while !*stop.borrow() {
        let sent = account.send(address, Some(&mut connection), get("/work"));
        let answer = timeout(LONG, sent).await.unwrap().unwrap();
        all.push(served(&answer.headers));
        if answer.header("connection") == "close" {
            connection = Connection::open(address).await.unwrap();
        }
        sleep(GAP).await;
    }
    all
}

/// Keeps its channel until it goes away.
async fn grpc(address: SocketAddr, account: Account, stop: watch::Receiver<bool>) -> Served {
    let mut channel = Channel::open(address).await.unwrap();
    let mut all = Vec::new();
    while !*stop.borrow() {
        let id = account.name();
        let call = timeout(LONG, channel.unary_kept(&id, "hello")).await;
        let (message, head) = call.unwrap().unwrap();
        assert_eq!(message, "hello");
        account.tell(id, Fate::Answered(200));
        all.push(served(&head));
        sleep(GAP).await;
    }
    all
}

/// How many requests each pod served in this time.
fn counts(all: &[Served], from: Instant, to: Instant) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for (at, pod) in all.iter().flatten() {
        if (from..to).contains(at) {
            *counts.entry(pod.as_str()).or_default() += 1;
        }
    }
    counts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_were_kept_through_a_scale_up_are_spread_over_five_pods() {
    let space = Space::new("kept").await;
    let model = Model::new("m")
        .replicas(1)
        .annotate("autoscaling.knative.dev/min-scale", "1")
        .annotate("autoscaling.knative.dev/max-scale", "1");
    // In the template, so that it counts for the very first pod.
    let mut deployment = serde_json::to_value(space.deployment(&model)).unwrap();
    deployment["spec"]["template"]["metadata"]["annotations"] =
        json!({"rouse.dev/max-connection-age": format!("{}s", AGE.as_secs())});
    let deployment = serde_json::from_value(deployment).unwrap();
    space.create_objects(&service("m"), &deployment).await;
    space.adopted("m").await;
    space.settled("m", 1, LONG).await;
    let address = space.address("m").await;
    // kube-proxy follows a moment after the Service, and a connection past the sidecar has no age.
    space
        .until("requests go through the sidecar", LONG, async || {
            let answer = fetch(address, get("/stats")).await.ok()?;
            let timing = answer.header("rouse-timing");
            timing.starts_with("queue;").then_some(())
        })
        .await;

    let account = Account::default();
    let (stop, stopped) = watch::channel(false);
    let (mut kept, mut channels) = (JoinSet::new(), JoinSet::new());
    let began = Instant::now();
    for _ in 0..CLIENTS {
        kept.spawn(http_1(address, account.clone(), stopped.clone()));
        channels.spawn(grpc(address, account.clone(), stopped.clone()));
    }
    sleep(AGE).await;
    let scaled = Instant::now();
    let five = json!({"metadata": {"annotations": {
        "autoscaling.knative.dev/min-scale": "5",
        "autoscaling.knative.dev/max-scale": "5",
    }}});
    space.patch("m", five).await;
    space.settled("m", REPLICAS, LONG * 2).await;
    println!("five replicas after {:?}", scaled.elapsed());
    // All connections of before have gone, and a moment for kube-proxy.
    sleep(AGE * 2).await;
    let from = Instant::now();
    sleep(MEASURED).await;
    let to = Instant::now();
    stop.send(true).unwrap();
    let kept = timeout(LONG, kept.join_all()).await.unwrap();
    let channels = timeout(LONG, channels.join_all()).await.unwrap();

    space.ledger("m", &account.told()).assert_exact();
    for (protocol, all) in [("HTTP/1.1", &kept), ("gRPC", &channels)] {
        assert_eq!(counts(all, began, scaled).len(), 1, "{protocol}: one pod");
        let counts = counts(all, from, to);
        println!("{protocol}: {counts:?}");
        assert_eq!(counts.len(), 5, "{protocol}: {counts:?}");
        let (least, most) = (
            counts.values().min().unwrap(),
            counts.values().max().unwrap(),
        );
        assert!(most * 10 <= least * 16, "{protocol}: {counts:?}");
    }
    space.end().await;
}
