//! A model that is killed and started again in the same pod.

use std::net::SocketAddr;

use queue_proxy::QueueProxy;
use tokio::{
    net::TcpListener,
    time::{Duration, Instant, sleep},
};

use crate::{
    h2,
    model::{Model, Reply, echo, text},
    raw::{Raw, get, post},
    rig::{activator, addressed, config, front, ready, soon, until, within},
};

const QUICKLY: Duration = Duration::from_millis(250);
const MEANWHILE: Duration = Duration::from_millis(200);

/// Keeps what comes to `/stuck` and sends everything else back.
async fn stuck_or_echo(request: http::Request<hyper::body::Incoming>) -> http::Response<Reply> {
    if request.uri().path() == "/stuck" {
        std::future::pending::<()>().await;
    }
    echo(request)
}

async fn pod(model: SocketAddr, limit: u32, patience: Duration) -> QueueProxy {
    let mut config = config(&[model], limit);
    config.restart_patience = patience;
    ready(config).await
}

/// Kills it, as the kernel would: its connections end, and nobody listens any more.
async fn kill(model: Model) {
    let address = model.address;
    drop(model);
    until("the refusal", || {
        std::net::TcpListener::bind(address).is_ok()
    })
    .await;
}

#[tokio::test]
async fn what_was_at_a_killed_model_fails_and_what_comes_meanwhile_waits_for_the_next() {
    let model = Model::start(stuck_or_echo).await;
    let address = model.address;
    let proxy = pod(address, 0, Duration::from_secs(10)).await;
    // Connections to the model are kept when it is killed: none of them may be mistaken for the next one's.
    let (mut kept, mut other) = (
        Raw::connect(front(&proxy)).await,
        Raw::connect(front(&proxy)).await,
    );
    kept.send(post("/", "", "kept")).await;
    other.send(post("/", "", "kept")).await;
    assert_eq!(kept.answer().await.text(), "kept");
    assert_eq!(other.answer().await.text(), "kept");
    let mut inside = Raw::sent(front(&proxy), get("/stuck", "")).await;
    until("it to arrive", || model.seen.active() == 1).await;
    kill(model).await;
    let lost = inside.answer().await;
    assert_eq!(lost.status, 502);
    assert!(lost.text().starts_with("rouse: model-broke"), "{lost:?}");

    let large = "y".repeat(200_000);
    let bodies = ["small", large.as_str(), "expected"];
    let mut waiting = Vec::new();
    for body in bodies {
        let line = if body == "expected" {
            "expect: 100-continue\r\n"
        } else {
            ""
        };
        let request = post(&format!("/{}", waiting.len()), line, body);
        // What waits for a 100 Continue keeps its body until then.
        let head = if line.is_empty() {
            request.len()
        } else {
            request.len() - body.len()
        };
        let mut client = Raw::connect(front(&proxy)).await;
        let (first, rest) = request.split_at(head);
        client.send(first).await;
        waiting.push((client, rest.to_owned()));
    }
    kept.send(post("/kept", "", "kept")).await;
    // A body that comes in pieces while its request waits.
    let pieces =
        "POST /pieces HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n";
    let mut pieces = Raw::sent(front(&proxy), pieces).await;
    until("all to be here", || proxy.stats().gauges() == (5, 0)).await;
    sleep(MEANWHILE).await;
    pieces.send("3\r\ndef\r\n").await;
    sleep(MEANWHILE).await;
    assert_eq!(proxy.stats().gauges(), (5, 0), "in flight, and once");
    assert_eq!(proxy.open(), 5);

    let model = Model::start_on(TcpListener::bind(address).await.unwrap(), stuck_or_echo);
    for ((client, rest), body) in waiting.iter_mut().zip(bodies) {
        if !rest.is_empty() {
            assert_eq!(client.head().await.status, 100);
            client.send(&rest).await;
        }
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.body.len()), (200, body.len()));
        assert_eq!(answer.text(), body);
    }
    pieces.send("3\r\nghi\r\n0\r\n\r\n").await;
    assert_eq!(pieces.answer().await.text(), "abcdefghi");
    assert_eq!(kept.answer().await.text(), "kept");
    assert_eq!(other.get("/after").await.status, 200);
    let mut paths = model.seen.paths();
    paths.sort_unstable();
    assert_eq!(paths, ["/0", "/1", "/2", "/after", "/kept", "/pieces"]);
    until("the account to be even", || {
        proxy.stats().totals() == (9, 9)
    })
    .await;
    assert_eq!(proxy.open(), 0);
}

#[tokio::test]
async fn http_2_calls_wait_for_the_next_model_too() {
    let model = Model::start(|_| async { text("ok") }).await;
    let address = model.address;
    let proxy = pod(address, 2, Duration::from_secs(10)).await;
    let (client, _connection) = h2::connect(front(&proxy)).await;
    kill(model).await;
    let mut calls = Vec::new();
    for _ in 0..3 {
        let mut client = client.clone();
        calls.push(tokio::spawn(async move {
            h2::get(&mut client, "/").await.0.status()
        }));
    }
    until("all to be here", || proxy.stats().gauges() == (2, 1)).await;
    // One who goes leaves his slot to the next.
    calls.remove(0).abort();
    soon(QUICKLY, "one to leave", || proxy.stats().gauges() == (2, 0)).await;
    // That it speaks no HTTP/2 shows that there is one again.
    let model = Model::on(TcpListener::bind(address).await.unwrap());
    for call in calls {
        assert_eq!(within("an answer", call).await.unwrap(), 502);
    }
    until("the end", || proxy.open() == 0).await;
    assert_eq!(model.seen.count(), 0);
}

