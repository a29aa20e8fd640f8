//! Accepting and serving client connections: HTTP/1 behind the strict reader, HTTP/2 by its preface, either of them with TLS where
//! it is asked for.

mod accept;
mod age;
mod begin;
mod flow;
mod http1;
mod http2;
mod meter;
mod rewind;
mod server;
mod socket;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::BytesMut;
use http::{Request, Response, Version};
use hyper::body::Incoming;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    time::Instant,
};

pub use self::server::{Disposer, Server};
use self::{
    age::Age,
    begin::{Begun, begin},
    flow::Flow,
    meter::Meter,
    socket::Socket,
};
use super::{
    body::Body,
    guard::{GuardIo, Link, Timeouts},
    h1::{Limits, Refusal},
    tls::ServerTls,
    wire::Wire,
};
use crate::{
    error::{CLIENT_GONE, CUT},
    share::Place,
};

/// Limits of a listener.
#[derive(Clone, Debug)]
pub struct Config {
    /// Sizes of heads.
    pub limits: Limits,
    /// Deadlines of connections.
    pub timeouts: Timeouts,
    /// Open connections. Beyond it a connection is answered 503 and closed.
    pub max_connections: usize,
    /// HTTP/2 streams open at once on one connection.
    pub max_streams: u32,
    /// Longest time in which a client may take nothing of an answer that is there for it; none for no limit. Then its connection or
    /// its HTTP/2 stream is cut. Upgraded connections are held to it too.
    pub send: Option<Duration>,
    /// Age at which a connection is treated as by [`Disposition::CloseAfterAnswer`], give or take a tenth; none for no limit.
    /// It is never cut, nor closed while it is idle: its next answer is its last. An upgraded one is left alone.
    pub max_age: Option<Duration>,
    /// TLS, if any. A handshake may take no longer than the first byte, nor than a head; it is an open connection.
    pub tls: Option<ServerTls>,
}

impl Default for Config {
    /// 10,000 connections (below the usual 20,000 file limit, since each may need an upstream one), 128 streams, and 60 s to
    /// take something, which is nginx's `send_timeout`.
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            max_connections: 10_000,
            max_streams: 128,
            send: Some(Duration::from_mins(1)),
            max_age: None,
            tls: None,
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
    /// Whether it speaks TLS with us.
    pub is_tls: bool,
    /// What a handler has found out about the other end and need not find out again for the next request: as long as the
    /// connection lasts, so does its other end. Never anything that the other end has said of itself.
    pub known: OnceLock<Arc<str>>,
    link: Arc<Link>,
    disposition: watch::Receiver<Disposition>,
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

    /// What a request of this connection has come to whose answer did not get to its end, though nobody has said why: its
    /// client has left, unless it was us who closed the connection.
    pub fn unfinished(&self) -> &'static str {
        if *self.disposition.borrow() == Disposition::Abort {
            CUT
        } else {
            CLIENT_GONE
        }
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
    fn refuse(&self, refusal: Refusal, peer: &Arc<Peer>) -> Response<Body>;
}

/// Binds a listener: address reuse on, a backlog that survives a burst at zero.
///
/// # Errors
/// The operating system's, e.g. the port is in use.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    listen(socket(address)?, address)
}

/// The same for the family of the address and no other: `[::]` leaves the port of `0.0.0.0` to somebody else.
///
/// # Errors
/// The operating system's, e.g. the port is in use or there is no such family.
pub fn bind_family(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(address)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    listen(socket, address)
}

fn socket(address: SocketAddr) -> io::Result<socket2::Socket> {
    let domain = socket2::Domain::for_address(address);
    socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))
}

fn listen(socket: socket2::Socket, address: SocketAddr) -> io::Result<TcpListener> {
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    // Linux clips this to net.core.somaxconn.
    socket.listen(4096)?;
    TcpListener::from_std(socket.into())
}

async fn serve<H: Handler>(
    stream: TcpStream,
    address: SocketAddr,
    config: Config,
    handler: H,
    disposition: watch::Receiver<Disposition>,
    place: Option<Place>,
) {
    let age = Age::new(config.max_age);
    // Failing to set an option leaves a slower connection, not a broken one.
    let _slow = stream.set_nodelay(true);
    let link = Arc::new(Link::new(place));
    let flow = Arc::new(Flow::default());
    let begun = tokio::select! {
        biased;
        begun = begin(stream, &config, &link, &flow) => begun,
        // On a copy: whatever else happened meanwhile must still be news to the connection.
        () = unwanted(disposition.clone()) => return,
    };
    let Some(Begun {
        wire,
        first,
        version,
    }) = begun
    else {
        return;
    };
    let peer = Arc::new(Peer {
        address,
        is_tls: matches!(wire, Wire::Tls(_)),
        known: OnceLock::new(),
        link: Arc::clone(&link),
        disposition: disposition.clone(),
    });
    if version == Version::HTTP_2 {
        let io = Rewind::new(first, wire);
        let serving = http2::serve(io, config, handler, peer, disposition, age);
        // A connection of HTTP/1, of which there are far more, need not be as large as this.
        Box::pin(serving).await;
    } else {
        let socket = wire
            .map(|stream| Socket::new(stream, Arc::clone(&link), Arc::clone(&flow), config.send));
        let io = GuardIo::new(socket, first, config.limits, config.timeouts, link);
        http1::serve(io, handler, peer, flow, disposition, age).await;
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

/// Gives bytes back that were read to find out the protocol, and counts the frames of an HTTP/2 client.
struct Rewind {
    first: BytesMut,
    io: Wire<TcpStream, Socket>,
    meter: Meter,
}

impl Rewind {
    fn new(first: BytesMut, io: Wire<TcpStream, Socket>) -> Self {
        let meter = Meter::new(Instant::now());
        Self { first, io, meter }
    }
}
