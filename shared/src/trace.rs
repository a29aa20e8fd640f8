//! W3C trace context: which `traceparent` and `tracestate` of a request may travel on.
//!
//! What is well formed passes unchanged, byte for byte. What is not is removed, as the recommendation asks of whoever cannot read it:
//! a half-read context would tie requests together that have nothing in common. Other ways of propagation (`b3`, `baggage`,
//! `x-request-id`) are nobody's business here.
//! Source: W3C Trace Context (level 1, with the keys of level 2), sections 3.2 and 3.3.

mod parent;
mod state;

use http::{HeaderMap, HeaderName};

pub use self::parent::{SpanId, TraceId, TraceParent};

/// Which request of which trace has caused this one.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// What tracing systems add for themselves.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The context of a request; none if it has none or more than one, or one that is malformed.
pub fn context(headers: &HeaderMap) -> Option<TraceParent> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => TraceParent::parse(value.as_bytes()),
        _ => None,
    }
}

/// Removes what is no trace context, and `tracestate` also where there is none to which it belongs or where it is longer than
/// anybody has to pass on.
pub fn sanitize(headers: &mut HeaderMap) {
    let given = headers.contains_key(TRACEPARENT);
    if given && context(headers).is_none() {
        headers.remove(TRACEPARENT);
        headers.remove(TRACESTATE);
    } else if !given || !state::is_sound(headers.get_all(TRACESTATE)) {
        headers.remove(TRACESTATE);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn left(fields: &[(&'static str, &str)]) -> Vec<(String, String)> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        sanitize(&mut headers);
        headers
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect()
    }

    fn kept(fields: &[(&'static str, &str)]) {
        let expected: Vec<_> = fields
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        assert_eq!(left(fields), expected);
    }

    #[test]
    fn what_is_well_formed_passes_unchanged_and_so_does_what_others_propagate() {
        kept(&[]);
        kept(&[("traceparent", GOOD)]);
        kept(&[("traceparent", GOOD), ("tracestate", "a=1, b@c=2 ,,")]);
        kept(&[
            ("traceparent", GOOD),
            ("tracestate", "a=1"),
            ("tracestate", "b=2"),
        ]);
        kept(&[
            ("b3", "0"),
            ("baggage", "a=1"),
            ("x-request-id", "7"),
            ("x-b3-traceid", "ABC"),
        ]);
    }

    #[test]
    fn a_malformed_or_second_parent_is_removed_and_its_state_with_it() {
        let upper = GOOD.to_uppercase();
        let long = format!("{GOOD}-00");
        for parent in ["", "00", &upper, &long] {
            let fields = [
                ("traceparent", parent),
                ("tracestate", "a=1"),
                ("baggage", "k=v"),
            ];
            assert_eq!(
                left(&fields),
                [("baggage".to_owned(), "k=v".to_owned())],
                "{parent}"
            );
        }
        let twice = [
            ("traceparent", GOOD),
            ("traceparent", GOOD),
            ("tracestate", "a=1"),
        ];
        assert_eq!(left(&twice), []);
        assert_eq!(left(&[("tracestate", "a=1")]), []);
    }

    #[test]
    fn a_state_that_is_too_much_is_removed_and_its_parent_stays() {
        let huge = format!("a={}", "x".repeat(64 * 1024));
        for state in [huge.as_str(), "A=1", "a"] {
            let fields = [("traceparent", GOOD), ("tracestate", state)];
            assert_eq!(left(&fields), [("traceparent".to_owned(), GOOD.to_owned())]);
        }
    }
}
