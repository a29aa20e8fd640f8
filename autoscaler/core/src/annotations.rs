//! Annotations of a workload, to a [`TargetSpec`].
//!
//! Knative's own annotations (`autoscaling.knative.dev/`) are read under the same names, aliases, ranges and defaults, and
//! refused with the same messages; what Knative has elsewhere or lacks is under `rouse.dev/`. Two departures: what is
//! not a finite number is refused, and all that is wrong is reported, each with its key and value.
//! Source: `pkg/apis/autoscaling/{register.go,annotation_validation.go}`.

use std::collections::BTreeMap;
use std::fmt;

use crate::{ClusterConfig, Policy, TargetSpec};

mod check;
mod keys;
mod namespaces;
mod resolve;
mod warn;

pub use keys::{ALL, Key, READ_ELSEWHERE};
pub use namespaces::AllowedNamespaces;
pub use resolve::{resolve, resolve_with};

/// Annotations by full key.
pub type Annotations = BTreeMap<String, String>;

/// Whether a key is of one of the two groups that are read: Knative's and our own.
pub fn is_ours(key: &str) -> bool {
    key.starts_with(keys::KNATIVE_GROUP) || key.starts_with(keys::ROUSE_GROUP)
}

/// Settings that can be used.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    /// All of them, resolved.
    pub spec: TargetSpec,
    /// What was given and has no effect.
    pub warnings: Vec<Warning>,
}

/// Settings that cannot be used; the caller keeps the last good ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// Everything that is wrong, in the order of the checks; never empty.
    pub errors: Vec<AnnotationError>,
    /// What was given and has no effect.
    pub warnings: Vec<Warning>,
}

/// A value that is not allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnotationError {
    /// The key that was read: the canonical one or its alias.
    pub key: String,
    /// Its value.
    pub value: String,
    /// What is wrong, in Knative's words.
    pub message: String,
    /// What would be allowed, where the message does not say.
    pub allowed: Option<String>,
    /// The field paths Knative reports with the message. Mostly just the key.
    pub paths: Vec<String>,
}

/// A given annotation that has no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Its key.
    pub key: String,
    /// Why it has none.
    pub message: String,
}

/// Reads all settings of one workload. Keys outside the two groups are not looked at.
///
/// # Errors
///
/// [`Invalid`] with every value that cannot be read, is out of range, or does not fit another one.
pub fn parse(annotations: &Annotations, config: &ClusterConfig) -> Result<Parsed, Invalid> {
    parse_with(annotations, config, Policy::default())
}

/// As [`parse`], under `policy`: what is a number follows it, and it is that of the resulting settings.
///
/// # Errors
///
/// As there.
pub fn parse_with(
    annotations: &Annotations,
    config: &ClusterConfig,
    policy: Policy,
) -> Result<Parsed, Invalid> {
    let errors = check::all(annotations, config, policy);
    let warnings = warn::all(annotations, config);
    if errors.is_empty() {
        Ok(Parsed {
            spec: resolve_with(annotations, config, policy),
            warnings,
        })
    } else {
        Err(Invalid { errors, warnings })
    }
}

/// One line: the key, the value, and what is allowed.
impl fmt::Display for AnnotationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (value, message) = (one_line(&self.value), one_line(&self.message));
        write!(f, "{}: \"{value}\": {message}", self.key)?;
        match &self.allowed {
            Some(allowed) => write!(f, ", allowed is {allowed}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for AnnotationError {}

/// `text` fit for a log line or an Event: control characters escaped, and cut off where nobody would read on.
fn one_line(text: &str) -> String {
    const ENOUGH: usize = 200;
    let mut line = String::new();
    for (index, c) in text.chars().enumerate() {
        if index == ENOUGH {
            line.push_str("...");
            break;
        }
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

/// The errors, separated by semicolons.
impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Invalid {}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.message)
    }
}

#[cfg(test)]
mod tests;
