//! The breaker under any list of operations: the limit holds, nobody is lost or let in twice, and nobody waits longer than his
//! turn. The list comes from bytes: random ones, those that a fuzzer kept, and those it thinks of (`tests/fuzz`).

use std::collections::VecDeque;

use queue_proxy::{
    bounce::{Elsewhere, Rule},
    breaker::{Breaker, Entry, Source, Ticket},
};

const SOURCES: [Source; 2] = [Source::Service, Source::Activator];

/// Somebody who waits.
#[derive(Debug)]
struct Waiter {
    ticket: Ticket,
    /// How many were before him in his own queue when he came.
    ahead: usize,
    /// How many of both queues were let in since.
    turns: usize,
}

/// What ought to be, kept beside the breaker.
#[derive(Debug)]
struct Model {
    breaker: Breaker,
    limit: u32,
    depth: [usize; 2],
    queues: [VecDeque<Waiter>; 2],
    in_flight: u32,
    open: bool,
    /// Everybody who fits was let in since it was opened.
    settled: bool,
}

impl Model {
    fn new(limit: u32, depth: [usize; 2]) -> Self {
        Self {
            breaker: Breaker::new(limit, depth[0], depth[1]),
            limit,
            depth,
            queues: [VecDeque::new(), VecDeque::new()],
            in_flight: 0,
            open: false,
            settled: true,
        }
    }

    fn has_room(&self) -> bool {
        self.open && (self.limit == 0 || self.in_flight < self.limit)
    }

    fn waiting(&self) -> usize {
        self.queues.iter().map(VecDeque::len).sum()
    }

    fn enter(&mut self, which: usize, elsewhere: Option<Elsewhere>) {
        let had_room = self.has_room();
        match self.breaker.enter_or_bounce(SOURCES[which], elsewhere) {
            Entry::Admitted => {
                assert!(had_room && self.queues[which].is_empty(), "{self:?}");
                self.in_flight += 1;
            }
            Entry::Waiting(ticket) => {
                assert!(!had_room || !self.queues[which].is_empty(), "{self:?}");
                let ahead = self.queues[which].len();
                self.queues[which].push_back(Waiter {
                    ticket,
                    ahead,
                    turns: 0,
                });
            }
            Entry::Full => assert_eq!(self.queues[which].len(), self.depth[which]),
            // That it left no trace is checked after each operation.
            Entry::Bounced => {
                assert_eq!(SOURCES[which], Source::Service);
                let soft = elsewhere.and_then(|there| there.rule.soft_limit);
                let would_wait = !had_room || !self.queues[which].is_empty();
                assert!(would_wait || soft.is_some(), "{self:?}");
            }
        }
    }

    /// Somebody was let in, or nobody although there may be room.
    fn admitted(&mut self, ticket: Option<Ticket>) {
        let Some(ticket) = ticket else {
            assert!(!self.has_room() || self.waiting() == 0, "{self:?}");
            self.settled |= self.open;
            return;
        };
        assert!(self.has_room(), "{self:?}");
        let is_first = |queue: &VecDeque<Waiter>| queue.front().is_some_and(|w| w.ticket == ticket);
        let from = self.queues.iter().position(is_first);
        let from = from.expect("the first of a queue");
        let mut waiter = self.queues[from].pop_front().expect("it is there");
        self.in_flight += 1;
        waiter.turns += 1;
        // The two queues take turns: for each before him, and for him, at most one of the other.
        assert!(waiter.turns <= 2 * (waiter.ahead + 1), "{waiter:?}");
        for waiter in self.queues.iter_mut().flatten() {
            waiter.turns += 1;
            assert!(waiter.turns < 2 * (waiter.ahead + 1), "{waiter:?}");
        }
    }

    fn leave(&mut self) -> bool {
        if self.in_flight == 0 {
            return false;
        }
        self.in_flight -= 1;
        let next = self.breaker.leave();
        self.admitted(next);
        true
    }

    fn cancel(&mut self, which: usize, nth: usize) {
        let Some(gone) = self.queues[which].remove(nth) else {
            return;
        };
        assert!(self.breaker.cancel(gone.ticket), "it waited");
        assert!(!self.breaker.cancel(gone.ticket), "it waits no more");
    }

    fn admit_next(&mut self) -> bool {
        let next = self.breaker.admit_next();
        self.admitted(next);
        next.is_some()
    }

    fn check(&self) {
        assert_eq!(self.breaker.in_flight(), self.in_flight);
        assert_eq!(self.breaker.waiting(), self.waiting());
        assert!(self.limit == 0 || self.in_flight <= self.limit, "{self:?}");
        // Nobody waits beside a free place.
        assert!(
            !self.open || !self.settled || !self.has_room() || self.waiting() == 0,
            "{self:?}"
        );
    }
}

