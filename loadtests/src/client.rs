//! One connection and one exchange on it at a time.
//!
//! The task that sends a request also drives its connection: nothing is spawned per connection or request, and no other
//! task has to be woken between a socket becoming readable and the response being counted. There are no retries after a
//! byte was written: what the server may have seen is reported, not repeated. A request of which nothing was written may
//! go out on a new connection.
//!
//! HTTP/1.1 is our own ([`h1`]), HTTP/2 is hyper's, WebSocket is tungstenite's. All that the workers use is [`Connection`].

mod h1;
mod stream;
mod template;
mod watchdog;
mod websocket;

pub(crate) use self::stream::Stream;
pub(crate) use self::template::Template;
pub(crate) use watchdog::Watchdog;
pub(crate) use websocket::Upgrade;

use self::h1::H1;
use self::stream::Said;
use self::template::Outgoing;
use self::websocket::WebSocket;
use crate::config::SERVED_BY;
use crate::listen::Sink;
use crate::record::ErrorKind;
use crate::tls::Connector;
use bytes::Bytes;
use http::Response;
use http::header::CONTENT_TYPE;
use http_body::Body;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Instant;

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    /// None where answers have none.
    pub(crate) status: Option<u16>,
    /// How the server names itself, if it does.
    pub(crate) served_by: Option<String>,
    pub(crate) body_bytes: u64,
    pub(crate) end: BodyEnd,
}

/// What to ask.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Order<'a> {
    pub(crate) template: &'a Template,
    /// Of the request.
    pub(crate) number: u64,
    pub(crate) id: Option<&'a str>,
}

/// How a response body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyEnd {
    Whole,
    Broken,
    TimedOut,
}

/// Why nothing came back.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Not one byte was written: the request may go out on another connection.
    Unsent,
    /// No head arrived in time.
    Timeout,
    Error(ErrorKind),
    /// The same, in words.
    Because(ErrorKind, String),
}

/// Where connections go, and how they are made.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) http2: bool,
    /// With TLS, if there is any.
    pub(crate) tls: Option<Connector>,
    /// To WebSocket, if it is that.
    pub(crate) upgrade: Option<Upgrade>,
}

/// How far a connection has come while it is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Of TCP.
    #[default]
    Connect,
    /// In the handshake of TLS.
    Tls,
    /// In that of WebSocket.
    WebSocket,
}

impl Stage {
    /// Why there is no connection whose time was up at this stage.
    pub(crate) fn late(self) -> Refused {
        let (kind, reason) = match self {
            Self::Connect => (ErrorKind::Connect, "no connection in time"),
            Self::Tls => (ErrorKind::Tls, "no TLS handshake in time"),
            Self::WebSocket => (
                ErrorKind::Timeout,
                "no answer to the WebSocket handshake in time",
            ),
        };
        Refused::saying(kind, &reason)
    }
}

/// Why there is no connection.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) kind: ErrorKind,
    /// In words.
    pub(crate) reason: Option<String>,
    /// Of an answer that is no connection.
    pub(crate) status: Option<u16>,
}

impl From<ErrorKind> for Refused {
    fn from(kind: ErrorKind) -> Self {
        Self {
            kind,
            reason: None,
            status: None,
        }
    }
}

