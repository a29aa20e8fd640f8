//! The server behind every proxy: as little work as can be, so that it does not hide what the proxy does.

use std::{fmt::Write as _, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Mutex,
    time::{MissedTickBehavior, interval},
};

use crate::process::monotonic_nanos;

const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 12\r\n\r\n{\"ok\": true}";
const STREAM: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
/// A head that is longer is no head of ours.
const MAX_HEAD: usize = 64 * 1024;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where to listen.
    #[arg(long, value_name = "ADDR:PORT")]
    listen: SocketAddr,
    /// Write down when each request with an `x-request-id` has arrived, and tell it at `/arrivals`: nanoseconds of the monotonic
    /// clock and the id, a line each.
    #[arg(long)]
    arrivals: bool,
}

/// Requests that are written down at most.
const MOST: usize = 2_000_000;

/// When requests arrived, if that is asked for.
type Arrivals = Option<Arc<Mutex<Vec<(u64, String)>>>>;

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("cannot listen on {}", args.listen))?;
    let arrivals = args.arrivals.then(Arc::default);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let arrivals = arrivals.clone();
        // Who breaks off is no matter of the backend's.
        tokio::spawn(async move { serve(stream, &arrivals).await });
    }
}

async fn serve(mut stream: TcpStream, arrivals: &Arrivals) -> anyhow::Result<()> {
    let mut buffer = Vec::with_capacity(16 * 1024);
    let mut scratch = vec![0; 256 * 1024];
    loop {
        let end = loop {
            if let Some(at) = find(&buffer, b"\r\n\r\n") {
                break at + 4;
            }
            anyhow::ensure!(buffer.len() < MAX_HEAD, "endless head");
            let n = stream.read(&mut scratch).await?;
            if n == 0 {
                return Ok(());
            }
            buffer.extend_from_slice(&scratch[..n]);
        };
        let arrived = arrivals.is_some().then(monotonic_nanos);
        let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
        let path = head.split(' ').nth(1).unwrap_or("/").to_owned();
        let chunked = head.contains("transfer-encoding: chunked");
        let mut left = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length:"))
            .map_or(Ok(0), |text| text.trim().parse::<usize>())?;
        buffer.drain(..end);
        if let (Some(arrivals), Some(arrived)) = (arrivals, arrived) {
            let mut lines = head.lines();
            let id = lines.find_map(|line| line.strip_prefix("x-request-id:"));
            let mut arrivals = arrivals.lock().await;
            if let Some(id) = id.filter(|_| arrivals.len() < MOST) {
                arrivals.push((arrived, id.trim().to_owned()));
            }
        }
        if chunked {
            // Bodies of ours end in an empty chunk and have none inside.
            while !buffer.ends_with(b"0\r\n\r\n") {
                let n = stream.read(&mut scratch).await?;
                anyhow::ensure!(n > 0, "broken off");
                let keep = buffer.len().saturating_sub(4);
                buffer.drain(..keep);
                buffer.extend_from_slice(&scratch[..n]);
            }
            buffer.clear();
        }
        let here = left.min(buffer.len());
        buffer.drain(..here);
        left -= here;
        while left > 0 {
            let most = left.min(scratch.len());
            let n = stream.read(&mut scratch[..most]).await?;
            anyhow::ensure!(n > 0, "broken off");
            left -= n;
        }
        if let Some(rest) = path.strip_prefix("/sse/") {
            let (frames, millis) = rest.split_once('/').context("/sse/FRAMES/MILLISECONDS")?;
            frames_of(&mut stream, frames.parse()?, millis.parse()?).await?;
        } else if let (Some(arrivals), "/arrivals") = (arrivals, path.as_str()) {
            let mut body = String::new();
            for (arrived, id) in &*arrivals.lock().await {
                writeln!(body, "{arrived} {id}")?;
            }
            let length = body.len();
            let head =
                format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(body.as_bytes()).await?;
            return Ok(());
        } else {
            stream.write_all(ANSWER).await?;
        }
    }
}

/// Writes a frame with the instant of its sending at every tick.
async fn frames_of(stream: &mut TcpStream, frames: u32, millis: u64) -> anyhow::Result<()> {
    stream.write_all(STREAM).await?;
    let mut ticks = interval(Duration::from_millis(millis));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for _ in 0..frames {
        ticks.tick().await;
        let frame = format!("data: {:020}\n\n", monotonic_nanos());
        let chunk = format!("{:x}\r\n{frame}\r\n", frame.len());
        stream.write_all(chunk.as_bytes()).await?;
    }
    stream.write_all(b"0\r\n\r\n").await?;
    Ok(())
}

/// First position of `needle`.
pub(crate) fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|w| w == needle)
}
