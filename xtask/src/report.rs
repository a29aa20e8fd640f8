//! The only place that prints: findings go to standard output, one a line, so that they can be counted and searched.

#![expect(
    clippy::print_stdout,
    reason = "this is the output module of a command line tool"
)]

use std::fmt::Display;

use anyhow::ensure;

/// Prints one line.
pub(crate) fn line(text: impl Display) {
    println!("{text}");
}

/// Prints every finding and fails if there is one; otherwise prints what was found to be in order.
pub(crate) fn conclude<T: Display>(findings: &[T], what: &str, fine: &str) -> anyhow::Result<()> {
    for finding in findings {
        line(finding);
    }
    ensure!(findings.is_empty(), "{what}: {}", findings.len());
    line(fine);
    Ok(())
}
