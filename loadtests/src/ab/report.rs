//! What an interleaved run found, as other programs and as people read it. `ab.schema.json` beside the crate is the contract; a test
//! holds both together.

use super::figure::{Figure, Sums};
use super::plan::{Arm, Purpose};
use super::verdict::{Interval, Kept, LEAST_BLOCKS, Outcome, Row, Verdict, shown};
use crate::report::Settings;
use crate::unit::human;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// The version of the JSON form. Fields may be added within a version; none is removed or given a new meaning.
pub const SCHEMA_VERSION: u32 = 1;

/// The whole result. Durations are in seconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ab {
    /// See [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Name and version of the program.
    pub tool: String,
    /// When it began, in seconds since 1970.
    pub started_at: f64,
    /// True if it was stopped early: only whole blocks are in it.
    pub interrupted: bool,
    /// What ended it early, if something did: as of a stopped one, only whole blocks are in it.
    pub failed: Option<String>,
    /// What was asked for.
    pub config: AbSettings,
    /// Seconds until each target was ready, if that was waited for.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub ready_after: BTreeMap<Arm, f64>,
    /// Each block, one after the other.
    pub blocks: Vec<BlockResult>,
    /// Blocks that compare and count, and that do not.
    pub compared: Counts,
    /// Blocks of the null test that count, and that do not.
    pub null: Counts,
    /// All requests of each arm in the comparing blocks that count.
    pub arms: BTreeMap<Arm, Figures>,
    /// Ratios, as medians over blocks.
    pub ratios: Vec<Ratios>,
    /// What may be said of B beside A.
    pub verdicts: Vec<Verdict>,
    /// True if the null test vouches for no figure at all.
    pub no_claims: bool,
    /// The same in a sentence.
    pub verdict: String,
    /// Limits, and whether each is kept.
    pub limits: Vec<Kept>,
    /// Processes that ended during the run.
    pub ended: Vec<Ended>,
    /// What could not be checked or not be measured finely.
    pub notes: Vec<String>,
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AbSettings {
    /// The URL of each arm.
    pub urls: BTreeMap<Arm, String>,
    /// Ids of the processes of each arm.
    pub pids: BTreeMap<Arm, Vec<u32>>,
    /// Ids of processes that take part and are of no arm.
    pub pids_other: Vec<u32>,
    /// Blocks that compare.
    pub blocks: usize,
    /// Blocks of the null test.
    pub null_blocks: usize,
    /// Seconds that are measured of each slice.
    pub slice: f64,
    /// Seconds before that which are not.
    pub discard: f64,
    /// The load of a slice of A in the first block.
    pub load: Settings,
}

/// One block.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BlockResult {
    /// What it was for.
    pub purpose: Purpose,
    /// Which of its kind, from 1.
    pub number: usize,
    /// Whose turn it was, one after the other.
    pub order: Vec<Arm>,
    /// Both slices of each arm together.
    pub arms: BTreeMap<Arm, Figures>,
    /// Share of the machine's time that its host took, in the worst slice.
    pub steal: Option<f64>,
    /// Share that other processes took, over all slices; none if the processes of an arm are not known.
    pub foreign: Option<f64>,
    /// Why it does not count, if it does not.
    pub rejected: Vec<String>,
}

/// Figures of one arm.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// Requests that ended.
    pub requests: u64,
    /// Those among them that were errors.
    pub error_count: u64,
    /// Measured.
    pub seconds: f64,
    /// Successful requests per second.
    pub throughput: Option<f64>,
    /// Median latency, failed requests among them as endless; null where that is endless, or there is none.
    pub p50: Option<f64>,
    /// 90th percentile.
    pub p90: Option<f64>,
    /// 99th percentile.
    pub p99: Option<f64>,
    /// Errors among all requests.
    pub errors: Option<f64>,
    /// CPU time of the processes per successful request.
    pub cpu: Option<f64>,
    /// By which the tool was late, 99th percentile.
    pub lag_p99: Option<f64>,
}

impl Figures {
    pub(super) fn of(sums: &Sums) -> Self {
        let value = |figure| sums.value(figure).filter(|value| value.is_finite());
        Self {
            requests: sums.requests,
            error_count: sums.errors,
            seconds: sums.seconds,
            throughput: value(Figure::Throughput),
            p50: value(Figure::P50),
            p90: value(Figure::P90),
            p99: value(Figure::P99),
            errors: value(Figure::Errors),
            cpu: value(Figure::Cpu),
            lag_p99: sums.lag.quantile(0.99).map(|lag| lag.as_secs_f64()),
        }
    }

    fn shown(&self, figure: Figure) -> String {
        let value = match figure {
            Figure::Throughput => self.throughput.map(|value| format!("{value:.1}/s")),
            Figure::P50 => self.p50.map(human),
            Figure::P90 => self.p90.map(human),
            Figure::P99 => self.p99.map(human),
            Figure::Errors => self.errors.map(|value| format!("{:.3}%", value * 100.0)),
            Figure::Cpu => self.cpu.map(|value| format!("{:.1} us", value * 1e6)),
        };
        value.unwrap_or_else(|| "-".to_owned())
    }
}

/// How many blocks count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// They do.
    pub accepted: usize,
    /// They do not.
    pub rejected: usize,
}

/// All figures of one arm to those of another.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ratios {
    /// Which arm.
    pub of: Arm,
    /// To which.
    pub to: Arm,
    /// Figure by figure.
    pub rows: Vec<Row>,
}

