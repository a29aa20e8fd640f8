//! What models answer, proper or not, and what becomes of it.

use std::sync::Arc;

use http::Response;
use http_body_util::{BodyExt, Full};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    model::{Model, Reply, empty},
    raw::{Raw, get, post},
    rig::{activator, addressed, front, pod, until},
};

/// A model that reads a head and writes these bytes, once per connection, then waits for the other side to close.
async fn saying(bytes: &'static [u8]) -> Model {
    Model::raw(move |mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(bytes).await.unwrap();
        let _gone = stream.read(&mut [0]).await;
    })
    .await
}

async fn read_head(stream: &mut TcpStream) {
    let mut head = Vec::new();
    // What comes after it stays unread or is thrown away.
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if stream.read_buf(&mut head).await.unwrap() == 0 {
            return;
        }
    }
}

#[tokio::test]
async fn a_length_beside_chunks_is_dropped_and_the_connection_not_used_again() {
    let model = saying(
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    )
    .await;
    let proxy = pod(model.address, 0).await;
    let mut client = Raw::connect(front(&proxy)).await;
    for round in 1..=3 {
        let answer = client.get("/").await;
        assert_eq!(answer.text(), "hello");
        assert_eq!(answer.header("content-length"), None);
        assert_eq!(model.seen.connections(), round);
    }
    until("the connections to be closed", || model.seen.open() == 0).await;
}

#[tokio::test]
async fn an_answer_that_is_none_is_a_502_and_the_request_is_not_sent_again() {
    for bad in [
        &b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"[..],
        b"garbage\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 1000 OK\r\n\r\n",
        b"HTTP/1.1 099 OK\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nx: a\0b\r\n\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46",
    ] {
        let model = saying(bad).await;
        let proxy = pod(model.address, 1).await;
        let mut client = Raw::sent(front(&proxy), post("/", "", "body")).await;
        let answer = client.answer().await;
        let shown = bad.escape_ascii();
        assert_eq!(answer.status, 502, "{shown}: {answer:?}");
        assert_eq!(answer.text().lines().next().unwrap(), MODEL_BROKE);
        assert_eq!(model.seen.connections(), 1, "{shown}: sent again");
        until("the slot to be free", || proxy.open() == 0).await;
        assert_eq!(client.get("/").await.status, 502, "the connection lives");
    }
}

const MODEL_BROKE: &str = "rouse: model-broke: the model closed the connection without an answer";

#[tokio::test]
async fn a_model_that_closes_without_an_answer_is_asked_once() {
    let model = Model::raw(|mut stream| async move { read_head(&mut stream).await }).await;
    let proxy = pod(model.address, 0).await;
    let mut client = Raw::sent(front(&proxy), get("/", "")).await;
    assert_eq!(client.answer().await.status, 502);
    let mut lane = Raw::sent(activator(&proxy), get("/", &addressed())).await;
    let answer = lane.answer().await;
    assert_eq!(answer.status, 502);
    assert_eq!(answer.header("rouse-admission"), Some("admitted"));
    assert_eq!(model.seen.connections(), 2);
}

#[tokio::test]
async fn an_answer_that_breaks_off_breaks_off_for_the_client_too() {
    for (head, body) in [
        ("content-length: 10", "hello"),
        ("transfer-encoding: chunked", "5\r\nhello\r\n"),
    ] {
        let model = Model::raw(move |mut stream| async move {
            read_head(&mut stream).await;
            let answer = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{body}");
            stream.write_all(answer.as_bytes()).await.unwrap();
        })
        .await;
        let proxy = pod(model.address, 0).await;
        let mut client = Raw::sent(front(&proxy), get("/", "")).await;
        assert_eq!(client.head().await.status, 200);
        assert_eq!(client.rest().await, body, "{head}");
        until("the end", || proxy.open() == 0).await;
    }
}

#[tokio::test]
async fn an_answer_that_only_the_close_ends_is_whole() {
    let model = Model::raw(|mut stream| async move {
        read_head(&mut stream).await;
        let answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhello";
        stream.write_all(answer).await.unwrap();
    })
    .await;
    let proxy = pod(model.address, 0).await;
    let mut client = Raw::connect(front(&proxy)).await;
    for _ in 0..2 {
        assert_eq!(client.get("/").await.text(), "hello");
    }
}

