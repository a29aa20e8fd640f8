//! Connections to one address, reused, with an answer to the one question that decides about retries: was it sent?

use std::{
    fmt, io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use http::{
    Request, Response, StatusCode, Uri, Version,
    uri::{PathAndQuery, Scheme},
};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::{net::TcpStream, time::timeout};

pub(crate) use self::reply::Reply;
pub use self::upgraded::{Upgraded, upgraded};
use self::{
    kept::Kept,
    line::{Exchange, Failed, Line},
    upload::Upload,
};
use super::{body::Body, tls::ClientTls, wire::Wire};
use crate::BoxError;

mod answer;
mod coding;
mod h2;
mod kept;
mod line;
mod reply;
mod request;
mod socket;
mod upgraded;
mod upload;

/// How connections to an address are made and kept.
#[derive(Clone, Debug)]
pub struct Config {
    /// Limit on making a connection.
    pub connect: Duration,
    /// How long an unused connection may be used again. It must be shorter than the other side's own limit, or a
    /// request can meet a connection that is just being closed.
    pub idle: Duration,
    /// Unused connections kept.
    pub max_idle: usize,
    /// Bytes of a response head. More is an error of the upstream.
    pub head_bytes: usize,
    /// TLS, if any. A handshake is part of making a connection.
    pub tls: Option<ClientTls>,
}

impl Default for Config {
    /// Idle for 1 s: gunicorn closes after exactly 2 s, uvicorn and Node after 5 s, and half of the shortest of them leaves
    /// room for a busy machine. Being early is cheap, since a new loopback connection costs about 50 us; being late is
    /// a request that meets a closing connection and may not be sent again.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            idle: Duration::from_secs(1),
            max_idle: 256,
            head_bytes: 64 * 1024,
            tls: None,
        }
    }
}

impl Config {
    /// What `having` a connection comes to, if it is within the limit.
    async fn in_time<T>(
        &self,
        having: impl Future<Output = Result<T, BoxError>>,
    ) -> Result<T, BoxError> {
        timeout(self.connect, having)
            .await
            .map_err(|_| ConnectTimeout(self.connect))?
    }
}

/// Why a request has no response.
pub enum SendError {
    /// Not a byte of it reached the other side: it may be sent elsewhere.
    NotSent {
        /// What went wrong.
        error: BoxError,
        /// The request, whole.
        request: Box<Request<Body>>,
    },
    /// It may have reached the other side: it must not be sent again.
    Sent(BoxError),
}

impl fmt::Debug for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSent { error, .. } => f.debug_tuple("NotSent").field(error).finish(),
            Self::Sent(error) => f.debug_tuple("Sent").field(error).finish(),
        }
    }
}

/// The address took no connection in time.
#[derive(Debug, thiserror::Error)]
#[error("no connection within {0:?}")]
struct ConnectTimeout(Duration);

/// Connections to one address. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    address: SocketAddr,
    config: Config,
    idle: Mutex<Kept>,
    h2: Arc<h2::Pool>,
    closed: AtomicBool,
}

