//! Not admitted may go elsewhere, admitted is never sent again.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use tokio::time::{Instant, timeout};

use crate::{
    bed::{Bed, Pod, endpoint, loopback, until},
    fake::Fake,
    http1::{Raw, ask, get, post},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_full_pod_refuses_goes_to_the_other() {
    let bed = Bed::new();
    let site = bed.site("a", |c| c.container_concurrency = 4);
    let mut full = Fake::start("full").await;
    site.endpoints(vec![full.endpoint.clone()]);
    site.ready().await;
    let mut raw = Raw::sent(site.address(), post("/", "x", b"body")).await;
    let mut got = full.request().await;
    assert_eq!(got.body().await, b"body");
    let pod = Pod::start("p", 4);
    site.endpoints(vec![full.endpoint.clone(), pod.endpoint()]);
    until("both", || {
        format!("{:?}", site.workload)
            .matches("ready_since: Some")
            .count()
            == 2
    })
    .await;
    got.answer(503, "full", "").await;
    assert_eq!(raw.answer().await.unwrap().body, b"body");
    assert_eq!(pod.model.ids(), ["x"]);
    assert!(!full.has_request());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_pod_is_left_alone_for_a_moment_and_then_asked_again_in_the_old_order() {
    let bed = Bed::new();
    let site = bed.site("a", |c| c.container_concurrency = 1);
    let mut fake = Fake::start("p").await;
    site.endpoints(vec![fake.endpoint.clone()]);
    site.ready().await;
    let mut first = Raw::sent(site.address(), get("/first", "1")).await;
    let mut got = fake.request().await;
    let _second = Raw::sent(site.address(), get("/second", "2")).await;
    site.holds(1).await;
    for _ in 0..5 {
        let refused = Instant::now();
        got.answer(503, "full", "").await;
        got = fake.request().await;
        assert!(
            got.head.starts_with("GET /first "),
            "out of order: {}",
            got.head
        );
        let pause = refused.elapsed();
        assert!(
            pause >= Duration::from_millis(45),
            "asked again after {pause:?}"
        );
        assert!(
            pause < Duration::from_millis(500),
            "asked again after {pause:?}"
        );
    }
    got.answer(200, "admitted", "done").await;
    assert_eq!(first.answer().await.unwrap().text(), "done");
    assert!(fake.request().await.head.starts_with("GET /second "));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_is_not_ready_or_not_the_one_meant_is_asked_anew() {
    for (status, marker) in [(503, "not-ready"), (421, "misdirected")] {
        let bed = Bed::new();
        let site = bed.site("a", |_| {});
        let mut fake = Fake::start("p").await;
        site.endpoints(vec![fake.endpoint.clone()]);
        site.ready().await;
        assert_eq!(fake.asked.load(SeqCst), 1);
        let mut raw = Raw::sent(site.address(), post("/", "x", b"body")).await;
        let mut got = fake.request().await;
        assert_eq!(got.header("rouse-pod-uid"), Some("p"));
        fake.ready.send_replace(false);
        got.answer(status, marker, "").await;
        site.holds(1).await;
        until("asked anew", || fake.asked.load(SeqCst) == 2).await;
        assert!(!site.workload.any_ready());
        let pod = Pod::start("q", 0);
        site.endpoints(vec![fake.endpoint.clone(), pod.endpoint()]);
        assert_eq!(raw.answer().await.unwrap().body, b"body");
        // It recovers.
        site.endpoints(vec![fake.endpoint.clone()]);
        until("the other is gone", || !site.workload.any_ready()).await;
        fake.ready.send_replace(true);
        let mut raw = Raw::sent(site.address(), get("/", "y")).await;
        fake.request().await.answer(200, "admitted", "back").await;
        assert_eq!(raw.answer().await.unwrap().text(), "back");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_says_ready_and_then_is_not_is_not_asked_in_a_tight_loop() {
    let bed = Bed::new();
    let site = bed.site("a", |_| {});
    let mut fake = Fake::start("p").await;
    site.endpoints(vec![fake.endpoint.clone()]);
    let _raw = Raw::sent(site.address(), get("/", "x")).await;
    let end = Instant::now() + Duration::from_millis(1_500);
    let mut tries = 0;
    while let Ok(mut got) = timeout(end - Instant::now().min(end), fake.request()).await {
        got.answer(503, "not-ready", "").await;
        tries += 1;
    }
    assert!((4..40).contains(&tries), "{tries} tries in 1.5 s");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_takes_no_connection_any_more_loses_nothing() {
    let bed = Bed::new();
    let site = bed.site("a", |c| c.container_concurrency = 10);
    let (fake, pod) = (Fake::start("gone").await, Pod::start("p", 10));
    site.endpoints(vec![fake.endpoint.clone(), pod.endpoint()]);
    until("both", || {
        format!("{:?}", site.workload)
            .matches("ready_since: Some")
            .count()
            == 2
    })
    .await;
    drop(fake);
    let clients: Vec<_> = (0..20)
        .map(|i| tokio::spawn(ask(site.address(), post("/", &i.to_string(), b"body"))))
        .collect();
    for client in clients {
        let answer = client.await.unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, "body"));
    }
    let mut ids = pod.model.ids();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_whose_port_is_closed_at_first_is_found_when_it_opens() {
    let bed = Bed::new();
    let site = bed.site("a", |_| {});
    let free = std::net::TcpListener::bind(loopback()).unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    site.endpoints(vec![endpoint("p", address)]);
    let mut raw = Raw::sent(site.address(), get("/", "x")).await;
    site.holds(1).await;
    let pod = Pod::with("p", 0, |c| c.activator = Some(address));
    assert_eq!(raw.answer().await.unwrap().status, 200);
    assert_eq!(pod.model.ids(), ["x"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_takes_a_request_and_breaks_off_ends_it_with_502_and_it_is_never_sent_again() {
    let bed = Bed::new();
    let site = bed.site("a", |_| {});
    let mut breaks = Fake::start("breaks").await;
    site.endpoints(vec![breaks.endpoint.clone()]);
    site.ready().await;
    let mut raw = Raw::sent(site.address(), post("/", "x", b"body")).await;
    let mut got = breaks.request().await;
    assert_eq!(got.body().await, b"body");
    let pod = Pod::start("p", 0);
    site.endpoints(vec![breaks.endpoint.clone(), pod.endpoint()]);
    drop(got);
    let answer = raw.answer().await.unwrap();
    assert_eq!(answer.status, 502);
    assert!(answer.text().contains("pod-broke"));
    for i in 0..20 {
        let id = i.to_string();
        let mut next = std::pin::pin!(ask(site.address(), get("/", &id)));
        let answered = tokio::select! {
            answer = &mut next => answer.status,
            mut got = breaks.request() => {
                got.answer(200, "admitted", "").await;
                // Its client must stay for the answer, or the pod is cut off while it gives it.
                next.await.status
            }
        };
        assert_eq!(answered, 200);
    }
    assert!(!pod.model.ids().contains(&"x".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_no_queue_proxy_gave_is_not_shown_to_the_client() {
    let bed = Bed::new();
    let site = bed.site("a", |_| {});
    let mut stranger = Fake::start("p").await;
    site.endpoints(vec![stranger.endpoint.clone()]);
    site.ready().await;
    let mut raw = Raw::sent(site.address(), get("/", "x")).await;
    let mut got = stranger.request().await;
    stranger.ready.send_replace(false);
    got.raw
        .send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 6\r\n\r\nsecret")
        .await;
    let answer = raw.answer().await.unwrap();
    assert_eq!(answer.status, 502);
    assert!(!answer.text().contains("secret"));
    until("asked anew", || stranger.asked.load(SeqCst) == 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_is_killed_fails_exactly_what_it_had_been_given() {
    let bed = Bed::new();
    let site = bed.site("a", |c| c.container_concurrency = 20);
    let (victim, other) = (Pod::start("victim", 20), Pod::start("other", 20));
    site.pods(&[&victim]);
    site.ready().await;
    let doomed: Vec<_> = (0..20)
        .map(|i| tokio::spawn(ask(site.address(), get("/wait", &i.to_string()))))
        .collect();
    until("all there", || victim.model.ids().len() == 20).await;
    let waiting: Vec<_> = (20..40)
        .map(|i| tokio::spawn(ask(site.address(), get("/", &i.to_string()))))
        .collect();
    site.holds(20).await;
    drop(victim);
    site.pods(&[&other]);
    for client in doomed {
        assert_eq!(client.await.unwrap().status, 502);
    }
    for client in waiting {
        assert_eq!(client.await.unwrap().status, 200);
    }
    let mut ids: Vec<usize> = other
        .model
        .ids()
        .iter()
        .map(|id| id.parse().unwrap())
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, (20..40).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_leaves_the_list_for_a_moment_while_it_serves_is_used_again() {
    let bed = Bed::new();
    let site = bed.site("a", |_| {});
    let pod = Pod::start("p", 0);
    site.pods(&[&pod]);
    site.ready().await;
    let busy = tokio::spawn(ask(site.address(), get("/wait", "busy")));
    until("busy", || pod.model.ids().len() == 1).await;
    site.tell(|e| e.pods.clear());
    until("gone", || !site.workload.any_ready()).await;
    site.pods(&[&pod]);
    assert_eq!(ask(site.address(), get("/", "next")).await.status, 200);
    pod.model.state.go.add_permits(1);
    assert_eq!(busy.await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_request_goes_on_once_what_a_pod_said_of_its_load_has_aged() {
    let bed = Bed::new();
    let site = bed.site("a", |c| c.container_concurrency = 1);
    let mut fake = Fake::start("p").await;
    site.endpoints(vec![fake.endpoint.clone()]);
    site.ready().await;
    let mut first = Raw::sent(site.address(), get("/first", "1")).await;
    let mut got = fake.request().await;
    let mut second = Raw::sent(site.address(), get("/second", "2")).await;
    site.holds(1).await;
    // Somebody else's request is there too, says the answer: no room for the second one yet.
    got.raw
        .send("HTTP/1.1 200 OK\r\nrouse-admission: admitted\r\nrouse-load: 2\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        .await;
    assert_eq!(first.answer().await.unwrap().status, 200);
    // Nothing else happens: only time passes.
    let mut next = fake.request().await;
    next.answer(200, "admitted", "").await;
    assert_eq!(second.answer().await.unwrap().status, 200);
}
