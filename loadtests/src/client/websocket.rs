//! WebSocket (RFC 6455), one message at a time: a message goes out, and the next one that comes is its answer. tungstenite keeps to
//! the protocol; it answers pings.

use std::{
    future::poll_fn,
    mem,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use futures_util::{Sink as _, Stream as _};
use http::{
    HeaderMap, HeaderValue, Request, Uri,
    header::{CONNECTION, HOST, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE},
};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        Error, Message, Utf8Bytes,
        error::ProtocolError,
        handshake::client::generate_key,
        protocol::{CloseFrame, WebSocketConfig},
    },
};

use super::{
    Answer, BodyEnd, Failure, Order, Refused, Watchdog,
    stream::{Stream, alert, words as tls_words},
};
use crate::{
    config::Config, error::Error as Invalid, listen::Sink, protocol::Protocol, record::ErrorKind,
};

/// Buffers of a connection begin so large: most messages fit. The library's own would be 256 KiB for each.
const BUFFER: usize = 4 * 1024;
/// Bytes of a message, and of each of its frames.
const LARGEST: usize = 16 * 1024 * 1024;
/// Messages of one turn.
const READS: u32 = 16;

/// How a connection becomes one of WebSocket.
#[derive(Debug)]
pub(crate) struct Upgrade {
    uri: Uri,
    headers: HeaderMap,
    /// Whether messages are bytes; text if not.
    binary: bool,
}

impl Upgrade {
    /// That of a configuration, if it asks for one.
    pub(crate) fn of(config: &Config) -> Result<Option<Self>, Invalid> {
        let Protocol::WebSocket { binary } = config.protocol else {
            return Ok(None);
        };
        let upgrade = Self::with(config, binary).ok_or_else(|| {
            let allowed = "a URL with a host and a path";
            Invalid::invalid("URL", config.url.to_string(), allowed)
        });
        upgrade.map(Some)
    }

    fn with(config: &Config, binary: bool) -> Option<Self> {
        let authority = config.url.authority()?;
        let mut parts = config.url.clone().into_parts();
        // tungstenite wants to see the scheme, and does nothing with it.
        parts.scheme = Some("ws".parse().ok()?);
        let host = HeaderValue::from_str(authority.as_str()).ok()?;
        let mut headers = config.headers.clone();
        headers.entry(HOST).or_insert(host);
        for (name, value) in [
            (CONNECTION, "Upgrade"),
            (UPGRADE, "websocket"),
            (SEC_WEBSOCKET_VERSION, "13"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let uri = Uri::from_parts(parts).ok()?;
        Some(Self {
            uri,
            headers,
            binary,
        })
    }
}

/// A connection.
pub(super) struct WebSocket {
    socket: WebSocketStream<Stream>,
    binary: bool,
    closed: bool,
    /// Whether there may be messages that came without being asked for, and were not read in one turn.
    has_more: bool,
}

impl std::fmt::Debug for WebSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebSocket")
            .field("closed", &self.closed)
            .finish_non_exhaustive()
    }
}

impl WebSocket {
    pub(super) async fn open(stream: Stream, upgrade: &Upgrade) -> Result<Self, Refused> {
        let mut request = Request::new(());
        *request.uri_mut() = upgrade.uri.clone();
        *request.headers_mut() = upgrade.headers.clone();
        let key = HeaderValue::from_str(&generate_key()).expect("Base64 is a header value");
        request.headers_mut().insert(SEC_WEBSOCKET_KEY, key);
        let config = WebSocketConfig::default()
            .read_buffer_size(BUFFER)
            .write_buffer_size(0)
            .max_message_size(Some(LARGEST))
            .max_frame_size(Some(LARGEST));
        match client_async_with_config(request, stream, Some(config)).await {
            Ok((socket, _)) => Ok(Self {
                socket,
                binary: upgrade.binary,
                closed: false,
                has_more: false,
            }),
            Err(Error::Http(response)) => {
                let status = response.status().as_u16();
                let mut refused = Refused::saying(
                    ErrorKind::of_status(status),
                    &format!("the handshake was answered with {status}"),
                );
                refused.status = Some(status);
                Err(refused)
            }
            Err(Error::Io(error)) if let Some(reason) = tls_words(&error) => {
                Err(Refused::saying(ErrorKind::Tls, &reason))
            }
            Err(error @ (Error::Io(_) | Error::Protocol(ProtocolError::HandshakeIncomplete))) => {
                Err(Refused::saying(ErrorKind::ClosedFresh, &error))
            }
            Err(error) => Err(Refused::saying(ErrorKind::Protocol, &error)),
        }
    }

