//! Waiting until the target is ready.

use crate::command::{interrupted_after, output, text};
use crate::server::{OK, http, ok, raw, read_head, run, write};
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::Response;
use http_body_util::Full;
use loadtests::config::{Limit, Load};
use loadtests::protocol::Protocol;
use loadtests::ready::Ready;
use loadtests::{Config, Error, Report};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;

fn status(code: u16) -> Response<Full<Bytes>> {
    Response::builder()
        .status(code)
        .body(Full::default())
        .unwrap()
}

fn waiting(url: &str, within: Duration, path: Option<&str>) -> Config {
    let mut config = Config::new(url).unwrap();
    config.load = Load::Closed(Limit::Requests(5));
    config.ready = Some(Ready {
        within,
        path: path.map(str::to_owned),
    });
    config
}

/// An address at which nothing listens, nor will: no test is given a port below 1024.
const NOWHERE: &str = "http://127.0.0.1:1/";

#[tokio::test]
async fn nothing_is_sent_before_the_probe_is_answered_well() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let url = http(move |request| {
        let mut log = log.lock();
        log.push(request.uri().path().to_owned());
        let answer = match (request.uri().path(), log.len()) {
            ("/health", 1) => status(503),
            ("/health", 2) => status(302),
            _ => ok(),
        };
        async { answer }
    })
    .await;
    for http2 in [false, true] {
        seen.lock().clear();
        let mut config = waiting(
            &format!("{url}work"),
            Duration::from_mins(1),
            Some("/health"),
        );
        config.http2 = http2;
        let report = run(config).await;
        assert_eq!(report.summary.successes, 5, "{report:?}");
        let wanted = ["/health"; 3].into_iter().chain(["/work"; 5]);
        assert_eq!(*seen.lock(), wanted.collect::<Vec<_>>());
        assert!(report.ready_after.is_some_and(|seconds| seconds >= 0.2));
    }
}

#[tokio::test]
async fn without_a_path_a_connection_is_enough() {
    let url = http(|_| async { status(503) }).await;
    let report = run(waiting(&url, Duration::from_mins(1), None)).await;
    assert_eq!(report.summary.error_count, 5);
    assert!(report.ready_after.is_some());
}

#[tokio::test]
async fn what_is_not_ready_in_time_is_named_with_the_last_reason() {
    let failing = http(|_| async { status(503) }).await;
    for (url, path, reason) in [
        (NOWHERE, None, "refused"),
        (NOWHERE, Some("/health"), "refused"),
        (failing.as_str(), Some("/health"), "it answered 503"),
    ] {
        let (_stop, stopped) = watch::channel(false);
        let config = waiting(url, Duration::from_millis(150), path);
        let error = loadtests::run(config, |_| (), stopped)
            .await
            .expect_err(url);
        assert!(matches!(error, Error::NotReady { .. }) && !error.is_usage());
        let error = error.to_string();
        assert!(error.contains(url) && error.contains(reason), "{error}");
    }
    let ended = output(&[NOWHERE, "--wait-ready", "150ms"]).await;
    let (said, wrong) = (text(&ended.stdout), text(&ended.stderr));
    assert_eq!(
        (ended.status.code(), said.as_str()),
        (Some(1), ""),
        "{wrong}"
    );
    assert!(
        wrong.lines().count() == 1 && wrong.contains("--wait-ready"),
        "{wrong}"
    );
}

#[tokio::test]
async fn a_try_that_the_end_cuts_short_does_not_hide_why_the_one_before_failed() {
    let tries = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&tries);
    let url = http(move |_| {
        let number = count.fetch_add(1, Ordering::Relaxed);
        async move {
            if number > 0 {
                std::future::pending::<()>().await;
            }
            status(503)
        }
    })
    .await;
    let (_stop, stopped) = watch::channel(false);
    let config = waiting(&url, Duration::from_millis(900), Some("/health"));
    let error = loadtests::run(config, |_| (), stopped).await.unwrap_err();
    assert!(error.to_string().contains("it answered 503"), "{error}");
}

#[tokio::test]
async fn paths_that_are_none_are_refused() {
    let ended = output(&[
        "http://127.0.0.1:9/",
        "--wait-ready",
        "1s",
        "--ready-path",
        "health",
    ])
    .await;
    let wrong = text(&ended.stderr);
    assert_eq!(ended.status.code(), Some(2), "{wrong}");
    assert!(
        wrong.contains("--ready-path") && wrong.contains("begins with /"),
        "{wrong}"
    );
}

#[tokio::test]
async fn an_interrupt_ends_the_wait() {
    // Told of the first try: from then on it waits.
    let (tell, tried) = tokio::sync::mpsc::channel(1);
    let url = http(move |_| {
        let _full = tell.try_send(());
        async { status(503) }
    })
    .await;
    let args = [
        "--wait-ready",
        "1h",
        "--ready-path",
        "/health",
        "--json",
        "-",
        &url,
    ];
    let ended = interrupted_after(&args, tried).await;
    assert_eq!(ended.status.code(), Some(130), "{}", text(&ended.stderr));
    let report: Report = serde_json::from_slice(&ended.stdout).unwrap();
    assert!(report.interrupted && report.summary.requests == 0);
}

#[tokio::test]
async fn a_target_of_websocket_is_asked_over_http() {
    let url = raw(|mut stream: TcpStream| async move {
        let mut begin = [0; 11];
        while stream.peek(&mut begin).await.is_ok_and(|bytes| bytes < 11) {}
        if &begin == b"GET /health" {
            while read_head(&mut stream).await {
                write(&mut stream, OK).await;
            }
            return;
        }
        let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        while let Some(Ok(message)) = socket.next().await {
            let _ = socket.send(message).await;
        }
    })
    .await;
    let url = url.replace("http://", "ws://");
    let mut config = waiting(&url, Duration::from_secs(5), Some("/health"));
    config.protocol = Protocol::WebSocket { binary: false };
    let report = run(config).await;
    assert_eq!(report.summary.successes, 5, "{report:?}");
}

#[tokio::test]
async fn a_target_of_grpc_is_asked_for_a_page() {
    let url = http(|request| async move {
        let mut answer = ok();
        if request.uri().path() == "/a.B/C" {
            let fields = [("content-type", "application/grpc"), ("grpc-status", "0")];
            answer = Response::new(Full::default());
            for (name, value) in fields {
                answer.headers_mut().insert(name, value.parse().unwrap());
            }
        } else {
            assert_eq!(request.uri().path(), "/health");
            assert!(request.headers().get("te").is_none());
        }
        answer
    })
    .await;
    let flags = ["--grpc", "a.B/C", "--requests", "5", "--json", "-"];
    let wait = ["--wait-ready", "5s", "--ready-path", "/health", &url];
    let ended = output(&[&flags[..], &wait].concat()).await;
    assert!(ended.status.success(), "{}", text(&ended.stderr));
    let report: Report = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!(report.summary.successes, 5, "{report:?}");
}

#[tokio::test]
async fn files_that_tls_cannot_use_are_not_waited_for() {
    let url = "https://127.0.0.1:9/";
    let ended = output(&[
        url,
        "--tls-ca",
        "/nonexistent",
        "--wait-ready",
        "150ms",
        "--ready-path",
        "/health",
    ])
    .await;
    let wrong = text(&ended.stderr);
    assert_eq!(ended.status.code(), Some(2), "{wrong}");
    assert!(
        wrong.starts_with("--tls-ca") || wrong.contains(" --tls-ca"),
        "{wrong}"
    );
}
