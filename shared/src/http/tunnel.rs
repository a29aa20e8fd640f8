//! An upgraded connection: bytes both ways until both sides are done.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional},
    time::{Instant, sleep_until},
};

use super::{
    body::{End, Ending, Late},
    client::{Upgraded, upgraded},
};
use crate::{
    record::{Notes, Tally},
    shutdown,
};

/// An answer switches protocols although nobody asked for it, or leaves no connection to do so: what follows could not be
/// understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a switch of protocols that nobody asked for")]
pub struct Unasked;

/// Both sides of a tunnel, if `answer` opens one: the `client` that asked for it, and the connection on which the answer came.
///
/// # Errors
/// [`Unasked`].
pub fn sides<B>(
    client: Option<OnUpgrade>,
    answer: &mut Response<B>,
) -> Result<Option<(OnUpgrade, Upgraded)>, Unasked> {
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(None);
    }
    let upstream = upgraded(answer).ok_or(Unasked)?;
    Ok(Some((client.ok_or(Unasked)?, upstream)))
}

/// Joins a client's upgraded connection and that of its upstream. `guard` (a slot, an in-flight count) lives until both directions
/// have ended, until nothing has come from either side for `idle`, or until `cut` is triggered; the last two end the tunnel at once.
/// Its bytes are noted.
pub fn join(
    client: OnUpgrade,
    upstream: Upgraded,
    mut guard: impl Ending + 'static,
    idle: Option<Duration>,
    notes: &Notes,
    mut cut: shutdown::Rx,
) {
    let (received, sent) = (notes.received(), notes.sent());
    tokio::spawn(async move {
        let heard = idle.map(|idle| (idle, Heard::default()));
        let tunnel = async {
            let client = TokioIo::new(client.await?);
            if heard.is_none() && received.is_off() {
                join_io(client, upstream).await?;
            } else {
                let heard = heard.as_ref().map(|(_, heard)| heard);
                let client = Listening::new(client, heard, received);
                join_io(client, Listening::new(upstream, heard, sent)).await?;
            }
            Ok::<_, crate::BoxError>(())
        };
        let silent = async {
            match &heard {
                None => std::future::pending().await,
                Some((idle, heard)) => heard.silent(*idle).await,
            }
        };
        let how = tokio::select! {
            done = tunnel => match done {
                Ok(()) => End::Whole,
                Err(error) => {
                    tracing::debug!(%error, "Tunnel ended");
                    End::Broken
                }
            },
            () = silent => End::Late(Late::Idle),
            () = cut.wait() => End::Dropped,
        };
        guard.end(how);
        drop(guard);
    });
}

async fn join_io(
    mut client: impl AsyncRead + AsyncWrite + Unpin,
    mut upstream: impl AsyncRead + AsyncWrite + Unpin,
) -> io::Result<()> {
    copy_bidirectional(&mut client, &mut upstream).await?;
    Ok(())
}

/// When something last came from either side.
#[derive(Clone)]
struct Heard(Arc<Mutex<Instant>>);

impl Default for Heard {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }
}

impl Heard {
    /// Returns when nothing has come for `idle`. One too long to be told is for ever.
    async fn silent(&self, idle: Duration) {
        loop {
            let Some(end) = self.0.lock().checked_add(idle) else {
                return std::future::pending().await;
            };
            if end <= Instant::now() {
                return;
            }
            sleep_until(end).await;
        }
    }
}

/// One side of a tunnel: whether anything comes from it, and how much.
struct Listening<T> {
    io: T,
    heard: Option<Heard>,
    tally: Tally,
}

impl<T> Listening<T> {
    fn new(io: T, heard: Option<&Heard>, tally: Tally) -> Self {
        Self {
            io,
            heard: heard.cloned(),
            tally,
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Listening<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = out.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, out))?;
        let read = out.filled().len() - before;
        self.tally.add(read);
        if let (Some(heard), 1..) = (&self.heard, read) {
            *heard.0.lock() = Instant::now();
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Listening<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn bytes_of_either_side_keep_a_tunnel_from_being_idle() {
        const IDLE: Duration = Duration::from_secs(5);
        let (mut client, a) = duplex(64);
        let (b, mut model) = duplex(64);
        let heard = Heard::default();
        let start = Instant::now();
        let listen = |io| Listening::new(io, Some(&heard), Tally::default());
        let (one, other) = (listen(a), listen(b));
        let tunnel = tokio::spawn(join_io(one, other));
        let talk = async {
            let mut byte = [0];
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_secs(4)).await;
                client.write_all(b"x").await.unwrap();
                model.read_exact(&mut byte).await.unwrap();
                tokio::time::sleep(Duration::from_secs(4)).await;
                model.write_all(b"y").await.unwrap();
                client.read_exact(&mut byte).await.unwrap();
            }
        };
        tokio::join!(talk, heard.silent(IDLE));
        assert_eq!(start.elapsed(), Duration::from_secs(24) + IDLE);
        tunnel.abort();
    }
}
