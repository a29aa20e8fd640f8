//! The way out, for a Service, for what stands about without one, and for claims.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString as TargetPort;
use kubernetes::{Adopted, names};

use super::{
    Action, Flip, Owner, Standing, World, bare_is_selected, has_companions, has_rested,
    ports::{flipped_to, recorded},
};
use crate::kubernetes::view::{Conditions, ServiceView, SliceView};

/// Steps towards a Service that is as it was. `selects`: it selects pods of a workload that is opted in.
pub(super) fn service(
    world: &World,
    service: &ServiceView,
    selects: bool,
    actions: &mut Vec<Action>,
) {
    let companion = world
        .companions
        .get(&service.name)
        .filter(|one| one.is_companion());
    let record = companion.and_then(|one| one.adopted.as_ref());
    let is_ours = |slice: &&std::sync::Arc<SliceView>| slice.service == service.name;
    let fallback: Vec<_> = world.slices.iter().filter(is_ours).collect();
    let flipped = service
        .ports
        .iter()
        .any(|port| flipped_to(&port.target).is_some());
    if companion.is_none() && fallback.is_empty() && !flipped {
        return;
    }
    if let (Some(companion), Some(record)) = (companion, record.filter(|record| !record.leaving)) {
        // First, or the webhook would flip what somebody else writes back between the next two steps.
        actions.push(Action::MarkLeaving {
            companion: companion.name.clone(),
            adopted: Adopted {
                leaving: true,
                ..record.clone()
            },
        });
    }
    if flipped {
        // The fallback stays until the Service was seen as it was.
        flip_back(world, service, actions);
        return;
    }
    let leads_to_somebody = match &world.standing {
        Standing::Out { replicas, .. } if *replicas == 0 => {
            if !fallback.is_empty() {
                actions.push(Action::Wake);
            }
            false
        }
        Standing::Out { ready, .. } => *ready,
        Standing::In(_) => {
            !selects || world.pods.iter().any(|pod| pod.ready) || bare_is_selected(world, service)
        }
        Standing::Gone => true,
    };
    if !fallback.is_empty() {
        if leads_to_somebody {
            actions.extend(fallback.iter().map(|slice| Action::RemoveSlice {
                name: slice.name.clone(),
            }));
        } else if matches!(world.standing, Standing::Out { replicas, .. } if replicas > 0) {
            // Once pods are ready, no one may be led past them, however long it takes until the slice is gone.
            let offered = fallback
                .iter()
                .filter(|slice| slice.conditions != Conditions::Fallback);
            actions.extend(offered.map(|slice| Action::KeepSlice {
                slice: SliceView {
                    conditions: Conditions::Fallback,
                    ..SliceView::clone(slice)
                },
                owner: Owner {
                    name: service.name.clone(),
                    uid: service.uid.clone(),
                },
            }));
        }
        return;
    }
    // With it go its slices, since it owns them; `orphans` sees to them if they stay.
    if let Some(companion) = companion {
        actions.push(Action::RemoveCompanion {
            name: companion.name.clone(),
            uid: companion.uid.clone(),
        });
    }
}

/// All ports that lead to sidecars lead where they did before. Those of which nobody knows are left.
pub(super) fn flip_back(world: &World, service: &ServiceView, actions: &mut Vec<Action>) {
    let companion = world.companions.get(&service.name);
    let record = companion.and_then(|one| one.adopted.as_ref());
    let before = |port: u16, index: usize| {
        let upstream = || match &world.standing {
            Standing::In(workload) => workload.upstreams.get(index).copied(),
            // A pod's sidecar knows what is behind it.
            _ => world
                .pods
                .iter()
                .find_map(|pod| pod.upstreams.get(index).copied()),
        };
        recorded(record, port).or_else(|| Some(TargetPort::Int(i32::from(upstream()?))))
    };
    let ports: Vec<_> = service
        .ports
        .iter()
        .filter_map(|port| {
            let index = flipped_to(&port.target)?;
            Some(Flip {
                place: port.place,
                port: port.port,
                from: port.target.clone(),
                to: before(port.port, index)?,
                index,
            })
        })
        .collect();
    if !ports.is_empty() {
        actions.push(Action::FlipBack {
            service: service.name.clone(),
            uid: service.uid.clone(),
            ports,
        });
    }
}

/// Companions and slices without a Service, or without a companion.
pub(super) fn orphans(world: &World, actions: &mut Vec<Action>) {
    let has_service = |name: &str| world.services.iter().any(|service| service.name == name);
    for (service, companion) in &world.companions {
        if companion.is_companion() && !has_service(service) {
            actions.push(Action::RemoveCompanion {
                name: companion.name.clone(),
                uid: companion.uid.clone(),
            });
        }
    }
    let is_companion = |name: &str| {
        let mut ours = world.companions.values().chain(&world.relay);
        ours.any(|one| (one.is_companion() || one.is_relay()) && one.name == name)
    };
    for slice in &world.slices {
        if !has_service(&slice.service) && !is_companion(&slice.service) {
            actions.push(Action::RemoveSlice {
                name: slice.name.clone(),
            });
        }
    }
}

/// Claims that no slice leads to and nobody needs are released, and forgotten when they have rested.
pub(super) fn claims(world: &World, live: &BTreeMap<usize, u16>, actions: &mut Vec<Action>) {
    let needed = match &world.standing {
        Standing::In(workload) => workload.upstreams.len(),
        // Any companion or slice that is still there may lead to them.
        Standing::Out { .. } | Standing::Gone => 0,
    };
    let settled = matches!(world.standing, Standing::In(_))
        || (!has_companions(world) && world.slices.is_empty());
    let is_led_to = |port: u16| {
        let mut ports = world.slices.iter().flat_map(|slice| slice.ports.values());
        ports.any(|(number, _)| *number == port)
    };
    for claim in &world.claims {
        let wanted = claim.index < needed && live.get(&claim.index) == Some(&claim.port);
        match claim.released {
            None if !wanted && settled && !is_led_to(claim.port) => {
                actions.push(Action::Release { port: claim.port });
            }
            Some(released)
                if has_rested(released, world.now)
                    && !actions.contains(&Action::Reclaim { port: claim.port }) =>
            {
                actions.push(Action::Forget { port: claim.port });
            }
            _ => {}
        }
    }
    debug_assert!(needed <= names::MAX_REQUEST_PORTS);
}