impl Refused {
    pub(crate) fn saying(kind: ErrorKind, reason: &impl ToString) -> Self {
        let reason = Some(reason.to_string());
        Self {
            kind,
            reason,
            status: None,
        }
    }
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct Connection {
    kind: Kind,
    exchanges: u64,
}

#[derive(Debug)]
enum Kind {
    H1(H1),
    H2(H2),
    WebSocket(Box<WebSocket>),
}

/// A connection of HTTP/2.
#[derive(Debug)]
struct H2 {
    send: http2::SendRequest<Full<Bytes>>,
    driver: Pin<Box<Driver>>,
    closed: bool,
    /// With TLS: why that has ended it. Of errors below it the library keeps only words.
    said: Option<Said>,
}

type Driver = http2::Connection<TokioIo<Stream>, Full<Bytes>, TokioExecutor>;

impl Connection {
    /// Connects to the first address that answers. Where that stops short, `stage` tells how far it has come.
    pub(crate) async fn open(target: &Target, stage: &mut Stage) -> Result<Self, Refused> {
        let stream = Stream::open(target, stage).await?;
        let kind = if let Some(upgrade) = &target.upgrade {
            *stage = Stage::WebSocket;
            Kind::WebSocket(Box::new(WebSocket::open(stream, upgrade).await?))
        } else if target.http2 {
            let said = stream.said().cloned();
            let mut builder = http2::Builder::new(TokioExecutor::new());
            // The protocol's defaults stall a 1 MiB body sixteen times.
            builder
                .initial_stream_window_size(1 << 20)
                .initial_connection_window_size(4 << 20);
            let (send, connection) = builder
                .handshake(TokioIo::new(stream))
                .await
                .map_err(|error| Refused::saying(ErrorKind::Connect, &error))?;
            Kind::H2(H2 {
                send,
                driver: Box::pin(connection),
                closed: false,
                said,
            })
        } else {
            Kind::H1(H1::new(stream))
        };
        Ok(Self { kind, exchanges: 0 })
    }

    /// Exchanges that were begun on it.
    pub(crate) fn exchanges(&self) -> u64 {
        self.exchanges
    }

    /// True if an earlier exchange was begun on it.
    pub(crate) fn is_reused(&self) -> bool {
        self.exchanges > 0
    }

    /// Why TLS has ended it, if that has: after the handshake it may still turn out that the server does not let us in.
    pub(crate) fn said(&self) -> Option<&str> {
        let said = match &self.kind {
            Kind::H1(h1) => h1.stream().said(),
            Kind::H2(h2) => h2.said.as_ref(),
            Kind::WebSocket(socket) => socket.stream().said(),
        };
        said?.get().map(String::as_str)
    }

    /// Drives the connection between exchanges; ready once it is closed.
    pub(crate) fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.kind {
            Kind::H1(h1) => h1.poll_closed(cx),
            Kind::H2(h2) => h2.poll_closed(cx),
            Kind::WebSocket(socket) => socket.poll_closed(cx),
        }
    }

    /// Waits until a request can be sent; false if the connection closed instead, or is still not free at the deadline.
    pub(crate) async fn ready(&mut self, watchdog: &mut Watchdog, deadline: Instant) -> bool {
        poll_fn(|cx| {
            if self.poll_closed(cx).is_ready() {
                return Poll::Ready(false);
            }
            let ready = match &mut self.kind {
                Kind::H1(_) => return Poll::Ready(true),
                Kind::WebSocket(socket) if socket.is_drained() => return Poll::Ready(true),
                Kind::WebSocket(_) => Poll::Pending,
                Kind::H2(h2) => h2.send.poll_ready(cx),
            };
            if let Poll::Ready(ready) = ready {
                return Poll::Ready(ready.is_ok());
            }
            watchdog.poll_expired(deadline, cx).map(|()| false)
        })
        .await
    }

    /// Sends one request and drains its response into `sink`; `deadline` bounds both together.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the exchange half done: drop the connection too.
    pub(crate) async fn exchange(
        &mut self,
        order: Order<'_>,
        sink: &mut Sink<'_>,
        watchdog: &mut Watchdog,
        deadline: Instant,
    ) -> Result<Answer, Failure> {
        let is_reused = self.is_reused();
        self.exchanges += 1;
        match &mut self.kind {
            Kind::H1(h1) => {
                h1.exchange(&order, sink, is_reused, watchdog, deadline)
                    .await
            }
            Kind::WebSocket(socket) => {
                socket
                    .exchange(&order, sink, is_reused, watchdog, deadline)
                    .await
            }
            Kind::H2(h2) => {
                let response = h2
                    .send
                    .try_send_request(order.template.outgoing(order.number, order.id));
                Exchange {
                    is_reused,
                    closed: &mut h2.closed,
                    said: h2.said.as_ref(),
                    watchdog,
                    deadline,
                }
                .run(response, h2.driver.as_mut(), sink)
                .await
            }
        }
    }
}

impl H2 {
    fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.closed {
            let _how = ready!(self.driver.as_mut().poll(cx));
            self.closed = true;
        }
        Poll::Ready(())
    }
}

