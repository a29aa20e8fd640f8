//! What can stop a run before or while it happens. Failed requests are not here: they are results, see [`crate::record`].

use std::io;

/// Why a run could not be started or finished.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting has a value that makes no sense; nothing was sent.
    #[error("{setting}: {value:?} is not allowed: {allowed}")]
    Invalid {
        /// The flag or argument, as a person types it.
        setting: &'static str,
        /// What was given.
        value: String,
        /// What would have been accepted.
        allowed: String,
    },
    /// The host in the URL has no address; nothing was sent.
    #[error("URL: cannot resolve host {host:?}")]
    Resolve {
        /// The host and port looked up.
        host: String,
        /// What the resolver said.
        #[source]
        source: io::Error,
    },
    /// The target was not ready in time; nothing was measured.
    #[error("--wait-ready: {url} is not ready after {within}: {reason}")]
    NotReady {
        /// What was asked for.
        url: String,
        /// How long it was waited for.
        within: String,
        /// Why the last try failed.
        reason: String,
    },
    /// A load thread or the pacing thread could not be started.
    #[error("cannot start a load thread")]
    Thread(#[source] io::Error),
    /// A load thread ended by a panic: the numbers would be wrong, so there are none.
    #[error("a load thread failed: {0}")]
    Worker(String),
    /// The journal file could not be opened or written.
    #[error("--journal: cannot write {path:?}")]
    Journal {
        /// The file.
        path: String,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// True when the run never began because of what the caller asked for.
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::Invalid { .. } | Self::Resolve { .. } | Self::Journal { .. }
        )
    }

    /// The same of `flag`, if it is about the setting of this `name`.
    pub(crate) fn renamed(self, name: &str, flag: &'static str) -> Self {
        match self {
            Self::Invalid {
                setting,
                value,
                allowed,
            } if setting == name => Self::Invalid {
                setting: flag,
                value,
                allowed,
            },
            other => other,
        }
    }

    pub(crate) fn invalid(
        setting: &'static str,
        value: impl Into<String>,
        allowed: impl Into<String>,
    ) -> Self {
        Self::Invalid {
            setting,
            value: value.into(),
            allowed: allowed.into(),
        }
    }
}
