//! [`tokio::sync::oneshot`], with a moment before each operation at which somebody else may go first.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use tokio::sync::oneshot as real;
pub use tokio::sync::oneshot::error;

use crate::point;

/// As [`real::Sender`].
#[derive(Debug)]
pub struct Sender<T>(real::Sender<T>);

/// As [`real::Receiver`].
#[derive(Debug)]
pub struct Receiver<T>(real::Receiver<T>);

/// As [`real::channel`].
pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = real::channel();
    (Sender(sender), Receiver(receiver))
}

impl<T> Sender<T> {
    /// As [`real::Sender::send`].
    ///
    /// # Errors
    /// The value, if nobody will receive it.
    pub fn send(self, value: T) -> Result<(), T> {
        point();
        self.0.send(value)
    }
}

impl<T> Future for Receiver<T> {
    type Output = Result<T, error::RecvError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        point();
        Pin::new(&mut self.0).poll(cx)
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        point();
    }
}
