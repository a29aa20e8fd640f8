//! The settings as a table, for people: what [`ClusterConfig::parse`](super::ClusterConfig::parse) reads.

/// One key of `config-autoscaler`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The key.
    pub name: &'static str,
    /// What it may be, in a few words; what an error says too.
    pub allowed: &'static str,
    /// The value that an absent key has, as it could be written.
    pub default: &'static str,
    /// What it does, as one sentence for an operator.
    pub help: &'static str,
}

const fn row(
    name: &'static str,
    allowed: &'static str,
    default: &'static str,
    help: &'static str,
) -> Setting {
    Setting {
        name,
        allowed,
        default,
        help,
    }
}

const COUNT: &str = "0 to 2147483647";

/// Every key that is read.
pub const SETTINGS: [Setting; 20] = [
    row(
        "container-concurrency-target-percentage",
        "above 0, up to 100",
        "70",
        "The share of its target that a replica should have. A number up to 1 is a fraction, above it a percentage.",
    ),
    row(
        "container-concurrency-target-default",
        "a number",
        "100",
        "Requests in flight that a replica can carry if neither a container concurrency nor a target says so. \
         With the percentage applied it must be at least 0.01.",
    ),
    row(
        "requests-per-second-target-default",
        "at least 0.01",
        "200",
        "Requests per second that a replica can carry if no target says so.",
    ),
    row(
        "target-burst-capacity",
        "at least 0, or -1 for unlimited",
        "211",
        "Room for requests beyond the present load below which traffic is safer behind an activator.",
    ),
    row(
        "activator-capacity",
        "at least 1",
        "100",
        "Requests that one activator is trusted to hold at once. Nothing uses it yet.",
    ),
    row(
        "stable-window",
        "6s to 1h in whole seconds",
        "60s",
        "The span over which the load is averaged, and how long panic lasts at least.",
    ),
    row(
        "panic-window-percentage",
        "1 to 100",
        "10",
        "The span of the short average, in percent of the stable window.",
    ),
    row(
        "panic-threshold-percentage",
        "a number",
        "200",
        "Panic starts when the short average asks for this percentage of the ready replicas.",
    ),
    row(
        "max-scale-up-rate",
        "above 1",
        "1000",
        "Most replicas after one decision, as a multiple of the ready ones.",
    ),
    row(
        "max-scale-down-rate",
        "above 1",
        "2",
        "Fewest replicas after one decision: the ready ones divided by this.",
    ),
    row(
        "scale-down-delay",
        "at least 0s in whole seconds",
        "0s",
        "Fewer replicas take effect only after they were enough for this long.",
    ),
    row(
        "enable-scale-to-zero",
        "true or false",
        "true",
        "Whether a workload may have no replicas at all.",
    ),
    row(
        "scale-to-zero-grace-period",
        "above 0s",
        "30s",
        "How long a workload stays idle before its last replica goes.",
    ),
    row(
        "scale-to-zero-pod-retention-period",
        "at least 0s",
        "0s",
        "As the grace period; the longer of the two counts.",
    ),
    row(
        "pod-autoscaler-class",
        "any text",
        "kpa.autoscaling.knative.dev",
        "The class of workloads that name none. Whatever it says, they are scaled as kpa.autoscaling.knative.dev.",
    ),
    row(
        "initial-scale",
        COUNT,
        "1",
        "Replicas that a wake asks for at least. 0 needs allow-zero-initial-scale.",
    ),
    row(
        "allow-zero-initial-scale",
        "true or false",
        "false",
        "Whether an initial scale of 0 is allowed.",
    ),
    row(
        "min-scale",
        COUNT,
        "0",
        "Fewest replicas. Not above max-scale.",
    ),
    row(
        "max-scale",
        COUNT,
        "0",
        "Most replicas; 0 is no limit. With a max-scale-limit it must be from 1 to that.",
    ),
    row(
        "max-scale-limit",
        COUNT,
        "0",
        "The largest max scale that a workload may ask for; 0 is no limit.",
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::ClusterConfig;

    /// The class is any text, so no value of it is an error.
    const ANY_TEXT: &str = "pod-autoscaler-class";

    #[test]
    fn the_defaults_of_the_table_are_the_defaults_of_the_code() {
        let all = SETTINGS.map(|s| (s.name.to_owned(), s.default.to_owned()));
        let config = ClusterConfig::parse(&BTreeMap::from(all)).expect("defaults are allowed");
        assert_eq!(config, ClusterConfig::default());
    }

    #[test]
    fn every_key_of_the_table_is_read_and_its_range_is_what_an_error_says() {
        for setting in SETTINGS.iter().filter(|s| s.name != ANY_TEXT) {
            let map = BTreeMap::from([(setting.name.to_owned(), "?".to_owned())]);
            let error = ClusterConfig::parse(&map).expect_err(setting.name);
            assert_eq!(
                (error.key, error.allowed.as_str()),
                (setting.name, setting.allowed)
            );
        }
        let map = BTreeMap::from([(ANY_TEXT.to_owned(), "mine".to_owned())]);
        let config = ClusterConfig::parse(&map).expect("any text is allowed");
        assert_eq!(config.pod_autoscaler_class, "mine");
    }
}
