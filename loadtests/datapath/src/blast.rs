//! The generator: closed loop, HTTP/1.1 on kept connections, one request after the other on each.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use futures_util::future::join_all;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::backend::find;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Whom to ask.
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) to: SocketAddr,
    /// Connections.
    #[arg(long, default_value_t = 64)]
    pub(crate) connections: usize,
    /// Seconds.
    #[arg(long, default_value_t = 5.0)]
    pub(crate) seconds: f64,
    /// Bytes of each body; 0 is a GET without one.
    #[arg(long, default_value_t = 0)]
    pub(crate) body: usize,
}

/// What came of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Requests that were answered 200.
    pub(crate) good: u64,
    /// All others.
    pub(crate) bad: u64,
    /// Seconds from the first request to the last answer.
    pub(crate) seconds: f64,
    /// Latency in microseconds, every answer of 200.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let outcome = blast(&args).await?;
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(())
}

async fn blast(args: &Args) -> anyhow::Result<Outcome> {
    let message = message(args);
    let began = Instant::now();
    let end = began + Duration::from_secs_f64(args.seconds);
    let workers = (0..args.connections).map(|_| worker(args.to, &message, end));
    let mut latencies = Histogram::<u64>::new_with_bounds(1, 600_000_000, 3)?;
    let mut outcome = Outcome::default();
    for done in join_all(workers).await {
        let (good, bad) = done?;
        outcome.good += good.len();
        outcome.bad += bad;
        latencies.add(good)?;
    }
    outcome.seconds = began.elapsed().as_secs_f64();
    let micros = |quantile| micros(latencies.value_at_quantile(quantile));
    (outcome.p50, outcome.p99) = (micros(0.5), micros(0.99));
    outcome.max = micros(1.0);
    Ok(outcome)
}

/// Tenths of a microsecond are what the histograms count in.
fn micros(tenths: u64) -> f64 {
    f64::from(u32::try_from(tenths).unwrap_or(u32::MAX)) / 10.0
}

fn message(args: &Args) -> Vec<u8> {
    if args.body == 0 {
        return b"GET / HTTP/1.1\r\nhost: model\r\naccept: */*\r\n\r\n".to_vec();
    }
    let head = format!(
        "POST / HTTP/1.1\r\nhost: model\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        args.body
    );
    let mut message = head.into_bytes();
    message.resize(message.len() + args.body, b'x');
    message
}

async fn worker(
    to: SocketAddr,
    message: &[u8],
    end: Instant,
) -> anyhow::Result<(Histogram<u64>, u64)> {
    let mut latencies = Histogram::new_with_bounds(1, 600_000_000, 3)?;
    let mut bad = 0;
    let mut kept = None;
    let mut buffer = vec![0; 16 * 1024];
    while Instant::now() < end {
        let stream = if let Some(stream) = &mut kept {
            stream
        } else {
            let stream = TcpStream::connect(to).await.context("no connection")?;
            stream.set_nodelay(true)?;
            kept.insert(stream)
        };
        let began = Instant::now();
        let (good, stays) = exchange(stream, message, &mut buffer)
            .await
            .map_or((false, false), |(status, stays)| (status == *b"200", stays));
        if good {
            let tenths = began.elapsed().as_nanos() / 100;
            latencies.record(u64::try_from(tenths)?.max(1))?;
        } else {
            bad += 1;
        }
        if !stays {
            kept = None;
        }
    }
    Ok((latencies, bad))
}

/// One request and its answer: the status, and whether the connection may be used again.
pub(crate) async fn exchange(
    stream: &mut TcpStream,
    message: &[u8],
    buffer: &mut [u8],
) -> anyhow::Result<([u8; 3], bool)> {
    stream.write_all(message).await?;
    let mut have = 0;
    let head_end = loop {
        let n = stream.read(&mut buffer[have..]).await?;
        anyhow::ensure!(n > 0, "closed");
        have += n;
        if let Some(at) = find(&buffer[..have], b"\r\n\r\n") {
            break at + 4;
        }
        anyhow::ensure!(have < buffer.len(), "endless head");
    };
    let head = &buffer[..head_end];
    let status = head.get(9..12).context("no status")?.try_into()?;
    let field = |name: &[u8]| {
        let lines = head.split(|byte| *byte == b'\n');
        let mut values = lines.filter_map(|line| {
            let (key, value) = line.split_at_checked(name.len())?;
            key.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
        });
        values.next()
    };
    let stays = !field(b"connection:").is_some_and(|value| value.eq_ignore_ascii_case(b"close"));
    let length = field(b"content-length:").context("no length")?;
    let length: usize = std::str::from_utf8(length)?.parse()?;
    let mut left = (head_end + length).saturating_sub(have);
    while left > 0 {
        let most = left.min(buffer.len());
        let n = stream.read(&mut buffer[..most]).await?;
        anyhow::ensure!(n > 0, "closed");
        left -= n;
    }
    Ok((status, stays))
}
