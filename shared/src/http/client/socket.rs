//! A socket to a server that may answer and close before it has read the whole request.

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use bytes::BytesMut;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_util::io::poll_read_buf;

use crate::http::{read_size::ReadSize, wire::Wire};

/// Once the server reads no more, what is sent to it is thrown away: its answer may be here already, and is worth more than
/// the error of a write. Without an answer the next read ends the connection.
#[derive(Debug)]
pub(super) struct Socket {
    stream: Wire<TcpStream>,
    read_size: ReadSize,
    deaf: bool,
}

impl Socket {
    pub(super) fn new(stream: Wire<TcpStream>) -> Self {
        Self {
            stream,
            read_size: ReadSize::LEAST,
            deaf: false,
        }
    }

    /// Has the connection reset when it is dropped: a server that reads nothing while it works would take a plain end for a
    /// client that waits for its answer, and find out at its second write.
    pub(super) fn reset(&self) {
        // On a socket that is closed already nothing is left to be done.
        let _closed = self.tcp().set_zero_linger();
    }

    fn tcp(&self) -> &TcpStream {
        match &self.stream {
            Wire::Plain(stream) => stream,
            Wire::Tls(stream) => stream.get_ref().0,
        }
    }

    /// Whether an unused connection is as it should be: open, and silent. The kernel is asked, since what has come after the
    /// runtime last looked at its sockets would be found out only by a request that nobody may send again then. With TLS
    /// something may have come before, and been decrypted; a session ticket that has come since then costs a handshake.
    pub(super) fn is_silent(&mut self) -> bool {
        let looked = SockRef::from(self.tcp()).peek(&mut [MaybeUninit::uninit()]);
        if !looked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            return false;
        }
        match &mut self.stream {
            Wire::Plain(_) => true,
            Wire::Tls(stream) => {
                let mut byte = [0];
                let mut byte = ReadBuf::new(&mut byte);
                let mut cx = Context::from_waker(Waker::noop());
                Pin::new(stream).poll_read(&mut cx, &mut byte).is_pending()
            }
        }
    }

    /// Reads more into `buffer`, which takes up room only once there is something to read. `Ok(0)` is the end.
    pub(super) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        let there = match &self.stream {
            Wire::Plain(stream) => stream.poll_read_ready(cx),
            // What was decrypted already shows only when it is read.
            Wire::Tls(_) => Poll::Ready(Ok(())),
        };
        let read = match there {
            Poll::Ready(Ok(())) => {
                buffer.reserve(self.read_size.bytes());
                poll_read_buf(Pin::new(&mut self.stream), cx, buffer)
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        };
        match read {
            Poll::Ready(Ok(n)) => self.read_size.came(n),
            Poll::Pending if buffer.is_empty() => *buffer = BytesMut::new(),
            Poll::Ready(Err(_)) | Poll::Pending => {}
        }
        read
    }

    /// Whether the server was found to read no more.
    pub(super) fn is_deaf(&self) -> bool {
        self.deaf
    }

    /// Whether a write that fails may have sent something: TLS makes several of one.
    pub(super) fn sends_in_steps(&self) -> bool {
        matches!(self.stream, Wire::Tls(_))
    }

    /// Writes some of `slices`.
    ///
    /// # Errors
    /// Those that say more than that the server has closed.
    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = slices.iter().map(|slice| slice.len()).sum();
        if self.deaf {
            return Poll::Ready(Ok(length));
        }
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices));
        Poll::Ready(self.or_deaf(written, length))
    }

    /// Sees to it that what was written is on its way, which with TLS is a step of its own.
    ///
    /// # Errors
    /// See [`Self::poll_send`].
    pub(super) fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.deaf {
            return Poll::Ready(Ok(()));
        }
        let flushed = ready!(Pin::new(&mut self.stream).poll_flush(cx));
        Poll::Ready(self.or_deaf(flushed, ()))
    }

    fn or_deaf<T>(&mut self, done: io::Result<T>, all: T) -> io::Result<T> {
        match done {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
                ) =>
            {
                self.deaf = true;
                Ok(all)
            }
            done => done,
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
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
