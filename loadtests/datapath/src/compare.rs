//! Blocks in which every arm has its turn, and the tables that come of them.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use serde::Serialize;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::sleep,
};

use crate::{
    arm::{Arm, Place, Running, free_address},
    blast, figures,
    process::{Pinned, cpu_nanos, listening, pss_kib},
    streams,
};

#[allow(clippy::struct_excessive_bools, reason = "each is a flag")]
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Rouse's sidecar.
    #[arg(long, default_value = "target/release/rouse-queue-proxy")]
    queue_proxy: PathBuf,
    /// Another build of it, to be compared with the first.
    #[arg(long)]
    other_queue_proxy: Option<PathBuf>,
    /// Rouse's activator; measured if given.
    #[arg(long)]
    activator: Option<PathBuf>,
    /// Measure nginx too.
    #[arg(long)]
    nginx: bool,
    /// Measure a relay too that copies bytes and reads nothing of them: the most that one core can do.
    #[arg(long)]
    relay: bool,
    /// Measure the sidecar twice: how far two arms that are the same differ here.
    #[arg(long)]
    null: bool,
    /// Something that runs already, on the proxies' core, with the same backend and the same limit. May be repeated.
    #[arg(long, value_name = "NAME=ADDR:PORT@PID")]
    peer: Vec<String>,
    /// Requests at the backend at once; 0 is no limit.
    #[arg(long, default_value_t = 0)]
    concurrency: u32,
    /// Where the backend listens: peers must know it beforehand.
    #[arg(long)]
    backend: Option<SocketAddr>,
    #[arg(long, default_value_t = 8)]
    blocks: usize,
    /// Seconds of each measurement; a tenth more goes before it, uncounted.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// What is measured: get-1, get-64 (connections), post-64 (1 KB bodies), upload (1 MB bodies, 4 connections), streams.
    #[arg(long, value_delimiter = ',', default_value = "get-1,get-64,post-64")]
    scenarios: Vec<String>,
    /// Also measure memory: idle, after 64 busy connections, after 1,000.
    #[arg(long)]
    memory: bool,
    /// Also measure so many starts, from exec to the first answer.
    #[arg(long, default_value_t = 0)]
    starts: usize,
    /// The arm that the others are divided by [default: the last peer, else nginx, else the way without a proxy].
    #[arg(long)]
    against: Option<String>,
    /// Core of the generator and the backend.
    #[arg(long, default_value_t = 0)]
    near: usize,
    /// Core of the proxies.
    #[arg(long, default_value_t = 1)]
    proxy: usize,
    /// Write every figure of every block here.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// One measurement.
#[derive(Clone, Debug, Serialize)]
struct Row {
    block: usize,
    scenario: String,
    arm: String,
    /// By name: rate (requests or frames a second), p50, p99 (microseconds), cpu (microseconds a request or frame).
    figures: BTreeMap<&'static str, f64>,
    bad: u64,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let backend = match args.backend {
        Some(address) => address,
        None => free_address()?,
    };
    let own = std::env::current_exe()?.display().to_string();
    let command = [&own, "backend", "--listen", &backend.to_string()].map(str::to_owned);
    let behind = Pinned::start(args.near, &command, false)?;
    listening(backend).await?;
    let place = Place {
        near: args.near,
        proxy: args.proxy,
        backend,
        concurrency: args.concurrency,
    };
    let arms = arms(&args, &own)?;
    let against = args.against.clone().unwrap_or_else(|| {
        let mut names = arms.iter().rev();
        let peer = names.find(|arm| matches!(arm, Arm::Peer { .. } | Arm::Nginx));
        peer.map_or("direct", Arm::name).to_owned()
    });
    let mut rows = Vec::new();
    for block in 0..args.blocks {
        let mut order: Vec<&Arm> = arms.iter().collect();
        // Every other block the other way round: what drifts hits each arm alike.
        if block % 2 == 1 {
            order.reverse();
        }
        for arm in order {
            let running = arm.start(&place).await.context(arm.name().to_owned())?;
            for scenario in &args.scenarios {
                let row = measure(&own, &args, block, scenario, arm, &running).await;
                rows.push(row.with_context(|| format!("{scenario} by {}", arm.name()))?);
            }
            running.end().await?;
        }
        eprintln!("block {} of {}", block + 1, args.blocks);
    }
    for scenario in &args.scenarios {
        table(scenario, &arms, &rows, &against);
    }
    if args.memory {
        println!(
            "\nmemory (Pss, KiB)  idle, after 64 busy connections, after 1,000, each 2 s later"
        );
        for arm in arms.iter().filter(|arm| !matches!(arm, Arm::Direct)) {
            let row = memory(&own, args.near, arm, &place).await?;
            println!(
                "{:<14} {:>8} {:>8} {:>8}",
                arm.name(),
                row[0],
                row[1],
                row[2]
            );
        }
    }
    if args.starts > 0 {
        starts(&arms, &place, args.starts).await?;
    }
    if let Some(file) = &args.json {
        fs::write(file, serde_json::to_string_pretty(&rows)?)?;
    }
    behind.end().await
}

