//! Tables for a terminal.

use std::fmt::Write as _;

use autoscaler_core::sim::{Comparison, Overall, Policy, Summary};

use super::Done;

/// What a table of one scenario has in its rows: a name, and the value.
type Row = (&'static str, fn(&Summary) -> f64, usize);

/// Every row, with the number of its decimals.
pub(super) const ROWS: [Row; 9] = [
    ("replica-seconds", |one| one.replica_seconds, 0),
    ("seconds over target", |one| one.seconds_over_target, 1),
    ("held p50 (s)", |one| one.held.p50, 2),
    ("held p95 (s)", |one| one.held.p95, 2),
    ("held p99 (s)", |one| one.held.p99, 2),
    ("cold starts", |one| one.cold_starts, 1),
    ("flaps", |one| one.flaps, 1),
    ("peak replicas", |one| one.peak_replicas.as_f64(), 0),
    ("failed starts", |one| one.failed_starts, 1),
];

/// One scenario.
pub(super) fn one(done: &Done) -> String {
    let mut text = heading(done);
    let mut line = format!("{:<22}", "");
    for run in &done.runs {
        let _ = write!(line, "{:>12}", run.policy.as_str());
    }
    let both = done.of(Policy::Knative).zip(done.of(Policy::Rouse));
    if both.is_some() {
        line.push_str("    ratio");
    }
    text.push_str(line.trim_end());
    text.push('\n');
    for (name, value, decimals) in ROWS {
        let mut line = format!("{name:<22}");
        for run in &done.runs {
            let _ = write!(line, "{:>12.decimals$}", value(&run.summary));
        }
        if let Some((knative, rouse)) = both {
            let _ = write!(
                line,
                "{:>9}",
                ratio(value(&rouse.summary), value(&knative.summary))
            );
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    let unserved: f64 = done.runs.iter().map(|run| run.summary.unserved).sum();
    if unserved > 0.0 {
        text.push_str("some requests were never served: see unserved in --json\n");
    }
    text
}

/// What was simulated, in a few lines.
pub(super) fn heading(done: &Done) -> String {
    let scenario = &done.scenario;
    let summary = done.runs.first().map(|run| run.summary).unwrap_or_default();
    let mut text = format!(
        "{}: {:.0} requests in {:.0} min, mean of {} runs\n",
        scenario.name,
        summary.requests,
        scenario.length.as_secs_f64() / 60.0,
        summary.runs
    );
    let _ = writeln!(
        text,
        "  a request takes {:.2} s, a start {:.0} s; a pod works on {} at once",
        scenario.service.mean().as_secs_f64(),
        scenario.start.mean().as_secs_f64(),
        scenario.concurrency
    );
    for (key, value) in &scenario.annotations {
        let _ = writeln!(text, "  {key}: {value}");
    }
    text
}

/// Our value as a multiple of theirs, where that says anything.
fn ratio(ours: f64, theirs: f64) -> String {
    if theirs > 0.0 {
        format!("{:.2}", ours / theirs)
    } else if ours > 0.0 {
        "more".to_owned()
    } else {
        "same".to_owned()
    }
}

/// The standard scenarios beside each other.
pub(super) fn standard(compared: &[Comparison], seeds: u32) -> String {
    let mut text = format!(
        "Rouse as a multiple of Knative's rules, mean of {seeds} runs each; rouse.dev/min-stay is off\n\n\
         {:<40} {:>6} {:>9} {:>7} {:>8} {:>7} {:>11} {:>6}\n",
        "scenario", "start", "replica-s", "ratio", "held p95", "ratio", "over target", "peak"
    );
    for one in compared {
        let _ = writeln!(
            text,
            "{:<40} {:>4.0} s {:>9.0} {:>7.2} {:>8.2} {:>7.2} {:>11.2} {:>6}",
            one.scenario,
            one.start.as_secs_f64(),
            one.rouse.replica_seconds,
            one.cost(),
            one.rouse.held.p95,
            one.held(),
            one.over_target(),
            format!("{}/{}", one.rouse.peak_replicas, one.knative.peak_replicas),
        );
    }
    let overall = Overall::of(compared);
    let _ = writeln!(
        text,
        "\ngeometric means: replica-seconds {:.2} (starts from 30 s), held p95 {:.2} (worst {:.2}), seconds over target {:.2} \
         (worst {:.2})",
        overall.cost,
        overall.held,
        overall.worst_held,
        overall.over_target,
        overall.worst_over_target
    );
    let loses =
        |one: &&Comparison| one.cost() > 1.005 || one.held() > 1.005 || one.over_target() > 1.005;
    let worse: Vec<_> = compared
        .iter()
        .filter(loses)
        .map(|one| one.scenario.as_str())
        .collect();
    let _ = writeln!(
        text,
        "worse than Knative in something: {}",
        worse.join(", ")
    );
    text
}
