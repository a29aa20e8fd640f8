//! Bodies flow as they come, both ways, with their trailers.

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body_util::BodyExt;
use hyper::body::Frame;
use tokio::sync::mpsc;

use crate::{
    model::{Feed, Model, Reply, echo, streamed},
    raw::{Raw, get},
    rig::{activator, addressed, front, pod, until, within},
};

/// A model that answers with streams, and where their feeds arrive.
async fn streaming(
    fields: &'static [(&'static str, &'static str)],
) -> (Model, mpsc::UnboundedReceiver<Feed>) {
    let (feeds, taken) = mpsc::unbounded_channel();
    let model = Model::start(move |_| {
        let feeds = feeds.clone();
        async move {
            let (feed, mut answer): (Feed, Response<Reply>) = streamed();
            for (name, value) in fields {
                answer.headers_mut().insert(*name, value.parse().unwrap());
            }
            feeds.send(feed).unwrap();
            answer
        }
    })
    .await;
    (model, taken)
}

fn data(text: &'static str) -> Frame<Bytes> {
    Frame::data(Bytes::from_static(text.as_bytes()))
}

#[tokio::test]
async fn each_event_of_a_stream_is_seen_before_the_next_is_sent() {
    let (model, mut feeds) = streaming(&[("content-type", "text/event-stream")]).await;
    let proxy = pod(model.address, 1).await;
    for (listener, lines) in [
        (front(&proxy), String::new()),
        (activator(&proxy), addressed()),
    ] {
        let mut client = Raw::sent(listener, get("/", &lines)).await;
        let feed = within("the request", feeds.recv()).await.unwrap();
        let head = client.head().await;
        assert_eq!(head.header("content-type"), Some("text/event-stream"));
        for event in ["data: one\n\n", "data: two\n\n", "data: three\n\n"] {
            feed.send(data(event)).unwrap();
            assert_eq!(client.chunk().await.unwrap(), event);
            assert_eq!(proxy.open(), 1, "in flight to the last byte");
        }
        drop(feed);
        assert_eq!(client.chunk().await, None);
        until("the end", || proxy.open() == 0).await;
    }
}

#[tokio::test]
async fn a_pipelined_request_does_not_hold_the_stream_before_it_back() {
    let (model, mut feeds) = streaming(&[]).await;
    let proxy = pod(model.address, 0).await;
    let three = get("/", "").repeat(3);
    let mut client = Raw::sent(front(&proxy), three).await;
    for _ in 0..3 {
        let feed = within("the request", feeds.recv()).await.unwrap();
        client.head().await;
        for event in ["one", "two"] {
            feed.send(data(event)).unwrap();
            assert_eq!(client.chunk().await.unwrap(), event);
        }
        drop(feed);
        assert_eq!(client.chunk().await, None);
        assert_eq!(client.exact(2).await, "\r\n");
    }
}

#[tokio::test]
async fn an_endless_answer_is_held_back_by_its_reader_not_kept_in_memory() {
    let (model, mut feeds) = streaming(&[]).await;
    let proxy = pod(model.address, 0).await;
    let mut client = Raw::sent(front(&proxy), get("/", "")).await;
    let feed = within("the request", feeds.recv()).await.unwrap();
    client.head().await;
    let megabyte = Bytes::from(vec![b'x'; 1 << 20]);
    for _ in 0..64 {
        feed.send(Frame::data(megabyte.clone())).unwrap();
    }
    // Nothing of it is lost while nobody reads.
    let mut read = 0;
    while read < 64 << 20 {
        read += client.chunk().await.unwrap().len();
    }
    assert_eq!(read, 64 << 20);
}

#[tokio::test]
async fn a_request_body_reaches_the_model_piece_by_piece_and_comes_back() {
    let model = Model::start(|request| async { echo(request) }).await;
    let proxy = pod(model.address, 1).await;
    for (listener, lines) in [
        (front(&proxy), String::new()),
        (activator(&proxy), addressed()),
    ] {
        let head =
            format!("POST / HTTP/1.1\r\nhost: a\r\n{lines}transfer-encoding: chunked\r\n\r\n");
        let mut client = Raw::sent(listener, head).await;
        client.head().await;
        for part in ["a", "bc", "def"] {
            client.send(format!("{:x}\r\n{part}\r\n", part.len())).await;
            assert_eq!(client.chunk().await.unwrap(), part);
        }
        client.send("0\r\n\r\n").await;
        assert_eq!(client.chunk().await, None);
        until("the end", || proxy.open() == 0).await;
    }
    until("the connection to be kept", || {
        model.seen.connections() == 1
    })
    .await;
}

#[tokio::test]
async fn trailers_pass_both_ways_repeated_ones_too() {
    let model = Model::start(|request| async {
        let trailer = request.headers()["trailer"].clone();
        let collected = request.into_body().collect().await.unwrap();
        let back = collected.trailers().cloned().unwrap_or_default();
        let mut answer = Response::new(collected.map_err(|never| match never {}).boxed());
        answer.headers_mut().insert("trailer", trailer);
        assert_eq!(back.get_all("x-sum").iter().count(), 2, "{back:?}");
        answer
    })
    .await;
    let proxy = pod(model.address, 1).await;
    for (listener, lines) in [
        (front(&proxy), String::new()),
        (activator(&proxy), addressed()),
    ] {
        let head = format!(
            "POST / HTTP/1.1\r\nhost: a\r\n{lines}te: trailers\r\ntrailer: X-Sum, X-Other\r\ntransfer-encoding: chunked\r\n\r\n"
        );
        let body = "3\r\nabc\r\n0\r\nX-Sum: 1\r\nx-other: z\r\nX-SUM: 2\r\n\r\n";
        let mut client = Raw::sent(listener, format!("{head}{body}")).await;
        let answer = client.answer().await;
        assert_eq!(answer.text(), "abc");
        let mut trailers = answer.trailers;
        trailers.sort();
        let expected = [("x-other", "z"), ("x-sum", "1"), ("x-sum", "2")];
        assert_eq!(
            trailers,
            expected.map(|(n, v)| (n.to_owned(), v.to_owned()))
        );
    }
}

#[tokio::test]
async fn trailers_of_a_request_that_had_to_wait_are_kept() {
    let (seen, mut trailers) = mpsc::unbounded_channel::<Option<HeaderMap>>();
    let first = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let gate = std::sync::Arc::clone(&first);
    let model = Model::start(move |request| {
        let (seen, gate) = (seen.clone(), std::sync::Arc::clone(&gate));
        async move {
            if request.uri().path() == "/first" {
                gate.acquire().await.unwrap().forget();
            }
            let collected = request.into_body().collect().await.unwrap();
            seen.send(collected.trailers().cloned()).unwrap();
            crate::model::text("ok")
        }
    })
    .await;
    let proxy = pod(model.address, 1).await;
    let mut busy = Raw::sent(front(&proxy), get("/first", "")).await;
    until("the slot to be taken", || model.seen.count() == 1).await;
    let waiting = "POST /second HTTP/1.1\r\nhost: a\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n";
    let mut client = Raw::sent(front(&proxy), waiting).await;
    until("it to wait", || proxy.stats().gauges() == (1, 1)).await;
    first.add_permits(1);
    assert_eq!(busy.answer().await.status, 200);
    assert_eq!(client.answer().await.status, 200);
    assert_eq!(trailers.recv().await.unwrap(), None);
    let kept = trailers.recv().await.unwrap().unwrap();
    assert_eq!(kept["x-sum"], "1");
}
