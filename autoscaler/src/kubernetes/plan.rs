//! What adoption does next for one workload: the world in, actions out.
//!
//! Every plan is made from what is seen, never from what was meant: after each action, and after a crash between any two, the
//! next plan continues from there. Actions of one plan are in an order in which each may be the last that is carried out.
//!
//! What must stay true: **a Service that led to somebody still leads to somebody after every action.** By these orders:
//!
//! - In: claims → companion with the record of what will be changed → slices of companion and Service → (activators seen
//!   listening on the claims, slices seen in place, every ready pod seen with its sidecar) → flip. Before the flip the Service
//!   leads to models as ever; after it to sidecars, and where no pod is ready the fallback was there before.
//! - Beside these, once anything is adopted: the relay, by which sidecars hand requests to the activators. Nobody else is led by it,
//!   and sidecars that find nobody there go on by themselves, so it may come late and go early.
//! - Out: record marked, so that no webhook flips again → flip back (pods still have their models' ports, so both ways lead to
//!   them) → a workload at zero is woken → once a pod is ready, or there is no workload any more, the fallback goes → then the
//!   companion → then the claims, when no slice names them.
//! - A claim's port is given up only when no slice leads to it, and rests before somebody else gets it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString as TargetPort;
use kubernetes::{Adopted, AdoptedPort, Claim, Labels, WorkloadView, claim, labels, names};
use shared::TargetId;

use super::view::{Conditions, PortView, Refusal, ServiceView, SliceView};

mod leave;
mod ports;
mod relay;
#[cfg(test)]
mod tests;

use ports::Entry;

/// What is seen of one workload and its surroundings.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) target: TargetId,
    pub(crate) standing: Standing,
    /// Its pods with a sidecar, terminating ones left out.
    pub(crate) pods: Vec<PodFact>,
    /// Labels of ready pods without a sidecar that the Services select; of several that one selects, one is enough.
    pub(crate) bare: Vec<Labels>,
    /// Services that select its pods, and those whose companions or slices are there because of it.
    pub(crate) services: Vec<Arc<ServiceView>>,
    /// The Service of a companion's name beside each of them, by the name of the Service; also where that one is gone.
    pub(crate) companions: BTreeMap<String, Arc<ServiceView>>,
    /// The Service of its relay's name.
    pub(crate) relay: Option<Arc<ServiceView>>,
    /// Our slices of all of these.
    pub(crate) slices: Vec<Arc<SliceView>>,
    pub(crate) claims: Vec<Claim>,
    /// Addresses to list in slices.
    pub(crate) activators: BTreeSet<IpAddr>,
    /// Those of its claimed ports on which an activator was seen listening.
    pub(crate) listening: BTreeSet<u16>,
    /// Services that somebody else keeps writing back.
    pub(crate) contested: BTreeSet<String>,
    /// Services that select pods of another workload too, with its name.
    pub(crate) shared: BTreeMap<String, String>,
    /// Seconds since 1970.
    pub(crate) now: i64,
}

/// Whether the workload is opted in.
#[derive(Clone, Debug)]
pub(crate) enum Standing {
    In(Arc<WorkloadView>),
    /// Opted out: the Deployment is there without the label.
    Out {
        replicas: u32,
        ready: bool,
    },
    /// There is no such Deployment.
    Gone,
}

