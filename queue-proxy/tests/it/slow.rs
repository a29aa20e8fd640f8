//! Connections that bring no request in time are closed; those that are served are not.

use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use queue_proxy::QueueProxy;
use shared::http::{body::Pace, guard::Timeouts};
use tokio::time::{Duration, Instant, advance, pause, resume, sleep};

use crate::{
    model::{Model, Reply, empty},
    raw::{Raw, get},
    rig::{config, front, ready, until, within},
};

const MS: fn(u64) -> Duration = Duration::from_millis;

async fn hasty(model: &Model, timeouts: Timeouts) -> QueueProxy {
    let mut config = config(&[model.address], 0);
    config.serve.timeouts = timeouts;
    ready(config).await
}

fn limits(first_byte: u64, head: u64, idle: u64) -> Timeouts {
    Timeouts {
        first_byte: MS(first_byte),
        head: MS(head),
        idle: MS(idle),
    }
}

/// Waits for the close and checks when it came.
async fn closes_after(client: &mut Raw, started: Instant, limit: u64) {
    client.closed().await;
    let took = started.elapsed();
    assert!(
        (MS(limit - 5)..MS(limit + 400)).contains(&took),
        "closed after {took:?}, not {limit} ms"
    );
}

#[tokio::test]
async fn a_connection_on_which_nothing_is_sent_is_closed_at_the_first_byte_limit() {
    let model = Model::ok().await;
    let proxy = hasty(&model, limits(200, 9_000, 9_000)).await;
    let started = Instant::now();
    let mut client = Raw::connect(front(&proxy)).await;
    closes_after(&mut client, started, 200).await;
}

#[tokio::test]
async fn half_a_preface_of_http_2_is_closed_at_the_first_byte_limit() {
    let model = Model::ok().await;
    let proxy = hasty(&model, limits(200, 9_000, 9_000)).await;
    let started = Instant::now();
    let mut client = Raw::sent(front(&proxy), "PRI * HTTP/2.0\r\n\r\nSM").await;
    closes_after(&mut client, started, 200).await;
}

#[tokio::test]
async fn a_head_that_comes_byte_by_byte_is_answered_408_at_its_limit() {
    let model = Model::ok().await;
    let proxy = hasty(&model, limits(9_000, 300, 9_000)).await;
    let mut client = Raw::connect(front(&proxy)).await;
    let started = Instant::now();
    for byte in get("/", "").bytes().take(30) {
        client.send([byte]).await;
        sleep(MS(15)).await;
        if crate::model::is_ready(client.stream.readable()) {
            break;
        }
    }
    let answer = client.answer().await;
    assert_eq!(answer.status, 408);
    assert!(started.elapsed() >= MS(295), "{:?}", started.elapsed());
    client.closed().await;
    assert_eq!(model.seen.count(), 0);
}

#[tokio::test]
async fn an_idle_connection_is_closed_at_the_idle_limit() {
    let model = Model::ok().await;
    let proxy = hasty(&model, limits(9_000, 9_000, 200)).await;
    let mut client = Raw::connect(front(&proxy)).await;
    assert_eq!(client.get("/").await.status, 200);
    closes_after(&mut client, Instant::now(), 200).await;
}

#[tokio::test]
async fn an_idle_http_2_connection_is_closed_after_the_idle_limit() {
    let model = Model::start_h2(|_| async { crate::model::text("ok") }).await;
    let proxy = hasty(&model, limits(9_000, 9_000, 200)).await;
    let (mut client, connection) = crate::h2::connect(front(&proxy)).await;
    assert_eq!(crate::h2::get(&mut client, "/").await.0.status(), 200);
    within("the close", connection).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_busy_connection_is_not_idle() {
    let (model, gate) = Model::gated().await;
    let proxy = hasty(&model, limits(9_000, 9_000, 150)).await;
    let mut client = Raw::sent(front(&proxy), get("/slow", "")).await;
    until("the request to arrive", || model.seen.count() == 1).await;
    sleep(MS(400)).await;
    gate.add_permits(1);
    assert_eq!(client.answer().await.text(), "/slow");
    closes_after(&mut client, Instant::now(), 150).await;
}

#[tokio::test]
async fn each_request_begins_the_idle_time_anew() {
    let model = Model::ok().await;
    let proxy = hasty(&model, limits(9_000, 9_000, 300)).await;
    let mut client = Raw::connect(front(&proxy)).await;
    // Refused requests are answered at once, without a hop: their answers must count as well.
    for path in ["/", "/", "/", "/", "/", "/", "/", "/"] {
        assert_eq!(client.get(path).await.status, 200);
        sleep(MS(100)).await;
    }
    let mut quick = Raw::connect(proxy.stats_address().unwrap()).await;
    for _ in 0..8 {
        assert_eq!(quick.get("/livez").await.status, 200);
        sleep(MS(100)).await;
    }
}

#[tokio::test]
async fn hyper_s_own_limit_on_heads_does_not_cut_idle_connections() {
    let model = Model::ok().await;
    let proxy = hasty(&model, Timeouts::default()).await;
    let mut client = Raw::connect(front(&proxy)).await;
    assert_eq!(client.get("/").await.status, 200);
    pause();
    advance(Duration::from_mins(1)).await;
    resume();
    assert_eq!(client.get("/").await.status, 200);
}

/// Answers when it has all of the body.
async fn whole(request: Request<Incoming>) -> Response<Reply> {
    let status = if request.into_body().collect().await.is_ok() {
        200
    } else {
        400
    };
    empty(status)
}

/// A proxy with one slot, whose clients have to send 1,000 bytes a second after 300 ms of grace.
async fn strict(model: &Model) -> QueueProxy {
    let mut config = config(&[model.address], 1);
    config.min_pace = Some(Pace {
        bytes_per_second: 1_000,
        grace: MS(300),
    });
    ready(config).await
}

#[tokio::test]
async fn a_body_that_comes_too_slowly_is_answered_408_and_its_slot_is_free() {
    let model = Model::start(whole).await;
    let proxy = strict(&model).await;
    for framing in ["content-length: 100000", "transfer-encoding: chunked"] {
        let head = format!("POST / HTTP/1.1\r\nhost: model\r\n{framing}\r\n\r\n");
        let mut client = Raw::sent(front(&proxy), head).await;
        let answer = client.answer().await;
        assert_eq!(answer.status, 408, "{framing}");
        assert!(
            answer.body.starts_with(b"rouse: body-too-slow"),
            "{framing}"
        );
        client.closed().await;
    }
    let mut next = Raw::sent(front(&proxy), get("/", "")).await;
    assert_eq!(next.answer().await.status, 200);
}

#[tokio::test]
async fn a_conversation_may_be_silent() {
    let model = Model::start(whole).await;
    let proxy = strict(&model).await;
    let head = "POST / HTTP/1.1\r\nhost: model\r\ncontent-type: application/grpc\r\ncontent-length: 2\r\n\r\n";
    let mut client = Raw::sent(front(&proxy), head).await;
    sleep(MS(700)).await; // longer than anybody else would have
    client.send("hi").await;
    assert_eq!(client.answer().await.status, 200);
}
