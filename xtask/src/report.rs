//! The only place that prints. Findings go to standard output, one a line, so that they can be counted and searched; why
//! a chore failed goes to standard error.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is the output module of a command line tool"
)]

use std::fmt::Display;

use anyhow::ensure;

/// Prints one line.
pub(crate) fn line(text: impl Display) {
    println!("{text}");
}

/// Says why the chore failed, on one line: a backtrace of the chore helps nobody who broke a rule.
pub(crate) fn failure(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
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
