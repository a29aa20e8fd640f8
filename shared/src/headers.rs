//! Every header name and value of our own that crosses a hop between Rouse's programs.
//!
//! None of them carries trust. All names start with `rouse-`; a client's own `rouse-*` headers are removed at both
//! hops before anything reads them, and so are those of a model's answer.

use http::{HeaderMap, HeaderName};

/// Prefix of everything that is ours.
pub const PREFIX: &str = "rouse-";

/// Activator to queue-proxy: index of the request port (0, 1, ...) that the client used.
pub const PORT: HeaderName = HeaderName::from_static("rouse-port");
/// Activator to queue-proxy: UID of the pod that is meant. Pod IPs are reused, so it is checked: 421 on a mismatch.
pub const POD_UID: HeaderName = HeaderName::from_static("rouse-pod-uid");
/// Activator to queue-proxy: an operation instead of a request to the model, see [`op`].
pub const OP: HeaderName = HeaderName::from_static("rouse-op");
/// Both ways: a slot reserved beforehand for a request whose body cannot be sent again (HTTP/2).
pub const TICKET: HeaderName = HeaderName::from_static("rouse-ticket");
/// Queue-proxy to activator: what became of the request, see [`admission`].
pub const ADMISSION: HeaderName = HeaderName::from_static("rouse-admission");
/// Queue-proxy to activator: requests in flight and queued in the pod, this one included.
pub const LOAD: HeaderName = HeaderName::from_static("rouse-load");
/// To the client, opt-out: where the time before the model went, e.g. `hold;dur=812.4, queue;dur=0.1` (milliseconds).
pub const TIMING: HeaderName = HeaderName::from_static("rouse-timing");

/// Values of [`OP`].
pub mod op {
    /// Answers 200 at the moment the model is ready, 503 when the time given by `rouse-wait-ms` is over.
    pub const WAIT_READY: &str = "wait-ready";
    /// Reserves a slot and answers 200 with a [`super::TICKET`], or not at all admitted.
    pub const RESERVE: &str = "reserve";
}

/// On a `wait-ready` answer: microseconds since the model's port first took a connection. Ages need no common clock.
pub const PORT_OPEN_AGE: HeaderName = HeaderName::from_static("rouse-port-open-age");
/// On a `wait-ready` answer: microseconds since the model was first ready.
pub const READY_AGE: HeaderName = HeaderName::from_static("rouse-ready-age");

/// How long a `wait-ready` may take, in milliseconds.
pub const WAIT_MS: HeaderName = HeaderName::from_static("rouse-wait-ms");

/// Values of [`ADMISSION`].
pub mod admission {
    /// The model has it, or had it: never to be sent again.
    pub const ADMITTED: &str = "admitted";
    /// Not admitted: no slot and no room to wait. Safe to send elsewhere.
    pub const FULL: &str = "full";
    /// Not admitted: the model is not ready. Safe to send elsewhere.
    pub const NOT_READY: &str = "not-ready";
    /// Not admitted: another pod lives at this address now. Safe to send elsewhere.
    pub const MISDIRECTED: &str = "misdirected";
}

/// Removes every header of ours, so that nothing from outside can pose as us.
pub fn strip_ours(headers: &mut HeaderMap) {
    // Collected first: HeaderMap has no retain, and almost always there is nothing to remove.
    let ours: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with(PREFIX))
        .cloned()
        .collect();
    for name in ours {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strips_every_header_of_ours_and_nothing_else() {
        let mut headers = HeaderMap::new();
        headers.append(ADMISSION, "admitted".parse().unwrap());
        headers.append(ADMISSION, "full".parse().unwrap());
        headers.append("rouse-anything", "x".parse().unwrap());
        headers.append("x-rouse", "kept".parse().unwrap());
        strip_ours(&mut headers);
        assert_eq!(headers.len(), 1);
        assert!(headers.contains_key("x-rouse"));
    }
}
