//! Connections that need not come through here any more, and those that must not be closed unanswered.

use std::time::Duration;

use activator::InPath;
use tokio::{task::JoinSet, time::timeout};

use crate::{
    bed::{Bed, Pod, Site, until},
    h2::Connection,
    http1::{Raw, ask, get},
};

fn until_ready(bed: &Bed, millis: u64) -> Site {
    bed.site("a", |c| {
        c.in_path = InPath::UntilReady(Duration::from_millis(millis));
    })
}

fn set(site: &Site, in_path: InPath) {
    let mut config = activator::WorkloadConfig::new(site.workload.id().clone());
    config.in_path = in_path;
    site.workload.reconfigure(config);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_of_a_cold_workload_are_closed_after_their_answer_once_a_pod_is_ready() {
    let bed = Bed::new();
    let site = until_ready(&bed, 60_000);
    let mut held = Raw::sent(site.address(), get("/", "1")).await;
    site.holds(1).await;
    let pod = Pod::start("p", 0);
    site.pods(&[&pod]);
    let first = held.answer().await.unwrap();
    if !first.closes() {
        // The conductor may learn of the pod a moment after the request; then it is the next answer.
        held.send(get("/", "2")).await;
        assert!(held.answer().await.unwrap().closes());
    }
    assert!(held.ends().await);
    assert!(ask(site.address(), get("/", "3")).await.closes());
    // Cold again: connections are kept.
    site.zero();
    until("at zero", || !site.workload.any_ready()).await;
    let mut raw = Raw::sent(site.address(), get("/", "4")).await;
    site.holds(1).await;
    set(&site, InPath::Always);
    site.pods(&[&pod]);
    for _ in 0..3 {
        assert!(!raw.answer().await.unwrap().closes());
        raw.send(get("/", "5")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_are_closed_after_the_delay_and_not_before() {
    let bed = Bed::new();
    let site = until_ready(&bed, 300);
    let pod = Pod::start("p", 0);
    set(&site, InPath::Always);
    site.pods(&[&pod]);
    let mut idle = Raw::sent(site.address(), get("/", "1")).await;
    assert!(!idle.answer().await.unwrap().closes());
    site.zero();
    until("at zero", || !site.workload.any_ready()).await;
    set(&site, InPath::UntilReady(Duration::from_millis(300)));
    site.pods(&[&pod]);
    site.ready().await;
    assert!(
        timeout(Duration::from_millis(200), idle.fill())
            .await
            .is_err(),
        "closed too early"
    );
    assert!(idle.ends().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fresh_connection_is_answered_whatever_happens_between_its_opening_and_its_request() {
    let bed = Bed::new();
    let site = until_ready(&bed, 1);
    let pod = Pod::start("p", 0);
    let mut clients = JoinSet::new();
    for i in 0..300_u64 {
        let address = site.address();
        clients.spawn(async move {
            let mut raw = Raw::open(address).await;
            tokio::time::sleep(Duration::from_micros(i * 137 % 9_000)).await;
            let bytes = get("/", &i.to_string());
            // In two parts, so that also half a head meets the change.
            let (a, b) = bytes.split_at(usize::try_from(i).unwrap() % bytes.len());
            raw.send(a).await;
            tokio::time::sleep(Duration::from_micros(i * 61 % 4_000)).await;
            raw.send(b).await;
            (i, raw.answer().await.map(|a| a.status))
        });
        if i % 3 == 0 {
            if i % 2 == 0 {
                site.pods(&[&pod]);
            } else {
                site.zero();
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    site.pods(&[&pod]);
    while let Some(done) = clients.join_next().await {
        let (i, status) = done.unwrap();
        assert_eq!(status, Some(200), "client {i}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fresh_connection_to_a_workload_that_has_long_been_ready_is_answered_and_closed() {
    let bed = Bed::new();
    let site = until_ready(&bed, 1);
    let pod = Pod::start("p", 0);
    site.pods(&[&pod]);
    let mut idle = Raw::open(site.address()).await;
    site.ready().await;
    assert!(
        timeout(Duration::from_millis(50), idle.fill())
            .await
            .is_err(),
        "closed unused"
    );
    idle.send(get("/", "x")).await;
    assert!(idle.answer().await.unwrap().closes());
    for i in 0..3 {
        let mut raw = Raw::open(site.address()).await;
        // The server has surely accepted it by the time that another connection was served.
        ask(site.address(), get("/", "other")).await;
        raw.send(get("/", &i.to_string())).await;
        assert!(raw.answer().await.unwrap().closes());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_connections_get_a_goaway_once_a_pod_is_ready_and_finish_what_they_have() {
    let bed = Bed::new();
    let site = until_ready(&bed, 60_000);
    let connection = Connection::open(site.address()).await;
    let held = tokio::spawn(connection.get("/", "1"));
    site.holds(1).await;
    let pod = Pod::start("p", 0);
    site.pods(&[&pod]);
    assert_eq!(held.await.unwrap().unwrap().status, 200);
    connection.ended().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_request_of_a_fresh_http2_connection_is_answered_although_pods_are_ready() {
    let bed = Bed::new();
    let site = until_ready(&bed, 1);
    let pod = Pod::start("p", 0);
    site.pods(&[&pod]);
    site.ready().await;
    for i in 0..20 {
        let connection = Connection::open(site.address()).await;
        tokio::time::sleep(Duration::from_millis(i)).await;
        let answer = connection.get("/", "x").await.expect("an answer");
        assert_eq!(answer.status, 200);
        connection.ended().await;
    }
}
