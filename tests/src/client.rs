//! A client that knows nothing of our libraries: one connection, one request at a time, and the truth about what came back.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::iter};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header::HOST};
use http_body_util::{BodyExt as _, Empty, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use crate::ledger::{Fate, Told};

/// The header by which requests are named.
pub const REQUEST_ID: &str = "x-request-id";

/// Any request body.
pub type Payload = UnsyncBoxBody<Bytes, io::Error>;

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header as text; empty if it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }
}

/// A GET without a body.
pub fn get(path: &str) -> Request<Payload> {
    let body = Empty::new().map_err(|never| match never {});
    request("GET", path, UnsyncBoxBody::new(body))
}

/// A POST whose length is stated.
pub fn post(path: &str, body: impl Into<Bytes>) -> Request<Payload> {
    let body = Full::new(body.into()).map_err(|never| match never {});
    request("POST", path, UnsyncBoxBody::new(body))
}

/// A POST whose length is not stated: its body comes in pieces.
pub fn post_in_pieces(path: &str, piece: impl Into<Bytes>, count: usize) -> Request<Payload> {
    let pieces = iter(vec![piece.into(); count]).map(|piece| Ok(Frame::data(piece)));
    request("POST", path, UnsyncBoxBody::new(StreamBody::new(pieces)))
}

/// A request with any body.
pub fn request(method: &str, path: &str, body: Payload) -> Request<Payload> {
    let request = Request::builder().method(method).uri(path).body(body);
    request.expect("tests have good paths")
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    sender: SendRequest<Payload>,
    host: HeaderValue,
    read: Arc<AtomicU64>,
    used: bool,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens.
    pub async fn open(address: SocketAddr) -> io::Result<Self> {
        let read = Arc::new(AtomicU64::new(0));
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let metered = Metered {
            stream,
            read: Arc::clone(&read),
        };
        let (sender, connection) = http1::handshake(TokioIo::new(metered))
            .await
            .map_err(io::Error::other)?;
        // Its end is seen by whoever sends next.
        tokio::spawn(async move { connection.with_upgrades().await });
        Ok(Self {
            sender,
            host: HeaderValue::try_from(address.to_string()).expect("an address is a header"),
            read,
            used: false,
        })
    }

    /// Sends a request and returns its answer as soon as the head is there.
    ///
    /// # Errors
    /// What became of the request instead.
    pub async fn start(
        &mut self,
        mut request: Request<Payload>,
    ) -> Result<Response<Incoming>, Fate> {
        request.headers_mut().insert(HOST, self.host.clone());
        let (read, idle) = (
            self.read.load(Relaxed),
            std::mem::replace(&mut self.used, true),
        );
        let sent = async {
            self.sender.ready().await?;
            self.sender.send_request(request).await
        };
        sent.await.map_err(|error| {
            if idle && self.read.load(Relaxed) == read && !error.is_user() {
                Fate::ClosedIdle
            } else {
                Fate::Lost(format!("{error:?}"))
            }
        })
    }

    /// Sends a request and returns its whole answer.
    ///
    /// # Errors
    /// What became of the request instead.
    pub async fn send(&mut self, request: Request<Payload>) -> Result<Answer, Fate> {
        let (head, body) = self.start(request).await?.into_parts();
        let body = body
            .collect()
            .await
            .map_err(|error| Fate::Lost(format!("in the body: {error:?}")))?;
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body: body.to_bytes(),
        })
    }
}

/// Sends a request on a connection of its own.
///
/// # Errors
/// What became of the request instead.
pub async fn fetch(address: SocketAddr, request: Request<Payload>) -> Result<Answer, Fate> {
    let mut connection = Connection::open(address)
        .await
        .map_err(|error| Fate::Lost(format!("no connection: {error}")))?;
    connection.send(request).await
}

/// Names requests and keeps their fates.
#[derive(Clone, Debug, Default)]
pub struct Account {
    named: Arc<AtomicU64>,
    told: Arc<Mutex<Vec<Told>>>,
}

impl Account {
    /// The next name.
    pub fn name(&self) -> String {
        format!("t-{}", self.named.fetch_add(1, Relaxed))
    }

    /// Sends `request` under a name of its own, on `connection` or else on a fresh one, and writes its fate down.
    ///
    /// # Errors
    /// What became of the request instead of an answer.
    pub async fn send(
        &self,
        address: SocketAddr,
        connection: Option<&mut Connection>,
        mut request: Request<Payload>,
    ) -> Result<Answer, Fate> {
        let id = self.name();
        let value = HeaderValue::try_from(&id).expect("a name is a header");
        request.headers_mut().insert(REQUEST_ID, value);
        let answer = match connection {
            Some(connection) => connection.send(request).await,
            None => fetch(address, request).await,
        };
        let fate = match &answer {
            Ok(answer) => Fate::Answered(answer.status.as_u16()),
            Err(fate) => fate.clone(),
        };
        self.tell(id, fate);
        answer
    }

    /// Writes down the fate of a request that was sent in another way.
    pub fn tell(&self, id: String, fate: Fate) {
        self.told.lock().push(Told { id, fate });
    }

    /// Everything written down so far.
    pub fn told(&self) -> Vec<Told> {
        self.told.lock().clone()
    }
}

/// A connection that counts what is read.
#[derive(Debug)]
struct Metered {
    stream: TcpStream,
    read: Arc<AtomicU64>,
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = ready!(Pin::new(&mut self.stream).poll_read(cx, buffer));
        let read = buffer.filled().len() - before;
        self.read.fetch_add(read as u64, Relaxed);
        Poll::Ready(result)
    }
}

impl AsyncWrite for Metered {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
