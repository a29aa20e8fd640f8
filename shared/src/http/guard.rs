//! The I/O wrapper that puts the strict reader of [`super::h1`] between a socket and hyper, and the deadlines on heads.
//!
//! hyper has no timeout before a first byte and none on idle keep-alive connections, so both live here. A refused head
//! is replaced by a harmless request of our own, marked by its number on the connection: answers to earlier, pipelined
//! requests then go out first, and hyper itself writes the refusal and closes.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Duration, Instant, Sleep, sleep},
};
use tokio_util::io::poll_read_buf;

pub use self::{
    link::{Active, Link},
    timeouts::Timeouts,
};
use super::{
    h1::{Limits, Refusal, Scanner, Verdict},
    read_size::ReadSize,
};

mod link;
mod timeouts;

/// What hyper reads in place of a refused head.
const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n";
/// How long a client that is still sending when it has its answer may be silent, and how long its bytes are thrown away
/// in all, so that it can read that answer: closing with unread bytes makes the kernel reset the connection.
const LINGER: Duration = Duration::from_millis(500);
const LINGER_IN_ALL: Duration = Duration::from_secs(5);

/// What the connection is waiting for, which decides the deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    FirstByte,
    Head,
    Idle,
    /// An answer is being made, or a body is on its way: no deadline here.
    Busy,
}

/// A socket whose inbound bytes are checked. Outbound bytes pass untouched.
#[derive(Debug)]
pub struct GuardIo<S> {
    io: S,
    scanner: Scanner,
    timeouts: Timeouts,
    link: Arc<Link>,
    buffer: BytesMut,
    read_size: ReadSize,
    approved: usize,
    heads: usize,
    phase: Phase,
    deadline: Pin<Box<Sleep>>,
    /// A message was malformed: nothing is read any more.
    refused: bool,
    /// The client has closed its side.
    ended: bool,
    /// Until when bytes are thrown away, once our side is closed.
    lingering: Option<Instant>,
}

impl<S> GuardIo<S> {
    /// Wraps `io`; `first` are bytes already read from it.
    pub fn new(
        io: S,
        first: BytesMut,
        limits: Limits,
        timeouts: Timeouts,
        link: Arc<Link>,
    ) -> Self {
        Self {
            io,
            scanner: Scanner::new(limits),
            timeouts,
            link,
            buffer: first,
            read_size: ReadSize::LEAST,
            approved: 0,
            heads: 0,
            phase: Phase::FirstByte,
            deadline: Box::pin(sleep(timeouts.first_byte)),
            refused: false,
            ended: false,
            lingering: None,
        }
    }

    fn refuse(&mut self, refusal: Refusal) {
        *self.link.refusal.lock() = Some((self.heads, refusal));
        self.buffer.clear();
        self.buffer.extend_from_slice(STAND_IN);
        self.approved = STAND_IN.len();
        self.refused = true;
    }

    fn phase_now(&self) -> Phase {
        let pending = self.buffer.len();
        if self.scanner.in_head(pending) {
            Phase::Head
        } else if !self.scanner.between_messages(pending) || self.link.is_busy_with(0) {
            Phase::Busy
        } else if self.heads == 0 {
            Phase::FirstByte
        } else {
            Phase::Idle
        }
    }

    /// True when the deadline of the present phase has passed.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> bool {
        let phase = self.phase_now();
        if phase != self.phase {
            self.phase = phase;
            let limit = match phase {
                Phase::FirstByte => self.timeouts.first_byte,
                Phase::Head => self.timeouts.head,
                Phase::Idle => self.timeouts.idle,
                Phase::Busy => return false,
            };
            self.deadline.as_mut().reset(Instant::now() + limit);
        }
        phase != Phase::Busy && self.deadline.as_mut().poll(cx).is_ready()
    }
}

