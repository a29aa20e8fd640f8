//! What all requests of a run come to.

use super::pods::Pods;
use super::proof::{Evidence, Finding, Told, explaining, find};
use super::report::{
    Class, Cold, Kind, MOST_WAKES, Moment, Owner, OwnerSum, PhaseSum, Settings, Wake,
};
use super::timeline::{Known, phases, rank};
use super::{Mode, Observed};
use crate::record::{Durations, ErrorKind, Recorder, Sample};
use crate::report::Percentiles;
use std::collections::BTreeMap;
use std::time::Duration;

/// What is known beside the requests, of one target.
#[derive(Clone, Debug, Default)]
pub(super) struct About {
    pub(super) name: String,
    /// If they are watched.
    pub(super) pods: Option<Pods>,
    /// When replicas were wanted where none had been, in order.
    pub(super) scaled: Vec<Duration>,
}

/// Durations of a kind of thing, and their sum.
#[derive(Debug, Default)]
struct Times {
    durations: Durations,
    sum: f64,
}

impl Times {
    fn add(&mut self, seconds: f64) {
        let seconds = seconds.max(0.0);
        self.durations.record(Duration::from_secs_f64(seconds));
        self.sum += seconds;
    }

    fn share(&self, all: f64) -> f64 {
        if all > 0.0 { self.sum / all } else { 0.0 }
    }
}

/// Finds out what each request was, and adds up.
pub(super) fn sums(
    mode: Mode,
    abouts: &[About],
    mut observed: Vec<Observed>,
    replicas: Vec<Moment>,
) -> Cold {
    observed.sort_by_key(|one| one.planned);
    let mut told: Vec<Vec<Told<'_>>> = vec![Vec::new(); abouts.len()];
    for one in &observed {
        told[one.workload].extend(Told::by(one));
    }
    for told in &mut told {
        told.sort_by_key(Told::began);
    }
    let mut classes: BTreeMap<Kind, Durations> = BTreeMap::new();
    let mut by_phase: Vec<(String, Owner, Times)> = Vec::new();
    let mut by_owner: BTreeMap<Owner, Times> = BTreeMap::new();
    let (mut wakes, mut wakes_omitted, mut all) = (Vec::new(), 0, 0.0);
    let ended = |one: &&Observed| one.error != Some(ErrorKind::Interrupted);
    for one in observed.iter().filter(ended) {
        let about = &abouts[one.workload];
        let evidence = Evidence {
            pods: about.pods.as_ref(),
            told: &told[one.workload],
        };
        let finding = find(one, evidence);
        let latency = one.done.saturating_sub(one.planned);
        classes.entry(finding.kind).or_default().record(latency);
        if finding.kind == Kind::Warm {
            continue;
        }
        let wake = wake(one, about, finding, &told[one.workload]);
        if wake.kind == Kind::Cold {
            let mut owners: BTreeMap<Owner, f64> = BTreeMap::new();
            for phase in &wake.phases {
                let took = phase.to - phase.from;
                *owners.entry(phase.owner).or_default() += took;
                times(&mut by_phase, &phase.name, phase.owner).add(took);
            }
            for (owner, took) in owners {
                by_owner.entry(owner).or_default().add(took);
            }
            all += wake.latency;
        }
        if wakes.len() < MOST_WAKES {
            wakes.push(wake);
        } else {
            wakes_omitted += 1;
        }
    }
    by_phase.sort_by_key(|(name, ..)| rank(name));
    Cold {
        mode: mode.to_string(),
        settings: Settings::default(),
        classes: classes
            .into_iter()
            .map(|(kind, durations)| Class {
                kind,
                latency: Percentiles::of(&durations),
            })
            .collect(),
        phases: by_phase
            .into_iter()
            .map(|(name, owner, times)| PhaseSum {
                name,
                owner,
                share: times.share(all),
                latency: Percentiles::of(&times.durations),
            })
            .collect(),
        owners: by_owner
            .into_iter()
            .map(|(owner, times)| OwnerSum {
                owner,
                share: times.share(all),
                latency: Percentiles::of(&times.durations),
            })
            .collect(),
        wakes,
        wakes_omitted,
        starved: 0,
        replicas,
    }
}

/// The times of a phase of this owner.
fn times<'a>(all: &'a mut Vec<(String, Owner, Times)>, name: &str, owner: Owner) -> &'a mut Times {
    let at = all
        .iter()
        .position(|(known, of, _)| known == name && *of == owner);
    let at = at.unwrap_or_else(|| {
        all.push((name.to_owned(), owner, Times::default()));
        all.len() - 1
    });
    &mut all[at].2
}

fn wake(one: &Observed, about: &About, finding: Finding, told: &[Told<'_>]) -> Wake {
    // Of one that was answered by who knows whom, only what the client saw is told.
    let known = match finding.kind {
        Kind::Unproven | Kind::Warm => Known::default(),
        Kind::Cold | Kind::FirstOnNode | Kind::Joined | Kind::Failed => {
            known(one, about, &finding, told)
        }
    };
    Wake {
        workload: about.name.clone(),
        planned: one.planned.as_secs_f64(),
        latency: one.done.saturating_sub(one.planned).as_secs_f64(),
        kind: finding.kind,
        reason: finding.reason,
        status: one.status,
        phases: phases(one, known),
        pod: finding.pod,
    }
}

/// Timelines that belong to a request.
fn known<'a>(
    one: &'a Observed,
    about: &'a About,
    finding: &Finding,
    told: &[Told<'a>],
) -> Known<'a> {
    let sent = one.sent.unwrap_or(one.planned);
    // One that failed knows what came until then.
    let head = one.head.unwrap_or(one.done);
    let own = Told::by(one);
    let wake = own.or_else(|| explaining(told, one.planned, head).copied());
    let pod = about.pods.as_ref().and_then(|pods| {
        let named = finding.pod.as_ref().and_then(|name| pods.0.get(name));
        named.or_else(|| {
            let could = pods.could_answer(sent, head).map(|(_, pod)| pod);
            could.min_by_key(|pod| pod.ready.unwrap_or(Duration::MAX))
        })
    });
    let after = about.scaled.partition_point(|at| *at < one.planned);
    Known {
        wake: wake.map(|wake| (wake.timing, wake.noticed)),
        pod,
        scaled: about.scaled.get(after).copied(),
    }
}

/// The same requests as any load tester counts them.
pub(super) fn record(observed: &[Observed]) -> Recorder {
    let mut recorder = Recorder::default();
    for one in observed {
        recorder.connections += u64::from(one.sent.is_some());
        recorder.record(Sample {
            at: one.planned,
            latency: one.done.saturating_sub(one.planned),
            status: one.status,
            error: one.error,
            served_by: one.served_by.as_deref(),
            body_bytes: one.body_bytes,
            code: None,
        });
        if let (Some(kind), Some(reason)) = (one.error, &one.reason) {
            recorder.reason(kind, reason);
        }
        recorder.lag.record(one.begun.saturating_sub(one.planned));
    }
    recorder
}
