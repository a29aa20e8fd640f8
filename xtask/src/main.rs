//! The project's chores, as `cargo xtask <chore>`.
//!
//! A chore lives here when it needs more than one command, or when it must know the workspace: what may depend on
//! what, which programs exist, what the reference pages should say. The order of chores that makes a change green is
//! not here but in `.ci/run`. Nothing here is linked into what we ship.

mod alone;
mod boundaries;
mod cargo;
mod generate;
mod metadata;
mod report;
mod test;

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
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        extra: Vec<String>,
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
}

fn main() -> anyhow::Result<()> {
    match Args::parse().chore {
        Chore::Test { extra } => test::run(&extra),
        Chore::Boundaries => boundaries::run(),
        Chore::CheckAlone => alone::run(),
        Chore::Generate { check } => generate::run(check),
    }
}
