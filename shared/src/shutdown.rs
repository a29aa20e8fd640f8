//! Signals turned into a value that tasks can wait for.

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

/// Waits for SIGTERM or SIGINT.
///
/// # Errors
/// When the handlers cannot be installed.
pub async fn signalled() -> std::io::Result<&'static str> {
    Ok(Signals::caught()?.next().await)
}

/// SIGTERM and SIGINT, caught from the moment this exists. Before that they kill the process, so a program that has
/// something to finish makes this before it takes anything on.
#[derive(Debug)]
pub struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    /// Catches both.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub fn caught() -> std::io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
        })
    }

    /// The name of the next one.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.int.recv() => "SIGINT",
        }
    }
}

/// The sending half of a shutdown: dropped or triggered, it lets every [`Rx`] pass.
#[derive(Debug)]
pub struct Tx(watch::Sender<bool>);

/// The waiting half of a shutdown.
#[derive(Clone, Debug)]
pub struct Rx(watch::Receiver<bool>);

/// A new pair, not yet triggered.
pub fn channel() -> (Tx, Rx) {
    let (tx, rx) = watch::channel(false);
    (Tx(tx), Rx(rx))
}

impl Tx {
    /// Lets every waiter pass, now and later.
    pub fn trigger(&self) {
        self.0.send_replace(true);
    }
}

impl Rx {
    /// Returns once the shutdown was triggered or its sender is gone.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn wait(&mut self) {
        // An error means that the sender is gone, which is a shutdown too.
        let _gone = self.0.wait_for(|on| *on).await;
    }

    /// Whether it was triggered.
    pub fn is_triggered(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }
}
