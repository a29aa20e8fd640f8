//! Slots reserved for requests whose body cannot be sent twice and whose protocol shows no `100 Continue`.
//!
//! hyper tells an HTTP/2 client nothing of 1xx answers, so an activator reserves a slot first and then sends the request
//! with the ticket. A ticket that is not used frees its slot after [`LIFE`].

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{config::MAX_TICKETS, slots::Slot, stats::Entry};

/// How long a ticket is good for. The request follows its reservation on the same network, so this is generous.
pub(crate) const LIFE: Duration = Duration::from_secs(5);

/// Reserved slots by ticket.
#[derive(Debug, Default)]
pub(crate) struct Tickets {
    /// Keyed with random keys, so that tickets cannot be guessed.
    random: RandomState,
    reserved: Mutex<Reserved>,
}

#[derive(Debug, Default)]
struct Reserved {
    issued: u64,
    slots: HashMap<u64, (Instant, Slot, Entry)>,
}

impl Tickets {
    /// Keeps the slot under a new ticket; `None` if too many are out.
    pub(crate) fn issue(&self, now: Instant, slot: Slot, entry: Entry) -> Option<u64> {
        let mut reserved = self.reserved.lock();
        if reserved.slots.len() >= MAX_TICKETS {
            return None;
        }
        reserved.issued += 1;
        let ticket = self.random.hash_one(reserved.issued);
        reserved.slots.insert(ticket, (now, slot, entry));
        Some(ticket)
    }

    /// The slot of a ticket, once.
    pub(crate) fn redeem(&self, ticket: u64) -> Option<(Slot, Entry)> {
        self.reserved
            .lock()
            .slots
            .remove(&ticket)
            .map(|(_, slot, entry)| (slot, entry))
    }

    /// Frees the slots of tickets that are too old.
    pub(crate) fn expire(&self, now: Instant) {
        let old: Vec<_> = {
            let mut reserved = self.reserved.lock();
            reserved
                .slots
                .extract_if(|_, (since, ..)| now.saturating_duration_since(*since) > LIFE)
                .collect()
        };
        // Dropped outside of the lock: freeing a slot admits the next request.
        drop(old);
    }
}
