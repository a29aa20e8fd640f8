//! How long the model may take: Knative's three limits of a request (`pkg/http/handler/timeout.go`).
//!
//! They begin when the request is admitted; the wait for a slot has a limit of its own. Before the answer has begun the first of them
//! decides, and there is an answer for it. Afterwards there is no status left to send, so the stream is broken off. An upgraded
//! connection is no request any more: only its silence is limited.

use std::time::Duration;

use shared::http::body::{Late, Limits};
use tokio::time::Instant;

use crate::rescue::Failure;

/// Limits of one request at the model; none of them by default, since an answer that is cut while it is being made is the worst of
/// its outcomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// From admission to the last byte of the answer (Knative's `timeoutSeconds`).
    pub request: Option<Duration>,
    /// From admission to the head of the answer (Knative's `responseStartTimeoutSeconds`).
    pub response_start: Option<Duration>,
    /// Longest silence of the model. Until its answer begins, all of that time is silence, as in Knative (`idleTimeoutSeconds`).
    pub idle: Option<Duration>,
}

impl Timeouts {
    /// When an answer must have begun, and what it is otherwise. Of two at once the one that is meant for the beginning counts.
    pub(crate) fn before_answer(&self, admitted: Instant) -> Option<(Instant, Failure)> {
        let limits = [
            (self.response_start, Failure::ResponseStartTimeout),
            (self.idle, Failure::IdleTimeout),
            (self.request, Failure::RequestTimeout),
        ];
        limits
            .into_iter()
            .filter_map(|(limit, failure)| Some((admitted.checked_add(limit?)?, failure)))
            .min_by_key(|(at, _)| *at)
    }

    /// The limits of an answer that has begun.
    pub(crate) fn of_answer(&self, admitted: Instant) -> Limits {
        Limits {
            end: self
                .request
                .and_then(|request| admitted.checked_add(request)),
            idle: self.idle,
        }
    }
}

/// Which failure a limit stands for.
pub(crate) fn failure(late: Late) -> Failure {
    match late {
        Late::End => Failure::RequestTimeout,
        Late::Idle => Failure::IdleTimeout,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Option<Duration> = |seconds| Some(Duration::from_secs(seconds));

    #[test]
    fn the_first_limit_decides_until_the_answer_begins() {
        let admitted = Instant::now();
        for (request, response_start, idle, at) in [
            (None, None, None, None),
            (S(9), None, None, Some((9, Failure::RequestTimeout))),
            (S(9), S(5), S(7), Some((5, Failure::ResponseStartTimeout))),
            (S(9), S(8), S(7), Some((7, Failure::IdleTimeout))),
            (S(3), S(5), S(7), Some((3, Failure::RequestTimeout))),
            (S(3), S(3), S(3), Some((3, Failure::ResponseStartTimeout))),
            (Some(Duration::MAX), None, None, None),
        ] {
            let timeouts = Timeouts {
                request,
                response_start,
                idle,
            };
            let expected =
                at.map(|(seconds, failure)| (admitted + Duration::from_secs(seconds), failure));
            assert_eq!(timeouts.before_answer(admitted), expected, "{timeouts:?}");
        }
    }

    #[test]
    fn the_limits_of_an_answer_that_has_begun_are_the_whole_and_silence() {
        let admitted = Instant::now();
        let limits = Timeouts {
            request: S(9),
            response_start: S(1),
            idle: S(2),
        }
        .of_answer(admitted);
        assert_eq!(limits.end, Some(admitted + Duration::from_secs(9)));
        assert_eq!(limits.idle, S(2));
    }
}
