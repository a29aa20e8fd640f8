//! How old a connection may become.
//!
//! kube-proxy balances connections, not requests: one that is kept stays with its pod, however many pods come. So each has an
//! age at which its next answer is its last. An idle one is not closed for its age: it carries no load, and closing it could
//! meet a request that is just on its way.

use std::{
    future::pending,
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

/// Ten-thousandths of the limit that a connection's own age may be above or below it: a tenth, as in gRPC
/// (`MAX_CONNECTION_AGE`), so that clients who came together do not come back together.
const SPREAD: u32 = 1_000;

/// The limit of one connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Age {
    over: Option<Instant>,
}

impl Age {
    /// Of a connection that is new now. No limit is for ever.
    pub(super) fn new(limit: Option<Duration>) -> Self {
        let lot = || RandomState::new().hash_one(());
        Self {
            // One too far away to be told is none.
            over: limit.and_then(|limit| Instant::now().checked_add(spread(limit, lot()))),
        }
    }

    /// Whether the limit is reached.
    pub(super) fn is_over(self) -> bool {
        self.over.is_some_and(|over| over <= Instant::now())
    }

    /// Returns when the limit is reached.
    pub(super) async fn over(self) {
        match self.over {
            Some(over) => sleep_until(over).await,
            None => pending().await,
        }
    }
}

/// The limit, up to a tenth more or less of it as the lot falls.
fn spread(limit: Duration, lot: u64) -> Duration {
    const WHOLE: u32 = 10_000;
    let share = u32::try_from(lot % u64::from(2 * SPREAD + 1)).unwrap_or(SPREAD);
    limit.saturating_mul(WHOLE - SPREAD + share) / WHOLE
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tokio::time::advance;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    #[test]
    fn lots_cover_a_tenth_to_either_side() {
        let ages = (0..2_001).map(|lot| spread(LIMIT, lot));
        let ages: BTreeSet<_> = ages.collect();
        assert_eq!(ages.len(), 2_001);
        assert_eq!(ages.first(), Some(&Duration::from_secs(27)));
        assert_eq!(ages.last(), Some(&Duration::from_secs(33)));
        assert_eq!(spread(LIMIT, 1_000 + 2_001), LIMIT);
        assert!(spread(Duration::MAX, 0) < Duration::MAX);
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn connections_of_one_instant_are_over_one_by_one() {
        let ages = [0; 100].map(|_| Age::new(Some(LIMIT)));
        let over = || ages.iter().filter(|age| age.is_over()).count();
        advance(Duration::from_millis(26_990)).await;
        assert_eq!(over(), 0);
        advance(Duration::from_millis(3_010)).await;
        let half = over();
        assert!((20..=80).contains(&half), "{half} of 100 at the limit");
        advance(Duration::from_millis(3_010)).await;
        assert_eq!(over(), 100);
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn the_wait_ends_when_the_age_is_over_and_never_without_a_limit() {
        let began = Instant::now();
        let age = Age::new(Some(LIMIT));
        age.over().await;
        let took = began.elapsed();
        assert!((27..=33).contains(&took.as_secs()), "{took:?}");
        assert!(age.is_over());
        let none = Age::new(None);
        let waited = tokio::time::timeout(Duration::from_hours(24 * 365), none.over()).await;
        assert!(waited.is_err() && !none.is_over());
    }
}
