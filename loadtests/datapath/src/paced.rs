//! A client that means well: requests at a steady pace on a few connections, each timed from when it was due.

use std::{net::SocketAddr, time::Duration};

use futures_util::future::join_all;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep_until},
};

use crate::blast::exchange;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Whom to ask.
    #[arg(long, value_name = "ADDR:PORT")]
    to: SocketAddr,
    /// Requests each second, of all connections.
    #[arg(long, default_value_t = 400)]
    rate: u32,
    /// Connections, on which requests are due in turn.
    #[arg(long, default_value_t = 4)]
    connections: u32,
    /// Seconds.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
}

/// What came of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Requests that were answered 200.
    pub(crate) good: u64,
    /// All others.
    pub(crate) bad: u64,
    /// Microseconds from when a request was due to its answer.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    anyhow::ensure!(
        args.rate > 0 && args.connections > 0,
        "--rate and --connections must be more than 0"
    );
    let began = Instant::now();
    let workers = (0..args.connections).map(|n| worker(&args, n, began));
    let mut latencies = Histogram::<u64>::new_with_bounds(1, 600_000_000, 3)?;
    let mut outcome = Outcome::default();
    for done in join_all(workers).await {
        let (good, bad) = done?;
        outcome.good += good.len();
        outcome.bad += bad;
        latencies.add(good)?;
    }
    let micros = |quantile| {
        let tenths = latencies.value_at_quantile(quantile);
        f64::from(u32::try_from(tenths).unwrap_or(u32::MAX)) / 10.0
    };
    (outcome.p50, outcome.p99, outcome.max) = (micros(0.5), micros(0.99), micros(1.0));
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(())
}

async fn worker(args: &Args, nth: u32, began: Instant) -> anyhow::Result<(Histogram<u64>, u64)> {
    const MESSAGE: &[u8] = b"GET / HTTP/1.1\r\nhost: model\r\naccept: */*\r\n\r\n";
    let every = Duration::from_secs(1) * args.connections / args.rate;
    let end = began + Duration::from_secs_f64(args.seconds);
    let mut due = began + Duration::from_secs(1) * nth / args.rate;
    let mut latencies = Histogram::new_with_bounds(1, 600_000_000, 3)?;
    let mut bad = 0;
    let mut kept = None;
    let mut buffer = vec![0; 16 * 1024];
    while due < end {
        sleep_until(due).await;
        let stream = if let Some(stream) = &mut kept {
            stream
        } else {
            let stream = TcpStream::connect(args.to).await?;
            stream.set_nodelay(true)?;
            kept.insert(stream)
        };
        let (good, stays) = exchange(stream, MESSAGE, &mut buffer)
            .await
            .map_or((false, false), |(status, stays)| (status == *b"200", stays));
        if good {
            let tenths = due.elapsed().as_nanos() / 100;
            latencies.record(u64::try_from(tenths)?.max(1))?;
        } else {
            bad += 1;
        }
        if !stays {
            kept = None;
        }
        due += every;
    }
    Ok((latencies, bad))
}
