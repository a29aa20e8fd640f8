//! The port of activators: whose request it is, and what became of it, is said in so many words.

use shared::http::probe::Probe;
use tokio::time::{Duration, Instant};

use crate::{
    model::Model,
    raw::{Raw, get, post},
    rig::{UID, activator, addressed, any, config, front, pod, ready, start, until, within},
};

#[tokio::test]
async fn a_request_for_another_pod_or_port_is_misdirected_and_reaches_nobody() {
    let model = Model::ok().await;
    let proxy = pod(model.address, 0).await;
    let mut lane = Raw::connect(activator(&proxy)).await;
    for lines in [
        String::new(),
        "rouse-port: 0\r\n".to_owned(),
        "rouse-pod-uid: pod-2\r\nrouse-port: 0\r\n".to_owned(),
        format!("rouse-pod-uid: {UID}\r\n"),
        format!("rouse-pod-uid: {UID}\r\nrouse-port: 1\r\n"),
        format!("rouse-pod-uid: {UID}\r\nrouse-port: -1\r\n"),
        format!("rouse-pod-uid: {UID}\r\nrouse-port: x\r\n"),
        "rouse-pod-uid: pod-2\r\nrouse-port: 0\r\nrouse-op: reserve\r\n".to_owned(),
    ] {
        lane.send(post("/", &lines, "body")).await;
        let answer = lane.answer().await;
        assert_eq!(answer.status, 421, "{lines}");
        assert_eq!(
            answer.header("rouse-admission"),
            Some("misdirected"),
            "{lines}"
        );
    }
    assert_eq!(model.seen.connections(), 0);
    assert_eq!(proxy.stats().totals(), (0, 0));
}

#[tokio::test]
async fn an_admitted_request_says_so_and_how_loaded_the_pod_is() {
    let (model, gate) = Model::gated().await;
    let proxy = pod(model.address, 0).await;
    let mut first = Raw::sent(activator(&proxy), get("/1", &addressed())).await;
    let mut second = Raw::sent(front(&proxy), get("/2", "")).await;
    until("both to arrive", || model.seen.count() == 2).await;
    gate.add_permits(1);
    let answer = first.answer().await;
    assert_eq!(answer.header("rouse-admission"), Some("admitted"));
    assert_eq!(answer.header("rouse-load"), Some("2"), "this one included");
    assert_eq!(answer.header("rouse-timing"), None);
    gate.add_permits(1);
    assert_eq!(second.answer().await.status, 200);
}

#[tokio::test]
async fn a_full_pod_says_full_and_the_model_hears_nothing() {
    let (model, _gate) = Model::gated().await;
    let mut config = config(&[model.address], 1);
    config.activator_queue_depth = 0;
    let proxy = ready(config).await;
    let _busy = Raw::sent(front(&proxy), get("/", "")).await;
    until("the slot to be taken", || model.seen.count() == 1).await;
    let mut lane = Raw::connect(activator(&proxy)).await;
    for lines in [addressed(), format!("{}rouse-op: reserve\r\n", addressed())] {
        lane.send(post("/", &lines, "body")).await;
        let answer = lane.answer().await;
        assert_eq!(answer.status, 503);
        assert_eq!(answer.header("rouse-admission"), Some("full"));
        assert_eq!(answer.header("retry-after"), Some("1"));
        assert_eq!(answer.header("rouse-ticket"), None);
    }
    assert_eq!(model.seen.count(), 1);
    assert_eq!(
        proxy.stats().totals(),
        (1, 0),
        "what goes elsewhere is counted there"
    );
}

#[tokio::test]
async fn a_pod_that_was_never_ready_says_not_ready_at_once() {
    let model = Model::start(|_| async { crate::model::empty(503) }).await;
    let mut config = config(&[model.address], 1);
    config.model.probe = Probe::Http {
        path: "/ready".into(),
        headers: http::HeaderMap::new(),
        https: false,
    };
    let proxy = start(config);
    let mut lane = Raw::sent(activator(&proxy), post("/", &addressed(), "body")).await;
    let answer = lane.answer().await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.header("rouse-admission"), Some("not-ready"));
    assert!(model.seen.paths().iter().all(|path| path == "/ready"));
    assert_eq!(proxy.stats().totals(), (0, 0), "it is counted elsewhere");
}

#[tokio::test]
async fn a_model_that_takes_no_connection_is_not_ready_and_the_slot_is_free_again() {
    let model = Model::ok().await;
    let proxy = pod(model.address, 1).await;
    drop(model);
    let mut lane = Raw::connect(activator(&proxy)).await;
    for _ in 0..3 {
        lane.send(post("/", &addressed(), "body")).await;
        let answer = lane.answer().await;
        assert_eq!(answer.status, 502);
        assert_eq!(answer.header("rouse-admission"), Some("not-ready"));
    }
    until("the slot to be free", || proxy.open() == 0).await;
}

#[tokio::test]
async fn wait_ready_answers_at_the_moment_the_model_is_ready() {
    let reserved = tokio::net::TcpSocket::new_v4().unwrap();
    reserved.set_reuseaddr(true).unwrap();
    reserved.bind(any()).unwrap();
    let address = reserved.local_addr().unwrap();
    let proxy = start(config(&[address], 2));
    let lines = format!(
        "{}rouse-op: wait-ready\r\nrouse-wait-ms: 60000\r\n",
        addressed()
    );
    let mut lane = Raw::sent(activator(&proxy), get("/", &lines)).await;
    let started = Instant::now();
    let _model = Model::on(reserved.listen(64).unwrap());
    let answer = within("readiness", lane.answer()).await;
    let took = started.elapsed();
    assert!(took < Duration::from_millis(100), "{took:?}");
    assert_eq!(answer.status, 200);
    for name in ["rouse-port-open-age", "rouse-ready-age"] {
        let age: u64 = answer.header(name).unwrap().parse().unwrap();
        assert!(u128::from(age) <= took.as_micros(), "{name}: {age}");
    }
    assert_eq!(answer.header("rouse-load"), Some("0"));
    // The request follows on the same connection.
    lane.send(get("/", &addressed())).await;
    assert_eq!(lane.answer().await.text(), "ok");
}

#[tokio::test]
async fn wait_ready_gives_up_after_its_time_and_unknown_operations_at_once() {
    let proxy = start(config(&[([127, 0, 0, 1], 1).into()], 2));
    let mut lane = Raw::connect(activator(&proxy)).await;
    let lines = format!(
        "{}rouse-op: wait-ready\r\nrouse-wait-ms: 50\r\n",
        addressed()
    );
    lane.send(get("/", &lines)).await;
    let answer = lane.answer().await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.header("rouse-admission"), Some("not-ready"));
    lane.send(get("/", &format!("{}rouse-op: explode\r\n", addressed())))
        .await;
    assert_eq!(lane.answer().await.status, 400);
    assert_eq!(proxy.stats().totals(), (0, 0));
}
