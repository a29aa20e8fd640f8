//! The run itself: slice after slice, with the machine read before and after each.

use super::figure::Sums;
use super::machine::{Moment, Usage, Watched};
use super::plan::{Arm, Block, Purpose, blocks};
use super::report::{
    Ab, AbSettings, BlockResult, Counts, Ended, Figures, Ratios, SCHEMA_VERSION, sentence,
};
use super::verdict::{Limits, Row, Verdict, reject, rows};
use crate::config::{Config, Load};
use crate::error::Error;
use crate::progress::Progress;
use crate::ready;
use crate::report::Settings;
use crate::run::{Mark, run_marked, stopped};
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{oneshot, watch};
use tokio::time::sleep;

/// What to do.
#[derive(Clone, Debug)]
pub struct Setup {
    /// A slice of each arm: a load of the length of a slice, with what is discarded as its warm-up.
    pub arms: BTreeMap<Arm, Config>,
    /// Processes of each arm.
    pub pids: BTreeMap<Arm, Vec<u32>>,
    /// Processes that take part and are of no arm.
    pub pids_other: Vec<u32>,
    /// Blocks that compare.
    pub blocks: usize,
    /// Blocks of the null test.
    pub null_blocks: usize,
    /// How long a slice is measured.
    pub slice: Duration,
    /// How long before that it is not.
    pub discard: Duration,
    /// What the ratios of B to A are to be.
    pub limits: Limits,
}

/// How it is doing.
#[derive(Clone, Debug)]
pub struct Stage {
    /// Which block, from 1.
    pub block: usize,
    /// Of how many.
    pub blocks: usize,
    /// Whose turn it is.
    pub arm: Arm,
    /// Of the slice.
    pub progress: Progress,
}

/// A process and the arm that it is of.
type Member = (Option<Arm>, Watched);

/// Runs all blocks, or those until `stop` is sent `true`, and tells what they come to.
///
/// # Errors
/// A setting that makes no sense, a process that does not run, or a target that is not ready in time, before anything is measured; or
/// whatever ends the first block. What ends a later one is in the result.
///
/// # Cancel safety
/// Dropping the future stops the load.
pub async fn run(
    setup: &Setup,
    progress: impl Fn(Stage),
    mut stop: watch::Receiver<bool>,
) -> Result<Ab, Error> {
    setup.arms.values().try_for_each(Config::check)?;
    let members = members(setup)?;
    let started_at = SystemTime::now();
    let mut found = Found::default();
    tokio::select! {
        waited = wait(setup) => found.ready_after = waited?,
        () = stopped(&mut stop) => {
            found.interrupted = true;
            return Ok(found.report(setup, &members, started_at));
        }
    }
    let plan = blocks(
        setup.blocks,
        setup.null_blocks,
        setup.arms.contains_key(&Arm::Direct),
    );
    for (number, block) in (1..).zip(&plan) {
        let stage = |arm, slice: Progress| {
            progress(Stage {
                block: number,
                blocks: plan.len(),
                arm,
                progress: slice,
            });
        };
        let measured = match measure(setup, &members, block, stage, &stop).await {
            Ok(Some(measured)) => measured,
            Ok(None) => {
                found.interrupted = true;
                break;
            }
            // Such as a name that is not found any more. What was measured until then is not worth less.
            Err(error) if !found.blocks.is_empty() => {
                found.failed = Some(error.to_string());
                break;
            }
            Err(error) => return Err(error),
        };
        found.note_ended(&members, number);
        found.blocks.push((block.clone(), measured));
    }
    Ok(found.report(setup, &members, started_at))
}

async fn wait(setup: &Setup) -> Result<BTreeMap<Arm, f64>, Error> {
    let mut waited = BTreeMap::new();
    for (arm, config) in &setup.arms {
        if let Some(time) = ready::wait(config).await? {
            waited.insert(*arm, time.as_secs_f64());
        }
    }
    Ok(waited)
}

fn members(setup: &Setup) -> Result<Vec<Member>, Error> {
    let flag = |arm| match arm {
        Arm::A | Arm::Again => "--pid-a",
        Arm::B => "--pid-b",
        Arm::Direct => "--pid-direct",
    };
    let of_arms = setup
        .pids
        .iter()
        .flat_map(|(arm, pids)| pids.iter().map(move |pid| (Some(*arm), flag(*arm), *pid)));
    let others = setup
        .pids_other
        .iter()
        .map(|pid| (None, "--pid-other", *pid));
    of_arms
        .chain(others)
        .map(|(arm, flag, pid)| {
            let watched = Watched::find(pid);
            let allowed = "the id of a process that runs";
            let watched = watched.ok_or_else(|| Error::invalid(flag, pid.to_string(), allowed))?;
            Ok((arm, watched))
        })
        .collect()
}

/// What was measured of one block.
#[derive(Debug)]
struct Measured {
    arms: BTreeMap<Arm, Sums>,
    usages: Vec<Usage>,
}

