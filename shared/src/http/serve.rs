//! Accepting and serving client connections: HTTP/1 behind the strict reader, HTTP/2 by its preface.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::BytesMut;
use http::{HeaderValue, Request, Response, StatusCode, Version, header::CONNECTION};
use hyper::{body::Incoming, server::conn, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Notify, watch},
    task::JoinHandle,
    time::{Instant, interval_at, sleep, timeout},
};

use super::{
    body::Body,
    guard::{GuardIo, Link, Timeouts},
    h1::{Limits, Refusal},
};

/// How long a listener that stops waits for first requests that may be on their way.
const FIRST_REQUEST_PATIENCE: Duration = Duration::from_millis(250);

/// Longer than any deadline of ours.
const FAR: Duration = Duration::from_hours(24);
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Limits of a listener.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Sizes of heads.
    pub limits: Limits,
    /// Deadlines of connections.
    pub timeouts: Timeouts,
    /// Open connections. Beyond it a connection is answered 503 and closed.
    pub max_connections: usize,
    /// HTTP/2 streams open at once on one connection.
    pub max_streams: u32,
}

impl Default for Config {
    /// 10,000 connections (below the usual 20,000 file limit, since each may need an upstream one) and 128 streams.
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            max_connections: 10_000,
            max_streams: 128,
        }
    }
}

/// What happens to a listener's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// They are kept.
    Keep,
    /// HTTP/1 answers carry `Connection: close`, HTTP/2 connections get a GOAWAY once they have carried a request; idle
    /// ones stay.
    CloseAfterAnswer,
    /// As before, and idle ones are closed, except those whose first request is still to come: it may be on its way, and
    /// nobody expects a fresh connection to be closed unanswered.
    CloseIdle,
    /// As before, and those too.
    CloseUnused,
    /// All are cut now.
    Abort,
}

/// A connection, as a handler sees it.
#[derive(Debug)]
pub struct Peer {
    /// The other end.
    pub address: SocketAddr,
    link: Arc<Link>,
}

impl Peer {
    /// Lets bytes after the present request pass unread: it is being upgraded.
    pub fn switch_to_raw(&self) {
        self.link.switch_to_raw();
    }

    /// Returns when the client closes its side while nobody reads its body. Never for HTTP/2, where hyper notices.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn gone(&self) {
        self.link.gone().await;
    }
}

/// Answers requests. One per listener; cheap to clone.
pub trait Handler: Clone + Send + Sync + 'static {
    /// Answers one request. Dropping the future means that the client is gone.
    fn handle(
        &self,
        request: Request<Incoming>,
        peer: Arc<Peer>,
    ) -> impl Future<Output = Response<Body>> + Send;
    /// Answers a message that is refused before it is a request.
    fn refuse(&self, refusal: Refusal) -> Response<Body>;
}

/// Binds a listener: address reuse on, a backlog that survives a burst at zero.
///
/// # Errors
/// The operating system's, e.g. the port is in use.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    // Linux clips this to net.core.somaxconn.
    socket.listen(4096)?;
    TcpListener::from_std(socket.into())
}

/// A running listener. Dropping it stops accepting and cuts its connections.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    disposition: Disposer,
    open: Arc<Open>,
    accept: JoinHandle<()>,
}

/// Decides what happens to a listener's present and future connections. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Disposer(Arc<watch::Sender<Disposition>>);

impl Disposer {
    /// Sets the disposition; setting it again changes nothing.
    pub fn set(&self, disposition: Disposition) {
        self.0
            .send_if_modified(|d| std::mem::replace(d, disposition) != disposition);
    }
}

/// Open connections, and a way to wait until there are none.
#[derive(Debug, Default)]
struct Open {
    count: AtomicUsize,
    none: Notify,
    stop: Notify,
    stopping: AtomicBool,
    stopped: AtomicBool,
}

struct OpenGuard(Arc<Open>);

impl Drop for OpenGuard {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Relaxed) == 1 {
            self.0.none.notify_waiters();
        }
    }
}

