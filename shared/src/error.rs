//! Errors inside a request path are boxed; each program turns them into an answer in exactly one place.

use std::error::Error;

use http::{HeaderValue, Response, StatusCode, header::CONTENT_TYPE};

use crate::{http::body::Body, openai};

/// An error on its way through a request path.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// The outcome of a request whose client has left before its answer had ended.
pub const CLIENT_GONE: &str = "client-gone";
/// The outcome of a request whose client has stopped reading its answer.
pub const CLIENT_STALLED: &str = "client-stalled";
/// The outcome of a request that was cut with its connection, as the time was over that there is to end what had begun.
pub const CUT: &str = "cut";

/// Whose doing an outcome was. Labels metrics and sets the log level: a client that hung up is not our error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The client: malformed requests, hang-ups.
    Client,
    /// The model, its process or its pod.
    Upstream,
    /// Rouse itself: limits reached, shutting down.
    Us,
}

impl Origin {
    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Upstream => "upstream",
            Self::Us => "rouse",
        }
    }
}

/// The form of the answer that says what went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A line of text, `rouse: CODE: TEXT`.
    Line,
    /// OpenAI's, as JSON.
    OpenAi,
}

impl Form {
    /// The form for a request for `path` to a workload that wants OpenAI's where it fits, or does not.
    pub fn of(openai_errors: bool, path: &str) -> Self {
        if openai_errors && openai::is_api(path) {
            Self::OpenAi
        } else {
            Self::Line
        }
    }

    /// The answer. `text` may have more lines than one.
    pub fn answer(self, status: StatusCode, code: &str, text: &str) -> Response<Body> {
        let text = text.trim_end();
        let (kind, body) = match self {
            Self::Line => (
                "text/plain; charset=utf-8",
                format!("rouse: {code}: {text}\n"),
            ),
            Self::OpenAi => ("application/json", openai::error(status, code, text)),
        };
        let mut answer = Response::new(Body::full(body));
        *answer.status_mut() = status;
        let kind = HeaderValue::from_static(kind);
        answer.headers_mut().insert(CONTENT_TYPE, kind);
        answer
    }
}

/// One row of a program's error contract, for its reference page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Status of the answer; none where the refused message decides.
    pub status: Option<u16>,
    /// Stable name, in the body and in metrics.
    pub code: &'static str,
    /// The rest of the body; empty where the refused message decides.
    pub text: &'static str,
    /// Whose doing it is.
    pub origin: Origin,
    /// Value of `Retry-After`, in words where it is computed.
    pub retry_after: Option<&'static str>,
    /// What an activator is told by a queue-proxy; none elsewhere.
    pub admission: Option<&'static str>,
}

/// The first error of type `E` in the chain that starts at `error`.
pub fn cause_ref<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}
