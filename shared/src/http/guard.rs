//! The I/O wrapper that puts the strict reader of [`super::h1`] between a socket and hyper, and the deadlines on heads.
//!
//! hyper has no timeout before a first byte and none on idle keep-alive connections, so both live here. A refused head
//! is replaced by a harmless request of our own, marked by its number on the connection: answers to earlier, pipelined
//! requests then go out first, and hyper itself writes the refusal and closes.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Duration, Instant, Sleep, sleep},
};

use tokio_util::io::poll_read_buf;

use super::h1::{Limits, Refusal, Scanner, Verdict};

/// What hyper reads in place of a refused head.
const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n";
/// Bytes read from the socket at once.
const READ_BYTES: usize = 8 * 1024;
/// How long unread bytes of a client that has its answer already are thrown away before closing, so that it can still
/// read that answer (closing with unread bytes makes the kernel reset the connection).
const LINGER: Duration = Duration::from_millis(500);

/// Deadlines of a client connection.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// From accept to the first byte.
    pub first_byte: Duration,
    /// From the first byte of a head to its end.
    pub head: Duration,
    /// Between an answer and the next request.
    pub idle: Duration,
}

impl Default for Timeouts {
    /// 10 s, 30 s and 75 s: long enough for bad networks, short enough that a thousand silent clients are gone in a
    /// minute. The idle limit is above the 60 s at which common load balancers close theirs.
    fn default() -> Self {
        Self {
            first_byte: Duration::from_secs(10),
            head: Duration::from_secs(30),
            idle: Duration::from_secs(75),
        }
    }
}

/// What the I/O wrapper and the service on one connection tell each other.
#[derive(Debug, Default)]
pub struct Link {
    active: AtomicUsize,
    raw: AtomicBool,
    refusal: Mutex<Option<(usize, Refusal)>>,
}

/// Counts one request of the connection as being served while it lives.
#[derive(Debug)]
pub struct Active(Arc<Link>);

impl Link {
    /// A request began; its idle time starts when the guard is dropped.
    pub fn begin(self: &Arc<Self>) -> Active {
        self.active.fetch_add(1, Relaxed);
        Active(Arc::clone(self))
    }

    /// From the next read on bytes belong to an upgraded protocol and are passed as they are.
    pub fn switch_to_raw(&self) {
        self.raw.store(true, Relaxed);
    }

    /// The refusal that request number `index` of this connection stands for.
    pub fn refusal_of(&self, index: usize) -> Option<Refusal> {
        self.refusal
            .lock()
            .filter(|(at, _)| *at == index)
            .map(|(_, refusal)| refusal)
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Relaxed);
    }
}

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
    approved: usize,
    heads: usize,
    phase: Phase,
    deadline: Pin<Box<Sleep>>,
    refused: bool,
    lingering: bool,
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
            approved: 0,
            heads: 0,
            phase: Phase::FirstByte,
            deadline: Box::pin(sleep(timeouts.first_byte)),
            refused: false,
            lingering: false,
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
        } else if !self.scanner.between_messages(pending) || self.link.active.load(Relaxed) > 0 {
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
        self.buffer.reserve(READ_BYTES);
        let read = poll_read_buf(Pin::new(&mut self.io), cx, &mut self.buffer);
        if read.is_pending() && self.buffer.is_empty() {
            // Idle connections keep no buffer.
            self.buffer = BytesMut::new();
        }
        read
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
                let n = this.approved.min(out.remaining());
                out.put_slice(&this.buffer[..n]);
                this.buffer.advance(n);
                this.approved -= n;
                return Poll::Ready(Ok(()));
            }
            if this.link.raw.load(Relaxed) {
                if this.buffer.is_empty() {
                    return Pin::new(&mut this.io).poll_read(cx, out);
                }
                this.approved = this.buffer.len();
                continue;
            }
            if this.refused {
                // Nothing more will be read; hyper closes once it has written the refusal. An end of stream here would
                // look like a hang-up and stop it from doing so.
                return Poll::Pending;
            }
            let heading = this.scanner.in_head(this.buffer.len());
            match this.scanner.scan(&mut this.buffer) {
                Verdict::Pass(n) => {
                    this.approved = n;
                    this.heads += usize::from(heading);
                }
                Verdict::Refuse(refusal) if heading => this.refuse(refusal),
                Verdict::Refuse(refusal) => {
                    return Poll::Ready(Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        refusal.reason,
                    )));
                }
                Verdict::More => match this.fill(cx) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Ok(())),
                    Poll::Ready(Ok(_)) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => {
                        if !this.poll_deadline(cx) {
                            return Poll::Pending;
                        }
                        if this.phase == Phase::Head {
                            this.refuse(Refusal::TIMEOUT);
                        } else {
                            return Poll::Ready(Ok(()));
                        }
                    }
                },
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
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.lingering {
            ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
            // An answer that came before its request's body was read ends the same way as a refusal.
            if !this.refused && this.scanner.between_messages(this.buffer.len()) {
                return Poll::Ready(Ok(()));
            }
            this.lingering = true;
            this.deadline.as_mut().reset(Instant::now() + LINGER);
        }
        // What the client still sends is thrown away, for a bounded time.
        while this.deadline.as_mut().poll(cx).is_pending() {
            this.buffer.clear();
            match ready!(this.fill(cx)) {
                Ok(n) if n > 0 => {}
                _ => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}
