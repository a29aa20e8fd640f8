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
    HeaderValue, Request, Response, Uri, Version,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING},
    uri::{PathAndQuery, Scheme},
};
use http_body::Body as _;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};

use self::{
    line::{Idle, Line, Use},
    upstream::Upstream,
};
use super::{body::Body, tls::ClientTls, wire::Wire};
use crate::BoxError;

mod h2;
mod line;
mod upstream;

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
    idle: Mutex<Vec<Idle>>,
    h2: Arc<h2::Pool>,
    closed: AtomicBool,
}

/// An HTTP/1 connection that belongs to the caller until it is given back.
pub struct Connection {
    line: Line,
    home: Arc<Inner>,
    reused: bool,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("reused", &self.reused)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// No connection is made yet.
    pub fn new(address: SocketAddr, config: Config) -> Self {
        Self {
            inner: Arc::new(Inner {
                address,
                config,
                idle: Mutex::new(Vec::new()),
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
            return self.send_h2(request).await;
        }
        let mut request = request;
        loop {
            let connection = match self.connection().await {
                Ok(connection) => connection,
                Err(error) => {
                    return Err(SendError::NotSent {
                        error,
                        request: Box::new(request),
                    });
                }
            };
            let reused = connection.reused;
            match connection.send(request).await {
                // A kept connection that was closed before the request went out says nothing about the address.
                Err(SendError::NotSent { request: back, .. }) if reused => request = *back,
                outcome => return outcome,
            }
        }
    }

    /// A connection of one's own: a kept one, else a new one.
    ///
    /// # Errors
    /// When none can be made.
    pub async fn connection(&self) -> Result<Connection, BoxError> {
        if let Some(line) = self.inner.take_idle() {
            return Ok(Connection {
                line,
                home: Arc::clone(&self.inner),
                reused: true,
            });
        }
        let cancelled = Arc::new(AtomicBool::new(false));
        let around = |stream| Upstream::new(stream, Arc::clone(&cancelled));
        let upstream = self.inner.connect(false, around).await?;
        let (sender, connection) = http1::Builder::new()
            .max_header_size(self.inner.config.head_bytes)
            .handshake(TokioIo::new(upstream))
            .await?;
        let task = tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "Upstream connection ended");
            }
        })
        .abort_handle();
        let mut line = Line {
            sender,
            task,
            use_of: Use::Unused,
            cancelled,
        };
        line.sender.ready().await?;
        Ok(Connection {
            line,
            home: Arc::clone(&self.inner),
            reused: false,
        })
    }

    /// Keeps no connection from now on and closes the unused ones.
    pub fn close(&self) {
        self.inner.closed.store(true, Relaxed);
        self.inner.idle.lock().clear();
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
        let stream = self.inner.connect(true, |stream| stream).await?;
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

impl Connection {
    /// Sends one request; the connection goes back to its client when the response body has ended.
    ///
    /// # Errors
    /// See [`Client::send`].
    pub async fn send(self, mut request: Request<Body>) -> Result<Response<Body>, SendError> {
        let Self { mut line, home, .. } = self;
        line.use_of = Use::Request;
        announce_body(&mut request);
        match line.sender.try_send_request(request).await {
            Ok(response) => Ok(home.finish(line, response)),
            Err(mut failed) => {
                if !failed.error().is_user() {
                    // Whatever broke this one may have broken the others without our knowing yet, such as the end of the
                    // other side's process: the next request finds that out by connecting, and has not been sent then.
                    home.idle.lock().clear();
                }
                match failed.take_message() {
                    Some(request) => Err(SendError::NotSent {
                        error: failed.into_error().into(),
                        request: Box::new(request),
                    }),
                    None => Err(SendError::Sent(failed.into_error().into())),
                }
            }
        }
    }
}

impl Inner {
    /// A connection that is ready for a request: `around` is put around its socket, and TLS, if it is asked for, around that.
    async fn connect<S>(
        &self,
        http2: bool,
        around: impl FnOnce(TcpStream) -> S,
    ) -> Result<Wire<S>, BoxError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let limit = self.config.connect;
        let connecting = async {
            let stream = TcpStream::connect(self.address).await?;
            stream.set_nodelay(true)?;
            let stream = around(stream);
            let Some(tls) = &self.config.tls else {
                return Ok(Wire::Plain(stream));
            };
            // Boxed, so that connections without it take no room for it.
            let handshake = Box::pin(tls.connect(stream, self.address.ip(), http2));
            Ok(Wire::Tls(Box::new(handshake.await?)))
        };
        timeout(limit, connecting)
            .await
            .map_err(|_| ConnectTimeout(limit))?
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

/// Says that a body of unknown length follows. hyper does so by itself for other methods; of a GET or HEAD it leaves the body out
/// without a word, and the upstream would answer another request than the client's.
fn announce_body(request: &mut Request<Body>) {
    let body = request.body();
    let unknown = !body.is_end_stream() && body.size_hint().exact().is_none();
    if unknown && !request.headers().contains_key(CONTENT_LENGTH) {
        let chunked = HeaderValue::from_static("chunked");
        request.headers_mut().insert(TRANSFER_ENCODING, chunked);
    }
}

/// Whether an address took no connection at all: refused, unreachable, or silent.
pub fn is_connect_error(error: &BoxError) -> bool {
    error.is::<ConnectTimeout>() || error.is::<io::Error>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_given_up_well_before_gunicorn_closes_them() {
        let gunicorn = Duration::from_secs(2);
        assert!(Config::default().idle <= gunicorn / 2);
    }

    #[tokio::test]
    async fn a_connection_that_breaks_takes_the_kept_ones_with_it() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = Client::new(listener.local_addr().unwrap(), Config::default());
        let get = || Request::get("/").body(Body::empty()).unwrap();
        let answer = async |stream: &mut TcpStream, bytes: &[u8]| {
            let mut head = [0; 1024];
            assert!(stream.read(&mut head).await.unwrap() > 0);
            stream.write_all(bytes).await.unwrap();
        };
        // Two at once, so that two connections are kept.
        let (first, second) = (client.send(get()), client.send(get()));
        let model = async {
            let mut streams = [
                listener.accept().await.unwrap().0,
                listener.accept().await.unwrap().0,
            ];
            for stream in &mut streams {
                answer(stream, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            }
            streams
        };
        let (first, second, mut streams) = tokio::join!(first, second, model);
        drop((first.unwrap(), second.unwrap()));
        while client.inner.idle.lock().len() < 2 {
            tokio::task::yield_now().await;
        }
        // The newest is used first; it breaks after the request was read.
        let (sent, ()) = tokio::join!(client.send(get()), async {
            let [a, b] = &mut streams;
            let (mut one, mut other) = ([0; 1024], [0; 1024]);
            tokio::select! {
                _ = a.read(&mut one) => {}
                _ = b.read(&mut other) => {}
            }
            // Only the one that was read from is closed; the other looks alive.
            if one[0] == 0 { b } else { a }.shutdown().await.unwrap();
        });
        assert!(matches!(sent, Err(SendError::Sent(_))), "{sent:?}");
        assert!(client.inner.idle.lock().is_empty());
    }
}
