//! The error contract of the queue-proxy's listeners: every way a request can fail, and its one answer.

use http::{HeaderValue, Response, StatusCode, header::RETRY_AFTER};
use shared::{
    Origin,
    error::{Form, Row},
    headers::{ADMISSION, admission},
    http::{
        body::{Body, BodyBroken},
        h1::Refusal,
    },
};

/// Why a request got no answer from the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Malformed, or over a limit of size.
    Refused(Refusal),
    /// The client's body broke off or was malformed.
    BodyBroken,
    /// The client's body came more slowly than it may.
    BodySlow,
    /// No slot, and no room to wait.
    QueueFull,
    /// Waited for too long.
    QueueTimeout,
    /// The model is not ready yet.
    NotReady,
    /// Meant for another pod.
    Misdirected,
    /// An activator named a port that this pod has not.
    UnknownPort,
    /// The reserved slot is gone.
    TicketExpired,
    /// The model takes no connection: the request was not sent.
    ModelUnreachable,
    /// The model closed the connection, or answered what is no HTTP, after the request was sent.
    ModelBroke,
    /// An activator that the request was bounced to closed the connection without an answer, or in the middle of it.
    RelayBroke,
    /// The whole request took longer than it may.
    RequestTimeout,
    /// The model took longer than it may to begin its answer.
    ResponseStartTimeout,
    /// Nothing came from the model for longer than may be.
    IdleTimeout,
}

/// One row of the contract.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    pub(crate) status: u16,
    /// Stable, for metrics and clients.
    pub(crate) code: &'static str,
    pub(crate) text: &'static str,
    pub(crate) origin: Origin,
    /// What an activator is told; `None` stands for admitted.
    pub(crate) not_admitted: Option<&'static str>,
    /// Seconds.
    pub(crate) retry_after: Option<u16>,
}

impl From<BodyBroken> for Failure {
    fn from(broken: BodyBroken) -> Self {
        if broken.is_too_slow() {
            Self::BodySlow
        } else {
            Self::BodyBroken
        }
    }
}

impl Failure {
    /// Every failure with a rule of its own, for metrics.
    pub(crate) const ALL: [Self; 14] = [
        Self::BodyBroken,
        Self::BodySlow,
        Self::QueueFull,
        Self::QueueTimeout,
        Self::NotReady,
        Self::Misdirected,
        Self::UnknownPort,
        Self::TicketExpired,
        Self::ModelUnreachable,
        Self::ModelBroke,
        Self::RelayBroke,
        Self::RequestTimeout,
        Self::ResponseStartTimeout,
        Self::IdleTimeout,
    ];

    /// The table.
    #[expect(clippy::too_many_lines, reason = "a table, a few lines a row")]
    pub(crate) fn rule(self) -> Rule {
        use Origin::{Client, Upstream, Us};
        let row = |status, code, text, origin, not_admitted, retry_after| Rule {
            status,
            code,
            text,
            origin,
            not_admitted,
            retry_after,
        };
        match self {
            Self::Refused(refusal) => row(
                refusal.status,
                "malformed",
                refusal.reason,
                Client,
                None,
                None,
            ),
            Self::BodyBroken => row(
                400,
                "body-broken",
                "the request body ended early",
                Client,
                None,
                None,
            ),
            Self::BodySlow => row(
                408,
                "body-too-slow",
                "the request body came too slowly",
                Client,
                None,
                None,
            ),
            Self::QueueFull => row(
                503,
                "queue-full",
                "too many requests are waiting",
                Us,
                Some(admission::FULL),
                Some(1),
            ),
            Self::QueueTimeout => row(
                504,
                "queue-timeout",
                "no slot became free in time",
                Us,
                Some(admission::FULL),
                None,
            ),
            Self::NotReady => row(
                503,
                "not-ready",
                "the model is not ready",
                Upstream,
                Some(admission::NOT_READY),
                Some(1),
            ),
            Self::Misdirected => row(
                421,
                "misdirected",
                "another pod was meant",
                Us,
                Some(admission::MISDIRECTED),
                None,
            ),
            Self::UnknownPort => row(
                421,
                "unknown-port",
                "the pod has no such port",
                Us,
                Some(admission::MISDIRECTED),
                None,
            ),
            Self::TicketExpired => row(
                503,
                "ticket-expired",
                "the reserved slot is gone",
                Us,
                Some(admission::FULL),
                Some(1),
            ),
            Self::ModelUnreachable => row(
                502,
                "model-unreachable",
                "the model takes no connection",
                Upstream,
                Some(admission::NOT_READY),
                Some(1),
            ),
            Self::ModelBroke => row(
                502,
                "model-broke",
                "the model closed the connection without an answer",
                Upstream,
                None,
                None,
            ),
            Self::RelayBroke => row(
                502,
                "relay-broke",
                "the activator closed the connection without an answer",
                Us,
                None,
                None,
            ),
            // Of these three the model has had the request, so they are admitted: nobody sends it again.
            Self::RequestTimeout => row(
                504,
                "request-timeout",
                "the request took longer than it may",
                Upstream,
                None,
                None,
            ),
            Self::ResponseStartTimeout => row(
                504,
                "response-start-timeout",
                "the model did not begin its answer in time",
                Upstream,
                None,
                None,
            ),
            Self::IdleTimeout => row(
                504,
                "idle-timeout",
                "nothing came from the model for too long",
                Upstream,
                None,
                None,
            ),
        }
    }

