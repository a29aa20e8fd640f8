//! How many are at the model, who waits, and who is sent away.

use std::sync::atomic::Ordering::SeqCst;

use tokio::{
    task::JoinSet,
    time::{Duration, sleep},
};

use crate::{
    model::{Model, streaming, text},
    raw::{Raw, get},
    rig::{activator, addressed, config, front, pod, ready, start, until, within},
};

#[tokio::test]
async fn never_more_than_the_limit_are_at_the_model_and_all_are_served() {
    let model = Model::start(|_| async {
        sleep(Duration::from_millis(1)).await;
        text("ok")
    })
    .await;
    let mut config = config(&[model.address], 3);
    config.queue_depth = 1000;
    config.activator_queue_depth = 1000;
    let proxy = ready(config).await;
    let mut clients = JoinSet::new();
    for n in 0..40 {
        let (address, lines) = if n % 2 == 0 {
            (front(&proxy), String::new())
        } else {
            (activator(&proxy), addressed())
        };
        clients.spawn(async move {
            let mut client = Raw::connect(address).await;
            for _ in 0..10 {
                client.send(get("/", &lines)).await;
                assert_eq!(client.answer().await.status, 200);
            }
        });
    }
    within("all answers", clients.join_all()).await;
    assert_eq!(model.seen.most.load(SeqCst), 3);
    assert_eq!(model.seen.count(), 400);
    until("the account to be even", || {
        proxy.stats().totals() == (400, 400)
    })
    .await;
}

#[tokio::test]
async fn each_source_is_served_in_order_and_the_two_take_turns() {
    let (model, gate) = Model::gated().await;
    let mut config = config(&[model.address], 1);
    config.activator_queue_depth = 10;
    let proxy = ready(config).await;
    let mut clients = Vec::new();
    for path in ["/s0", "/s1", "/s2", "/s3", "/a1", "/a2"] {
        let before = proxy.open();
        let (listener, lines) = if path.starts_with("/s") {
            (front(&proxy), String::new())
        } else {
            (activator(&proxy), addressed())
        };
        clients.push(Raw::sent(listener, get(path, &lines)).await);
        until("it to be counted", || proxy.open() == before + 1).await;
        if path == "/s0" {
            until("the slot to be taken", || model.seen.count() == 1).await;
        }
    }
    gate.add_permits(6);
    for client in &mut clients {
        assert_eq!(client.answer().await.status, 200);
    }
    assert_eq!(
        model.seen.paths(),
        ["/s0", "/s1", "/a1", "/s2", "/a2", "/s3"]
    );
}

#[tokio::test]
async fn beyond_the_queue_is_a_503_and_beyond_the_patience_a_504() {
    let (model, _gate) = Model::gated().await;
    let mut config = config(&[model.address], 1);
    config.queue_depth = 1;
    config.queue_timeout = Duration::from_millis(300);
    let proxy = ready(config).await;
    let _busy = Raw::sent(front(&proxy), get("/", "")).await;
    until("the slot to be taken", || model.seen.count() == 1).await;
    let mut waiting = Raw::sent(front(&proxy), get("/", "")).await;
    until("it to wait", || proxy.stats().gauges() == (1, 1)).await;
    let mut refused = Raw::connect(front(&proxy)).await;
    for _ in 0..3 {
        let answer = refused.get("/").await;
        assert_eq!(answer.status, 503);
        assert_eq!(answer.header("retry-after"), Some("1"));
        assert_eq!(answer.header("rouse-admission"), None);
        assert!(answer.text().starts_with("rouse: queue-full: "));
    }
    let answer = waiting.answer().await;
    assert_eq!(answer.status, 504);
    assert!(answer.text().starts_with("rouse: queue-timeout: "));
    until("only one to be left", || proxy.open() == 1).await;
    assert_eq!(model.seen.count(), 1);
}

