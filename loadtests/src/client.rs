//! One connection and one exchange on it at a time.
//!
//! The task that sends a request also drives its connection: nothing is spawned per connection or request, and no other
//! task has to be woken between a socket becoming readable and the response being counted. There are no retries after a
//! byte was written: what the server may have seen is reported, not repeated. A request that hyper hands back unsent may
//! go out on a new connection.
//!
//! This is the seam for a leaner HTTP/1.1 client: all that the workers use is [`Connection`].

mod meter;
mod watchdog;

pub(crate) use watchdog::Watchdog;

use crate::record::ErrorKind;
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use meter::Metered;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Instant;
use tokio::net::TcpStream;

/// A request as it is sent.
pub(crate) type Outgoing = Request<Full<Bytes>>;

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) response: Response<()>,
    pub(crate) body_bytes: u64,
    pub(crate) end: BodyEnd,
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
    /// Not one byte was written; here is the request again.
    Unsent(Box<Outgoing>),
    /// No head arrived in time.
    Timeout,
    Error(ErrorKind),
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct Connection {
    kind: Kind,
    meter: Arc<AtomicU64>,
    exchanges: u64,
    closed: bool,
}

type Io = TokioIo<Metered>;

#[derive(Debug)]
enum Kind {
    H1(
        http1::SendRequest<Full<Bytes>>,
        Pin<Box<http1::Connection<Io, Full<Bytes>>>>,
    ),
    H2(
        http2::SendRequest<Full<Bytes>>,
        Pin<Box<http2::Connection<Io, Full<Bytes>, TokioExecutor>>>,
    ),
}

impl Connection {
    /// Connects to the first address that answers.
    pub(crate) async fn open(addresses: &[SocketAddr], http2: bool) -> Result<Self, ErrorKind> {
        let stream = TcpStream::connect(addresses)
            .await
            .map_err(|_| ErrorKind::Connect)?;
        stream.set_nodelay(true).map_err(|_| ErrorKind::Connect)?;
        let meter = Arc::new(AtomicU64::new(0));
        let io = TokioIo::new(Metered {
            stream,
            read: Arc::clone(&meter),
        });
        let kind = if http2 {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            // The protocol's defaults stall a 1 MiB body sixteen times.
            builder
                .initial_stream_window_size(1 << 20)
                .initial_connection_window_size(4 << 20);
            let (send, connection) = builder
                .handshake(io)
                .await
                .map_err(|_| ErrorKind::Connect)?;
            Kind::H2(send, Box::pin(connection))
        } else {
            let (send, connection) = http1::handshake(io).await.map_err(|_| ErrorKind::Connect)?;
            Kind::H1(send, Box::pin(connection))
        };
        Ok(Self {
            kind,
            meter,
            exchanges: 0,
            closed: false,
        })
    }

    /// True if an earlier exchange was begun on it.
    pub(crate) fn is_reused(&self) -> bool {
        self.exchanges > 0
    }

    /// Drives the connection between exchanges; ready once it is closed.
    pub(crate) fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.closed {
            let _how = match &mut self.kind {
                Kind::H1(_, driver) => ready!(driver.as_mut().poll(cx)),
                Kind::H2(_, driver) => ready!(driver.as_mut().poll(cx)),
            };
            self.closed = true;
        }
        Poll::Ready(())
    }

    /// Waits until a request can be sent; false if the connection closed instead, or is still not free at the deadline.
    pub(crate) async fn ready(&mut self, watchdog: &mut Watchdog, deadline: Instant) -> bool {
        poll_fn(|cx| {
            if self.poll_closed(cx).is_ready() {
                return Poll::Ready(false);
            }
            let ready = match &mut self.kind {
                Kind::H1(send, _) => send.poll_ready(cx),
                Kind::H2(send, _) => send.poll_ready(cx),
            };
            if let Poll::Ready(ready) = ready {
                return Poll::Ready(ready.is_ok());
            }
            watchdog.poll_expired(deadline, cx).map(|()| false)
        })
        .await
    }

    /// Sends one request and drains its response; `deadline` bounds both together.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the exchange half done: drop the connection too.
    pub(crate) async fn exchange(
        &mut self,
        request: Outgoing,
        watchdog: &mut Watchdog,
        deadline: Instant,
    ) -> Result<Answer, Failure> {
        let mut exchange = Exchange {
            reused: self.is_reused(),
            http2: matches!(self.kind, Kind::H2(..)),
            read_before: self.meter.load(Ordering::Relaxed),
            meter: &self.meter,
            closed: &mut self.closed,
            watchdog,
            deadline,
        };
        self.exchanges += 1;
        match &mut self.kind {
            Kind::H1(send, driver) => {
                exchange
                    .run(send.try_send_request(request), driver.as_mut())
                    .await
            }
            Kind::H2(send, driver) => {
                exchange
                    .run(send.try_send_request(request), driver.as_mut())
                    .await
            }
        }
    }
}

struct Exchange<'a> {
    reused: bool,
    http2: bool,
    read_before: u64,
    meter: &'a AtomicU64,
    closed: &'a mut bool,
    watchdog: &'a mut Watchdog,
    deadline: Instant,
}

impl Exchange<'_> {
    async fn run<D: Future>(
        &mut self,
        response: impl Future<Output = Result<Response<Incoming>, TrySendError<Outgoing>>>,
        mut driver: Pin<&mut D>,
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
                    Some(request) => Failure::Unsent(Box::new(request)),
                    None => Failure::Error(self.classify(error.error())),
                });
            }
        };
        let mut body_bytes = 0;
        let end = poll_fn(|cx| {
            if body.is_end_stream() {
                return Poll::Ready(BodyEnd::Whole);
            }
            self.drive(driver.as_mut(), cx);
            loop {
                match Pin::new(&mut body).poll_frame(cx) {
                    Poll::Ready(Some(Ok(frame))) => {
                        body_bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                    }
                    Poll::Ready(Some(Err(_))) => return Poll::Ready(BodyEnd::Broken),
                    Poll::Ready(None) => return Poll::Ready(BodyEnd::Whole),
                    Poll::Pending => break,
                }
            }
            self.watchdog
                .poll_expired(self.deadline, cx)
                .map(|()| BodyEnd::TimedOut)
        })
        .await;
        Ok(Answer {
            response: Response::from_parts(parts, ()),
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

    fn classify(&self, error: &hyper::Error) -> ErrorKind {
        // HTTP/2 reads frames that belong to no response, so there the byte count says nothing.
        let silent = self.http2 || self.meter.load(Ordering::Relaxed) == self.read_before;
        let gone = error.is_closed()
            || error.is_canceled()
            || error.is_incomplete_message()
            || is_io(error);
        match (gone && silent, self.reused) {
            (true, true) => ErrorKind::ClosedReused,
            (true, false) => ErrorKind::ClosedFresh,
            (false, _) => ErrorKind::Protocol,
        }
    }
}

fn is_io(error: &hyper::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if error.is::<io::Error>() {
            return true;
        }
        cause = error.source();
    }
    false
}
