//! The generator of streams: many at once, each frame's way timed from the instant that the backend wrote into it.

use std::net::SocketAddr;

use anyhow::Context as _;
use futures_util::future::join_all;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Duration, sleep},
};

use crate::{backend::find, process::monotonic_nanos};

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Whom to ask.
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) to: SocketAddr,
    /// Streams at once.
    #[arg(long, default_value_t = 500)]
    pub(crate) streams: u32,
    /// Frames of each.
    #[arg(long, default_value_t = 250)]
    pub(crate) frames: u32,
    /// Milliseconds between two frames.
    #[arg(long, default_value_t = 20)]
    pub(crate) every: u32,
}

/// What came of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Frames that arrived.
    pub(crate) frames: u64,
    /// Frames that did not.
    pub(crate) lost: u64,
    /// From the backend's writing of a frame to its arrival, in microseconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// Time between two frames of one stream, in microseconds.
    pub(crate) gap_p99: f64,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let streams = (0..args.streams).map(|number| stream(&args, number));
    let mut ways = Histogram::<u64>::new_with_bounds(1, 600_000_000, 3)?;
    let mut gaps = ways.clone();
    for done in join_all(streams).await {
        let (way, gap) = done?;
        ways.add(way)?;
        gaps.add(gap)?;
    }
    let wanted = u64::from(args.streams) * u64::from(args.frames);
    let micros = |all: &Histogram<u64>, q| {
        f64::from(u32::try_from(all.value_at_quantile(q)).unwrap_or(u32::MAX)) / 10.0
    };
    let outcome = Outcome {
        frames: ways.len(),
        lost: wanted.saturating_sub(ways.len()),
        p50: micros(&ways, 0.5),
        p99: micros(&ways, 0.99),
        gap_p99: micros(&gaps, 0.99),
    };
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(())
}

async fn stream(args: &Args, number: u32) -> anyhow::Result<(Histogram<u64>, Histogram<u64>)> {
    let mut ways = Histogram::new_with_bounds(1, 600_000_000, 3)?;
    let mut gaps = ways.clone();
    // Evenly over one interval, as independent streams would be.
    let share = f64::from(args.every) / 1e3 * f64::from(number) / f64::from(args.streams);
    sleep(Duration::from_secs_f64(share)).await;
    let mut stream = TcpStream::connect(args.to).await.context("no connection")?;
    stream.set_nodelay(true)?;
    let head = format!(
        "GET /sse/{}/{} HTTP/1.1\r\nhost: model\r\naccept: text/event-stream\r\n\r\n",
        args.frames, args.every
    );
    stream.write_all(head.as_bytes()).await?;
    let (mut bytes, mut piece) = (Vec::new(), vec![0; 8 * 1024]);
    let mut before = None;
    while ways.len() < u64::from(args.frames) {
        let n = stream.read(&mut piece).await?;
        if n == 0 {
            break;
        }
        let now = monotonic_nanos();
        bytes.extend_from_slice(&piece[..n]);
        let mut read = 0;
        while let Some(at) = find(&bytes[read..], b"data: ") {
            let start = read + at + 6;
            let Some(end) = find(&bytes[start..], b"\n\n") else {
                read += at;
                break;
            };
            let text = std::str::from_utf8(&bytes[start..start + end])?;
            let sent: u64 = text.parse().context("a frame in pieces")?;
            ways.record((now.saturating_sub(sent) / 100).max(1))?;
            if let Some(before) = before.replace(now) {
                gaps.record(((now - before) / 100).max(1))?;
            }
            read = start + end + 2;
        }
        bytes.drain(..read);
    }
    Ok((ways, gaps))
}
