//! HTTP/2 by prior knowledge, through both hops.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout};

use crate::{
    bed::{Bed, Pod, Site, until},
    fake::Fake,
    h2::{Connection, Frames, post},
};

async fn warm(bed: &Bed, concurrency: u32) -> (Site, Pod) {
    let site = bed.site("a", |c| c.container_concurrency = concurrency);
    let pod = Pod::start("p", concurrency);
    site.pods(&[&pod]);
    site.ready().await;
    (site, pod)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unary_requests_reach_the_model_as_http2_from_zero_and_warm() {
    let bed = Bed::new();
    let site = bed.site("a", |c| c.container_concurrency = 1);
    let connection = Connection::open(site.address()).await;
    let cold: Vec<_> = (0..10)
        .map(|i| tokio::spawn(connection.ask("/", &i.to_string(), Frames::whole(b"small"))))
        .collect();
    site.holds(10).await;
    // Whoever sees to it may be a moment later than the last of them.
    until("woken", || bed.scale.count() == 1).await;
    let pod = Pod::start("p", 1);
    site.pods(&[&pod]);
    for answer in cold {
        let answer = answer.await.unwrap().unwrap();
        assert_eq!((answer.status, &answer.body[..]), (200, &b"small"[..]));
        assert!(answer.headers.contains_key("rouse-timing"));
    }
    assert_eq!(
        connection
            .ask("/", "warm", Frames::whole(b"x"))
            .await
            .unwrap()
            .status,
        200
    );
    let entry = pod.model.entry("warm");
    assert_eq!(entry.version, http::Version::HTTP_2);
    assert_eq!((entry.method.as_str(), entry.path.as_str()), ("POST", "/"));
    assert_eq!(entry.headers["te"], "trailers");
    assert_eq!(entry.headers["x-forwarded-host"], "t");
    assert_eq!(pod.model.ids().len(), 11);
    assert_eq!(bed.scale.count(), 1, "once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_too_large_to_be_sent_twice_goes_with_a_ticket() {
    let bed = Bed::new();
    let (site, pod) = warm(&bed, 1).await;
    let body: Vec<u8> = (0..1_000_000_u32).map(|i| (i % 251) as u8).collect();
    let connection = Connection::open(site.address()).await;
    for i in 0..3 {
        let answer = connection
            .ask("/", &i.to_string(), Frames::whole(&body))
            .await
            .unwrap();
        assert_eq!(answer.status, 200);
        assert!(answer.body == body);
    }
    until("all slots are free", || pod.proxy.open() == 0).await;
    assert!(!pod.model.entry("0").headers.contains_key("rouse-ticket"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reservation_that_is_refused_is_made_elsewhere() {
    let bed = Bed::new();
    let site = bed.site("a", |_| {});
    let mut fake = Fake::start("full").await;
    site.endpoints(vec![fake.endpoint.clone()]);
    site.ready().await;
    let connection = Connection::open(site.address()).await;
    let (writer, body) = Frames::new();
    let answer = tokio::spawn(connection.ask("/", "x", body));
    let mut got = fake.request().await;
    assert_eq!(got.header("rouse-op"), Some("reserve"));
    let pod = Pod::start("p", 0);
    site.endpoints(vec![fake.endpoint.clone(), pod.endpoint()]);
    until("both", || {
        format!("{:?}", site.workload)
            .matches("ready_since: Some")
            .count()
            == 2
    })
    .await;
    got.answer(503, "full", "").await;
    writer
        .send(Frame::data(Bytes::from_static(b"late")))
        .unwrap();
    drop(writer);
    let answer = answer.await.unwrap().unwrap();
    assert_eq!((answer.status, &answer.body[..]), (200, &b"late"[..]));
    assert_eq!(pod.model.ids(), ["x"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_directions_stream_at_once_and_trailers_come_through() {
    let bed = Bed::new();
    let (site, pod) = warm(&bed, 2).await;
    let connection = Connection::open(site.address()).await;
    let (writer, body) = Frames::new();
    writer
        .send(Frame::data(Bytes::from_static(b"first")))
        .unwrap();
    let mut answer = connection.send(post("/mirror", "x", body)).await.unwrap();
    for i in 0..20 {
        let text = if i == 0 {
            "first".to_owned()
        } else {
            i.to_string()
        };
        if i > 0 {
            writer.send(Frame::data(Bytes::from(text.clone()))).unwrap();
        }
        let frame = timeout(Duration::from_secs(5), answer.frame())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        assert_eq!(frame.into_data().unwrap(), text);
    }
    let mut trailers = HeaderMap::new();
    trailers.append("grpc-status", "0".parse().unwrap());
    trailers.append("x-twice", "1".parse().unwrap());
    trailers.append("x-twice", "2".parse().unwrap());
    writer.send(Frame::trailers(trailers.clone())).unwrap();
    drop(writer);
    let rest = answer.collect().await.unwrap();
    assert_eq!(rest.trailers(), Some(&trailers));
    until("the slot is free", || pod.proxy.open() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_the_client_cancels_is_reset_at_the_model() {
    let bed = Bed::new();
    let (site, pod) = warm(&bed, 4).await;
    let connection = Connection::open(site.address()).await;
    // One that waits for its answer, one whose answer streams, one that still sends.
    let waits = tokio::spawn(connection.get("/wait", "waits"));
    let (writer, body) = Frames::new();
    writer.send(Frame::data(Bytes::from_static(b"x"))).unwrap();
    let streams = connection
        .send(post("/mirror", "streams", body))
        .await
        .unwrap();
    let (more, body) = Frames::new();
    let sends = tokio::spawn(connection.ask("/", "sends", body));
    until("all at the model", || pod.model.ids().len() == 3).await;
    let began = Instant::now();
    waits.abort();
    sends.abort();
    drop(streams);
    drop((writer, more));
    until("given up", || {
        pod.model
            .state
            .now
            .load(std::sync::atomic::Ordering::SeqCst)
            == 0
    })
    .await;
    assert!(
        began.elapsed() < Duration::from_millis(250),
        "{:?}",
        began.elapsed()
    );
    until("slots are free", || pod.proxy.open() == 0).await;
    assert_eq!(connection.get("/", "next").await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_while_it_is_held_frees_its_place() {
    let bed = Bed::new();
    let site = bed.site("a", |_| {});
    let connection = Connection::open(site.address()).await;
    for _ in 0..20 {
        let held = tokio::spawn(connection.ask("/", "x", Frames::whole(b"small")));
        site.holds(1).await;
        held.abort();
        site.holds(0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_last_do_not_keep_later_ones_from_an_unlimited_pod() {
    let bed = Bed::new();
    let (site, pod) = warm(&bed, 0).await;
    let mut connections = Vec::new();
    let mut open = Vec::new();
    for i in 0..300 {
        if i % 100 == 0 {
            connections.push(Connection::open(site.address()).await);
        }
        let (writer, body) = Frames::new();
        writer.send(Frame::data(Bytes::from_static(b"x"))).unwrap();
        let answer = connections[i / 100].send(post("/mirror", &i.to_string(), body));
        open.push((writer, tokio::spawn(answer)));
    }
    until("all at the model", || pod.model.ids().len() == 300).await;
    assert_eq!(connections[0].get("/", "next").await.unwrap().status, 200);
    for (writer, answer) in open {
        drop(writer);
        assert_eq!(
            &answer
                .await
                .unwrap()
                .unwrap()
                .collect()
                .await
                .unwrap()
                .to_bytes()[..],
            b"x"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_http2_requests_wake_nobody() {
    let bed = Bed::new();
    let site = bed.site("a", |_| {});
    let connection = Connection::open(site.address()).await;
    let mut request = post("/", "x", Frames::whole(b"x"));
    request
        .headers_mut()
        .insert("host", "other".parse().unwrap());
    assert_eq!(connection.send(request).await.unwrap().status(), 400);
    assert_eq!((bed.scale.count(), site.workload.held()), (0, 0));
}
