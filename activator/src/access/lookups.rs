//! Questions about addresses, asked no more often than needed.
//!
//! However many connections a stranger opens, the API server is asked at most about [`AT_ONCE`] addresses at a time, about one
//! address once in [`FRESH`] (five times in a second as long as it is nobody's), and no more than [`MOST`] addresses are
//! remembered. An answer may be as old as [`FRESH`], counted from when it was asked for: longer, and a pod that got the
//! address of another could pass for it.

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use parking_lot::Mutex;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep, timeout},
};

use super::{SourceError, Sources};

/// How long an answer counts.
const FRESH: Duration = Duration::from_secs(1);
/// The same for the answer that an address is nobody's, and for none: it soon may be somebody's.
const FRESH_NOBODY: Duration = Duration::from_millis(200);
/// Questions under way.
const AT_ONCE: usize = 4;
/// Limit on one, waiting for its turn included.
const LIMIT: Duration = Duration::from_secs(2);
/// Addresses that are asked about or remembered at once. More than the pods that can reach one activator within a second.
const MOST: usize = 4_096;
/// How long a request waits for its sender to become known: a pod that has just started sends before the kubelet has written
/// down its address, which it does when it has seen the pod's containers run, up to a second or two later
/// (`genericPlegRelistPeriod` of `pkg/kubelet` is 1 s).
const PATIENCE: Duration = Duration::from_secs(3);
/// The pause before an address that is nobody's is asked about again, at first; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

type Answer = Result<Option<Arc<str>>, SourceError>;

/// Where to ask. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Lookups(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    sources: Arc<dyn Sources>,
    asked: Mutex<HashMap<IpAddr, Asked>>,
    turns: Semaphore,
}

#[derive(Clone, Debug)]
struct Asked {
    at: Instant,
    answer: Shared<BoxFuture<'static, Answer>>,
}

impl Asked {
    fn counts(&self, now: Instant) -> bool {
        let fresh = match self.answer.peek() {
            None | Some(Ok(Some(_))) => FRESH,
            Some(Ok(None) | Err(_)) => FRESH_NOBODY,
        };
        now < self.at + fresh
    }
}

impl Lookups {
    /// Asks `sources`.
    pub fn new(sources: Arc<dyn Sources>) -> Self {
        Self(Arc::new(Inner {
            sources,
            asked: Mutex::default(),
            turns: Semaphore::new(AT_ONCE),
        }))
    }

    /// The namespace of the pod that has `ip`, waiting a little for there to be one.
    ///
    /// # Errors
    /// [`SourceError`] as soon as an answer is an error or late.
    ///
    /// # Cancel safety
    /// Cancel safe. A question that is under way goes on.
    pub(crate) async fn find(&self, ip: IpAddr) -> Answer {
        let end = Instant::now() + PATIENCE;
        let mut pause = FIRST_PAUSE;
        loop {
            let found = self.ask(ip)?.await?;
            let left = end.saturating_duration_since(Instant::now());
            if found.is_some() || left.is_zero() {
                return Ok(found);
            }
            sleep(pause.min(left)).await;
            pause *= 2;
        }
    }

    /// Joins the question that is under way or was answered lately, or asks one.
    fn ask(&self, ip: IpAddr) -> Result<Shared<BoxFuture<'static, Answer>>, SourceError> {
        let now = Instant::now();
        let mut asked = self.0.asked.lock();
        if let Some(known) = asked.get(&ip).filter(|known| known.counts(now)) {
            return Ok(known.answer.clone());
        }
        if asked.len() >= MOST / 8 {
            asked.retain(|_, known| known.counts(now));
        }
        if asked.len() >= MOST {
            return Err(SourceError {
                ip,
                reason: format!("{MOST} addresses are asked about already"),
            });
        }
        let inner = Arc::clone(&self.0);
        // A task of its own: whoever asks may leave, and its turn must not stay taken then.
        let asking = tokio::spawn(async move { inner.put(ip).await });
        let answer = asking.map(move |ended| {
            ended.unwrap_or_else(|error| {
                Err(SourceError {
                    ip,
                    reason: error.to_string(),
                })
            })
        });
        let answer = answer.boxed().shared();
        asked.insert(
            ip,
            Asked {
                at: now,
                answer: answer.clone(),
            },
        );
        Ok(answer)
    }
}

impl Inner {
    async fn put(&self, ip: IpAddr) -> Answer {
        let question = async {
            // Never closed.
            let _turn = self.turns.acquire().await;
            self.sources.namespace_of(ip).await
        };
        let late = |_| {
            Err(SourceError {
                ip,
                reason: format!("no answer within {LIMIT:?}"),
            })
        };
        timeout(LIMIT, question).await.unwrap_or_else(late)
    }
}

#[cfg(test)]
mod tests;
