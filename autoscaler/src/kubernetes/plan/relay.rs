//! The relay of a workload: the Service by which its sidecars reach the activators.

use std::collections::BTreeMap;

use kubernetes::{Adopted, names};

use super::{Action, CompanionPort, Relay, Standing, World, has_ports, keep_slices};
use crate::kubernetes::view::{Conditions, ServiceView};

/// Steps towards a relay for a workload that is opted in, and away from one for any other. `adopted`: requests come to its
/// sidecars, or will.
pub(super) fn keep(
    world: &World,
    claims: &BTreeMap<usize, u16>,
    adopted: bool,
    actions: &mut Vec<Action>,
) {
    let seen = world.relay.as_deref();
    let ours = seen.filter(|seen| seen.is_relay());
    let (Standing::In(workload), Some(name)) = (&world.standing, names::relay(world.target.name()))
    else {
        actions.extend(ours.map(remove));
        return;
    };
    // A Service of somebody else is left alone. Sidecars would be led by it if it had their ports.
    if seen.is_some() != ours.is_some() || (ours.is_none() && !adopted) {
        return;
    }
    let ports: Option<Vec<_>> = (0..workload.upstreams.len())
        .map(|index| port(index, claims))
        .collect();
    let Some(ports) = ports else {
        return; // The claims are made first.
    };
    let adopted = Adopted {
        workload: world.target.name().to_owned(),
        ..Adopted::default()
    };
    match ours.filter(|ours| has_ports(ours, &ports) && ours.adopted.as_ref() == Some(&adopted)) {
        Some(ours) if !ours.terminating => {
            keep_slices(world, ours, &ports, Conditions::Ready, actions);
        }
        // Another one follows it.
        Some(_) => {}
        None => actions.push(Action::KeepRelay(Relay {
            name,
            adopted,
            ports,
            exists: ours.is_some(),
        })),
    }
}

fn port(index: usize, claims: &BTreeMap<usize, u16>) -> Option<CompanionPort> {
    Some(CompanionPort {
        name: names::request_port_name(index),
        port: names::FIRST_REQUEST_PORT + u16::try_from(index).ok()?,
        app_protocol: None,
        claim: *claims.get(&index)?,
    })
}

fn remove(relay: &ServiceView) -> Action {
    Action::RemoveCompanion {
        name: relay.name.clone(),
        uid: relay.uid.clone(),
    }
}
