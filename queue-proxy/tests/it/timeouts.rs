//! Limits of a request's time: one answer before the model's has begun, a broken stream after that, and the slot at once.

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Frame;
use queue_proxy::{QueueProxy, timeouts::Timeouts};
use shared::TargetId;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Duration, Instant, sleep},
};

use crate::{
    h2,
    model::{Model, streaming, text},
    raw::{Raw, get, post},
    rig::{activator, addressed, config, front, metrics, outcomes, ready, until, within},
};

const MS: fn(u64) -> Duration = Duration::from_millis;

/// A pod of the workload `default/NAME` whose one slot has these limits.
async fn limited(model: &Model, name: &str, timeouts: Timeouts) -> QueueProxy {
    metrics();
    let mut config = config(&[model.address], 1);
    config.target = TargetId::new("default", name).unwrap();
    config.timeouts = timeouts;
    ready(config).await
}

fn request(limit: Duration) -> Timeouts {
    Timeouts {
        request: Some(limit),
        ..Timeouts::default()
    }
}

fn response_start(limit: Duration) -> Timeouts {
    Timeouts {
        response_start: Some(limit),
        ..Timeouts::default()
    }
}

fn idle(limit: Duration) -> Timeouts {
    Timeouts {
        idle: Some(limit),
        ..Timeouts::default()
    }
}

fn counts(pairs: &[(&str, u64)]) -> Vec<(String, u64)> {
    let owned = |(code, n): &(&str, u64)| ((*code).to_owned(), *n);
    pairs.iter().map(owned).collect()
}

pub(crate) async fn counted(name: &str, pairs: &[(&str, u64)]) {
    let expected = counts(pairs);
    until(&format!("{expected:?} to be counted"), || {
        outcomes(name).into_iter().collect::<Vec<_>>() == expected
    })
    .await;
}

#[tokio::test]
async fn a_model_that_does_not_begin_in_time_is_answered_504_and_cancelled() {
    for (timeouts, code) in [
        (request(MS(200)), "request-timeout"),
        (response_start(MS(200)), "response-start-timeout"),
        (idle(MS(200)), "idle-timeout"),
    ] {
        let (model, _gate) = Model::gated().await;
        let proxy = limited(&model, code, timeouts).await;
        for (round, (listener, lines)) in [
            (front(&proxy), String::new()),
            (activator(&proxy), addressed()),
        ]
        .into_iter()
        .enumerate()
        {
            let began = Instant::now();
            let mut client = Raw::sent(listener, post("/", &lines, "small")).await;
            let answer = client.answer().await;
            assert!(began.elapsed() >= MS(195), "{:?}", began.elapsed());
            assert_eq!(answer.status, 504);
            assert!(answer.text().starts_with(&format!("rouse: {code}: ")));
            // An activator must not send it to another pod.
            let admitted = (round == 1).then_some("admitted");
            assert_eq!(answer.header("rouse-admission"), admitted);
            until("the slot to be free", || proxy.open() == 0).await;
            until("its end at the model", || model.seen.open() == 0).await;
            assert_eq!(model.seen.cancelled(), round + 1);
        }
        counted(code, &[(code, 2)]).await;
    }
}

#[tokio::test]
async fn a_request_is_cut_when_its_time_is_over_and_its_slot_is_free_at_once() {
    let (model, mut feeds) = streaming(false).await;
    let name = "cut-by-request-timeout";
    let proxy = limited(&model, name, request(MS(400))).await;
    // One who reads sees his transfer break off, and no end of it.
    let mut client = Raw::sent(front(&proxy), get("/", "")).await;
    let feed = within("the request", feeds.recv()).await.unwrap();
    client.head().await;
    feed.send(Frame::data(Bytes::from("one"))).unwrap();
    assert_eq!(client.chunk().await.unwrap(), "one");
    client.closed().await;
    until("the slot to be free", || proxy.open() == 0).await;
    until("its end at the model", || feed.is_closed()).await;
    // One who does not read keeps the slot no longer.
    let mut deaf = Raw::sent(front(&proxy), get("/", "")).await;
    let began = Instant::now();
    let feed = within("the request", feeds.recv()).await.unwrap();
    deaf.head().await;
    for _ in 0..200 {
        feed.send(Frame::data(Bytes::from(vec![7; 256 * 1024])))
            .unwrap();
    }
    until("the slot to be free", || proxy.open() == 0).await;
    assert!(began.elapsed() >= MS(350), "{:?}", began.elapsed());
    until("its end at the model", || feed.is_closed()).await;
    counted(name, &[("request-timeout", 2)]).await;
}

