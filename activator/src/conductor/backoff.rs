//! When the next write of the scale may be made.

use std::time::Duration;

use tokio::time::Instant;

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(2);

/// Pauses between writes: 50 ms, doubled up to 2 s until replicas are seen.
///
/// Whatever became of a write. What is seen of the scale lags behind it and may leave changes out, so that one that was
/// undone at once (0, N, 0) looks like one that does not show yet. Writing again tells them apart and does no harm: it
/// changes nothing unless the scale is at zero.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    next: Option<(Instant, Duration)>,
}

impl Backoff {
    /// The instant before which no write may be made.
    pub(super) fn next(&self) -> Option<Instant> {
        self.next.map(|(at, _)| at)
    }

    pub(super) fn may_try(&self, now: Instant) -> bool {
        self.next().is_none_or(|at| now >= at)
    }

    /// A write has ended.
    pub(super) fn tried(&mut self, now: Instant) {
        let pause = match self.next {
            Some((_, last)) => (last * 2).min(LONGEST),
            None => FIRST,
        };
        self.next = Some((now + pause, pause));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_doubled_up_to_two_seconds() {
        let now = Instant::now();
        let mut backoff = Backoff::default();
        assert!(backoff.may_try(now), "the first write is made at once");
        let pauses: Vec<_> = (0..8)
            .map(|_| {
                backoff.tried(now);
                let next = backoff.next().unwrap();
                assert!(!backoff.may_try(next - Duration::from_millis(1)));
                assert!(backoff.may_try(next));
                (next - now).as_millis()
            })
            .collect();
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1_600, 2_000, 2_000]);
    }
}