impl<S: AsyncRead + Unpin> GuardIo<S> {
    /// Reads more bytes into the buffer. `Ok(0)` is the end.
    fn fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.ended {
            return Poll::Ready(Ok(0));
        }
        self.buffer.reserve(self.read_size.bytes());
        let read = poll_read_buf(Pin::new(&mut self.io), cx, &mut self.buffer);
        if let Poll::Ready(Ok(n)) = read {
            self.read_size.came(n);
        }
        if read.is_pending() && self.buffer.is_empty() {
            // Idle connections keep no buffer.
            self.buffer = BytesMut::new();
        }
        self.ended = matches!(read, Poll::Ready(Ok(0)));
        read
    }

    /// Moves approved bytes out.
    fn give(&mut self, out: &mut ReadBuf<'_>) {
        let n = self.approved.min(out.remaining());
        out.put_slice(&self.buffer[..n]);
        self.buffer.advance(n);
        self.approved -= n;
    }

    /// Looks for the client's end while nobody reads, without reading further ahead than one buffer.
    fn look_ahead(&mut self, cx: &mut Context<'_>) {
        if self.link.watched.load(Relaxed) && !self.refused && self.buffer.is_empty() {
            match self.fill(cx) {
                Poll::Ready(Ok(0) | Err(_)) => self.link.gone.notify_one(),
                Poll::Ready(Ok(_)) | Poll::Pending => {}
            }
        }
    }

    /// Approves what may be passed on, reading as needed. False at the end.
    fn poll_approve(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let heading = self.scanner.in_head(self.buffer.len());
        match self.scanner.scan(&mut self.buffer) {
            Verdict::Pass(n) => {
                self.approved = n;
                if heading {
                    self.heads += 1;
                    // A request with a body cannot be upgraded (it is a WebSocket's GET or nothing): what follows is its body.
                    let held = self.scanner.asks_for_upgrade() && self.scanner.between_messages(0);
                    self.link.held.store(held, Relaxed);
                    // However quickly it is answered: the next wait is a new one.
                    self.phase = Phase::Busy;
                }
            }
            Verdict::Refuse(refusal) if heading => self.refuse(refusal),
            Verdict::Refuse(refusal) => {
                self.refused = true;
                let error = io::Error::new(io::ErrorKind::InvalidData, refusal.reason);
                return Poll::Ready(Err(error));
            }
            Verdict::More => match self.fill(cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(false)),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    if !self.poll_deadline(cx) {
                        return Poll::Pending;
                    }
                    if self.phase != Phase::Head {
                        return Poll::Ready(Ok(false));
                    }
                    self.refuse(Refusal::TIMEOUT);
                }
            },
        }
        if heading || self.scanner.in_head(self.buffer.len()) {
            self.link.receiving.store(true, Relaxed);
        }
        Poll::Ready(Ok(true))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for GuardIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if this.approved > 0 {
                this.give(out);
                return Poll::Ready(Ok(()));
            }
            if this.link.raw.load(Relaxed) {
                if !this.buffer.is_empty() {
                    this.approved = this.buffer.len();
                } else if this.ended {
                    return Poll::Ready(Ok(()));
                } else {
                    return Pin::new(&mut this.io).poll_read(cx, out);
                }
            } else if this.refused {
                // Nothing more will be read; hyper closes once it has written the refusal. An end of stream here would
                // look like a hang-up and stop it from doing so.
                return Poll::Pending;
            } else if this.link.held.load(Relaxed) {
                if this.buffer.len() >= ReadSize::LEAST.bytes() {
                    return Poll::Pending;
                }
                if ready!(this.fill(cx))? == 0 {
                    return Poll::Ready(Ok(()));
                }
            } else if !ready!(this.poll_approve(cx))? {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for GuardIo<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes whenever it is polled, also when it does not read.
        self.look_ahead(cx);
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let raw = this.link.raw.load(Relaxed);
        let end = if let Some(end) = this.lingering {
            end
        } else {
            ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
            if raw || this.ended {
                return Poll::Ready(Ok(()));
            }
            let unread = this.refused || !this.scanner.between_messages(this.buffer.len());
            this.buffer.clear();
            // Between messages the client has nothing to send; a look costs one call to the kernel.
            if !unread && !matches!(this.fill(cx), Poll::Ready(Ok(1..))) {
                return Poll::Ready(Ok(()));
            }
            this.deadline.as_mut().reset(Instant::now() + LINGER);
            *this.lingering.insert(Instant::now() + LINGER_IN_ALL)
        };
        // What the client still sends is thrown away, for a bounded time.
        while this.deadline.as_mut().poll(cx).is_pending() {
            this.buffer.clear();
            match ready!(this.fill(cx)) {
                Ok(n) if n > 0 => {
                    let next = (Instant::now() + LINGER).min(end);
                    this.deadline.as_mut().reset(next);
                }
                _ => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}
