//! The bytes of a connection: over TCP, or over TLS. Plain TCP pays a branch for it and nothing else.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use super::{Failure, Refused, Target};
use crate::record::ErrorKind;

/// A connection below HTTP.
#[derive(Debug)]
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Connects to the first address that answers.
    pub(crate) async fn open(target: &Target) -> Result<Self, Refused> {
        let refused = |error: io::Error| Refused::saying(ErrorKind::Connect, &error);
        let stream = TcpStream::connect(&target.addresses[..])
            .await
            .map_err(refused)?;
        stream.set_nodelay(true).map_err(refused)?;
        let Some(connector) = &target.tls else {
            return Ok(Self::Plain(stream));
        };
        let stream = connector
            .tls
            .connect(connector.server.clone(), stream)
            .await
            .map_err(|error| Refused::saying(ErrorKind::Tls, &error))?;
        let agreed = stream.get_ref().1.alpn_protocol();
        if connector.http2 && agreed != Some(crate::tls::HTTP_2) {
            let reason = "the target does not agree to HTTP/2 (ALPN h2)";
            return Err(Refused::saying(ErrorKind::Tls, &reason));
        }
        Ok(Self::Tls(Box::new(stream)))
    }

    /// Whether a write that failed has sent nothing. TLS takes bytes first and sends them afterwards.
    pub(super) fn fails_whole(&self) -> bool {
        matches!(self, Self::Plain(_))
    }
}

/// What TLS says of an error of a connection, if it is TLS that failed: a server tells a client only after the handshake of TLS 1.3 that
/// it does not let it in.
pub(super) fn alert(error: &io::Error) -> Option<Failure> {
    let inner = error.get_ref()?;
    inner
        .is::<rustls::Error>()
        .then(|| Failure::Because(ErrorKind::Tls, inner.to_string()))
}

impl AsyncRead for Stream {
    #[inline]
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    #[inline]
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    #[inline]
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    #[inline]
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            // There is nothing between it and the kernel.
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
