//! What is sent, and what a response has to say.

use std::{collections::BTreeSet, sync::Arc};

use http::{Method, Response};
use http_body_util::Full;
use loadtests::{
    Config, Report,
    check::{Check, JsonCheck},
    config::{Limit, Load},
    payload::Payload,
    record::ErrorKind,
};
use parking_lot::Mutex;

use crate::server::{http, ok, run};

fn closed(url: &str, requests: u64) -> Config {
    let mut config = Config::new(url).unwrap();
    config.load = Load::Closed(Limit::Requests(requests));
    config.connections = 4;
    config
}

/// A server that keeps the bodies that came.
async fn keeping() -> (String, Arc<Mutex<Vec<String>>>) {
    let came = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&came);
    let url = http(move |request| {
        let body = String::from_utf8(request.into_body().to_vec()).unwrap();
        log.lock().push(body);
        async { ok() }
    })
    .await;
    (url, came)
}

#[tokio::test]
async fn each_request_has_the_body_that_is_its_own() {
    for http2 in [false, true] {
        let (url, came) = keeping().await;
        let mut config = closed(&url, 40);
        (config.method, config.http2) = (Method::POST, http2);
        config.body = Payload::template("{\"n\": {{n}}, \"to\": \"{{pick a|b}}\"}", 1).unwrap();
        let report = run(config).await;
        assert_eq!(
            (report.summary.successes, report.config.bodies.as_str()),
            (40, "template")
        );
        let came: BTreeSet<_> = came.lock().iter().cloned().collect();
        assert_eq!(came.len(), 40);
        for (number, word) in [(0, "{\"n\": 0, "), (39, "{\"n\": 39, ")] {
            assert!(
                came.iter().any(|body| body.starts_with(word)),
                "{number}: {came:?}"
            );
        }
    }
    let (url, came) = keeping().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "one\ntwo\nthree\n").unwrap();
    let mut config = closed(&url, 30);
    config.method = Method::POST;
    config.body = Payload::lines("--bodies", file.path()).unwrap();
    assert_eq!(run(config).await.summary.successes, 30);
    let came = came.lock();
    for line in ["one", "two", "three"] {
        assert_eq!(
            came.iter().filter(|body| *body == line).count(),
            10,
            "{came:?}"
        );
    }
}

/// Answers 200 with this body.
async fn saying(body: &'static str) -> String {
    http(move |_| async move { Response::new(Full::new(body.into())) }).await
}

async fn checked(url: &str, http2: bool, checks: &[Check]) -> Report {
    let mut config = closed(url, 8);
    config.http2 = http2;
    config.checks = checks.to_vec();
    run(config).await
}

#[tokio::test]
async fn a_good_status_with_a_bad_body_is_an_error_of_its_own() {
    let JsonCheck(right) = "/predictions/0=1".parse().unwrap();
    let text = Check::Contains("predictions".to_owned());
    let good = saying("{\"predictions\": [1]}").await;
    let bad = saying("{\"predictions\": [], \"error\": \"out of memory\"}").await;
    let both = [right, text.clone()];
    for http2 in [false, true] {
        let report = checked(&good, http2, &both).await;
        assert_eq!(
            (report.summary.successes, report.config.checks),
            (8, 2),
            "{report:?}"
        );
        let report = checked(&bad, http2, &both).await;
        assert_eq!(report.summary.errors, [(ErrorKind::Content, 8)].into());
        assert_eq!(report.status["200"], 8);
        let report = checked(&bad, http2, std::slice::from_ref(&text)).await;
        assert_eq!(report.summary.successes, 8);
    }
    // What is too long to be looked at does not pass, and its bytes are counted all the same.
    let long: &'static str =
        Box::leak(format!("predictions{}", "x".repeat(1024 * 1024)).into_boxed_str());
    let url = saying(long).await;
    for http2 in [false, true] {
        let report = checked(&url, http2, std::slice::from_ref(&text)).await;
        assert_eq!(report.summary.errors, [(ErrorKind::Content, 8)].into());
        assert!(report.reasons[&ErrorKind::Content].contains("longer than 1 MiB"));
        assert_eq!(report.summary.body_bytes, 8 * long.len() as u64);
    }
}

#[tokio::test]
async fn a_connection_is_closed_after_as_many_requests_as_were_asked_for() {
    for (most, connections) in [(1, 12), (3, 4), (100, 1)] {
        for http2 in [false, true] {
            let closes = Arc::new(Mutex::new(0));
            let count = Arc::clone(&closes);
            let url = http(move |request| {
                let says = request
                    .headers()
                    .get("connection")
                    .is_some_and(|v| v == "close");
                *count.lock() += u32::from(says);
                async { ok() }
            })
            .await;
            let mut config = closed(&url, 12);
            config.connections = 1;
            config.http2 = http2;
            config.connection_requests = Some(most);
            let report = run(config).await;
            assert_eq!(
                (report.summary.successes, report.summary.error_count),
                (12, 0)
            );
            assert_eq!(
                report.summary.connections_opened, connections,
                "{most} {http2}"
            );
            let wanted = if most == 1 && !http2 { 12 } else { 0 };
            assert_eq!(*closes.lock(), wanted, "{most} {http2}");
        }
    }
}
