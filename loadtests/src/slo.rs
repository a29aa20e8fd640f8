//! Objectives of a run: `p99<250ms,errors<0.1%,throughput>100`. Each is met or missed, and says by which figure.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    bound::{self, Side, Typed},
    cold::report::Kind,
    report::{Percentiles, Report},
    streams::Streams,
    unit::{human, parse_duration},
};

const ALLOWED: &str = "an objective is mean, p50, p90, p95, p99, p999, max < TIME (with lag., cold., ttfb., ttfe., ttft., itl. or tpot. before it those of something else), errors < SHARE% or NUMBER, unproven < NUMBER, \
                       or throughput or tokens > NUMBER, joined by commas, such as p99<250ms,errors<0.1%,throughput>100";

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Measure {
    /// Seconds of successful requests.
    Latency(Rank),
    /// Seconds by which the tool was late.
    Lag(Rank),
    /// Seconds of proven cold requests.
    Cold(Rank),
    /// Requests that should have been cold and are not proven to be.
    Unproven,
    /// Seconds of streams.
    Stream(Moment, Rank),
    /// Errors among all requests, from 0 to 1.
    ErrorShare,
    /// Errors.
    Errors,
    /// Successful requests per second.
    Throughput,
    /// Tokens per second.
    Tokens,
}

/// Which time of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    FirstByte,
    FirstEvent,
    FirstToken,
    InterToken,
    PerToken,
}

/// Which figure of a distribution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rank {
    Mean,
    P50,
    P90,
    P95,
    P99,
    P999,
    Max,
}

/// One objective.
#[derive(Clone, Debug, PartialEq)]
pub struct Objective {
    text: String,
    measure: Measure,
    side: Side,
    limit: f64,
}

/// Objectives as typed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Objectives(pub Vec<Objective>);

/// What became of an objective.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The objective, as typed.
    pub objective: String,
    /// The figure of this run, in seconds, as a share from 0 to 1, a count or per second; none if there is none, which is a miss.
    pub value: Option<f64>,
    /// What it was to be below, or above for `throughput`, in the same unit.
    pub limit: f64,
    /// Whether it was.
    pub met: bool,
}

impl Objective {
    /// What `report` has come to.
    pub fn verdict(&self, report: &Report) -> Verdict {
        let summary = &report.summary;
        let value = match self.measure {
            Measure::Latency(rank) => rank.of(&summary.latency),
            Measure::Lag(rank) => report.pacing.as_ref().and_then(|p| rank.of(&p.lag)),
            Measure::Cold(rank) => report
                .cold
                .as_ref()
                .and_then(|cold| rank.of(&cold.class(Kind::Cold)?.latency)),
            #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
            Measure::Unproven => report
                .cold
                .as_ref()
                .map(|cold| cold.class(Kind::Unproven).map_or(0, |c| c.latency.count) as f64),
            Measure::Stream(moment, rank) => {
                let streams = report.streams.as_ref();
                streams.and_then(|streams| rank.of(moment.of(streams)))
            }
            Measure::Tokens => report.streams.map(|streams| streams.tokens_per_second),
            Measure::ErrorShare => summary.error_share(),
            #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
            Measure::Errors => Some(summary.error_count as f64),
            Measure::Throughput => Some(summary.throughput),
        };
        let met = value.is_some_and(|value| self.side.holds(value, self.limit));
        Verdict {
            objective: self.text.clone(),
            value,
            limit: self.limit,
            met,
        }
    }
}

impl Moment {
    fn of(self, streams: &Streams) -> &Percentiles {
        match self {
            Self::FirstByte => &streams.ttfb,
            Self::FirstEvent => &streams.first_event,
            Self::FirstToken => &streams.first_token,
            Self::InterToken => &streams.inter_token,
            Self::PerToken => &streams.time_per_token,
        }
    }

    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "ttfb" => Self::FirstByte,
            "ttfe" => Self::FirstEvent,
            "ttft" => Self::FirstToken,
            "itl" => Self::InterToken,
            "tpot" => Self::PerToken,
            _ => return None,
        })
    }
}

impl Rank {
    fn of(self, of: &Percentiles) -> Option<f64> {
        match self {
            Self::Mean => of.mean,
            Self::P50 => of.p50,
            Self::P90 => of.p90,
            Self::P95 => of.p95,
            Self::P99 => of.p99,
            Self::P999 => of.p999,
            Self::Max => of.max,
        }
    }
}