/// The first two bytes are limit and depths, every other one an operation.
///
/// # Panics
/// If anything does not hold.
pub(crate) fn check(bytes: &[u8]) {
    let Some(([limit, depth], operations)) = bytes.split_first_chunk::<2>() else {
        return;
    };
    let depths = [usize::from(depth % 8), usize::from(depth / 8 % 8)];
    let mut model = Model::new(u32::from(limit % 4), depths);
    for operation in operations {
        let (which, nth) = (usize::from(operation / 8 % 2), usize::from(operation / 16));
        match operation % 8 {
            0 | 1 => model.enter(which, None),
            2 => {
                let rule = Rule {
                    depth: nth / 2,
                    soft_limit: (nth > 8).then_some(3),
                };
                let draining = nth % 2 == 1;
                model.enter(which, Some(Elsewhere { rule, draining }));
            }
            3 | 4 => {
                model.leave();
            }
            5 => model.cancel(which, nth),
            6 => {
                model.breaker.open();
                if !model.open {
                    (model.open, model.settled) = (true, false);
                }
            }
            _ => {
                model.admit_next();
            }
        }
        model.check();
    }
    // In the end everybody is served.
    model.breaker.open();
    (model.open, model.settled) = (true, false);
    while model.admit_next() {}
    while model.leave() {
        model.check();
    }
    assert_eq!(model.waiting(), 0);
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn the_breaker_keeps_its_promises_under_any_sequence(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            check(&bytes);
        }
    }

    #[test]
    fn the_kept_operations_of_the_breaker_still_hold() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fuzz/corpus/breaker");
        let kept: Vec<_> = fs::read_dir(folder).unwrap().collect();
        assert!(!kept.is_empty());
        for entry in kept {
            check(&fs::read(entry.unwrap().path()).unwrap());
        }
    }

    /// Numbers that are the same in every run.
    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % bound
        }
    }

    /// The longest that a request takes at the model, in microseconds.
    const SLOWEST: u64 = 1_000;

    /// A long day of one pod: how long the oldest of each queue waits, and how many of each kind are served.
    #[derive(Debug, Default)]
    struct Day {
        served: [u64; 2],
        /// Longest wait of one who found his own queue empty, and of anybody.
        head: [u64; 2],
        longest: [u64; 2],
    }

    /// Runs `limit` places; a request of `SOURCES[n]` comes every `every[n]` microseconds on average, and one of `gives_up` that
    /// wait goes away. Each of both queues is `depth` long.
    fn live(limit: u32, depth: usize, every: [u64; 2], gives_up: u64, seed: u64) -> Day {
        let mut random = Random(seed);
        let mut breaker = Breaker::new(limit, depth, depth);
        breaker.open();
        let mut day = Day::default();
        let mut arrivals = [0, 0];
        let mut ends: Vec<u64> = Vec::new();
        let mut queues: [VecDeque<(Ticket, u64, usize)>; 2] = Default::default();
        for _ in 0..60_000 {
            // The next thing that happens: an end, or one of two arrivals.
            let end = ends.iter().copied().enumerate().min_by_key(|(_, at)| *at);
            let which = usize::from(arrivals[1] < arrivals[0]);
            let come = arrivals[which];
            if let Some((at, now)) = end.filter(|(_, now)| *now <= come) {
                ends.swap_remove(at);
                let Some(ticket) = breaker.leave() else {
                    assert!(queues.iter().all(VecDeque::is_empty));
                    continue;
                };
                let is_first = |queue: &VecDeque<(Ticket, u64, usize)>| {
                    queue.front().is_some_and(|(first, ..)| *first == ticket)
                };
                let from = queues.iter().position(is_first).unwrap();
                let (_, since, ahead) = queues[from].pop_front().unwrap();
                let waited = now - since;
                // In SLOWEST as many end as there are places, since all are taken while anybody waits. He is served by the
                // 2 (ahead + 1)-th of these ends at the latest.
                let turns = 2 * (ahead as u64 + 1);
                let bound = turns.div_ceil(limit.into()) * SLOWEST;
                assert!(
                    waited <= bound,
                    "{waited} us for {ahead} before him: {day:?}"
                );
                day.longest[from] = day.longest[from].max(waited);
                if ahead == 0 {
                    day.head[from] = day.head[from].max(waited);
                }
                day.served[from] += 1;
                ends.push(now + 1 + random.below(SLOWEST));
            } else {
                arrivals[which] += 1 + random.below(2 * every[which]);
                match breaker.enter(SOURCES[which]) {
                    Entry::Admitted => {
                        day.served[which] += 1;
                        ends.push(come + 1 + random.below(SLOWEST));
                    }
                    Entry::Waiting(ticket) => {
                        let ahead = queues[which].len();
                        queues[which].push_back((ticket, come, ahead));
                    }
                    Entry::Full => {}
                    Entry::Bounced => unreachable!("there is nowhere else to go"),
                }
                let queue = &mut queues[which];
                if gives_up > 0 && !queue.is_empty() && random.below(gives_up) == 0 {
                    let nth = usize::try_from(random.below(queue.len() as u64)).unwrap();
                    let (ticket, ..) = queue.remove(nth).unwrap();
                    assert!(breaker.cancel(ticket));
                }
            }
        }
        day
    }

    #[test]
    fn neither_held_nor_direct_requests_are_starved_by_a_flood_of_the_others() {
        for limit in [1, 2, 7] {
            for depth in [1, 10, 100] {
                let service = SLOWEST / 2 / u64::from(limit);
                for (flood, quiet) in [(0, 1), (1, 0)] {
                    // Twenty of one kind for each that can be served, and of the other one in four.
                    let mut every = [(service / 20).max(1); 2];
                    every[quiet] = service * 4;
                    for gives_up in [0, 3] {
                        let day = live(limit, depth, every, gives_up, 7 + u64::from(limit));
                        assert!(day.served[quiet] > 200, "{day:?}");
                        assert!(day.served[flood] > day.served[quiet], "{day:?}");
                        // Whoever comes alone waits for two ends, however long the other queue is.
                        let two = 2u64.div_ceil(limit.into()) * SLOWEST;
                        assert!(day.head[quiet] <= two, "{day:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn two_floods_share_alike() {
        let day = live(4, 50, [10, 10], 0, 99);
        let [one, other] = day.served;
        assert!(one.abs_diff(other) < 20, "{day:?}");
    }
}
