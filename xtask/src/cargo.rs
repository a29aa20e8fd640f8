//! Running cargo: the same cargo that runs us, from the root of the workspace.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};

/// The selection of targets that every chore builds with when it needs programs.
///
/// Cargo chooses the features of shared dependencies per selection: a plain `--bins` leaves out the features that only
/// tests ask for, and would build the whole dependency tree a second time beside the one that `cargo test` uses. With
/// tests in the selection the programs and the tests share every artifact.
pub(crate) const EVERYTHING: [&str; 4] = ["build", "--workspace", "--bins", "--tests"];

/// A command for the cargo that started us, or the one on the path. What `cargo run` tells us of our own package is kept from it:
/// build scripts (ring's) ask for it, and would build anew whenever a chore follows a cargo that was called by hand.
pub(crate) fn command() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let of_package = std::env::vars_os().map(|(name, _)| name).filter(|name| {
        let name = name.as_encoded_bytes();
        name.starts_with(b"CARGO_PKG_") || name.starts_with(b"CARGO_MANIFEST_")
    });
    for name in of_package {
        command.env_remove(name);
    }
    command
}

/// Runs cargo in `root` with its output on ours, and fails if it does.
pub(crate) fn run<S: AsRef<OsStr>>(root: &Path, args: &[S]) -> anyhow::Result<()> {
    let words: Vec<_> = args
        .iter()
        .map(|arg| arg.as_ref().to_string_lossy())
        .collect();
    let shown = words.join(" ");
    let status = command()
        .current_dir(root)
        .args(args)
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot start cargo {shown}"))?;
    ensure!(status.success(), "cargo {shown} failed ({status})");
    Ok(())
}

/// Builds the test `name` of `packages` (cargo's own arguments) and returns where its program is.
pub(crate) fn test_program(root: &Path, packages: &[&str], name: &str) -> anyhow::Result<PathBuf> {
    let built = command()
        .current_dir(root)
        .args(["test", "--no-run"])
        .args(packages)
        .args(["--test", name, "--message-format=json"])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    ensure!(built.status.success(), "the tests do not build");
    String::from_utf8_lossy(&built.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == name)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .context("cargo names no test program")
}

/// Runs a command with its output on ours, and fails if it does.
pub(crate) fn succeed(command: &mut Command) -> anyhow::Result<()> {
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    ensure!(
        status.success(),
        "{} failed ({status})",
        command.get_program().display()
    );
    Ok(())
}
