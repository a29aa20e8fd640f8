//! The lock and the channel by which requests hand places over to each other, in one place: in unit tests they are those in which
//! shuttle decides who goes first (`tests/schedules`), which need not know of anything else here.

#[cfg(not(test))]
pub(crate) use parking_lot::Mutex;
#[cfg(test)]
pub(crate) use schedules::{Mutex, oneshot};
#[cfg(not(test))]
pub(crate) use tokio::sync::oneshot;
