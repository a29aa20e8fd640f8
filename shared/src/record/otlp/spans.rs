//! The spans of a request that has ended, by OpenTelemetry's conventions for HTTP (semantic conventions 1.40, stable part).

use std::{
    str::FromStr,
    time::{Duration, SystemTime},
};

use http::Version;
use opentelemetry::{
    InstrumentationScope, KeyValue,
    trace::{
        Event, SpanContext, SpanId as OtSpanId, SpanKind, Status, TraceFlags, TraceId as OtTraceId,
        TraceState,
    },
};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::{Ended, Traced};
use crate::trace::{SpanId, TraceId};

/// Whoever asks takes these statuses and above for errors, and whoever answers only these.
const CLIENT_ERRORS: u16 = 400;
const SERVER_ERRORS: u16 = 500;

/// Numbers that a trace can draw: 2^63.
const ALL_TRACES: f64 = 9_223_372_036_854_775_808.0;

/// A share, from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio(f64);

/// A text is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a share from 0 to 1")]
pub struct InvalidRatio(());

impl FromStr for Ratio {
    type Err = InvalidRatio;

    fn from_str(text: &str) -> Result<Self, InvalidRatio> {
        text.parse()
            .ok()
            .filter(|ratio| (0.0..=1.0).contains(ratio))
            .map(Self)
            .ok_or(InvalidRatio(()))
    }
}

impl Ratio {
    /// Whether a trace is one of the share. Everybody who knows the ratio comes to the same answer: as in OpenTelemetry's
    /// `TraceIdRatioBased`, the second half of the trace's number decides.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "from 0 to 2^63"
    )]
    pub(super) fn takes(self, trace: TraceId) -> bool {
        let half = u128::from_be_bytes(trace.0) & u128::from(u64::MAX);
        (half >> 1) < (self.0 * ALL_TRACES) as u128
    }
}

/// All spans: the request here, its wait, and its time with whoever answered it, as far as it came.
pub(super) fn of(traced: &Traced, ended: &Ended) -> Vec<SpanData> {
    let (wait, upstream) = match ended.place.program {
        "activator" => ("activator.hold", "activator.forward"),
        _ => ("queue.wait", "upstream"),
    };
    let method = ended
        .head
        .method
        .as_ref()
        .map_or_else(|| "HTTP".to_owned(), ToString::to_string);
    let mut spans = vec![whole(traced, ended, method)];
    if let Some(waits) = ended.waits {
        let span = Span {
            name: wait.to_owned(),
            id: traced.wait,
            kind: SpanKind::Internal,
            from: waits,
            to: ended.given.unwrap_or(ended.took),
        };
        spans.push(span.child(traced, ended));
    }
    if let Some(given) = ended.given {
        let span = Span {
            name: upstream.to_owned(),
            id: traced.upstream,
            kind: SpanKind::Client,
            from: given,
            to: ended.took,
        };
        let mut span = span.child(traced, ended);
        span.attributes = attributes(ended, CLIENT_ERRORS);
        if let Some(answered) = ended.answered {
            let at = ended.began + answered;
            let first = Event::new("response.head", at, Vec::new(), 0);
            span.events.events.push(first);
        }
        span.status = status(ended, CLIENT_ERRORS);
        spans.push(span);
    }
    spans
}

