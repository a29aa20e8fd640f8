//! SPIFFE IDs (<https://spiffe.io/docs/latest/spiffe-specs/spiffe-id>), and patterns of them.

use std::fmt;

/// Most bytes of an ID (section 2.3).
const MOST_BYTES: usize = 2048;
/// Most bytes of a trust domain (section 2.1).
const MOST_DOMAIN_BYTES: usize = 255;

/// One ID, or all that go on where it ends.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Pattern {
    /// `spiffe://DOMAIN/PATH`; of a pattern with its last `/`.
    text: String,
    /// At least one more segment follows.
    rest: bool,
}

impl Pattern {
    /// Reads an ID, or one whose last segment is `*`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text.strip_suffix("/*") {
            // The domain alone is an ID too, of the domain itself.
            Some(start) => is_id(start).then(|| Self {
                text: format!("{start}/"),
                rest: true,
            }),
            None => is_id(text).then(|| Self {
                text: text.to_owned(),
                rest: false,
            }),
        }
    }

    /// Whether `id`, as a certificate has it, is meant. What is no ID by the letter of the standard is not: `/ns/a/../b` is
    /// nobody's below `/ns/a/`.
    pub(super) fn matches(&self, id: &str) -> bool {
        is_id(id)
            && if self.rest {
                id.len() > self.text.len() && id.starts_with(&self.text)
            } else {
                id == self.text
            }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.text, if self.rest { "*" } else { "" })
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whether a text is an ID, in its one spelling: a trust domain in lower case, and segments that are neither empty nor relative
/// nor escaped.
fn is_id(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("spiffe://") else {
        return false;
    };
    let (domain, path) = rest
        .split_once('/')
        .map_or((rest, None), |(d, p)| (d, Some(p)));
    let common = |b: u8| b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
    text.len() <= MOST_BYTES
        && (1..=MOST_DOMAIN_BYTES).contains(&domain.len())
        && domain.bytes().all(|b| b.is_ascii_lowercase() || common(b))
        && path.is_none_or(|path| {
            path.split('/').all(|segment| {
                !matches!(segment, "" | "." | "..")
                    && segment
                        .bytes()
                        .all(|b| b.is_ascii_alphabetic() || common(b))
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_matches_itself_and_a_star_any_rest_of_a_path() {
        for (pattern, id, expected) in [
            ("spiffe://a/ns/x/sa/y", "spiffe://a/ns/x/sa/y", true),
            ("spiffe://a/ns/x/sa/y", "spiffe://a/ns/x/sa/Y", false),
            ("spiffe://a/ns/x/sa/y", "spiffe://a/ns/x/sa/y/z", false),
            ("spiffe://a/ns/x/sa/y", "spiffe://b/ns/x/sa/y", false),
            ("spiffe://a", "spiffe://a", true),
            ("spiffe://a", "spiffe://a/b", false),
            ("spiffe://a/ns/x/*", "spiffe://a/ns/x/sa/y", true),
            ("spiffe://a/ns/x/*", "spiffe://a/ns/x/sa", true),
            ("spiffe://a/ns/x/*", "spiffe://a/ns/x", false),
            ("spiffe://a/ns/x/*", "spiffe://a/ns/xy/sa", false),
            ("spiffe://a/*", "spiffe://a/ns", true),
            ("spiffe://a/*", "spiffe://ab/ns", false),
            // None of these is an ID.
            ("spiffe://a/ns/x/*", "spiffe://a/ns/x/", false),
            ("spiffe://a/ns/x/*", "spiffe://a/ns/x/../y", false),
            ("spiffe://a/ns/x/*", "spiffe://a/ns/x//y", false),
            ("spiffe://a/ns/x/*", "spiffe://a/ns/x/%2e", false),
            ("spiffe://a/ns/x/*", "spiffe://a/ns/x/*", false),
            ("spiffe://a/*", "spiffe://a/b?c", false),
            ("spiffe://a/*", "spiffe://a/b#c", false),
        ] {
            let read = Pattern::parse(pattern).unwrap();
            assert_eq!(read.matches(id), expected, "{pattern} {id}");
            assert_eq!(read.to_string(), pattern);
        }
    }

    #[test]
    fn what_is_no_id_is_no_pattern() {
        for text in [
            "",
            "a",
            "spiffe://",
            "spiffe:///a",
            "SPIFFE://a/b",
            "spiffe://A/b",
            "spiffe://a:1/b",
            "spiffe://u@a/b",
            "spiffe://a/",
            "spiffe://a/b/",
            "spiffe://a/*/b",
            "spiffe://a/b*",
            "spiffe://*/b",
            "spiffe://a/b/*/*",
            "https://a/b",
        ] {
            assert_eq!(Pattern::parse(text), None, "{text}");
        }
        let long = |n: usize| format!("spiffe://a/{}", "b".repeat(n - "spiffe://a/".len()));
        assert!(Pattern::parse(&long(2048)).is_some());
        assert_eq!(Pattern::parse(&long(2049)), None);
    }
}
