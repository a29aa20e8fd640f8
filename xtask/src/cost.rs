//! `cargo xtask cost`: how many instructions a decision takes, against what is recorded in the repository.
//!
//! Times on a shared machine say little; instructions under callgrind are the same in every run, so that a change which makes
//! a decision dearer is seen however noisy the machine is. They depend on the toolchain, which is pinned, and a little on
//! the processor, whose abilities the libraries look at.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use crate::metadata::Metadata;
use crate::{cargo, report};

/// The bench that can do one thing many times, see its own text.
const BENCH: &str = "decide";
/// What it does, by name.
const COUNTED: [&str; 2] = ["idle", "active"];
/// Where the counts are recorded.
const RECORD: &str = "autoscaler/core/benches/instructions.json";
/// Instructions may grow by this share before it is a finding.
const TOLERANCE: f64 = 0.03;

/// Counts by what was counted.
type Counts = BTreeMap<String, u64>;

pub(crate) fn run(record: bool) -> anyhow::Result<()> {
    let root = Metadata::load()?.root;
    let bench = build(&root)?;
    let mut now = Counts::new();
    for what in COUNTED {
        now.insert(what.to_owned(), instructions(&bench, what)?);
    }
    let file = root.join(RECORD);
    if record {
        let text = serde_json::to_string_pretty(&now)? + "\n";
        fs::write(&file, text).with_context(|| format!("cannot write {RECORD}"))?;
        report::line(format_args!("recorded in {RECORD}: {now:?}"));
        return Ok(());
    }
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {RECORD}"))?;
    let recorded: Counts =
        serde_json::from_str(&text).with_context(|| format!("{RECORD} is not as recorded"))?;
    for (what, count) in &now {
        let before = recorded.get(what).copied().unwrap_or_default();
        report::line(format_args!(
            "{what}: {count} instructions for a thousand ticks, recorded {before}"
        ));
    }
    report::conclude(
        &dearer(&recorded, &now),
        "decisions that became dearer; if that is meant, run `cargo xtask cost --record`",
        "no decision became dearer",
    )
}

/// Builds the bench and says where it is.
fn build(root: &Path) -> anyhow::Result<PathBuf> {
    let args = [
        "bench",
        "--quiet",
        "--no-run",
        "--package",
        "autoscaler-core",
        "--bench",
        BENCH,
        "--message-format",
        "json",
    ];
    let output = cargo::command()
        .current_dir(root)
        .args(args)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo bench")?;
    ensure!(output.status.success(), "cargo bench --no-run failed");
    let messages = String::from_utf8_lossy(&output.stdout);
    let executable = messages.lines().find_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        (message["target"]["name"] == BENCH)
            .then(|| message["executable"].as_str().map(PathBuf::from))?
    });
    executable.context("cargo built no bench")
}

/// What callgrind counts while the bench does one thing many times.
fn instructions(bench: &Path, what: &str) -> anyhow::Result<u64> {
    let output = Command::new("valgrind")
        .args([
            "--tool=callgrind",
            "--callgrind-out-file=/dev/null",
            "--collect-atstart=no",
            "--toggle-collect=*counted*",
        ])
        .arg(bench)
        .args(["--count", what])
        .stdin(Stdio::null())
        .output()
        .context("cannot start valgrind; on Debian it is the package valgrind")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "valgrind failed: {said}");
    let collected = said
        .lines()
        .find_map(|line| line.split("Collected : ").nth(1));
    let Some(count) = collected.and_then(|text| text.trim().parse().ok()) else {
        bail!("valgrind did not say what it collected: {said}");
    };
    ensure!(count > 0, "nothing was counted for {what}");
    Ok(count)
}

/// What takes clearly more than was recorded, or was never recorded.
fn dearer(recorded: &Counts, now: &Counts) -> Vec<String> {
    let finding = |(what, count): (&String, &u64)| {
        let Some(before) = recorded.get(what) else {
            return Some(format!("{what} is not recorded"));
        };
        #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
        let growth = *count as f64 / *before as f64 - 1.0;
        (growth > TOLERANCE).then(|| {
            let percent = growth * 100.0;
            format!("{what}: {count} instructions, {percent:.1} % more than the {before} recorded")
        })
    };
    now.iter().filter_map(finding).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_became_dearer_is_told_and_what_became_cheaper_is_not() {
        let counts = |pairs: &[(&str, u64)]| -> Counts {
            let owned = |(what, count): &(&str, u64)| ((*what).to_owned(), *count);
            pairs.iter().map(owned).collect()
        };
        let recorded = counts(&[("idle", 1000), ("active", 1000)]);
        let now = counts(&[("idle", 1020), ("active", 500)]);
        assert!(dearer(&recorded, &now).is_empty());
        let now = counts(&[("idle", 1050), ("new", 1)]);
        let told = dearer(&recorded, &now);
        assert_eq!(
            told,
            [
                "idle: 1050 instructions, 5.0 % more than the 1000 recorded",
                "new is not recorded"
            ]
        );
    }
}