    /// Ready once nothing can be asked on it any more. What comes without being asked for is no answer.
    pub(super) fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.has_more = false;
        for _ in 0..READS {
            if self.closed {
                return Poll::Ready(());
            }
            match Pin::new(&mut self.socket).poll_next(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(message))) => self.closed = message.is_close(),
                Poll::Ready(Some(Err(_)) | None) => self.closed = true,
            }
        }
        self.has_more = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Whether all was read that had come when [`Self::poll_closed`] was asked: what had not would be taken for an answer.
    pub(super) fn is_drained(&self) -> bool {
        !self.has_more
    }

    /// Below the messages.
    pub(super) fn stream(&self) -> &Stream {
        self.socket.get_ref()
    }

    /// See [`super::Connection::exchange`].
    pub(super) async fn exchange(
        &mut self,
        order: &Order<'_>,
        sink: &mut Sink<'_>,
        is_reused: bool,
        watchdog: &mut Watchdog,
        deadline: Instant,
    ) -> Result<Answer, Failure> {
        let body = order.template.body(order.number);
        let mut unsent = Some(if self.binary {
            Message::Binary(body)
        } else {
            // See `Protocol::check`.
            Message::Text(Utf8Bytes::try_from(body).unwrap_or_default())
        });
        // Half an exchange leaves nothing that could be used, also if it is dropped here.
        let was_closed = mem::replace(&mut self.closed, true);
        if was_closed {
            return Err(Failure::Unsent);
        }
        let answer = poll_fn(|cx| {
            if let Err(error) = self.send(&mut unsent, cx) {
                return Poll::Ready(Err(failure(&error, is_reused)));
            }
            for _ in 0..READS {
                let next = match Pin::new(&mut self.socket).poll_next(cx) {
                    Poll::Ready(next) => next,
                    Poll::Pending => {
                        return watchdog
                            .poll_expired(deadline, cx)
                            .map(|()| Err(Failure::Timeout));
                    }
                };
                let gone = || Failure::Error(closed(is_reused));
                match next {
                    Some(Ok(Message::Close(frame))) => {
                        return Poll::Ready(Err(frame.map_or_else(gone, |frame| {
                            Failure::Because(closed(is_reused), words(&frame))
                        })));
                    }
                    Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => {
                        if unsent.is_none() {
                            return Poll::Ready(Ok(message.into_data()));
                        }
                    }
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Poll::Ready(Err(failure(&error, is_reused))),
                    None => return Poll::Ready(Err(gone())),
                }
            }
            // Whoever always has more to say is not let off the deadline by it, and others have their turn.
            if Instant::now() >= deadline {
                return Poll::Ready(Err(Failure::Timeout));
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await?;
        self.closed = false;
        sink.take(&answer);
        Ok(Answer {
            status: None,
            served_by: None,
            body_bytes: answer.len() as u64,
            end: BodyEnd::Whole,
        })
    }

    /// Sends what the socket takes.
    fn send(&mut self, unsent: &mut Option<Message>, cx: &mut Context<'_>) -> Result<(), Error> {
        let mut socket = Pin::new(&mut self.socket);
        if unsent.is_some() {
            let Poll::Ready(ready) = socket.as_mut().poll_ready(cx) else {
                return Ok(());
            };
            ready?;
            if let Some(message) = unsent.take() {
                socket.as_mut().start_send(message)?;
            }
        }
        match socket.poll_flush(cx) {
            Poll::Ready(flushed) => flushed,
            Poll::Pending => Ok(()),
        }
    }
}

/// Why an exchange has failed.
fn failure(error: &Error, is_reused: bool) -> Failure {
    if let Error::Io(error) = error
        && let Some(alert) = alert(error)
    {
        return alert;
    }
    let kind = match error {
        Error::ConnectionClosed
        | Error::AlreadyClosed
        | Error::Io(_)
        | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => closed(is_reused),
        Error::Capacity(_) => ErrorKind::Body,
        _ => ErrorKind::Protocol,
    };
    Failure::Because(kind, error.to_string())
}

fn closed(is_reused: bool) -> ErrorKind {
    if is_reused {
        ErrorKind::ClosedReused
    } else {
        ErrorKind::ClosedFresh
    }
}

fn words(frame: &CloseFrame) -> String {
    format!(
        "closed with {} {}",
        u16::from(frame.code),
        frame.reason.as_str()
    )
    .trim_end()
    .to_owned()
}
