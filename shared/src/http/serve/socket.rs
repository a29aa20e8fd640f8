//! The socket of an HTTP/1 client, or of one that speaks TLS, which is then around it.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

#[cfg(target_os = "linux")]
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep},
};

use super::flow::Flow;
use crate::http::guard::Link;

/// Bytes that the kernel keeps unsent. It wakes a writer when half of them are gone, so with a limit of a minute a client that reads
/// slower than about 1 KB/s is taken for one that reads nothing; with the megabytes that the kernel would keep, one that is twenty
/// times as fast would be. What is on its way does not count, so nobody becomes slower.
#[cfg(target_os = "linux")]
const UNSENT_BYTES: u32 = 128 * 1024;

/// A socket that is closed with a reset where its end would pass for the end of an answer that is not whole, and that fails when its
/// client takes nothing for too long.
#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
    link: Arc<Link>,
    flow: Arc<Flow>,
    limit: Option<Duration>,
    /// When a write that waits has waited for too long. Made for the first one that waits.
    over: Option<Pin<Box<Sleep>>>,
    waits: bool,
}

impl Socket {
    pub(super) fn new(
        stream: TcpStream,
        link: Arc<Link>,
        flow: Arc<Flow>,
        limit: Option<Duration>,
    ) -> Self {
        #[cfg(target_os = "linux")]
        if limit.is_some() {
            // Without it a slow client is only cut sooner.
            let _coarse = SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_BYTES);
        }
        Self {
            stream,
            link,
            flow,
            limit,
            over: None,
            waits: false,
        }
    }

    /// Waits for a client that takes nothing as long as it likes, from now on.
    pub(super) fn wait_for_ever(&mut self) {
        self.limit = None;
    }

    /// Keeps the time of a write.
    fn timed(
        &mut self,
        written: Poll<io::Result<usize>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let (true, Some(limit)) = (written.is_pending(), self.limit) else {
            self.waits = false;
            return written;
        };
        let over = self.over.get_or_insert_with(|| Box::pin(sleep(limit)));
        if !std::mem::replace(&mut self.waits, true) {
            over.as_mut().reset(Instant::now() + limit);
        }
        ready!(over.as_mut().poll(cx));
        self.flow.stall();
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.link.is_to_be_reset() {
            // On a socket that is closed already nothing is left to be done.
            let _closed = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, out)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.timed(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.timed(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
