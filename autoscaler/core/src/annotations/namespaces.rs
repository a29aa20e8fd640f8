//! From which namespaces a workload takes requests.
//!
//! The one annotation that is about rights. Its readers must not fall back on its default when they cannot use a value: that
//! would open what somebody meant to close.

use std::collections::BTreeSet;

use super::{Annotations, keys::ALLOWED_NAMESPACES};

/// The longest name of a namespace: a DNS label (RFC 1123, section 2.1).
const LONGEST: usize = 63;

/// From which namespaces a workload takes requests, beside its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedNamespaces {
    /// From everywhere.
    Everybody,
    /// From pods of these namespaces.
    Only(BTreeSet<String>),
}

impl AllowedNamespaces {
    /// What a workload's annotations say: without the annotation everybody. None if its value cannot be used.
    pub fn of(annotations: &Annotations) -> Option<Self> {
        ALLOWED_NAMESPACES
            .value(annotations)
            .map_or(Some(Self::Everybody), Self::parse)
    }

    /// Reads a value: `*`, or names separated by commas. An empty one is nobody's intention, so it is refused; and `*` among
    /// names would make them pointless.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.trim() == "*" {
            return Some(Self::Everybody);
        }
        let names = text.split(',').map(str::trim);
        let names: Option<BTreeSet<String>> = names
            .map(|name| is_namespace(name).then(|| name.to_owned()))
            .collect();
        names.map(Self::Only)
    }

    /// Whether pods of `namespace` are named.
    pub fn contains(&self, namespace: &str) -> bool {
        match self {
            Self::Everybody => true,
            Self::Only(names) => names.contains(namespace),
        }
    }
}

/// A DNS label, as Kubernetes has it.
fn is_namespace(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=LONGEST).contains(&name.len())
        && name.bytes().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Option<Vec<String>> {
        match AllowedNamespaces::parse(text)? {
            AllowedNamespaces::Everybody => Some(vec!["*".to_owned()]),
            AllowedNamespaces::Only(names) => Some(names.into_iter().collect()),
        }
    }

    #[test]
    fn names_are_separated_by_commas_and_a_star_is_everybody() {
        for (text, read) in [
            ("*", &["*"][..]),
            (" * ", &["*"]),
            ("a", &["a"]),
            ("team-a, team-b ,a", &["a", "team-a", "team-b"]),
            ("9", &["9"]),
        ] {
            assert_eq!(names(text).unwrap(), read, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_a_name_is_refused_as_a_whole() {
        let long = "x".repeat(LONGEST + 1);
        for text in [
            "", " ", ",", "a,", "a,,b", "*,a", "a b", "A", "a.b", "-a", "a-", "a/b", "tea*",
            "\u{e9}", &long,
        ] {
            assert_eq!(names(text), None, "{text:?}");
        }
    }

    #[test]
    fn nothing_said_is_everybody_and_what_cannot_be_read_is_nothing() {
        let of = |pairs: &[(&str, &str)]| {
            let all = pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            AllowedNamespaces::of(&all.collect())
        };
        assert_eq!(of(&[]), Some(AllowedNamespaces::Everybody));
        assert_eq!(of(&[("rouse.dev/allowed-namespaces", "")]), None);
        let only = of(&[("rouse.dev/allowed-namespaces", "a")]).unwrap();
        assert!(only.contains("a") && !only.contains("b"));
        assert!(AllowedNamespaces::Everybody.contains("b"));
    }
}