#[derive(Clone, Debug)]
pub(crate) struct PodFact {
    pub(crate) ready: bool,
    pub(crate) upstreams: Vec<u16>,
}

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// Claim a port that is free for this request port.
    Claim {
        index: usize,
    },
    /// Use a port again that was released and still rests: it never led to anybody else.
    Reclaim {
        port: u16,
    },
    KeepCompanion(Companion),
    KeepRelay(Relay),
    KeepSlice {
        slice: SliceView,
        owner: Owner,
    },
    /// Let the Service's request ports lead to the sidecars: place, port and the old target of each.
    Flip {
        service: String,
        uid: String,
        ports: Vec<Flip>,
        /// Whom the Service selects, and what has to be behind each request port of theirs: looked at once more before it.
        selector: Labels,
        upstreams: Vec<u16>,
    },
    /// Give them back.
    FlipBack {
        service: String,
        uid: String,
        ports: Vec<Flip>,
    },
    /// Note on the companion that nobody may flip any more.
    MarkLeaving {
        companion: String,
        adopted: Adopted,
    },
    /// 0 → 1: from now on nobody wakes it upon a request.
    Wake,
    RemoveSlice {
        name: String,
    },
    /// Of a relay too.
    RemoveCompanion {
        name: String,
        uid: String,
    },
    Release {
        port: u16,
    },
    /// Delete a claim that has rested.
    Forget {
        port: u16,
    },
}

/// A companion as it should be.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Companion {
    pub(crate) service: String,
    pub(crate) service_uid: String,
    pub(crate) adopted: Adopted,
    pub(crate) ports: Vec<CompanionPort>,
    /// One was seen that is ours; if not, making it must not overwrite anybody else's.
    pub(crate) exists: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CompanionPort {
    pub(crate) name: String,
    pub(crate) port: u16,
    pub(crate) app_protocol: Option<String>,
    pub(crate) claim: u16,
}

/// A relay as it should be.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Relay {
    pub(crate) name: String,
    /// Whose it is, and nothing else.
    pub(crate) adopted: Adopted,
    pub(crate) ports: Vec<CompanionPort>,
    /// One was seen that is ours; if not, making it must not overwrite anybody else's.
    pub(crate) exists: bool,
}

/// The Service with which a slice goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) name: String,
    pub(crate) uid: String,
}

/// One port's change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Flip {
    pub(crate) place: usize,
    pub(crate) port: u16,
    pub(crate) from: TargetPort,
    pub(crate) to: TargetPort,
    pub(crate) index: usize,
}

/// What follows from a world.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Plan {
    pub(crate) actions: Vec<Action>,
    /// What the relay needs. Of `actions` only the release of claims waits for its end, and where it cannot be made, as by a quota or a
    /// policy, nothing else is kept up by that.
    pub(crate) relay: Vec<Action>,
    /// Services that are left as they are.
    pub(crate) refused: Vec<(String, Refusal)>,
    /// Services through which requests are held and wake the workload.
    pub(crate) adopted: Vec<String>,
    /// Whether the workload may have no replicas: all its Services are adopted, and there is one.
    pub(crate) may_sleep: bool,
    /// Nothing of it is left.
    pub(crate) finished: bool,
}

/// The next steps.
pub(crate) fn plan(world: &World) -> Plan {
    let mut plan = Plan::default();
    let claims = live_claims(world);
    if let Standing::In(workload) = &world.standing {
        claim_ports(world, workload, &claims, &mut plan.actions);
    }
    let mut all_adopted = true;
    for service in &world.services {
        let selects = matches!(&world.standing, Standing::In(workload) if workload.selected_by(&service.selector));
        let judged = match &world.standing {
            Standing::In(workload) if selects && !service.terminating => {
                Some((workload, judge(world, workload, service)))
            }
            _ => None,
        };
        match judged {
            Some((workload, (entries, None))) => {
                let adopted = adopt(
                    world,
                    workload,
                    service,
                    &entries,
                    &claims,
                    true,
                    &mut plan.actions,
                );
                all_adopted &= adopted;
                if adopted {
                    plan.adopted.push(service.name.clone());
                }
            }
            Some((workload, (entries, Some(refusal)))) => {
                all_adopted = false;
                let stays = match refusal {
                    // Pods of a headless Service are reached without it; the companion is offered instead.
                    Refusal::Headless(_) => !entries.is_empty(),
                    // The fallback is no more than it was, and the flip is tried again later.
                    Refusal::Rival => true,
                    _ => false,
                };
                if stays {
                    adopt(
                        world,
                        workload,
                        service,
                        &entries,
                        &claims,
                        false,
                        &mut plan.actions,
                    );
                } else {
                    leave::service(world, service, selects, &mut plan.actions);
                }
                plan.refused.push((service.name.clone(), refusal));
            }
            None => leave::service(world, service, selects, &mut plan.actions),
        }
    }
    relay::keep(world, &claims, !plan.adopted.is_empty(), &mut plan.relay);
    leave::orphans(world, &mut plan.actions);
    leave::claims(world, &claims, &mut plan.actions);
    for actions in [&mut plan.actions, &mut plan.relay] {
        actions.retain(|action| !is_under_way(world, action));
    }
    // They fail where there is no port left, and nothing in this plan waits for them. What else stands has to be kept.
    let claims = |action: &Action| matches!(action, Action::Claim { .. });
    plan.actions.sort_by_key(claims);
    plan.may_sleep = all_adopted && !plan.adopted.is_empty();
    plan.finished = !matches!(world.standing, Standing::In(_))
        && plan.actions.is_empty()
        && plan.relay.is_empty()
        && !has_companions(world)
        && world.slices.is_empty()
        && world.claims.is_empty();
    plan
}

