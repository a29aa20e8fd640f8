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