#[tokio::test]
async fn a_refused_client_with_a_large_body_reads_its_503() {
    let (model, _gate) = Model::gated().await;
    let mut config = config(&[model.address], 1);
    config.queue_depth = 0;
    let proxy = ready(config).await;
    let _busy = Raw::sent(front(&proxy), get("/", "")).await;
    until("the slot to be taken", || model.seen.count() == 1).await;
    let head = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 50000000\r\n\r\n";
    let mut client = Raw::sent(front(&proxy), head).await;
    client.send(vec![0; 8_000_000]).await;
    assert_eq!(client.answer().await.status, 503);
}

#[tokio::test]
async fn requests_before_the_first_readiness_wait_and_then_pass() {
    let reserved = tokio::net::TcpSocket::new_v4().unwrap();
    reserved.set_reuseaddr(true).unwrap();
    reserved.bind(crate::rig::any()).unwrap();
    let address = reserved.local_addr().unwrap();
    let proxy = start(config(&[address], 2));
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(Raw::sent(front(&proxy), get("/", "")).await);
    }
    until("all to wait", || proxy.stats().gauges() == (0, 5)).await;
    let model = Model::on(reserved.listen(64).unwrap());
    for client in &mut clients {
        assert_eq!(client.answer().await.text(), "ok");
    }
    assert_eq!(model.seen.count(), 5);
}

#[tokio::test]
async fn a_request_holds_its_slot_to_the_last_byte_of_its_answer() {
    let (model, mut taken) = streaming(false).await;
    let proxy = pod(model.address, 1).await;
    let mut first = Raw::sent(front(&proxy), get("/1", "")).await;
    let feed = within("the request", taken.recv()).await.unwrap();
    first.head().await;
    let mut second = Raw::sent(front(&proxy), get("/2", "")).await;
    until("the second to wait", || proxy.stats().gauges() == (1, 1)).await;
    feed.send(hyper::body::Frame::data("part".into())).unwrap();
    assert_eq!(first.chunk().await.unwrap(), "part");
    sleep(Duration::from_millis(50)).await;
    assert_eq!((proxy.stats().gauges(), model.seen.count()), ((1, 1), 1));
    drop(feed);
    assert_eq!(first.chunk().await, None);
    within("the second", taken.recv()).await.unwrap();
    assert_eq!(second.head().await.status, 200);
}

#[tokio::test]
async fn bodies_beyond_the_memory_budget_wait_unread_and_still_pass() {
    let (model, gate) = Model::gated().await;
    let mut config = config(&[model.address], 1);
    config.queue_bytes = 64 * 1024;
    let proxy = ready(config).await;
    let mut clients = vec![Raw::sent(front(&proxy), get("/", "")).await];
    until("the slot to be taken", || model.seen.count() == 1).await;
    for _ in 0..4 {
        let request = crate::raw::post("/", "", &"x".repeat(60_000));
        clients.push(Raw::sent(front(&proxy), request).await);
    }
    until("all to wait", || proxy.stats().gauges() == (1, 4)).await;
    gate.add_permits(5);
    for client in &mut clients {
        assert_eq!(client.answer().await.status, 200);
    }
}

#[tokio::test]
async fn one_connection_too_many_is_told_so_readably_and_the_next_is_served_again() {
    let model = Model::ok().await;
    let mut config = config(&[model.address], 1);
    config.serve.max_connections = 2;
    let proxy = ready(config).await;
    let mut kept = Raw::connect(front(&proxy)).await;
    assert_eq!(kept.get("/").await.status, 200);
    let mut second = Raw::connect(front(&proxy)).await;
    assert_eq!(second.get("/").await.status, 200);
    for _ in 0..5 {
        let request = crate::raw::post("/", "", &"x".repeat(300_000));
        let mut shed = Raw::sent(front(&proxy), request).await;
        let answer = shed.answer().await;
        assert_eq!(answer.status, 503);
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    drop(second);
    within("room", async {
        while Raw::connect(front(&proxy)).await.get("/").await.status != 200 {}
    })
    .await;
    assert_eq!(kept.get("/").await.status, 200);
}
