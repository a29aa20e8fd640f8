//! An attacker at a steady pace, and something to attack that does nothing but read.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context as _;
use attacks::{Attack, Plan};
use serde::{Deserialize, Serialize};
use tokio::{
    io::AsyncReadExt as _,
    net::TcpListener,
    time::{Instant, sleep},
};

/// The attacker alone.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Whom to attack.
    #[arg(long, value_name = "ADDR:PORT")]
    to: SocketAddr,
    /// How.
    #[arg(long, value_parser = attack)]
    attack: Attack,
    /// Frames each second.
    #[arg(long, default_value_t = 20_000)]
    pace: u32,
    /// Seconds.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
}

/// Something to attack that does nothing but read.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Sink {
    /// Where to listen.
    #[arg(long, value_name = "ADDR:PORT")]
    listen: SocketAddr,
}

/// What an attacker has done.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Done {
    pub(crate) frames: u64,
    pub(crate) connections: u64,
    /// Of these the other side has ended so many.
    pub(crate) ended: u64,
    pub(crate) seconds: f64,
}

/// Reads the name of an attack.
pub(crate) fn attack(text: &str) -> Result<Attack, String> {
    let mut all = Attack::ALL.into_iter();
    all.find(|attack| attack.name() == text).ok_or_else(|| {
        let names = Attack::ALL.map(Attack::name).join(", ");
        format!("expected one of {names}")
    })
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let began = Instant::now();
    let end = began + Duration::from_secs_f64(args.seconds);
    let mut done = Done::default();
    while Instant::now() < end {
        let plan = Plan {
            frames: u64::MAX,
            pace: Some(args.pace),
            patience: end - Instant::now(),
        };
        done.connections += 1;
        let outcome = attacks::run(args.to, args.attack, plan).await?;
        done.frames += outcome.frames;
        done.ended += u64::from(outcome.closed);
        // However soon an attacker is cut off, its frames have their pace over all of its connections.
        let frames = f64::from(u32::try_from(done.frames)?);
        let due = began + Duration::from_secs_f64(frames / f64::from(args.pace));
        sleep(due.min(end).saturating_duration_since(Instant::now())).await;
    }
    done.seconds = began.elapsed().as_secs_f64();
    println!("{}", serde_json::to_string(&done)?);
    Ok(())
}

pub(crate) async fn sink(args: Sink) -> anyhow::Result<()> {
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("cannot listen on {}", args.listen))?;
    loop {
        let (mut stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            let mut bytes = vec![0; 64 * 1024];
            while matches!(stream.read(&mut bytes).await, Ok(1..)) {}
        });
    }
}
