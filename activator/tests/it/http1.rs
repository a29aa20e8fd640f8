//! A client that writes HTTP/1 byte by byte as a test wants it, and reads strictly what comes back.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// No read of a test takes longer: a hang is a failure, not a hang of the test.
pub(crate) const PATIENCE: Duration = Duration::from_secs(8);

/// A connection.
#[derive(Debug)]
pub(crate) struct Raw<S = TcpStream> {
    pub(crate) stream: S,
    unread: Vec<u8>,
}

/// An answer, whole.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Whether the connection is closed after it.
    pub(crate) fn closes(&self) -> bool {
        self.header("connection") == Some("close")
    }
}

impl<S> From<S> for Raw<S> {
    fn from(stream: S) -> Self {
        Self {
            stream,
            unread: Vec::new(),
        }
    }
}

impl Raw {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream.into()
    }

    /// Opens a connection and sends `bytes`.
    pub(crate) async fn sent(address: SocketAddr, bytes: impl AsRef<[u8]>) -> Self {
        let mut raw = Self::open(address).await;
        raw.send(bytes).await;
        raw
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Raw<S> {
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// Sends to somebody who may be gone.
    pub(crate) async fn try_send(&mut self, bytes: impl AsRef<[u8]>) {
        let _gone = self.stream.write_all(bytes.as_ref()).await;
        let _gone = self.stream.flush().await;
    }

    /// The next bytes; false at the end of the stream or when it is reset.
    pub(crate) async fn fill(&mut self) -> bool {
        let n = timeout(PATIENCE, self.stream.read_buf(&mut self.unread))
            .await
            .expect("bytes in time")
            .unwrap_or(0);
        n > 0
    }

    /// Up to and with `end`, or `None` at the end of the stream.
    pub(crate) async fn until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.unread.windows(end.len()).position(|w| w == end) {
                return Some(self.unread.drain(..at + end.len()).collect());
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    /// Exactly `n` bytes.
    pub(crate) async fn exactly(&mut self, n: usize) -> Option<Vec<u8>> {
        while self.unread.len() < n {
            if !self.fill().await {
                return None;
            }
        }
        Some(self.unread.drain(..n).collect())
    }

    /// The next answer, 1xx included; `None` if the connection ended without one.
    pub(crate) async fn answer(&mut self) -> Option<Answer> {
        let head = String::from_utf8(self.until(b"\r\n\r\n").await?).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut answer = Answer {
            status,
            head,
            body: Vec::new(),
        };
        if status < 200 || status == 204 || status == 304 {
            return Some(answer);
        }
        if let Some(length) = answer.header("content-length") {
            let length = length.parse().unwrap();
            answer.body = self.exactly(length).await?;
        } else if answer.header("transfer-encoding") == Some("chunked") {
            loop {
                let line = String::from_utf8(self.until(b"\r\n").await?).unwrap();
                let size = usize::from_str_radix(line.trim(), 16).unwrap();
                let data = self.exactly(size + 2).await?;
                answer.body.extend_from_slice(&data[..size]);
                if size == 0 {
                    break;
                }
            }
        } else {
            while self.fill().await {}
            answer.body = std::mem::take(&mut self.unread);
        }
        Some(answer)
    }

    /// Whether the other side closes without another byte.
    pub(crate) async fn ends(&mut self) -> bool {
        self.unread.is_empty() && !self.fill().await
    }
}

/// A GET with an id for the model's journal.
pub(crate) fn get(path: &str, id: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: t\r\nx-id: {id}\r\n\r\n")
}

/// A POST of `body` with its length.
pub(crate) fn post(path: &str, id: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let mut bytes = format!(
        "POST {path} HTTP/1.1\r\nhost: t\r\nx-id: {id}\r\ncontent-length: {length}\r\n\r\n"
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// A POST of `body` in chunks.
pub(crate) fn post_chunked(path: &str, id: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!(
        "POST {path} HTTP/1.1\r\nhost: t\r\nx-id: {id}\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    .into_bytes();
    for chunk in body.chunks(10_000) {
        bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

/// One request on a connection of its own; panics if it is not answered.
pub(crate) async fn ask(address: SocketAddr, request: impl AsRef<[u8]>) -> Answer {
    let mut raw = Raw::sent(address, request).await;
    raw.answer().await.expect("an answer")
}
