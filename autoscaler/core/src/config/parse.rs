//! Reading the settings from a `ConfigMap`'s data.

use std::collections::BTreeMap;

use super::map::{ConfigError, Map};
use crate::literal::Nanos;
use crate::{BurstCapacity, ClusterConfig, Policy, Replicas};

/// A second in nanoseconds.
const SECOND: Nanos = 1_000_000_000;

impl ClusterConfig {
    /// Reads the map; absent keys have their default and unknown keys are ignored.
    ///
    /// # Errors
    ///
    /// The first key whose value cannot be read or is out of range. `NaN` and infinities cannot be read, unlike in
    /// Knative.
    pub fn parse(data: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        Self::parse_with(data, Policy::default())
    }

    /// As [`ClusterConfig::parse`], with [`Policy::finite_numbers_only`] of `policy`.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn parse_with(
        data: &BTreeMap<String, String>,
        policy: Policy,
    ) -> Result<Self, ConfigError> {
        let map = Map::new(data, policy);
        let mut config = Self::default();
        config.read_loads(&map)?;
        config.read_windows(&map)?;
        config.read_zero(&map)?;
        config.read_scales(&map)?;
        config.check(&map)?;
        Ok(config)
    }

    /// What a replica and an activator can carry.
    fn read_loads(&mut self, map: &Map<'_>) -> Result<(), ConfigError> {
        let key = "container-concurrency-target-percentage";
        if let Some(given) = map.float(key, "above 0, up to 100", |given| {
            given <= 0.0 || given > 100.0
        })? {
            self.container_concurrency_target_fraction =
                if given > 1.0 { given / 100.0 } else { given };
        }
        let key = "container-concurrency-target-default";
        set(
            &mut self.container_concurrency_target_default,
            map.float(key, "a number", |_| false)?,
        );
        let key = "requests-per-second-target-default";
        set(
            &mut self.requests_per_second_target_default,
            map.float(key, "at least 0.01", |rate| rate < 0.01)?,
        );
        let burst = map.float(
            "target-burst-capacity",
            "at least 0, or -1 for unlimited",
            is_no_burst_capacity,
        )?;
        set(
            &mut self.target_burst_capacity,
            burst.map(BurstCapacity::from_f64),
        );
        let capacity = map.float("activator-capacity", "at least 1", |capacity| {
            capacity < 1.0
        })?;
        set(&mut self.activator_capacity, capacity);
        Ok(())
    }

    /// Windows, and how fast the scale may follow the load.
    fn read_windows(&mut self, map: &Map<'_>) -> Result<(), ConfigError> {
        let window = map.duration("stable-window", "6s to 1h in whole seconds", |window| {
            (6 * SECOND..=3600 * SECOND).contains(&window) && window % SECOND == 0
        })?;
        set(&mut self.stable_window, window);
        #[expect(
            clippy::manual_range_contains,
            reason = "it would refuse NaN, which is not read unless Knative's habit is asked for"
        )]
        let is_no_percentage = |given: f64| given < 1.0 || given > 100.0;
        set(
            &mut self.panic_window_percentage,
            map.float("panic-window-percentage", "1 to 100", is_no_percentage)?,
        );
        // Knative checks no range here, though it does for the annotation.
        set(
            &mut self.panic_threshold_percentage,
            map.float("panic-threshold-percentage", "a number", |_| false)?,
        );
        set(
            &mut self.max_scale_up_rate,
            map.float("max-scale-up-rate", "above 1", |rate| rate <= 1.0)?,
        );
        set(
            &mut self.max_scale_down_rate,
            map.float("max-scale-down-rate", "above 1", |rate| rate <= 1.0)?,
        );
        let delay = map.duration(
            "scale-down-delay",
            "at least 0s in whole seconds",
            |delay| delay >= 0 && delay % SECOND == 0,
        )?;
        set(&mut self.scale_down_delay, delay);
        Ok(())
    }

    /// The way to zero.
    fn read_zero(&mut self, map: &Map<'_>) -> Result<(), ConfigError> {
        set(
            &mut self.enable_scale_to_zero,
            map.bool("enable-scale-to-zero")?,
        );
        let grace = map.duration("scale-to-zero-grace-period", "above 0s", |grace| grace > 0)?;
        set(&mut self.scale_to_zero_grace_period, grace);
        let retention = map.duration(
            "scale-to-zero-pod-retention-period",
            "at least 0s",
            |time| time >= 0,
        )?;
        set(&mut self.scale_to_zero_pod_retention_period, retention);
        Ok(())
    }

    /// The class, and the bounds of the scale.
    fn read_scales(&mut self, map: &Map<'_>) -> Result<(), ConfigError> {
        set(
            &mut self.pod_autoscaler_class,
            map.text("pod-autoscaler-class"),
        );
        set(&mut self.initial_scale, map.count("initial-scale")?);
        set(
            &mut self.allow_zero_initial_scale,
            map.bool("allow-zero-initial-scale")?,
        );
        set(&mut self.min_scale, map.count("min-scale")?);
        set(
            &mut self.max_scale,
            map.count("max-scale")?.map(unless_zero),
        );
        set(
            &mut self.max_scale_limit,
            map.count("max-scale-limit")?.map(unless_zero),
        );
        Ok(())
    }

    /// What no key can be judged on alone.
    fn check(&self, map: &Map<'_>) -> Result<(), ConfigError> {
        if self.container_concurrency_target_fraction * self.container_concurrency_target_default
            < 0.01
        {
            return Err(map.error(
                "container-concurrency-target-default",
                "at least 0.01 once multiplied with container-concurrency-target-percentage",
            ));
        }
        if self.initial_scale.is_zero() && !self.allow_zero_initial_scale {
            return Err(map.error(
                "initial-scale",
                "at least 1, since allow-zero-initial-scale is false",
            ));
        }
        if let Some(limit) = self.max_scale_limit
            && self.max_scale.is_none_or(|max| max > limit)
        {
            return Err(map.error("max-scale", format!("1 to {limit}, the max-scale-limit")));
        }
        if let Some(max) = self.max_scale
            && self.min_scale > max
        {
            return Err(map.error("min-scale", format!("0 to {max}, the max-scale")));
        }
        Ok(())
    }
}

