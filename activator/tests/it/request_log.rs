//! The request log of the activator, and what of a trace passes both hops.

use std::{collections::BTreeMap, io, sync::Arc, time::Duration};

use activator::{Config, WorkloadConfig};
use autoscaler_core::OptIns;
use parking_lot::Mutex;
use serde_json::Value;
use shared::{
    metrics as names,
    record::{Log, Recorder, Settings},
};

use crate::{
    bed::{Bed, Pod, metrics, outcomes, until},
    http1::{Raw, ask, get, post},
    websocket::HANDSHAKE,
};

/// What was written.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Written {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().clone()).unwrap()
    }

    /// Of the workload `default/NAME`, as soon as there are `n`, in the order of their ends. Their outcomes are those that were
    /// counted.
    async fn lines(&self, name: &str, n: usize) -> Vec<Value> {
        let target = format!("default/{name}");
        let lines = || {
            let all: Vec<Value> = self
                .text()
                .lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .filter(|line: &Value| line["workload"] == target)
                .collect();
            all
        };
        until(&format!("{n} lines of {name}"), || lines().len() >= n).await;
        let lines = lines();
        assert_eq!(lines.len(), n, "{}", self.text());
        let mut told = BTreeMap::new();
        for line in &lines {
            let outcome = line["outcome"].as_str().unwrap().to_owned();
            *told.entry(outcome).or_insert(0_u64) += 1;
        }
        assert_eq!(outcomes(&metrics(), &target), Vec::from_iter(told));
        lines
    }
}

/// A bed whose requests are logged in JSON.
fn logged() -> (Bed, Written) {
    metrics();
    let written = Written::default();
    let settings = Settings {
        form: "json".parse().unwrap(),
        query: false,
        probes: false,
    };
    let dropped = names::ACTIVATOR_LOG_DROPPED.counter(&[]);
    let log = Log::start(settings, written.clone(), dropped).unwrap();
    let bed = Bed::with(|config: &mut Config| config.recorder = Recorder::new(Some(log)));
    (bed, written)
}

