//! Cold starts: one wake, everybody answered once, in order.

use std::{sync::Arc, time::Duration};

use tokio::{task::JoinSet, time::Instant};

use crate::{
    bed::{Bed, Pod, Site, Step, until},
    http1::{Answer, Raw, ask, get},
};

/// `n` clients that are held one after the other, so that their order is known.
async fn crowd(site: &Site, n: usize) -> JoinSet<(usize, Answer)> {
    let mut clients = JoinSet::new();
    for i in 0..n {
        let mut raw = Raw::sent(site.address(), get("/", &i.to_string())).await;
        site.holds(i + 1).await;
        clients.spawn(async move { (i, raw.answer().await.expect("an answer")) });
    }
    clients
}

async fn all_served(mut clients: JoinSet<(usize, Answer)>) {
    while let Some(done) = clients.join_next().await {
        let (i, answer) = done.unwrap();
        assert_eq!(answer.status, 200, "client {i}: {}", answer.text());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_held_clients_cost_one_wake_and_are_handed_out_in_order_one_at_a_time() {
    let bed = Bed::new();
    let site = bed.site("a", |c| {
        c.container_concurrency = 1;
        c.wake_replicas = 3;
    });
    let clients = crowd(&site, 50).await;
    until("woken", || bed.scale.count() == 1).await;
    assert_eq!(bed.scale.wakes.lock()[0].1, 3);
    let pod = Pod::start("p", 1);
    site.pods(&[&pod]);
    all_served(clients).await;
    let order: Vec<_> = (0..50).map(|i| i.to_string()).collect();
    assert_eq!(pod.model.ids(), order);
    assert_eq!(bed.scale.count(), 1);
    assert_eq!(site.workload.held(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_held_clients_of_an_unlimited_pod_are_each_answered_once() {
    let bed = Bed::new();
    let site = bed.site("a", |_| {});
    let clients = crowd(&site, 50).await;
    let pod = Pod::start("p", 0);
    site.pods(&[&pod]);
    all_served(clients).await;
    let ids: Vec<usize> = pod
        .model
        .ids()
        .iter()
        .map(|id| id.parse().unwrap())
        .collect();
    // The first step of the ramp is 16: of those, the order is a matter of threads.
    assert!(ids[..4].iter().all(|id| *id < 24), "{ids:?}");
    let mut sorted = ids.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..50).collect::<Vec<_>>());
    assert_eq!(bed.scale.count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wake_that_fails_twice_is_tried_a_third_time() {
    let bed = Bed::new();
    bed.scale.script.lock().extend([Step::Fail, Step::Fail]);
    let site = bed.site("a", |_| {});
    let clients = crowd(&site, 5).await;
    until("three tries", || bed.scale.count() == 3).await;
    let wakes = bed.scale.wakes.lock().clone();
    let gap = |i: usize| wakes[i + 1].2 - wakes[i].2;
    assert!(gap(0) >= Duration::from_millis(45), "{:?}", gap(0));
    assert!(gap(1) >= Duration::from_millis(90), "{:?}", gap(1));
    let pod = Pod::start("p", 0);
    site.pods(&[&pod]);
    all_served(clients).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wake_that_never_answers_is_given_up_and_made_again() {
    let bed = Bed::new();
    bed.scale.script.lock().push_back(Step::Hang);
    let site = bed.site("a", |_| {});
    let clients = crowd(&site, 2).await;
    until("a second try", || bed.scale.count() == 2).await;
    let pod = Pod::start("p", 0);
    site.pods(&[&pod]);
    all_served(clients).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_lost_the_race_to_wake_waits_for_the_winners_pods() {
    let bed = Bed::new();
    bed.scale.script.lock().extend([Step::NotAtZero; 8]);
    let site = bed.site("a", |_| {});
    let clients = crowd(&site, 2).await;
    let pod = Pod::start("p", 0);
    site.pods(&[&pod]);
    all_served(clients).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_that_falls_back_to_zero_with_somebody_held_is_woken_at_once() {
    let bed = Bed::new();
    let site = bed.site("a", |_| {});
    let clients = crowd(&site, 3).await;
    for round in 1..=4 {
        until("woken", || bed.scale.count() == round).await;
        // The activator sees the effect, and then somebody undoes it.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let fell = Instant::now();
        site.zero();
        until("woken again", || bed.scale.count() == round + 1).await;
        let took = bed.scale.wakes.lock()[round].2 - fell;
        assert!(took < Duration::from_millis(500), "{took:?}");
    }
    let pod = Pod::start("p", 0);
    site.pods(&[&pod]);
    all_served(clients).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_becomes_ready_late_gets_its_requests_at_that_moment() {
    let bed = Bed::new();
    let site = bed.site("a", |_| {});
    // A port that nobody listens on yet.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let pod = Pod::with("p", 0, |c| {
        c.ports[0].upstream = address;
        c.model.address = address;
    });
    site.pods(&[&pod]);
    let mut raw = Raw::sent(site.address(), get("/", "late")).await;
    site.holds(1).await;
    let model = crate::model::Model::at("late", address);
    let opened = Instant::now();
    assert_eq!(raw.answer().await.unwrap().status, 200);
    assert!(opened.elapsed() < Duration::from_millis(500));
    assert_eq!(model.ids(), ["late"]);
    assert_eq!(bed.scale.count(), 0, "there was a replica");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_that_change_apply_to_those_who_are_held() {
    let bed = Bed::new();
    let site = bed.site("a", |c| c.container_concurrency = 1);
    let pod = Pod::start("p", 4);
    site.pods(&[&pod]);
    site.ready().await;
    let clients: Vec<_> = (0..4)
        .map(|i| tokio::spawn(ask(site.address(), get("/wait", &i.to_string()))))
        .collect();
    site.holds(3).await;
    let mut config = activator::WorkloadConfig::new(site.workload.id().clone());
    config.container_concurrency = 4;
    site.workload.reconfigure(config);
    site.holds(0).await;
    pod.model.state.go.add_permits(4);
    for client in clients {
        assert_eq!(client.await.unwrap().status, 200);
    }
    let _keep = Arc::clone(&site.workload);
}