fn is_no_burst_capacity(value: f64) -> bool {
    #[expect(clippy::float_cmp, reason = "only the very number -1 means unlimited")]
    let limited = value != -1.0;
    limited && value < 0.0
}

fn unless_zero(count: Replicas) -> Option<Replicas> {
    (!count.is_zero()).then_some(count)
}

/// Overwrites the default if something was given.
fn set<T>(field: &mut T, given: Option<T>) {
    if let Some(given) = given {
        *field = given;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<ClusterConfig, ConfigError> {
        ClusterConfig::parse(
            &pairs
                .iter()
                .map(|&(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
        )
    }

    #[test]
    fn an_empty_map_is_the_defaults() {
        assert_eq!(parse(&[]), Ok(ClusterConfig::default()));
    }

    #[test]
    fn an_error_names_key_value_and_range() {
        let error = parse(&[("stable-window", "5s")]).expect_err("too short");
        assert_eq!(
            error.to_string(),
            r#"stable-window: "5s" is not allowed, it must be 6s to 1h in whole seconds"#
        );
        let error = parse(&[("max-scale", "4"), ("min-scale", "5")]).expect_err("crossed");
        assert_eq!(
            error.to_string(),
            r#"min-scale: "5" is not allowed, it must be 0 to 4, the max-scale"#
        );
    }

    #[test]
    fn what_is_not_finite_is_no_number() {
        for value in ["NaN", "Inf", "+infinity"] {
            assert_eq!(
                parse(&[("panic-threshold-percentage", value)])
                    .expect_err(value)
                    .value,
                value
            );
        }
    }
}
