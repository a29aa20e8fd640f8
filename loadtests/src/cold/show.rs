//! Cold starts as a person reads them.

use super::report::{Cold, Kind, Owner, Wake};
use crate::report::Percentiles;
use crate::unit::human;
use std::fmt;

/// Wakes that are told one by one.
const MOST_LINES: usize = 10;

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Cold => "cold",
            Self::FirstOnNode => "first on node",
            Self::Joined => "joined",
            Self::Unproven => "unproven",
            Self::Warm => "warm",
            Self::Failed => "failed",
        })
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tool => "this tool",
            Self::Control => "autoscaler",
            Self::ApiServer => "API server",
            Self::Kubernetes => "Kubernetes",
            Self::Model => "model",
            Self::Unknown => "not told apart",
        })
    }
}

impl fmt::Display for Cold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        head(f, &format!("cold starts, {}", self.mode))?;
        for class in &self.classes {
            row(f, &class.kind.to_string(), &class.latency, None)?;
        }
        if self.class(Kind::Cold).is_none() {
            writeln!(f, "  no request is proven to have been cold")?;
        }
        if self.starved > 0 {
            writeln!(
                f,
                "  {} requests that were to be cold found no target at zero",
                self.starved
            )?;
        }
        if !self.owners.is_empty() {
            head(f, "whose time, cold")?;
            for sum in &self.owners {
                row(f, &sum.owner.to_string(), &sum.latency, Some(sum.share))?;
            }
            head(f, "phase, up to")?;
            for sum in &self.phases {
                row(f, &sum.name, &sum.latency, Some(sum.share))?;
            }
        }
        if !self.wakes.is_empty() {
            writeln!(f)?;
        }
        for wake in self.wakes.iter().take(MOST_LINES) {
            line(f, wake)?;
        }
        let more = self.wakes.len().saturating_sub(MOST_LINES) as u64 + self.wakes_omitted;
        if more > 0 {
            writeln!(f, "  and {more} more")?;
        }
        Ok(())
    }
}

fn head(f: &mut fmt::Formatter<'_>, title: &str) -> fmt::Result {
    writeln!(
        f,
        "\n  {title:<22}{:>8}{:>10}{:>10}{:>10}{:>10}{:>10}",
        "n", "p50", "p90", "p99", "max", "share"
    )
}

fn row(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    values: &Percentiles,
    share: Option<f64>,
) -> fmt::Result {
    write!(f, "    {name:<20}{:>8}", values.count)?;
    for value in [values.p50, values.p90, values.p99, values.max] {
        write!(f, "{:>10}", value.map_or_else(|| "-".into(), human))?;
    }
    match share {
        Some(share) => writeln!(f, "{:>9.1}%", share * 100.0),
        None => writeln!(f),
    }
}

fn line(f: &mut fmt::Formatter<'_>, wake: &Wake) -> fmt::Result {
    writeln!(
        f,
        "  {:<10}{:<13} {}: {}",
        human(wake.latency),
        wake.kind,
        wake.workload,
        wake.reason
    )
}
