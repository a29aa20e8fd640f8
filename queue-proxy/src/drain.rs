//! When a pod that was told to go may go.
//!
//! Drained means: the signal is at least `settle` old (endpoints everywhere know by then), no request has arrived for
//! `quiet`, and nothing is open. Knative waits a fixed 30 s from the last new request (`vendor/knative.dev/pkg/network/
//! handlers/drain.go`); counting what is open makes it both shorter and safer.

use std::time::Duration;

/// The rule's two times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Least time since the signal.
    pub settle: Duration,
    /// Least time since the last arrival.
    pub quiet: Duration,
}

impl Default for Rule {
    /// 5 s for kube-proxy and ingress controllers to learn of the change, 2 s of silence.
    fn default() -> Self {
        Self {
            settle: Duration::from_secs(5),
            quiet: Duration::from_secs(2),
        }
    }
}

impl Rule {
    /// `None` when drained, else how long it will take at least; poll again then (or a little later).
    ///
    /// `since_signal` and `since_arrival` are ages; `open` counts requests that are here in any form.
    pub fn remaining(
        &self,
        since_signal: Duration,
        since_arrival: Option<Duration>,
        open: u64,
    ) -> Option<Duration> {
        let settle = self.settle.saturating_sub(since_signal);
        let quiet = since_arrival.map_or(Duration::ZERO, |age| self.quiet.saturating_sub(age));
        let wait = settle.max(quiet);
        match (wait.is_zero(), open) {
            (true, 0) => None,
            // Nothing tells when the last answer ends, so this is polled.
            (true, _) => Some(Duration::from_millis(10)),
            (false, _) => Some(wait),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_for_all_three() {
        let s = Duration::from_secs;
        let rule = Rule::default();
        assert_eq!(rule.remaining(s(0), None, 0), Some(s(5)));
        assert_eq!(rule.remaining(s(5), None, 0), None);
        assert_eq!(rule.remaining(s(6), Some(s(1)), 0), Some(s(1)));
        assert!(
            rule.remaining(s(60), Some(s(60)), 1)
                .is_some_and(|d| d < s(1))
        );
        assert_eq!(rule.remaining(s(60), Some(s(2)), 0), None);
    }
}