#[tokio::test]
async fn patience_has_an_end_and_the_answer_is_then_as_without_it() {
    let model = Model::ok().await;
    let patience = Duration::from_millis(400);
    let address = model.address;
    let proxy = pod(address, 1, patience).await;
    kill(model).await;
    for _ in 0..2 {
        let began = Instant::now();
        let mut client = Raw::connect(front(&proxy)).await;
        let answer = client.get("/").await;
        assert_eq!(answer.status, 502);
        assert_eq!(answer.header("retry-after"), Some("1"));
        let text = answer.text();
        assert!(text.starts_with("rouse: model-unreachable"), "{text}");
        let took = began.elapsed();
        assert!(took >= patience && took < 4 * patience, "{took:?}");
        until("the slot to be free", || proxy.open() == 0).await;
    }
    let _model = Model::on(TcpListener::bind(address).await.unwrap());
    let mut client = Raw::connect(front(&proxy)).await;
    assert_eq!(client.get("/").await.text(), "ok");
}

#[tokio::test]
async fn the_wait_ends_with_the_time_that_a_request_may_wait_in_all() {
    let model = Model::ok().await;
    let mut config = config(&[model.address], 1);
    config.restart_patience = Duration::from_mins(1);
    config.queue_timeout = Duration::from_millis(300);
    let proxy = ready(config).await;
    kill(model).await;
    let mut client = Raw::connect(front(&proxy)).await;
    assert_eq!(client.get("/").await.status, 502);
}

#[tokio::test]
async fn one_who_leaves_while_waiting_for_a_restart_gives_his_slot_up() {
    let model = Model::ok().await;
    let proxy = pod(model.address, 1, Duration::from_mins(1)).await;
    kill(model).await;
    let requests = [
        get("/nothing", ""),
        post("/small", "", "body"),
        "POST /part HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nabc".to_owned(),
        "POST /chunks HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"
            .to_owned(),
        "POST /expect HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 99999\r\n\r\n"
            .to_owned(),
    ];
    for request in &requests {
        let client = Raw::sent(front(&proxy), request).await;
        until("it to be in flight", || proxy.stats().gauges() == (1, 0)).await;
        let next = Raw::sent(front(&proxy), get("/next", "")).await;
        until("the next one to wait", || proxy.stats().gauges() == (1, 1)).await;
        sleep(Duration::from_millis(60)).await;
        drop(client);
        soon(QUICKLY, &format!("{request:?} to leave"), || {
            proxy.stats().gauges() == (1, 0)
        })
        .await;
        drop(next);
        soon(QUICKLY, "the next one to leave", || proxy.open() == 0).await;
    }
    assert_eq!(proxy.stats().totals(), (10, 10));
}

#[tokio::test]
async fn nobody_waits_at_a_pod_that_goes_away() {
    let model = Model::ok().await;
    let proxy = pod(model.address, 0, Duration::from_mins(1)).await;
    kill(model).await;
    let mut before = Raw::sent(front(&proxy), get("/", "")).await;
    until("it to be here", || proxy.open() == 1).await;
    sleep(MEANWHILE).await;
    assert_eq!(proxy.open(), 1);
    let began = Instant::now();
    proxy.begin_drain();
    assert_eq!(before.answer().await.status, 502);
    let mut after = Raw::connect(front(&proxy)).await;
    assert_eq!(after.get("/").await.status, 502);
    assert!(began.elapsed() < QUICKLY, "{:?}", began.elapsed());
}

#[tokio::test]
async fn an_activator_hears_at_once_and_what_it_cannot_send_elsewhere_waits() {
    let model = Model::ok().await;
    let address = model.address;
    let proxy = pod(address, 0, Duration::from_secs(10)).await;
    let reserve = get("/", &format!("{}rouse-op: reserve\r\n", addressed()));
    let mut lane = Raw::sent(activator(&proxy), reserve).await;
    let answer = lane.answer().await;
    let ticket = answer.header("rouse-ticket").unwrap();
    kill(model).await;
    let mut other = Raw::sent(activator(&proxy), get("/", &addressed())).await;
    let began = Instant::now();
    let answer = other.answer().await;
    assert_eq!(answer.header("rouse-admission"), Some("not-ready"));
    assert!(began.elapsed() < QUICKLY, "{:?}", began.elapsed());
    let lines = format!("{}rouse-ticket: {ticket}\r\n", addressed());
    lane.send(post("/", &lines, "body")).await;
    sleep(MEANWHILE).await;
    assert_eq!(proxy.stats().gauges(), (1, 0));
    let model = Model::on(TcpListener::bind(address).await.unwrap());
    let answer = lane.answer().await;
    assert_eq!(answer.text(), "ok");
    assert_eq!(answer.header("rouse-admission"), Some("admitted"));
    assert_eq!(model.seen.count(), 1);
}
