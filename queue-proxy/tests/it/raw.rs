//! An HTTP/1 client that sends exactly the bytes it is given and reads strictly what comes back.

use std::net::SocketAddr;

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

use crate::rig::within;

/// A connection.
pub(crate) struct Raw<S = TcpStream> {
    pub(crate) stream: S,
    pub(crate) buffer: BytesMut,
}

/// An answer, or only its head.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Names in lower case, in order.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
    pub(crate) trailers: Vec<(String, String)>,
}

impl Answer {
    /// The one value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(n, _)| n == name);
        let value = values.next()?;
        assert!(values.next().is_none(), "{name} twice: {self:?}");
        Some(&value.1)
    }

    /// The body as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl Raw {
    /// A new connection.
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = within("a connection", TcpStream::connect(address))
            .await
            .unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            buffer: BytesMut::new(),
        }
    }

    /// A new connection on which `bytes` were sent.
    pub(crate) async fn sent(address: SocketAddr, bytes: impl AsRef<[u8]>) -> Self {
        let mut raw = Self::connect(address).await;
        raw.send(bytes).await;
        raw
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Raw<S> {
    /// Over a connection that there is.
    pub(crate) fn over(stream: S) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
        }
    }

    /// Sends; the other side may be gone.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let sent = async {
            self.stream.write_all(bytes.as_ref()).await?;
            self.stream.flush().await
        };
        let _gone = within("the bytes to be taken", sent).await;
    }

    /// Reads more. False at the end of the stream; panics on a reset.
    async fn fill(&mut self) -> bool {
        within("bytes", self.stream.read_buf(&mut self.buffer))
            .await
            .unwrap()
            > 0
    }

    /// Reads up to `end` and returns what is before it.
    async fn line_to(&mut self, end: &[u8]) -> Bytes {
        loop {
            if let Some(at) = self.buffer.windows(end.len()).position(|w| w == end) {
                let line = self.buffer.split_to(at).freeze();
                self.buffer.advance(end.len());
                return line;
            }
            assert!(self.fill().await, "ended inside: {:?}", self.buffer);
        }
    }

    /// Exactly `n` bytes.
    pub(crate) async fn exact(&mut self, n: usize) -> Bytes {
        while self.buffer.len() < n {
            assert!(
                self.fill().await,
                "ended after {} of {n} bytes",
                self.buffer.len()
            );
        }
        self.buffer.split_to(n).freeze()
    }

    /// Whatever comes until the other side closes. Panics on a reset.
    pub(crate) async fn rest(&mut self) -> Bytes {
        while self.fill().await {}
        self.buffer.split().freeze()
    }

    /// Waits until the other side closes, with or without a reset, and asserts that nothing came before.
    pub(crate) async fn closed(&mut self) {
        let mut byte = [0];
        let read = within("the connection to be closed", self.stream.read(&mut byte)).await;
        assert!(!matches!(read, Ok(1)), "got {byte:?}");
        assert!(self.buffer.is_empty(), "left: {:?}", self.buffer);
    }

    /// The head of an answer; an interim one counts.
    pub(crate) async fn head(&mut self) -> Answer {
        let head = self.line_to(b"\r\n\r\n").await;
        let text = std::str::from_utf8(&head).unwrap();
        let (line, fields) = text.split_once("\r\n").unwrap_or((text, ""));
        let mut parts = line.splitn(3, ' ');
        assert!(parts.next().unwrap().starts_with("HTTP/1."), "{line}");
        Answer {
            status: parts.next().unwrap().parse().unwrap(),
            headers: parse_fields(fields),
            body: Bytes::new(),
            trailers: Vec::new(),
        }
    }

    /// One chunk; `None` for the last one, whose trailers stay unread.
    pub(crate) async fn chunk(&mut self) -> Option<Bytes> {
        let size = self.line_to(b"\r\n").await;
        let size = usize::from_str_radix(std::str::from_utf8(&size).unwrap(), 16).unwrap();
        if size == 0 {
            return None;
        }
        let chunk = self.exact(size).await;
        assert_eq!(self.exact(2).await, "\r\n");
        Some(chunk)
    }

    /// A whole answer to anything but HEAD.
    pub(crate) async fn answer(&mut self) -> Answer {
        let mut answer = self.head().await;
        if answer.header("transfer-encoding") == Some("chunked") {
            let mut body = BytesMut::new();
            while let Some(chunk) = self.chunk().await {
                body.extend_from_slice(&chunk);
            }
            answer.body = body.freeze();
            loop {
                let line = self.line_to(b"\r\n").await;
                if line.is_empty() {
                    break;
                }
                answer
                    .trailers
                    .extend(parse_fields(std::str::from_utf8(&line).unwrap()));
            }
        } else if let Some(length) = answer.header("content-length") {
            answer.body = self.exact(length.parse().unwrap()).await;
        } else if !matches!(answer.status, 100..200 | 204 | 304) {
            answer.body = self.rest().await;
        }
        answer
    }

    /// Sends a GET of `path` and reads the whole answer.
    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        self.send(get(path, "")).await;
        self.answer().await
    }
}

/// A GET with more header lines, each with its line end.
pub(crate) fn get(path: &str, lines: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: a\r\n{lines}\r\n")
}

/// A POST with more header lines and a body of declared length.
pub(crate) fn post(path: &str, lines: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nhost: a\r\n{lines}content-length: {length}\r\n\r\n{body}")
}

fn parse_fields(text: &str) -> Vec<(String, String)> {
    text.split("\r\n")
        .filter(|line| !line.is_empty())
        .map(|line| {
            let (name, value) = line.split_once(':').unwrap();
            (name.to_ascii_lowercase(), value.trim().to_owned())
        })
        .collect()
}
