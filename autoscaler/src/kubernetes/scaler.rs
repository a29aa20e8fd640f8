//! Writing scales on the cluster.

use std::{fmt, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use kubernetes::{names, scale::Version};
use serde_json::json;
use shared::{TargetId, clock};
use tokio::time::timeout;

use super::{
    events::{Events, Reason, Regarding},
    gate::Gate,
    rival::{self, ScaleRival},
    state::States,
    view::{DELETION_COST, SeenPod},
    world::Caches,
};
use crate::{BoxFuture, Scaler};

/// For all patches before one scale-down: it is a preference, and the scale-down does not wait for it any longer.
const COST_LIMIT: Duration = Duration::from_secs(2);
/// Pods patched before one scale-down, at most.
const COST_PATCHES: usize = 50;
/// The highest class: from 512 requests in flight on it makes no difference.
const HIGHEST_CLASS: i32 = 10;

/// Writes `/scale` while we lead.
pub(crate) struct ClusterScaler {
    pub(crate) client: Client,
    pub(crate) gate: Gate,
    pub(crate) states: States,
    pub(crate) events: Events,
    pub(crate) caches: Arc<Caches>,
}

impl fmt::Debug for ClusterScaler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterScaler").finish_non_exhaustive()
    }
}

impl Scaler for ClusterScaler {
    fn permits(&self, target: &TargetId, from: u32, to: u32) -> Result<(), &'static str> {
        let leads = self.gate.tenure().map(|tenure| tenure.since);
        let state = self.states.get(target).ok_or("unknown")?;
        state.permits(clock::since_epoch(), leads, from, to)
    }

    fn prefer(&self, target: &TargetId, open: Vec<(Arc<str>, Option<u64>)>) -> BoxFuture<'_, ()> {
        let patches = self.costs(target, &open);
        let api: Api<Pod> = Api::namespaced(self.client.clone(), target.namespace());
        Box::pin(async move {
            let params = PatchParams {
                field_manager: Some(names::AUTOSCALER_MANAGER.to_owned()),
                ..PatchParams::default()
            };
            let writes = stream::iter(patches).for_each_concurrent(8, |(name, class)| {
                let (api, params, gate) = (&api, &params, &self.gate);
                async move {
                    let patch = Patch::Merge(
                        json!({"metadata": {"annotations": {DELETION_COST: class.to_string()}}}),
                    );
                    if let Err(error) = gate.write(api.patch(&name, params, &patch)).await {
                        tracing::debug!(pod = %name, %error, "Deletion cost not written");
                    }
                }
            });
            let _late = timeout(COST_LIMIT, writes).await;
        })
    }

    fn scale(&self, target: &TargetId, from: u32, to: u32) -> BoxFuture<'_, Result<bool, String>> {
        let target = target.clone();
        Box::pin(async move {
            let manager = names::AUTOSCALER_MANAGER;
            let change = kubernetes::scale::change(&self.client, manager, &target, from, to);
            self.rival(&target, ScaleRival::writes);
            let written = match self.gate.write(change).await {
                Ok(written) => written,
                // Also one who led no more when the answer was due does not know.
                Err(error) => {
                    self.rival(&target, ScaleRival::lost_track);
                    return Err(error.to_string());
                }
            };
            match written {
                Some(version) => self.tell(&target, from, to, version),
                None => self.rival(&target, ScaleRival::was_refused),
            }
            Ok(written.is_some())
        })
    }
}

impl ClusterScaler {
    fn rival(&self, target: &TargetId, note: impl FnOnce(&mut ScaleRival)) {
        if let Some(mut state) = self.states.get_mut(target) {
            note(&mut state.scale);
        }
    }

    fn tell(&self, target: &TargetId, from: u32, to: u32, version: Version) {
        let Some(mut state) = self.states.get_mut(target) else {
            return;
        };
        state.scale.wrote(to, version);
        let regarding = Regarding::deployment(target.namespace(), target.name(), &state.uid);
        let (reason, note) = match to {
            0 => (
                Reason::ScaledToZero,
                format!("{from} → 0: nothing open or held"),
            ),
            _ if to > from => (Reason::ScaledUp, format!("{from} → {to}")),
            _ => (Reason::ScaledDown, format!("{from} → {to}")),
        };
        self.events.tell(regarding, reason, note);
    }

    /// The pods whose class changes, by name.
    fn costs(&self, target: &TargetId, open: &[(Arc<str>, Option<u64>)]) -> Vec<(Arc<str>, i32)> {
        let pods = self.caches.pods.all();
        let known = pods.iter().filter_map(|(_, pod)| match &**pod {
            SeenPod::Ours(view, cost) if view.target == *target && !view.terminating => {
                Some((&view.uid, &view.name, *cost))
            }
            _ => None,
        });
        let changes = known.filter_map(|(uid, name, cost)| {
            let (_, open) = open.iter().find(|(known, _)| known == uid)?;
            let class = class((*open)?);
            (class != cost).then(|| (Arc::clone(name), class))
        });
        changes.take(COST_PATCHES).collect()
    }

    /// Names whoever changes the scale of `target` back.
    pub(crate) async fn name_rival(&self, target: &TargetId) {
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), target.namespace());
        let asked = timeout(Duration::from_secs(5), api.get_metadata(target.name())).await;
        let Ok(Ok(object)) = asked else { return };
        let fields = object.metadata.managed_fields.unwrap_or_default();
        let who = rival::writer(&fields, "replicas").unwrap_or_else(|| "somebody".to_owned());
        let uid = object.metadata.uid.unwrap_or_default();
        self.events.tell(
            Regarding::deployment(target.namespace(), target.name(), &uid),
            Reason::RivalWriter,
            format!("{who} keeps changing the scale back; it is left alone for 10 minutes"),
        );
    }
}

/// Pods that differ less than twofold are the same: an idle one is 0, as are pods of which nothing was ever written, so that
/// most pods are never patched.
fn class(open: u64) -> i32 {
    let bits = u64::BITS - open.leading_zeros();
    i32::try_from(bits)
        .unwrap_or(HIGHEST_CLASS)
        .min(HIGHEST_CLASS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_rise_with_what_is_in_flight_and_idle_pods_need_no_patch() {
        let classes: Vec<_> = [0, 1, 2, 3, 4, 7, 8, 511, 512, u64::MAX]
            .into_iter()
            .map(class)
            .collect();
        assert_eq!(classes, [0, 1, 2, 2, 3, 3, 4, 9, 10, 10]);
    }
}