/// Whether any Service that we made for it is there.
pub(crate) fn has_companions(world: &World) -> bool {
    let ours = |one: &Arc<ServiceView>| one.is_companion() || one.is_relay();
    world.companions.values().chain(&world.relay).any(ours)
}

/// Whether what an action deletes is being deleted already: a finalizer, which anybody may put there, keeps it for as long as
/// they like.
fn is_under_way(world: &World, action: &Action) -> bool {
    match action {
        Action::RemoveSlice { name } => {
            let mut slices = world.slices.iter();
            slices.any(|slice| slice.terminating && slice.name == *name)
        }
        Action::RemoveCompanion { uid, .. } => {
            let mut companions = world.companions.values().chain(&world.relay);
            companions.any(|one| one.terminating && one.uid == *uid)
        }
        _ => false,
    }
}

/// The claim that counts for each request port.
fn live_claims(world: &World) -> BTreeMap<usize, u16> {
    let mut live = BTreeMap::new();
    for claim in world.claims.iter().filter(|claim| claim.released.is_none()) {
        let port = live.entry(claim.index).or_insert(claim.port);
        *port = claim.port.min(*port);
    }
    live
}

fn claim_ports(
    world: &World,
    workload: &WorkloadView,
    live: &BTreeMap<usize, u16>,
    actions: &mut Vec<Action>,
) {
    for index in (0..workload.upstreams.len()).filter(|index| !live.contains_key(index)) {
        let resting = world.claims.iter().find(|claim| claim.index == index);
        actions.push(match resting {
            Some(claim) => Action::Reclaim { port: claim.port },
            None => Action::Claim { index },
        });
    }
}

/// The request ports of a Service, and what stands against adopting it.
fn judge(
    world: &World,
    workload: &WorkloadView,
    service: &ServiceView,
) -> (Vec<Entry>, Option<Refusal>) {
    let companion = world.companions.get(&service.name);
    let name = names::companion(&service.name);
    let record = companion.and_then(|one| one.adopted.as_ref());
    let resolved = ports::entries(service, workload, record);
    let entries = resolved.clone().unwrap_or_default();
    let refusal = if name.len() > 63 {
        Some(Refusal::LongName(name))
    } else if companion.is_some_and(|one| !one.is_companion()) {
        // Without a companion nothing is offered either.
        return (Vec::new(), Some(Refusal::Taken(name)));
    } else if let Some(refused) = &service.refused {
        Some(refused.clone())
    } else if let Some(other) = world.shared.get(&service.name) {
        Some(Refusal::Shared(other.clone()))
    } else if !workload.template_enabled {
        Some(Refusal::Template)
    } else if let Err(refusal) = resolved {
        Some(refusal)
    } else if world.contested.contains(&service.name) {
        Some(Refusal::Rival)
    } else {
        None
    };
    (entries, refusal)
}

