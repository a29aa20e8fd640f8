//! Which pod gets which request, and how many at once.

use std::{collections::HashMap, sync::atomic::Ordering::SeqCst, time::Duration};

use tokio::{task::JoinSet, time::Instant};

use crate::{
    bed::{Bed, Pod, Site, until},
    http1::{Raw, ask, get},
};

/// `n` requests over `clients` kept connections; answers per pod.
async fn load(site: &Site, clients: usize, n: usize, path: &'static str) -> HashMap<String, usize> {
    let mut tasks = JoinSet::new();
    for client in 0..clients {
        let address = site.address();
        tasks.spawn(async move {
            let mut raw = Raw::open(address).await;
            let mut pods = Vec::new();
            for i in 0..n / clients {
                raw.send(get(path, &format!("{client}-{i}"))).await;
                let answer = raw.answer().await.expect("an answer");
                assert_eq!(answer.status, 200, "{}", answer.text());
                pods.push(answer.header("x-model").unwrap().to_owned());
            }
            pods
        });
    }
    let mut counts = HashMap::new();
    while let Some(pods) = tasks.join_next().await {
        for pod in pods.unwrap() {
            *counts.entry(pod).or_insert(0) += 1;
        }
    }
    counts
}

async fn pods(site: &Site, concurrency: u32) -> Vec<Pod> {
    let pods: Vec<_> = ["a", "b", "c"]
        .map(|uid| Pod::start(uid, concurrency))
        .into();
    site.pods(&pods.iter().collect::<Vec<_>>());
    until("three ready", || {
        format!("{:?}", site.workload)
            .matches("ready_since: Some")
            .count()
            == 3
    })
    .await;
    pods
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_pod_gets_more_than_its_concurrency_and_all_get_alike() {
    let bed = Bed::new();
    let site = bed.site("a", |c| c.container_concurrency = 2);
    let pods = pods(&site, 2).await;
    let counts = load(&site, 12, 3_000, "/").await;
    for pod in &pods {
        assert!(pod.model.state.most.load(SeqCst) <= 2);
        let n = counts[&*pod.uid];
        assert!((800..=1_200).contains(&n), "{counts:?}");
    }
    assert_eq!(counts.values().sum::<usize>(), 3_000);
    until("none held", || site.workload.held() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pods_are_kept_busy_while_somebody_waits() {
    let bed = Bed::new();
    let site = bed.site("a", |c| c.container_concurrency = 2);
    let _pods = pods(&site, 2).await;
    let began = Instant::now();
    // 120 requests of 50 ms in 6 places take 1 s; places that are thought taken for seconds show.
    load(&site, 24, 120, "/sleep?50").await;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unlimited_pods_share_the_load() {
    let bed = Bed::new();
    let site = bed.site("a", |_| {});
    let pods = pods(&site, 0).await;
    let counts = load(&site, 12, 3_000, "/").await;
    for pod in &pods {
        let n = counts[&*pod.uid];
        assert!((700..=1_300).contains(&n), "{counts:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_does_not_drown_a_cold_unlimited_pod() {
    let bed = Bed::new();
    let site = bed.site("a", |_| {});
    let mut clients = JoinSet::new();
    for i in 0..200 {
        clients.spawn(ask(site.address(), get("/wait", &i.to_string())));
    }
    site.holds(200).await;
    let pod = Pod::start("p", 0);
    site.pods(&[&pod]);
    let began = Instant::now();
    until("the first step", || pod.model.ids().len() >= 16).await;
    if began.elapsed() < Duration::from_millis(80) {
        assert!(pod.model.state.most.load(SeqCst) <= 32);
    }
    // None of them ends, and still everybody is let in before long.
    until("all", || pod.model.ids().len() == 200).await;
    assert!(
        began.elapsed() < Duration::from_millis(1_500),
        "{:?}",
        began.elapsed()
    );
    pod.model.state.go.add_permits(200);
    while let Some(answer) = clients.join_next().await {
        assert_eq!(answer.unwrap().status, 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn direct_traffic_of_a_pod_is_taken_into_account() {
    let bed = Bed::new();
    let site = bed.site("a", |c| c.container_concurrency = 4);
    let (busy, free) = (Pod::start("busy", 4), Pod::start("free", 4));
    let direct = busy.proxy.addresses()[0];
    let mut others = JoinSet::new();
    for i in 0..3 {
        others.spawn(ask(direct, get("/wait", &format!("direct-{i}"))));
    }
    until("busy", || busy.proxy.load() == 3).await;
    site.pods(&[&busy, &free]);
    until("both ready", || {
        format!("{:?}", site.workload)
            .matches("ready_since: Some")
            .count()
            == 2
    })
    .await;
    let counts = load(&site, 2, 400, "/").await;
    assert!(
        counts["free"] > 2 * counts.get("busy").copied().unwrap_or(0),
        "{counts:?}"
    );
    busy.model.state.go.add_permits(3);
    while others.join_next().await.is_some() {}
}
