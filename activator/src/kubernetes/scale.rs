//! Waking through the API server.

use std::{sync::Arc, time::Duration};

use ::kubernetes::{names, scale};
use kube::Client;
use parking_lot::Mutex;
use shared::TargetId;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{sleep, timeout},
};

use super::events::{Events, Reason};
use crate::{BoxFuture, Scale, WakeError, WakeOutcome};

/// How many wakes are written at once. Each has a connection of its own (the client speaks HTTP/1.1), so that one that hangs
/// costs the others nothing, and so many connections are kept.
pub const LANES: usize = 8;

/// How often each connection is used. The pool closes those that were not used for 90 s (hyper-util's default); a
/// connection that died without a word is noticed and made anew in this time and not by a wake.
const WARMING: Duration = Duration::from_secs(20);

/// Limit on one use of a connection only to keep it.
const WARMING_LIMIT: Duration = Duration::from_secs(5);

/// Writes scales from 0 to N, and nothing else, over connections that nothing else uses and that exist when they are needed:
/// a handshake of TLS would be most of the time of a wake, and a list of all pods more.
#[derive(Debug)]
pub struct KubeScale {
    lanes: Arc<Lanes<Client>>,
    events: Events,
}

impl KubeScale {
    /// `clients` must be nobody else's.
    pub fn new(clients: Vec<Client>, events: Events) -> Self {
        Self {
            lanes: Arc::new(Lanes::new(clients)),
            events,
        }
    }

    /// Keeps the connections, for ever.
    pub fn keep_warm(&self) -> impl Future<Output = ()> + Send + use<> {
        let lanes = Arc::clone(&self.lanes);
        async move {
            loop {
                for lane in &lanes.all {
                    let asked = timeout(WARMING_LIMIT, lane.apiserver_version()).await;
                    if !matches!(asked, Ok(Ok(_))) {
                        tracing::debug!(?asked, "A connection for wakes cannot be kept");
                    }
                }
                sleep(WARMING).await;
            }
        }
    }

    async fn write(&self, target: &TargetId, replicas: u32) -> Result<WakeOutcome, WakeError> {
        let lane = self.lanes.take().await;
        let client = lane.as_ref().map(Lane::get).ok_or("there is no client");
        let written = match client {
            Ok(client) => scale::change(client, names::ACTIVATOR_MANAGER, target, 0, replicas)
                .await
                .map_err(|error| error.to_string()),
            Err(none) => Err(none.to_owned()),
        };
        match written {
            Ok(Some(_)) => {
                let note = format!("A request has come: from 0 to {replicas} replicas");
                self.events.tell(target, Reason::Woken, note);
                Ok(WakeOutcome::Woken)
            }
            Ok(None) => Ok(WakeOutcome::NotAtZero),
            Err(reason) => {
                self.events.tell(target, Reason::CannotWake, reason.clone());
                Err(WakeError {
                    target: target.clone(),
                    reason,
                })
            }
        }
    }
}

impl Scale for KubeScale {
    fn wake(
        &self,
        target: &TargetId,
        replicas: u32,
    ) -> BoxFuture<'_, Result<WakeOutcome, WakeError>> {
        let target = target.clone();
        Box::pin(async move { self.write(&target, replicas).await })
    }
}

/// Things of which each is used by one at a time.
struct Lanes<T> {
    all: Vec<T>,
    free: Mutex<Vec<usize>>,
    permits: Semaphore,
}

impl<T> std::fmt::Debug for Lanes<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} lanes", self.all.len())
    }
}

impl<T> Lanes<T> {
    fn new(all: Vec<T>) -> Self {
        Self {
            free: Mutex::new((0..all.len()).rev().collect()),
            permits: Semaphore::new(all.len()),
            all,
        }
    }

    /// Waits for a free one. None if there are none at all.
    async fn take(&self) -> Option<Lane<'_, T>> {
        if self.all.is_empty() {
            return None;
        }
        let permit = self.permits.acquire().await.ok()?;
        let at = self.free.lock().pop()?;
        Some(Lane {
            lanes: self,
            at,
            _permit: permit,
        })
    }
}

/// One of [`Lanes`]; given back when it is dropped, also in the middle of a write.
struct Lane<'a, T> {
    lanes: &'a Lanes<T>,
    at: usize,
    /// After `at` is free.
    _permit: SemaphorePermit<'a>,
}

impl<T> Lane<'_, T> {
    fn get(&self) -> &T {
        &self.lanes.all[self.at]
    }
}

impl<T> Drop for Lane<'_, T> {
    fn drop(&mut self) {
        self.lanes.free.lock().push(self.at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_lane_is_one_users_and_comes_back_however_he_ends() {
        let lanes = Lanes::new(vec!['a', 'b']);
        let soon = Duration::from_secs(1);
        let one = lanes.take().await.unwrap();
        let two = lanes.take().await.unwrap();
        assert_ne!(one.get(), two.get());
        assert!(timeout(soon, lanes.take()).await.is_err(), "none is free");
        let freed = *one.get();
        drop(one);
        let three = timeout(soon, lanes.take()).await.unwrap().unwrap();
        assert_eq!(*three.get(), freed);
        assert!(Lanes::<()>::new(Vec::new()).take().await.is_none());
    }
}