/// Steps towards an adopted Service; with `flip` false only what stands beside it. True if requests that come through it are
/// held where no pod is ready, whatever else there is to do.
fn adopt(
    world: &World,
    workload: &WorkloadView,
    service: &ServiceView,
    entries: &[Entry],
    claims: &BTreeMap<usize, u16>,
    flip: bool,
    actions: &mut Vec<Action>,
) -> bool {
    let mut ports = Vec::new();
    for entry in entries {
        let Some(claim) = claims.get(&entry.index) else {
            return false; // The claim is made first.
        };
        ports.push(CompanionPort {
            name: entry.name.clone(),
            port: entry.port,
            app_protocol: entry.app_protocol.clone(),
            claim: *claim,
        });
    }
    let adopted = Adopted {
        workload: world.target.name().to_owned(),
        ports: entries
            .iter()
            .map(|entry| AdoptedPort {
                port: entry.port,
                was: entry.was.clone(),
                index: entry.index,
            })
            .collect(),
        leaving: false,
    };
    let wanted = Companion {
        service: service.name.clone(),
        service_uid: service.uid.clone(),
        adopted,
        ports,
        exists: world.companions.contains_key(&service.name),
    };
    let companion = world.companions.get(&service.name);
    let Some(companion) = companion.filter(|one| is_as(one, &wanted)) else {
        actions.push(Action::KeepCompanion(wanted));
        return false;
    };
    let mut settled = !world.activators.is_empty();
    settled &= keep_slices(world, companion, &wanted.ports, Conditions::Ready, actions);
    if flip || !service.headless {
        let conditions = fallback_conditions(world, service);
        settled &= keep_slices(world, service, &wanted.ports, conditions, actions);
    }
    let listening = wanted
        .ports
        .iter()
        .all(|port| world.listening.contains(&port.claim));
    let missing: Vec<_> = entries.iter().filter(|entry| !entry.flipped).collect();
    if !flip {
        return false;
    }
    if unseen_by_sidecars(world, service) {
        // The only pods that could answer have no sidecar: the webhook was not there when they were made.
        leave::flip_back(world, service, actions);
        return false;
    }
    if missing.is_empty() {
        // While activators come and go the slices are a step behind them, and still lead to somebody.
        return has_fallback(world, service, &wanted.ports);
    }
    // The last step, and only from a state that was seen in place.
    if settled && listening && pods_are_ready_for(world, service, entries) {
        actions.push(Action::Flip {
            service: service.name.clone(),
            uid: service.uid.clone(),
            ports: missing.into_iter().map(Entry::flip).collect(),
            selector: service.selector.clone(),
            upstreams: workload.upstreams.clone(),
        });
    }
    false
}

/// Every ready pod has the sidecar, and behind each port the upstream that the Service meant.
fn pods_are_ready_for(world: &World, service: &ServiceView, entries: &[Entry]) -> bool {
    let fits = |pod: &PodFact| {
        entries
            .iter()
            .all(|entry| pod.upstreams.get(entry.index) == Some(&entry.upstream))
    };
    world.pods.iter().filter(|pod| pod.ready).all(fits) && !bare_is_selected(world, service)
}

fn bare_is_selected(world: &World, service: &ServiceView) -> bool {
    let mut bare = world.bare.iter();
    bare.any(|pod| labels::have(pod, &service.selector))
}

/// Whether the workload has a pod that takes requests, with a sidecar or without.
pub(crate) fn has_ready_pod(world: &World) -> bool {
    world.pods.iter().any(|pod| pod.ready)
        || world
            .services
            .iter()
            .any(|service| bare_is_selected(world, service))
}

fn unseen_by_sidecars(world: &World, service: &ServiceView) -> bool {
    bare_is_selected(world, service) && !world.pods.iter().any(|pod| pod.ready)
}

