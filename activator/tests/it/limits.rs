//! What is held is bounded in count, bytes and time, and one workload's crowd is its own affair.

use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use tokio::{task::JoinSet, time::Instant};

use crate::{
    bed::{Bed, Pod, Site, until},
    fake::Fake,
    h2::{Connection, Frames},
    http1::{Raw, ask, get, post, post_chunked},
    websocket::HANDSHAKE,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_request_too_many_is_refused_with_retry_after_and_nothing_else_is_affected() {
    let bed = Bed::new();
    let site = bed.site("a", |c| c.max_held = 3);
    let other = bed.site("b", |_| {});
    let mut held = Vec::new();
    for i in 0..3 {
        held.push(Raw::sent(site.address(), get("/", &i.to_string())).await);
        site.holds(i + 1).await;
    }
    let refused = ask(site.address(), get("/", "x")).await;
    assert_eq!(
        (refused.status, refused.header("retry-after")),
        (503, Some("1"))
    );
    assert!(refused.text().contains("hold-full"), "{}", refused.text());
    let mut elsewhere = Raw::sent(other.address(), get("/", "other")).await;
    other.holds(1).await;
    assert_eq!(site.workload.held(), 3);
    let (pod, other_pod) = (Pod::start("p", 0), Pod::start("q", 0));
    site.pods(&[&pod]);
    other.pods(&[&other_pod]);
    for raw in &mut held {
        assert_eq!(raw.answer().await.unwrap().status, 200);
    }
    assert_eq!(elsewhere.answer().await.unwrap().status, 200);
    assert_eq!(pod.model.ids().len(), 3);
    assert_eq!(other_pod.model.ids(), ["other"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_held_requests_leaves_room_for_other_workloads() {
    let bed = Bed::with(|c| c.max_held = 8);
    let (flooded, other) = (bed.site("a", |_| {}), bed.site("b", |_| {}));
    let mut held = Vec::new();
    for i in 0..4 {
        held.push(Raw::sent(flooded.address(), get("/", &i.to_string())).await);
        flooded.holds(i + 1).await;
    }
    for _ in 0..20 {
        let refused = ask(flooded.address(), get("/", "x")).await;
        assert_eq!(
            (refused.status, refused.header("retry-after")),
            (503, Some("1"))
        );
        assert!(refused.text().contains("holds-full"), "{}", refused.text());
    }
    for i in 0..2 {
        held.push(Raw::sent(other.address(), get("/", "other")).await);
        other.holds(i + 1).await;
    }
    let refused = ask(other.address(), get("/", "x")).await;
    assert!(refused.text().contains("holds-full"), "{}", refused.text());
    // A place is free again when somebody goes.
    drop(held.remove(0));
    flooded.holds(3).await;
    held.push(Raw::sent(other.address(), get("/", "other")).await);
    other.holds(3).await;
    let (pod, other_pod) = (Pod::start("p", 0), Pod::start("q", 0));
    flooded.pods(&[&pod]);
    other.pods(&[&other_pod]);
    for raw in &mut held {
        assert_eq!(raw.answer().await.unwrap().status, 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_connections_leaves_room_for_other_workloads() {
    let bed = Bed::with(|c| c.max_connections = 8);
    let (flooded, other) = (bed.site("a", |_| {}), bed.site("b", |_| {}));
    let mut open = Vec::new();
    for i in 0..4 {
        open.push(Raw::sent(flooded.address(), get("/", &i.to_string())).await);
        flooded.holds(i + 1).await;
    }
    for _ in 0..20 {
        let shed = ask(flooded.address(), get("/", "x")).await;
        assert_eq!((shed.status, shed.header("retry-after")), (503, Some("1")));
        assert!(shed.body.is_empty(), "the connection was refused");
    }
    let mut elsewhere = Raw::sent(other.address(), get("/", "other")).await;
    other.holds(1).await;
    let pod = Pod::start("p", 0);
    other.pods(&[&pod]);
    assert_eq!(elsewhere.answer().await.unwrap().status, 200);
    // Whoever hangs up makes room.
    drop(open.pop());
    flooded.holds(3).await;
    drop(elsewhere);
    until("a place", || {
        format!("{:?}", flooded.workload).contains("connections: Pool { limit: 8, used: 3 }")
    })
    .await;
    let _fits = Raw::sent(flooded.address(), get("/", "y")).await;
    flooded.holds(4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_keeps_the_place_of_its_connection_until_it_ends() {
    let bed = Bed::with(|c| c.max_connections = 2);
    let site = bed.site("a", |_| {});
    let pod = Pod::start("p", 0);
    site.pods(&[&pod]);
    site.ready().await;
    let mut socket = Raw::sent(site.address(), HANDSHAKE).await;
    assert_eq!(socket.answer().await.unwrap().status, 101);
    socket.send(b"ping").await;
    assert_eq!(socket.exactly(4).await.unwrap(), b"ping");
    assert_eq!(ask(site.address(), get("/", "x")).await.status, 503);
    drop(socket);
    until("a place", || {
        format!("{:?}", site.workload).contains("connections: Pool { limit: 2, used: 0 }")
    })
    .await;
    assert_eq!(ask(site.address(), get("/", "y")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_byte_budget_of_a_workload_refuses_what_does_not_fit_and_is_given_back() {
    let bed = Bed::new();
    let site = bed.site("a", |c| c.max_held_bytes = 100_000);
    let body = vec![7; 40_000];
    let mut held = Vec::new();
    for i in 0..2 {
        held.push(Raw::sent(site.address(), post("/", &i.to_string(), &body)).await);
        site.holds(i + 1).await;
    }
    let refused = ask(site.address(), post("/", "x", &body)).await;
    assert_eq!(
        (refused.status, refused.header("retry-after")),
        (503, Some("1"))
    );
    assert!(refused.text().contains("hold-bytes"), "{}", refused.text());
    // One leaves, and its bytes are free again.
    drop(held.pop());
    site.holds(1).await;
    held.push(Raw::sent(site.address(), post("/", "again", &body)).await);
    site.holds(2).await;
    let pod = Pod::start("p", 0);
    site.pods(&[&pod]);
    for raw in &mut held {
        assert_eq!(raw.answer().await.unwrap().body, body);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_byte_budget_of_the_process_holds_over_all_workloads() {
    let bed = Bed::with(|c| c.max_held_bytes = 50_000);
    let (a, b) = (bed.site("a", |_| {}), bed.site("b", |_| {}));
    let body = vec![7; 40_000];
    let _held = Raw::sent(a.address(), post("/", "0", &body)).await;
    a.holds(1).await;
    let refused = ask(b.address(), post_chunked("/", "1", &body)).await;
    assert_eq!(refused.status, 503);
    let mut small = Raw::sent(b.address(), post("/", "2", b"small")).await;
    b.holds(1).await;
    let pod = Pod::start("p", 0);
    b.pods(&[&pod]);
    assert_eq!(small.answer().await.unwrap().body, b"small");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_too_much_to_be_held_goes_to_a_pod_that_has_room() {
    let bed = Bed::new();
    let site = bed.site("a", |c| c.max_held_bytes = 50_000);
    let pod = Pod::start("p", 0);
    site.pods(&[&pod]);
    site.ready().await;
    let body = vec![7; 40_000];
    // It can still be sent again, so its bytes are in memory.
    let mut first = Raw::sent(site.address(), post("/wait", "first", &body)).await;
    until("at the model", || pod.model.ids().len() == 1).await;
    for request in [post("/", "x", &body), post_chunked("/", "x", &body)] {
        let answer = ask(site.address(), request).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(answer.body == body);
    }
    pod.model.state.go.add_permits(1);
    assert_eq!(first.answer().await.unwrap().status, 200);
    until("all is given back", || holds_no_bytes(&site)).await;
}

fn holds_no_bytes(site: &Site) -> bool {
    // The workload's and the process's.
    format!("{:?}", site.workload)
        .matches(" held_bytes: 0,")
        .count()
        == 2
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_are_given_back_once_the_body_can_only_go_on() {
    let bed = Bed::new();
    let site = bed.site("a", |_| {});
    let begun = post_chunked("/", "x", &vec![7; 100_000])[..30_000].to_vec();
    let _raw = Raw::sent(site.address(), begun).await;
    site.holds(1).await;
    until("in memory", || !holds_no_bytes(&site)).await;
    let mut fake = Fake::start("p").await;
    site.endpoints(vec![fake.endpoint.clone()]);
    let mut got = fake.request().await;
    assert_eq!(got.header("expect"), Some("100-continue"));
    assert!(!holds_no_bytes(&site), "it can still go elsewhere");
    got.raw.send("HTTP/1.1 100 Continue\r\n\r\n").await;
    until("given back", || holds_no_bytes(&site)).await;
    site.zero();
    until("at zero", || !site.workload.any_ready()).await;

    let connection = Connection::open(site.address()).await;
    let (writer, body) = Frames::new();
    writer
        .send(Frame::data(Bytes::from(vec![7; 30_000])))
        .unwrap();
    let _answer = tokio::spawn(connection.ask("/", "y", body));
    site.holds(1).await;
    until("in memory", || !holds_no_bytes(&site)).await;
    let mut fake = Fake::start("q").await;
    site.endpoints(vec![fake.endpoint.clone()]);
    let mut got = fake.request().await;
    assert_eq!(got.header("rouse-op"), Some("reserve"));
    assert!(!holds_no_bytes(&site), "it can still go elsewhere");
    got.raw
        .send("HTTP/1.1 200 OK\r\nrouse-ticket: 1\r\ncontent-length: 0\r\n\r\n")
        .await;
    until("given back", || holds_no_bytes(&site)).await;
}

/// Connects, is held, hangs up; many times, a few at once.
async fn come_and_go(site: &Site, request: &[u8], times: usize) {
    let mut clients = JoinSet::new();
    for _ in 0..times {
        if clients.len() >= 32 {
            clients.join_next().await;
        }
        let (address, request) = (site.address(), request.to_vec());
        clients.spawn(async move { drop(Raw::sent(address, request).await) });
    }
    while clients.join_next().await.is_some() {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_clients_that_hang_up_leave_nothing_behind() {
    let bed = Bed::new();
    let site = bed.site("a", |c| c.max_held = 100_000);
    come_and_go(&site, get("/", "gone").as_bytes(), 2_500).await;
    come_and_go(&site, &post("/", "gone", b"a small body"), 2_500).await;
    site.holds(0).await;
    until("no waiter", || {
        format!("{:?}", site.workload).contains("waiters: {}")
    })
    .await;
    let mut last = Raw::sent(site.address(), get("/", "last")).await;
    site.holds(1).await;
    let pod = Pod::start("p", 1);
    site.pods(&[&pod]);
    assert_eq!(last.answer().await.unwrap().status, 200);
    assert_eq!(pod.model.ids(), ["last"], "nobody who left was sent on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hang_up_is_noticed_whatever_small_body_came_with_the_request() {
    let bed = Bed::new();
    let site = bed.site("a", |c| c.max_held = 1);
    for request in [
        get("/", "x").into_bytes(),
        post("/", "x", b"small"),
        post("/", "x", &vec![1; 60_000]),
        post_chunked("/", "x", &vec![1; 60_000]),
        // Its body is not read before a pod has admitted it.
        b"POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 1000000\r\n\r\n".to_vec(),
        // Broken off in the middle: the client is gone as well.
        post("/", "x", &vec![1; 60_000])[..30_000].to_vec(),
    ] {
        let raw = Raw::sent(site.address(), &request).await;
        site.holds(1).await;
        drop(raw);
        site.holds(0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_held_for_too_long_is_told_so() {
    let bed = Bed::new();
    let site = bed.site("a", |c| c.max_cold_start = Duration::from_millis(300));
    let began = Instant::now();
    let answer = ask(site.address(), get("/", "x")).await;
    assert_eq!(answer.status, 504);
    assert!(answer.text().contains("no-capacity"));
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert_eq!(site.workload.held(), 0);
}
