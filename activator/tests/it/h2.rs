//! A client that speaks HTTP/2 by prior knowledge.

use std::{
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};

use crate::{bed::until, http1::PATIENCE};

/// A request body that a test writes frame by frame. Dropping the sender ends it.
#[derive(Debug)]
pub(crate) struct Frames(mpsc::UnboundedReceiver<Frame<Bytes>>);

/// The writing end of [`Frames`].
pub(crate) type Writer = mpsc::UnboundedSender<Frame<Bytes>>;

impl Frames {
    pub(crate) fn new() -> (Writer, Self) {
        let (tx, rx) = mpsc::unbounded_channel();
        (tx, Self(rx))
    }

    /// These bytes and nothing more, without a declared length.
    pub(crate) fn whole(bytes: &[u8]) -> Self {
        let (tx, body) = Self::new();
        for chunk in bytes.chunks(9_000) {
            tx.send(Frame::data(Bytes::copy_from_slice(chunk))).unwrap();
        }
        body
    }
}

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(cx).map(|frame| frame.map(Ok))
    }
}

/// An answer, whole.
#[derive(Debug)]
pub(crate) struct Whole {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct Connection {
    sender: http2::SendRequest<Frames>,
    task: JoinHandle<()>,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream).await
    }

    /// On a connection that there is.
    pub(crate) async fn over<S>(stream: S) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
        let task = tokio::spawn(async move {
            let _ended = connection.await;
        });
        Self { sender, task }
    }

    /// Sends a request; the head of the answer.
    pub(crate) fn send(
        &self,
        request: Request<Frames>,
    ) -> impl Future<Output = hyper::Result<Response<Incoming>>> + Send + use<> {
        let mut sender = self.sender.clone();
        async move {
            timeout(PATIENCE, sender.send_request(request))
                .await
                .expect("an answer in time")
        }
    }

    /// A request and its whole answer.
    pub(crate) fn ask(
        &self,
        path: &str,
        id: &str,
        body: Frames,
    ) -> impl Future<Output = hyper::Result<Whole>> + Send + use<> {
        let answer = self.send(post(path, id, body));
        async move {
            let (parts, body) = answer.await?.into_parts();
            let whole = timeout(PATIENCE, body.collect())
                .await
                .expect("a body in time")?;
            Ok(Whole {
                status: parts.status.as_u16(),
                headers: parts.headers,
                body: whole.to_bytes(),
            })
        }
    }

    pub(crate) fn get(
        &self,
        path: &str,
        id: &str,
    ) -> impl Future<Output = hyper::Result<Whole>> + Send + use<> {
        self.ask(path, id, Frames::whole(b""))
    }

    /// Waits until the other side has ended the connection.
    pub(crate) async fn ended(&self) {
        until("the connection ended", || self.task.is_finished()).await;
    }
}

/// A POST without a declared length.
pub(crate) fn post(path: &str, id: &str, body: Frames) -> Request<Frames> {
    Request::post(format!("http://t{path}"))
        .header("x-id", id)
        .header("te", "trailers")
        .body(body)
        .unwrap()
}
