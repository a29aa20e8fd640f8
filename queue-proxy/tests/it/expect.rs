//! `100 Continue` means admitted: not a moment before it is.

use http_body_util::BodyExt;
use tokio::time::{Duration, timeout};

use crate::{
    model::{Model, text},
    raw::{Raw, get},
    rig::{activator, addressed, config, front, pod, ready, until},
};

fn asking(lines: &str, length: usize) -> String {
    format!(
        "POST /large HTTP/1.1\r\nhost: a\r\n{lines}expect: 100-continue\r\ncontent-length: {length}\r\n\r\n"
    )
}

/// Answers how much it was sent; `/first` waits for a permit.
async fn counting() -> (Model, std::sync::Arc<tokio::sync::Semaphore>) {
    let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let mine = std::sync::Arc::clone(&gate);
    let model = Model::start(move |request| {
        let gate = std::sync::Arc::clone(&mine);
        async move {
            if request.uri().path() == "/first" {
                gate.acquire().await.unwrap().forget();
            }
            let length = request
                .into_body()
                .collect()
                .await
                .unwrap()
                .to_bytes()
                .len();
            text(length.to_string())
        }
    })
    .await;
    (model, gate)
}

#[tokio::test]
async fn a_waiting_request_is_told_to_continue_only_once_it_is_admitted() {
    let (model, gate) = counting().await;
    let proxy = pod(model.address, 1).await;
    for (listener, lines) in [
        (front(&proxy), String::new()),
        (activator(&proxy), addressed()),
    ] {
        let before = model.seen.count();
        let mut busy = Raw::sent(front(&proxy), get("/first", "")).await;
        until("the slot to be taken", || model.seen.count() == before + 1).await;
        let mut client = Raw::sent(listener, asking(&lines, 300_000)).await;
        until("it to wait", || proxy.stats().gauges() == (1, 1)).await;
        let early = timeout(Duration::from_millis(100), client.stream.readable()).await;
        assert!(early.is_err(), "told to continue while it waits");
        gate.add_permits(1);
        assert_eq!(busy.answer().await.status, 200);
        assert_eq!(client.head().await.status, 100);
        assert!(!model.seen.last().contains_key("expect"));
        client.send(vec![b'x'; 300_000]).await;
        assert_eq!(client.answer().await.text(), "300000");
    }
    until("the end", || proxy.open() == 0).await;
}

#[tokio::test]
async fn a_request_that_is_not_admitted_is_never_told_to_continue() {
    let (model, _gate) = counting().await;
    let mut config = config(&[model.address], 1);
    config.activator_queue_depth = 0;
    let proxy = ready(config).await;
    let _busy = Raw::sent(front(&proxy), get("/first", "")).await;
    until("the slot to be taken", || model.seen.count() == 1).await;
    let mut lane = Raw::sent(activator(&proxy), asking(&addressed(), 300_000)).await;
    let answer = lane.answer().await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.header("rouse-admission"), Some("full"));
    let mut lane = Raw::sent(activator(&proxy), asking("", 300_000)).await;
    assert_eq!(lane.answer().await.status, 421);
    assert_eq!(model.seen.count(), 1);
}

#[tokio::test]
async fn a_model_that_answers_early_is_heard() {
    let model = Model::start(|_| async { crate::model::empty(413) }).await;
    let proxy = pod(model.address, 1).await;
    let mut lane = Raw::sent(activator(&proxy), asking(&addressed(), 300_000)).await;
    let mut answer = lane.answer().await;
    if answer.status == 100 {
        answer = lane.answer().await;
    }
    assert_eq!(answer.status, 413);
    assert_eq!(answer.header("rouse-admission"), Some("admitted"));
    until("the end", || proxy.open() == 0).await;
}
