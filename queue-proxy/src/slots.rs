//! The breaker with waiting tasks: an async shell over [`crate::breaker`].

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use crate::{
    bounce::Elsewhere,
    breaker::{Breaker, Entry, Source, Ticket},
    sync::{Mutex, oneshot},
};

/// Hands out [`Slot`]s.
#[derive(Debug)]
pub struct Slots {
    state: Mutex<State>,
    opened: AtomicBool,
}

#[derive(Debug)]
struct State {
    breaker: Breaker,
    waiters: HashMap<Ticket, oneshot::Sender<Slot>>,
}

/// The right to be at the model. Dropping it admits the next request.
#[derive(Debug)]
pub struct Slot(Arc<Slots>);

/// There is no slot and no room to wait for one.
#[derive(Debug, thiserror::Error)]
#[error("the queue is full")]
pub struct Full(());

/// The outcome of asking for a slot.
#[derive(Debug)]
pub enum Asked {
    /// Here it is.
    Slot(Slot),
    /// It will come.
    Wait(Waiting),
    /// Not here: the request is for the activators.
    Bounce,
}

/// A place in the queue. Dropping it gives the place up.
#[derive(Debug)]
pub struct Waiting {
    slots: Arc<Slots>,
    ticket: Ticket,
    slot: oneshot::Receiver<Slot>,
}

impl Slots {
    /// See [`Breaker::new`].
    pub fn new(breaker: Breaker) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                breaker,
                waiters: HashMap::new(),
            }),
            opened: AtomicBool::new(false),
        })
    }

    /// Asks for a slot, for a request that has nowhere else to go.
    ///
    /// # Errors
    /// [`Full`] when the queue of this source is full.
    pub fn ask(self: &Arc<Self>, source: Source) -> Result<Asked, Full> {
        self.ask_or_bounce(source, None)
    }

    /// Asks for a slot. With `elsewhere` the request may be bounced instead.
    ///
    /// # Errors
    /// [`Full`] when the queue of this source is full.
    pub fn ask_or_bounce(
        self: &Arc<Self>,
        source: Source,
        elsewhere: Option<Elsewhere>,
    ) -> Result<Asked, Full> {
        let mut state = self.state.lock();
        match state.breaker.enter_or_bounce(source, elsewhere) {
            Entry::Admitted => Ok(Asked::Slot(Slot(Arc::clone(self)))),
            Entry::Full => Err(Full(())),
            Entry::Bounced => Ok(Asked::Bounce),
            Entry::Waiting(ticket) => {
                let (tx, slot) = oneshot::channel();
                state.waiters.insert(ticket, tx);
                Ok(Asked::Wait(Waiting {
                    slots: Arc::clone(self),
                    ticket,
                    slot,
                }))
            }
        }
    }

    /// The model is ready: lets everyone in who fits. Calling it again changes nothing.
    pub fn open(self: &Arc<Self>) {
        if self.opened.load(Relaxed) {
            return;
        }
        self.state.lock().breaker.open();
        self.opened.store(true, Relaxed);
        while let Some(waiter) = self.next(Breaker::admit_next) {
            self.hand_over(waiter);
        }
    }

    /// Takes the next waiter out, under the lock; the slot is handed over outside of it.
    fn next(&self, step: fn(&mut Breaker) -> Option<Ticket>) -> Option<oneshot::Sender<Slot>> {
        let mut state = self.state.lock();
        let ticket = step(&mut state.breaker)?;
        let waiter = state.waiters.remove(&ticket);
        debug_assert!(waiter.is_some(), "every ticket has its waiter");
        waiter
    }

    fn hand_over(self: &Arc<Self>, waiter: oneshot::Sender<Slot>) {
        // If the waiter is just giving up, the slot comes back and is dropped here, which admits the one after it.
        let _returned = waiter.send(Slot(Arc::clone(self)));
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(waiter) = self.0.next(Breaker::leave) {
            self.0.hand_over(waiter);
        }
    }
}

impl Waiting {
    /// The slot, once it is there.
    ///
    /// # Cancel safety
    /// Cancel safe: call it again, or drop the [`Waiting`] to give up.
    pub async fn slot(&mut self) -> Slot {
        match (&mut self.slot).await {
            Ok(slot) => slot,
            // The sender is only dropped after sending. Waiting for ever would be a leak, so this cannot be silent.
            Err(_) => unreachable!("a waiter was dropped while its ticket was valid"),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut state = self.slots.state.lock();
        if state.breaker.cancel(self.ticket) {
            state.waiters.remove(&self.ticket);
        }
        // Otherwise a slot was sent already; dropping the receiver drops it.
    }
}

#[cfg(test)]
mod orders;

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(limit: u32) -> Arc<Slots> {
        let slots = Slots::new(Breaker::new(limit, 8, 8));
        slots.open();
        slots
    }

    fn slot(asked: Asked) -> Slot {
        match asked {
            Asked::Slot(slot) => slot,
            other => panic!("no slot: {other:?}"),
        }
    }

    fn waiting(asked: Asked) -> Waiting {
        match asked {
            Asked::Wait(waiting) => waiting,
            other => panic!("no place in the queue: {other:?}"),
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_slot_given_to_one_who_just_left_goes_to_the_next() {
        let slots = slots(1);
        let first = slot(slots.ask(Source::Service).unwrap());
        let gone = waiting(slots.ask(Source::Service).unwrap());
        let mut next = waiting(slots.ask(Source::Service).unwrap());
        drop(first); // the slot is on its way to `gone`
        drop(gone);
        drop(next.slot().await);
        let state = slots.state.lock();
        assert_eq!(
            (
                state.breaker.in_flight(),
                state.breaker.waiting(),
                state.waiters.len()
            ),
            (0, 0, 0)
        );
    }

    #[tokio::test(flavor = "current_thread")]
    async fn giving_up_leaves_nothing_behind() {
        let slots = slots(1);
        let first = slot(slots.ask(Source::Activator).unwrap());
        for _ in 0..100 {
            drop(waiting(slots.ask(Source::Activator).unwrap()));
        }
        drop(first);
        let state = slots.state.lock();
        assert_eq!(
            (
                state.breaker.in_flight(),
                state.breaker.waiting(),
                state.waiters.len()
            ),
            (0, 0, 0)
        );
    }
}
