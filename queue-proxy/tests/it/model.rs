//! Models: one made of hyper with any behaviour, one that speaks raw bytes, and one that keeps requests until told.

mod seen;

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::SeqCst},
};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use self::seen::{Active, Counted, Open, Seen};

/// The body of a model's answer.
pub(crate) type Reply = BoxBody<Bytes, Infallible>;
/// The sending half of a streamed answer.
pub(crate) type Feed = mpsc::UnboundedSender<Frame<Bytes>>;

/// A model that runs until it is dropped. Connections that send nothing are probes and leave no trace.
pub(crate) struct Model {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Seen>,
    _accepting: JoinSet<()>,
}

impl Model {
    /// An HTTP/1 model that answers as `handler` says.
    pub(crate) async fn start<F, R>(handler: F) -> Self
    where
        F: Fn(Request<Incoming>) -> R + Send + Sync + 'static,
        R: Future<Output = Response<Reply>> + Send + 'static,
    {
        Self::serve(false, handler).await
    }

    /// The same over TLS, in either version of HTTP.
    pub(crate) async fn start_tls<F, R>(tls: TlsAcceptor, h2: bool, handler: F) -> Self
    where
        F: Fn(Request<Incoming>) -> R + Send + Sync + 'static,
        R: Future<Output = Response<Reply>> + Send + 'static,
    {
        Self::serve_on(listener().await, Some(tls), h2, handler)
    }

    /// The same over HTTP/2 by prior knowledge.
    pub(crate) async fn start_h2<F, R>(handler: F) -> Self
    where
        F: Fn(Request<Incoming>) -> R + Send + Sync + 'static,
        R: Future<Output = Response<Reply>> + Send + 'static,
    {
        Self::serve(true, handler).await
    }

    /// As [`Self::start`], on a port that was chosen before: the next life of a model.
    pub(crate) fn start_on<F, R>(listener: TcpListener, handler: F) -> Self
    where
        F: Fn(Request<Incoming>) -> R + Send + Sync + 'static,
        R: Future<Output = Response<Reply>> + Send + 'static,
    {
        Self::serve_on(listener, None, false, handler)
    }

    async fn serve<F, R>(h2: bool, handler: F) -> Self
    where
        F: Fn(Request<Incoming>) -> R + Send + Sync + 'static,
        R: Future<Output = Response<Reply>> + Send + 'static,
    {
        Self::serve_on(listener().await, None, h2, handler)
    }

    fn serve_on<F, R>(listener: TcpListener, tls: Option<TlsAcceptor>, h2: bool, handler: F) -> Self
    where
        F: Fn(Request<Incoming>) -> R + Send + Sync + 'static,
        R: Future<Output = Response<Reply>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        Self::accept(listener, move |stream, seen| {
            let (handler, tls) = (Arc::clone(&handler), tls.clone());
            async move {
                let io: Box<dyn Io> = match tls {
                    None => Box::new(stream),
                    Some(tls) => match tls.accept(stream).await {
                        Ok(stream) => Box::new(stream),
                        Err(_) => return,
                    },
                };
                let service = service_fn(move |request: Request<Incoming>| {
                    let (parts, body) = request.into_parts();
                    seen.requests
                        .lock()
                        .push(Request::from_parts(parts.clone(), ()));
                    let active = Active::new(&seen);
                    let answer = handler(Request::from_parts(parts, body));
                    async move {
                        let answer = answer.await;
                        Ok::<_, Infallible>(answer.map(|inner| Counted::new(inner, active)))
                    }
                });
                let io = TokioIo::new(io);
                // How a connection ends is what the tests look at, not what hyper thinks of it.
                let _end = if h2 {
                    http2::Builder::new(TokioExecutor::new())
                        .serve_connection(io, service)
                        .await
                } else {
                    http1::Builder::new()
                        .serve_connection(io, service)
                        .with_upgrades()
                        .await
                };
            }
        })
    }

    /// A model that does with each connection what `script` says.
    pub(crate) async fn raw<F, R>(script: F) -> Self
    where
        F: Fn(TcpStream) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        Self::accept(listener().await, move |stream, _| script(stream))
    }

    fn accept<F, R>(listener: TcpListener, serve: F) -> Self
    where
        F: Fn(TcpStream, Arc<Seen>) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let mut accepting = JoinSet::new();
        let (serve, mine) = (Arc::new(serve), Arc::clone(&seen));
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (serve, seen) = (Arc::clone(&serve), Arc::clone(&mine));
                connections.spawn(async move {
                    if matches!(stream.peek(&mut [0]).await, Ok(1)) {
                        seen.connections.fetch_add(1, SeqCst);
                        let _open = Open::new(&seen);
                        serve(stream, seen).await;
                    }
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Self {
            address,
            seen,
            _accepting: accepting,
        }
    }

    /// A model that answers `ok` to everything on a port that was chosen before.
    pub(crate) fn on(listener: TcpListener) -> Self {
        Self::serve_on(listener, None, false, |_| async { text("ok") })
    }

    /// A model that answers `ok` to everything.
    pub(crate) async fn ok() -> Self {
        Self::start(|_| async { text("ok") }).await
    }

    /// A model that keeps each request until a permit is added to the semaphore, then answers its path.
    pub(crate) async fn gated() -> (Self, Arc<Semaphore>) {
        let gate = Arc::new(Semaphore::new(0));
        let mine = Arc::clone(&gate);
        let model = Self::start(move |request| {
            let gate = Arc::clone(&mine);
            async move {
                gate.acquire().await.unwrap().forget();
                text(request.uri().path().to_owned())
            }
        })
        .await;
        (model, gate)
    }
}

/// A connection with or without TLS.
trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

/// 200 with a text.
pub(crate) fn text(text: impl Into<Bytes>) -> Response<Reply> {
    Response::new(Full::new(text.into()).boxed())
}

/// A status and nothing else.
pub(crate) fn empty(status: u16) -> Response<Reply> {
    let mut answer = Response::new(Empty::new().boxed());
    *answer.status_mut() = status.try_into().unwrap();
    answer
}

/// 200 with a body that the sender feeds; dropping the sender ends it.
pub(crate) fn streamed() -> (Feed, Response<Reply>) {
    let (feed, mut frames) = mpsc::unbounded_channel();
    let stream = futures_util::stream::poll_fn(move |cx| frames.poll_recv(cx).map(|f| f.map(Ok)));
    let answer = Response::new(BodyExt::boxed(StreamBody::new(stream)));
    (feed, answer)
}

/// A model that answers with streams, over HTTP/1 or HTTP/2, and where their feeds arrive.
pub(crate) async fn streaming(h2: bool) -> (Model, mpsc::UnboundedReceiver<Feed>) {
    let (feeds, taken) = mpsc::unbounded_channel();
    let handler = move |_| {
        let feeds = feeds.clone();
        async move {
            let (feed, answer) = streamed();
            feeds.send(feed).unwrap();
            answer
        }
    };
    let model = if h2 {
        Model::start_h2(handler).await
    } else {
        Model::start(handler).await
    };
    (model, taken)
}

/// 200 with what the request brings, as it comes, trailers included.
pub(crate) fn echo(request: Request<Incoming>) -> Response<Reply> {
    let (feed, answer) = streamed();
    let mut body = request.into_body();
    tokio::spawn(async move {
        while let Some(Ok(frame)) = body.frame().await {
            if feed.send(frame).is_err() {
                return;
            }
        }
    });
    answer
}

/// Whether a future is ready now.
pub(crate) fn is_ready(future: impl Future) -> bool {
    future.now_or_never().is_some()
}
