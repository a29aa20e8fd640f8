//! The timeout of a connection.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;
use tokio::time::{Sleep, sleep_until};

/// One timer per connection instead of one per request: since the timeout never changes, deadlines only grow, so a timer
/// set for an earlier request fires early at worst, and is then set again.
#[derive(Debug)]
pub(crate) struct Watchdog(Pin<Box<Sleep>>);

impl Watchdog {
    pub(crate) fn new(first: Instant) -> Self {
        Self(Box::pin(sleep_until(first.into())))
    }

    /// Ready once `deadline` has passed.
    pub(crate) fn poll_expired(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.0.as_mut().poll(cx));
            if self.0.deadline().into_std() >= deadline {
                return Poll::Ready(());
            }
            self.0.as_mut().reset(deadline.into());
        }
    }
}
