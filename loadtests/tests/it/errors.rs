//! Every way to fail is told apart.

use crate::server::{OK, http, ok, raw, read_head, run, write};
use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use loadtests::config::{Expect, Limit, Load};
use loadtests::plan::Arrivals;
use loadtests::record::ErrorKind;
use loadtests::unit::Rate;
use loadtests::{Config, Report};
use std::future::pending;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::sleep;

fn closed(url: &str, requests: u64) -> Config {
    let mut config = Config::new(url).unwrap();
    config.load = Load::Closed(Limit::Requests(requests));
    config.timeout = Duration::from_secs(5);
    config
}

#[track_caller]
fn assert_only(report: &Report, kind: ErrorKind, count: u64) {
    assert_eq!(report.summary.errors, [(kind, count)].into(), "{report:#?}");
}

fn status(code: u16) -> Response<Full<Bytes>> {
    Response::builder()
        .status(code)
        .body(Full::default())
        .unwrap()
}

#[tokio::test]
async fn a_refused_connection_is_a_connect_error() {
    let address = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let report = run(closed(&format!("http://{address}/"), 5)).await;
    assert_only(&report, ErrorKind::Connect, 5);
    assert_eq!(
        (report.summary.successes, report.summary.latency.p50),
        (0, None)
    );
}

#[tokio::test]
async fn silence_is_a_timeout_after_the_timeout() {
    let url = http(|_| pending()).await;
    let config = Config {
        timeout: Duration::from_millis(150),
        ..closed(&url, 3)
    };
    let report = run(config).await;
    assert_only(&report, ErrorKind::Timeout, 3);
    let p50 = report.summary.failed_latency.p50.unwrap();
    assert!((0.15..0.4).contains(&p50), "{p50}");
}

#[tokio::test]
async fn a_body_that_stalls_is_a_timeout_too() {
    let url = raw(|mut stream| async move {
        read_head(&mut stream).await;
        write(
            &mut stream,
            b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nstart",
        )
        .await;
        pending::<()>().await;
    });
    let config = Config {
        timeout: Duration::from_millis(150),
        ..closed(&url.await, 2)
    };
    let report = run(config).await;
    assert_only(&report, ErrorKind::Timeout, 2);
    assert_eq!(report.status, [("200".into(), 2)].into());
}

#[tokio::test]
async fn unexpected_statuses_are_errors_by_class() {
    for (code, kind) in [
        (304, ErrorKind::Status3xx),
        (404, ErrorKind::Status4xx),
        (503, ErrorKind::Status5xx),
    ] {
        let url = http(move |_| async move { status(code) }).await;
        let report = run(closed(&url, 4)).await;
        assert_only(&report, kind, 4);
        assert_eq!(report.status, [(code.to_string(), 4)].into());
        assert_eq!(
            report.summary.connections_opened, 1,
            "a status does not cost the connection"
        );
    }
}

#[tokio::test]
async fn the_expected_status_is_the_only_success() {
    let url = http(|_| async { status(404) }).await;
    let report = run(Config {
        expect: Expect::Status(404),
        ..closed(&url, 4)
    })
    .await;
    assert_eq!(
        (report.summary.successes, report.summary.error_count),
        (4, 0)
    );
    let url = http(|_| async { ok() }).await;
    assert_only(
        &run(Config {
            expect: Expect::Status(404),
            ..closed(&url, 4)
        })
        .await,
        ErrorKind::Status2xx,
        4,
    );
}

#[tokio::test]
async fn a_close_instead_of_the_first_response_is_closed_fresh() {
    let url = raw(|mut stream| async move {
        read_head(&mut stream).await;
    });
    assert_only(&run(closed(&url.await, 3)).await, ErrorKind::ClosedFresh, 3);
}

#[tokio::test]
async fn a_close_instead_of_the_second_response_is_closed_reused() {
    let url = raw(|mut stream| async move {
        read_head(&mut stream).await;
        write(&mut stream, OK).await;
        read_head(&mut stream).await;
    });
    let report = run(closed(&url.await, 6)).await;
    assert_only(&report, ErrorKind::ClosedReused, 3);
    assert_eq!(
        report.summary.successes, 3,
        "each second request fails, and none is sent again"
    );
}

#[tokio::test]
async fn a_connection_closed_while_idle_is_no_error() {
    let url = raw(|mut stream| async move {
        read_head(&mut stream).await;
        write(&mut stream, OK).await;
    });
    let mut config = Config::new(&url.await).unwrap();
    config.load = Config::steady(
        Rate::new(20.0).unwrap(),
        Duration::from_millis(500),
        Arrivals::Constant,
        1,
    );
    let report = run(config).await;
    assert_eq!(
        (report.summary.successes, report.summary.error_count),
        (10, 0),
        "{report:#?}"
    );
    assert_eq!(report.summary.connections_opened, 10);
}

#[tokio::test]
async fn a_head_that_is_not_http_is_a_protocol_error() {
    for head in [
        &b"SSH-2.0-server\r\n\r\n"[..],
        b"HTTP/1.1 200 OK\r\ncontent-le",
    ] {
        let url = raw(move |mut stream| async move {
            read_head(&mut stream).await;
            write(&mut stream, head).await;
        });
        assert_only(&run(closed(&url.await, 3)).await, ErrorKind::Protocol, 3);
    }
}

#[tokio::test]
async fn a_body_cut_short_is_a_body_error_with_its_status() {
    let url = raw(|mut stream| async move {
        read_head(&mut stream).await;
        write(
            &mut stream,
            b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nstart",
        )
        .await;
    });
    let report = run(closed(&url.await, 3)).await;
    assert_only(&report, ErrorKind::Body, 3);
    assert_eq!(report.status, [("200".into(), 3)].into());
}

#[tokio::test]
async fn what_cannot_wait_is_dropped_and_counted() {
    let url = http(|_| async {
        sleep(Duration::from_millis(300)).await;
        ok()
    });
    let mut config = Config {
        max_waiting: 2,
        ..Config::new(&url.await).unwrap()
    };
    config.load = Config::steady(
        Rate::new(100.0).unwrap(),
        Duration::from_millis(200),
        Arrivals::Constant,
        1,
    );
    let report = run(config).await;
    let summary = &report.summary;
    assert_eq!(
        (summary.requests, summary.successes),
        (20, 3),
        "one in flight and two in line, of twenty: {report:#?}"
    );
    assert_only(&report, ErrorKind::Dropped, 17);
    assert_eq!(
        report
            .pacing
            .as_ref()
            .map(|pacing| (pacing.dropped, pacing.waited.count)),
        Some((17, 2))
    );
}

#[tokio::test]
async fn http2_serves_and_fails_like_http1() {
    let url = http(|request| async move {
        assert_eq!(request.version(), http::Version::HTTP_2);
        ok()
    });
    let report = run(Config {
        http2: true,
        connections: 4,
        ..closed(&url.await, 40)
    })
    .await;
    assert_eq!(
        (report.summary.successes, report.summary.connections_opened),
        (40, 4),
        "{report:#?}"
    );
    let url = http(|_| pending()).await;
    let config = Config {
        http2: true,
        timeout: Duration::from_millis(150),
        ..closed(&url, 2)
    };
    assert_only(&run(config).await, ErrorKind::Timeout, 2);
    let url = raw(|mut stream| async move {
        sleep(Duration::from_millis(50)).await;
        read_head(&mut stream).await; // the preface ends like a head
    });
    assert_only(
        &run(Config {
            http2: true,
            ..closed(&url.await, 2)
        })
        .await,
        ErrorKind::ClosedFresh,
        2,
    );
}
