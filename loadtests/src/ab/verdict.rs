//! What may be said of the ratios of blocks.

use super::figure::{Figure, Sums, ratio};
use crate::bootstrap;
use crate::bound::{self, Side};
use serde::Serialize;
use std::str::FromStr;

/// Blocks with fewer ratios have no interval: that the median lies between the least and the greatest of five is less than 95 per cent
/// certain (1 - 2 / 2^5), of six it is more.
pub const LEAST_BLOCKS: usize = 6;

/// How likely the median may lie beyond one end of an interval.
const BEYOND: f64 = 0.025;

/// How far a null test may reach to either side of 1.
pub const NULL_WIDTH: f64 = 0.05;

const ALLOWED: &str = "a limit is throughput, p50, p90, p99, errors or cpu, then < or >, then a ratio of B to A, joined by commas, such as \
                       p99<1.1,cpu<0.9";

/// The ratios of all blocks of one figure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Which.
    pub figure: Figure,
    /// Blocks that have this figure.
    pub blocks: usize,
    /// Median of the ratios; in JSON null where it has no bound, or there is no block.
    pub ratio: Option<f64>,
    /// Where that lies, with 95 per cent; none if there are too few blocks.
    pub interval: Option<Interval>,
}

/// From low to high; in JSON null where there is no bound.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// The ratios of the second to the first of each pair.
pub fn rows(pairs: &[(Sums, Sums)]) -> Vec<Row> {
    Figure::ALL.map(|figure| row(figure, pairs)).into()
}

fn row(figure: Figure, pairs: &[(Sums, Sums)]) -> Row {
    let mut ratios: Vec<_> = pairs
        .iter()
        .filter_map(|(base, other)| ratio(base.value(figure), other.value(figure)))
        .collect();
    ratios.sort_unstable_by(f64::total_cmp);
    let interval = interval(&ratios);
    Row {
        figure,
        blocks: ratios.len(),
        ratio: (!ratios.is_empty()).then(|| bootstrap::median(&mut ratios)),
        interval,
    }
}

/// The interval between two of the ratios, in order, that has their median with 95 per cent at least, whatever their distribution: as many
/// of them are below it as are heads of so many coins. A bootstrap promises as much only of many ratios.
fn interval(sorted: &[f64]) -> Option<Interval> {
    let below = beyond(sorted.len())?;
    Some(Interval {
        low: sorted[below],
        high: sorted[sorted.len() - 1 - below],
    })
}

/// How many of `count` ratios may be left out at each end; none if not even the least and the greatest are far enough apart.
#[expect(clippy::cast_precision_loss, reason = "blocks are few")]
fn beyond(count: usize) -> Option<usize> {
    let mut exactly = 0.5_f64.powi(i32::try_from(count).ok()?);
    let mut at_most = exactly;
    let mut heads = 0;
    while at_most <= BEYOND {
        exactly *= (count - heads) as f64 / (heads + 1) as f64;
        heads += 1;
        at_most += exactly;
    }
    heads.checked_sub(1)
}

/// What may be said of one figure of B beside A.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// B's is lower: the whole interval is below 1.
    Lower,
    /// B's is higher: the whole interval is above 1.
    Higher,
    /// The interval has 1 in it: there is no difference, or one that this run is too short for.
    NoneShown,
    /// Nothing, as the null test does not vouch for this run, or there are too few blocks.
    NoClaim,
}

/// The verdict on one figure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// Which.
    pub figure: Figure,
    /// What may be said.
    pub outcome: Outcome,
    /// The same in words.
    pub words: String,
}

impl Verdict {
    /// Of `row`, for which `nulls` vouch: the figures of A beside A, in blocks of the same run.
    pub fn of(row: &Row, nulls: &[Row]) -> Self {
        let (outcome, words) = match doubt(row, nulls) {
            Err(doubt) => (Outcome::NoClaim, format!("no claim can be made: {doubt}")),
            Ok(interval) => {
                let (outcome, word) = match interval {
                    Interval { high, .. } if high < 1.0 => (Outcome::Lower, "b is lower"),
                    Interval { low, .. } if low > 1.0 => (Outcome::Higher, "b is higher"),
                    _ => (Outcome::NoneShown, "no difference is shown"),
                };
                let middle = row.ratio.unwrap_or(f64::NAN);
                (outcome, format!("{word}: {middle:.3}, {}", shown(interval)))
            }
        };
        Self {
            figure: row.figure,
            outcome,
            words,
        }
    }
}

/// The interval, or why nothing can be claimed from it. A run in which A differs from itself in anything is one in which something else than
/// the servers made a difference, and nobody knows to what; how certain the null test is, is a matter of each figure.
fn doubt(row: &Row, nulls: &[Row]) -> Result<Interval, String> {
    let null = nulls.iter().find(|null| null.figure == row.figure);
    let null = null.ok_or("there is no such figure of a against itself")?;
    let differing = nulls.iter().find_map(|null| {
        let interval = null.interval?;
        (interval.low > 1.0 || interval.high < 1.0).then_some((null.figure, interval))
    });
    if let Some((figure, interval)) = differing {
        let (figure, interval) = (figure.name(), shown(interval));
        return Err(format!("a differs from itself in {figure}, {interval}"));
    }
    let vouching = null.interval.ok_or_else(|| match null.blocks {
        0 => "no block of a against itself counts".to_owned(),
        blocks => {
            format!("{blocks} blocks of a against itself count, and {LEAST_BLOCKS} are needed")
        }
    })?;
    if vouching.low < 1.0 - NULL_WIDTH || vouching.high > 1.0 + NULL_WIDTH {
        let most = NULL_WIDTH * 100.0;
        return Err(format!(
            "a against itself is uncertain by more than {most} %, {}",
            shown(vouching)
        ));
    }
    row.interval
        .ok_or_else(|| format!("{} blocks count, and {LEAST_BLOCKS} are needed", row.blocks))
}

