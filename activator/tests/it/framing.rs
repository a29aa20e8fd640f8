//! Malformed requests over raw sockets while the workload sleeps: refused, and nobody is woken by them.

use std::time::Duration;

use tokio::{io::AsyncWriteExt as _, time::Instant};

use crate::{
    bed::{Bed, Pod, until},
    http1::{Raw, ask, get},
};

const ROWS: &[(&str, u16)] = &[
    (
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\nhello",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +5\r\n\r\nhello",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5,5\r\n\r\nhello",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\t\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    ("GET / HTTP/1.1\nhost: a\n\n", 400),
    ("GET / HTTP/1.1\r\nhost: a\r\nx: a\rb\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nhost: a\r\nx: a\0b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nhost: a\r\nx: a\r\n folded\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nhost : a\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nhost: user@a\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nhost: a..b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nhost: a/b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nhost: a:port\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nhost: a:70000\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nhost: a\r\nx: \u{fc}\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nhost: a\r\nx\u{fc}: a\r\n\r\n", 400),
    (
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: \u{ff}\r\n\r\n",
        400,
    ),
    ("GET / HTTP/1.1\r\nhost: a\r\nno colon\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nhost: a\r\n: no name\r\n\r\n", 400),
    ("G@T / HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    ("GET  / HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    ("GET ftp://a/ HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    ("GET http://b/ HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    ("OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    ("CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\n", 405),
    ("TRACE / HTTP/1.1\r\nhost: a\r\n\r\n", 405),
    ("GET / HTTP/2.7\r\nhost: a\r\n\r\n", 505),
    (
        "POST / HTTP/1.1\r\nhost: a\r\nexpect: tea\r\ncontent-length: 1\r\n\r\n",
        417,
    ),
];

/// As bytes, each character one: an attacker's header is no UTF-8.
fn latin1(text: &str) -> Vec<u8> {
    text.chars()
        .map(|c| u8::try_from(u32::from(c)).unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_requests_are_refused_and_wake_nobody() {
    let bed = Bed::new();
    let site = bed.site("a", |_| {});
    for (bytes, status) in ROWS {
        // What is smuggled behind it must not be read as a request either.
        let message = format!("{bytes}{}", get("/smuggled", "x"));
        let mut raw = Raw::sent(site.address(), latin1(&message)).await;
        let answer = raw.answer().await.expect(bytes);
        assert_eq!(answer.status, *status, "{bytes:?}");
        assert!(raw.ends().await, "{bytes:?}");
    }
    let long = format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "x".repeat(64 * 1024));
    assert_eq!(ask(site.address(), long).await.status, 414);
    let fields = "x: y\r\n".repeat(101);
    assert_eq!(
        ask(
            site.address(),
            format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}\r\n")
        )
        .await
        .status,
        431
    );
    let big = format!("x: {}\r\n", "y".repeat(17 * 1024));
    assert_eq!(
        ask(
            site.address(),
            format!("GET / HTTP/1.1\r\nhost: a\r\n{big}\r\n")
        )
        .await
        .status,
        431
    );
    assert_eq!((bed.scale.count(), site.workload.held()), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunked_body_that_is_malformed_while_it_is_held_ends_its_request() {
    let bed = Bed::new();
    let site = bed.site("a", |_| {});
    let extension = format!("1;{}\r\na\r\n", "e".repeat(1_000_000));
    let trailers = format!("0\r\n{}\r\n", "x: y\r\n".repeat(10_000));
    for bad in [
        "zz\r\n",
        "ffffffffffffffff0\r\n",
        "1\r\nab\r\n",
        "1\nab",
        "0\r\nbad trailer\r\n\r\n",
        &extension,
        &trailers,
    ] {
        let head = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n";
        let mut raw = Raw::sent(site.address(), head).await;
        site.holds(1).await;
        // It may have enough before the last byte.
        let _refused = raw.stream.write_all(bad.as_bytes()).await;
        if let Some(answer) = raw.answer().await {
            assert_eq!(answer.status, 400, "{bad:?}");
        }
        until("nobody held", || site.workload.held() == 0).await;
    }
    // Nobody was sent on.
    let pod = Pod::start("p", 0);
    site.pods(&[&pod]);
    assert_eq!(ask(site.address(), get("/", "good")).await.status, 200);
    assert_eq!(pod.model.ids(), ["good"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_bring_no_request_in_time_are_closed_and_wake_nobody() {
    let bed = Bed::with(|c| {
        c.serve.timeouts.first_byte = Duration::from_millis(200);
        c.serve.timeouts.head = Duration::from_millis(300);
    });
    let site = bed.site("a", |_| {});
    for (sent, least, status) in [
        ("", 200, None),
        ("PRI * HTTP/2.0\r\n\r\nSM", 200, None),
        ("GET / HTTP/1.1\r\nhost: ", 300, Some(408)),
    ] {
        let began = Instant::now();
        let mut raw = Raw::sent(site.address(), sent).await;
        assert_eq!(
            raw.answer().await.map(|answer| answer.status),
            status,
            "{sent}"
        );
        assert!(raw.ends().await, "{sent}");
        assert!(
            began.elapsed() >= Duration::from_millis(least - 5),
            "{sent}"
        );
    }
    assert_eq!((bed.scale.count(), site.workload.held()), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_header_of_a_client_makes_its_request_another_one() {
    let bed = Bed::new();
    let site = bed.site("a", |_| {});
    let pod = Pod::start("p", 1);
    site.pods(&[&pod]);
    site.ready().await;
    let via = format!("via: {}1.1 x\r\n", "1.1 x, ".repeat(1_000));
    for (id, fields) in [
        (
            "named",
            "connection: close, x-forwarded-for, host, content-length\r\n",
        ),
        (
            "knative",
            "k-network-probe: probe\r\nk-kubelet-probe: x\r\nk-proxy-request: activator\r\nuser-agent: kube-probe/1.36\r\n",
        ),
        (
            "original",
            "k-original-host: evil\r\nx-forwarded-host: evil\r\n",
        ),
        ("via", &via),
    ] {
        let request = format!(
            "POST / HTTP/1.1\r\nhost: t\r\nx-id: {id}\r\n{fields}content-length: 4\r\n\r\nbody"
        );
        let answer = ask(site.address(), request).await;
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, "body"),
            "{id}"
        );
        let seen = pod.model.entry(id);
        assert_eq!(seen.headers["host"], "t", "{id}");
        assert_eq!(seen.headers["x-forwarded-for"], "127.0.0.1", "{id}");
        assert_eq!(seen.headers["x-forwarded-host"], "t", "{id}");
        assert_eq!(seen.headers["content-length"], "4", "{id}");
    }
    let many = get("/", "x").replace(
        "\r\n\r\n",
        &format!("\r\n{}\r\n", "via: 1.1 x\r\n".repeat(1_000)),
    );
    assert_eq!(ask(site.address(), many).await.status, 431);
    assert_eq!(pod.model.ids().len(), 4);
    assert_eq!(pod.proxy.stats().totals(), (4, 4), "counted like any other");
}
