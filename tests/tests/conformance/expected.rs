//! What a tool is expected to find, and that nothing else is found and nothing of it is missing.

use std::collections::BTreeSet;

/// Something that a tool reports and that is as it should be.
pub(crate) struct Exception {
    /// What the tool calls it.
    pub(crate) name: &'static str,
    /// Why it is not a fault of ours.
    pub(crate) reason: &'static str,
}

/// Compares what was found with the exceptions.
///
/// # Panics
/// When something was found that no exception names, or an exception was not found.
pub(crate) fn assert_only(what: &str, found: &BTreeSet<String>, exceptions: &[Exception]) {
    let known: BTreeSet<_> = exceptions.iter().map(|e| e.name.to_owned()).collect();
    let unexpected: Vec<_> = found.difference(&known).collect();
    let gone: Vec<_> = known.difference(found).collect();
    for exception in exceptions {
        println!("{what}: expected: {}: {}", exception.name, exception.reason);
    }
    assert!(
        unexpected.is_empty() && gone.is_empty(),
        "{what}: found beyond the exceptions: {unexpected:#?}; exceptions that were not found: {gone:#?}"
    );
}

#[test]
fn an_exception_that_does_not_occur_fails_like_a_finding_that_is_none() {
    let exceptions = [Exception {
        name: "a",
        reason: "it is so",
    }];
    let found = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    let fails = |found: &BTreeSet<String>| {
        std::panic::catch_unwind(|| assert_only("a tool", found, &exceptions)).is_err()
    };
    assert!(!fails(&found(&["a"])));
    assert!(fails(&found(&[])), "it is gone");
    assert!(fails(&found(&["a", "b"])), "there is more");
}