pub(super) fn shown(Interval { low, high }: Interval) -> String {
    format!("{low:.3} to {high:.3}")
}

/// What a ratio is to be, as typed: `p99<1.1`.
#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    text: String,
    figure: Figure,
    side: Side,
    ratio: f64,
}

/// Limits as typed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limits(pub Vec<Limit>);

/// Whether a limit is kept.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Kept {
    /// The limit, as typed.
    pub limit: String,
    /// True only if the whole interval is on the right side, and the null test vouches for it.
    pub met: bool,
    /// Why not, if not.
    pub words: String,
}

impl Limit {
    /// Holds the ratios of B to A to it.
    pub fn judge(&self, rows: &[Row], nulls: &[Row]) -> Kept {
        let row = rows.iter().find(|row| row.figure == self.figure);
        let none = || "there is no such figure".to_owned();
        let interval = row.ok_or_else(none).and_then(|row| doubt(row, nulls));
        let holds = |end| self.side.holds(end, self.ratio);
        let (met, words) = match interval {
            Err(doubt) => (false, format!("nothing shows it: {doubt}")),
            Ok(interval) => match (holds(interval.low), holds(interval.high)) {
                (true, true) => (true, String::new()),
                (false, false) => (false, format!("it is not kept: {}", shown(interval))),
                _ => (false, format!("it may be kept or not: {}", shown(interval))),
            },
        };
        Kept {
            limit: self.text.clone(),
            met,
            words,
        }
    }
}

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let read = bound::ratio(text, &Figure::ALL, Figure::name);
        let (figure, side, ratio) = read.ok_or_else(|| format!("{text:?}: {ALLOWED}"))?;
        Ok(Self {
            text: text.to_owned(),
            figure,
            side,
            ratio,
        })
    }
}

impl FromStr for Limits {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        bound::list(text).map(Self)
    }
}

/// Why a block does not count, by rules that cannot see who is better.
pub mod reject {
    use super::super::figure::Sums;
    use super::super::machine::Usage;
    use super::super::plan::Arm;

    /// Share of the machine's time that its host took, at most.
    pub const STEAL: f64 = 0.01;
    /// Share of the machine's time that went to processes that have no part in this, at most.
    pub const FOREIGN: f64 = 0.02;
    /// The tool's lag at the 99th percentile to the median latency, at most.
    pub const LAG: f64 = 0.1;
    /// Share of the planned time in which the tool stood still, at most.
    pub const MISSED: f64 = 0.01;

    /// Of some slices of the same length; none if it is known of none of them.
    #[expect(clippy::cast_precision_loss, reason = "a block has six slices")]
    pub fn mean(usages: &[Usage], of: fn(&Usage) -> Option<f64>) -> Option<f64> {
        let known: Vec<_> = usages.iter().filter_map(of).collect();
        (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
    }

    /// All reasons. Of steal the worst slice decides; what processes took is counted in steps that are large beside a slice, so that it is taken
    /// over all of them.
    pub fn reasons(usages: &[Usage], arms: &[(Arm, Sums)]) -> Vec<String> {
        let worst =
            |of: fn(&Usage) -> Option<f64>| usages.iter().filter_map(of).fold(0.0, f64::max);
        let steal = worst(|u| u.steal);
        let foreign = mean(usages, |u| u.foreign).unwrap_or_default();
        let mut reasons = Vec::new();
        if steal > STEAL {
            reasons.push(format!("steal {:.1} %, more than 1 %", steal * 100.0));
        }
        if foreign > FOREIGN {
            let percent = foreign * 100.0;
            reasons.push(format!(
                "other processes took {percent:.1} % of the CPU, more than 2 %"
            ));
        }
        for (arm, sums) in arms {
            reasons.extend(of_arm(sums).map(|reason| format!("{}: {reason}", arm.name())));
        }
        reasons
    }

    fn of_arm(sums: &Sums) -> impl Iterator<Item = String> {
        let lag = sums.lag.quantile(0.99).map(|lag| lag.as_secs_f64());
        let median = sums.latency.quantile(0.5);
        let late = lag
            .zip(median.map(|median| median.as_secs_f64()))
            .filter(|(lag, p50)| *lag > LAG * p50);
        let late = late.map(|(lag, p50)| {
            let (lag, p50) = (crate::unit::human(lag), crate::unit::human(p50));
            format!("lag p99 {lag}, more than 10 % of the p50 of {p50}")
        });
        let missed = (sums.planned > 0.0).then(|| sums.lost / sums.planned);
        let missed = missed.filter(|missed| *missed > MISSED).map(|missed| {
            let percent = missed * 100.0;
            format!("the tool stood still for {percent:.1} % of the time, more than 1 %")
        });
        late.into_iter().chain(missed)
    }
}

#[cfg(test)]
mod tests;
