//! Spans of both hops, at a collector that decodes them.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value},
    trace::v1::{Span, span::SpanKind, status::StatusCode},
};
use parking_lot::Mutex;
use prost::Message as _;
use shared::record::{
    Recorder,
    otlp::{Settings, Tracer},
};
use tokio::{net::TcpListener, task::JoinHandle};

use crate::{
    bed::{Bed, Pod, Site, loopback, until},
    http1::{PATIENCE, Raw, ask, get},
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// A collector, and the spans that have come with the service of each.
struct Collector {
    address: SocketAddr,
    spans: Arc<Mutex<Vec<(String, Span)>>>,
    accept: JoinHandle<()>,
}

impl Collector {
    async fn start() -> Self {
        let listener = TcpListener::bind(loopback()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let spans = Arc::default();
        let taken = Arc::clone(&spans);
        let accept = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                take(Raw::from(stream), &taken).await;
            }
        });
        Self {
            address,
            spans,
            accept,
        }
    }

    /// As many spans as were asked for, by service and name.
    async fn spans(&self, n: usize) -> BTreeMap<String, Span> {
        until(&format!("{n} spans"), || self.spans.lock().len() >= n).await;
        let spans = self.spans.lock();
        let named: BTreeMap<_, _> = spans
            .iter()
            .map(|(service, span)| (format!("{service} {}", span.name), span.clone()))
            .collect();
        assert_eq!((spans.len(), named.len()), (n, n), "{named:?}");
        named
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

async fn take(mut raw: Raw, spans: &Mutex<Vec<(String, Span)>>) {
    let head = String::from_utf8(raw.until(b"\r\n\r\n").await.unwrap()).unwrap();
    let head = head.to_ascii_lowercase();
    assert!(
        head.starts_with("post /base/v1/traces http/1.1\r\n"),
        "{head}"
    );
    assert!(
        head.contains("\r\ncontent-type: application/x-protobuf\r\n"),
        "{head}"
    );
    let (_, rest) = head.split_once("content-length: ").unwrap();
    let length = rest.lines().next().unwrap().parse().unwrap();
    let body = raw.exactly(length).await.unwrap();
    let request = ExportTraceServiceRequest::decode(body.as_slice()).unwrap();
    for of_resource in request.resource_spans {
        let attributes = of_resource.resource.unwrap().attributes;
        let service = text(&attributes, "service.name").unwrap();
        for of_scope in of_resource.scope_spans {
            let all = of_scope.spans.into_iter();
            spans.lock().extend(all.map(|span| (service.clone(), span)));
        }
    }
    raw.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        .await;
}

fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.clone()?.value? {
        Value::StringValue(text) => Some(text),
        Value::IntValue(number) => Some(number.to_string()),
        other => panic!("{key}: {other:?}"),
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    let digits: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.concat()
}

fn tracer(collector: SocketAddr, service: &'static str, ratio: &str) -> Recorder {
    let settings = Settings {
        endpoint: format!("http://{collector}/base").parse().unwrap(),
        ratio: ratio.parse().unwrap(),
        service,
    };
    let dropped = shared::metrics::ACTIVATOR_SPANS_DROPPED.counter(&[]);
    Recorder::default().traced(Some(Tracer::start(&settings, dropped).unwrap()))
}

/// Both hops send their spans to `collector`.
async fn traced(collector: SocketAddr, ratio: &str) -> (Bed, Site, Pod, [Recorder; 2]) {
    let recorders = [
        tracer(collector, "front", ratio),
        tracer(collector, "side", ratio),
    ];
    let [front, sidecar] = recorders.clone();
    let bed = Bed::with(|config| config.recorder = front);
    let site = bed.site("spans", |_| {});
    let pod = Pod::with("pod-1", 0, |config| config.recorder = sidecar);
    site.pods(&[&pod]);
    site.ready().await;
    (bed, site, pod, recorders)
}

async fn flush(recorders: &[Recorder; 2]) {
    for recorder in recorders {
        recorder.flush(PATIENCE).await;
    }
}

fn with(id: &str, lines: &str) -> String {
    get("/v1/x?key=secret", id).replace("\r\n\r\n", &format!("\r\n{lines}\r\n"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_goes_from_the_client_through_both_hops_into_the_model() {
    let collector = Collector::start().await;
    let (_bed, site, pod, recorders) = traced(collector.address, "0").await;
    let parent = format!("traceparent: 00-{TRACE}-{CALLER}-01\r\ntracestate: a=1\r\n");
    let asked = with("1", &parent);
    assert_eq!(ask(site.address(), asked).await.status, 200);
    flush(&recorders).await;
    let spans = collector.spans(6).await;
    let span = |name: &str| &spans[name];
    let id = |name: &str| hexadecimal(&span(name).span_id);
    let parent = |name: &str| hexadecimal(&span(name).parent_span_id);
    for (name, span) in &spans {
        assert_eq!(hexadecimal(&span.trace_id), TRACE, "{name}");
        assert!(
            span.start_time_unix_nano <= span.end_time_unix_nano,
            "{name}"
        );
        assert_eq!(
            span.status.clone().unwrap_or_default().code,
            StatusCode::Unset as i32
        );
    }
    for (name, kind, above) in [
        ("front GET", SpanKind::Server, CALLER.to_owned()),
        ("front activator.hold", SpanKind::Internal, id("front GET")),
        ("front activator.forward", SpanKind::Client, id("front GET")),
        ("side GET", SpanKind::Server, id("front activator.forward")),
        ("side queue.wait", SpanKind::Internal, id("side GET")),
        ("side upstream", SpanKind::Client, id("side GET")),
    ] {
        assert_eq!(parent(name), above, "{name}");
        assert_eq!(span(name).kind, kind as i32, "{name}");
    }
    let headers = pod.model.entry("1").headers;
    let onward = format!("00-{TRACE}-{}-01", id("side upstream"));
    assert_eq!(headers["traceparent"], onward);
    assert_eq!(headers["tracestate"], "a=1");
    for name in ["front GET", "side GET"] {
        let attributes = &span(name).attributes;
        for (key, value) in [
            ("http.request.method", "GET"),
            ("http.response.status_code", "200"),
            ("url.path", "/v1/x"),
            ("url.scheme", "http"),
            ("network.protocol.version", "1.1"),
            ("client.address", "127.0.0.1"),
            ("k8s.pod.uid", "pod-1"),
            ("rouse.outcome", "2xx"),
        ] {
            assert_eq!(
                text(attributes, key).as_deref(),
                Some(value),
                "{name} {key}"
            );
        }
    }
    assert_eq!(span("side upstream").events[0].name, "response.head");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_caller_a_trace_begins_here_and_both_hops_are_of_it() {
    let collector = Collector::start().await;
    let (_bed, site, pod, recorders) = traced(collector.address, "1").await;
    // What is malformed is no caller.
    let asked = with("1", "traceparent: 00-XYZ\r\ntracestate: a=1\r\n");
    assert_eq!(ask(site.address(), asked).await.status, 200);
    flush(&recorders).await;
    let spans = collector.spans(6).await;
    assert_eq!(spans["front GET"].parent_span_id, Vec::<u8>::new());
    let trace = hexadecimal(&spans["front GET"].trace_id);
    assert!(
        spans
            .values()
            .all(|span| hexadecimal(&span.trace_id) == trace)
    );
    let headers = pod.model.entry("1").headers;
    let onward = hexadecimal(&spans["side upstream"].span_id);
    assert_eq!(headers["traceparent"], format!("00-{trace}-{onward}-01"));
    assert!(!headers.contains_key("tracestate"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_sampled_has_no_spans_anywhere() {
    let collector = Collector::start().await;
    let (_bed, site, pod, recorders) = traced(collector.address, "0").await;
    let against = format!("00-{TRACE}-{CALLER}-00");
    let asked = with("told", &format!("traceparent: {against}\r\n"));
    assert_eq!(ask(site.address(), asked).await.status, 200);
    assert_eq!(pod.model.entry("told").headers["traceparent"], against);
    assert_eq!(ask(site.address(), with("drawn", "")).await.status, 200);
    let headers = pod.model.entry("drawn").headers;
    let drawn = headers["traceparent"].to_str().unwrap();
    assert!(drawn.ends_with("-00"), "the model learns of it: {drawn}");
    // After these would have been sent, one that is.
    let sampled = format!("traceparent: 00-{TRACE}-{CALLER}-01\r\n");
    assert_eq!(
        ask(site.address(), with("last", &sampled)).await.status,
        200
    );
    flush(&recorders).await;
    collector.spans(6).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_request_is_an_error_with_its_code_and_a_wait_that_was_in_vain() {
    let collector = Collector::start().await;
    let front = tracer(collector.address, "front", "1");
    let recorder = front.clone();
    let bed = Bed::with(|config| config.recorder = recorder);
    let site = bed.site("spans-late", |config| {
        config.max_cold_start = Duration::from_millis(100);
    });
    assert_eq!(ask(site.address(), with("1", "")).await.status, 504);
    front.flush(PATIENCE).await;
    let spans = collector.spans(2).await;
    let whole = &spans["front GET"];
    assert_eq!(
        text(&whole.attributes, "error.type").as_deref(),
        Some("no-capacity")
    );
    assert_eq!(whole.status.clone().unwrap().code, StatusCode::Error as i32);
    let held = &spans["front activator.hold"];
    let nanos = held.end_time_unix_nano - held.start_time_unix_nano;
    assert!(nanos >= 95_000_000, "{nanos}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_not_there_costs_spans_and_no_request() {
    let metrics = crate::bed::metrics();
    let nobody = TcpListener::bind(loopback()).await.unwrap();
    let address = nobody.local_addr().unwrap();
    drop(nobody);
    let (_bed, site, _pod, _recorders) = traced(address, "1").await;
    for _ in 0..10 {
        assert_eq!(ask(site.address(), with("1", "")).await.status, 200);
    }
    until("60 spans to be counted", || {
        let text = metrics.render();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("rouse_activator_spans_dropped_total "));
        line.is_some_and(|count| count.parse::<u64>().unwrap() >= 60)
    })
    .await;
}
