//! Requests that come late: on connections that were kept to a pod, while that pod drains.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use integration::{
    Fate,
    client::{Account, Connection, REQUEST_ID, get},
};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::ListParams};
use serde_json::json;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{
    Space,
    space::{LONG, Model},
};

/// Over how long late requests are spread, from the moment that a pod is seen to go: an idle pod takes 5 s, and each request
/// makes it 2 s more.
const LATE: Duration = Duration::from_secs(9);
/// Connections per pod, on average.
const KEPT: usize = 12;

/// Connections that are idle, by the pod to which they lead.
type Kept = BTreeMap<String, Vec<Connection>>;

/// What late requests met.
#[derive(Debug, Default)]
struct Met {
    /// The pod that was going.
    served: usize,
    /// A connection that had been closed without a byte of an answer: sent again on another one, as every HTTP client does.
    closed: usize,
}

/// Opens connections, each with one request.
async fn keep(address: SocketAddr, account: &Account, count: usize) -> Kept {
    let mut kept = Kept::new();
    for _ in 0..count {
        let mut connection = Connection::open(address).await.unwrap();
        let sent = account.send(address, Some(&mut connection), get("/work"));
        let answer = timeout(LONG, sent).await.unwrap().unwrap();
        let pod = answer.header("x-served-by").to_owned();
        kept.entry(pod).or_default().push(connection);
    }
    kept
}

/// Sends one request on each connection, spread over [`LATE`].
async fn late(
    pod: String,
    connections: Vec<Connection>,
    address: SocketAddr,
    account: Account,
) -> Met {
    let (began, count) = (Instant::now(), u32::try_from(connections.len()).unwrap());
    let mut met = Met::default();
    for (n, mut connection) in (0_u32..).zip(connections) {
        // Further apart towards the end: the last ones meet a pod that takes its leave.
        let share = (f64::from(n) / f64::from(count)).powf(1.5);
        tokio::time::sleep_until(began + LATE.mul_f64(share)).await;
        let id = account.name();
        let request = || {
            let mut request = get("/work");
            request
                .headers_mut()
                .insert(REQUEST_ID, id.parse().unwrap());
            request
        };
        let mut answer = timeout(LONG, connection.send(request())).await.unwrap();
        if matches!(answer, Err(Fate::ClosedIdle)) {
            met.closed += 1;
            let mut another = Connection::open(address).await.unwrap();
            answer = timeout(LONG, another.send(request())).await.unwrap();
        } else if let Ok(answer) = &answer {
            assert_eq!(answer.header("x-served-by"), pod);
            met.served += 1;
        }
        account.tell(
            id,
            answer.map_or_else(|fate| fate, |answer| Fate::Answered(answer.status.as_u16())),
        );
    }
    met
}

/// Sends late requests to pods that go, until `count` of them are gone. Connections to pods that stay are left.
async fn follow(
    space: &Space,
    address: SocketAddr,
    account: &Account,
    mut kept: Kept,
    count: usize,
) -> Met {
    let pods: Api<Pod> = space.api();
    let (mut going, mut tasks) = (BTreeSet::new(), JoinSet::new());
    let end = Instant::now() + LONG * 2;
    loop {
        let all = pods
            .list(&ListParams::default().labels("app=m"))
            .await
            .unwrap()
            .items;
        for pod in &all {
            let name = pod.metadata.name.clone().unwrap();
            if pod.metadata.deletion_timestamp.is_some() && going.insert(name.clone()) {
                let connections = kept.remove(&name).unwrap_or_default();
                println!("{name} goes, with {} connections", connections.len());
                tasks.spawn(late(name, connections, address, account.clone()));
            }
        }
        let is_gone = |name: &String| {
            !all.iter()
                .any(|pod| pod.metadata.name.as_ref() == Some(name))
        };
        if going.len() >= count && going.iter().all(is_gone) {
            break;
        }
        assert!(
            Instant::now() < end,
            "{going:?} went, and {} pods are there",
            all.len()
        );
        sleep(Duration::from_millis(50)).await;
    }
    let mut met = Met::default();
    for one in timeout(LONG, tasks.join_all()).await.unwrap() {
        met.served += one.served;
        met.closed += one.closed;
    }
    met
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_on_old_connections_to_pods_that_drain_are_neither_lost_nor_run_twice() {
    let space = Space::new("late").await;
    let model = Model::new("m")
        .replicas(3)
        .annotate("autoscaling.knative.dev/min-scale", "3")
        .flags(&["--service-time=20ms"]);
    let address = space.deploy_warm(&model).await;
    let account = Account::default();
    let kept = keep(address, &account, 3 * KEPT).await;
    // One replica has enough to do not to go to zero.
    let (stop, stopped) = watch::channel(false);
    let trickle = {
        let account = account.clone();
        tokio::spawn(async move {
            while !*stopped.borrow() {
                let sent = account.send(address, None, get("/work"));
                timeout(LONG, sent).await.unwrap().unwrap();
                sleep(Duration::from_millis(250)).await;
            }
        })
    };
    let down = json!({"metadata": {"annotations": {"autoscaling.knative.dev/min-scale": "0"}}});
    space.patch("m", down).await;
    let to_one = follow(&space, address, &account, kept, 2).await;
    println!("three to one: {to_one:?}");
    let kept = keep(address, &account, KEPT).await;
    stop.send_replace(true);
    trickle.await.expect("each of its requests was answered");
    let to_zero = follow(&space, address, &account, kept, 1).await;
    println!("one to zero: {to_zero:?}");
    assert!(
        to_one.served > 0 && to_zero.served > 0,
        "pods that drain serve"
    );
    space.ledger("m", &account.told()).assert_exact();
    space.end().await;
}
