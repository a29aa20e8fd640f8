//! A connection with or without TLS. What goes without it goes through no pointer and no copy for that.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsStream;

/// Gives of what was read before anybody asked for it. False if nothing of it is left.
pub(super) fn give_first(first: &mut BytesMut, out: &mut ReadBuf<'_>) -> bool {
    if first.is_empty() {
        return false;
    }
    let n = first.len().min(out.remaining());
    out.put_slice(&first[..n]);
    first.advance(n);
    if first.is_empty() {
        *first = BytesMut::new();
    }
    true
}

/// Bytes as they are on `P`, or the secret ones of TLS on `T`.
#[derive(Debug)]
pub(super) enum Wire<P, T = P> {
    Plain(P),
    /// Boxed: it is a kilobyte that other connections should not take.
    Tls(Box<TlsStream<T>>),
}

impl<P, T> Wire<P, T> {
    /// The same, with something around what is without TLS.
    pub(super) fn map<Q>(self, around: impl FnOnce(P) -> Q) -> Wire<Q, T> {
        match self {
            Self::Plain(io) => Wire::Plain(around(io)),
            Self::Tls(io) => Wire::Tls(io),
        }
    }
}

impl<P, T> AsyncRead for Wire<P, T>
where
    P: AsyncRead + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_read(cx, out),
            Self::Tls(io) => Pin::new(io).poll_read(cx, out),
        }
    }
}

impl<P, T> AsyncWrite for Wire<P, T>
where
    P: AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write(cx, bytes),
            Self::Tls(io) => Pin::new(io).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write_vectored(cx, bytes),
            Self::Tls(io) => Pin::new(io).poll_write_vectored(cx, bytes),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(io) => io.is_write_vectored(),
            Self::Tls(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_flush(cx),
            Self::Tls(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Self::Tls(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}
