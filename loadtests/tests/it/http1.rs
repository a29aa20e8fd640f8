//! HTTP/1.1 as servers speak it.

use std::{sync::Arc, sync::atomic::AtomicUsize, sync::atomic::Ordering::Relaxed, time::Duration};

use http::Method;
use loadtests::{
    Config, Report,
    config::{Limit, Load},
    record::ErrorKind,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::server::{http, ok, raw, read_head, run, write};

async fn closed(url: &str, requests: u64) -> Report {
    let mut config = Config::new(url).unwrap();
    config.load = Load::Closed(Limit::Requests(requests));
    config.timeout = Duration::from_secs(5);
    run(config).await
}

/// Answers each request of a connection with the next of these, over and over.
async fn answers(parts: &'static [&'static [u8]]) -> String {
    raw(move |mut stream: TcpStream| async move {
        while read_head(&mut stream).await {
            for part in parts {
                write(&mut stream, part).await;
                // So that each comes by itself.
                sleep(Duration::from_millis(5)).await;
            }
        }
    })
    .await
}

/// Answers in the pieces in which they come, and the bytes of their bodies.
const FORMS: &[(&[&[u8]], u64)] = &[
        (&[b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"], 5),
        (&[b"HTTP/1.1 200 OK\r\nContent-", b"Length: 5\r\n\r", b"\nhel", b"lo"], 5),
        (&[b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhel", b"lo\r\n0\r\na: b\r\n", b"\r\n"], 5),
        (&[b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"], 0),
        (&[b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok"], 2),
        (&[b"HTTP/1.1 204 No Content\r\n\r\n"], 0),
];

#[tokio::test]
async fn answers_of_every_form_are_read_to_their_end_and_the_connection_is_kept() {
    for (parts, bytes) in FORMS {
        let (parts, bytes) = (*parts, *bytes);
        let report = closed(&answers(parts).await, 4).await;
        let summary = &report.summary;
        assert_eq!(
            (summary.successes, summary.error_count),
            (4, 0),
            "{parts:?}: {report:?}"
        );
        assert_eq!(summary.body_bytes, 4 * bytes, "{parts:?}");
        assert_eq!(summary.connections_opened, 1, "{parts:?}");
    }
}

#[tokio::test]
async fn a_connection_that_ends_or_says_more_than_it_was_asked_is_not_used_again() {
    for answer in [
        &b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok"[..],
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    ] {
        let url = raw(move |mut stream| async move {
            while read_head(&mut stream).await {
                write(&mut stream, answer).await;
            }
        });
        let report = closed(&url.await, 3).await;
        let summary = &report.summary;
        assert_eq!((summary.successes, summary.error_count), (3, 0), "{report:?}");
        assert_eq!((summary.connections_opened, summary.body_bytes), (3, 6), "{answer:?}");
    }
    // A body that ends with its connection is whole.
    let url = raw(|mut stream| async move {
        read_head(&mut stream).await;
        write(&mut stream, b"HTTP/1.1 200 OK\r\n\r\nall of it").await;
    });
    let report = closed(&url.await, 2).await;
    assert_eq!(
        (report.summary.successes, report.summary.body_bytes),
        (2, 18)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn large_bodies_go_both_ways() {
    let came = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&came);
    let url = http(move |request| {
        count.fetch_add(request.body().len(), Relaxed);
        let body = request.into_body();
        async move { http::Response::new(http_body_util::Full::new(body)) }
    })
    .await;
    let mut config = Config::new(&url).unwrap();
    config.load = Load::Closed(Limit::Requests(5));
    config.method = Method::POST;
    config.body = vec![7; 3_000_000].into();
    let report = run(config).await;
    assert_eq!(
        (report.summary.successes, report.summary.error_count),
        (5, 0)
    );
    assert_eq!(report.summary.body_bytes, 15_000_000);
    assert_eq!(came.load(Relaxed), 15_000_000);
    assert_eq!(report.summary.connections_opened, 1);
}

/// A server that answers before it has read the body, and does not read the rest.
#[tokio::test]
async fn an_answer_that_comes_before_the_body_was_sent_counts() {
    let url = raw(|mut stream| async move {
        read_head(&mut stream).await;
        write(
            &mut stream,
            b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n",
        )
        .await;
        sleep(Duration::from_secs(1)).await;
        let _rest = stream.read(&mut [0; 1]).await;
    });
    let mut config = Config::new(&url.await).unwrap();
    config.load = Load::Closed(Limit::Requests(2));
    config.method = Method::POST;
    config.body = vec![7; 30_000_000].into();
    let report = run(config).await;
    assert_eq!(report.status, [("413".to_owned(), 2)].into(), "{report:?}");
    assert_eq!(report.summary.connections_opened, 2);
}

#[tokio::test]
async fn the_request_is_what_was_asked_for() {
    let url = http(|request| {
        let (head, body) = request.into_parts();
        let length = head.headers.get("content-length").cloned();
        let is_right = match head.method.as_str() {
            "HEAD" => body.is_empty() && length.is_none(),
            "POST" => length.is_some_and(|length| length == "0") && body.is_empty(),
            "PUT" => &body[..] == b"abc",
            _ => false,
        };
        let host = head.headers["host"]
            .to_str()
            .unwrap()
            .starts_with("127.0.0.1:");
        let is_right = is_right && host && head.uri == "/a?b=c" && head.headers["x-a"] == "1";
        async move {
            let mut answer = ok();
            if !is_right {
                *answer.status_mut() = http::StatusCode::BAD_REQUEST;
            }
            answer
        }
    })
    .await;
    for (method, body) in [("HEAD", ""), ("POST", ""), ("PUT", "abc")] {
        let mut config = Config::new(&format!("{url}a?b=c")).unwrap();
        config.load = Load::Closed(Limit::Requests(2));
        config.method = method.parse().unwrap();
        config.body = body.into();
        config.headers.insert("x-a", "1".parse().unwrap());
        let report = run(config).await;
        assert_eq!(report.summary.successes, 2, "{method}: {report:?}");
        assert_eq!(report.summary.connections_opened, 1, "{method}");
    }
}

/// Whoever always has something more to say is not let off the timeout by it.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_answer_that_never_begins_or_never_ends_is_a_timeout() {
    const INTERIM: &str = "HTTP/1.1 100 Continue\r\n\r\n";
    for (head, more) in [
        ("", INTERIM),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            "1\r\na\r\n",
        ),
    ] {
        let url = raw(move |mut stream| async move {
            read_head(&mut stream).await;
            write(&mut stream, head.as_bytes()).await;
            let flood = more.repeat(5_000);
            while stream.write_all(flood.as_bytes()).await.is_ok() {}
        });
        let mut config = Config::new(&url.await).unwrap();
        config.load = Load::Closed(Limit::Requests(2));
        config.timeout = Duration::from_millis(300);
        let report = timeout(Duration::from_secs(20), run(config)).await.unwrap();
        assert_eq!(
            report.summary.errors,
            [(ErrorKind::Timeout, 2)].into(),
            "{more}"
        );
    }
}

#[tokio::test]
async fn a_body_that_ends_in_a_reset_is_broken_although_nobody_said_how_long_it_is() {
    let url = raw(|mut stream| async move {
        read_head(&mut stream).await;
        write(&mut stream, b"HTTP/1.1 200 OK\r\n\r\npart of it").await;
        // What was not read yet would go with the connection.
        sleep(Duration::from_millis(100)).await;
        stream.set_zero_linger().unwrap();
    });
    let report = closed(&url.await, 2).await;
    assert_eq!(
        report.summary.errors,
        [(ErrorKind::Body, 2)].into(),
        "{report:?}"
    );
}
