//! Signs of life for a client that waits for an event stream while its request is held.
//!
//! The answer begins before there is one: 200, and comments, which clients of event streams skip. From then on status and headers
//! are sent, so whatever else comes of the request is told as one event of the name `error`, in OpenAI's form. The request goes on
//! in a task of its own: it keeps its deadline and leaves the pod on time also if the client does not read. The task ends with the body.
//! Source of the format: the WHATWG's HTML standard, section 9.2.5 (server-sent events).

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE},
    request::Parts,
};
use http_body::{Body as _, Frame};
use serde::Deserialize;
use shared::{BoxError, http::body::Body, openai, record::Tally};
use tokio::{
    task::JoinSet,
    time::{Duration, Interval, MissedTickBehavior, interval, timeout},
};

use super::{Answering, Outcome, accept, class, exchange::Answered};
use crate::rescue::Failure;

/// A line that begins with a colon is a comment; the empty one after it ends what could not become an event.
const COMMENT: &[u8] = b": rouse is waking the model\n\n";
const EVENT_STREAM: &str = "text/event-stream";

/// Of an answer that cannot be passed on, so much is read to see what the model says, for so long.
const ERROR_BYTES: usize = 64 * 1024;
const ERROR_PATIENCE: Duration = Duration::from_secs(5);

/// What matters of a request in OpenAI's form.
#[derive(Deserialize)]
struct Asked {
    stream: Option<bool>,
}

/// Whether a request whose whole body is in memory wants an event stream.
pub(super) fn is_wanted(parts: &Parts, body: &Body) -> bool {
    parts.method != Method::HEAD
        && (accept::includes(&parts.headers, EVENT_STREAM) || asks_to_stream(parts, body))
}

/// OpenAI's clients accept JSON and say in the body that they want a stream.
fn asks_to_stream(parts: &Parts, body: &Body) -> bool {
    let asks = |bytes: Bytes| {
        let asked = serde_json::from_slice::<Asked>(&bytes);
        asked.is_ok_and(|asked| asked.stream == Some(true))
    };
    parts.method == Method::POST
        && openai::is_api(parts.uri.path())
        && body.whole().is_some_and(asks)
}

/// The answer to a request that is held still: a comment now and every so often, then what comes of `answering`.
pub(super) fn answer(
    every: Duration,
    answering: impl Future<Output = Result<Answered, Failure>> + Send + 'static,
    mut outcome: Outcome,
    explain: bool,
) -> Response<Body> {
    outcome.record.status(StatusCode::OK);
    let sent = outcome.record.notes().sent();
    let rest = conclude(answering, outcome, explain);
    let mut answer = Response::new(Body::made(Heartbeats::new(every, sent, rest)));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    answer
}

/// The rest of the body: the model's, or an event that says why there is none. Its outcome is what it would be if nothing had been
/// sent before: the class of the model's answer, or the code of the failure.
async fn conclude(
    answering: impl Future<Output = Result<Answered, Failure>> + Send,
    mut outcome: Outcome,
    explain: bool,
) -> Body {
    match answering.await {
        Ok(Answered { answer, lease, .. }) => {
            if continues(&answer) {
                let sent = outcome.record.notes().sent();
                let guard = Answering::new(&mut outcome, answer.status(), lease);
                answer.into_body().tallied(sent).ending(guard)
            } else {
                outcome.code = Some(class(answer.status()));
                let record = outcome.recorded();
                let event = event(&error_of(answer).await);
                drop(lease);
                record.end_with(event)
            }
        }
        Err(failure) => {
            let rule = failure.rule();
            // Its body was whole, so it can only have gone.
            if failure != Failure::BodyBroken {
                outcome.code = Some(rule.code);
            }
            let text = failure.text(explain);
            let event = event(&openai::error(failure.status(), rule.code, text.trim_end()));
            outcome.recorded().end_with(event)
        }
    }
}

/// Whether a body can follow on what was sent already.
fn continues(answer: &Response<Body>) -> bool {
    let plain = answer
        .headers()
        .get(CONTENT_ENCODING)
        .is_none_or(|coding| coding.as_bytes().eq_ignore_ascii_case(b"identity"));
    answer.status() == StatusCode::OK
        && plain
        && kind(answer.headers()).eq_ignore_ascii_case(EVENT_STREAM)
}

/// The media type, without parameters.
fn kind(headers: &HeaderMap) -> &str {
    let value = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let kind = value.unwrap_or_default().split(';').next();
    kind.unwrap_or_default().trim()
}

/// What the model says in OpenAI's form, else the status that it answered.
async fn error_of(answer: Response<Body>) -> String {
    let (parts, body) = answer.into_parts();
    let read = timeout(ERROR_PATIENCE, first_bytes(body)).await;
    let said = read.ok().flatten();
    let said = said.and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok());
    if let Some(said) = said.filter(|said| said["error"].is_object()) {
        return said.to_string();
    }
    let text = if parts.status == StatusCode::OK {
        "the model's answer is not a plain event stream".to_owned()
    } else {
        format!("the model answered {}", parts.status)
    };
    openai::error(parts.status, "model-answer", &text)
}