impl FromStr for Rank {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Ok(match text {
            "mean" => Self::Mean,
            "p50" => Self::P50,
            "p90" => Self::P90,
            "p95" => Self::P95,
            "p99" => Self::P99,
            "p999" | "p99.9" => Self::P999,
            "max" => Self::Max,
            _ => return Err(()),
        })
    }
}

impl FromStr for Objective {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let wrong = || format!("{text:?}: {ALLOWED}");
        let Typed { name, side, value } = bound::split(text).ok_or_else(wrong)?;
        let number = |text: &str| {
            let number: Option<f64> = text.parse().ok();
            number
                .filter(|number| number.is_finite() && *number >= 0.0)
                .ok_or_else(wrong)
        };
        let time = || {
            let time = parse_duration(value).map_err(|wrong| format!("{text:?}: {wrong}"))?;
            Ok::<_, String>(time.as_secs_f64())
        };
        let (measure, limit) = match name {
            "throughput" => (Measure::Throughput, number(value)?),
            "tokens" => (Measure::Tokens, number(value)?),
            "errors" => match value.strip_suffix('%') {
                Some(share) => (Measure::ErrorShare, number(share)? / 100.0),
                None => (Measure::Errors, number(value)?),
            },
            "unproven" => (Measure::Unproven, number(value)?),
            name => match name.split_once('.') {
                Some(("lag", rank)) => (Measure::Lag(rank.parse().map_err(|()| wrong())?), time()?),
                Some(("cold", rank)) => {
                    (Measure::Cold(rank.parse().map_err(|()| wrong())?), time()?)
                }
                Some((moment, rank)) if let Some(moment) = Moment::named(moment) => {
                    let rank = rank.parse().map_err(|()| wrong())?;
                    (Measure::Stream(moment, rank), time()?)
                }
                _ => (
                    Measure::Latency(name.parse().map_err(|()| wrong())?),
                    time()?,
                ),
            },
        };
        // An error budget that is exceeded on purpose, or a floor of latency, is a slip.
        let has_floor = matches!(measure, Measure::Throughput | Measure::Tokens);
        if (side == Side::Below) == has_floor {
            return Err(wrong());
        }
        Ok(Self {
            text: text.to_owned(),
            measure,
            side,
            limit,
        })
    }
}

impl FromStr for Objectives {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        bound::list(text).map(Self)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.met { "met" } else { "MISSED" };
        write!(f, "{word}: {}", self.objective)?;
        match self.value {
            None => write!(f, ", there is no such figure"),
            Some(value)
                if ["throughput", "tokens"]
                    .iter()
                    .any(|name| self.objective.starts_with(name)) =>
            {
                write!(f, ", got {value:.1}")
            }
            Some(value) if self.objective.starts_with("unproven") => write!(f, ", got {value}"),
            Some(value) if self.objective.starts_with("errors") => {
                if self.objective.ends_with('%') {
                    write!(f, ", got {:.3}%", value * 100.0)
                } else {
                    write!(f, ", got {value}")
                }
            }
            Some(value) => write!(f, ", got {}", human(value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Objective, Objectives};

    #[test]
    fn objectives_are_read_as_typed() {
        let Objectives(read) = "p99<250ms, errors < 0.1%,errors<5,throughput>100,lag.p99.9<1ms,p99.9<1s,cold.p95<3s,unproven<1,ttft.p95<2s,itl.p99.9<3s,tokens>4"
            .parse()
            .unwrap();
        let limits: Vec<_> = read.iter().map(|o| o.limit).collect();
        assert_eq!(limits.len(), 11);
        for (limit, want) in limits
            .iter()
            .zip([0.25, 0.001, 5.0, 100.0, 0.001, 1.0, 3.0, 1.0, 2.0, 3.0, 4.0])
        {
            assert!((limit - want).abs() < 1e-12, "{limits:?}");
        }
        for text in [
            "",
            "p99",
            "p99<",
            "p99<5",
            "p98<5ms",
            "p99>5ms",
            "errors>1%",
            "errors<x",
            "errors<-1",
            "throughput<5",
            "throughput>nan",
            "throughput>inf",
            "lag.x<1s",
            "cold<1s",
            "warm.p99<1s",
            "unproven>1",
            "ttft.x<1s",
            "ttft<1s",
            "ttxx.p50<1s",
            "ttft.p50>1s",
            "tokens<4",
            "p99<5ms,",
        ] {
            assert!(text.parse::<Objectives>().is_err(), "{text}");
        }
        let error = "p99<5".parse::<Objective>().unwrap_err();
        assert!(
            error.contains("\"p99<5\"") && error.contains("unit"),
            "{error}"
        );
    }
}
