//! The identity of a scale target: `namespace/name`, the key of every map in Rouse.

use std::{fmt, str::FromStr, sync::Arc};

/// A workload that is scaled as one: a Deployment, or anything with a `/scale` subresource.
///
/// Cheap to clone; ordered and hashed by namespace, then name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetId {
    namespace: Arc<str>,
    name: Arc<str>,
}

/// Why a text is not a [`TargetId`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a target: expected NAME or NAMESPACE/NAME, each an RFC 1123 name of at most 253 characters"
)]
pub struct InvalidTarget {
    text: String,
}

impl TargetId {
    /// The target `namespace/name`.
    ///
    /// # Errors
    /// When either part is not an RFC 1123 subdomain
    /// (<https://kubernetes.io/docs/concepts/overview/working-with-objects/names/>).
    pub fn new(namespace: &str, name: &str) -> Result<Self, InvalidTarget> {
        if is_dns_name(namespace) && is_dns_name(name) {
            Ok(Self {
                namespace: namespace.into(),
                name: name.into(),
            })
        } else {
            Err(InvalidTarget {
                text: format!("{namespace}/{name}"),
            })
        }
    }

    /// The namespace part.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The name part.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for TargetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl FromStr for TargetId {
    type Err = InvalidTarget;

    /// Reads `NAMESPACE/NAME`, or `NAME` in the namespace `default`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((namespace, name)) => Self::new(namespace, name),
            None => Self::new("default", text),
        }
    }
}

/// An RFC 1123 subdomain as Kubernetes checks object names.
fn is_dns_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 253
        && text.split('.').all(|label| {
            let bytes = label.as_bytes();
            let edge = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
            bytes.first().is_some_and(edge)
                && bytes.last().is_some_and(edge)
                && bytes.iter().all(|b| edge(b) || *b == b'-')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_bare_name_in_the_default_namespace() {
        let id: TargetId = "iris".parse().unwrap();
        assert_eq!(id.to_string(), "default/iris");
    }

    #[test]
    fn refuses_what_kubernetes_would_refuse() {
        for bad in ["", "/", "a/", "A/b", "a/-b", "a/b/c", "a/b..c", "ä/b"] {
            assert!(bad.parse::<TargetId>().is_err(), "{bad:?} was taken");
        }
    }
}
