//! Slots reserved beforehand, for requests whose body cannot be sent twice.

use http::Request;
use tokio::time::{Duration, advance, pause, resume};

use crate::{
    h2,
    model::{Model, text},
    raw::{Raw, get, post},
    rig::{UID, activator, addressed, config, front, pod, ready, until, within},
};

fn reserve() -> String {
    get("/", &format!("{}rouse-op: reserve\r\n", addressed()))
}

fn with(ticket: &str) -> String {
    format!("{}rouse-ticket: {ticket}\r\n", addressed())
}

#[tokio::test]
async fn a_ticket_is_good_for_one_request() {
    let model = Model::ok().await;
    let proxy = pod(model.address, 1).await;
    let mut lane = Raw::sent(activator(&proxy), reserve()).await;
    let answer = lane.answer().await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("rouse-load"), Some("1"));
    let ticket = answer.header("rouse-ticket").unwrap().to_owned();
    assert_eq!((proxy.open(), model.seen.count()), (1, 0));

    lane.send(post("/use", &with(&ticket), "body")).await;
    let answer = lane.answer().await;
    assert_eq!(answer.text(), "ok");
    assert_eq!(answer.header("rouse-admission"), Some("admitted"));
    until("the slot to be free", || proxy.open() == 0).await;
    for ticket in [ticket.as_str(), "0", "18446744073709551615"] {
        lane.send(post("/again", &with(ticket), "body")).await;
        let answer = lane.answer().await;
        assert_eq!(answer.status, 503);
        assert_eq!(answer.header("rouse-admission"), Some("full"));
        assert!(answer.text().starts_with("rouse: ticket-expired"));
    }
    assert_eq!(model.seen.paths(), ["/use"]);
    assert_eq!(proxy.stats().totals(), (1, 1), "one request in all");
}

#[tokio::test]
async fn a_reserved_slot_is_taken_and_an_unused_one_comes_back() {
    let model = Model::ok().await;
    let proxy = pod(model.address, 1).await;
    let mut lane = Raw::sent(activator(&proxy), reserve()).await;
    let ticket = lane
        .answer()
        .await
        .header("rouse-ticket")
        .unwrap()
        .to_owned();
    let mut waiting = Raw::sent(front(&proxy), get("/", "")).await;
    until("it to wait", || proxy.stats().gauges() == (0, 2)).await;
    pause();
    advance(Duration::from_secs(7)).await;
    resume();
    assert_eq!(within("the slot", waiting.answer()).await.status, 200);
    lane.send(post("/", &with(&ticket), "body")).await;
    assert_eq!(lane.answer().await.status, 503);
    until("the account to be even", || {
        proxy.stats().totals() == (2, 2)
    })
    .await;
    assert_eq!(model.seen.count(), 1);
}

#[tokio::test]
async fn a_probe_with_a_ticket_is_no_load() {
    let (model, gate) = Model::gated().await;
    let mut config = config(&[model.address], 2);
    config.probe_paths = vec!["/healthz".into()];
    let proxy = ready(config).await;
    for (path, load) in [("/healthz", 0), ("/predict", 1)] {
        let mut lane = Raw::sent(activator(&proxy), reserve()).await;
        let answer = lane.answer().await;
        let ticket = answer.header("rouse-ticket").unwrap();
        let seen = model.seen.count();
        lane.send(post(path, &with(ticket), "body")).await;
        until("it to arrive", || model.seen.count() > seen).await;
        assert_eq!((proxy.open(), proxy.load()), (1, load), "{path}");
        gate.add_permits(1);
        assert_eq!(lane.answer().await.status, 200);
        until("the end", || proxy.open() == 0).await;
    }
}

#[tokio::test]
async fn tickets_work_over_http_2() {
    let model = Model::start_h2(|_| async { text("ok") }).await;
    let proxy = pod(model.address, 1).await;
    let (mut client, _connection) = h2::connect(activator(&proxy)).await;
    let ask = |name: &'static str, value: &str| {
        let mut request: Request<h2::Out> = h2::request("/", h2::nothing());
        let headers = request.headers_mut();
        headers.insert("rouse-pod-uid", UID.parse().unwrap());
        headers.insert("rouse-port", "0".parse().unwrap());
        headers.insert(name, value.parse().unwrap());
        request
    };
    let answer = client
        .send_request(ask("rouse-op", "reserve"))
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    let ticket = answer.headers()["rouse-ticket"]
        .to_str()
        .unwrap()
        .to_owned();
    for (status, marker) in [(200, "admitted"), (503, "full")] {
        let answer = client
            .send_request(ask("rouse-ticket", &ticket))
            .await
            .unwrap();
        assert_eq!(answer.status(), status);
        assert_eq!(answer.headers()["rouse-admission"], marker);
    }
    until("the end", || proxy.open() == 0).await;
    assert_eq!(model.seen.count(), 1);
}
