//! How many pods are asked, in which order, and what their answers say of all.

use std::collections::BTreeSet;
use std::time::Duration;

use autoscaler_core::{Candidate, Policy, Sample, enough, extrapolate, in_order, pods_to_ask};
use serde_json::Value;

use super::Group;
use crate::check::Check;
use crate::read::{
    Read, boolean, count, field, float, int_of, item, list, millis_of, string, text, unknown,
};

const SERVICE: &str = "Rouse asks each pod at its own address and never through the Service, so that no answer can be of a pod twice.";
const POD_COUNTS: &str = "Rouse counts pods that are ready and pods that are still starting, which is another division: it \
                          is made where pods are read (crate `kubernetes`), and the algorithm is given the two counts.";

pub(super) fn group(name: &str) -> Option<Group> {
    match name {
        "sample_size" => Some(Group::Replayed(sample_size)),
        "direct" => Some(Group::Replayed(direct)),
        "service" => Some(Group::NotApplicable(SERVICE)),
        "pod_counts" => Some(Group::NotApplicable(POD_COUNTS)),
        _ => None,
    }
}

fn sample_size(case: &Value, check: &mut Check) -> Read<()> {
    for row in list(case, "table")? {
        let (pods, want) = (count(item(row, 0)?)?.get(), count(item(row, 1)?)?.get());
        check.same(
            format_args!("sample of {pods}"),
            pods_to_ask(pods, Policy::KNATIVE),
            want,
        );
    }
    Ok(())
}

/// A pod that can be asked.
struct Pod<'a> {
    address: &'a str,
    young: bool,
    /// What it answers; none if it does not. True if that is the doing of a mesh.
    answer: Result<[f64; 4], bool>,
}

fn direct(case: &Value, check: &mut Check) -> Read<()> {
    let window = millis_of(case, "window_ms")?;
    let pods = pods(case, window)?;
    let want = field(case, "want")?;
    let population = u32::try_from(pods.len()).unwrap_or(u32::MAX);
    let wanted = pods_to_ask(population, Policy::KNATIVE);
    if wanted == 0 {
        check.same("outcome", Some(true), want["none"].as_bool());
        return Ok(());
    }
    let order = order(&pods, window);
    // A pod that fails is made up for by the next one, as long as there is one.
    let answered: Vec<&Pod<'_>> = order
        .iter()
        .copied()
        .filter(|pod| pod.answer.is_ok())
        .take(wanted as usize)
        .collect();
    let count = u32::try_from(answered.len()).unwrap_or(u32::MAX);
    if enough(count, wanted, Policy::KNATIVE).is_err() {
        check.same("error", Some(name(&order)), want["error"].as_str());
        return Ok(());
    }
    if let Some(error) = want["error"].as_str() {
        check.differ("error", "none", error);
        return Ok(());
    }
    young(case, &answered, check)?;
    let stands_for_all = if boolean(case, "deterministic")? {
        answered
    } else {
        sampled(case, &pods, answered.len(), check)?
    };
    let sums = [0, 2].map(|at| total(&stands_for_all, at, population));
    let stat = field(want, "stat")?;
    // A sample has room for two numbers, so the four went through in pairs.
    for (index, got) in [
        (0, sums[0].concurrency),
        (1, sums[0].requests),
        (2, sums[1].concurrency),
        (3, sums[1].requests),
    ] {
        let want = float(item(stat, index)?)?;
        check.near(format_args!("stat {index}"), got, want, 1e-9 * want.abs());
    }
    Ok(())
}

/// Those that are asked at all: running, ready and not on their way out.
fn pods(case: &Value, window: Duration) -> Read<Vec<Pod<'_>>> {
    let mut pods = Vec::new();
    for pod in list(case, "pods")? {
        match pod.get("state").map(string).transpose()? {
            None => {}
            Some("notready" | "pending" | "terminating" | "succeeded" | "nocondition") => continue,
            Some(state) => return unknown("state", state),
        }
        let answer = match pod.get("err").map(string).transpose()? {
            None => Ok(stat(field(pod, "stat")?)?),
            Some("mesh") => Err(true),
            Some("other") => Err(false),
            Some(err) => return unknown("err", err),
        };
        pods.push(Pod {
            address: text(pod, "ip")?,
            young: millis_of(pod, "age_ms")? < window,
            answer,
        });
    }
    Ok(pods)
}

fn stat(value: &Value) -> Read<[f64; 4]> {
    let mut stat = [0.0; 4];
    for (index, number) in stat.iter_mut().enumerate() {
        *number = float(item(value, index)?)?;
    }
    Ok(stat)
}

/// The pods as they would be asked, with lots drawn backwards: any lots must do.
fn order<'a, 'b>(pods: &'b [Pod<'a>], window: Duration) -> Vec<&'b Pod<'a>> {
    let candidates = (0..).zip(pods).map(|(number, pod)| Candidate {
        pod,
        age: if pod.young { Duration::ZERO } else { window },
        avoided: false,
        lot: u64::MAX - number,
    });
    in_order(candidates.collect(), window)
}

/// Knative's name for too few answers. It has one of its own for a fleet of which only a mesh answers: there it goes on to ask
/// through the Service, which Rouse never does.
fn name(asked: &[&Pod<'_>]) -> &'static str {
    let only_mesh = asked.iter().all(|pod| pod.answer == Err(true));
    if only_mesh {
        "direct_unavailable"
    } else {
        "pods_exhausted"
    }
}

/// As many young pods as in the recording must have been asked: they come last.
fn young(case: &Value, answered: &[&Pod<'_>], check: &mut Check) -> Read<()> {
    if case.get("young_sampled").is_some() {
        let got = answered.iter().filter(|pod| pod.young).count();
        let got = i64::try_from(got).unwrap_or(i64::MAX);
        check.same("young_sampled", got, int_of(case, "young_sampled")?);
    }
    Ok(())
}

/// The pods that answered in the recording. There must be as many as answered here.
fn sampled<'a, 'b>(
    case: &'a Value,
    pods: &'b [Pod<'a>],
    size: usize,
    check: &mut Check,
) -> Read<Vec<&'b Pod<'a>>> {
    let addresses: BTreeSet<&str> = list(case, "sampled")?
        .iter()
        .map(string)
        .collect::<Read<_>>()?;
    check.same("pods sampled", size, addresses.len());
    let sampled = pods.iter().filter(|pod| addresses.contains(pod.address));
    Ok(sampled.collect())
}

/// Two of the four numbers, extrapolated to the whole population.
fn total(answered: &[&Pod<'_>], at: usize, population: u32) -> Sample {
    let answers = answered.iter().filter_map(|pod| {
        let stat = pod.answer.ok()?;
        let sample = Sample {
            concurrency: stat[at],
            ..Sample::default()
        };
        let requests = stat[at + 1];
        Some(Sample { requests, ..sample })
    });
    let count = u32::try_from(answered.len()).unwrap_or(u32::MAX);
    extrapolate(answers, count, population)
}
