//! The bytes of a connection: over TCP, or over TLS. Plain TCP pays a branch for it and nothing else.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use super::{Failure, Refused, Stage, Target};
use crate::record::ErrorKind;

/// A connection below HTTP.
#[derive(Debug)]
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<Secure>),
}

/// A connection over TLS.
#[derive(Debug)]
pub(crate) struct Secure {
    stream: TlsStream<TcpStream>,
    said: Said,
}

/// Why TLS has ended the connection, once it has: not all of those above hand on the error itself.
pub(super) type Said = Arc<OnceLock<String>>;

impl Stream {
    /// Connects to the first address that answers.
    pub(crate) async fn open(target: &Target, stage: &mut Stage) -> Result<Self, Refused> {
        let refused = |error: io::Error| Refused::saying(ErrorKind::Connect, &error);
        let stream = TcpStream::connect(&target.addresses[..])
            .await
            .map_err(refused)?;
        stream.set_nodelay(true).map_err(refused)?;
        let Some(connector) = &target.tls else {
            return Ok(Self::Plain(stream));
        };
        *stage = Stage::Tls;
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
        let said = Said::default();
        Ok(Self::Tls(Box::new(Secure { stream, said })))
    }

    /// Where it is told why TLS has ended the connection.
    pub(super) fn said(&self) -> Option<&Said> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(secure) => Some(&secure.said),
        }
    }

    /// Whether a write that failed has sent nothing. TLS takes bytes first and sends them afterwards.
    pub(super) fn fails_whole(&self) -> bool {
        matches!(self, Self::Plain(_))
    }
}

/// What TLS says of an error of a connection, if it is TLS that failed: a server tells a client only after the handshake of TLS 1.3 that
/// it does not let it in.
pub(super) fn alert(error: &io::Error) -> Option<Failure> {
    words(error).map(|reason| Failure::Because(ErrorKind::Tls, reason))
}

/// The same in words.
pub(super) fn words(error: &io::Error) -> Option<String> {
    let inner = error.get_ref()?;
    inner.is::<rustls::Error>().then(|| inner.to_string())
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
            Self::Tls(secure) => {
                let read = Pin::new(&mut secure.stream).poll_read(cx, buf);
                if let Poll::Ready(Err(error)) = &read
                    && let Some(reason) = words(error)
                {
                    // The first counts.
                    let _ = secure.said.set(reason);
                }
                read
            }
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
            Self::Tls(secure) => Pin::new(&mut secure.stream).poll_write(cx, buf),
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
            Self::Tls(secure) => Pin::new(&mut secure.stream).poll_write_vectored(cx, bufs),
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
            Self::Tls(secure) => Pin::new(&mut secure.stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(secure) => Pin::new(&mut secure.stream).poll_shutdown(cx),
        }
    }
}