/// The request as its client sees it.
fn whole(traced: &Traced, ended: &Ended, method: String) -> SpanData {
    let span = Span {
        name: method,
        id: traced.whole,
        kind: SpanKind::Server,
        from: Duration::ZERO,
        to: ended.took,
    };
    let mut span = span.made(traced, ended);
    span.parent_span_id = traced
        .parent
        .map_or(OtSpanId::INVALID, |parent| span_id(parent.span));
    span.parent_span_is_remote = traced.parent.is_some();
    span.attributes = attributes(ended, SERVER_ERRORS);
    let number = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    span.attributes.extend([
        KeyValue::new("url.scheme", "http"),
        KeyValue::new("client.address", ended.place.client.ip().to_string()),
        KeyValue::new("client.port", i64::from(ended.place.client.port())),
        KeyValue::new("http.request.body.size", number(ended.received)),
        KeyValue::new("http.response.body.size", number(ended.sent)),
        KeyValue::new("rouse.workload", ended.place.workload.clone()),
        KeyValue::new("rouse.outcome", ended.outcome),
    ]);
    if let Some(path) = &ended.head.path {
        // Without the query, whatever the log has.
        let path = path.split('?').next().unwrap_or_default();
        span.attributes
            .push(KeyValue::new("url.path", path.to_owned()));
    }
    if let Some(agent) = &ended.head.agent {
        let agent = String::from_utf8_lossy(agent).into_owned();
        span.attributes
            .push(KeyValue::new("user_agent.original", agent));
    }
    if let Some(version) = ended.head.version {
        let version = match version {
            Version::HTTP_2 => "2",
            Version::HTTP_10 => "1.0",
            _ => "1.1",
        };
        span.attributes
            .push(KeyValue::new("network.protocol.version", version));
    }
    span.status = status(ended, SERVER_ERRORS);
    span
}

/// What both ends of a request have in common.
fn attributes(ended: &Ended, from: u16) -> Vec<KeyValue> {
    let mut attributes = Vec::new();
    if let Some(method) = &ended.head.method {
        attributes.push(KeyValue::new("http.request.method", method.to_string()));
    }
    if let Some(status) = ended.status {
        attributes.push(KeyValue::new(
            "http.response.status_code",
            i64::from(status.as_u16()),
        ));
    }
    if let Some(pod) = &ended.place.pod {
        attributes.push(KeyValue::new("k8s.pod.uid", pod.to_string()));
    }
    if let Some(error) = error(ended, from) {
        attributes.push(KeyValue::new("error.type", error));
    }
    attributes
}

/// What went wrong, to the end of the request to which statuses below `from` are no error.
fn error(ended: &Ended, from: u16) -> Option<String> {
    // A class of statuses, or an answer of our own that is no failure: the status says it all.
    let is_answer =
        ended.outcome.ends_with("xx") || matches!(ended.outcome, "probe-answered" | "placeholder");
    let status = ended.status.map(|status| status.as_u16());
    match status {
        Some(status) if is_answer || (400..500).contains(&status) => {
            (status >= from).then(|| status.to_string())
        }
        None if is_answer => None,
        _ => Some(ended.outcome.to_owned()),
    }
}

fn status(ended: &Ended, from: u16) -> Status {
    error(ended, from).map_or(Status::Unset, |_| Status::error(""))
}

/// What a span needs.
struct Span {
    name: String,
    id: SpanId,
    kind: SpanKind,
    /// Since the request arrived.
    from: Duration,
    to: Duration,
}

impl Span {
    /// Of the whole request.
    fn child(self, traced: &Traced, ended: &Ended) -> SpanData {
        let mut span = self.made(traced, ended);
        span.parent_span_id = span_id(traced.whole);
        span
    }

    fn made(self, traced: &Traced, ended: &Ended) -> SpanData {
        let at = |offset: Duration| ended.began.checked_add(offset);
        SpanData {
            span_context: SpanContext::new(
                OtTraceId::from_bytes(traced.trace.0),
                span_id(self.id),
                TraceFlags::SAMPLED,
                false,
                TraceState::default(),
            ),
            parent_span_id: OtSpanId::INVALID,
            parent_span_is_remote: false,
            span_kind: self.kind,
            name: self.name.into(),
            start_time: at(self.from).unwrap_or(SystemTime::UNIX_EPOCH),
            end_time: at(self.to).unwrap_or(SystemTime::UNIX_EPOCH),
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: InstrumentationScope::builder("rouse")
                .with_version(env!("CARGO_PKG_VERSION"))
                .build(),
        }
    }
}

fn span_id(id: SpanId) -> OtSpanId {
    OtSpanId::from_bytes(id.0)
}

#[cfg(test)]
mod tests;
