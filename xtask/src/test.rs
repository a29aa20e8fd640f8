//! `cargo xtask test`: the one command that runs every test.
//!
//! Integration tests start our programs as processes. Cargo builds a package's programs for that package's own tests
//! only, so the programs are built first, in the selection that the tests share (see [`cargo::EVERYTHING`]): what
//! follows finds everything fresh and only runs.

use crate::cargo;
use crate::metadata::Metadata;

pub(crate) fn run(extra: &[String]) -> anyhow::Result<()> {
    let metadata = Metadata::load()?;
    cargo::run(&metadata.root, &cargo::EVERYTHING)?;
    cargo::run(&metadata.root, &test_args(extra))
}

/// One failing test binary must not hide the others, hence `--no-fail-fast`.
fn test_args(extra: &[String]) -> Vec<&str> {
    let mut args = vec!["test", "--no-fail-fast"];
    if !selects_packages(extra) {
        args.push("--workspace");
    }
    args.extend(extra.iter().map(String::as_str));
    args
}

/// Whether the caller chose packages; what follows `--` is for the test binaries and says nothing about that.
fn selects_packages(extra: &[String]) -> bool {
    extra.iter().take_while(|arg| *arg != "--").any(|arg| {
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
            ("", "test --no-fail-fast --workspace"),
            (
                "wakes --no-run",
                "test --no-fail-fast --workspace wakes --no-run",
            ),
            ("-p shared", "test --no-fail-fast -p shared"),
            ("-pshared", "test --no-fail-fast -pshared"),
            ("--package=shared", "test --no-fail-fast --package=shared"),
            ("-- -p", "test --no-fail-fast --workspace -- -p"),
        ];
        for (given, expected) in cases {
            assert_eq!(test_args(&words(given)).join(" "), expected, "{given:?}");
        }
    }
}
