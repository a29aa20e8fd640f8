//! What a response has to say, beyond its status: a 200 with an error inside is an error.

use std::str::FromStr;

use serde_json::Value;

/// Bytes of a body that are looked at. A longer one does not pass: what is not read cannot be checked.
pub(crate) const MOST: usize = 1024 * 1024;

/// Keeps of a body what is looked at, and one byte more, which tells that it is too long.
pub(crate) fn keep(kept: &mut Vec<u8>, bytes: &[u8]) {
    let room = (MOST + 1).saturating_sub(kept.len());
    kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
}

/// Why such a body does not pass.
pub(crate) const TOO_LONG: &str = "the body is longer than 1 MiB, which is all that is checked";

/// What comes of the checks of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judged {
    Passed,
    Failed,
    TooLong,
}

/// Holds what was kept of a body to all checks.
pub(crate) fn judge(checks: &[Check], kept: &[u8]) -> Judged {
    if checks.is_empty() {
        Judged::Passed
    } else if kept.len() > MOST {
        Judged::TooLong
    } else if checks.iter().all(|check| check.passes(kept)) {
        Judged::Passed
    } else {
        Judged::Failed
    }
}

/// One thing that a body has to have.
#[derive(Clone, Debug, PartialEq)]
pub enum Check {
    /// This text, anywhere.
    Contains(String),
    /// A value of JSON at a place.
    Json {
        /// The place: a JSON Pointer (RFC 6901), empty for the whole.
        pointer: String,
        /// The value; none if any will do.
        value: Option<Value>,
    },
}

impl Check {
    /// Whether `body` has it.
    pub fn passes(&self, body: &[u8]) -> bool {
        match self {
            Self::Contains(text) => {
                text.is_empty() || body.windows(text.len()).any(|part| part == text.as_bytes())
            }
            Self::Json { pointer, value } => {
                let Ok(body) = serde_json::from_slice::<Value>(body) else {
                    return false;
                };
                let found = body.pointer(pointer);
                found.is_some_and(|found| value.as_ref().is_none_or(|value| value == found))
            }
        }
    }
}

/// A check of JSON as typed: `/choices/0/finish_reason="stop"`, or `/predictions` for any value.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonCheck(pub Check);

impl FromStr for JsonCheck {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const ALLOWED: &str = "a check is POINTER, such as /predictions, or POINTER=JSON, such as /predictions/0=1 or /status=\"ok\"";
        let (pointer, value) = match text.split_once('=') {
            None => (text, None),
            Some((pointer, value)) => {
                let value = serde_json::from_str(value)
                    .map_err(|error| format!("{value:?} is no JSON ({error}): {ALLOWED}"))?;
                (pointer, Some(value))
            }
        };
        if !pointer.is_empty() && !pointer.starts_with('/') {
            return Err(format!("{pointer:?} is no JSON Pointer: {ALLOWED}"));
        }
        let pointer = pointer.to_owned();
        Ok(Self(Check::Json { pointer, value }))
    }
}

#[cfg(test)]
mod tests {
    use super::{Check, JsonCheck};

    fn passes(check: &str, body: &str) -> bool {
        let JsonCheck(check) = check.parse().unwrap();
        check.passes(body.as_bytes())
    }

    #[test]
    fn a_body_passes_if_it_has_what_it_should() {
        let body = r#"{"predictions": [1, 2], "a/b": {"c": null}, "s": "x=y"}"#;
        for check in [
            "/predictions",
            "/predictions/1=2",
            "/a~1b/c=null",
            "/s=\"x=y\"",
            "/predictions=[1,2]",
            "",
        ] {
            assert!(passes(check, body), "{check}");
        }
        for check in [
            "/prediction",
            "/predictions/2",
            "/predictions/1=\"2\"",
            "/predictions/1=3",
            "/s=\"x\"",
        ] {
            assert!(!passes(check, body), "{check}");
        }
        assert!(!passes("", "no JSON") && !passes("", ""));
        for check in ["a", "a=1", "/a=x", "/a="] {
            let error = check.parse::<JsonCheck>().expect_err(check);
            assert!(error.contains("POINTER=JSON"), "{error}");
        }
        let contains = |text: &str| Check::Contains(text.to_owned()).passes(b"abc");
        assert!(contains("bc") && contains("") && !contains("abcd") && !contains("x"));
    }
}
