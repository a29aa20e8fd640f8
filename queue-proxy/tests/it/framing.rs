//! What is no proper request is answered, readably, and nothing of it reaches the model.

use http_body_util::BodyExt;
use tokio::{io::AsyncWriteExt, time::Duration};

use crate::{
    model::{Model, echo, text},
    raw::{Raw, get, post},
    rig::{activator, addressed, front, pod, soon, until},
};

const MANY: &str = "x: y\r\n";

/// hyper's client leaves out the body of a GET unless it is told not to.
#[tokio::test]
async fn the_chunked_body_of_a_get_arrives_at_the_model() {
    let model = Model::start(|request| async { echo(request) }).await;
    let proxy = pod(model.address, 1).await;
    for method in ["GET", "POST", "DELETE"] {
        let asked = format!(
            "{method} / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
        );
        let mut raw = Raw::sent(front(&proxy), asked).await;
        let answer = raw.answer().await;
        assert_eq!((answer.status, answer.text()), (200, "hello"), "{method}");
    }
}

/// Status, and a whole message.
fn rows() -> Vec<(u16, String)> {
    let post =
        |lines: &str, body: &str| format!("POST / HTTP/1.1\r\nhost: a\r\n{lines}\r\n\r\n{body}");
    let line = |line: &str| format!("{line}\r\nhost: a\r\n\r\n");
    let head = |lines: &str| format!("GET / HTTP/1.1\r\n{lines}\r\n");
    let rows: Vec<(u16, String)> = vec![
        (
            400,
            post(
                "content-length: 5\r\ntransfer-encoding: chunked",
                "0\r\n\r\n",
            ),
        ),
        (
            400,
            post(
                "transfer-encoding: chunked\r\ncontent-length: 5",
                "0\r\n\r\n",
            ),
        ),
        (400, post("content-length: 5\r\ncontent-length: 5", "hello")),
        (400, post("content-length: 5\r\ncontent-length: 6", "hello")),
        (400, post("content-length: +5", "hello")),
        (400, post("content-length: -5", "hello")),
        (400, post("content-length: 5,5", "hello")),
        (400, post("content-length: 0x5", "hello")),
        (400, post("content-length: 99999999999999999999", "hello")),
        (
            400,
            post("transfer-encoding: chunked, identity", "0\r\n\r\n"),
        ),
        (400, post("transfer-encoding: identity", "")),
        (400, post("transfer-encoding: gzip, chunked", "0\r\n\r\n")),
        (400, post("transfer-encoding:\tchunked", "0\r\n\r\n")),
        (400, post("transfer-encoding: chunked\t", "0\r\n\r\n")),
        (400, post("transfer-encoding: xchunked", "0\r\n\r\n")),
        (400, post("transfer-encoding : chunked", "0\r\n\r\n")),
        (
            400,
            "POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".into(),
        ),
        (400, "GET / HTTP/1.1\nhost: a\n\n".into()),
        (400, head("host: a\r\nx: a\ny: b\r\n")),
        (400, head("host: a\r\nx: a\rb\r\n")),
        (400, head("host: a\r\nx: a\0b\r\n")),
        (400, head("host: a\r\nx: a\r\n b\r\n")),
        (400, head("host: a\r\nx: \u{fc}\r\n")),
        (400, head("host: a\r\nx\u{fc}: a\r\n")),
        (400, head("host: a\r\nno colon\r\n")),
        (400, head("host: a\r\n: no name\r\n")),
        (400, head("")),
        (400, head("host: a\r\nhost: a\r\n")),
        (400, head("host: user@a\r\n")),
        (400, head("host: a..b\r\n")),
        (400, head("host: a/b\r\n")),
        (400, head("host: a:port\r\n")),
        (400, head("host: a:70000\r\n")),
        (400, line("GET http://b/ HTTP/1.1")),
        (400, line("GET ftp://a/ HTTP/1.1")),
        (400, line("OPTIONS * HTTP/1.1")),
        (400, line("GET  / HTTP/1.1")),
        (400, line("G@T / HTTP/1.1")),
        (400, "\r\n\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n".into()),
        (405, "CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\n".into()),
        (405, line("TRACE / HTTP/1.1")),
        (505, line("GET / HTTP/3.0")),
        (417, post("expect: 200-ok\r\ncontent-length: 5", "hello")),
        (
            414,
            line(&format!("GET /{} HTTP/1.1", "x".repeat(64 * 1024))),
        ),
        (
            431,
            head(&format!("host: a\r\nx: {}\r\n", "x".repeat(64 * 1024))),
        ),
        (431, head(&format!("host: a\r\n{}", MANY.repeat(100)))),
    ];
    rows
}

/// As bytes, each character one: an attacker's header is no UTF-8.
fn latin1(text: &str) -> Vec<u8> {
    text.chars()
        .map(|c| u8::try_from(u32::from(c)).unwrap())
        .collect()
}

#[tokio::test]
async fn a_malformed_message_gets_its_status_and_nothing_of_it_reaches_the_model() {
    let model = Model::ok().await;
    let proxy = pod(model.address, 0).await;
    for listener in [front(&proxy), activator(&proxy)] {
        for (status, message) in rows() {
            let mut client = Raw::sent(listener, latin1(&message)).await;
            let answer = client.answer().await;
            assert_eq!(answer.status, status, "{message:.200?}");
            assert_eq!(
                answer.header("connection"),
                Some("close"),
                "{message:.200?}"
            );
            assert!(answer.text().starts_with("rouse: malformed"), "{answer:?}");
            client.closed().await;
        }
    }
    assert_eq!((model.seen.connections(), model.seen.count()), (0, 0));
    assert_eq!(proxy.stats().totals(), (0, 0), "nor was it counted");
}