#[tokio::test]
async fn answers_without_a_body_have_none() {
    let model = Model::start(|request| async move {
        match request.uri().path() {
            "/204" => empty(204),
            "/304" => length(empty(304), "7"),
            "/head" => length(empty(200), "7"),
            _ => Response::new(Full::from("body").boxed()),
        }
    })
    .await;
    let proxy = pod(model.address, 0).await;
    let mut client = Raw::connect(front(&proxy)).await;
    for round in 0..3 {
        assert_eq!(client.get("/204").await.status, 204);
        let answer = {
            client.send(get("/304", "")).await;
            client.head().await
        };
        assert_eq!(answer.status, 304);
        assert_eq!(client.get("/full").await.text(), "body");
        client.send("HEAD /head HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let answer = client.head().await;
        assert_eq!(answer.header("content-length"), Some("7"));
        assert_eq!(client.get("/full").await.text(), "body", "round {round}");
    }
    assert_eq!(model.seen.connections(), 1, "and the connection is kept");
}

fn length(mut answer: Response<Reply>, length: &'static str) -> Response<Reply> {
    answer
        .headers_mut()
        .insert("content-length", length.parse().unwrap());
    answer
}

#[tokio::test]
async fn bytes_after_an_answer_without_a_body_never_become_another_answer() {
    let model =
        saying(b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil")
            .await;
    let proxy = pod(model.address, 0).await;
    let mut client = Raw::connect(front(&proxy)).await;
    for _ in 0..20 {
        let answer = client.get("/").await;
        assert!(matches!(answer.status, 204 | 502), "{answer:?}");
    }
}

#[tokio::test]
async fn an_early_413_reaches_a_client_that_is_still_sending() {
    for lingering in [true, false] {
        let model = Model::raw(move |mut stream| async move {
            read_head(&mut stream).await;
            let answer = b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 3\r\nconnection: close\r\n\r\nbig";
            stream.write_all(answer).await.unwrap();
            if lingering {
                stream.shutdown().await.unwrap();
                let _all = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
            }
        })
        .await;
        let proxy = pod(model.address, 1).await;
        let head = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000000\r\n\r\n";
        let mut client = Raw::sent(front(&proxy), head).await;
        client.send(vec![0; 6_000_000]).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.text()), (413, "big"), "{lingering}");
        until("the slot to be free", || proxy.open() == 0).await;
    }
}

#[tokio::test]
async fn an_early_413_reaches_a_client_that_stops_sending_but_does_not_close() {
    let model = saying(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 3\r\n\r\nbig").await;
    let proxy = pod(model.address, 1).await;
    let head = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\nabc";
    let mut client = Raw::sent(front(&proxy), head).await;
    assert_eq!(client.answer().await.status, 413);
    until("the slot to be free", || proxy.open() == 0).await;
    client.closed().await;
    until("the model to be rid of it", || model.seen.open() == 0).await;
}

#[tokio::test]
async fn early_hints_are_swallowed_and_the_answer_passes() {
    let model = saying(
        b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    )
    .await;
    let proxy = pod(model.address, 0).await;
    let answer = Raw::connect(front(&proxy)).await.get("/").await;
    assert_eq!((answer.status, answer.text()), (200, "ok"));
}

#[tokio::test]
async fn a_flood_of_interim_answers_is_swallowed_and_heads_and_trailers_have_an_end() {
    let hints = "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n".repeat(10_000);
    let fields = "x: y\r\n".repeat(10_000);
    let large = format!("x: {}\r\n", "y".repeat(2_000_000));
    let chunks = "transfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n";
    for (bytes, status) in [
        (
            format!("{hints}HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"),
            Some(200),
        ),
        (format!("HTTP/1.1 200 OK\r\n{fields}\r\n"), Some(502)),
        (format!("HTTP/1.1 200 OK\r\n{large}\r\n"), Some(502)),
        // The head has gone out when they come: the answer is not whole.
        (format!("HTTP/1.1 200 OK\r\n{chunks}{fields}\r\n"), None),
        (format!("HTTP/1.1 200 OK\r\n{chunks}{large}\r\n"), None),
    ] {
        let bytes: Arc<[u8]> = bytes.into_bytes().into();
        let answer = Arc::clone(&bytes);
        let model = Model::raw(move |mut stream| {
            let answer = Arc::clone(&answer);
            async move {
                read_head(&mut stream).await;
                // It may have enough before the last byte.
                let _refused = stream.write_all(&answer).await;
                let _gone = stream.read(&mut [0]).await;
            }
        })
        .await;
        let proxy = pod(model.address, 1).await;
        let mut client = Raw::sent(front(&proxy), get("/", "")).await;
        let shown = bytes[..60].escape_ascii();
        if let Some(status) = status {
            assert_eq!(client.answer().await.status, status, "{shown}");
        } else {
            let rest = client.rest().await;
            assert!(!rest.ends_with(b"\r\n0\r\n\r\n"), "{shown}: {rest:?}");
        }
        until("the slot to be free", || proxy.open() == 0).await;
    }
}
