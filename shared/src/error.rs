//! Errors inside a request path are boxed; each program turns them into an answer in exactly one place.

use std::error::Error;

/// An error on its way through a request path.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Whose doing an outcome was. Labels metrics and sets the log level: a client that hung up is not our error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The client: malformed requests, hang-ups.
    Client,
    /// The model, its process or its pod.
    Upstream,
    /// Rouse itself: limits reached, shutting down.
    Us,
}

impl Origin {
    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Upstream => "upstream",
            Self::Us => "rouse",
        }
    }
}

/// One row of a program's error contract, for its reference page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Status of the answer; none where the refused message decides.
    pub status: Option<u16>,
    /// Stable name, in the body and in metrics.
    pub code: &'static str,
    /// The rest of the body; empty where the refused message decides.
    pub text: &'static str,
    /// Whose doing it is.
    pub origin: Origin,
    /// Value of `Retry-After`, in words where it is computed.
    pub retry_after: Option<&'static str>,
    /// What an activator is told by a queue-proxy; none elsewhere.
    pub admission: Option<&'static str>,
}

/// The first error of type `E` in the chain that starts at `error`.
pub fn cause_ref<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}
