//! Waking through the API server.

use ::kubernetes::{names, scale};
use kube::Client;
use shared::TargetId;

use crate::{BoxFuture, Scale, WakeError, WakeOutcome};

/// Writes scales from 0 to N, and nothing else, over connections of its own.
#[derive(Clone)]
pub struct KubeScale(Client);

impl KubeScale {
    /// `client` must be nobody else's: a wake must not wait behind a list of all pods.
    pub fn new(client: Client) -> Self {
        Self(client)
    }
}

impl std::fmt::Debug for KubeScale {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KubeScale")
    }
}

impl Scale for KubeScale {
    fn wake(
        &self,
        target: &TargetId,
        replicas: u32,
    ) -> BoxFuture<'_, Result<WakeOutcome, WakeError>> {
        let target = target.clone();
        Box::pin(async move {
            match scale::change(&self.0, names::ACTIVATOR_MANAGER, &target, 0, replicas).await {
                Ok(true) => Ok(WakeOutcome::Woken),
                Ok(false) => Ok(WakeOutcome::NotAtZero),
                Err(error) => Err(WakeError {
                    target,
                    reason: error.to_string(),
                }),
            }
        })
    }
}