/// One exchange of HTTP/2.
struct Exchange<'a> {
    is_reused: bool,
    closed: &'a mut bool,
    said: Option<&'a Said>,
    watchdog: &'a mut Watchdog,
    deadline: Instant,
}

impl Exchange<'_> {
    async fn run<D: Future>(
        &mut self,
        response: impl Future<Output = Result<Response<Incoming>, TrySendError<Outgoing>>>,
        mut driver: Pin<&mut D>,
        sink: &mut Sink<'_>,
    ) -> Result<Answer, Failure> {
        let mut response = pin!(response);
        let head = poll_fn(|cx| {
            self.drive(driver.as_mut(), cx);
            if let Poll::Ready(head) = response.as_mut().poll(cx) {
                return Poll::Ready(Some(head));
            }
            self.watchdog.poll_expired(self.deadline, cx).map(|()| None)
        })
        .await
        .ok_or(Failure::Timeout)?;
        let (parts, mut body) = match head {
            Ok(response) => response.into_parts(),
            Err(mut error) => {
                return Err(match error.take_message() {
                    // A new connection would be refused alike.
                    Some(_) if self.is_reused || self.refusal().is_none() => Failure::Unsent,
                    _ => self.classify(error.error()),
                });
            }
        };
        if let Some(listener) = sink.listener() {
            let content_type = parts.headers.get(CONTENT_TYPE);
            let content_type = content_type.map_or(&[][..], |value| value.as_bytes());
            listener.head(parts.status.as_u16(), content_type);
            listener.fields(&parts.headers);
        }
        let mut body_bytes = 0;
        let end = poll_fn(|cx| {
            if body.is_end_stream() {
                return Poll::Ready(BodyEnd::Whole);
            }
            self.drive(driver.as_mut(), cx);
            loop {
                match Pin::new(&mut body).poll_frame(cx) {
                    Poll::Ready(Some(Ok(frame))) => {
                        if let Some(data) = frame.data_ref() {
                            body_bytes += data.len() as u64;
                            sink.take(data);
                        } else if let Some(fields) = frame.trailers_ref()
                            && let Some(listener) = sink.listener()
                        {
                            listener.fields(fields);
                        }
                    }
                    // Also a reset with NO_ERROR ends it without an error, wherever it comes. One after the end takes nothing away.
                    Poll::Ready(None) if body.is_end_stream() => {
                        return Poll::Ready(BodyEnd::Whole);
                    }
                    Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(BodyEnd::Broken),
                    Poll::Pending => break,
                }
            }
            self.watchdog
                .poll_expired(self.deadline, cx)
                .map(|()| BodyEnd::TimedOut)
        })
        .await;
        Ok(Answer {
            status: Some(parts.status.as_u16()),
            served_by: parts
                .headers
                .get(SERVED_BY)
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned),
            body_bytes,
            end,
        })
    }

    /// Reads and writes the socket. How the connection ended reaches us through the response.
    fn drive<D: Future>(&mut self, driver: Pin<&mut D>, cx: &mut Context<'_>) {
        if !*self.closed {
            *self.closed = driver.poll(cx).is_ready();
        }
    }

    /// Frames that belong to no response are read as well, so how many bytes came says nothing here.
    fn classify(&self, error: &hyper::Error) -> Failure {
        if let Some(refusal) = self.refusal() {
            return refusal;
        }
        let gone = error.is_closed()
            || error.is_canceled()
            || error.is_incomplete_message()
            || is_io(error);
        Failure::Error(match (gone, self.is_reused) {
            (true, true) => ErrorKind::ClosedReused,
            (true, false) => ErrorKind::ClosedFresh,
            (false, _) => ErrorKind::Protocol,
        })
    }

    /// What TLS says, if it has ended the connection.
    fn refusal(&self) -> Option<Failure> {
        let reason = self.said?.get()?.clone();
        Some(Failure::Because(ErrorKind::Tls, reason))
    }
}

fn is_io(error: &hyper::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if error.is::<std::io::Error>() {
            return true;
        }
        cause = error.source();
    }
    false
}
