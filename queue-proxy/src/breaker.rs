//! Who may go to the model now, who waits, who is sent away. Pure: no clock, no tasks.
//!
//! Two queues, one for each kind of port, are served in turn, so that neither direct nor held requests can starve the
//! other; inside a queue the order is that of arrival. Knative's breaker (`pkg/queue/breaker.go`) has the same limits,
//! one queue and no order. What holds under any sequence of calls: `tests/it/operations.rs`.

use std::collections::BTreeSet;

use crate::bounce::{Course, Elsewhere, Standing, decide};

/// Where a request came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A port of a Service.
    Service,
    /// The port of activators.
    Activator,
}

impl Source {
    fn index(self) -> usize {
        match self {
            Self::Service => 0,
            Self::Activator => 1,
        }
    }

    fn other(self) -> Self {
        match self {
            Self::Service => Self::Activator,
            Self::Activator => Self::Service,
        }
    }
}

/// A place in a queue. Smaller is earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// What becomes of a request that arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// It goes to the model.
    Admitted,
    /// It waits.
    Waiting(Ticket),
    /// There is no room to wait.
    Full,
    /// It is for the activators. Nothing is known of it here.
    Bounced,
}

/// The concurrency limit and its two queues.
#[derive(Debug)]
pub struct Breaker {
    /// Requests at the model at once; 0 means no limit.
    limit: u32,
    depth: [usize; 2],
    in_flight: u32,
    open: bool,
    queues: [BTreeSet<Ticket>; 2],
    turn: Source,
    issued: u64,
}

impl Breaker {
    /// A breaker that admits nothing until [`Breaker::open`] is called.
    ///
    /// `limit` is the container concurrency, 0 for none; the depths bound the queues of Services and activators.
    pub fn new(limit: u32, service_depth: usize, activator_depth: usize) -> Self {
        Self {
            limit,
            depth: [service_depth, activator_depth],
            in_flight: 0,
            open: false,
            queues: [BTreeSet::new(), BTreeSet::new()],
            turn: Source::Service,
            issued: 0,
        }
    }

    /// Requests at the model.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Requests waiting, in both queues.
    pub fn waiting(&self) -> usize {
        self.queues.iter().map(BTreeSet::len).sum()
    }

    /// A request arrives that has nowhere else to go.
    pub fn enter(&mut self, source: Source) -> Entry {
        self.enter_or_bounce(source, None)
    }

    /// A request arrives. With `elsewhere` it may be bounced, see [`decide`].
    pub fn enter_or_bounce(&mut self, source: Source, elsewhere: Option<Elsewhere>) -> Entry {
        match decide(source, self.standing(source), elsewhere) {
            Course::Serve => {
                self.in_flight += 1;
                Entry::Admitted
            }
            Course::Wait => {
                let ticket = Ticket(self.issued);
                self.issued += 1;
                self.queues[source.index()].insert(ticket);
                Entry::Waiting(ticket)
            }
            Course::Bounce => Entry::Bounced,
            Course::Refuse => Entry::Full,
        }
    }

    /// An admitted request has ended. Returns who takes its place.
    #[must_use]
    pub fn leave(&mut self) -> Option<Ticket> {
        debug_assert!(self.in_flight > 0, "left without having entered");
        self.in_flight = self.in_flight.saturating_sub(1);
        self.admit_next()
    }

    /// A waiting request gives up. False if it does not wait any more.
    pub fn cancel(&mut self, ticket: Ticket) -> bool {
        self.queues.iter_mut().any(|queue| queue.remove(&ticket))
    }

    /// The model is ready: requests are admitted from now on. Call [`Breaker::admit_next`] until it returns nothing.
    pub fn open(&mut self) {
        self.open = true;
    }

    /// Admits the next waiting request if there is room.
    #[must_use]
    pub fn admit_next(&mut self) -> Option<Ticket> {
        if !self.has_room() {
            return None;
        }
        for source in [self.turn, self.turn.other()] {
            if let Some(ticket) = self.queues[source.index()].pop_first() {
                self.turn = source.other();
                self.in_flight += 1;
                return Some(ticket);
            }
        }
        None
    }

    /// What a request from `source` finds now.
    fn standing(&self, source: Source) -> Standing {
        Standing {
            limit: self.limit,
            in_flight: self.in_flight,
            open: self.open,
            ahead: self.queues[source.index()].len(),
            depth: self.depth[source.index()],
        }
    }

    fn has_room(&self) -> bool {
        self.open && (self.limit == 0 || self.in_flight < self.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(limit: u32, depth: usize) -> Breaker {
        let mut breaker = Breaker::new(limit, depth, depth);
        breaker.open();
        breaker
    }

    fn ticket(entry: Entry) -> Ticket {
        match entry {
            Entry::Waiting(ticket) => ticket,
            other => panic!("expected to wait, got {other:?}"),
        }
    }

    #[test]
    fn admits_up_to_the_limit_then_queues_then_refuses() {
        let mut b = open(2, 1);
        assert_eq!(b.enter(Source::Service), Entry::Admitted);
        assert_eq!(b.enter(Source::Activator), Entry::Admitted);
        let waiting = ticket(b.enter(Source::Service));
        assert_eq!(b.enter(Source::Service), Entry::Full);
        assert_eq!(b.leave(), Some(waiting));
        assert_eq!((b.in_flight(), b.waiting()), (2, 0));
    }

    #[test]
    fn serves_the_two_queues_in_turn_and_each_in_order() {
        let mut b = open(1, 9);
        assert_eq!(b.enter(Source::Service), Entry::Admitted);
        let s: Vec<_> = (0..3).map(|_| ticket(b.enter(Source::Service))).collect();
        let a: Vec<_> = (0..2).map(|_| ticket(b.enter(Source::Activator))).collect();
        let order: Vec<_> = std::iter::from_fn(|| b.leave()).collect();
        assert_eq!(order, [s[0], a[0], s[1], a[1], s[2]]);
    }

    #[test]
    fn nothing_passes_before_the_model_is_ready_and_all_that_fits_after() {
        let mut b = Breaker::new(2, 9, 9);
        let t: Vec<_> = (0..3).map(|_| ticket(b.enter(Source::Service))).collect();
        assert_eq!(b.admit_next(), None);
        b.open();
        assert_eq!(
            std::iter::from_fn(|| b.admit_next()).collect::<Vec<_>>(),
            t[..2]
        );
    }

    #[test]
    fn without_a_limit_nobody_waits() {
        let mut b = open(0, 0);
        for _ in 0..1000 {
            assert_eq!(b.enter(Source::Service), Entry::Admitted);
        }
    }
}