fn has_fallback(world: &World, service: &ServiceView, ports: &[CompanionPort]) -> bool {
    world.slices.iter().any(|slice| {
        slice.service == service.name
            && !slice.addresses.is_empty()
            && ports.iter().all(|port| {
                let led_to = slice.ports.get(&port.name);
                led_to.is_some_and(|(number, _)| *number == port.claim)
            })
    })
}

/// Readers of slices that take only ready endpoints get the activators while there is nothing else.
fn fallback_conditions(world: &World, service: &ServiceView) -> Conditions {
    let standing = matches!(&world.standing, Standing::In(workload)
        if workload.settings.get(names::FALLBACK).is_some_and(|value| value == "standing"));
    let ready = world.pods.iter().any(|pod| pod.ready) || bare_is_selected(world, service);
    if standing || ready {
        Conditions::Fallback
    } else {
        Conditions::ReadyFallback
    }
}

fn is_as(seen: &ServiceView, wanted: &Companion) -> bool {
    !seen.terminating
        && seen.adopted.as_ref() == Some(&wanted.adopted)
        && seen.owner.as_ref() == Some(&wanted.service_uid)
        && has_ports(seen, &wanted.ports)
}

/// Whether a Service of ours has exactly these ports.
fn has_ports(seen: &ServiceView, wanted: &[CompanionPort]) -> bool {
    let ports: Vec<_> = seen.ports.iter().filter_map(claimed).collect();
    seen.ports.len() == ports.len() && ports == wanted
}

/// A port that leads to a claim.
fn claimed(port: &PortView) -> Option<CompanionPort> {
    let TargetPort::Int(claim) = port.target else {
        return None;
    };
    Some(CompanionPort {
        name: port.name.clone(),
        port: port.port,
        app_protocol: port.app_protocol.clone(),
        claim: u16::try_from(claim).ok()?,
    })
}

/// One slice per IP family of the activators. True if all are as they should be. Without any activator they stay as they are.
fn keep_slices(
    world: &World,
    service: &ServiceView,
    ports: &[CompanionPort],
    conditions: Conditions,
    actions: &mut Vec<Action>,
) -> bool {
    let mut settled = true;
    for ipv6 in [false, true] {
        let of_family = world.activators.iter().filter(|ip| ip.is_ipv6() == ipv6);
        // In order already.
        let addresses: Box<[_]> = of_family.copied().collect();
        let name = slice_name(&service.name, ipv6);
        let seen = world.slices.iter().find(|slice| slice.name == name);
        if addresses.is_empty() {
            if let Some(seen) = seen.filter(|_| !world.activators.is_empty()) {
                // No activator has an address of this family any more, and others are there.
                actions.push(Action::RemoveSlice {
                    name: seen.name.clone(),
                });
            }
            continue;
        }
        let slice = SliceView {
            name,
            service: service.name.clone(),
            workload: world.target.name().to_owned(),
            ipv6,
            addresses,
            ports: ports
                .iter()
                .map(|port| (port.name.clone(), (port.claim, port.app_protocol.clone())))
                .collect(),
            conditions,
            terminating: false,
        };
        if seen.is_none_or(|seen| !seen.is_as(&slice)) {
            settled = false;
            actions.push(Action::KeepSlice {
                slice,
                owner: Owner {
                    name: service.name.clone(),
                    uid: service.uid.clone(),
                },
            });
        }
    }
    settled
}

/// The name of our slice of a Service.
fn slice_name(service: &str, ipv6: bool) -> String {
    let family = if ipv6 { "ipv6" } else { "ipv4" };
    format!("{service}-activators-{family}")
}

/// Whether a released claim has rested.
fn has_rested(released: i64, now: i64) -> bool {
    let rest = i64::try_from(claim::REST.as_secs()).unwrap_or(i64::MAX);
    now.saturating_sub(released) >= rest
}

/// The lowest port that nobody has claimed, resting ones included.
pub(crate) fn free_port(taken: &BTreeSet<u16>) -> Option<u16> {
    names::CLAIM_PORTS
        .clone()
        .find(|port| !taken.contains(port))
}
