//! The project's chores, as `cargo xtask <chore>`.
//!
//! A chore lives here when it needs more than one command, or when it must know the workspace: what may depend on
//! what, which programs exist, what the reference pages should say. The order of chores that makes a change green is
//! not here but in `.ci/run`. Nothing here is linked into what we ship.

mod alone;
mod boundaries;
mod cargo;
mod conformance;
mod cost;
mod e2e;
mod generate;
mod links;
mod metadata;
mod report;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's chores: tests, checks and generated pages.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Run every test, after building the programs that the tests start.
    ///
    /// Arguments are passed on to `cargo test`: a name to filter by, `--no-run`, `-p CRATE` instead of the whole
    /// workspace, or `-- --nocapture`.
    Test {
        /// Arguments for `cargo test`.
        #[arg(value_name = "CARGO_ARG", allow_hyphen_values = true)]
        cargo: Vec<String>,
        /// Arguments for the test binaries.
        #[arg(value_name = "TEST_ARG", last = true)]
        binaries: Vec<String>,
    },
    /// Run the tests on a real cluster, which is booted and ended again. Needs root, Go and Debian packages, see
    /// tests/cluster/README.md.
    ///
    /// With `ROUSE_E2E_KUBECONFIG` they run on the throwaway cluster that it names.
    E2e {
        /// Leave the cluster running.
        #[arg(long)]
        keep: bool,
        /// Use the cluster that an earlier run left: load new images, restart Rouse, and leave it running again.
        #[arg(long, conflicts_with = "keep")]
        again: bool,
        /// Arguments for the test binary: a name to filter by, `--nocapture`.
        #[arg(value_name = "TEST_ARG", allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Check that the crates depend on each other in one direction only.
    Boundaries,
    /// Check each crate by itself, so that no crate leans on a feature that only a sibling turns on.
    CheckAlone,
    /// Write the generated reference pages under docs/reference.
    Generate {
        /// Write nothing; fail and list the pages that are not what they should be.
        #[arg(long)]
        check: bool,
    },
    /// Check that a decision takes no more instructions than recorded in autoscaler/core/benches/instructions.json. Needs
    /// valgrind.
    Cost {
        /// Record what it takes now.
        #[arg(long)]
        record: bool,
    },
    /// Run tools that no one here wrote against both listeners, see docs/reference/conformance.md. Needs Go; the tools
    /// themselves are fetched from their registries and kept in target/tools.
    Conformance {
        /// Try the optimised programs instead of the others.
        #[arg(long)]
        release: bool,
        /// All of the corpus and of the suites, not the part that CI has time for.
        #[arg(long)]
        full: bool,
        /// Which tools; all if none is named.
        #[arg(value_name = "TOOL")]
        tools: Vec<conformance::Tool>,
    },
    /// Check that the links between documents lead somewhere, and that the code which the docs name exists.
    Links,
}

fn main() -> ExitCode {
    let done = match Args::parse().chore {
        Chore::Test { cargo, binaries } => test::run(&split(cargo, binaries)),
        Chore::E2e { keep, again, args } => e2e::run(&e2e::Options { keep, again, args }),
        Chore::Boundaries => boundaries::run(),
        Chore::CheckAlone => alone::run(),
        Chore::Generate { check } => generate::run(check),
        Chore::Cost { record } => cost::run(record),
        Chore::Conformance {
            release,
            full,
            tools,
        } => conformance::run(&conformance::Options {
            tools,
            release,
            full,
        }),
        Chore::Links => links::run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::failure(&error);
            ExitCode::FAILURE
        }
    }
}

/// Clap takes a leading `--` away, but leaves one that follows an argument which may begin with a hyphen.
fn split(mut cargo: Vec<String>, mut binaries: Vec<String>) -> test::Extra {
    if let Some(at) = cargo.iter().position(|arg| arg == "--") {
        binaries.splice(..0, cargo.drain(at..).skip(1));
    }
    test::Extra { cargo, binaries }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_on_every_argument_of_test() {
        let cases = [
            ("", "", ""),
            ("wakes --no-run", "wakes --no-run", ""),
            ("-p shared", "-p shared", ""),
            ("--package=shared", "--package=shared", ""),
            ("-- --nocapture", "", "--nocapture"),
            ("wakes -- --exact", "wakes", "--exact"),
        ];
        for (given, for_cargo, for_binaries) in cases {
            let line = ["cargo", "test"]
                .into_iter()
                .chain(given.split_whitespace());
            match Args::parse_from(line).chore {
                Chore::Test { cargo, binaries } => {
                    let extra = split(cargo, binaries);
                    assert_eq!(extra.cargo.join(" "), for_cargo, "{given:?}");
                    assert_eq!(extra.binaries.join(" "), for_binaries, "{given:?}");
                }
                other => panic!("{given:?} became {other:?}"),
            }
        }
    }
}
