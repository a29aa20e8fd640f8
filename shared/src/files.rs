//! How many files, and with them connections, a process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit of open files to the hard one, and returns the soft limit as it was (`None`: unlimited).
///
/// Each connection is a file. The usual soft limit of 1,024 is kept low for programs that use `select(2)`; one that does not is
/// meant to raise it (`man 5 systemd.exec`, `LimitNOFILE`), as Go's runtime does by itself. Failing leaves it as it was.
pub fn raise_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let _as_it_was = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            ..limit
        },
    );
    limit.current
}

/// The soft limit of open files as it is now (`None`: unlimited).
pub fn limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// Sets the soft limit, for a program that is started next and was not asked whether it can do with more.
pub fn set_limit(soft: u64) {
    let limit = getrlimit(Resource::Nofile);
    let _as_it_was = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(soft),
            ..limit
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_to_the_hard_one_and_set_back() {
        let before = raise_limit();
        let raised = getrlimit(Resource::Nofile);
        assert_eq!(raised.current, raised.maximum);
        if let Some(before) = before {
            set_limit(before);
            assert_eq!(getrlimit(Resource::Nofile).current, Some(before));
        }
    }
}