#[tokio::test]
async fn an_answer_of_unknown_length_to_http_1_0_is_not_taken_for_whole() {
    let (model, mut feeds) = streaming(false).await;
    let proxy = limited(&model, "cut-http-1-0", request(MS(300))).await;
    let mut client = Raw::sent(front(&proxy), "GET / HTTP/1.0\r\nhost: a\r\n\r\n").await;
    let feed = within("the request", feeds.recv()).await.unwrap();
    client.head().await;
    feed.send(Frame::data(Bytes::from("one"))).unwrap();
    assert_eq!(client.exact(3).await, "one");
    // Here the end of the connection is the end of the answer, so it must be a reset.
    let end = within("the end", client.stream.read(&mut [0])).await;
    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_stream_that_is_silent_for_too_long_is_cut_and_one_that_is_not_goes_on() {
    let (model, mut feeds) = streaming(false).await;
    let name = "cut-by-idle-timeout";
    let proxy = limited(&model, name, idle(MS(1_000))).await;
    let mut client = Raw::sent(front(&proxy), get("/", "")).await;
    let feed = within("the request", feeds.recv()).await.unwrap();
    client.head().await;
    for _ in 0..15 {
        sleep(MS(100)).await;
        feed.send(Frame::data(Bytes::from("x"))).unwrap();
        assert_eq!(client.chunk().await.unwrap(), "x");
    }
    let silent = Instant::now();
    client.closed().await;
    assert!(silent.elapsed() >= MS(900), "{:?}", silent.elapsed());
    until("the slot to be free", || proxy.open() == 0).await;
    counted(name, &[("idle-timeout", 1)]).await;
}

#[tokio::test]
async fn an_http_2_stream_whose_time_is_over_is_reset_and_the_others_go_on() {
    let (model, mut feeds) = streaming(true).await;
    let name = "cut-http-2";
    metrics();
    let mut config = config(&[model.address], 0);
    config.target = TargetId::new("default", name).unwrap();
    config.timeouts = idle(MS(500));
    let proxy = ready(config).await;
    let (mut client, _connection) = h2::connect(front(&proxy)).await;
    let silent = client.send_request(h2::request("/silent", h2::nothing()));
    let mut silent = within("an answer", silent).await.unwrap().into_body();
    let mute = within("the request", feeds.recv()).await.unwrap();
    let lively = client.send_request(h2::request("/lively", h2::nothing()));
    let mut lively = within("an answer", lively).await.unwrap().into_body();
    let feed = within("the request", feeds.recv()).await.unwrap();
    let talk = async {
        for _ in 0..10 {
            sleep(MS(100)).await;
            feed.send(Frame::data(Bytes::from("x"))).unwrap();
            within("a frame", lively.frame()).await.unwrap().unwrap();
        }
        drop(feed);
        let rest = within("the end", lively.collect()).await.unwrap();
        assert!(rest.to_bytes().is_empty());
    };
    let (end, ()) = tokio::join!(within("the reset", silent.frame()), talk);
    let error = format!("{:?}", end.unwrap().unwrap_err());
    assert!(error.contains("Reset"), "{error}");
    until("its end at the model", || mute.is_closed()).await;
    assert_eq!(model.seen.cancelled(), 1);
    until("both to be over", || proxy.open() == 0).await;
    counted(name, &[("2xx", 1), ("idle-timeout", 1)]).await;
}

#[tokio::test]
async fn an_upgraded_connection_has_no_request_timeout_and_ends_when_it_is_silent() {
    let model = Model::raw(|mut stream| async move {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        stream.write_all(answer).await.unwrap();
        let (mut from, mut to) = stream.split();
        let _gone = tokio::io::copy(&mut from, &mut to).await;
    })
    .await;
    let name = "silent-tunnel";
    let timeouts = Timeouts {
        request: Some(MS(300)),
        idle: Some(MS(1_000)),
        ..Timeouts::default()
    };
    let proxy = limited(&model, name, timeouts).await;
    let ask = "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let mut client = Raw::sent(front(&proxy), get("/ws", ask)).await;
    assert_eq!(client.head().await.status, 101);
    for _ in 0..15 {
        sleep(MS(100)).await;
        client.send("x").await;
        assert_eq!(client.exact(1).await, "x");
    }
    let silent = Instant::now();
    client.closed().await;
    assert!(silent.elapsed() >= MS(900), "{:?}", silent.elapsed());
    until("the slot to be free", || proxy.open() == 0).await;
    until("its end at the model", || model.seen.open() == 0).await;
    counted(name, &[("idle-timeout", 1)]).await;
}

#[tokio::test]
async fn an_answer_in_time_is_whole_and_its_connection_is_used_again() {
    let model = Model::start(|_| async { text("ok") }).await;
    let name = "in-time";
    let timeouts = Timeouts {
        request: Some(Duration::from_mins(1)),
        response_start: Some(Duration::from_mins(1)),
        idle: Some(Duration::from_mins(1)),
    };
    let proxy = limited(&model, name, timeouts).await;
    let mut client = Raw::connect(front(&proxy)).await;
    for _ in 0..50 {
        assert_eq!(client.get("/").await.text(), "ok");
    }
    assert!(
        model.seen.connections() <= 3,
        "{}",
        model.seen.connections()
    );
    counted(name, &[("2xx", 50)]).await;
}
