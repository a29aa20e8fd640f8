//! What others see of an attack on the same process: the latency of a client that means well, without an attack, with it, and with the
//! same attack on something else, since attacking takes the machine's time too.

use std::{collections::BTreeMap, fs, net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::Context as _;
use attacks::Attack;
use serde::Serialize;

use crate::{
    arm::{Arm, Place, Running, free_address},
    attacker::{Done, attack},
    figures, paced,
    process::{Pinned, cpu_nanos, listening, pss_kib},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Rouse's sidecar.
    #[arg(long, default_value = "target/release/rouse-queue-proxy")]
    queue_proxy: PathBuf,
    /// Attack an activator of this program instead, with the sidecar behind it.
    #[arg(long)]
    activator: Option<PathBuf>,
    /// Attacks, by name [default: all].
    #[arg(long, value_delimiter = ',', value_parser = attack)]
    attacks: Vec<Attack>,
    #[arg(long, default_value_t = 8)]
    blocks: usize,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Requests each second of the client that means well.
    #[arg(long, default_value_t = 400)]
    rate: u32,
    /// Frames each second of the attacker, on as many connections as it takes, one after the other.
    #[arg(long, default_value_t = 20_000)]
    pace: u32,
    /// Core of both clients and the backend.
    #[arg(long, default_value_t = 0)]
    near: usize,
    /// Core of the proxy.
    #[arg(long, default_value_t = 1)]
    proxy: usize,
    /// Write every figure of every block here.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// With what the client that means well shares the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
enum Beside {
    Nothing,
    AttackElsewhere,
    Attack,
}

/// One measurement.
#[derive(Clone, Debug, Serialize)]
struct Row {
    block: usize,
    attack: &'static str,
    beside: Beside,
    victim: paced::Outcome,
    attacker: Done,
    /// Microseconds of the proxy's CPU for each second.
    cpu: f64,
    /// KiB that the proxy has grown by.
    grown: i64,
}

/// What all measurements have in common.
struct Bench<'a> {
    args: &'a Args,
    own: String,
    sink: SocketAddr,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let (backend, sink) = (free_address()?, free_address()?);
    let bench = Bench {
        args: &args,
        own: std::env::current_exe()?.display().to_string(),
        sink,
    };
    let behind = bench.near(&["backend", "--listen", &backend.to_string()], false)?;
    let aside = bench.near(&["sink", "--listen", &sink.to_string()], false)?;
    listening(backend).await?;
    listening(sink).await?;
    let place = Place {
        near: args.near,
        proxy: args.proxy,
        backend,
        concurrency: 0,
    };
    let arm = match &args.activator {
        Some(activator) => Arm::Activator {
            activator: activator.clone(),
            queue_proxy: args.queue_proxy.clone(),
        },
        None => Arm::Rouse {
            name: "rouse".to_owned(),
            program: args.queue_proxy.clone(),
        },
    };
    let all = if args.attacks.is_empty() {
        Attack::ALL.to_vec()
    } else {
        args.attacks.clone()
    };
    let mut rows = Vec::new();
    for block in 0..args.blocks {
        // One process for all of a block, as in life; every other block the other way round.
        let running = arm.start(&place).await?;
        let mut order = all.clone();
        let mut besides = [Beside::Nothing, Beside::AttackElsewhere, Beside::Attack];
        if block % 2 == 1 {
            order.reverse();
            besides.reverse();
        }
        for attack in order {
            for beside in besides {
                rows.push(bench.measure(block, attack, beside, &running).await?);
            }
        }
        running.end().await?;
        eprintln!("block {} of {}", block + 1, args.blocks);
    }
    table(&all, &rows);
    if let Some(file) = &args.json {
        fs::write(file, serde_json::to_string_pretty(&rows)?)?;
    }
    aside.end().await?;
    behind.end().await
}

impl Bench<'_> {
    /// Starts a part of this program beside the proxy's core.
    fn near(&self, words: &[&str], piped: bool) -> anyhow::Result<Pinned> {
        let words = std::iter::once(self.own.as_str()).chain(words.iter().copied());
        let command: Vec<_> = words.map(str::to_owned).collect();
        Pinned::start(self.args.near, &command, piped)
    }

    async fn measure(
        &self,
        block: usize,
        attack: Attack,
        beside: Beside,
        running: &Running,
    ) -> anyhow::Result<Row> {
        let pid = running.pid.context("no process")?;
        let (cpu, memory) = (cpu_nanos(pid)?, pss_kib(pid)?);
        let seconds = self.args.seconds.to_string();
        let victim = running.to.to_string();
        let target = match beside {
            Beside::Nothing => None,
            Beside::AttackElsewhere => Some(self.sink.to_string()),
            Beside::Attack => Some(victim.clone()),
        };
        let attacker = match &target {
            Some(to) => {
                let frames = self.args.pace.to_string();
                let words = ["attacker", "--to", to, "--attack", attack.name()];
                let how = ["--pace", &frames, "--seconds", &seconds];
                Some(self.near(&[&words[..], &how].concat(), true)?)
            }
            None => None,
        };
        let rate = self.args.rate.to_string();
        let words = [
            "paced",
            "--to",
            &victim,
            "--rate",
            &rate,
            "--seconds",
            &seconds,
        ];
        let outcome = self.near(&words, true)?.output().await?;
        let done = match attacker {
            Some(attacker) => serde_json::from_str(&attacker.output().await?)?,
            None => Done::default(),
        };
        let ran = Duration::from_nanos(cpu_nanos(pid)? - cpu);
        Ok(Row {
            block,
            attack: attack.name(),
            beside,
            victim: serde_json::from_str(&outcome)?,
            attacker: done,
            cpu: ran.as_secs_f64() * 1e6 / self.args.seconds,
            grown: i64::try_from(pss_kib(pid)?)? - i64::try_from(memory)?,
        })
    }
}

