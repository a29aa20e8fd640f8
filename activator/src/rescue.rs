//! The error contract of the activator's listeners: every way a request can fail, and its one answer.

use http::{Response, StatusCode, header::RETRY_AFTER};
use shared::{
    Origin,
    error::{Form, Row},
    http::{
        body::{Body, BodyBroken},
        h1::Refusal,
    },
};
use tokio::time::Instant;

use crate::seam::Failed;

/// Why a request got no answer from a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Malformed, or over a limit of size.
    Refused(Refusal),
    /// The client's body broke off or was malformed.
    BodyBroken,
    /// The client's body came more slowly than it may.
    BodySlow,
    /// It comes from a namespace that may not send here, or from nobody's address.
    NamespaceNotAllowed,
    /// Whether it may send here cannot be found out.
    SourceUnknown,
    /// As many requests as may be are held.
    HoldFull,
    /// As many requests of all workloads as may be are held, or so many of this one that the others need the rest.
    HoldsFull,
    /// As many bytes as may be are held.
    HoldBytes,
    /// Held for too long.
    Expired,
    /// The workload cannot start.
    CannotStart(Failed),
    /// The workload was removed, also while the request was held.
    Removed,
    /// The workload's scale is frozen at zero.
    Paused,
    /// The pod broke off after it had been given the request.
    PodBroke,
}

/// One row of the contract.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    pub(crate) status: u16,
    pub(crate) code: &'static str,
    pub(crate) text: &'static str,
    pub(crate) origin: Origin,
    /// Seconds.
    pub(crate) retry_after: Option<u64>,
}

/// Seconds after which a paused workload may be asked again: somebody must unpause it first.
const PAUSED_RETRY: u64 = 30;

/// The code of a pod that broke off, before or in its answer.
pub(crate) const BROKE: &str = "pod-broke";

/// A probe was answered here since no pod was ready.
pub(crate) const PROBE_ANSWERED: &str = "probe-answered";

/// A browser was given a page since no pod was ready.
pub(crate) const PLACEHOLDER: &str = "placeholder";

/// Codes of answers of our own that are no failures, for metrics.
pub(crate) const OWN_CODES: [(&str, Origin); 2] =
    [(PROBE_ANSWERED, Origin::Us), (PLACEHOLDER, Origin::Us)];

/// Codes of all rules, for metrics.
pub(crate) const CODES: [(&str, Origin); 13] = [
    ("malformed", Origin::Client),
    ("body-broken", Origin::Client),
    ("body-too-slow", Origin::Client),
    ("namespace-not-allowed", Origin::Client),
    ("source-unknown", Origin::Us),
    ("hold-full", Origin::Us),
    ("holds-full", Origin::Us),
    ("hold-bytes", Origin::Us),
    ("no-capacity", Origin::Upstream),
    ("cannot-start", Origin::Upstream),
    ("removed", Origin::Us),
    ("paused", Origin::Us),
    (BROKE, Origin::Upstream),
];

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
    /// The table.
    pub(crate) fn rule(&self) -> Rule {
        use Origin::{Client, Upstream, Us};
        let row = |status, code, text, origin, retry_after| Rule {
            status,
            code,
            text,
            origin,
            retry_after,
        };
        match self {
            Self::Refused(refusal) => {
                row(refusal.status, "malformed", refusal.reason, Client, None)
            }
            Self::BodyBroken => row(
                400,
                "body-broken",
                "the request body ended early",
                Client,
                None,
            ),
            Self::BodySlow => row(
                408,
                "body-too-slow",
                "the request body came too slowly",
                Client,
                None,
            ),
            // Not which ones are: that is nobody's business who is none of them.
            Self::NamespaceNotAllowed => row(
                403,
                "namespace-not-allowed",
                "the workload takes no requests from this namespace or address",
                Client,
                None,
            ),
            Self::SourceUnknown => row(
                503,
                "source-unknown",
                "it cannot be found out at present whether this sender is allowed",
                Us,
                Some(1),
            ),
            Self::HoldFull => row(
                503,
                "hold-full",
                "too many requests are waiting for this workload",
                Us,
                Some(1),
            ),
            Self::HoldsFull => row(
                503,
                "holds-full",
                "too many requests are waiting for all workloads together",
                Us,
                Some(1),
            ),
            Self::HoldBytes => row(
                503,
                "hold-bytes",
                "too many bytes are waiting for this workload",
                Us,
                Some(1),
            ),
            Self::Expired => row(
                504,
                "no-capacity",
                "no pod was ready in time",
                Upstream,
                None,
            ),
            Self::CannotStart(failed) => {
                let wait = failed
                    .retry_at
                    .saturating_duration_since(Instant::now())
                    .as_secs()
                    + 1;
                row(
                    503,
                    "cannot-start",
                    "the workload cannot start",
                    Upstream,
                    Some(wait),
                )
            }
            Self::Removed => row(503, "removed", "the workload was removed", Us, Some(1)),
            Self::Paused => row(
                503,
                "paused",
                "the workload is paused at zero replicas",
                Us,
                Some(PAUSED_RETRY),
            ),
            Self::PodBroke => row(
                502,
                BROKE,
                "the pod broke off without an answer",
                Upstream,
                None,
            ),
        }
    }

    pub(crate) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.rule().status).unwrap_or(StatusCode::BAD_GATEWAY)
    }

    /// What the answer says beside the code.
    pub(crate) fn text(&self, explain: bool) -> String {
        let text = self.rule().text;
        match self {
            Self::CannotStart(failed) if explain => {
                format!("{text}: {}\n{}", failed.reason, failed.detail)
            }
            _ => text.to_owned(),
        }
    }

    /// The answer. Why a workload cannot start is only said where `explain` allows it.
    pub(crate) fn answer(&self, explain: bool, form: Form) -> Response<Body> {
        let rule = self.rule();
        let mut answer = form.answer(self.status(), rule.code, &self.text(explain));
        let headers = answer.headers_mut();
        if let Some(seconds) = rule.retry_after {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        answer
    }
}

