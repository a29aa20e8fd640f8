//! The map `config-autoscaler`.

use std::collections::BTreeMap;
use std::time::Duration;

use autoscaler_core::{BurstCapacity, ClusterConfig, ConfigError, Policy, Replicas};
use serde_json::Value;

use crate::check::Check;
use crate::read::{Read, boolean, field, float, int, string, text, texts, unknown};

/// A setting's value in a form that can be compared.
#[derive(Debug, PartialEq)]
enum Setting {
    Float(f64),
    Whole(i64),
    Yes(bool),
    Text(String),
}

pub(super) fn replay(case: &Value, check: &mut Check) -> Read<()> {
    let data = texts(case, "data")?;
    let result = ClusterConfig::parse_with(&data, Policy::KNATIVE);
    let accepted = boolean(case, "accepted")?;
    match result {
        Ok(parsed) if accepted => compare(&parsed, field(case, "parsed")?, check),
        Err(error) if !accepted => refused(&error, &data, case, check),
        Ok(_) => {
            check.differ("outcome", "accepted", "refused");
            Ok(())
        }
        Err(error) => {
            check.differ("outcome", error, "accepted");
            Ok(())
        }
    }
}

/// Of several wrong keys, which one is named first is our own affair.
fn refused(
    error: &ConfigError,
    data: &BTreeMap<String, String>,
    case: &Value,
    check: &mut Check,
) -> Read<()> {
    if data.len() > 1 && data.contains_key(error.key) {
        return Ok(());
    }
    let (named, want) = match text(case, "error_kind")? {
        "parse" => {
            let key = text(case, "error_key")?;
            (error.key == key, key)
        }
        "range" => {
            let words = text(case, "error")?;
            (words.contains(error.key), words)
        }
        kind => return unknown("error_kind", kind),
    };
    if !named {
        check.differ("key of the error", error.key, want);
    }
    Ok(())
}

/// `want` holds the fields that differ from the defaults, so the defaults are laid under it and all are compared.
fn compare(parsed: &ClusterConfig, want: &Value, check: &mut Check) -> Read<()> {
    let mut wanted = settings(&ClusterConfig::default());
    let Some(changed) = want.as_object() else {
        return unknown("parsed", want);
    };
    for (key, value) in changed {
        let Some(setting) = wanted.get_mut(key.as_str()) else {
            return unknown("setting", key);
        };
        *setting = match setting {
            Setting::Float(_) => Setting::Float(float(value)?),
            Setting::Whole(_) => Setting::Whole(int(value)?),
            Setting::Yes(_) => Setting::Yes(value.as_bool() == Some(true)),
            Setting::Text(_) => Setting::Text(string(value)?.to_owned()),
        };
    }
    for ((key, got), want) in settings(parsed).into_iter().zip(wanted.into_values()) {
        match (got, want) {
            (Setting::Float(got), Setting::Float(want)) => {
                check.near(key, got, want, 1e-12 * want.abs());
            }
            (got, want) => check.same(key, got, want),
        }
    }
    Ok(())
}

/// All settings, under the names of the recording.
fn settings(config: &ClusterConfig) -> BTreeMap<&'static str, Setting> {
    use Setting::{Float, Text, Whole, Yes};
    let nanos = |span: Duration| Whole(i64::try_from(span.as_nanos()).unwrap_or(i64::MAX));
    let count = |count: Replicas| Whole(i64::from(count.get()));
    let limit = |limit: Option<Replicas>| count(limit.unwrap_or(Replicas::ZERO));
    let burst = match config.target_burst_capacity {
        BurstCapacity::Unlimited => -1.0,
        BurstCapacity::Requests(requests) => requests,
    };
    BTreeMap::from([
        ("enable-scale-to-zero", Yes(config.enable_scale_to_zero)),
        (
            "container-concurrency-target-fraction",
            Float(config.container_concurrency_target_fraction),
        ),
        (
            "container-concurrency-target-default",
            Float(config.container_concurrency_target_default),
        ),
        (
            "requests-per-second-target-default",
            Float(config.requests_per_second_target_default),
        ),
        // Fixed here; the vectors never show it as changed.
        ("target-utilization", Float(0.7)),
        ("target-burst-capacity", Float(burst)),
        ("activator-capacity", Float(config.activator_capacity)),
        (
            "allow-zero-initial-scale",
            Yes(config.allow_zero_initial_scale),
        ),
        ("initial-scale", count(config.initial_scale)),
        ("min-scale", count(config.min_scale)),
        ("max-scale", limit(config.max_scale)),
        ("max-scale-limit", limit(config.max_scale_limit)),
        ("max-scale-up-rate", Float(config.max_scale_up_rate)),
        ("max-scale-down-rate", Float(config.max_scale_down_rate)),
        ("stable-window-ns", nanos(config.stable_window)),
        (
            "panic-window-percentage",
            Float(config.panic_window_percentage),
        ),
        (
            "panic-threshold-percentage",
            Float(config.panic_threshold_percentage),
        ),
        (
            "scale-to-zero-grace-period-ns",
            nanos(config.scale_to_zero_grace_period),
        ),
        (
            "scale-to-zero-pod-retention-period-ns",
            nanos(config.scale_to_zero_pod_retention_period),
        ),
        ("scale-down-delay-ns", nanos(config.scale_down_delay)),
        (
            "pod-autoscaler-class",
            Text(config.pod_autoscaler_class.clone()),
        ),
    ])
}
