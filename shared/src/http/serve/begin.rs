//! The beginning of a connection: TLS or not, and which version of HTTP.

use std::{io, sync::Arc};

use bytes::BytesMut;
use http::Version;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    net::TcpStream,
    time::timeout,
};

use super::{Config, flow::Flow, socket::Socket};
use crate::http::{
    guard::Link,
    tls::{self, Mode, ServerTls},
    wire::Wire,
};

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// First byte of a TLS handshake (RFC 8446 section 5.1), and of no method of HTTP.
const HANDSHAKE: u8 = 22;

/// A connection that has begun.
pub(super) struct Begun {
    pub(super) wire: Wire<TcpStream, Socket>,
    /// What was read of it.
    pub(super) first: BytesMut,
    pub(super) version: Version,
}

/// Waits for the first bytes. None when they do not come in time, are none of what is taken here, or the client is gone.
pub(super) async fn begin(
    mut stream: TcpStream,
    config: &Config,
    link: &Arc<Link>,
    flow: &Arc<Flow>,
) -> Option<Begun> {
    let limit = config.timeouts.first_byte;
    let mut first = BytesMut::new();
    let tls = match &config.tls {
        None => None,
        Some(tls) if tls.mode == Mode::Strict => Some(tls),
        // Only a look: what is no TLS goes on as if nobody had asked.
        Some(tls) => timeout(limit, is_handshake(&stream))
            .await
            .ok()?
            .then_some(tls),
    };
    if let Some(tls) = tls {
        // Boxed, so that connections without it take no room for it.
        return Box::pin(begin_tls(stream, tls, config, link, flow)).await;
    }
    let version = timeout(limit, read_version(&mut stream, &mut first)).await;
    Some(Begun {
        version: version.ok()?.ok()?,
        wire: Wire::Plain(stream),
        first,
    })
}

async fn begin_tls(
    stream: TcpStream,
    tls: &ServerTls,
    config: &Config,
    link: &Arc<Link>,
    flow: &Arc<Flow>,
) -> Option<Begun> {
    let timeouts = config.timeouts;
    // The socket's own limit is one on answers, and holds for what TLS adds to them.
    let socket = Socket::new(stream, Arc::clone(link), Arc::clone(flow), config.send);
    // A port may wait long for the first request of a connection, but never for one handshake.
    let limit = timeouts.first_byte.min(timeouts.head);
    let mut stream = match timeout(limit, tls.accept(socket)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%error, "No TLS connection came about");
            return None;
        }
        Err(_) => return None,
    };
    let mut first = BytesMut::new();
    let read = timeout(timeouts.first_byte, read_version(&mut stream, &mut first)).await;
    let version = read.ok()?.ok()?;
    let (socket, session) = stream.get_mut();
    // What was agreed on is what is spoken. Who did not say may still know HTTP/2 beforehand, as without TLS.
    let agreed = session.alpn_protocol().map(|name| name == tls::HTTP_2);
    if agreed.is_some_and(|http2| http2 != (version == Version::HTTP_2)) {
        tracing::debug!("Other protocol than agreed on");
        return None;
    }
    if version == Version::HTTP_2 {
        // There, what a client does not take is a matter of each stream, and of PING.
        socket.wait_for_ever();
    }
    Some(Begun {
        wire: Wire::Tls(Box::new(stream)),
        first,
        version,
    })
}

/// Whether the first byte is one of TLS. What is wrong with a connection shows when it is read.
async fn is_handshake(stream: &TcpStream) -> bool {
    let mut first = [0];
    matches!(stream.peek(&mut first).await, Ok(1)) && first[0] == HANDSHAKE
}

/// Whether the client has begun to speak TLS, where somebody who does not may be told something.
pub(super) async fn speaks_tls(stream: &TcpStream, config: Option<&ServerTls>) -> bool {
    config.is_some() && is_handshake(stream).await
}

/// Reads until the bytes can only be, or cannot be, an HTTP/2 preface.
async fn read_version(
    stream: &mut (impl AsyncRead + Unpin),
    first: &mut BytesMut,
) -> io::Result<Version> {
    loop {
        if stream.read_buf(first).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let n = first.len().min(PREFACE.len());
        if first[..n] != PREFACE[..n] {
            return Ok(Version::HTTP_11);
        }
        if n == PREFACE.len() {
            return Ok(Version::HTTP_2);
        }
    }
}
