//! What a line of the request log can have: the one table, and how each value is got.

use std::{borrow::Cow, time::Duration};

use http::Version;
use jiff::Timestamp;

use super::Ended;

/// A field of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name, in JSON and in templates. Stable.
    pub name: &'static str,
    /// What its value is in JSON.
    pub kind: &'static str,
    /// What it says.
    pub meaning: &'static str,
    pub(super) what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Time,
    Program,
    Workload,
    Pod,
    Port,
    Client,
    Method,
    Path,
    Protocol,
    UserAgent,
    TraceId,
    Status,
    Outcome,
    BytesReceived,
    BytesSent,
    DurationMs,
    WaitMs,
    FirstByteMs,
}

/// A value of a field.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value<'a> {
    /// There is none.
    None,
    /// Of our own making, and of the characters of names and numbers.
    Own(Cow<'a, str>),
    /// From outside.
    Foreign(&'a [u8]),
    Number(u64),
    Millis(Duration),
}

const fn row(name: &'static str, kind: &'static str, what: What, meaning: &'static str) -> Field {
    Field {
        name,
        kind,
        meaning,
        what,
    }
}

/// Every field, in the order in which JSON has them.
pub const FIELDS: [Field; 18] = [
    row(
        "time",
        "string",
        What::Time,
        "When the request arrived (RFC 3339, UTC, microseconds).",
    ),
    row(
        "program",
        "string",
        What::Program,
        "Who tells it: `queue-proxy` or `activator`. A request that passes both has a line of each.",
    ),
    row("workload", "string", What::Workload, "`NAMESPACE/NAME`."),
    row(
        "pod",
        "string",
        What::Pod,
        "UID of the queue-proxy's pod; of an activator, that of the pod to which it gave the request last, if to any.",
    ),
    row(
        "port",
        "number",
        What::Port,
        "Which request port of the workload: 0, 1, ...; none if it was refused before that was known.",
    ),
    row(
        "client",
        "string",
        What::Client,
        "Address and port of the other end of the connection, which may be a proxy or an activator.",
    ),
    row(
        "method",
        "string",
        What::Method,
        "Its method; like the next four, none if it was malformed.",
    ),
    row(
        "path",
        "string",
        What::Path,
        "Its path, with the query only under `--request-log-query`; the first 2 KiB.",
    ),
    row(
        "protocol",
        "string",
        What::Protocol,
        "`HTTP/1.0`, `HTTP/1.1` or `HTTP/2`, as the client speaks it.",
    ),
    row(
        "user_agent",
        "string",
        What::UserAgent,
        "Its `User-Agent`; the first 256 bytes.",
    ),
    row(
        "trace_id",
        "string",
        What::TraceId,
        "The trace that its `traceparent` names, or that began here.",
    ),
    row(
        "status",
        "number",
        What::Status,
        "Status of the answer; none if its client left before there was one.",
    ),
    row(
        "outcome",
        "string",
        What::Outcome,
        "What it came to, as in the request counters: a class of statuses such as `2xx`, or a code of the errors.",
    ),
    row(
        "bytes_received",
        "number",
        What::BytesReceived,
        "Of its body, as far as it was read; what came through a WebSocket.",
    ),
    row(
        "bytes_sent",
        "number",
        What::BytesSent,
        "Of the answer's body, as far as it was handed to the connection; what went through a WebSocket.",
    ),
    row(
        "duration_ms",
        "number",
        What::DurationMs,
        "From its head to the end of its answer.",
    ),
    row(
        "wait_ms",
        "number",
        What::WaitMs,
        "How long it waited for a slot (queue-proxy) or for a pod (activator).",
    ),
    row(
        "first_byte_ms",
        "number",
        What::FirstByteMs,
        "From when it was given to the model, or to the pod, to the head of the answer.",
    ),
];

impl What {
    pub(super) fn of(self, ended: &Ended) -> Value<'_> {
        let own = |text: &'static str| Value::Own(Cow::Borrowed(text));
        match self {
            Self::Time => time(ended),
            Self::Program => own(ended.place.program),
            Self::Workload => Value::Own(Cow::Borrowed(&ended.place.workload)),
            Self::Pod => foreign(ended.place.pod.as_ref().map(|uid| uid.as_bytes())),
            Self::Port => number(ended.place.port.map(|port| port as u64)),
            Self::Client => Value::Own(Cow::Owned(ended.place.client.to_string())),
            Self::Method => foreign(ended.head.method.as_ref().map(|m| m.as_str().as_bytes())),
            Self::Path => foreign(ended.head.path.as_ref().map(|path| path.as_bytes())),
            Self::Protocol => ended.head.version.map_or(Value::None, |version| {
                own(match version {
                    Version::HTTP_2 => "HTTP/2",
                    Version::HTTP_10 => "HTTP/1.0",
                    _ => "HTTP/1.1",
                })
            }),
            Self::UserAgent => foreign(ended.head.agent.as_deref()),
            Self::TraceId => ended.head.parent.map_or(Value::None, |parent| {
                Value::Own(Cow::Owned(parent.trace.to_string()))
            }),
            Self::Status => number(ended.status.map(|status| status.as_u16().into())),
            Self::Outcome => own(ended.outcome),
            Self::BytesReceived => Value::Number(ended.received),
            Self::BytesSent => Value::Number(ended.sent),
            Self::DurationMs => Value::Millis(ended.took),
            Self::WaitMs => ended.waited().map_or(Value::None, Value::Millis),
            Self::FirstByteMs => ended.first_byte().map_or(Value::None, Value::Millis),
        }
    }
}

/// A clock that is centuries off has no time to tell.
fn time(ended: &Ended) -> Value<'_> {
    Timestamp::try_from(ended.began).map_or(Value::None, |time| {
        Value::Own(Cow::Owned(format!("{time:.6}")))
    })
}

fn foreign(bytes: Option<&[u8]>) -> Value<'_> {
    bytes.map_or(Value::None, Value::Foreign)
}

fn number(number: Option<u64>) -> Value<'static> {
    number.map_or(Value::None, Value::Number)
}
