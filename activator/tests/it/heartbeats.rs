//! Signs of life while a request for an event stream is held.

use std::sync::Arc;

use activator::WorkloadConfig;
use autoscaler_core::OptIns;
use http::Request;
use http_body_util::BodyExt;
use shared::metrics::Exporter;
use tokio::time::{Duration, sleep, timeout};

use crate::{
    bed::{Bed, Pod, Site, metrics, outcomes, until},
    fake::Fake,
    h2::{Connection, Frames},
    http1::{PATIENCE, Raw, get, post},
};

const EVERY: Duration = Duration::from_millis(40);
const COMMENT: &str = ": rouse is waking the model\n\n";
const STREAM: &[u8] = br#"{"model":"m","messages":[],"stream": true}"#;
const CHAT: &str = "/v1/as?200&text/event-stream;charset=utf-8";

fn beating(config: &mut WorkloadConfig) {
    config.opt_ins = Some(Arc::new(OptIns {
        sse_heartbeat: Some(EVERY),
        ..OptIns::default()
    }));
}

/// A request for an event stream that has no body.
fn accepting(path: &str, rest: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: t\r\naccept: text/event-stream\r\n{rest}\r\n")
}

/// Reads the head, and two comments, each a chunk of its own.
async fn begins(raw: &mut Raw) {
    let head = String::from_utf8(raw.until(b"\r\n\r\n").await.unwrap()).unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    for line in [
        "content-type: text/event-stream\r\n",
        "cache-control: no-cache\r\n",
        "transfer-encoding: chunked\r\n",
    ] {
        assert!(head.contains(line), "{head}");
    }
    for _ in 0..2 {
        let chunk = raw.until(b"model\n\n\r\n").await.unwrap();
        assert_eq!(
            String::from_utf8(chunk).unwrap(),
            format!("1D\r\n{COMMENT}\r\n")
        );
    }
}

/// The rest of the body after further comments, up to its proper end.
async fn rest(raw: &mut Raw) -> String {
    let mut text = String::new();
    loop {
        let line = String::from_utf8(raw.until(b"\r\n").await.unwrap()).unwrap();
        let size = usize::from_str_radix(line.trim(), 16).unwrap();
        let data = raw.exactly(size + 2).await.unwrap();
        if size == 0 {
            return text.replace(COMMENT, "");
        }
        text.push_str(std::str::from_utf8(&data[..size]).unwrap());
    }
}

/// The one event that says why there is no answer of the model's.
fn error(rest: &str) -> serde_json::Value {
    let json = rest.strip_prefix("event: error\ndata: ").expect(rest);
    let json = json.strip_suffix("\n\n").expect(rest);
    assert!(!json.contains('\n'), "{rest}");
    let body: serde_json::Value = serde_json::from_str(json).unwrap();
    body["error"].clone()
}

pub(crate) async fn counted(metrics: &Exporter, target: &str, wanted: &[(&str, u64)]) {
    let wanted: Vec<_> = wanted
        .iter()
        .map(|(code, n)| ((*code).to_owned(), *n))
        .collect();
    let now = || outcomes(metrics, target) == wanted;
    until(&format!("{wanted:?} of {target}"), now).await;
}

