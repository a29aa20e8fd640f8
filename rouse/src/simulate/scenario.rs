//! Scenario files.

use std::{collections::BTreeMap, time::Duration};

use autoscaler_core::sim::{Scenario, Shape, SlowStarts, Spacing, Time};
use serde::Deserialize;

/// Requests per second at most.
const MAX_RATE: f64 = 100_000.0;
/// Minutes, moments and parts of a sum at most.
const MAX_ENTRIES: usize = 1_000_000;

/// A file as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    name: Option<String>,
    about: Option<String>,
    length: String,
    arrivals: Arrivals,
    #[serde(default)]
    spacing: How,
    service: String,
    start: String,
    concurrency: Option<u32>,
    #[serde(default)]
    start_failures: f64,
    #[serde(default)]
    scrape_loss: f64,
    #[serde(default)]
    replicas: u32,
    seen_before: Option<bool>,
    slow_starts: Option<Slow>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum How {
    #[default]
    Poisson,
    Even,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
enum Arrivals {
    Constant {
        rate: f64,
    },
    Ramp {
        from: f64,
        to: f64,
    },
    Burst {
        rate: f64,
        peak: f64,
        at: String,
        lasts: String,
    },
    OnOff {
        rate: f64,
        on: String,
        off: String,
    },
    Minutes(Vec<u64>),
    At(Vec<String>),
    Sum(Vec<Self>),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Slow {
    from: String,
    until: String,
    factor: f64,
}

/// Reads a scenario file; `name` is what it is called in errors, and the scenario if it says nothing else.
pub(super) fn read(name: &str, text: &str) -> Result<Scenario, String> {
    let file: File = serde_saphyr::from_str(text).map_err(|error| {
        // The first line says what and where; the rest is a picture of the place.
        let error = error.to_string();
        let line = error.lines().next().unwrap_or_default();
        format!("{name}: {line}")
    })?;
    file.scenario(name)
        .map_err(|error| format!("{name}: {error}"))
}

impl File {
    fn scenario(self, name: &str) -> Result<Scenario, String> {
        let limit = self.annotations.get("rouse.dev/container-concurrency");
        let limit = limit.and_then(|limit| limit.parse().ok());
        let concurrency = self
            .concurrency
            .or_else(|| limit.filter(|limit| *limit > 0));
        Ok(Scenario {
            name: self.name.unwrap_or_else(|| name.to_owned()),
            about: self.about.unwrap_or_default(),
            length: span("length", &self.length)?,
            arrivals: self.arrivals.shape()?,
            spacing: match self.spacing {
                How::Poisson => Spacing::Poisson,
                How::Even => Spacing::Even,
            },
            service: time("service", &self.service)?,
            start: time("start", &self.start)?,
            concurrency: within("concurrency", concurrency.unwrap_or(1), 1, 10_000)?,
            start_failures: share("start-failures", self.start_failures)?,
            scrape_loss: share("scrape-loss", self.scrape_loss)?,
            replicas: within("replicas", self.replicas, 0, 10_000)?,
            seen_before: self.seen_before.unwrap_or(true),
            slow_starts: self.slow_starts.map(Slow::read).transpose()?,
            annotations: self.annotations,
        })
    }
}

impl Slow {
    fn read(self) -> Result<SlowStarts, String> {
        if !(0.0..=1000.0).contains(&self.factor) {
            return Err(format!(
                "slow-starts.factor: {} is not allowed, it must be from 0 to 1000",
                self.factor
            ));
        }
        Ok(SlowStarts {
            from: span("slow-starts.from", &self.from)?,
            until: span("slow-starts.until", &self.until)?,
            factor: self.factor,
        })
    }
}

impl Arrivals {
    fn shape(self) -> Result<Shape, String> {
        Ok(match self {
            Self::Constant { rate } => Shape::Constant {
                rate: per_second("constant.rate", rate)?,
            },
            Self::Ramp { from, to } => Shape::Ramp {
                from: per_second("ramp.from", from)?,
                to: per_second("ramp.to", to)?,
            },
            Self::Burst {
                rate,
                peak,
                at,
                lasts,
            } => Shape::Burst {
                rate: per_second("burst.rate", rate)?,
                peak: per_second("burst.peak", peak)?,
                at: span("burst.at", &at)?,
                lasts: span("burst.lasts", &lasts)?,
            },
            Self::OnOff { rate, on, off } => Shape::OnOff {
                rate: per_second("on-off.rate", rate)?,
                on: span("on-off.on", &on)?,
                off: span("on-off.off", &off)?,
            },
            Self::Minutes(counts) => {
                few("minutes", counts.len())?;
                Shape::Minutes(counts)
            }
            Self::At(moments) => {
                few("at", moments.len())?;
                let read = moments.iter().map(|at| span("at", at));
                Shape::At(read.collect::<Result<_, _>>()?)
            }
            Self::Sum(parts) => {
                few("sum", parts.len())?;
                let read = parts.into_iter().map(Self::shape);
                Shape::Sum(read.collect::<Result<_, _>>()?)
            }
        })
    }
}

/// A duration from nothing to a day.
pub(super) fn duration(text: &str) -> Option<Duration> {
    match text.parse() {
        Ok(Time::Fixed(time)) => Some(time),
        _ => None,
    }
}

fn span(field: &str, text: &str) -> Result<Duration, String> {
    duration(text).ok_or_else(|| {
        format!(
            "{field}: {text:?} is not allowed, it must be a duration from 0s to 24h, such as 90s"
        )
    })
}

fn time(field: &str, text: &str) -> Result<Time, String> {
    text.parse().map_err(|error| format!("{field}: {error}"))
}

fn per_second(field: &str, rate: f64) -> Result<f64, String> {
    if (0.0..=MAX_RATE).contains(&rate) {
        Ok(rate)
    } else {
        Err(format!(
            "arrivals.{field}: {rate} is not allowed, it must be from 0 to {MAX_RATE} requests per second"
        ))
    }
}

fn share(field: &str, share: f64) -> Result<f64, String> {
    if (0.0..=1.0).contains(&share) {
        Ok(share)
    } else {
        Err(format!(
            "{field}: {share} is not allowed, it must be from 0 to 1"
        ))
    }
}

fn within(field: &str, value: u32, low: u32, high: u32) -> Result<u32, String> {
    if (low..=high).contains(&value) {
        Ok(value)
    } else {
        Err(format!(
            "{field}: {value} is not allowed, it must be from {low} to {high}"
        ))
    }
}

fn few(field: &str, entries: usize) -> Result<(), String> {
    if entries <= MAX_ENTRIES {
        Ok(())
    } else {
        Err(format!(
            "arrivals.{field}: {entries} entries; at most {MAX_ENTRIES} are read"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "
name: chat
length: 30m
arrivals: {on-off: {rate: 10, on: 5m, off: 5m}}
service: lognormal(1s,0.3)
start: 3m
start-failures: 0.1
slow-starts: {from: 10m, until: 20m, factor: 4}
annotations: {rouse.dev/container-concurrency: \"10\"}
";

    #[test]
    fn a_file_is_read_with_its_defaults() {
        let scenario = read("f.yaml", GOOD).unwrap();
        assert_eq!((scenario.name.as_str(), scenario.concurrency), ("chat", 10));
        assert_eq!(scenario.length, Duration::from_mins(30));
        assert!(scenario.seen_before);
        assert_eq!(scenario.start, Time::Fixed(Duration::from_mins(3)));
        let sum = GOOD.replace(
            "{on-off: {rate: 10, on: 5m, off: 5m}}",
            "{sum: [{constant: {rate: 1}}, {at: [3s, 5s]}, {minutes: [1, 2]}, {ramp: {from: 0, to: 3}}, {burst: {rate: 1, peak: 9, at: 1m, lasts: 10s}}]}",
        );
        let scenario = read("f.yaml", &sum).unwrap();
        assert!(matches!(scenario.arrivals, Shape::Sum(parts) if parts.len() == 5));
    }

    #[test]
    fn what_is_wrong_is_named_in_one_line() {
        for (good, bad, says) in [
            (
                "length: 30m",
                "length: soon",
                "f.yaml: length: \"soon\" is not allowed, it must be a duration",
            ),
            (
                "rate: 10",
                "rate: -1",
                "f.yaml: arrivals.on-off.rate: -1 is not allowed, it must be from 0 to 100000",
            ),
            (
                "rate: 10",
                "rate: .nan",
                "arrivals.on-off.rate: NaN is not allowed",
            ),
            (
                "start: 3m",
                "start: gamma(3m)",
                "f.yaml: start: \"gamma(3m)\" is no time; allowed are 1s, uniform(1s,3s)",
            ),
            (
                "start-failures: 0.1",
                "start-failures: 2",
                "start-failures: 2 is not allowed, it must be from 0 to 1",
            ),
            (
                "factor: 4",
                "factor: 1e9",
                "slow-starts.factor: 1000000000 is not allowed",
            ),
            ("name: chat", "nam: chat", "nam"),
            (
                "name: chat",
                "concurrency: 0",
                "concurrency: 0 is not allowed, it must be from 1 to 10000",
            ),
            ("service: lognormal(1s,0.3)", "", "service"),
        ] {
            let error = read("f.yaml", &GOOD.replace(good, bad)).unwrap_err();
            assert!(
                error.starts_with("f.yaml: ") && error.contains(says),
                "{error}"
            );
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }
}
