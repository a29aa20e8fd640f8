//! Malformed requests over raw sockets while the workload sleeps: refused, and nobody is woken by them.

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_requests_are_refused_and_wake_nobody() {
    let bed = Bed::new();
    let site = bed.site("a", |_| {});
    for (bytes, status) in ROWS {
        // What is smuggled behind it must not be read as a request either.
        let mut raw = Raw::sent(site.address(), format!("{bytes}{}", get("/smuggled", "x"))).await;
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
    for bad in ["zz\r\n", "ffffffffffffffff0\r\n", "1\r\nab\r\n"] {
        let head = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n";
        let mut raw = Raw::sent(site.address(), head).await;
        site.holds(1).await;
        raw.send(bad).await;
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
