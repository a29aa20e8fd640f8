//! Sockets (RFC 6455) through both hops.

use std::time::Duration;

use crate::{
    bed::{Bed, Pod, until},
    http1::{Raw, ask, get},
};

pub(crate) const HANDSHAKE: &str = "GET /socket HTTP/1.1\r\nhost: t\r\nx-id: ws\r\nconnection: keep-alive, Upgrade\r\n\
    upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_that_was_held_opens_when_there_is_a_pod_and_keeps_its_place_until_it_ends() {
    let bed = Bed::new();
    let site = bed.site("a", |c| c.container_concurrency = 1);
    let mut socket = Raw::sent(site.address(), HANDSHAKE).await;
    site.holds(1).await;
    let pod = Pod::start("p", 1);
    site.pods(&[&pod]);
    let answer = socket.answer().await.unwrap();
    assert_eq!(answer.status, 101);
    assert_eq!(
        answer.header("sec-websocket-accept"),
        Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    );
    for i in 0_u8..10 {
        // Bytes that no HTTP reader would let pass.
        let bytes = vec![i, 0, 255, b'\n', 13, 10, 13, 10];
        socket.send(&bytes).await;
        assert_eq!(socket.exactly(bytes.len()).await.unwrap(), bytes);
    }
    let waiting = tokio::spawn(ask(site.address(), get("/", "next")));
    site.holds(1).await;
    assert_eq!(pod.proxy.open(), 1);
    drop(socket);
    assert_eq!(waiting.await.unwrap().status, 200);
    until("the slot is free", || pod.proxy.open() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_sockets_live_beside_each_other_and_are_cut_at_the_end() {
    let bed = Bed::new();
    let site = bed.site("a", |_| {});
    let pod = Pod::start("p", 0);
    site.pods(&[&pod]);
    site.ready().await;
    let mut sockets = Vec::new();
    for _ in 0..50 {
        let mut socket = Raw::sent(site.address(), HANDSHAKE).await;
        assert_eq!(socket.answer().await.unwrap().status, 101);
        sockets.push(socket);
    }
    assert_eq!(pod.proxy.open(), 50);
    for socket in &mut sockets {
        socket.send(b"ping").await;
        assert_eq!(socket.exactly(4).await.unwrap(), b"ping");
    }
    bed.activator.stop(Duration::from_millis(200)).await;
    for socket in &mut sockets {
        assert!(socket.ends().await);
    }
    until("none at the pod", || pod.proxy.open() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_malformed_handshake_is_refused_without_a_wake_and_another_upgrade_is_left_out() {
    let bed = Bed::new();
    let site = bed.site("a", |_| {});
    for (from, to) in [
        ("version: 13", "version: 8"),
        ("bm9uY2U=", "bm9uY"),
        ("bm9uY2UZQ==", "x"),
        ("GET", "POST"),
    ] {
        let bad = HANDSHAKE.replace(from, to);
        if bad != HANDSHAKE {
            assert_eq!(ask(site.address(), bad).await.status, 400, "{to}");
        }
    }
    assert_eq!(bed.scale.count(), 0);
    let pod = Pod::start("p", 0);
    site.pods(&[&pod]);
    let other = get("/", "h2c").replace(
        "\r\n\r\n",
        "\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
    );
    assert_eq!(ask(site.address(), other).await.status, 200);
    assert!(!pod.model.entry("h2c").headers.contains_key("upgrade"));
}
