//! `WebSocket`s: the tunnel opens only for a proper handshake, and is one request until both sides are done.

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::Duration,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    model::{self, Model},
    raw::{Raw, get, post},
    rig::{activator, addressed, front, pod, soon, until, within},
};

pub(crate) const ASK: &str = "connection: keep-alive, Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const ACCEPT: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nhello";

/// Accepts every upgrade, says hello, then echoes until the other side is done and says bye.
pub(crate) async fn echoing() -> Model {
    Model::raw(echo).await
}

/// The same over TLS.
pub(crate) async fn echoing_over(tls: TlsAcceptor) -> Model {
    Model::raw(move |stream| {
        let tls = tls.clone();
        async move {
            if let Ok(stream) = tls.accept(stream).await {
                echo(stream).await;
            }
        }
    })
    .await
}

async fn echo(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    assert!(head.contains("upgrade: websocket\r\n"), "{head}");
    assert!(head.contains("connection: upgrade\r\n"), "{head}");
    stream.write_all(ACCEPT).await.unwrap();
    stream.flush().await.unwrap();
    let (mut from, mut to) = tokio::io::split(stream);
    let _gone = tokio::io::copy(&mut from, &mut to).await;
    let _gone = to.write_all(b"bye").await;
    let _gone = to.shutdown().await;
}

#[tokio::test]
async fn a_tunnel_carries_bytes_both_ways_and_counts_until_both_sides_are_done() {
    let model = echoing().await;
    let proxy = pod(model.address, 1).await;
    for (listener, lines) in [
        (front(&proxy), String::new()),
        (activator(&proxy), addressed()),
    ] {
        let mut client = Raw::sent(listener, get("/ws", &format!("{lines}{ASK}"))).await;
        let head = client.head().await;
        assert_eq!(head.status, 101);
        assert_eq!(head.header("upgrade"), Some("websocket"));
        assert_eq!(
            head.header("sec-websocket-accept"),
            Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        );
        assert_eq!(client.exact(5).await, "hello");
        // Bytes that are no HTTP, and many of them.
        for message in [&b"\x81\x05\x00\xff\r\n\r\n"[..], &vec![7; 300_000]] {
            client.send(message).await;
            assert_eq!(client.exact(message.len()).await, message);
        }
        assert_eq!((proxy.open(), proxy.load()), (1, 1));
        // One side done: the other goes on.
        client.stream.shutdown().await.unwrap();
        assert_eq!(client.rest().await, "bye");
        soon(Duration::from_millis(250), "the end of the tunnel", || {
            proxy.open() == 0
        })
        .await;
    }
}

#[tokio::test]
async fn a_tunnel_keeps_its_slot_and_a_client_that_vanishes_frees_it() {
    let model = echoing().await;
    let proxy = pod(model.address, 1).await;
    let mut client = Raw::sent(front(&proxy), get("/ws", ASK)).await;
    client.head().await;
    let mut next = Raw::sent(front(&proxy), get("/ws", ASK)).await;
    until("the next to wait", || proxy.stats().gauges() == (1, 1)).await;
    drop(client);
    assert_eq!(within("the slot", next.head()).await.status, 101);
    drop(next);
    until("the end", || proxy.open() == 0).await;
    until("the model's end", || model.seen.open() == 0).await;
}

#[tokio::test]
async fn a_model_that_closes_its_side_closes_the_client_s() {
    let model = Model::raw(|mut stream| async move {
        let _head = stream.read(&mut [0; 4096]).await;
        stream.write_all(ACCEPT).await.unwrap();
    })
    .await;
    let proxy = pod(model.address, 1).await;
    let mut client = Raw::sent(front(&proxy), get("/ws", ASK)).await;
    assert_eq!(client.head().await.status, 101);
    assert_eq!(client.rest().await, "hello");
    drop(client);
    until("the end", || proxy.open() == 0).await;
}

#[tokio::test]
async fn a_handshake_that_breaks_the_rules_is_a_400_and_reaches_nobody() {
    let model = Model::ok().await;
    let proxy = pod(model.address, 0).await;
    for (from, to) in [
        ("dGhlIHNhbXBsZSBub25jZQ==", "short"),
        ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZ!=="),
        ("version: 13", "version: 8"),
        ("sec-websocket-key", "sec-websocket-nokey"),
        (
            "upgrade: websocket\r\n",
            "upgrade: websocket\r\ncontent-length: 3\r\n",
        ),
    ] {
        let request = get("/ws", &ASK.replace(from, to));
        let answer = Raw::sent(front(&proxy), request).await.answer().await;
        assert_eq!(answer.status, 400, "{to}");
    }
    assert_eq!(model.seen.connections(), 0);
}

#[tokio::test]
async fn other_upgrades_and_refused_ones_are_ordinary_requests() {
    let model = Model::ok().await;
    let proxy = pod(model.address, 0).await;
    let mut client = Raw::connect(front(&proxy)).await;
    for lines in [
        "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n",
        "connection: upgrade\r\nupgrade: my-protocol\r\n",
        "upgrade: websocket\r\n",
        ASK,
    ] {
        client.send(get("/", lines)).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.text()), (200, "ok"), "{lines}");
        assert_eq!(model.seen.last().contains_key("upgrade"), lines == ASK);
    }
    until("the end", || proxy.open() == 0).await;
}

#[tokio::test]
async fn a_body_behind_an_upgrade_that_is_ignored_reaches_the_model_whole() {
    let model = Model::start(|request| async { model::echo(request) }).await;
    let proxy = pod(model.address, 1).await;
    let mut client = Raw::connect(front(&proxy)).await;
    for lines in [
        "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n",
        "upgrade: h2c\r\n",
    ] {
        client.send(post("/", lines, "a body")).await;
        assert_eq!(client.answer().await.text(), "a body", "{lines}");
        let chunked = format!("{lines}transfer-encoding: chunked\r\n");
        client.send(get("/", &chunked).replace("GET", "POST")).await;
        client.send("3\r\nabc\r\n0\r\n\r\n").await;
        assert_eq!(client.answer().await.text(), "abc", "{lines}");
    }
    until("the end", || proxy.open() == 0).await;
}

#[tokio::test]
async fn bytes_sent_before_the_handshake_is_answered_are_kept_for_the_tunnel() {
    let model = echoing().await;
    let proxy = pod(model.address, 1).await;
    for eager in [&b"\x81\x85early"[..], b"GET / HTTP/1.1\r\nhost: b\r\n\r\n"] {
        let mut client =
            Raw::sent(front(&proxy), [get("/ws", ASK).as_bytes(), eager].concat()).await;
        assert_eq!(client.head().await.status, 101);
        assert_eq!(client.exact(5).await, "hello");
        assert_eq!(client.exact(eager.len()).await, eager);
    }
    // If the model declines, they are what they look like.
    let model = Model::ok().await;
    let proxy = pod(model.address, 1).await;
    let next = get("/next", "");
    let mut client = Raw::sent(front(&proxy), format!("{}{next}", get("/ws", ASK))).await;
    assert_eq!(client.answer().await.status, 200);
    assert_eq!(client.answer().await.status, 200);
    assert_eq!(model.seen.paths(), ["/ws", "/next"]);
    let mut client = Raw::sent(front(&proxy), format!("{}\x01rubbish", get("/ws", ASK))).await;
    assert_eq!(client.answer().await.status, 200);
    assert_eq!(client.answer().await.status, 400);
}
