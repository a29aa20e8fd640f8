//! What it costs to hold requests, and how quickly they are let go.

use std::{
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    arm::{activator_command, free_address},
    figures,
    process::{Pinned, listening, pss_kib},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[arg(long, default_value = "target/release/rouse-activator")]
    activator: PathBuf,
    #[arg(long, default_value = "target/release/rouse-queue-proxy")]
    queue_proxy: PathBuf,
    /// Requests held at once; the open file limit must allow twice as many.
    #[arg(long, default_value_t = 9_000)]
    requests: usize,
    /// Bytes of each body.
    #[arg(long, default_value_t = 4_096)]
    body: usize,
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    #[arg(long, default_value_t = 0)]
    near: usize,
    #[arg(long, default_value_t = 1)]
    proxy: usize,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let (mut each, mut let_go) = (Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        let (bytes, millis) = round(&args).await?;
        println!(
            "{} requests with {} bytes held: {bytes:.0} bytes each over the body; the last let go {millis:.0} ms after the first",
            args.requests, args.body
        );
        each.push(bytes);
        let_go.push(millis);
    }
    println!(
        "medians: {:.0} bytes each over the body, {:.0} ms",
        figures::median(&each),
        figures::median(&let_go)
    );
    Ok(())
}

async fn round(args: &Args) -> anyhow::Result<(f64, f64)> {
    let own = std::env::current_exe()?.display().to_string();
    let (backend, service, pod, listen) = (
        free_address()?,
        free_address()?,
        free_address()?,
        free_address()?,
    );
    let command = [&own, "backend", "--listen", &backend.to_string()].map(str::to_owned);
    let behind = Pinned::start(args.near, &command, false)?;
    let mut command = activator_command(&args.activator, 0, listen, pod);
    // One workload may take half of what is free of the whole at any time.
    let (most, all) = (args.requests.to_string(), (4 * args.requests).to_string());
    for (flag, value) in [
        ("--max-held", &most),
        ("--max-held-total", &all),
        ("--max-connections", &all),
    ] {
        command.extend([flag, value].map(str::to_owned));
    }
    let activator = Pinned::start(args.proxy, &command, false)?;
    let pid = activator.pid()?;
    listening(listen).await?;
    sleep(Duration::from_secs(1)).await;
    let before = pss_kib(pid)?;
    let mut clients = JoinSet::new();
    for _ in 0..args.requests {
        let stream = send(listen, args.body).await?;
        clients.spawn(answer(stream));
    }
    sleep(Duration::from_secs(2)).await;
    anyhow::ensure!(clients.try_join_next().is_none(), "one was not held");
    let after = pss_kib(pid)?;
    let proxy = [
        args.queue_proxy.display().to_string(),
        "--listen".to_owned(),
        service.to_string(),
        "--upstream".to_owned(),
        backend.to_string(),
        "--activator-listen".to_owned(),
        pod.to_string(),
        "--pod-uid".to_owned(),
        "pod-1".to_owned(),
    ];
    let proxy = Pinned::start(args.near, &proxy, false)?;
    let mut answered = Vec::new();
    while let Some(done) = timeout(Duration::from_mins(1), clients.join_next()).await? {
        answered.push(done??);
    }
    let first = answered.iter().min().context("nobody was answered")?;
    let last = answered.iter().max().context("nobody was answered")?;
    let mut since: Vec<_> = answered.iter().map(|at| *at - *first).collect();
    since.sort_unstable();
    for part in [10, 50, 90] {
        println!(
            "{part} % answered after {:.0?}",
            since[since.len() * part / 100]
        );
    }
    let count = f64::from(u32::try_from(args.requests)?);
    let grown = f64::from(u32::try_from(after.saturating_sub(before))?) * 1024.0;
    let body = f64::from(u32::try_from(args.body)?);
    let took = last.duration_since(*first).as_secs_f64() * 1e3;
    for process in [proxy, activator, behind] {
        process.end().await?;
    }
    Ok((grown / count - body, took))
}

async fn send(to: SocketAddr, body: usize) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(to).await?;
    let head = format!(
        "POST / HTTP/1.1\r\nhost: model\r\ncontent-type: application/json\r\ncontent-length: {body}\r\n\r\n"
    );
    let mut message = head.into_bytes();
    message.resize(message.len() + body, b'x');
    stream.write_all(&message).await?;
    Ok(stream)
}

/// When the answer came.
async fn answer(mut stream: TcpStream) -> anyhow::Result<Instant> {
    let mut head = [0; 12];
    stream.read_exact(&mut head).await?;
    let status = String::from_utf8_lossy(&head[9..]).into_owned();
    anyhow::ensure!(status == "200", "answered {status}");
    Ok(Instant::now())
}