async fn ready(site: &Site, pod: &Pod) {
    site.pods(&[pod]);
    site.ready().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_stream_gets_comments_and_then_what_the_model_sends() {
    let metrics = metrics();
    let bed = Bed::new();
    let site = bed.site("beats", beating);
    // OpenAI's clients say it in the body, browsers in a field.
    let mut chat = Raw::sent(site.address(), post(CHAT, "chat", STREAM)).await;
    let events = accepting(
        "/as?200&text/event-stream",
        "accept-encoding: gzip\r\nx-id: events\r\n",
    );
    let mut events = Raw::sent(site.address(), events).await;
    begins(&mut chat).await;
    begins(&mut events).await;
    assert_eq!(site.workload.held(), 2);
    assert_eq!(bed.scale.count(), 1);
    let pod = Pod::start("p", 0);
    site.pods(&[&pod]);
    assert_eq!(rest(&mut chat).await.as_bytes(), STREAM);
    assert_eq!(rest(&mut events).await, "");
    let seen = pod.model.entry("events");
    assert!(
        !seen.headers.contains_key("accept-encoding"),
        "no coding could be named"
    );
    counted(&metrics, "default/beats", &[("2xx", 2)]).await;
    // The connection is in order: the next request on it is another one, warm, with all that a pod says.
    chat.send(post(CHAT, "warm", STREAM)).await;
    let warm = chat.answer().await.unwrap();
    assert_eq!(warm.header("x-model"), Some("p"));
    assert_eq!(
        warm.header("content-type"),
        Some("text/event-stream;charset=utf-8")
    );
    assert_eq!(warm.body, STREAM);
    assert_eq!(pod.model.ids().len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_else_comes_of_it_is_one_event_and_the_end() {
    let metrics = metrics();
    let bed = Bed::new();
    let site = bed.site("beats-in-vain", beating);
    let said = br#"{"error": {"message": "no model m",
        "type": "invalid_request_error", "param": null, "code": "model_not_found"}, "stream": true}"#;
    let not_found = post("/v1/as?404&application/json", "a", said);
    let broken = post("/v1/as?500&text/html", "b", STREAM);
    let json = post("/v1/as?200&application/json", "c", STREAM);
    let mut held = Vec::new();
    for asked in [not_found, broken, json] {
        let mut raw = Raw::sent(site.address(), asked).await;
        begins(&mut raw).await;
        held.push(raw);
    }
    let pod = Pod::start("p", 0);
    site.pods(&[&pod]);
    let mut told = Vec::new();
    for raw in &mut held {
        let error = error(&rest(raw).await);
        let text = |key: &str| error[key].as_str().unwrap().to_owned();
        told.push([text("message"), text("type"), text("code")]);
    }
    assert_eq!(
        told,
        [
            ["no model m", "invalid_request_error", "model_not_found"],
            [
                "the model answered 500 Internal Server Error",
                "server_error",
                "model-answer"
            ],
            [
                "the model's answer is not a plain event stream",
                "server_error",
                "model-answer"
            ],
        ]
    );
    counted(
        &metrics,
        "default/beats-in-vain",
        &[("2xx", 1), ("4xx", 1), ("5xx", 1)],
    )
    .await;

    let late = bed.site("beats-late", |config| {
        beating(config);
        config.max_cold_start = Duration::from_secs(2);
    });
    let mut raw = Raw::sent(late.address(), post(CHAT, "d", STREAM)).await;
    begins(&mut raw).await;
    let error = error(&rest(&mut raw).await);
    assert_eq!(
        (&error["code"], &error["message"]),
        (&"no-capacity".into(), &"no pod was ready in time".into())
    );
    counted(&metrics, "default/beats-late", &[("no-capacity", 1)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_wants_no_stream_or_cannot_get_one_waits_as_ever() {
    let bed = Bed::new();
    let site = bed.site("a", beating);
    let large = format!(r#"{{"stream":true,"x":"{}"}}"#, "x".repeat(70_000));
    let bare = |line: &str, rest: &str| format!("{line}\r\nhost: t\r\n{rest}\r\n");
    let accept = "accept: text/event-stream\r\n";
    let mut held = Vec::new();
    for (n, asked) in [
        get("/", "x").into_bytes(),
        post("/v1/x", "x", br#"{"stream":false}"#),
        post("/v1/x", "x", br#"{"stream":"true"}"#),
        post("/v1/x", "x", br#"{"nested":{"stream":true}}"#),
        post("/v1/x", "x", br#"{"stream":true"#),
        post("/v2/x", "x", STREAM),
        post("/v1/x", "x", large.as_bytes()),
        bare("GET / HTTP/1.0", accept).into_bytes(),
        bare("HEAD / HTTP/1.1", accept).into_bytes(),
        bare("GET / HTTP/1.1", "accept: text/event-stream;q=0, */*\r\n").into_bytes(),
    ]
    .into_iter()
    .enumerate()
    {
        held.push(Raw::sent(site.address(), asked).await);
        site.holds(n + 1).await;
    }
    // Silence can be waited for in no other way.
    sleep(EVERY * 6).await;
    for (n, raw) in held.iter_mut().enumerate() {
        let early = timeout(Duration::from_millis(5), raw.fill()).await;
        assert!(early.is_err(), "{n}: {early:?}");
    }
    let pod = Pod::start("p", 0);
    site.pods(&[&pod]);
    for (n, raw) in held.iter_mut().enumerate() {
        let answer = raw.until(b"\r\n\r\n").await.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.contains("x-model: p"), "{n}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_hangs_up_leaves_the_hold_at_once() {
    let metrics = metrics();
    let bed = Bed::new();
    let site = bed.site("beats-left", |config| {
        config.opt_ins = Some(Arc::new(OptIns {
            // No later comment can be what finds out.
            sse_heartbeat: Some(Duration::from_secs(3)),
            ..OptIns::default()
        }));
    });
    let mut raw = Raw::sent(site.address(), post(CHAT, "gone", STREAM)).await;
    raw.until(COMMENT.as_bytes()).await.unwrap();
    assert_eq!(site.workload.held(), 1);
    let left = tokio::time::Instant::now();
    drop(raw);
    site.holds(0).await;
    assert!(
        left.elapsed() < Duration::from_millis(2_500),
        "{:?}",
        left.elapsed()
    );
    counted(&metrics, "default/beats-left", &[("client-gone", 1)]).await;

    let connection = Connection::open(site.address()).await;
    let mut answer = connection.send(chat()).await.unwrap();
    let first = timeout(PATIENCE, answer.body_mut().frame()).await.unwrap();
    assert_eq!(first.unwrap().unwrap().into_data().unwrap(), COMMENT);
    assert_eq!(site.workload.held(), 1);
    drop(answer);
    site.holds(0).await;
    counted(&metrics, "default/beats-left", &[("client-gone", 2)]).await;

    let pod = Pod::start("p", 0);
    ready(&site, &pod).await;
    assert!(pod.model.ids().is_empty(), "nobody was there any more");
}

fn chat() -> Request<Frames> {
    Request::post(format!("http://t{CHAT}"))
        .header("x-id", "h2")
        .body(Frames::whole(STREAM))
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_http2_it_is_the_same() {
    let bed = Bed::new();
    let site = bed.site("a", beating);
    let connection = Connection::open(site.address()).await;
    let mut answer = connection.send(chat()).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    for _ in 0..3 {
        let frame = timeout(PATIENCE, answer.body_mut().frame()).await.unwrap();
        assert_eq!(frame.unwrap().unwrap().into_data().unwrap(), COMMENT);
    }
    let pod = Pod::start("p", 0);
    site.pods(&[&pod]);
    let rest = timeout(PATIENCE, answer.into_body().collect())
        .await
        .unwrap();
    let rest = String::from_utf8(rest.unwrap().to_bytes().to_vec()).unwrap();
    assert_eq!(rest.replace(COMMENT, "").as_bytes(), STREAM);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_a_pod_refuses_is_held_on_and_goes_to_the_next() {
    let bed = Bed::new();
    let site = bed.site("a", |config| {
        beating(config);
        config.container_concurrency = 1;
    });
    let mut raw = Raw::sent(site.address(), post(CHAT, "moved", STREAM)).await;
    begins(&mut raw).await;
    let mut fake = Fake::start("refuses").await;
    site.endpoints(vec![fake.endpoint.clone()]);
    let mut got = fake.request().await;
    // The only place of the other pod is taken, so there is another wait.
    let pod = Pod::start("p", 1);
    ready(&site, &pod).await;
    let mut busy = Raw::sent(site.address(), get("/wait", "busy")).await;
    until("at the pod", || pod.model.ids() == ["busy"]).await;
    got.answer(503, "full", "").await;
    site.holds(1).await;
    for _ in 0..3 {
        raw.until(b"model\n\n\r\n").await.unwrap();
    }
    pod.model.state.go.add_permits(1);
    assert_eq!(busy.answer().await.unwrap().status, 200);
    assert_eq!(rest(&mut raw).await.as_bytes(), STREAM);
    assert_eq!(pod.model.ids(), ["busy", "moved"]);
}
