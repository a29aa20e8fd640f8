//! Demand of somebody who is not held: a browser that was given a page, and comes back by itself.
//!
//! It is one moment per workload: wanted until then. Every page moves it, so a crowd of browsers costs what one does, and nothing has
//! to be cleaned up when they leave. Until then three things are as if one request were held: the workload is woken, and again if
//! that fails or is undone; the autoscaler is told of one held request more, and takes nothing away while any is held, so a wake that
//! nobody waits for lasts until the next visit; and what keeps the workload from starting is told. Nothing else is: no load is counted
//! (one visitor is no reason for a second pod), no place in the queue is taken, and no timeline of a cold start begins, since no
//! answer would ever end it.
//!
//! Once a pod is ready the moment is left to pass. A workload that went back to zero sooner could be gone when the page comes back,
//! which would wake it again, and so on.

use tokio::time::{Duration, Instant};

use super::Workload;
use crate::rescue::Failure;

/// How soon a page comes back: soon enough for a person who watches, and seldom enough to be no load.
pub(crate) const REFRESH: Duration = Duration::from_secs(5);

/// How long a workload is wanted after a page was given: the next one may be late, and the one after it lost.
pub(super) const WANTED: Duration = Duration::from_secs(3 * REFRESH.as_secs());

impl Workload {
    /// Somebody asks for it who will come back. False, and nothing else, if a pod takes requests.
    ///
    /// # Errors
    /// Why it will not be woken.
    pub(crate) fn want(&self) -> Result<bool, Failure> {
        let now = Instant::now();
        {
            let mut state = self.state.lock();
            if state.hold.any_ready() {
                return Ok(false);
            }
            self.let_in(&state, now)?;
            state.wanted_until = Some(now + WANTED);
        }
        self.kick.notify_one();
        Ok(true)
    }

    /// Whether anybody asks for it at present: a request that is held, or a page that will come back.
    pub fn is_wanted(&self) -> bool {
        let state = self.state.lock();
        state.hold.held() > 0 || state.is_wanted(Instant::now())
    }

    /// Requests that the autoscaler is told of as held.
    pub(super) fn told_as_held(&self) -> u64 {
        let state = self.state.lock();
        state.hold.held() as u64 + u64::from(state.is_wanted(Instant::now()))
    }
}