impl Server {
    /// Starts serving `listener` with `handler`.
    ///
    /// # Errors
    /// When the listener has no local address.
    pub fn spawn<H: Handler>(
        listener: TcpListener,
        config: Config,
        handler: H,
    ) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (disposition, watch) = watch::channel(Disposition::Keep);
        let open = Arc::new(Open::default());
        let accept = tokio::spawn(accept(listener, config, handler, watch, Arc::clone(&open)));
        Ok(Self {
            address,
            disposition: Disposer(Arc::new(disposition)),
            open,
            accept,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections open now, upgraded ones not counted.
    pub fn connections(&self) -> usize {
        self.open.count.load(Relaxed)
    }

    /// The handle that decides what happens to its connections.
    pub fn disposer(&self) -> Disposer {
        self.disposition.clone()
    }

    /// Stops accepting; connections already open go on, and those that the kernel has made already are taken first.
    pub fn stop_accepting(&self) {
        self.open.stopping.store(true, Relaxed);
        self.open.stop.notify_one();
    }

    /// Returns when no connection is open.
    pub async fn closed(&self) {
        loop {
            let none = self.open.none.notified();
            let accepting = self.open.stopping.load(Relaxed) && !self.open.stopped.load(Relaxed);
            if self.connections() == 0 && !accepting {
                return;
            }
            none.await;
        }
    }

    /// Closes what is idle, and after a moment also connections that were never used.
    pub async fn closed_gracefully(&self) {
        self.disposition.set(Disposition::CloseIdle);
        if timeout(FIRST_REQUEST_PATIENCE, self.closed())
            .await
            .is_err()
        {
            self.disposition.set(Disposition::CloseUnused);
            self.closed().await;
        }
    }

    /// Stops accepting, lets answers finish, closes idle connections, and cuts what is left after `grace`.
    /// Returns how many connections were cut.
    pub async fn shut_down(self, grace: Duration) -> usize {
        self.stop_accepting();
        let _late = timeout(grace, self.closed_gracefully()).await;
        let cut = self.connections();
        self.disposition.set(Disposition::Abort);
        cut
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accept.abort();
        self.disposition.set(Disposition::Abort);
    }
}

async fn accept<H: Handler>(
    listener: TcpListener,
    config: Config,
    handler: H,
    disposition: watch::Receiver<Disposition>,
    open: Arc<Open>,
) {
    let take = |stream: TcpStream, address: SocketAddr| {
        if open.count.fetch_add(1, Relaxed) >= config.max_connections {
            drop(OpenGuard(Arc::clone(&open)));
            tokio::spawn(shed(stream));
            return;
        }
        let guard = OpenGuard(Arc::clone(&open));
        let handler = handler.clone();
        let disposition = disposition.clone();
        tokio::spawn(async move {
            serve(stream, address, config, handler, disposition).await;
            drop(guard);
        });
    };
    loop {
        let accepted = tokio::select! {
            biased;
            () = open.stop.notified() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => take(stream, address),
            Err(error) => {
                // Out of file descriptors, mostly: accepting again at once would only spin.
                tracing::warn!(%error, "Cannot accept a connection");
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
    // For their clients these connections exist; closing the listener would reset them.
    if let Ok(listener) = listener.into_std() {
        while let Ok((stream, address)) = listener.accept() {
            let stream = stream
                .set_nonblocking(true)
                .and_then(|()| TcpStream::from_std(stream));
            if let Ok(stream) = stream {
                take(stream, address);
            }
        }
    }
    open.stopped.store(true, Relaxed);
    open.none.notify_waiters();
}

/// One connection too many: a short answer instead of a silent close.
async fn shed(mut stream: TcpStream) {
    const ANSWER: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let _gone = timeout(Duration::from_secs(1), async {
        stream.write_all(ANSWER).await?;
        stream.shutdown().await?;
        // Closing with its request unread would reset the connection before the client has read this.
        let mut unread = [0; 1024];
        while stream.read(&mut unread).await? > 0 {}
        io::Result::Ok(())
    })
    .await;
}

async fn serve<H: Handler>(
    mut stream: TcpStream,
    address: SocketAddr,
    config: Config,
    handler: H,
    disposition: watch::Receiver<Disposition>,
) {
    // Failing to set an option leaves a slower connection, not a broken one.
    let _slow = stream.set_nodelay(true);
    let mut first = BytesMut::new();
    let version = tokio::select! {
        biased;
        version = timeout(config.timeouts.first_byte, read_version(&mut stream, &mut first)) => version,
        // On a copy: whatever else happened meanwhile must still be news to the connection.
        () = unwanted(disposition.clone()) => return,
    };
    let Ok(Ok(version)) = version else {
        return;
    };
    let link = Arc::new(Link::default());
    let peer = Arc::new(Peer {
        address,
        link: Arc::clone(&link),
    });
    if version == Version::HTTP_2 {
        serve_h2(stream, first, config, handler, peer, disposition).await;
    } else {
        let io = GuardIo::new(stream, first, config.limits, config.timeouts, link);
        serve_h1(io, handler, peer, disposition).await;
    }
}

async fn serve_h1<H: Handler>(
    io: GuardIo<TcpStream>,
    handler: H,
    peer: Arc<Peer>,
    mut disposition: watch::Receiver<Disposition>,
) {
    let index = AtomicUsize::new(0);
    let closing = disposition.clone();
    let service = service_fn(|request: Request<Incoming>| {
        let index = index.fetch_add(1, Relaxed);
        let peer = Arc::clone(&peer);
        let handler = handler.clone();
        let active = peer.link.begin();
        let closing = &closing;
        async move {
            let mut answer = match peer.link.refusal_of(index) {
                Some(refusal) => handler.refuse(refusal),
                None => handler.handle(request, peer).await,
            };
            let upgraded = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
            if *closing.borrow() != Disposition::Keep && !upgraded {
                answer
                    .headers_mut()
                    .insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(answer.map(|body| body.guarded(active)))
        }
    });
    // Deadlines are the reader's. hyper's own runs while a connection is idle, so it is out of the way; without one,
    // hyper would not ask for the next head after an answer. No pipeline_flush: it keeps answers back as long as bytes
    // of the next request, or of the present one's body, are unread.
    let connection = conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(FAR)
        .max_headers(128)
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    loop {
        tokio::select! {
            biased;
            done = connection.as_mut() => {
                if let Err(error) = done {
                    tracing::debug!(%error, "Connection ended");
                }
                return;
            }
            disposition = next(&mut disposition) => match disposition {
                Disposition::Keep | Disposition::CloseAfterAnswer => {}
                // A connection whose request is still on its way is not idle: hyper would close it unread. Its next
                // answer says `Connection: close` anyway.
                Disposition::CloseIdle if index.load(Relaxed) == 0 => {}
                Disposition::CloseIdle | Disposition::CloseUnused if peer.link.is_receiving() => {}
                Disposition::CloseIdle | Disposition::CloseUnused => connection.as_mut().graceful_shutdown(),
                Disposition::Abort => return,
            }
        }
    }
}

async fn serve_h2<H: Handler>(
    stream: TcpStream,
    first: BytesMut,
    config: Config,
    handler: H,
    peer: Arc<Peer>,
    mut disposition: watch::Receiver<Disposition>,
) {
    let asked = Arc::new(Notify::new());
    let link = Arc::clone(&peer.link);
    let begun = Arc::clone(&asked);
    let service = service_fn(move |request: Request<Incoming>| {
        let active = peer.link.begin();
        begun.notify_one();
        let peer = Arc::clone(&peer);
        let handler = handler.clone();
        async move {
            let answer = handler.handle(request, peer).await;
            Ok::<_, Infallible>(answer.map(|body| body.guarded(active)))
        }
    });
    // h2's own defaults bound resets and CONTINUATION frames; they are stated so that no upgrade loosens them.
    let connection = conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(config.max_streams)
        .max_header_list_size(u32::try_from(config.limits.head_bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(1024)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10))
        .serve_connection(TokioIo::new(Rewind { first, io: stream }), service);
    let mut connection = pin!(connection);
    let idle = config.timeouts.idle;
    let mut looks = interval_at(Instant::now() + idle, idle);
    let mut last_look = Some(0);
    // Whether to say GOAWAY as soon as there has been a request.
    let mut closing = false;
    let mut used = false;
    loop {
        tokio::select! {
            biased;
            done = connection.as_mut() => {
                if let Err(error) = done {
                    tracing::debug!(%error, "Connection ended");
                }
                return;
            }
            () = asked.notified(), if !used => used = true,
            disposition = next(&mut disposition) => match disposition {
                Disposition::Keep => {}
                Disposition::CloseAfterAnswer | Disposition::CloseIdle => closing = true,
                Disposition::CloseUnused => (closing, used) = (true, true),
                Disposition::Abort => return,
            },
            // Nothing begun and nothing ended between two looks: idle for at least the limit.
            _ = looks.tick() => {
                let now = link.idle_since();
                if now.is_some() && now == last_look {
                    connection.as_mut().graceful_shutdown();
                }
                last_look = now;
                continue;
            }
        }
        if closing && used {
            connection.as_mut().graceful_shutdown();
        }
    }
}

/// Reads until the bytes can only be, or cannot be, an HTTP/2 preface.
async fn read_version(stream: &mut TcpStream, first: &mut BytesMut) -> io::Result<Version> {
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

/// The next disposition; a listener that is gone aborts.
async fn next(disposition: &mut watch::Receiver<Disposition>) -> Disposition {
    match disposition.changed().await {
        Ok(()) => *disposition.borrow_and_update(),
        Err(_) => Disposition::Abort,
    }
}

/// Returns when a connection that has sent nothing yet is to be closed.
async fn unwanted(mut disposition: watch::Receiver<Disposition>) {
    // An error means that the listener is gone, which aborts too.
    let _gone = disposition
        .wait_for(|d| matches!(d, Disposition::CloseUnused | Disposition::Abort))
        .await;
}

/// Gives bytes back that were read to find out the protocol.
struct Rewind {
    first: BytesMut,
    io: TcpStream,
}

mod rewind;
