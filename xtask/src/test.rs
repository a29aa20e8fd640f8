//! `cargo xtask test`: the one command that runs every test.
//!
//! Integration tests start our programs as processes. Cargo builds a package's programs for that package's own tests
//! only, so the programs are built first, in the selection that the tests share (see [`cargo::EVERYTHING`]): what
//! follows finds everything fresh and only runs.

use crate::cargo;
use crate::metadata::Metadata;

/// The crate of tests that start programs of other packages.
const ACROSS_PROGRAMS: &str = "integration";

/// What the caller wants to tell cargo, and what the test binaries.
#[derive(Debug)]
pub(crate) struct Extra {
    pub(crate) cargo: Vec<String>,
    pub(crate) binaries: Vec<String>,
}

pub(crate) fn run(extra: &Extra) -> anyhow::Result<()> {
    let metadata = Metadata::load()?;
    if needs_programs(&extra.cargo) {
        cargo::run(&metadata.root, &cargo::EVERYTHING)?;
    }
    cargo::run(&metadata.root, &test_args(extra))
}

/// One failing test binary must not hide the others, hence `--no-fail-fast`.
fn test_args(extra: &Extra) -> Vec<&str> {
    let mut args = vec!["test", "--no-fail-fast"];
    if !selects_packages(&extra.cargo) {
        args.push("--workspace");
    }
    args.extend(extra.cargo.iter().map(String::as_str));
    if !extra.binaries.is_empty() {
        args.push("--");
        args.extend(extra.binaries.iter().map(String::as_str));
    }
    args
}

/// Whoever tests a single crate does not want to wait for the others, unless that crate starts them.
fn needs_programs(cargo: &[String]) -> bool {
    !selects_packages(cargo) || cargo.iter().any(|arg| arg.ends_with(ACROSS_PROGRAMS))
}

fn selects_packages(cargo: &[String]) -> bool {
    cargo.iter().any(|arg| {
        arg.starts_with("--package") || (arg.starts_with("-p") && !arg.starts_with("--"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn tests_the_whole_workspace_unless_packages_are_chosen() {
        let cases = [
            ("", "", "test --no-fail-fast --workspace"),
            (
                "wakes --no-run",
                "",
                "test --no-fail-fast --workspace wakes --no-run",
            ),
            ("-p shared", "", "test --no-fail-fast -p shared"),
            ("-pshared", "", "test --no-fail-fast -pshared"),
            (
                "--package=shared",
                "",
                "test --no-fail-fast --package=shared",
            ),
            ("wakes", "-p", "test --no-fail-fast --workspace wakes -- -p"),
        ];
        for (cargo, binaries, expected) in cases {
            let extra = Extra {
                cargo: words(cargo),
                binaries: words(binaries),
            };
            assert_eq!(test_args(&extra).join(" "), expected, "{extra:?}");
        }
    }

    #[test]
    fn builds_every_program_unless_a_crate_that_starts_none_is_chosen() {
        let cases = [
            ("", true),
            ("wakes", true),
            ("-p shared", false),
            ("-p integration", true),
            ("--package=integration wakes", true),
        ];
        for (cargo, expected) in cases {
            assert_eq!(needs_programs(&words(cargo)), expected, "{cargo:?}");
        }
    }
}
