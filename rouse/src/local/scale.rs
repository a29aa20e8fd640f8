//! The scale of local workloads: a number per workload, changed only from a known value.

use std::{collections::HashMap, sync::Arc};

use activator::{Scale, WakeError, WakeOutcome};
use autoscaler::Scaler;
use shared::TargetId;
use tokio::sync::watch;

/// `spec.replicas` of every local workload. What the API server is on a cluster.
#[derive(Clone, Debug)]
pub(crate) struct LocalScale(Arc<HashMap<TargetId, watch::Sender<u32>>>);

impl LocalScale {
    pub(crate) fn new(workloads: impl IntoIterator<Item = (TargetId, u32)>) -> Self {
        let scales = workloads
            .into_iter()
            .map(|(target, replicas)| (target, watch::channel(replicas).0));
        Self(Arc::new(scales.collect()))
    }

    /// The scale of one workload, and changes of it.
    pub(crate) fn watch(&self, target: &TargetId) -> Option<watch::Receiver<u32>> {
        self.0.get(target).map(watch::Sender::subscribe)
    }

    /// Changes `from` to `to`, atomically.
    pub(super) fn change(&self, target: &TargetId, from: u32, to: u32) -> Option<bool> {
        let scale = self.0.get(target)?;
        let mut changed = false;
        scale.send_if_modified(|replicas| {
            changed = *replicas == from;
            if changed {
                *replicas = to;
            }
            changed && from != to
        });
        Some(changed)
    }
}

impl Scale for LocalScale {
    fn wake(
        &self,
        target: &TargetId,
        replicas: u32,
    ) -> activator::BoxFuture<'_, Result<WakeOutcome, WakeError>> {
        let outcome = match self.change(target, 0, replicas) {
            Some(true) => Ok(WakeOutcome::Woken),
            Some(false) => Ok(WakeOutcome::NotAtZero),
            None => Err(WakeError {
                target: target.clone(),
                reason: "no such workload".to_owned(),
            }),
        };
        Box::pin(std::future::ready(outcome))
    }
}

impl Scaler for LocalScale {
    fn scale(
        &self,
        target: &TargetId,
        from: u32,
        to: u32,
    ) -> autoscaler::BoxFuture<'_, Result<bool, String>> {
        let changed = self
            .change(target, from, to)
            .ok_or_else(|| "no such workload".to_owned());
        Box::pin(std::future::ready(changed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_number_that_was_seen_can_be_changed() {
        let target: TargetId = "a/b".parse().unwrap();
        let scale = LocalScale::new([(target.clone(), 0)]);
        assert_eq!(scale.wake(&target, 2).await.unwrap(), WakeOutcome::Woken);
        assert_eq!(
            scale.wake(&target, 3).await.unwrap(),
            WakeOutcome::NotAtZero
        );
        assert_eq!(scale.scale(&target, 1, 5).await, Ok(false));
        assert_eq!(scale.scale(&target, 2, 0).await, Ok(true));
        assert_eq!(*scale.watch(&target).unwrap().borrow(), 0);
        assert!(scale.scale(&"a/c".parse().unwrap(), 0, 1).await.is_err());
    }
}
