//! Which ports are free to be claimed, also while several claims are being made that no cache shows yet.

use std::{collections::BTreeSet, time::Duration};

use kubernetes::{Cache, Claim};
use parking_lot::Mutex;
use shared::clock;

use super::plan::free_port;

/// A port that we tried is shown by the cache after so long, or was not taken.
const SHOWN: Duration = Duration::from_mins(1);

/// Hands out free ports.
#[derive(Debug)]
pub(crate) struct Ports {
    claims: std::sync::Arc<Cache<Claim>>,
    tried: Mutex<Vec<(u16, Duration)>>,
}

impl Ports {
    pub(crate) fn new(claims: std::sync::Arc<Cache<Claim>>) -> Self {
        Self {
            claims,
            tried: Mutex::default(),
        }
    }

    /// The lowest port that nobody has, as far as is known.
    pub(crate) fn take(&self) -> Option<u16> {
        let now = clock::since_epoch();
        let mut tried = self.tried.lock();
        tried.retain(|(_, at)| now.saturating_sub(*at) < SHOWN);
        let mut taken: BTreeSet<_> = self.claims.all().iter().map(|(_, c)| c.port).collect();
        taken.extend(tried.iter().map(|(port, _)| *port));
        let port = free_port(&taken)?;
        tried.push((port, now));
        Some(port)
    }

    /// It was not claimed after all.
    pub(crate) fn give_back(&self, port: u16) {
        self.tried.lock().retain(|(tried, _)| *tried != port);
    }
}
