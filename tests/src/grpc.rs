//! A gRPC client: HTTP/2 by prior knowledge, messages with their length in front, and the outcome in trailers. What is in the
//! messages does not matter to anyone on the way, so they are text.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::{
    HeaderMap, HeaderValue, Request, Response,
    header::{CONTENT_TYPE, TE},
};
use http_body_util::BodyExt as _;
use hyper::{
    body::{Body, Frame, Incoming},
    client::conn::{
        TrySendError,
        http2::{self, SendRequest},
    },
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, sync::mpsc};

use crate::{client::REQUEST_ID, ledger::Fate};

/// The method of the tiny model that sends every message back.
const METHOD: &str = "/tiny.Model/Echo";
/// Whether a message is compressed, and its length.
const PREFIX: usize = 5;

/// One connection; calls share it.
#[derive(Clone, Debug)]
pub struct Channel {
    sender: SendRequest<Messages>,
    address: SocketAddr,
}

impl Channel {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens, or not to HTTP/2.
    pub async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        // Its end is seen by whoever sends next.
        tokio::spawn(connection);
        Ok(Self { sender, address })
    }

    /// Begins a call with its first message and returns once the head of the answer is there.
    ///
    /// # Errors
    /// What became of the call instead.
    pub async fn begin(&self, id: &str, first: &str) -> Result<Call, Fate> {
        let (mut call, request) = self.prepare(id, first);
        let answer = self.sender.clone().send_request(request).await;
        call.take(answer.map_err(|error| Fate::Lost(format!("{error:?}")))?)?;
        Ok(call)
    }

    /// A call that has not begun, and its request.
    fn prepare(&self, id: &str, first: &str) -> (Call, Request<Messages>) {
        let (writer, messages) = mpsc::unbounded_channel();
        let request = Request::post(format!("http://{}{METHOD}", self.address))
            .header(CONTENT_TYPE, "application/grpc")
            .header(TE, "trailers")
            .header(REQUEST_ID, id)
            .body(Messages(messages))
            .expect("the parts are good");
        let call = Call {
            writer: Some(writer),
            head: HeaderMap::new(),
            body: None,
            read: BytesMut::new(),
            trailers: None,
        };
        call.say(first);
        (call, request)
    }

    /// One message there and one back.
    ///
    /// # Errors
    /// What became of the call instead.
    pub async fn unary(&self, id: &str, message: &str) -> Result<(String, HeaderMap), Fate> {
        self.begin(id, message).await?.only().await
    }

    /// As [`Self::unary`], on a new connection if the server has said that the present one goes away: as gRPC clients do, and as they
    /// do only with what was not processed.
    ///
    /// # Errors
    /// What became of the call instead.
    pub async fn unary_kept(
        &mut self,
        id: &str,
        message: &str,
    ) -> Result<(String, HeaderMap), Fate> {
        loop {
            let (mut call, request) = self.prepare(id, message);
            match self.sender.try_send_request(request).await {
                Ok(answer) => {
                    call.take(answer)?;
                    return call.only().await;
                }
                Err(failed) if is_unprocessed(&failed) => {
                    let opened = Self::open(self.address).await;
                    *self = opened.map_err(|error| Fate::Lost(format!("{error:?}")))?;
                }
                Err(failed) => return Err(Fate::Lost(format!("{failed:?}"))),
            }
        }
    }
}

/// Whether a call was not processed, by the rules of HTTP/2: it was not sent, or its stream is after the last one of a GOAWAY.
fn is_unprocessed(failed: &TrySendError<Request<Messages>>) -> bool {
    failed.message().is_some() || format!("{:?}", failed.error()).contains("NO_ERROR, Remote")
}

/// A call that is open.
#[derive(Debug)]
pub struct Call {
    writer: Option<mpsc::UnboundedSender<Bytes>>,
    /// The head of its answer.
    pub head: HeaderMap,
    body: Option<Incoming>,
    read: BytesMut,
    trailers: Option<HeaderMap>,
}

impl Call {
    fn take(&mut self, answer: Response<Incoming>) -> Result<(), Fate> {
        let (head, body) = answer.into_parts();
        if head.status != 200 {
            return Err(Fate::Answered(head.status.as_u16()));
        }
        self.head = head.headers;
        self.body = Some(body);
        Ok(())
    }

    /// Sends a message.
    pub fn say(&self, message: &str) {
        let mut bytes = BytesMut::with_capacity(PREFIX + message.len());
        bytes.put_u8(0);
        bytes.put_u32(u32::try_from(message.len()).expect("tests are short"));
        bytes.put_slice(message.as_bytes());
        if let Some(writer) = &self.writer {
            // The answer tells why nobody takes it any more.
            let _gone = writer.send(bytes.freeze());
        }
    }

    /// There is no further message.
    pub fn done(&mut self) {
        self.writer = None;
    }

    /// The one message of an answer that has no other, after the last of ours.
    async fn only(mut self) -> Result<(String, HeaderMap), Fate> {
        self.done();
        let answer = self.hear().await?;
        let rest = self.hear().await?;
        match (answer, rest) {
            (Some(answer), None) => Ok((answer, self.head)),
            other => Err(Fate::Lost(format!("{other:?} instead of one message"))),
        }
    }

    /// The next message, or nothing at the end of a call that went well.
    ///
    /// # Errors
    /// The call broke, or ended with a status that is not 0.
    pub async fn hear(&mut self) -> Result<Option<String>, Fate> {
        loop {
            if let Some(message) = self.whole()? {
                return Ok(Some(message));
            }
            let Some(body) = &mut self.body else {
                return Err(Fate::Lost("there was no answer".to_owned()));
            };
            match body.frame().await {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.read.extend_from_slice(&data),
                    Err(frame) => self.trailers = frame.into_trailers().ok(),
                },
                Some(Err(error)) => return Err(Fate::Lost(format!("{error:?}"))),
                None => return self.outcome(),
            }
        }
    }

    /// A whole message, if one was read.
    fn whole(&mut self) -> Result<Option<String>, Fate> {
        let Some((mut prefix, rest)) = self.read.split_at_checked(PREFIX) else {
            return Ok(None);
        };
        if prefix.get_u8() != 0 {
            return Err(Fate::Lost("compressed, which nobody asked for".to_owned()));
        }
        let length = usize::try_from(prefix.get_u32()).expect("it fits");
        if rest.len() < length {
            return Ok(None);
        }
        self.read.advance(PREFIX);
        let message = self.read.split_to(length);
        Ok(Some(String::from_utf8_lossy(&message).into_owned()))
    }

    fn outcome(&self) -> Result<Option<String>, Fate> {
        let status = self
            .trailers
            .as_ref()
            .and_then(|all| all.get("grpc-status"));
        match status.map(HeaderValue::as_bytes) {
            Some(b"0") if self.read.is_empty() => Ok(None),
            other => Err(Fate::Lost(format!(
                "it ended with {other:?} and {} bytes of a message",
                self.read.len()
            ))),
        }
    }
}

/// The messages of a call, each in a frame of its own.
#[derive(Debug)]
struct Messages(mpsc::UnboundedReceiver<Bytes>);

impl Body for Messages {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0
            .poll_recv(cx)
            .map(|message| message.map(|bytes| Ok(Frame::data(bytes))))
    }
}
