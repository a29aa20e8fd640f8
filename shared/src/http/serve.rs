//! Accepting and serving client connections: HTTP/1 behind the strict reader, HTTP/2 by its preface.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
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
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::{
    body::Body,
    guard::{GuardIo, Link, Timeouts},
    h1::{Limits, Refusal},
};

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
    /// HTTP/1 answers carry `Connection: close`, HTTP/2 connections get a GOAWAY; idle ones stay.
    CloseAfterAnswer,
    /// As before, and idle ones are closed.
    CloseIdle,
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
    none: tokio::sync::Notify,
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

    /// Stops accepting; connections already open go on.
    pub fn stop_accepting(&self) {
        self.accept.abort();
    }

    /// Returns when no connection is open.
    pub async fn closed(&self) {
        loop {
            let none = self.open.none.notified();
            if self.connections() == 0 {
                return;
            }
            none.await;
        }
    }

    /// Stops accepting, lets answers finish, closes idle connections, and cuts what is left after `grace`.
    /// Returns how many connections were cut.
    pub async fn shut_down(self, grace: Duration) -> usize {
        self.stop_accepting();
        self.disposition.set(Disposition::CloseIdle);
        let _late = timeout(grace, self.closed()).await;
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
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                if open.count.fetch_add(1, Relaxed) >= config.max_connections {
                    drop(OpenGuard(Arc::clone(&open)));
                    tokio::spawn(shed(stream));
                    continue;
                }
                let guard = OpenGuard(Arc::clone(&open));
                let handler = handler.clone();
                let disposition = disposition.clone();
                tokio::spawn(async move {
                    serve(stream, address, config, handler, disposition).await;
                    drop(guard);
                });
            }
            Err(error) => {
                // Out of file descriptors, mostly: accepting again at once would only spin.
                tracing::warn!(%error, "Cannot accept a connection");
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// One connection too many: a short answer instead of a silent close.
async fn shed(mut stream: TcpStream) {
    const ANSWER: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let _gone = timeout(Duration::from_secs(1), stream.write_all(ANSWER)).await;
}

async fn serve<H: Handler>(
    mut stream: TcpStream,
    address: SocketAddr,
    config: Config,
    handler: H,
    mut disposition: watch::Receiver<Disposition>,
) {
    // Failing to set an option leaves a slower connection, not a broken one.
    let _slow = stream.set_nodelay(true);
    let mut first = BytesMut::new();
    let version = tokio::select! {
        biased;
        version = timeout(config.timeouts.first_byte, read_version(&mut stream, &mut first)) => version,
        () = aborted(&mut disposition) => return,
    };
    let Ok(Ok(version)) = version else {
        return;
    };
    let link = Arc::new(Link::default());
    let peer = Arc::new(Peer {
        address,
        link: Arc::clone(&link),
    });
    match version {
        Version::HTTP_2 => serve_h2(stream, first, config, handler, peer, disposition).await,
        _ => {
            serve_h1(
                GuardIo::new(stream, first, config.limits, config.timeouts, link),
                handler,
                peer,
                disposition,
            )
            .await
        }
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
    let connection = conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .max_headers(128)
        .pipeline_flush(true)
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
                // A connection whose first request is still on its way is not idle: hyper would close it unread. Its
                // first answer says `Connection: close` anyway.
                Disposition::CloseIdle if index.load(Relaxed) == 0 => {}
                Disposition::CloseIdle => connection.as_mut().graceful_shutdown(),
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
    let service = service_fn(move |request: Request<Incoming>| {
        let peer = Arc::clone(&peer);
        let handler = handler.clone();
        async move { Ok::<_, Infallible>(handler.handle(request, peer).await) }
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
                Disposition::Keep => {}
                Disposition::CloseAfterAnswer | Disposition::CloseIdle => connection.as_mut().graceful_shutdown(),
                Disposition::Abort => return,
            }
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

async fn aborted(disposition: &mut watch::Receiver<Disposition>) {
    // An error means that the listener is gone, which aborts too.
    let _gone = disposition
        .wait_for(|d| matches!(d, Disposition::Abort | Disposition::CloseIdle))
        .await;
}

/// Gives bytes back that were read to find out the protocol.
struct Rewind {
    first: BytesMut,
    io: TcpStream,
}

mod rewind;