/// An HTTP/1 connection, and whether it was kept from an earlier request.
struct Connection {
    line: Line,
    reused: bool,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// The connection broke before there was an answer, or in the middle of one.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// It ended.
    #[error("the connection ended before the answer did")]
    Ended,
    /// What came is no answer, or its end cannot be told from what follows.
    #[error("no HTTP/1 answer: {0}")]
    Malformed(&'static str),
    /// Reading or writing failed.
    #[error("the connection broke: {0}")]
    Connection(#[source] io::Error),
}

/// A request's own body kept it from being sent, or from being sent whole.
#[derive(Debug, thiserror::Error)]
#[error("the body of the request cannot be sent: {0}")]
pub struct RequestBroken(#[source] BoxError);

impl RequestBroken {
    fn new(error: BoxError) -> Self {
        Self(error)
    }

    fn length() -> Self {
        Self("its length is not what was declared".into())
    }
}

/// What to do with informational answers to a request.
#[derive(Clone)]
struct OnInformational(Arc<dyn Fn(StatusCode) + Send + Sync>);

impl OnInformational {
    fn call(&self, status: StatusCode) {
        (self.0)(status);
    }
}

/// Calls `on` with the status of each informational answer to an HTTP/1 `request`, but for 101, which is the last one.
pub fn on_informational<B>(
    request: &mut Request<B>,
    on: impl Fn(StatusCode) + Send + Sync + 'static,
) {
    request
        .extensions_mut()
        .insert(OnInformational(Arc::new(on)));
}

impl Client {
    /// No connection is made yet.
    pub fn new(address: SocketAddr, config: Config) -> Self {
        Self {
            inner: Arc::new(Inner {
                address,
                config,
                idle: Mutex::default(),
                h2: Arc::default(),
                closed: AtomicBool::new(false),
            }),
        }
    }

    /// The address.
    pub fn address(&self) -> SocketAddr {
        self.inner.address
    }

    /// Sends `request` in its own HTTP version: HTTP/2 by prior knowledge, everything else as HTTP/1.1.
    ///
    /// # Errors
    /// [`SendError`] says whether the request may be sent elsewhere.
    ///
    /// # Cancel safety
    /// Dropping the future, or the body of its answer before its end, resets the HTTP/1 connection or the HTTP/2 stream.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Body>, SendError> {
        if request.version() == Version::HTTP_2 {
            // In a box, as every part here that few requests need: what waits for a pod is as large as the largest of them.
            return Box::pin(self.send_h2(request)).await;
        }
        let mut request = request;
        loop {
            let connection = match self.inner.connection().await {
                Ok(connection) => connection,
                Err(error) => {
                    return Err(SendError::NotSent {
                        error,
                        request: Box::new(request),
                    });
                }
            };
            let reused = connection.reused;
            match self.exchange(connection, request).await {
                // A kept connection that was closed before the request went out says nothing about the address.
                Err(SendError::NotSent { request: back, .. }) if reused => request = *back,
                outcome => return outcome,
            }
        }
    }

    /// Sends one request; the connection is kept when the body of its answer has ended.
    async fn exchange(
        &self,
        connection: Connection,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, SendError> {
        let mut line = connection.line;
        let delimited = match request::delimit(&mut request) {
            Ok(delimited) => delimited,
            Err(error) => {
                self.inner.keep(line);
                return Err(SendError::Sent(error.into()));
            }
        };
        let mut upload = Upload::new(request::head(&request), delimited);
        let method = request.method().clone();
        let informational = request.extensions().get::<OnInformational>().cloned();
        line.begin();
        let mut exchange = Exchange {
            line: &mut line,
            upload: &mut upload,
            method: &method,
            informational: informational.as_ref(),
            head_bytes: self.inner.config.head_bytes,
            seen: 0,
        };
        let body = request.body_mut();
        match std::future::poll_fn(|cx| exchange.poll(cx, body)).await {
            Ok(answer) => Ok(line::deliver(&self.inner, line, upload, request, answer)),
            Err(Failed::Request(error)) => Err(SendError::Sent(error.into())),
            Err(Failed::Broken { error, sent }) => {
                // Whatever broke this one may have broken the others without our knowing yet, such as the end of the
                // other side's process: the next request finds that out by connecting, and has not been sent then.
                self.inner.idle.lock().lines.clear();
                if sent {
                    return Err(SendError::Sent(error.into()));
                }
                upload.undo(request.body_mut());
                Err(SendError::NotSent {
                    error: error.into(),
                    request: Box::new(request),
                })
            }
        }
    }

    /// Keeps no connection from now on and closes the unused ones.
    pub fn close(&self) {
        self.inner.closed.store(true, Relaxed);
        self.inner.idle.lock().lines.clear();
        self.inner.h2.clear();
    }

    async fn send_h2(&self, request: Request<Body>) -> Result<Response<Body>, SendError> {
        let mut request = request;
        if self.inner.config.tls.is_some() {
            set_https(&mut request);
        }
        // Twice: the first attempt may meet a connection that is going away (GOAWAY before the stream was opened).
        for attempt in 0.. {
            let place = match self.inner.h2.place(self.connect_h2()).await {
                Ok(place) => place,
                Err(error) => {
                    return Err(SendError::NotSent {
                        error,
                        request: Box::new(request),
                    });
                }
            };
            match place.sender().try_send_request(request).await {
                Ok(response) => return Ok(response.map(|body| Body::from(body).guarded(place))),
                Err(mut failed) => match failed.take_message() {
                    Some(back) if attempt == 0 => request = back,
                    Some(back) => {
                        return Err(SendError::NotSent {
                            error: failed.into_error().into(),
                            request: Box::new(back),
                        });
                    }
                    None => return Err(SendError::Sent(failed.into_error().into())),
                },
            }
        }
        unreachable!("the second attempt returns")
    }

    async fn connect_h2(&self) -> Result<http2::SendRequest<Body>, BoxError> {
        let stream = self.inner.config.in_time(self.inner.connect(true)).await?;
        let (mut sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_header_list_size(u32::try_from(self.inner.config.head_bytes).unwrap_or(u32::MAX))
            .keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(10))
            .handshake(TokioIo::new(stream))
            .await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "Upstream connection ended");
            }
        });
        sender.ready().await?;
        Ok(sender)
    }
}

impl Inner {
    /// A connection that is ready for a request, however long it takes.
    async fn connect(&self, http2: bool) -> Result<Wire<TcpStream>, BoxError> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let Some(tls) = &self.config.tls else {
            return Ok(Wire::Plain(stream));
        };
        // Boxed, so that connections without it take no room for it.
        let handshake = Box::pin(tls.connect(stream, self.address.ip(), http2));
        Ok(Wire::Tls(Box::new(handshake.await?)))
    }
}

/// Says over which kind of connection the request comes, as HTTP/2 does: some servers refuse what is not so.
fn set_https(request: &mut Request<Body>) {
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    if parts.authority.is_some() {
        parts.scheme = Some(Scheme::HTTPS);
        let root = PathAndQuery::from_static("/");
        parts.path_and_query.get_or_insert(root);
    }
    // Parts of a target make one again.
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
}

/// Whether an address took no connection at all: refused, unreachable, or silent.
pub fn is_connect_error(error: &BoxError) -> bool {
    error.is::<ConnectTimeout>() || error.is::<io::Error>()
}

#[cfg(test)]
mod tests;
