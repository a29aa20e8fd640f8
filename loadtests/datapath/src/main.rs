//! Measures proxies side by side, in turn, on the same machine, with the same generator and the same backend.
//!
//! The generator and the backend stay on one core and every proxy on another, so that what is compared is the path of a request and
//! not the scheduler. CPU comes from the kernel's account of each proxy's threads, in microseconds per request: on a noisy machine
//! that is the figure which can be believed. How it is used: `loadtests/datapath/README.md`.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool"
)]

mod abuse;
mod arm;
mod attacker;
mod backend;
mod blast;
mod compare;
mod figures;
mod hold;
mod paced;
mod pacing;
mod process;
mod relay;
mod streams;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(
    version,
    about = "Measures proxies side by side: CPU per request, added latency, memory, starts."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Compares proxies in interleaved blocks and prints medians and ratios.
    Compare(compare::Args),
    /// Holds requests at an activator without a pod, then brings the pod: memory of each, and how quickly they are let go.
    Hold(hold::Args),
    /// Attacks a sidecar or an activator over HTTP/2 and times another client of the same process.
    Abuse(abuse::Args),
    /// The attacker alone. Prints JSON.
    Attacker(attacker::Args),
    /// Something to attack that only reads.
    Sink(attacker::Sink),
    /// A client at a steady pace alone. Prints JSON.
    Paced(paced::Args),
    /// Whether requests of the load tester arrive when its plan has them.
    Pacing(pacing::Args),
    /// The backend alone: answers every request with a few bytes, `/sse/FRAMES/MILLISECONDS` with a stream.
    Backend(backend::Args),
    /// A relay alone: copies bytes both ways.
    Relay(relay::Args),
    /// The generator alone: as many connections as asked for, one request after the other on each. Prints JSON.
    Blast(blast::Args),
    /// The generator of streams alone. Prints JSON.
    Streams(streams::Args),
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match cli.command {
            Command::Compare(args) => compare::run(args).await,
            Command::Hold(args) => hold::run(args).await,
            Command::Abuse(args) => abuse::run(args).await,
            Command::Attacker(args) => attacker::run(args).await,
            Command::Sink(args) => attacker::sink(args).await,
            Command::Paced(args) => paced::run(args).await,
            Command::Pacing(args) => pacing::run(args).await,
            Command::Backend(args) => backend::run(args).await,
            Command::Relay(args) => relay::run(args).await,
            Command::Blast(args) => blast::run(args).await,
            Command::Streams(args) => streams::run(args).await,
        }
    })
}