/// All slices of a block; none if it was stopped.
async fn measure(
    setup: &Setup,
    members: &[Member],
    block: &Block,
    progress: impl Fn(Arm, Progress),
    stop: &watch::Receiver<bool>,
) -> Result<Option<Measured>, Error> {
    let mut slices: BTreeMap<Arm, Vec<Sums>> = BTreeMap::new();
    let mut usages = Vec::new();
    for arm in &block.order {
        let server = if *arm == Arm::Again { Arm::A } else { *arm };
        let config = slice(&setup.arms[&server], block);
        let watched: Vec<_> = members.iter().map(|(_, watched)| *watched).collect();
        let (tell, measured) = oneshot::channel();
        let mut tell = Some(tell);
        let sending = run_marked(
            config,
            |slice| progress(*arm, slice),
            stop.clone(),
            |mark| {
                if let (Mark::Measured, Some(tell)) = (mark, tell.take()) {
                    let _stopped = tell.send(Moment::now(&watched));
                }
            },
        );
        // Work that is begun before the slice is counted in it, so that what is left at its end must not be as well: the
        // end is the planned one, and not that of the last answer.
        let mut stop_watching = stop.clone();
        let watching = async {
            let Ok(before) = measured.await else {
                return Ok(None);
            };
            tokio::select! {
                () = sleep(setup.slice) => Ok(Some((before, Moment::now(&watched)))),
                () = stopped(&mut stop_watching) => Ok(None),
            }
        };
        let (report, moments) = tokio::try_join!(sending, watching)?;
        if report.interrupted {
            return Ok(None);
        }
        let usage = moments.map_or_else(Usage::default, |(before, after)| {
            after.since(&before, &watched, setup.knows_all())
        });
        let cpu = cpu(members, server, &usage);
        let sums = Sums::of(&report, cpu)
            .ok_or_else(|| Error::Worker("its own histograms cannot be read".to_owned()))?;
        slices.entry(*arm).or_default().push(sums);
        usages.push(usage);
    }
    let arms = slices
        .into_iter()
        .filter_map(|(arm, slices)| Some((arm, Sums::total(&slices)?)));
    Ok(Some(Measured {
        arms: arms.collect(),
        usages,
    }))
}

/// The load of a slice. All slices of a block meet the same arrivals, each block others.
fn slice(config: &Config, block: &Block) -> Config {
    let mut config = config.clone();
    config.ready = None;
    if let Load::Open(schedule) = &mut config.load {
        schedule.seed = schedule.seed.wrapping_add(block.number as u64);
    }
    config
}

/// CPU time of the processes of an arm; none if it has none, or one has ended.
fn cpu(members: &[Member], arm: Arm, usage: &Usage) -> Option<f64> {
    let of_arm = members
        .iter()
        .zip(&usage.cpu)
        .filter(|((of, _), _)| *of == Some(arm));
    let times: Option<Vec<_>> = of_arm.map(|(_, cpu)| cpu.map(|cpu| cpu.seconds)).collect();
    times
        .filter(|times| !times.is_empty())
        .map(|times| times.iter().sum())
}

impl Setup {
    /// Whether the processes of all arms are known.
    fn knows_all(&self) -> bool {
        let has_pids = |arm| self.pids.get(arm).is_some_and(|pids| !pids.is_empty());
        self.arms.keys().all(has_pids)
    }
}

/// What has been measured so far.
#[derive(Debug, Default)]
struct Found {
    interrupted: bool,
    failed: Option<String>,
    ready_after: BTreeMap<Arm, f64>,
    blocks: Vec<(Block, Measured)>,
    ended: Vec<Ended>,
}

impl Found {
    fn note_ended(&mut self, members: &[Member], block: usize) {
        for (arm, watched) in members {
            let is_known = self.ended.iter().any(|ended| ended.pid == watched.pid);
            if !is_known && !watched.lives() {
                self.ended.push(Ended {
                    pid: watched.pid,
                    arm: *arm,
                    block,
                });
            }
        }
    }