#[tokio::test]
async fn the_largest_allowed_heads_pass() {
    let model = Model::ok().await;
    let proxy = pod(model.address, 0).await;
    let mut client = Raw::connect(front(&proxy)).await;
    assert_eq!(
        client.get(&format!("/{}", "x".repeat(8_000))).await.status,
        200
    );
    // A model may count what we add, so not quite as many as are allowed.
    client.send(get("/", &MANY.repeat(95))).await;
    assert_eq!(client.answer().await.status, 200, "100 fields");
    client
        .send(get("/", &format!("x: {}\r\n", "x".repeat(16_000))))
        .await;
    assert_eq!(client.answer().await.status, 200, "16 kB");
    client
        .send("GET http://a/path?q HTTP/1.1\r\nhost: a\r\n\r\n")
        .await;
    assert_eq!(client.answer().await.status, 200);
    let last = model.seen.requests.lock().last().unwrap().uri().to_string();
    assert_eq!(last, "/path?q", "the model gets the form that servers know");
}

#[tokio::test]
async fn a_refused_client_that_is_still_sending_megabytes_can_read_the_answer() {
    let model = Model::ok().await;
    let proxy = pod(model.address, 0).await;
    let bad_head = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +8000000\r\n\r\n";
    let bad_chunk = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n";
    for (head, listener) in [
        (bad_head, front(&proxy)),
        (bad_head, activator(&proxy)),
        (bad_chunk, front(&proxy)),
    ] {
        let mut client = Raw::sent(listener, head).await;
        client.send(vec![b'x'; 8_000_000]).await;
        assert_eq!(client.answer().await.status, 400, "{head}");
        assert!(client.rest().await.is_empty());
    }
    assert!(
        model.seen.paths().len().le(&1),
        "at most the head with the bad chunk"
    );
}

#[tokio::test]
async fn requests_before_a_malformed_one_are_answered_first() {
    let model = Model::start(|request| async move { text(request.uri().path().to_owned()) }).await;
    let proxy = pod(model.address, 0).await;
    let bad = "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n";
    let (first, second) = (get("/first", ""), post("/second", "", "body"));
    let mut client = Raw::sent(front(&proxy), format!("{first}{second}{bad}{first}")).await;
    assert_eq!(client.answer().await.text(), "/first");
    assert_eq!(client.answer().await.text(), "/second");
    assert_eq!(client.answer().await.status, 400);
    client.closed().await;
    assert_eq!(model.seen.paths(), ["/first", "/second"]);
}

#[tokio::test]
async fn an_answer_goes_out_while_the_next_pipelined_request_waits() {
    let (model, gate) = Model::gated().await;
    let proxy = pod(model.address, 0).await;
    gate.add_permits(1);
    let three = [get("/1", ""), get("/2", ""), get("/3", "")].concat();
    let mut client = Raw::sent(front(&proxy), three).await;
    assert_eq!(client.answer().await.text(), "/1");
    gate.add_permits(2);
    assert_eq!(client.answer().await.text(), "/2");
    assert_eq!(client.answer().await.text(), "/3");
}

#[tokio::test]
async fn a_malformed_chunk_aborts_the_request_at_the_model() {
    let model = Model::start(|request| async move {
        match request.into_body().collect().await {
            Ok(_) => text("whole"),
            Err(_) => text("broken"),
        }
    })
    .await;
    let proxy = pod(model.address, 0).await;
    for (listener, lines) in [
        (front(&proxy), String::new()),
        (activator(&proxy), addressed()),
    ] {
        for bad in [
            "zz\r\n",
            "ffffffffffffffff0\r\n",
            "3\nabc",
            "3\r\nabcd\r\n",
            "0\r\nbad trailer\r\n\r\n",
            &format!("3;{}\r\nabc\r\n", "e".repeat(100_000)),
            &format!("0\r\n{}\r\n", MANY.repeat(10_000)),
        ] {
            let before = model.seen.count();
            let head = format!(
                "POST / HTTP/1.1\r\nhost: a\r\n{lines}transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"
            );
            let mut client = Raw::sent(listener, head).await;
            until("the head to arrive", || model.seen.count() > before).await;
            client.send(bad).await;
            assert_eq!(client.answer().await.status, 400, "{bad:.50}");
            client.closed().await;
            soon(Duration::from_millis(250), "the abort", || {
                model.seen.open() == 0
            })
            .await;
        }
    }
    until("everything to be over", || proxy.open() == 0).await;
}

#[tokio::test]
async fn a_body_without_its_last_line_end_is_never_whole() {
    let model = Model::start(|request| async move {
        let whole = request.into_body().collect().await.is_ok();
        text(if whole { "whole" } else { "broken" })
    })
    .await;
    let proxy = pod(model.address, 0).await;
    let head = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut client = Raw::sent(front(&proxy), format!("{head}3\r\nabc\r\n0\r\n")).await;
    until("the head to arrive", || model.seen.count() == 1).await;
    client.stream.shutdown().await.unwrap();
    soon(Duration::from_millis(250), "the abort", || {
        model.seen.open() == 0
    })
    .await;
    drop(client);
    until("everything to be over", || proxy.open() == 0).await;
}