    /// The answer. Fixed texts only: nothing of the request and no address is ever in it.
    pub(crate) fn answer(self, to_activator: bool, form: Form) -> Response<Body> {
        let rule = self.rule();
        let status = StatusCode::from_u16(rule.status).unwrap_or(StatusCode::BAD_GATEWAY);
        let mut answer = form.answer(status, rule.code, rule.text);
        let headers = answer.headers_mut();
        if let Some(seconds) = rule.retry_after {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        if to_activator {
            let marker = rule.not_admitted.unwrap_or(admission::ADMITTED);
            headers.insert(ADMISSION, HeaderValue::from_static(marker));
        }
        answer
    }
}

/// The whole contract, for its reference page.
#[doc(hidden)]
pub fn contract() -> Vec<Row> {
    let rows = Failure::ALL.iter().map(|failure| {
        let rule = failure.rule();
        Row {
            status: Some(rule.status),
            code: rule.code,
            text: rule.text,
            origin: rule.origin,
            retry_after: rule.retry_after.map(|seconds| match seconds {
                1 => "1",
                _ => "some seconds",
            }),
            admission: Some(rule.not_admitted.unwrap_or(admission::ADMITTED)),
        }
    });
    let rule = Failure::Refused(Refusal::bad("")).rule();
    let refused = Row {
        status: None,
        code: rule.code,
        text: rule.text,
        origin: rule.origin,
        retry_after: None,
        admission: Some(admission::ADMITTED),
    };
    std::iter::once(refused).chain(rows).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_says_what_the_contract_says() {
        let rows = [
            (Failure::BodyBroken, 400, "admitted", false),
            (Failure::BodySlow, 408, "admitted", false),
            (Failure::QueueFull, 503, "full", true),
            (Failure::QueueTimeout, 504, "full", false),
            (Failure::NotReady, 503, "not-ready", true),
            (Failure::Misdirected, 421, "misdirected", false),
            (Failure::UnknownPort, 421, "misdirected", false),
            (Failure::TicketExpired, 503, "full", true),
            (Failure::ModelUnreachable, 502, "not-ready", true),
            (Failure::ModelBroke, 502, "admitted", false),
            (Failure::RelayBroke, 502, "admitted", false),
            (Failure::RequestTimeout, 504, "admitted", false),
            (Failure::ResponseStartTimeout, 504, "admitted", false),
            (Failure::IdleTimeout, 504, "admitted", false),
        ];
        assert_eq!(rows.map(|r| r.0), Failure::ALL);
        for (failure, status, marker, retry) in rows {
            let answer = failure.answer(true, Form::Line);
            assert_eq!(answer.status().as_u16(), status, "{failure:?}");
            assert_eq!(answer.headers()[ADMISSION], marker, "{failure:?}");
            assert_eq!(
                answer.headers().contains_key(RETRY_AFTER),
                retry,
                "{failure:?}"
            );
            let to_client = failure.answer(false, Form::OpenAi);
            assert!(!to_client.headers().contains_key(ADMISSION));
            assert_eq!(to_client.status(), answer.status());
            assert_eq!(to_client.headers().contains_key(RETRY_AFTER), retry);
            assert_eq!(to_client.headers()["content-type"], "application/json");
        }
        assert_eq!(
            Failure::Refused(Refusal::HEAD_TOO_LARGE)
                .answer(false, Form::Line)
                .status()
                .as_u16(),
            431
        );
    }

    #[test]
    fn the_reference_page_has_every_row_once() {
        let rows = contract();
        let codes: std::collections::BTreeSet<_> = rows.iter().map(|row| row.code).collect();
        assert_eq!((rows.len(), codes.len()), (15, 15));
        for (row, failure) in rows[1..].iter().zip(Failure::ALL) {
            let answer = failure.answer(true, Form::Line);
            assert_eq!(row.status, Some(answer.status().as_u16()));
            let retry = answer.headers().get(RETRY_AFTER).map(HeaderValue::as_bytes);
            assert_eq!(row.retry_after.map(str::as_bytes), retry, "{failure:?}");
            let marker = answer.headers()[ADMISSION].as_bytes();
            assert_eq!(row.admission.map(str::as_bytes), Some(marker));
        }
    }
}