    fn report(self, setup: &Setup, members: &[Member], started_at: SystemTime) -> Ab {
        let results: Vec<_> = self
            .blocks
            .iter()
            .map(|(block, measured)| result(block, measured))
            .collect();
        let accepted = |purpose| {
            let blocks = self.blocks.iter().zip(&results);
            blocks
                .filter(move |(_, result)| result.purpose == purpose && result.rejected.is_empty())
                .map(|((_, measured), _)| measured)
        };
        let ratios = |purpose, of, to| {
            let pairs = accepted(purpose)
                .filter_map(|m| Some((m.arms.get(&to)?.clone(), m.arms.get(&of)?.clone())));
            let rows = rows(&pairs.collect::<Vec<_>>());
            Ratios { of, to, rows }
        };
        let (compared, null) = (
            ratios(Purpose::Compare, Arm::B, Arm::A),
            ratios(Purpose::Null, Arm::Again, Arm::A),
        );
        let has_answer = |row: &&Row| row.blocks > 0 || setup.is_asked(row.figure);
        let asked = compared.rows.iter().filter(has_answer);
        let verdicts: Vec<_> = asked.map(|row| Verdict::of(row, &null.rows)).collect();
        let (no_claims, verdict) = sentence(&verdicts);
        let limits = setup
            .limits
            .0
            .iter()
            .map(|limit| limit.judge(&compared.rows, &null.rows))
            .collect();
        let mut all = vec![compared, null];
        if setup.arms.contains_key(&Arm::Direct) {
            all.push(ratios(Purpose::Compare, Arm::A, Arm::Direct));
            all.push(ratios(Purpose::Compare, Arm::B, Arm::Direct));
        }
        let arms = Arm::ALL.into_iter().filter_map(|arm| {
            let parts = accepted(Purpose::Compare).filter_map(|measured| measured.arms.get(&arm));
            Some((arm, Figures::of(&Sums::total(parts)?)))
        });
        Ab {
            schema_version: SCHEMA_VERSION,
            tool: concat!("rouse-load ", env!("CARGO_PKG_VERSION")).into(),
            started_at: started_at
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default()
                .as_secs_f64(),
            interrupted: self.interrupted,
            config: setup.settings(),
            compared: counts(&results, Purpose::Compare),
            null: counts(&results, Purpose::Null),
            arms: arms.collect(),
            ratios: all,
            verdicts,
            no_claims,
            verdict,
            limits,
            notes: self.notes(setup, members),
            failed: self.failed,
            ready_after: self.ready_after,
            ended: self.ended,
            blocks: results,
        }
    }

    fn notes(&self, setup: &Setup, members: &[Member]) -> Vec<String> {
        let mut notes = Vec::new();
        let usages = || {
            self.blocks
                .iter()
                .flat_map(|(_, measured)| &measured.usages)
        };
        if !setup.knows_all() {
            notes.push("what other processes took was not checked: the processes of all arms are not given".to_owned());
        }
        if setup.knows_all() && !self.ended.is_empty() {
            notes.push(
                "what other processes took was not checked any more once one of the given processes had ended"
                    .to_owned(),
            );
        }
        if usages().any(|usage| usage.steal.is_none()) {
            notes.push("steal was not checked: /proc/stat cannot be read".to_owned());
        }
        for (index, (_, watched)) in members.iter().enumerate() {
            let coarse = usages().filter(|usage| {
                usage
                    .cpu
                    .get(index)
                    .copied()
                    .flatten()
                    .is_some_and(|cpu| cpu.is_coarse)
            });
            let count = coarse.count();
            if count > 0 {
                notes.push(format!(
                    "CPU of process {} is in steps of 10 ms in {count} slices: threads of it ended",
                    watched.pid
                ));
            }
        }
        notes
    }
}

fn result(block: &Block, measured: &Measured) -> BlockResult {
    let worst =
        |of: fn(&Usage) -> Option<f64>| measured.usages.iter().filter_map(of).reduce(f64::max);
    let sums: Vec<_> = measured
        .arms
        .iter()
        .map(|(arm, sums)| (*arm, sums.clone()))
        .collect();
    BlockResult {
        purpose: block.purpose,
        number: block.number,
        order: block.order.clone(),
        arms: measured
            .arms
            .iter()
            .map(|(arm, sums)| (*arm, Figures::of(sums)))
            .collect(),
        steal: worst(|usage| usage.steal),
        foreign: reject::mean(&measured.usages, |usage| usage.foreign),
        rejected: reject::reasons(&measured.usages, &sums),
    }
}

fn counts(results: &[BlockResult], purpose: Purpose) -> Counts {
    let (accepted, rejected): (Vec<_>, Vec<_>) = results
        .iter()
        .filter(|result| result.purpose == purpose)
        .partition(|result| result.rejected.is_empty());
    Counts {
        accepted: accepted.len(),
        rejected: rejected.len(),
    }
}

impl Setup {
    /// Whether a figure that no block has is worth a word: without processes there is no CPU time, and nobody wonders.
    fn is_asked(&self, figure: super::figure::Figure) -> bool {
        figure != super::figure::Figure::Cpu || self.pids.values().any(|pids| !pids.is_empty())
    }

    fn settings(&self) -> AbSettings {
        AbSettings {
            urls: self
                .arms
                .iter()
                .map(|(arm, config)| (*arm, config.url.to_string()))
                .collect(),
            pids: self.pids.clone(),
            pids_other: self.pids_other.clone(),
            blocks: self.blocks,
            null_blocks: self.null_blocks,
            slice: self.slice.as_secs_f64(),
            discard: self.discard.as_secs_f64(),
            load: Settings::of(&self.arms[&Arm::A]),
        }
    }
}
