//! Clients that leave leave nothing behind: no place in the queue, no slot, no request at the model.

use bytes::Bytes;
use hyper::body::Frame;
use tokio::{sync::mpsc, time::Duration};

use crate::{
    model::{Model, streamed},
    raw::{Raw, get, post},
    rig::{activator, addressed, front, pod, soon, until, within},
};

const QUICKLY: Duration = Duration::from_millis(250);

#[tokio::test]
async fn one_who_leaves_the_queue_gives_up_his_place_and_no_slot_is_lost() {
    let (model, gate) = Model::gated().await;
    let proxy = pod(model.address, 1).await;
    let mut busy = Raw::sent(front(&proxy), get("/first", "")).await;
    until("the slot to be taken", || model.seen.count() == 1).await;
    let large = format!("{}x", "y".repeat(1000));
    for request in [
        get("/nothing", ""),
        post("/small", "", &large),
        // A body that is still on its way.
        "POST /part HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nabc".to_owned(),
        "POST /chunks HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"
            .to_owned(),
        "POST /expect HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 99999\r\n\r\n"
            .to_owned(),
    ] {
        for (listener, lines) in [
            (front(&proxy), String::new()),
            (activator(&proxy), addressed()),
        ] {
            let request = request.replace("host: a\r\n", &format!("host: a\r\n{lines}"));
            let client = Raw::sent(listener, &request).await;
            until("it to wait", || proxy.stats().gauges() == (1, 1)).await;
            drop(client);
            soon(QUICKLY, &format!("{request:?} to leave"), || {
                proxy.stats().gauges() == (1, 0)
            })
            .await;
        }
    }
    gate.add_permits(2);
    assert_eq!(busy.answer().await.text(), "/first");
    assert_eq!(busy.get("/next").await.text(), "/next");
    assert_eq!(model.seen.paths(), ["/first", "/next"]);
    until("the account to be even", || {
        proxy.stats().totals() == (12, 12)
    })
    .await;
    assert_eq!(proxy.open(), 0);
}

#[tokio::test]
async fn a_client_that_leaves_before_the_answer_is_gone_at_the_model_too() {
    let (model, _gate) = Model::gated().await;
    let proxy = pod(model.address, 1).await;
    for (listener, lines) in [
        (front(&proxy), String::new()),
        (activator(&proxy), addressed()),
    ] {
        for request in [get("/", &lines), post("/", &lines, "small")] {
            let client = Raw::sent(listener, request).await;
            until("it to arrive", || model.seen.active() == 1).await;
            drop(client);
            soon(QUICKLY, "the end at the model", || model.seen.active() == 0).await;
            until("the connection's end", || model.seen.open() == 0).await;
            until("the slot to be free", || proxy.open() == 0).await;
        }
    }
    assert_eq!(proxy.stats().totals(), (4, 4));
    assert_eq!(model.seen.cancelled(), 4);
}

#[tokio::test]
async fn a_client_that_leaves_mid_answer_ends_it_at_a_model_that_is_silent() {
    let (feeds, mut taken) = mpsc::unbounded_channel();
    let model = Model::start(move |_| {
        let feeds = feeds.clone();
        async move {
            let (feed, answer) = streamed();
            feeds.send(feed).unwrap();
            answer
        }
    })
    .await;
    let proxy = pod(model.address, 1).await;
    for round in 1..=5 {
        let mut client = Raw::sent(front(&proxy), get("/", "")).await;
        let feed = within("the request", taken.recv()).await.unwrap();
        client.head().await;
        if round > 1 {
            feed.send(Frame::data(Bytes::from("one"))).unwrap();
            assert_eq!(client.chunk().await.unwrap(), "one");
        }
        assert_eq!(proxy.open(), 1);
        drop(client);
        soon(QUICKLY, "the slot to be free", || proxy.open() == 0).await;
        soon(QUICKLY, "the connection's end", || model.seen.open() == 0).await;
        assert_eq!(proxy.stats().totals(), (round, round));
        assert!(feed.is_closed());
    }
    // A half-read answer never becomes part of the next one.
    let mut client = Raw::sent(front(&proxy), get("/", "")).await;
    let feed = within("the request", taken.recv()).await.unwrap();
    feed.send(Frame::data(Bytes::from("whole"))).unwrap();
    drop(feed);
    assert_eq!(client.answer().await.text(), "whole");
}

#[tokio::test]
async fn a_client_that_stops_in_the_middle_of_its_body_aborts_it_at_the_model() {
    let model = Model::start(|request| async { crate::model::echo(request) }).await;
    let proxy = pod(model.address, 1).await;
    let head = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\nabc";
    let mut client = Raw::sent(front(&proxy), head).await;
    client.head().await;
    assert_eq!(client.chunk().await.unwrap(), "abc");
    drop(client);
    soon(QUICKLY, "the connection's end", || model.seen.open() == 0).await;
    until("the slot to be free", || proxy.open() == 0).await;
}

#[tokio::test]
async fn connections_whose_answers_were_read_to_the_end_are_used_again() {
    let model = Model::ok().await;
    let proxy = pod(model.address, 1).await;
    let mut client = Raw::connect(front(&proxy)).await;
    for _ in 0..200 {
        assert_eq!(client.get("/").await.text(), "ok");
    }
    assert!(
        model.seen.connections() <= 3,
        "{}",
        model.seen.connections()
    );
}