fn told(lines: &[Value]) -> Vec<(&str, &str, u64)> {
    lines
        .iter()
        .map(|line| {
            let path = line["path"].as_str().unwrap_or("-");
            let status = line["status"].as_u64().unwrap_or_default();
            (path, line["outcome"].as_str().unwrap(), status)
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_request_is_one_line_that_says_how_long_and_which_pod() {
    let (bed, written) = logged();
    let site = bed.site("log-held", |_| {});
    let body = vec![b'x'; 100_000];
    let mut client = Raw::sent(site.address(), post("/held?key=secret", "1", &body)).await;
    site.holds(1).await;
    assert_eq!(written.text(), "");
    let pod = Pod::start("pod-7", 1);
    site.pods(&[&pod]);
    let answer = client.answer().await.unwrap();
    assert_eq!(answer.body, body);
    client.send(get("/warm", "2")).await;
    assert_eq!(client.answer().await.unwrap().status, 200);
    let lines = written.lines("log-held", 2).await;
    let line = &lines[0];
    let address = client.stream.local_addr().unwrap().to_string();
    for (field, value) in [
        ("program", Value::from("activator")),
        ("pod", "pod-7".into()),
        ("port", 0.into()),
        ("client", address.into()),
        ("method", "POST".into()),
        ("path", "/held".into()),
        ("status", 200.into()),
        ("outcome", "2xx".into()),
        ("bytes_received", 100_000.into()),
        ("bytes_sent", 100_000.into()),
        ("user_agent", Value::Null),
    ] {
        assert_eq!(line[field], value, "{field}: {line}");
    }
    let ms = |n: usize, field: &str| lines[n][field].as_f64().unwrap();
    assert!(ms(0, "wait_ms") + ms(0, "first_byte_ms") <= ms(0, "duration_ms"));
    assert!(ms(0, "wait_ms") > ms(1, "wait_ms"), "{lines:?}");
    assert_eq!(told(&lines)[1], ("/warm", "2xx", 200));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_pod_answered_has_its_line_too() {
    let (bed, written) = logged();
    let site = bed.site("log-refused", |config| {
        config.max_held = 1;
        config.max_cold_start = Duration::from_millis(500);
    });
    let bad = "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n";
    assert_eq!(ask(site.address(), bad).await.status, 400);
    let mut late = Raw::sent(site.address(), get("/late", "1")).await;
    site.holds(1).await;
    let full = ask(site.address(), get("/full", "2")).await;
    assert_eq!(full.status, 503);
    assert_eq!(late.answer().await.unwrap().status, 504);
    // HTTP/2 clients that leave are nobody's broken body.
    let connection = crate::h2::Connection::open(site.address()).await;
    let request = http::Request::get("http://t/gone").body(crate::h2::Frames::whole(b""));
    let gone = tokio::spawn(async move { connection.send(request.unwrap()).await.is_ok() });
    site.holds(1).await;
    gone.abort();
    let lines = written.lines("log-refused", 4).await;
    assert_eq!(
        told(&lines),
        [
            ("-", "malformed", 400),
            ("/full", "hold-full", 503),
            ("/late", "no-capacity", 504),
            ("/gone", "client-gone", 0),
        ]
    );
    assert_eq!(lines[1]["bytes_sent"], full.body.len());
    assert!(lines[2]["wait_ms"].as_f64().unwrap() >= 495.0);
    assert!(lines.iter().all(|line| line["pod"].is_null()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_who_leaves_in_the_middle_and_a_pod_that_breaks_are_told_with_what_was_sent() {
    let (bed, written) = logged();
    let site = bed.site("log-cut", |_| {});
    let pod = Pod::start("p", 0);
    site.pods(&[&pod]);
    site.ready().await;
    // More than all buffers on the way, so that the answer cannot be through when its client leaves.
    let large = vec![b'x'; 16 << 20];
    let mut left = Raw::sent(site.address(), post("/left", "1", &large)).await;
    assert!(left.until(b"\r\n\r\n").await.is_some());
    drop(left);
    written.lines("log-cut", 1).await;
    let mut broken = Raw::sent(site.address(), post("/broken", "2", &large)).await;
    assert!(broken.until(b"\r\n\r\n").await.is_some());
    drop(pod);
    // It is noticed by who reads on.
    while broken.fill().await {}
    let lines = written.lines("log-cut", 2).await;
    assert_eq!(
        told(&lines),
        [("/left", "client-gone", 200), ("/broken", "pod-broke", 200)]
    );
    for line in &lines {
        let bytes = |field: &str| line[field].as_u64().unwrap();
        assert_eq!(bytes("bytes_received"), 16 << 20);
        assert!((1..16 << 20).contains(&bytes("bytes_sent")), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_is_one_line_when_it_ends() {
    let (bed, written) = logged();
    let site = bed.site("log-socket", |_| {});
    let pod = Pod::start("p", 0);
    site.pods(&[&pod]);
    site.ready().await;
    let mut socket = Raw::sent(site.address(), HANDSHAKE).await;
    assert_eq!(socket.answer().await.unwrap().status, 101);
    socket.send(b"seven b").await;
    assert_eq!(socket.exactly(7).await.unwrap(), b"seven b");
    assert_eq!(written.text(), "");
    drop(socket);
    let lines = written.lines("log-socket", 1).await;
    assert_eq!(told(&lines), [("/socket", "1xx", 101)]);
    assert_eq!(
        (&lines[0]["bytes_received"], &lines[0]["bytes_sent"]),
        (&7.into(), &7.into())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_with_signs_of_life_is_one_line_with_all_its_bytes_whatever_comes_of_it() {
    let (bed, written) = logged();
    let beating = |config: &mut WorkloadConfig| {
        config.opt_ins = Some(Arc::new(OptIns {
            sse_heartbeat: Some(Duration::from_millis(40)),
            ..OptIns::default()
        }));
        config.max_cold_start = Duration::from_millis(600);
    };
    let site = bed.site("log-beats", beating);
    let asked = |query: &str| {
        let body = br#"{"stream": true}"#;
        post(&format!("/v1/as?{query}"), "1", body)
    };
    let mut ok = Raw::sent(site.address(), asked("200&text/event-stream")).await;
    let mut failed = Raw::sent(site.address(), asked("500&text/html")).await;
    // Both have had a comment, and are held.
    for raw in [&mut ok, &mut failed] {
        raw.until(b"model\n\n").await.unwrap();
    }
    let pod = Pod::start("p", 0);
    site.pods(&[&pod]);
    // Less the head and the comment that were read.
    let mut bodies = Vec::new();
    for raw in [&mut ok, &mut failed] {
        let mut bytes = COMMENT;
        raw.until(b"\r\n").await.unwrap();
        loop {
            let line = String::from_utf8(raw.until(b"\r\n").await.unwrap()).unwrap();
            let length = usize::from_str_radix(line.trim(), 16).unwrap();
            raw.exactly(length + 2).await.unwrap();
            bytes += length;
            if length == 0 {
                break;
            }
        }
        bodies.push(bytes);
    }
    let mut lines = written.lines("log-beats", 2).await;
    lines.sort_by_key(|line| line["outcome"].to_string());
    assert_eq!(
        told(&lines),
        [("/v1/as", "2xx", 200), ("/v1/as", "5xx", 200)]
    );
    for (line, bytes) in lines.iter().zip(&bodies) {
        assert_eq!(line["bytes_sent"], *bytes, "{line}");
        assert_eq!(line["pod"], "p");
    }

    let site = bed.site("log-beats-late", beating);
    let mut late = Raw::sent(site.address(), asked("200&text/event-stream")).await;
    late.until(b"0\r\n\r\n").await.unwrap();
    let left = bed.site("log-beats-left", beating);
    let mut raw = Raw::sent(left.address(), asked("200&text/event-stream")).await;
    raw.until(b"model\n\n").await.unwrap();
    drop(raw);
    let lines = written.lines("log-beats-late", 1).await;
    assert_eq!(told(&lines), [("/v1/as", "no-capacity", 200)]);
    let lines = written.lines("log-beats-left", 1).await;
    assert_eq!(told(&lines), [("/v1/as", "client-gone", 200)]);
}

/// Bytes of one sign of life.
const COMMENT: usize = b": rouse is waking the model\n\n".len();

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_have_no_line_and_other_answers_of_our_own_do() {
    let (bed, written) = logged();
    let site = bed.site("log-own", |config| {
        config.opt_ins = Some(Arc::new(OptIns {
            probe_paths: vec!["/healthz".into()],
            probe_answer: Some(203),
            placeholder: Some("A model".into()),
            ..OptIns::default()
        }));
    });
    assert_eq!(ask(site.address(), get("/healthz", "1")).await.status, 203);
    let browser =
        "GET /page HTTP/1.1\r\nhost: t\r\naccept: text/html\r\nsec-fetch-mode: navigate\r\n\r\n";
    let page = ask(site.address(), browser).await;
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    until("the page's line", || written.text().lines().count() == 1).await;
    let line: Value = serde_json::from_str(written.text().trim()).unwrap();
    assert_eq!(
        (&line["path"], &line["outcome"], &line["bytes_sent"]),
        (
            &"/page".into(),
            &"placeholder".into(),
            &page.body.len().into()
        )
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_context_passes_both_hops_and_a_broken_one_neither() {
    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let (bed, written) = logged();
    let site = bed.site("log-traced", |_| {});
    let pod = Pod::start("p", 0);
    site.pods(&[&pod]);
    let with = |id: &str, parent: &str| {
        let lines =
            format!("\r\ntraceparent: {parent}\r\ntracestate: a=1,b=2\r\nbaggage: k=v\r\n\r\n");
        get("/", id).replace("\r\n\r\n", &lines)
    };
    for (id, parent, passes) in [
        ("good", PARENT.to_owned(), true),
        ("upper", PARENT.to_uppercase(), false),
        ("long", format!("{PARENT}-"), false),
    ] {
        assert_eq!(ask(site.address(), with(id, &parent)).await.status, 200);
        let headers = pod.model.entry(id).headers;
        let value = |name: &str| headers.get(name).map(|v| v.to_str().unwrap().to_owned());
        assert_eq!(value("traceparent"), passes.then(|| parent.clone()), "{id}");
        let state = passes.then(|| "a=1,b=2".to_owned());
        assert_eq!(value("tracestate"), state, "{id}");
        assert_eq!(value("baggage").as_deref(), Some("k=v"));
    }
    let lines = written.lines("log-traced", 3).await;
    let traces: Vec<_> = lines.iter().map(|line| line["trace_id"].clone()).collect();
    let trace = Value::from("4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(traces, [trace, Value::Null, Value::Null]);
}