fn table(attacks: &[Attack], rows: &[Row]) {
    println!(
        "p99 of the client that means well, in us: alone, beside the same attack on something else, beside the attack; in brackets the \
         median of the blocks' ratios of the last to the second and its 95 % interval"
    );
    for attack in attacks {
        let of = |beside| -> Vec<&Row> {
            let rows = rows.iter();
            rows.filter(|row| row.attack == attack.name() && row.beside == beside)
                .collect()
        };
        let all = [Beside::Nothing, Beside::AttackElsewhere, Beside::Attack].map(of);
        let p99 = |rows: &[&Row]| -> Vec<f64> { rows.iter().map(|row| row.victim.p99).collect() };
        let by_block = |rows: &[&Row]| -> BTreeMap<usize, f64> {
            rows.iter().map(|row| (row.block, row.victim.p99)).collect()
        };
        let (elsewhere, beside) = (by_block(&all[1]), by_block(&all[2]));
        let ratios: Vec<f64> = beside
            .iter()
            .filter_map(|(block, p99)| Some(p99 / elsewhere.get(block)?))
            .collect();
        let (low, high) = figures::interval(&ratios);
        let middle = |of: fn(&Row) -> f64, rows: &[&Row]| {
            let figures: Vec<f64> = rows.iter().map(|row| of(row)).collect();
            figures::median(&figures)
        };
        let bad: u64 = all.iter().flatten().map(|row| row.victim.bad).sum();
        let count = |number: u64| f64::from(u32::try_from(number).unwrap_or(u32::MAX));
        let rate = |of: fn(&Done) -> u64| {
            let rates: Vec<f64> = all[2]
                .iter()
                .map(|row| count(of(&row.attacker)) / row.attacker.seconds)
                .collect();
            figures::median(&rates)
        };
        println!(
            "{:<15} {:>8.0} {:>8.0} {:>8.0} [{:.2}: {low:.2}-{high:.2}]  {:>8.0} frames/s {:>6.0} connections/s  proxy {:.1} % of a core ({:.1} % alone), {:+.0} KiB  {bad} bad",
            attack.name(),
            figures::median(&p99(&all[0])),
            figures::median(&p99(&all[1])),
            figures::median(&p99(&all[2])),
            figures::median(&ratios),
            rate(|done| done.frames),
            rate(|done| done.connections),
            middle(|row| row.cpu / 1e4, &all[2]),
            middle(|row| row.cpu / 1e4, &all[0]),
            middle(
                |row| f64::from(i32::try_from(row.grown).unwrap_or(i32::MAX)),
                &all[2]
            ),
        );
    }
}
