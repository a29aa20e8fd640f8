//! Annotations that were given and have no effect: no error, but nobody should have to find out by waiting.

use super::keys::{self, Key};
use super::{Annotations, Warning};
use crate::ClusterConfig;
use crate::literal::parse_int32;

/// Every warning: first unknown keys, then the rest.
pub(super) fn all(annotations: &Annotations, config: &ClusterConfig) -> Vec<Warning> {
    let unknown = annotations.keys().filter(|key| is_unknown(key));
    let mut warnings: Vec<Warning> = unknown
        .map(|key| warning(key, "no such setting".to_owned()))
        .collect();
    for key in keys::ALL {
        if let Some(alias) = key.alias
            && annotations.contains_key(alias)
            && annotations.contains_key(key.name)
        {
            warnings.push(warning(
                alias,
                format!("ignored, since {} is set", key.name),
            ));
        }
    }
    warnings.extend(unsupported(annotations, config));
    warnings
}

fn is_unknown(key: &str) -> bool {
    let ours = super::is_ours(key);
    ours && !keys::READ_ELSEWHERE.contains(&key)
        && !keys::ALL
            .iter()
            .any(|k| k.name == key || k.alias == Some(key))
}

/// Values that Knative accepts and this crate, or Knative at run time, does not act on.
fn unsupported(annotations: &Annotations, config: &ClusterConfig) -> Vec<Warning> {
    let value = |key: Key| key.find(annotations);
    let mut warnings = Vec::new();
    let class = value(keys::CLASS).map_or(
        (keys::CLASS.name, config.pod_autoscaler_class.as_str()),
        |found| found,
    );
    if class.1 != keys::KPA_CLASS {
        warnings.push(warning(
            class.0,
            format!("{:?} is scaled as {}", class.1, keys::KPA_CLASS),
        ));
    }
    if let Some((name, metric)) = value(keys::METRIC)
        && !matches!(metric, "concurrency" | "rps")
    {
        warnings.push(warning(
            name,
            format!("{metric:?} is not measured, concurrency is used"),
        ));
    }
    if let Some((name, algorithm)) = value(keys::ALGORITHM)
        && !matches!(
            algorithm,
            "" | "linear" | "weighted-exponential" | "weightedExponential"
        )
    {
        warnings.push(warning(
            name,
            format!("{algorithm:?} is not known, linear is used"),
        ));
    }
    for (key, needs) in [
        (keys::PROBE_ANSWER, keys::PROBE_PATHS),
        (keys::PLACEHOLDER_TITLE, keys::PLACEHOLDER),
    ] {
        if let Some((name, _)) = value(key)
            && value(needs).is_none_or(|(_, text)| matches!(text, "" | "false"))
        {
            warnings.push(warning(name, format!("no effect without {}", needs.name)));
        }
    }
    if let Some((name, scale)) = value(keys::INITIAL_SCALE)
        && parse_int32(scale).is_none()
    {
        warnings.push(warning(
            name,
            format!("{scale:?} is too large, the cluster's initial-scale is used"),
        ));
    }
    warnings
}

fn warning(key: &str, message: String) -> Warning {
    Warning {
        key: key.to_owned(),
        message,
    }
}
