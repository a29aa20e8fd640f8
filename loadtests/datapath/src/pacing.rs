//! Whether requests of `rouse-load` come when its plan has them, by the log of whom they come to.
//!
//! The server writes down when each request had arrived, on the monotonic clock that all processes of a machine share; the journal of the
//! load tester says when each was planned and sent. Both are matched by the id of the request. What the load tester says of its own
//! lag is beside it.

use std::{collections::HashMap, fs, net::SocketAddr, path::PathBuf};

use anyhow::Context as _;
use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    arm::free_address,
    figures::median,
    process::{Pinned, listening},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The load tester.
    #[arg(long, default_value = "target/release/rouse-load")]
    load: PathBuf,
    /// Requests per second.
    #[arg(long, value_delimiter = ',', default_value = "1000,10000")]
    rates: Vec<u32>,
    /// Runs of each rate, in turn.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Seconds of a run; half a second goes before it, uncounted.
    #[arg(long, default_value_t = 4)]
    seconds: u32,
    #[arg(long, default_value_t = 64)]
    connections: u32,
    /// Core of the server.
    #[arg(long, default_value_t = 0)]
    server: usize,
    /// Core of the load tester.
    #[arg(long, default_value_t = 1)]
    tester: usize,
}

/// The parts of a report that are read here, in seconds.
#[derive(Debug, Deserialize)]
struct Report {
    started_monotonic: f64,
    pacing: Pacing,
}

#[derive(Debug, Deserialize)]
struct Pacing {
    lag: Percentiles,
    reanchored: u64,
    verdict: String,
}

#[derive(Debug, Deserialize)]
struct Percentiles {
    p50: f64,
    p99: f64,
    max: f64,
}

/// A line of a journal.
#[derive(Debug, Deserialize)]
struct Line {
    id: String,
    planned: f64,
    sent: Option<f64>,
    warmup: bool,
}

/// Microseconds: median, 99th percentile, the most.
type Micros = [f64; 3];

/// What a run came to.
#[derive(Debug)]
struct Row {
    rate: u32,
    /// By the load tester's own histogram.
    lag: Micros,
    /// From plan to arrival.
    arrival: Micros,
    /// From sending, by the load tester, to arrival: what is the kernel's and the server's of it.
    way: Micros,
    requests: usize,
    missing: usize,
    reanchored: u64,
    verdict: String,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    println!(
        "us: p50, p99, max       lag, as the load tester says        from plan to arrival         from sending to arrival"
    );
    for _ in 0..args.rounds {
        for rate in &args.rates {
            let row = measure(&args, *rate).await?;
            println!(
                "{:>6}/s  {:>6} requests {} {} {}  {} missing, {} times re-anchored; {}",
                row.rate,
                row.requests,
                shown(row.lag),
                shown(row.arrival),
                shown(row.way),
                row.missing,
                row.reanchored,
                row.verdict
            );
            rows.push(row);
        }
    }
    for rate in &args.rates {
        let of = |figure: fn(&Row) -> f64| {
            let rows = rows.iter().filter(|row| row.rate == *rate);
            median(&rows.map(figure).collect::<Vec<_>>())
        };
        println!(
            "median of {rate}/s: lag p99 {:.0} us, plan to arrival p99 {:.0} us, sending to arrival p99 {:.0} us",
            of(|row| row.lag[1]),
            of(|row| row.arrival[1]),
            of(|row| row.way[1])
        );
    }
    Ok(())
}

fn shown([p50, p99, max]: Micros) -> String {
    format!("{p50:>9.0} {p99:>9.0} {max:>9.0}")
}

async fn measure(args: &Args, rate: u32) -> anyhow::Result<Row> {
    let own = std::env::current_exe()?.display().to_string();
    let address = free_address()?;
    let backend = [
        &own,
        "backend",
        "--arrivals",
        "--listen",
        &address.to_string(),
    ];
    let server = Pinned::start(args.server, &backend.map(str::to_owned), false)?;
    listening(address).await?;
    let journal = std::env::temp_dir().join(format!("pacing-{}.jsonl", std::process::id()));
    let load = [
        args.load.display().to_string(),
        "--threads=1".to_owned(),
        format!("--connections={}", args.connections),
        format!("--rate={rate}"),
        format!("--duration={}s", args.seconds),
        "--warmup=500ms".to_owned(),
        "--json=-".to_owned(),
        format!("--journal={}", journal.display()),
        format!("http://{address}/"),
    ];
    let report = Pinned::start(args.tester, &load, true)?.output().await?;
    let report: Report = serde_json::from_str(&report)?;
    let arrivals = fetch(address).await?;
    server.end().await?;
    let text = fs::read_to_string(&journal)?;
    fs::remove_file(&journal)?;
    let lines = text
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<Vec<Line>, _>>()?;
    let Pacing {
        lag,
        reanchored,
        verdict,
    } = &report.pacing;
    let (mut arrival, mut way, mut missing) = (Vec::new(), Vec::new(), 0);
    for line in lines.iter().filter(|line| !line.warmup) {
        let Some(at) = arrivals.get(&line.id) else {
            missing += 1;
            continue;
        };
        let since = at - report.started_monotonic;
        arrival.push((since - line.planned) * 1e6);
        way.extend(line.sent.map(|sent| (since - sent) * 1e6));
    }
    Ok(Row {
        rate,
        lag: [lag.p50, lag.p99, lag.max].map(|seconds| seconds * 1e6),
        requests: arrival.len(),
        arrival: ranks(arrival)?,
        way: ranks(way)?,
        missing,
        reanchored: *reanchored,
        verdict: verdict.clone(),
    })
}

fn ranks(mut figures: Vec<f64>) -> anyhow::Result<Micros> {
    anyhow::ensure!(!figures.is_empty(), "nothing arrived");
    figures.sort_unstable_by(f64::total_cmp);
    // The value that half, 99 of 100, and all do not exceed.
    Ok([(1, 2), (99, 100), (1, 1)].map(|(part, whole)| {
        let rank = (figures.len() * part).div_ceil(whole);
        figures[rank - 1]
    }))
}

/// When each request had arrived, in seconds, by its id.
async fn fetch(from: SocketAddr) -> anyhow::Result<HashMap<String, f64>> {
    let mut stream = TcpStream::connect(from).await?;
    let request = "GET /arrivals HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    let (_, body) = text.split_once("\r\n\r\n").context("no answer")?;
    let lines = body.lines().map(|line| {
        let (nanos, id) = line.split_once(' ').context("a line of the log")?;
        Ok((id.to_owned(), nanos.parse::<f64>()? / 1e9))
    });
    lines.collect()
}
