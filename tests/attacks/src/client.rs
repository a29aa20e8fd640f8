//! A client that sends what it is told and reads frames.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::frame::{self, Frame, PREFACE, kind, settings};

/// Far more than any answer takes.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection after the preface and its settings.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    unread: Vec<u8>,
}

/// What became of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was answered 200.
    Good,
    /// It was answered otherwise; 400 is the only one that has a byte of its own in HPACK and is told.
    Answered(Option<u16>),
    /// It was reset, for this reason.
    Reset(u32),
    /// The connection ended, after a GOAWAY for this reason if there was one.
    Ended(Option<u32>),
}

impl Client {
    /// Connects and says what every client says first.
    ///
    /// # Errors
    /// If there is no connection.
    pub async fn connect(to: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        let mut client = Self {
            stream,
            unread: Vec::new(),
        };
        client.send(PREFACE).await?;
        client.send(&settings(&[])).await?;
        Ok(client)
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// If the other side is gone.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// The next frame; none at the end.
    ///
    /// # Panics
    /// If nothing comes for long.
    pub async fn frame(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = frame::take(&mut self.unread) {
                return Some(frame);
            }
            let read = timeout(PATIENCE, self.stream.read_buf(&mut self.unread)).await;
            match read.expect("a frame or the end in time") {
                Ok(1..) => {}
                Ok(0) | Err(_) => return None,
            }
        }
    }

    /// Reads until it is known what became of a stream. Frames of others are thrown away.
    ///
    /// # Panics
    /// If nothing comes for long.
    pub async fn fate(&mut self, stream: u32) -> Fate {
        let mut reason = None;
        while let Some(frame) = self.frame().await {
            let number = |at: usize| {
                let bytes = frame.payload.get(at..)?.first_chunk()?;
                Some(u32::from_be_bytes(*bytes))
            };
            match frame.kind {
                kind::GOAWAY => reason = number(4),
                // RFC 7541 appendix A.
                kind::HEADERS if frame.stream == stream => match frame.payload.first() {
                    Some(0x88) => return Fate::Good,
                    Some(0x8c) => return Fate::Answered(Some(400)),
                    _ => return Fate::Answered(None),
                },
                kind::RST_STREAM if frame.stream == stream => {
                    return Fate::Reset(number(0).unwrap_or(u32::MAX));
                }
                _ => {}
            }
        }
        Fate::Ended(reason)
    }
}