fn arms(args: &Args, own: &str) -> anyhow::Result<Vec<Arm>> {
    let rouse = |name: &str, program: &PathBuf| Arm::Rouse {
        name: name.to_owned(),
        program: program.clone(),
    };
    let mut arms = vec![Arm::Direct, rouse("rouse", &args.queue_proxy)];
    if args.null {
        arms.push(rouse("rouse again", &args.queue_proxy));
    }
    if let Some(other) = &args.other_queue_proxy {
        arms.push(rouse("other", other));
    }
    if let Some(activator) = &args.activator {
        arms.push(Arm::Activator {
            activator: activator.clone(),
            queue_proxy: args.queue_proxy.clone(),
        });
    }
    if args.relay {
        arms.push(Arm::Relay(own.to_owned()));
    }
    if args.nginx {
        arms.push(Arm::Nginx);
    }
    for text in &args.peer {
        let parts = text
            .split_once('=')
            .and_then(|(name, rest)| Some((name, rest.split_once('@')?)));
        let (name, (to, pid)) =
            parts.with_context(|| format!("--peer {text}: expected NAME=ADDR:PORT@PID"))?;
        arms.push(Arm::Peer {
            name: name.to_owned(),
            to: to
                .parse()
                .with_context(|| format!("--peer {text}: {to} is no address"))?,
            pid: pid
                .parse()
                .with_context(|| format!("--peer {text}: {pid} is no process"))?,
        });
    }
    Ok(arms)
}

async fn measure(
    own: &str,
    args: &Args,
    block: usize,
    scenario: &str,
    arm: &Arm,
    running: &Running,
) -> anyhow::Result<Row> {
    let row = |figures, bad| Row {
        block,
        scenario: scenario.to_owned(),
        arm: arm.name().to_owned(),
        figures,
        bad,
    };
    let cpu = || running.pid.map_or(Ok(0), cpu_nanos);
    if scenario == "streams" {
        let before = cpu()?;
        let to = running.to.to_string();
        let frames = format!("{:.0}", args.seconds * 50.0);
        let text = tool(
            own,
            args.near,
            &["streams", "--to", &to, "--frames", &frames],
        )
        .await?;
        let spent = cpu()? - before;
        let outcome: streams::Outcome = serde_json::from_str(&text)?;
        let figures = BTreeMap::from([
            ("p50", outcome.p50),
            ("p99", outcome.p99),
            ("gap", outcome.gap_p99),
            ("cpu", per(spent, outcome.frames)),
        ]);
        return Ok(row(figures, outcome.lost));
    }
    let (connections, body) = match scenario {
        "get-1" => ("1", "0"),
        "get-64" => ("64", "0"),
        "post-64" => ("64", "1024"),
        "upload" => ("4", "1048576"),
        other => anyhow::bail!("there is no scenario {other}"),
    };
    let warm = args.seconds / 10.0;
    let _warm = load(own, args.near, running.to, connections, body, warm).await?;
    let before = cpu()?;
    let outcome = load(own, args.near, running.to, connections, body, args.seconds).await?;
    let spent = cpu()? - before;
    let good = u32::try_from(outcome.good)?;
    let figures = BTreeMap::from([
        ("rate", f64::from(good) / outcome.seconds),
        ("p50", outcome.p50),
        ("p99", outcome.p99),
        ("cpu", per(spent, outcome.good)),
    ]);
    Ok(row(figures, outcome.bad))
}

async fn load(
    own: &str,
    core: usize,
    to: SocketAddr,
    connections: &str,
    body: &str,
    seconds: f64,
) -> anyhow::Result<blast::Outcome> {
    let (to, seconds) = (to.to_string(), seconds.to_string());
    let args = [
        "blast",
        "--to",
        &to,
        "--connections",
        connections,
        "--body",
        body,
        "--seconds",
        &seconds,
    ];
    Ok(serde_json::from_str(&tool(own, core, &args).await?)?)
}

