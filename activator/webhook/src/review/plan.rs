//! What injection will do to a pod, from its spec and annotations: the same for a pod and for the template of many.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, PodSpec, Probe};
use kubernetes::{names, pod::model};

use super::{port, probe};
use crate::annotations::Asked;

/// The grace period of a pod that asks for none.
const DEFAULT_GRACE_SECONDS: u64 = 30;
/// Longest time of one request that has no longer one of its own: Knative's default of `timeoutSeconds`, and of our own waits.
const REQUEST_SECONDS: u64 = 300;
/// Until nobody sends new requests any more, and a little for the model to end after its last one.
const PROPAGATION_SECONDS: u64 = 15;

/// What is to be done.
#[derive(Debug)]
pub(super) struct Plan {
    /// The model's ports, the n-th behind the n-th request port.
    pub(super) upstreams: Vec<u16>,
    /// What the sidecar has to ask the model.
    pub(super) probe: Option<Probe>,
    /// Where it asks if there is no such probe.
    pub(super) ready_path: Option<String>,
    /// The model's place among the containers.
    pub(super) place: usize,
    /// The model's hook is free for ours.
    pub(super) sets_pre_stop: bool,
    /// Longest drain.
    pub(super) drain_seconds: u64,
    /// The pod's new grace period, if it changes.
    pub(super) grace_seconds: Option<u64>,
    /// What a user should know.
    pub(super) warnings: Vec<String>,
}

/// Looks at a pod that has no sidecar. The error is one line about why it cannot have one, and what to do.
pub(super) fn plan(spec: &PodSpec, asked: &Asked) -> Result<Plan, String> {
    let (place, main) =
        model(spec).ok_or("the pod has no container besides proxies of a service mesh")?;
    check(spec)?;
    let upstreams = port::upstreams(spec, main, asked.ports.as_deref())?;
    let mut warnings = Vec::new();
    if spec.containers.len() > 1 {
        let others: Vec<&str> = spec
            .containers
            .iter()
            .map(|container| container.name.as_str())
            .filter(|name| *name != main.name)
            .collect();
        warnings.push(format!(
            "container {} is the model; {} left alone and may end before the last request",
            main.name,
            match others.as_slice() {
                [one] => format!("{one} is"),
                many => format!("{} are", many.join(", ")),
            }
        ));
    }
    let probe = main.readiness_probe.as_ref().and_then(|given| {
        probe::hand_over(main, given)
            .map_err(|why| {
                let instead = asked
                    .ready_path
                    .as_ref()
                    .map_or_else(|| "tries a TCP connection".to_owned(), |path| format!("asks {path}"));
                warnings.push(format!(
                    "container {}: {why}, so it stays with Kubernetes; the sidecar {instead} meanwhile",
                    main.name
                ));
            })
            .ok()
    });
    let sets_pre_stop = !has_pre_stop(main);
    if !sets_pre_stop {
        warnings.push(format!(
            "container {} has its own preStop, which is left alone: it has to keep the model up until requests have ended",
            main.name
        ));
    }
    let (drain_seconds, grace_seconds) =
        grace(grace_of(spec), asked.drain_grace, asked.request_timeout);
    Ok(Plan {
        upstreams,
        ready_path: asked.ready_path.clone().filter(|_| probe.is_none()),
        probe,
        place,
        sets_pre_stop,
        drain_seconds,
        grace_seconds,
        warnings,
    })
}

/// What cannot work whatever the annotations say.
fn check(spec: &PodSpec) -> Result<(), String> {
    if spec.host_network == Some(true) {
        return Err(format!(
            "hostNetwork: true cannot be, since the sidecar's ports would be the node's: remove it, or label {}",
            names::ENABLED
        ));
    }
    if spec.os.as_ref().is_some_and(|os| os.name != "linux") {
        return Err(format!(
            "spec.os.name has to be linux, since the sidecar runs on nothing else: remove label {}",
            names::ENABLED
        ));
    }
    let all = spec
        .init_containers
        .iter()
        .flatten()
        .chain(&spec.containers);
    for container in all {
        if container.name == names::SIDECAR {
            return Err(format!(
                "a container is named {}, which is the name of the sidecar: rename it",
                names::SIDECAR
            ));
        }
    }
    Ok(())
}

fn has_pre_stop(main: &Container) -> bool {
    let lifecycle = main.lifecycle.as_ref();
    lifecycle.is_some_and(|lifecycle| lifecycle.pre_stop.is_some())
}

/// The grace period of a pod, in seconds.
pub(super) fn grace_of(spec: &PodSpec) -> u64 {
    spec.termination_grace_period_seconds
        .map_or(DEFAULT_GRACE_SECONDS, |seconds| {
            u64::try_from(seconds).unwrap_or(0)
        })
}

/// The longest drain, and the new grace period of a pod that needs one.
fn grace(pod: u64, asked: Option<Duration>, request: Option<Duration>) -> (u64, Option<u64>) {
    let up = |time: Duration| time.as_secs() + u64::from(time.subsec_nanos() > 0);
    let drain = match asked {
        Some(asked) => up(asked),
        None if pod == DEFAULT_GRACE_SECONDS => request.map_or(0, up).max(REQUEST_SECONDS),
        // The user's own: the drain has to fit in it, and be over before the model is killed.
        None => return (pod.saturating_sub(PROPAGATION_SECONDS).max(pod / 2), None),
    };
    let needed = drain + PROPAGATION_SECONDS;
    (drain, (pod < needed).then_some(needed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grace_period_covers_the_longest_drain() {
        let s = |seconds| Some(Duration::from_secs(seconds));
        for (pod, asked, request, drain, new) in [
            (None, None, None, 300, Some(315)),
            (Some(30), None, None, 300, Some(315)),
            (Some(31), None, None, 16, None),
            (Some(600), None, None, 585, None),
            (Some(10), None, None, 5, None),
            (Some(0), None, None, 0, None),
            (Some(30), s(60), None, 60, Some(75)),
            (Some(600), s(60), None, 60, None),
            (Some(20), s(5), None, 5, None),
            (None, s(900), None, 900, Some(915)),
            // A request may take longer than is usual: so may the drain, unless somebody has said how long that may take.
            (None, None, s(900), 900, Some(915)),
            (Some(30), None, s(3600), 3600, Some(3615)),
            (None, None, s(10), 300, Some(315)),
            (Some(60), None, s(900), 45, None),
            (None, s(60), s(900), 60, Some(75)),
        ] {
            let spec = PodSpec {
                termination_grace_period_seconds: pod,
                ..PodSpec::default()
            };
            assert_eq!(
                grace(grace_of(&spec), asked, request),
                (drain, new),
                "{pod:?} {asked:?} {request:?}"
            );
        }
        let odd = Some(Duration::from_millis(300_001));
        assert_eq!((grace(30, odd, None).0, grace(30, None, odd).0), (301, 301));
    }
}
