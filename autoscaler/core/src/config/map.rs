//! Typed look-ups in a `ConfigMap`'s data, and the error they end in.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::literal::{Nanos, parse_bool, parse_duration, parse_float, parse_int32};
use crate::{Policy, Replicas};

/// A value that is not allowed. One such value spoils the whole map: the caller keeps what it had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The key.
    pub key: &'static str,
    /// Its value; empty when the key is absent and the default does not fit the other keys.
    pub value: String,
    /// What would be allowed.
    pub allowed: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {:?} is not allowed, it must be {}",
            self.key, self.value, self.allowed
        )
    }
}

impl std::error::Error for ConfigError {}

/// The data with typed look-ups; none where the key is absent.
pub(super) struct Map<'a>(&'a BTreeMap<String, String>, Policy);

impl<'a> Map<'a> {
    pub(super) fn new(data: &'a BTreeMap<String, String>, policy: Policy) -> Self {
        Self(data, policy)
    }

    pub(super) fn text(&self, key: &str) -> Option<String> {
        self.0.get(key).cloned()
    }

    pub(super) fn error(&self, key: &'static str, allowed: impl Into<String>) -> ConfigError {
        ConfigError {
            key,
            value: self.0.get(key).cloned().unwrap_or_default(),
            allowed: allowed.into(),
        }
    }

    /// The value of `key` if it is there; an error if `read` makes nothing of it.
    fn read<T>(
        &self,
        key: &'static str,
        allowed: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(text) = self.0.get(key) else {
            return Ok(None);
        };
        read(text).map(Some).ok_or_else(|| self.error(key, allowed))
    }

    /// What is out of range is said by what is refused, as in Knative: `NaN`, where it is read at all, is within every range.
    pub(super) fn float(
        &self,
        key: &'static str,
        allowed: &str,
        is_refused: impl Fn(f64) -> bool,
    ) -> Result<Option<f64>, ConfigError> {
        self.read(key, allowed, |text| {
            parse_float(text, self.1).filter(|&value| !is_refused(value))
        })
    }

    pub(super) fn duration(
        &self,
        key: &'static str,
        allowed: &str,
        is_allowed: impl Fn(Nanos) -> bool,
    ) -> Result<Option<Duration>, ConfigError> {
        self.read(key, allowed, |text| {
            let nanos = parse_duration(text).filter(|&nanos| is_allowed(nanos))?;
            u64::try_from(nanos).ok().map(Duration::from_nanos)
        })
    }

    pub(super) fn count(&self, key: &'static str) -> Result<Option<Replicas>, ConfigError> {
        self.read(key, "0 to 2147483647", |text| {
            parse_int32(text)
                .and_then(|count| u32::try_from(count).ok())
                .map(Replicas)
        })
    }

    pub(super) fn bool(&self, key: &'static str) -> Result<Option<bool>, ConfigError> {
        self.read(key, "true or false", parse_bool)
    }
}
