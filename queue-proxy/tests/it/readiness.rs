//! The model is asked the way the kubelet would ask.

use std::sync::{
    Arc,
    atomic::{AtomicU16, Ordering::SeqCst},
};

use http::HeaderMap;
use http_body_util::BodyExt as _;
use shared::http::probe::Probe;
use tokio::time::{Duration, sleep};

use crate::{
    model::{Model, empty, text},
    raw::{Raw, get},
    rig::{activator, addressed, any, config, front, start, stat, until, within},
};

/// A model whose `/ready` answers the number in the cell.
async fn moody(status: u16) -> (Model, Arc<AtomicU16>) {
    let mood = Arc::new(AtomicU16::new(status));
    let mine = Arc::clone(&mood);
    let model = Model::start(move |request| {
        let mood = mine.load(SeqCst);
        async move {
            match (request.uri().path(), mood) {
                ("/ready", 0) => std::future::pending().await,
                ("/ready", status) => empty(status),
                _ => text("ok"),
            }
        }
    })
    .await;
    (model, mood)
}

#[tokio::test]
async fn a_grpc_model_is_ready_once_its_health_service_says_so() {
    let serving = Arc::new(AtomicU16::new(2)); // NOT_SERVING
    let status = Arc::clone(&serving);
    let model = Model::start_h2(move |request| {
        let status = status.load(SeqCst).to_be_bytes()[1];
        async move {
            let asked = request.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(&asked[..], [0, 0, 0, 0, 3, 0x0a, 1, b'm']);
            text(vec![0, 0, 0, 0, 2, 8, status])
        }
    })
    .await;
    let mut config = config(&[model.address], 1);
    config.model.probe = Probe::Grpc {
        service: "m".to_owned(),
    };
    let proxy = start(config);
    let mut state = proxy.model();
    within("the port", state.wait_for(|m| m.port_open.is_some()))
        .await
        .unwrap();
    until("more than one answer", || {
        model.seen.requests.lock().len() > 1
    })
    .await;
    assert_eq!(state.borrow().first_ready, None);
    serving.store(1, SeqCst);
    within("readiness", state.wait_for(|m| m.ready))
        .await
        .unwrap();
    let asked = model.seen.requests.lock()[0].clone();
    assert_eq!(asked.uri().path(), "/grpc.health.v1.Health/Check");
    assert_eq!(
        (&asked.headers()["te"], asked.method().as_str()),
        (&"trailers".parse().unwrap(), "POST")
    );
}

#[tokio::test]
async fn a_probed_model_becomes_ready_fails_at_the_threshold_and_recovers() {
    let (model, mood) = moody(503).await;
    let mut config = config(&[model.address], 1);
    let mut headers = HeaderMap::new();
    headers.insert("x-probe", "1".parse().unwrap());
    headers.insert("host", "probed".parse().unwrap());
    config.model.probe = Probe::Http {
        path: "/ready?deep".into(),
        headers,
        https: false,
    };
    config.model.period = Duration::from_millis(20);
    config.model.timeout = Duration::from_millis(100);
    config.model.failure_threshold = 3;
    let proxy = start(config);
    let mut state = proxy.model();
    let probed = within(
        "the port to be seen",
        state.wait_for(|m| m.port_open.is_some()),
    );
    assert_eq!(probed.await.unwrap().first_ready, None);
    let asked = model.seen.requests.lock()[0].clone();
    assert_eq!(asked.uri(), "/ready?deep");
    assert_eq!(
        (&asked.headers()["x-probe"], &asked.headers()["host"]),
        (&"1".parse().unwrap(), &"probed".parse().unwrap())
    );

    let mut waiting = Raw::sent(front(&proxy), get("/", "")).await;
    until("it to wait", || proxy.stats().gauges() == (0, 1)).await;
    mood.store(399, SeqCst);
    within("readiness", state.wait_for(|m| m.ready))
        .await
        .unwrap();
    assert_eq!(waiting.answer().await.text(), "ok");

    // Neither an answer of 400 nor none at all is a yes, but it takes three of them to become unready.
    for bad in [400, 0] {
        let before = model.seen.count();
        mood.store(bad, SeqCst);
        within("the failure", state.wait_for(|m| !m.ready))
            .await
            .unwrap();
        assert!(model.seen.count() >= before + 3);
        assert!(!stat(&proxy, "").await.ready);
        let mut health = Raw::connect(proxy.stats_address().unwrap()).await;
        assert_eq!(health.get("/readyz").await.status, 503);
        // An activator is told to go elsewhere; a client of a Service, who cannot, is served.
        let mut lane = Raw::sent(activator(&proxy), get("/", &addressed())).await;
        let elsewhere = lane.answer().await;
        assert_eq!(elsewhere.header("rouse-admission"), Some("not-ready"));
        assert_eq!(
            Raw::connect(front(&proxy)).await.get("/").await.text(),
            "ok"
        );
        mood.store(200, SeqCst);
        within("recovery", state.wait_for(|m| m.ready))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_tcp_probe_sees_the_port_come_and_go() {
    let reserved = tokio::net::TcpSocket::new_v4().unwrap();
    reserved.set_reuseaddr(true).unwrap();
    reserved.bind(any()).unwrap();
    let address = reserved.local_addr().unwrap();
    let mut config = config(&[address], 1);
    config.model.period = Duration::from_millis(20);
    config.model.failure_threshold = 2;
    let proxy = start(config);
    let mut state = proxy.model();
    sleep(Duration::from_millis(50)).await;
    assert!(state.borrow().port_open.is_none());
    let model = Model::on(reserved.listen(64).unwrap());
    within("readiness", state.wait_for(|m| m.ready))
        .await
        .unwrap();
    drop(model);
    within("the failure", state.wait_for(|m| !m.ready))
        .await
        .unwrap();
    let mut lane = Raw::sent(activator(&proxy), get("/", &addressed())).await;
    assert_eq!(
        lane.answer().await.header("rouse-admission"),
        Some("not-ready")
    );
}