/// The whole body, if it is not larger than anybody would read.
async fn first_bytes(mut body: Body) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        let frame = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
        match frame {
            None => return Some(bytes),
            Some(Err(_)) => return None,
            Some(Ok(frame)) => {
                let data = frame.into_data().unwrap_or_default();
                if bytes.len() + data.len() > ERROR_BYTES {
                    return None;
                }
                bytes.extend_from_slice(&data);
            }
        }
    }
}

/// The one event. JSON is one line, as `data` has to be.
fn event(json: &str) -> Body {
    Body::full(format!("event: error\ndata: {json}\n\n"))
}

/// The body of the answer.
struct Heartbeats {
    beats: Interval,
    /// Of the comments; the rest of the body adds up its own bytes.
    sent: Tally,
    stage: Stage,
}

enum Stage {
    /// For the rest of the body. One task; a set, because dropping it ends what is in it.
    Waiting(JoinSet<Body>),
    Through(Box<Body>),
}

impl Heartbeats {
    fn new(
        every: Duration,
        sent: Tally,
        rest: impl Future<Output = Body> + Send + 'static,
    ) -> Self {
        let mut task = JoinSet::new();
        task.spawn(rest);
        let mut beats = interval(every);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            beats,
            sent,
            stage: Stage::Waiting(task),
        }
    }
}

impl http_body::Body for Heartbeats {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        loop {
            match &mut this.stage {
                Stage::Through(body) => return Pin::new(&mut **body).poll_frame(cx),
                Stage::Waiting(task) => match task.poll_join_next(cx) {
                    Poll::Ready(Some(Ok(body))) => this.stage = Stage::Through(Box::new(body)),
                    // It panicked: the transfer breaks off, as that of any other request would.
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error.into()))),
                    Poll::Ready(None) => return Poll::Ready(None),
                    Poll::Pending => {
                        ready!(this.beats.poll_tick(cx));
                        this.sent.add(COMMENT.len());
                        let comment = Bytes::from_static(COMMENT);
                        return Poll::Ready(Some(Ok(Frame::data(comment))));
                    }
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::time::{Instant, sleep};

    use super::*;

    async fn next(body: &mut Body) -> Option<Bytes> {
        let frame = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await?;
        Some(frame.unwrap().into_data().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_comment_comes_at_once_and_then_every_so_often_until_there_is_an_answer() {
        let started = Instant::now();
        let mut body = Body::made(Heartbeats::new(
            Duration::from_secs(15),
            Tally::default(),
            async {
                sleep(Duration::from_secs(40)).await;
                event("{}")
            },
        ));
        let mut came = Vec::new();
        while let Some(bytes) = next(&mut body).await {
            let text = String::from_utf8(bytes.to_vec()).unwrap();
            came.push((started.elapsed().as_secs(), text));
        }
        let comment = String::from_utf8(COMMENT.to_vec()).unwrap();
        let error = "event: error\ndata: {}\n\n".to_owned();
        assert_eq!(
            came,
            [
                (0, comment.clone()),
                (15, comment.clone()),
                (30, comment),
                (40, error)
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_waited_for_goes_on_unread_and_ends_with_the_body() {
        let (alive, done) = (Arc::new(()), Arc::new(()));
        let (held, finished) = (Arc::clone(&alive), Arc::clone(&done));
        let unread = Body::made(Heartbeats::new(
            Duration::from_secs(1),
            Tally::default(),
            async move {
                sleep(Duration::from_secs(2)).await;
                drop(finished);
                sleep(Duration::from_hours(1)).await;
                drop(held);
                Body::empty()
            },
        ));
        sleep(Duration::from_secs(3)).await;
        assert_eq!(Arc::strong_count(&done), 1, "nobody has read a byte");
        assert_eq!(Arc::strong_count(&alive), 2);
        drop(unread);
        sleep(Duration::from_millis(1)).await;
        assert_eq!(Arc::strong_count(&alive), 1);
    }

    #[test]
    fn only_a_plain_event_stream_can_follow_on_what_was_sent() {
        let continues = |status: u16, kind: &'static str, coding: Option<&'static str>| {
            let mut answer = Response::new(Body::empty());
            *answer.status_mut() = StatusCode::from_u16(status).unwrap();
            let headers = answer.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            if let Some(coding) = coding {
                headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding));
            }
            continues(&answer)
        };
        assert!(continues(200, "text/event-stream", None));
        assert!(continues(
            200,
            "Text/Event-Stream ;charset=utf-8",
            Some("identity")
        ));
        assert!(!continues(200, "text/event-stream", Some("gzip")));
        assert!(!continues(201, "text/event-stream", None));
        assert!(!continues(200, "text/event-streams", None));
        assert!(!continues(200, "", None));
    }
}
