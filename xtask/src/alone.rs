//! `cargo xtask check-alone`: each crate compiles without its siblings.
//!
//! In a workspace build cargo unites the features of a shared dependency, so a crate that forgot to ask for a feature
//! still compiles as long as any sibling asks for it. Checked alone, it does not.

use crate::metadata::Metadata;
use crate::{cargo, report};

pub(crate) fn run() -> anyhow::Result<()> {
    let metadata = Metadata::load()?;
    let mut findings = Vec::new();
    for member in metadata.members() {
        report::line(format_args!("checking {} alone", member.name));
        // All of them are tried: the failures are independent, and a list is worth more than the first.
        if let Err(error) = cargo::run(
            &metadata.root,
            &["check", "--quiet", "--package", &member.name],
        ) {
            findings.push(format!("{}: {error}", member.name));
        }
    }
    report::conclude(
        &findings,
        "crates that do not compile alone",
        "every crate compiles alone",
    )
}