/// A process that is there no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ended {
    /// Its id.
    pub pid: u32,
    /// Its arm, if it was of one.
    pub arm: Option<Arm>,
    /// By the end of which block, counted from 1 through all of them.
    pub block: usize,
}

/// What the figures that something may be said of come to, in a sentence.
pub(super) fn sentence(verdicts: &[Verdict]) -> (bool, String) {
    let named = |outcome| {
        let of = verdicts.iter().filter(|verdict| verdict.outcome == outcome);
        of.map(|verdict| verdict.figure.name())
            .collect::<Vec<_>>()
            .join(", ")
    };
    let parts = [
        (Outcome::Lower, "b is lower in "),
        (Outcome::Higher, "b is higher in "),
        (Outcome::NoneShown, "no difference is shown in "),
        (Outcome::NoClaim, "no claim can be made of "),
    ];
    let no_claims = verdicts
        .iter()
        .all(|verdict| verdict.outcome == Outcome::NoClaim);
    if no_claims {
        return (true, "no claim can be made from this run".to_owned());
    }
    let parts = parts.map(|(outcome, words)| (words, named(outcome)));
    let parts = parts.into_iter().filter(|(_, names)| !names.is_empty());
    let parts: Vec<_> = parts
        .map(|(words, names)| format!("{words}{names}"))
        .collect();
    (false, parts.join("; "))
}

impl fmt::Display for Ab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.head(f)?;
        self.counts(f)?;
        self.figures(f)?;
        let has_blocks = |ratios: &&Ratios| ratios.rows.iter().any(|row| row.blocks > 0);
        for ratios in self.ratios.iter().filter(has_blocks) {
            write!(
                f,
                "\n  {:<18}",
                format!("{} / {}", ratios.of.name(), ratios.to.name())
            )?;
            writeln!(f, "{:>9}  95 % interval", "median")?;
            ratios
                .rows
                .iter()
                .filter(|row| row.blocks > 0)
                .try_for_each(|row| line(f, row))?;
        }
        writeln!(f)?;
        for verdict in &self.verdicts {
            writeln!(f, "  {:<12}{}", verdict.figure.name(), verdict.words)?;
        }
        writeln!(f, "\n  {}", self.verdict)?;
        for kept in &self.limits {
            if kept.met {
                writeln!(f, "  met: {}", kept.limit)?;
            } else {
                writeln!(f, "  MISSED: {}, {}", kept.limit, kept.words)?;
            }
        }
        self.ended.iter().try_for_each(|ended| {
            let arm = ended
                .arm
                .map_or(String::new(), |arm| format!(" of {}", arm.name()));
            writeln!(
                f,
                "  process {}{arm} ended by the end of block {} of all",
                ended.pid, ended.block
            )
        })?;
        self.notes
            .iter()
            .try_for_each(|note| writeln!(f, "  {note}"))
    }
}

impl Ab {
    fn head(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (config, load) = (&self.config, &self.config.load);
        for (arm, url) in &config.urls {
            write!(f, "{:<8}{url}", arm.name())?;
            match self.ready_after.get(arm) {
                Some(seconds) => writeln!(f, "  ready after {}", human(*seconds))?,
                None => writeln!(f)?,
            }
        }
        let rate = load
            .stages
            .first()
            .map(|stage| format!(" at {}/s", stage.rate));
        write!(
            f,
            "{}  {} loop{}",
            load.method,
            load.load,
            rate.unwrap_or_default()
        )?;
        let (slice, discard) = (human(config.slice), human(config.discard));
        write!(
            f,
            ", {} connections, slices of {slice} after {discard} that do not count",
            load.connections
        )?;
        writeln!(f)?;
        if let Some(failed) = &self.failed {
            writeln!(
                f,
                "ended early, {failed}: only whole blocks are in this report"
            )?;
        }
        if self.interrupted {
            writeln!(f, "stopped early: only whole blocks are in this report")?;
        }
        Ok(())
    }

    fn counts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { accepted, rejected } = self.compared;
        writeln!(f, "\n  {accepted} blocks count, {rejected} are rejected")?;
        let Counts { accepted, rejected } = self.null;
        writeln!(
            f,
            "  {accepted} blocks of a against itself count, {rejected} are rejected"
        )?;
        // More than this tell a person nothing; the JSON has them all.
        for block in self
            .blocks
            .iter()
            .filter(|block| !block.rejected.is_empty())
            .take(10)
        {
            let purpose = match block.purpose {
                Purpose::Compare => "block",
                Purpose::Null => "null block",
            };
            writeln!(
                f,
                "    {purpose} {}: {}",
                block.number,
                block.rejected.join("; ")
            )?;
        }
        Ok(())
    }

    fn figures(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.arms.is_empty() {
            return Ok(());
        }
        write!(f, "\n  {:<12}", "")?;
        self.arms
            .keys()
            .try_for_each(|arm| write!(f, "{:>12}", arm.name()))?;
        writeln!(f)?;
        for figure in Figure::ALL {
            write!(f, "  {:<12}", figure.name())?;
            self.arms
                .values()
                .try_for_each(|arm| write!(f, "{:>12}", arm.shown(figure)))?;
            writeln!(f)?;
        }
        Ok(())
    }
}

fn line(f: &mut fmt::Formatter<'_>, row: &Row) -> fmt::Result {
    let ratio = row
        .ratio
        .map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.3}"));
    let interval = row.interval.map_or_else(
        || format!("none: {} blocks, {LEAST_BLOCKS} are needed", row.blocks),
        |interval: Interval| shown(interval),
    );
    writeln!(f, "  {:<18}{ratio:>9}  {interval}", row.figure.name())
}
