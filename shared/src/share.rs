//! A bound that many share without any of them being able to use it up.
//!
//! Whoever wants one more place gets it if there are more free ones than it has already. That is the dynamic threshold by which
//! switches share a buffer between their queues (Choudhury and Hahne, "Dynamic queue length thresholds for shared-memory
//! packet switches", 1998), with a factor of one. One that floods alone gets half of everything, two a third each, n of them one
//! part in n + 1; the rest stays free for whoever comes next. It needs no list of who there is and no share that is set aside for
//! those who want none. A fixed quota would be too small for one that is alone or too large for many.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

/// Places for everybody.
#[derive(Debug)]
pub struct Pool {
    limit: usize,
    used: AtomicUsize,
}

/// What one party has of a [`Pool`].
#[derive(Debug)]
pub struct Share {
    pool: Arc<Pool>,
    used: AtomicUsize,
}

/// One place. Dropping it frees it.
#[derive(Debug)]
pub struct Place(Arc<Share>);

impl Pool {
    /// As many places as `limit`.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            used: AtomicUsize::new(0),
        })
    }

    /// Places that are taken.
    pub fn used(&self) -> usize {
        self.used.load(Relaxed)
    }

    /// One more party.
    pub fn share(self: &Arc<Self>) -> Arc<Share> {
        Arc::new(Share {
            pool: Arc::clone(self),
            used: AtomicUsize::new(0),
        })
    }
}

impl Share {
    /// A place, if this party may have one more. The pool's limit holds exactly; how much of it a party gets may be off by as many
    /// as ask at the same instant.
    pub fn take(self: &Arc<Self>) -> Option<Place> {
        let before = self.pool.used.fetch_add(1, Relaxed);
        let mine = self.used.fetch_add(1, Relaxed);
        let place = Place(Arc::clone(self)); // gives both back if it is not to be
        (mine < self.pool.limit.saturating_sub(before)).then_some(place)
    }

    /// A place for one who had one and must not be sent away, also beyond the limit.
    pub fn take_anyway(self: &Arc<Self>) -> Place {
        self.pool.used.fetch_add(1, Relaxed);
        self.used.fetch_add(1, Relaxed);
        Place(Arc::clone(self))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.used.fetch_sub(1, Relaxed);
        self.0.pool.used.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn flood(share: &Arc<Share>) -> Vec<Place> {
        std::iter::from_fn(|| share.take()).collect()
    }

    #[test]
    fn each_flood_leaves_room_for_the_next() {
        let pool = Pool::new(1_000);
        let shares: Vec<_> = (0..5).map(|_| pool.share()).collect();
        let taken: Vec<_> = shares.iter().map(flood).collect();
        let counts: Vec<_> = taken.iter().map(Vec::len).collect();
        assert_eq!(counts, [500, 250, 125, 63, 31]);
        let mut late = pool.share().take();
        assert!(late.take().is_some());
        drop(taken);
        assert_eq!(pool.used(), 0);
        assert_eq!(
            flood(&shares[4]).len(),
            500,
            "it is not held against anybody"
        );
    }

    #[test]
    fn who_must_not_be_sent_away_is_not() {
        let pool = Pool::new(1);
        let share = pool.share();
        let _first = share.take().unwrap();
        assert!(share.take().is_none());
        let more = share.take_anyway();
        assert_eq!(pool.used(), 2);
        assert!(pool.share().take().is_none());
        drop(more);
        assert_eq!(pool.used(), 1);
    }

    proptest! {
        #[test]
        fn the_limit_holds_and_whoever_has_nothing_gets_what_is_free(
            limit in 1usize..50,
            steps in prop::collection::vec((any::<bool>(), 0usize..4, 0usize..50), 0..300),
        ) {
            let pool = Pool::new(limit);
            let shares: Vec<_> = (0..4).map(|_| pool.share()).collect();
            let mut taken: [Vec<Place>; 4] = Default::default();
            for (takes, who, nth) in steps {
                let all: usize = taken.iter().map(Vec::len).sum();
                prop_assert_eq!(pool.used(), all);
                prop_assert!(all <= limit);
                if takes {
                    let place = shares[who].take();
                    let (free, mine) = (limit - all, taken[who].len());
                    prop_assert_eq!(place.is_some(), mine < free);
                    taken[who].extend(place);
                } else if nth < taken[who].len() {
                    taken[who].swap_remove(nth);
                }
            }
        }
    }
}
