//! Where due requests meet free connections in an open loop.
//!
//! The pacing thread offers tickets; each worker polls for one. A free worker gets the ticket at once, longest free first,
//! so that load spreads over all connections; else the ticket waits in line, and its latency keeps counting; past the
//! bound it is refused and the caller counts it. No ticket is ever skipped or handed out twice.

use parking_lot::Mutex;
use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

/// A request that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    /// Unique within the run.
    pub(crate) number: u64,
    /// When it is due.
    pub(crate) planned: Instant,
    /// When the pacing thread let it go.
    pub(crate) released: Instant,
    /// True if it then had to wait for a free connection.
    pub(crate) waited: bool,
}

/// The meeting point.
#[derive(Debug)]
pub(crate) struct Dispatch {
    state: Mutex<State>,
    max_waiting: usize,
    used: bool,
}

#[derive(Debug, Default)]
struct State {
    /// Free workers, longest free first.
    free: VecDeque<usize>,
    slots: Vec<Slot>,
    waiting: VecDeque<Ticket>,
    closed: bool,
}

#[derive(Debug, Default)]
enum Slot {
    #[default]
    Busy,
    Free(Waker),
    Given(Ticket),
}

impl Dispatch {
    /// A meeting point of so many workers: none in a closed loop, which has no use for it.
    pub(crate) fn new(workers: usize, max_waiting: usize) -> Self {
        let slots = (0..workers).map(|_| Slot::default()).collect();
        Self {
            state: Mutex::new(State {
                slots,
                ..State::default()
            }),
            max_waiting,
            used: workers > 0,
        }
    }

    /// True in an open loop.
    pub(crate) fn is_used(&self) -> bool {
        self.used
    }

    /// Hands over or queues a ticket; gives it back if too many wait.
    pub(crate) fn offer(&self, ticket: Ticket) -> Result<(), Ticket> {
        let mut state = self.state.lock();
        if let Some(worker) = state.free.pop_front() {
            let slot = std::mem::replace(&mut state.slots[worker], Slot::Given(ticket));
            drop(state);
            if let Slot::Free(waker) = slot {
                waker.wake();
            }
        } else if state.waiting.len() < self.max_waiting {
            state.waiting.push_back(Ticket {
                waited: true,
                ..ticket
            });
        } else {
            return Err(ticket);
        }
        Ok(())
    }

    /// How many wait for a free connection.
    pub(crate) fn waiting(&self) -> u64 {
        self.state.lock().waiting.len() as u64
    }

    /// The next ticket for `worker`, or `None` once closed and nothing is left for it.
    pub(crate) fn poll_next(&self, worker: usize, cx: &mut Context<'_>) -> Poll<Option<Ticket>> {
        let state = &mut *self.state.lock();
        match &mut state.slots[worker] {
            Slot::Given(ticket) => {
                let ticket = *ticket;
                state.slots[worker] = Slot::Busy;
                return Poll::Ready(Some(ticket));
            }
            Slot::Free(waker) if !state.closed => {
                waker.clone_from(cx.waker());
                return Poll::Pending;
            }
            Slot::Free(_) | Slot::Busy => {}
        }
        if let Some(ticket) = state.waiting.pop_front() {
            Poll::Ready(Some(ticket))
        } else if state.closed {
            Poll::Ready(None)
        } else {
            state.slots[worker] = Slot::Free(cx.waker().clone());
            state.free.push_back(worker);
            Poll::Pending
        }
    }

    /// No more tickets will be offered: workers end once nothing waits.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.free.clear();
        let wakers: Vec<_> = state.slots.iter().filter_map(Slot::waker).collect();
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Takes everything that still waits.
    pub(crate) fn take_waiting(&self) -> VecDeque<Ticket> {
        std::mem::take(&mut self.state.lock().waiting)
    }
}

impl Dispatch {
    /// Takes everything that no worker will come for, once all workers are gone.
    pub(crate) fn take_left(&self) -> VecDeque<Ticket> {
        let mut state = self.state.lock();
        let mut left = std::mem::take(&mut state.waiting);
        left.extend(state.slots.iter().filter_map(|slot| {
            if let Slot::Given(ticket) = slot {
                Some(*ticket)
            } else {
                None
            }
        }));
        state.slots.iter_mut().for_each(|slot| *slot = Slot::Busy);
        left
    }
}

impl Slot {
    fn waker(&self) -> Option<Waker> {
        if let Self::Free(waker) = self {
            Some(waker.clone())
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Dispatch, Ticket};
    use futures_util::task::noop_waker;
    use std::task::{Context, Poll};
    use std::time::Instant;

    fn ticket(number: u64) -> Ticket {
        let now = Instant::now();
        Ticket {
            number,
            planned: now,
            released: now,
            waited: false,
        }
    }

    fn next(dispatch: &Dispatch, worker: usize) -> Poll<Option<u64>> {
        let waker = noop_waker();
        dispatch
            .poll_next(worker, &mut Context::from_waker(&waker))
            .map(|ticket| ticket.map(|ticket| ticket.number))
    }

    #[test]
    fn free_workers_are_served_longest_free_first() {
        let dispatch = Dispatch::new(2, 8);
        assert!(next(&dispatch, 1).is_pending() && next(&dispatch, 0).is_pending());
        dispatch.offer(ticket(7)).unwrap();
        dispatch.offer(ticket(8)).unwrap();
        assert_eq!(
            (next(&dispatch, 1), next(&dispatch, 0)),
            (Poll::Ready(Some(7)), Poll::Ready(Some(8)))
        );
    }

    #[test]
    fn polling_twice_while_free_does_not_count_twice() {
        let dispatch = Dispatch::new(1, 8);
        assert!(next(&dispatch, 0).is_pending() && next(&dispatch, 0).is_pending());
        dispatch.offer(ticket(1)).unwrap();
        dispatch.offer(ticket(2)).unwrap();
        assert_eq!(next(&dispatch, 0), Poll::Ready(Some(1)));
        assert_eq!(next(&dispatch, 0), Poll::Ready(Some(2)));
    }

    #[test]
    fn overflow_is_given_back_and_order_is_kept() {
        let dispatch = Dispatch::new(1, 2);
        dispatch.offer(ticket(1)).unwrap();
        dispatch.offer(ticket(2)).unwrap();
        assert_eq!(dispatch.offer(ticket(3)).unwrap_err().number, 3);
        assert_eq!(
            (next(&dispatch, 0), next(&dispatch, 0)),
            (Poll::Ready(Some(1)), Poll::Ready(Some(2)))
        );
    }

    #[test]
    fn closing_hands_out_what_waits_and_then_ends() {
        let dispatch = Dispatch::new(2, 2);
        assert!(next(&dispatch, 0).is_pending());
        dispatch.offer(ticket(1)).unwrap();
        dispatch.offer(ticket(2)).unwrap();
        dispatch.close();
        assert_eq!(next(&dispatch, 0), Poll::Ready(Some(1)));
        assert_eq!(next(&dispatch, 1), Poll::Ready(Some(2)));
        assert_eq!(
            (next(&dispatch, 0), next(&dispatch, 1)),
            (Poll::Ready(None), Poll::Ready(None))
        );
    }
}
