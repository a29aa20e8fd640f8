//! The command line of `ab`.

use super::plan::Arm;
use super::run::Setup;
use super::verdict::Limits;
use crate::args::Sending;
use crate::error::Error;
use crate::unit::parse_duration;
use std::path::PathBuf;
use std::time::Duration;

/// The longest slice: a block takes six.
const LONGEST: Duration = Duration::from_hours(1);
/// The shortest: below it, the 10 ms in which the kernel counts are more than the 2 % that other processes may take.
const SHORTEST: Duration = Duration::from_millis(500);

// No doc comment: clap would take it for the command's own.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct AbArgs {
    /// What to compare with: an absolute http URL.
    #[arg(long, value_name = "URL", help_heading = "Comparison")]
    a: String,

    /// What is compared.
    #[arg(long, value_name = "URL", help_heading = "Comparison")]
    b: String,

    /// What both are measured against, such as the same server without a proxy.
    #[arg(long, value_name = "URL", help_heading = "Comparison")]
    direct: Option<String>,

    /// Blocks of D A B B A D (without --direct A B B A), where A and B change places in every second one. 12 are good for a claim, and
    /// fewer than 6 for none.
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u16).range(1..=1000), help_heading = "Comparison")]
    blocks: u16,

    /// Blocks among these in which A is measured against itself: what differs there is no difference of the servers [default: as
    /// many as --blocks].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=1000), help_heading = "Comparison")]
    null_blocks: Option<u16>,

    /// How long each slice of a block is measured, 500ms to 1h.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration, help_heading = "Comparison")]
    slice: Duration,

    /// Load before each slice that does not count.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration, help_heading = "Comparison")]
    discard: Duration,

    /// Processes of A, whose CPU time per request is told.
    #[arg(
        long,
        value_name = "PID[,PID]",
        value_delimiter = ',',
        help_heading = "Comparison"
    )]
    pid_a: Vec<u32>,

    /// Processes of B.
    #[arg(
        long,
        value_name = "PID[,PID]",
        value_delimiter = ',',
        help_heading = "Comparison"
    )]
    pid_b: Vec<u32>,

    /// Processes of --direct.
    #[arg(
        long,
        value_name = "PID[,PID]",
        value_delimiter = ',',
        requires = "direct",
        help_heading = "Comparison"
    )]
    pid_direct: Vec<u32>,

    /// Processes that take part and whose CPU time is nobody's, such as a model behind two proxies. Blocks in which processes that are not
    /// given here or above take more than 2 % of the machine are rejected, if those of all arms are given.
    #[arg(
        long,
        value_name = "PID[,PID]",
        value_delimiter = ',',
        help_heading = "Comparison"
    )]
    pid_other: Vec<u32>,

    /// What the ratios of B to A are to be, such as p99<1.1,cpu<0.9: of throughput, p50, p90, p99, errors and cpu. Met only if the whole
    /// interval is, and A against itself shows that this run can tell.
    #[arg(long, value_name = "LIMITS", help_heading = "Comparison")]
    limit: Option<Limits>,

    /// Write the result as JSON to FILE, or with - to standard output instead of the table.
    #[arg(long, value_name = "FILE", help_heading = "Comparison")]
    pub(crate) json: Option<PathBuf>,

    #[command(flatten)]
    sending: Sending,
}

impl AbArgs {
    /// What was asked for.
    pub(crate) fn setup(&self) -> Result<Setup, Error> {
        if !(SHORTEST..=LONGEST).contains(&self.slice) {
            return Err(Error::invalid(
                "--slice",
                format!("{:?}", self.slice),
                "500ms to 1h",
            ));
        }
        if self.discard > LONGEST {
            return Err(Error::invalid(
                "--discard",
                format!("{:?}", self.discard),
                "at most 1h",
            ));
        }
        let urls = [
            ("--a", Arm::A, Some(&self.a)),
            ("--b", Arm::B, Some(&self.b)),
            ("--direct", Arm::Direct, self.direct.as_ref()),
        ];
        let arms = urls
            .into_iter()
            .filter_map(|(flag, arm, url)| Some((flag, arm, url?)))
            .map(|(flag, arm, url)| {
                let config = self.sending.slice(url, self.slice, self.discard);
                Ok((arm, config.map_err(|error| error.renamed("URL", flag))?))
            })
            .collect::<Result<_, Error>>()?;
        let pids = [
            (Arm::A, &self.pid_a),
            (Arm::B, &self.pid_b),
            (Arm::Direct, &self.pid_direct),
        ];
        let pids = pids.into_iter().filter(|(_, pids)| !pids.is_empty());
        Ok(Setup {
            arms,
            pids: pids.map(|(arm, pids)| (arm, pids.clone())).collect(),
            pids_other: self.pid_other.clone(),
            blocks: usize::from(self.blocks),
            null_blocks: usize::from(self.null_blocks.unwrap_or(self.blocks)),
            slice: self.slice,
            discard: self.discard,
            limits: self.limit.clone().unwrap_or_default(),
        })
    }
}
