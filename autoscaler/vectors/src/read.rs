//! Typed look-ups in a case. What is not there or of another type is said, with its name.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use autoscaler_core::{Moment, Replicas};
use serde_json::Value;

/// Why a case cannot be replayed.
#[derive(Debug)]
pub(crate) struct Unreadable(String);

pub(crate) type Read<T> = Result<T, Unreadable>;

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A value that no reader knows.
pub(crate) fn unknown<T>(what: &str, value: impl fmt::Display) -> Read<T> {
    Err(Unreadable(format!("unknown {what}: {value}")))
}

fn wrong<T>(value: &Value, expected: &str) -> Read<T> {
    Err(Unreadable(format!("{value} is not {expected}")))
}

pub(crate) fn field<'a>(value: &'a Value, name: &str) -> Read<&'a Value> {
    match value.get(name) {
        Some(found) => Ok(found),
        None => Err(Unreadable(format!("there is no {name:?} in {value}"))),
    }
}

/// An item of a list.
pub(crate) fn item(value: &Value, index: usize) -> Read<&Value> {
    match value.get(index) {
        Some(found) => Ok(found),
        None => Err(Unreadable(format!("{value} has no item {index}"))),
    }
}

pub(crate) fn list<'a>(value: &'a Value, name: &str) -> Read<&'a Vec<Value>> {
    let found = field(value, name)?;
    found.as_array().map_or_else(|| wrong(found, "a list"), Ok)
}

pub(crate) fn string(value: &Value) -> Read<&str> {
    value.as_str().map_or_else(|| wrong(value, "a text"), Ok)
}

pub(crate) fn text<'a>(value: &'a Value, name: &str) -> Read<&'a str> {
    string(field(value, name)?)
}

pub(crate) fn boolean(value: &Value, name: &str) -> Read<bool> {
    let found = field(value, name)?;
    found
        .as_bool()
        .map_or_else(|| wrong(found, "true or false"), Ok)
}

/// A number; what is not finite is a text.
pub(crate) fn float(value: &Value) -> Read<f64> {
    match (value.as_f64(), value.as_str()) {
        (Some(number), _) => Ok(number),
        (None, Some("NaN")) => Ok(f64::NAN),
        (None, Some("Inf")) => Ok(f64::INFINITY),
        (None, Some("-Inf")) => Ok(f64::NEG_INFINITY),
        _ => wrong(value, "a number"),
    }
}

pub(crate) fn float_of(value: &Value, name: &str) -> Read<f64> {
    float(field(value, name)?)
}

pub(crate) fn int(value: &Value) -> Read<i64> {
    value
        .as_i64()
        .map_or_else(|| wrong(value, "a whole number"), Ok)
}

pub(crate) fn int_of(value: &Value, name: &str) -> Read<i64> {
    int(field(value, name)?)
}

pub(crate) fn count(value: &Value) -> Read<Replicas> {
    match u32::try_from(int(value)?) {
        Ok(count) => Ok(Replicas(count)),
        Err(_) => wrong(value, "a count"),
    }
}

pub(crate) fn count_of(value: &Value, name: &str) -> Read<Replicas> {
    count(field(value, name)?)
}

pub(crate) fn millis(value: &Value) -> Read<Duration> {
    match u64::try_from(int(value)?) {
        Ok(millis) => Ok(Duration::from_millis(millis)),
        Err(_) => wrong(value, "a span of milliseconds"),
    }
}

pub(crate) fn millis_of(value: &Value, name: &str) -> Read<Duration> {
    millis(field(value, name)?)
}

/// The moment `t` milliseconds after the base of `case`.
pub(crate) fn moment(case: &Value, t: &Value) -> Read<Moment> {
    let base = int_of(case, "base_unix_ms")?;
    let sum = base
        .checked_add(int(t)?)
        .and_then(|sum| u64::try_from(sum).ok());
    sum.map_or_else(
        || wrong(t, "a time after the epoch"),
        |millis| Ok(Moment::from_millis(millis)),
    )
}

/// A map of texts.
pub(crate) fn texts(value: &Value, name: &str) -> Read<BTreeMap<String, String>> {
    let found = field(value, name)?;
    let Some(map) = found.as_object() else {
        return wrong(found, "a map");
    };
    map.iter()
        .map(|(key, value)| Ok((key.clone(), string(value)?.to_owned())))
        .collect()
}
