//! Every header name and value of our own that crosses a hop between Rouse's programs.
//!
//! None of them carries trust. All names start with `rouse-`; a client's own `rouse-*` headers are removed at both
//! hops before anything reads them, and so are those of a model's answer.

use http::{HeaderMap, HeaderName};

/// Prefix of everything that is ours.
pub const PREFIX: &str = "rouse-";

/// Activator to queue-proxy: index of the request port (0, 1, ...) that the client used.
pub const PORT: HeaderName = HeaderName::from_static("rouse-port");
/// Activator to queue-proxy: UID of the pod that is meant. Pod IPs are reused, so it is checked: 421 on a mismatch. Queue-proxy to
/// activator, on a request that is handed on: which pod does that.
pub const POD_UID: HeaderName = HeaderName::from_static("rouse-pod-uid");
/// Activator to queue-proxy: an operation instead of a request to the model, see [`op`].
pub const OP: HeaderName = HeaderName::from_static("rouse-op");
/// Both ways: a slot reserved beforehand for a request whose body cannot be sent again (HTTP/2).
pub const TICKET: HeaderName = HeaderName::from_static("rouse-ticket");
/// Queue-proxy to activator: what became of the request, see [`admission`].
pub const ADMISSION: HeaderName = HeaderName::from_static("rouse-admission");
/// Queue-proxy to activator: requests in flight and queued in the pod, the answered one included. Also on a request that is handed on,
/// which is none of them; it is believed only of a pod from whose own address it comes.
pub const LOAD: HeaderName = HeaderName::from_static("rouse-load");
/// To the client, opt-out: where the time before the model went, e.g. `hold;dur=812.4, queue;dur=0.1` (milliseconds).
pub const TIMING: HeaderName = HeaderName::from_static("rouse-timing");

/// To the client, opt-out with [`TIMING`]: the standard header, to which what the request waited for is added as one entry. Not
/// ours: what the model has in it stays. Source: W3C Server Timing, section 3 (the list may be on several lines).
pub const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Values of [`OP`].
pub mod op {
    /// Answers 200 at the moment the model is ready, 503 when the time given by `rouse-wait-ms` is over.
    pub const WAIT_READY: &str = "wait-ready";
    /// Reserves a slot and answers 200 with a [`super::TICKET`], or not at all admitted.
    pub const RESERVE: &str = "reserve";
}

/// On a `wait-ready` answer: microseconds since the queue-proxy started. Ages need no common clock.
pub const STARTED_AGE: HeaderName = HeaderName::from_static("rouse-started-age");
/// On a `wait-ready` answer: microseconds since the model's port first took a connection.
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

/// A header of ours, for its reference page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Its name.
    pub name: HeaderName,
    /// Who sends it, on what, to whom.
    pub way: &'static str,
    /// What its value is.
    pub value: &'static str,
    /// What it says.
    pub meaning: &'static str,
}

/// Every header of ours, in the order in which a request meets them.
pub fn described() -> Vec<Described> {
    const ASK: &str = "activator to queue-proxy, request";
    const ANSWER: &str = "queue-proxy to activator, answer";
    let row = |name, way, value, meaning| Described {
        name,
        way,
        value,
        meaning,
    };
    vec![
        row(
            POD_UID,
            ASK,
            "UID",
            "The pod that is meant. Another one answers 421 (`misdirected`). On a request that a queue-proxy hands on to an activator: the pod that does.",
        ),
        row(
            PORT,
            ASK,
            "0, 1, ...",
            "Which request port of the workload the client used. A pod without it answers 421 (`unknown-port`).",
        ),
        row(
            OP,
            ASK,
            "`wait-ready`, `reserve`",
            "An operation instead of a request to the model: wait until it is ready, or reserve a slot.",
        ),
        row(
            WAIT_MS,
            ASK,
            "milliseconds",
            "How long a `wait-ready` may take: 10,000 if not given, 600,000 at most.",
        ),
        row(
            TICKET,
            "both ways",
            "a number",
            "A slot that was reserved, in the answer to `reserve` and in the request that uses it. Good for 5 s and once.",
        ),
        row(
            ADMISSION,
            ANSWER,
            "`admitted`, `full`, `not-ready`, `misdirected`",
            "What became of the request. Only what is not `admitted` may be sent to another pod.",
        ),
        row(
            LOAD,
            ANSWER,
            "a number",
            "Requests in flight and queued in the pod, this one included, probe paths left out. Also on a request that is handed on, which is none of them; believed if it comes from the pod's own address.",
        ),
        row(
            STARTED_AGE,
            ANSWER,
            "microseconds",
            "On `wait-ready`: since the queue-proxy started.",
        ),
        row(
            PORT_OPEN_AGE,
            ANSWER,
            "microseconds",
            "On `wait-ready`: since the model's port first took a connection.",
        ),
        row(
            READY_AGE,
            ANSWER,
            "microseconds",
            "On `wait-ready`: since the model was first ready.",
        ),
        row(
            TIMING,
            "to the client, answer",
            "`hold;dur=MS`, then phases, or `queue;dur=MS`",
            "Where the time before the model went, in milliseconds. From an activator: how long the request was held and, on \
             the answer that ends a cold start, its phases. From a queue-proxy that a client reaches directly: how long it \
             was queued. Its first entry is added to `Server-Timing` too. Both are left out with `--no-timing-header`.",
        ),
    ]
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

    #[test]
    fn every_header_is_described_once() {
        let rows = described();
        let names: std::collections::HashSet<_> = rows.iter().map(|row| &row.name).collect();
        let source = include_str!("headers.rs");
        // Here the quotation marks are escaped, so that this line is none of them.
        let declared = source.matches("from_static(\"rouse-").count();
        assert_eq!((rows.len(), names.len()), (declared, declared));
        assert!(names.iter().all(|name| name.as_str().starts_with(PREFIX)));
    }
}