/// The whole contract, for its reference page.
#[doc(hidden)]
pub fn contract() -> Vec<Row> {
    let failed = Failed {
        reason: String::new(),
        detail: String::new(),
        retry_at: Instant::now(),
    };
    let refused = Failure::Refused(Refusal::bad(""));
    let failures = [
        refused.clone(),
        Failure::BodyBroken,
        Failure::BodySlow,
        Failure::NamespaceNotAllowed,
        Failure::SourceUnknown,
        Failure::HoldFull,
        Failure::HoldsFull,
        Failure::HoldBytes,
        Failure::Expired,
        Failure::CannotStart(failed),
        Failure::Removed,
        Failure::Paused,
        Failure::PodBroke,
    ];
    let rows = failures.iter().map(|failure| {
        let rule = failure.rule();
        Row {
            status: (*failure != refused).then_some(rule.status),
            code: rule.code,
            text: rule.text,
            origin: rule.origin,
            retry_after: rule.retry_after.map(|_| match failure {
                Failure::CannotStart(_) => "seconds until the next attempt",
                Failure::Paused => "30",
                _ => "1",
            }),
            admission: None,
        }
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn every_row_says_what_the_contract_says() {
        let failed = Failed {
            reason: "exited with status 3".into(),
            detail: "boom\n".into(),
            retry_at: Instant::now() + Duration::from_secs(9),
        };
        let rows = [
            (Failure::Refused(Refusal::bad("x")), 400, None),
            (Failure::BodyBroken, 400, None),
            (Failure::BodySlow, 408, None),
            (Failure::NamespaceNotAllowed, 403, None),
            (Failure::SourceUnknown, 503, Some("1")),
            (Failure::HoldFull, 503, Some("1")),
            (Failure::HoldsFull, 503, Some("1")),
            (Failure::HoldBytes, 503, Some("1")),
            (Failure::Expired, 504, None),
            (Failure::CannotStart(failed.clone()), 503, Some("9")),
            (Failure::Removed, 503, Some("1")),
            (Failure::Paused, 503, Some("30")),
            (Failure::PodBroke, 502, None),
        ];
        for ((failure, status, retry), (code, origin)) in rows.iter().zip(CODES) {
            let answer = failure.answer(false, Form::Line);
            assert_eq!(answer.status().as_u16(), *status, "{failure:?}");
            assert_eq!(
                answer
                    .headers()
                    .get(RETRY_AFTER)
                    .map(|v| v.to_str().unwrap()),
                *retry,
                "{failure:?}"
            );
            assert_eq!((failure.rule().code, failure.rule().origin), (code, origin));
        }
        let text = |explain| Failure::CannotStart(failed.clone()).text(explain);
        assert_eq!(text(false), "the workload cannot start");
        assert_eq!(
            text(true),
            "the workload cannot start: exited with status 3\nboom\n"
        );
    }

    #[test]
    fn the_reference_page_has_every_row_once() {
        let rows = contract();
        let codes: Vec<_> = rows.iter().map(|row| (row.code, row.origin)).collect();
        assert_eq!(codes, CODES);
        for row in rows {
            let retry = matches!(row.status, Some(503)).then_some(());
            assert_eq!(row.retry_after.map(drop), retry, "{}", row.code);
        }
    }
}
