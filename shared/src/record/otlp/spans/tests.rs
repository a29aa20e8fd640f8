use http::{Method, StatusCode};

use super::*;
use crate::{
    record::{Head, Place},
    trace::TraceParent,
};

const TRACE: TraceId = TraceId([7; 16]);
const CALLER: SpanId = SpanId([9; 8]);

fn traced(parent: Option<TraceParent>) -> Traced {
    Traced {
        parent,
        trace: TRACE,
        whole: SpanId([1; 8]),
        wait: SpanId([2; 8]),
        upstream: SpanId([3; 8]),
        is_sampled: true,
    }
}

fn ended(program: &'static str, status: Option<u16>, outcome: &'static str) -> Ended {
    let ms = Duration::from_millis;
    Ended {
        place: Place {
            program,
            workload: "default/model".to_owned(),
            port: Some(0),
            pod: Some("pod-1".into()),
            client: ([127, 0, 0, 1], 7).into(),
            is_probe: false,
        },
        head: Head {
            method: Some(Method::POST),
            path: Some("/v1/x?key=secret".into()),
            version: Some(Version::HTTP_11),
            agent: Some(b"curl/8".as_slice().into()),
            parent: None,
        },
        began: SystemTime::UNIX_EPOCH + Duration::from_secs(1_000),
        status: status.map(|status| StatusCode::from_u16(status).unwrap()),
        outcome,
        received: 5,
        sent: 12,
        waits: Some(ms(1)),
        given: Some(ms(20)),
        answered: Some(ms(50)),
        took: ms(100),
    }
}

fn attribute(span: &SpanData, key: &str) -> Option<String> {
    let found = span.attributes.iter().find(|kv| kv.key.as_str() == key);
    found.map(|kv| kv.value.to_string())
}

/// Name, kind, parent, start and end in milliseconds.
fn shape(span: &SpanData, ended: &Ended) -> (String, SpanKind, OtSpanId, u128, u128) {
    let ms = |at: SystemTime| at.duration_since(ended.began).unwrap().as_millis();
    (
        span.name.to_string(),
        span.span_kind.clone(),
        span.parent_span_id,
        ms(span.start_time),
        ms(span.end_time),
    )
}

#[test]
fn a_request_has_three_spans_of_one_trace_under_its_caller() {
    let caller = TraceParent::of(TRACE, CALLER, true);
    let ids = |bytes| OtSpanId::from_bytes(bytes);
    for (program, wait, upstream) in [
        ("activator", "activator.hold", "activator.forward"),
        ("queue-proxy", "queue.wait", "upstream"),
    ] {
        let ended = ended(program, Some(200), "2xx");
        let spans = of(&traced(Some(caller)), &ended);
        let shapes: Vec<_> = spans.iter().map(|span| shape(span, &ended)).collect();
        assert_eq!(
            shapes,
            [
                ("POST".to_owned(), SpanKind::Server, ids([9; 8]), 0, 100),
                (wait.to_owned(), SpanKind::Internal, ids([1; 8]), 1, 20),
                (upstream.to_owned(), SpanKind::Client, ids([1; 8]), 20, 100),
            ]
        );
        for (span, id) in spans.iter().zip([[1; 8], [2; 8], [3; 8]]) {
            assert_eq!(span.span_context.trace_id(), OtTraceId::from_bytes(TRACE.0));
            assert_eq!(span.span_context.span_id(), ids(id));
            assert_eq!(span.status, Status::Unset);
        }
        for (key, value) in [
            ("http.request.method", "POST"),
            ("url.path", "/v1/x"),
            ("url.scheme", "http"),
            ("http.response.status_code", "200"),
            ("client.address", "127.0.0.1"),
            ("user_agent.original", "curl/8"),
            ("network.protocol.version", "1.1"),
            ("rouse.outcome", "2xx"),
            ("k8s.pod.uid", "pod-1"),
        ] {
            assert_eq!(attribute(&spans[0], key).as_deref(), Some(value), "{key}");
        }
        assert_eq!(attribute(&spans[0], "error.type"), None);
        assert_eq!(attribute(&spans[0], "url.query"), None);
        let head = &spans[2].events.events[0];
        assert_eq!(head.timestamp, ended.began + Duration::from_millis(50));
    }
    let orphan = of(&traced(None), &ended("activator", None, "client-gone"));
    assert_eq!(orphan[0].parent_span_id, OtSpanId::INVALID);
}

#[test]
fn what_did_not_happen_has_no_span() {
    let mut refused = ended("queue-proxy", Some(400), "malformed");
    (refused.waits, refused.given, refused.answered) = (None, None, None);
    refused.head = Head::default();
    let spans = of(&traced(None), &refused);
    assert_eq!(spans.len(), 1);
    assert_eq!(spans[0].name, "HTTP");
    let mut late = ended("queue-proxy", Some(504), "queue-timeout");
    (late.given, late.answered) = (None, None);
    let spans = of(&traced(None), &late);
    assert_eq!(spans.len(), 2);
    assert_eq!(shape(&spans[1], &late).4, 100, "it waited to the end");
}

#[test]
fn what_is_an_error_depends_on_which_end_is_asked() {
    for (status, outcome, server, client) in [
        (Some(200), "2xx", None, None),
        (Some(404), "4xx", None, Some("404")),
        (Some(500), "5xx", Some("500"), Some("500")),
        (Some(400), "malformed", None, Some("400")),
        (
            Some(503),
            "queue-full",
            Some("queue-full"),
            Some("queue-full"),
        ),
        (
            Some(200),
            "model-broke",
            Some("model-broke"),
            Some("model-broke"),
        ),
        (
            None,
            "client-gone",
            Some("client-gone"),
            Some("client-gone"),
        ),
        (Some(200), "probe-answered", None, None),
        (Some(101), "1xx", None, None),
    ] {
        let ended = ended("queue-proxy", status, outcome);
        for (from, expected) in [(SERVER_ERRORS, server), (CLIENT_ERRORS, client)] {
            assert_eq!(error(&ended, from).as_deref(), expected, "{outcome}");
        }
    }
}

#[test]
fn a_ratio_takes_its_share_and_the_same_traces_everywhere() {
    let ratio = |text: &str| text.parse::<Ratio>();
    for bad in ["", "-0.1", "1.1", "NaN", "half"] {
        assert!(ratio(bad).is_err(), "{bad}");
    }
    let trace = |half: u64| {
        let mut id = [7; 16];
        id[8..].copy_from_slice(&half.to_be_bytes());
        TraceId(id)
    };
    let (none, half, all) = (
        ratio("0").unwrap(),
        ratio("0.5").unwrap(),
        ratio("1").unwrap(),
    );
    for (number, taken) in [
        (0, true),
        (u64::MAX / 2, true),
        (u64::MAX / 2 + 2, false),
        (u64::MAX, false),
    ] {
        let trace = trace(number);
        assert!(!none.takes(trace) && all.takes(trace));
        assert_eq!(half.takes(trace), taken, "{number}");
    }
}