/// Runs a part of this program on a core, as a process of its own.
async fn tool(own: &str, core: usize, args: &[&str]) -> anyhow::Result<String> {
    let mut command = vec![own.to_owned()];
    command.extend(args.iter().map(|&arg| arg.to_owned()));
    Pinned::start(core, &command, true)?.output().await
}

/// Nanoseconds as microseconds for each of `count`.
fn per(nanos: u64, count: u64) -> f64 {
    let micros = Duration::from_nanos(nanos).as_secs_f64() * 1e6;
    micros / Duration::from_nanos(count.max(1)).as_secs_f64() / 1e9
}

fn table(scenario: &str, arms: &[Arm], rows: &[Row], against: &str) {
    let of = |arm: &str, figure: &str| -> Vec<f64> {
        let rows = rows.iter();
        let rows = rows.filter(|row| row.scenario == scenario && row.arm == arm);
        rows.filter_map(|row| row.figures.get(figure).copied())
            .collect()
    };
    println!(
        "\n{scenario}: medians; in brackets the median of the blocks' ratios to {against} and its 95 % interval"
    );
    for arm in arms {
        let name = arm.name();
        let mut line = format!("{name:<14}");
        for (figure, label) in [
            ("rate", "/s"),
            ("p50", "us p50"),
            ("p99", "us p99"),
            ("gap", "us gap p99"),
            ("cpu", "us cpu"),
        ] {
            let (ours, theirs) = (of(name, figure), of(against, figure));
            if ours.is_empty() {
                continue;
            }
            let ratios: Vec<f64> = ours.iter().zip(&theirs).map(|(a, b)| a / b).collect();
            let (low, high) = figures::interval(&ratios);
            let middle = figures::median(&ratios);
            // Writing to a String cannot fail.
            let _ = write!(line, "  {:>9.1} {label}", figures::median(&ours));
            if middle.is_finite() && name != against {
                let _ = write!(line, " [{middle:.2}: {low:.2}-{high:.2}]");
            }
        }
        let bad: u64 = rows
            .iter()
            .filter(|row| row.scenario == scenario && row.arm == name)
            .map(|row| row.bad)
            .sum();
        println!("{line}  {bad} bad");
    }
}

async fn memory(own: &str, core: usize, arm: &Arm, place: &Place) -> anyhow::Result<[u64; 3]> {
    let running = arm.start(place).await?;
    let pid = running.pid.context("no process")?;
    let mut row = [0; 3];
    for (cell, connections) in row.iter_mut().zip([None, Some("64"), Some("1000")]) {
        if let Some(connections) = connections {
            load(own, core, running.to, connections, "1024", 4.0).await?;
        }
        sleep(Duration::from_secs(2)).await;
        *cell = pss_kib(pid)?;
    }
    running.end().await?;
    Ok(row)
}

/// Times from exec to the first answer; asked every half millisecond.
async fn starts(arms: &[Arm], place: &Place, count: usize) -> anyhow::Result<()> {
    println!("\nexec to first answer (ms)  median, least, most of {count}");
    for arm in arms {
        let mut times = Vec::new();
        for _ in 0..count {
            let listen = free_address()?;
            let Some(command) = arm.command(place, listen) else {
                break;
            };
            let began = Instant::now();
            let process = Pinned::start(place.proxy, &command, false)?;
            while !answers(listen).await {
                anyhow::ensure!(began.elapsed() < Duration::from_secs(10), "no answer");
                sleep(Duration::from_micros(500)).await;
            }
            times.push(began.elapsed().as_secs_f64() * 1e3);
            process.end().await?;
        }
        if let (Some(least), Some(most)) = (
            times.iter().copied().reduce(f64::min),
            times.iter().copied().reduce(f64::max),
        ) {
            let middle = figures::median(&times);
            println!("{:<14} {middle:>8.2} {least:>8.2} {most:>8.2}", arm.name());
        }
    }
    Ok(())
}

async fn answers(to: SocketAddr) -> bool {
    let exchange = async {
        let mut stream = TcpStream::connect(to).await?;
        stream
            .write_all(b"GET / HTTP/1.1\r\nhost: model\r\nconnection: close\r\n\r\n")
            .await?;
        let mut head = [0; 12];
        stream.read_exact(&mut head).await?;
        Ok::<_, std::io::Error>(head)
    };
    exchange.await.is_ok_and(|head| head.ends_with(b"200"))
}
