//! An HTTP/1 connection, driven by whoever has a request on it: no task stands between them.

use std::{
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::BytesMut;
use http::{Method, Request, Response, StatusCode};
use tokio::net::TcpStream;

use super::{
    Broken, Inner, OnInformational, RequestBroken,
    answer::{self, Answer},
    reply::{Reply, finish_upload, pump},
    socket::Socket,
    upgraded::Upgraded,
    upload::{Stopped, Upload},
};
use crate::http::{body::Body, wire::Wire};

/// The connection. Dropping it closes it, in whatever state it is.
#[derive(Debug)]
pub(super) struct Line {
    /// `None` once another protocol has it.
    socket: Option<Socket>,
    /// What was read and not yet taken.
    buffer: BytesMut,
    /// A request was given to it and its answer has not ended.
    in_use: bool,
}

/// Why an exchange failed.
#[derive(Debug)]
pub(super) enum Failed {
    /// The connection broke; whether anything had been sent.
    Broken { error: Broken, sent: bool },
    /// The request's own body broke.
    Request(RequestBroken),
}

impl Drop for Line {
    fn drop(&mut self) {
        if let (Some(socket), true) = (&self.socket, self.in_use) {
            socket.reset();
        }
    }
}

impl Line {
    pub(super) fn new(stream: Wire<TcpStream>) -> Self {
        Self {
            socket: Some(Socket::new(stream)),
            buffer: BytesMut::new(),
            in_use: false,
        }
    }

    /// Begins a request.
    pub(super) fn begin(&mut self) {
        self.in_use = true;
    }

    /// The request was answered to the end. Returns whether another one may follow, as far as this side knows.
    pub(super) fn end(&mut self) -> bool {
        self.in_use = false;
        // What comes unasked answers nothing that was asked.
        let is_clean = self.buffer.is_empty();
        self.buffer = BytesMut::new();
        is_clean
    }

    /// Whether it is open and nothing has come since [`Self::end`].
    pub(super) fn is_silent(&mut self) -> bool {
        self.socket.as_mut().is_some_and(Socket::is_silent)
    }

    /// What was read and not yet taken.
    pub(super) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Reads more.
    ///
    /// # Errors
    /// The connection's. Its end is one, but for a body that ends with it: `Ok(false)`.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Broken>> {
        let Some(socket) = &mut self.socket else {
            return Poll::Ready(Ok(false));
        };
        match ready!(socket.poll_fill(cx, &mut self.buffer)) {
            Ok(n) => Poll::Ready(Ok(n > 0)),
            Err(error) => Poll::Ready(Err(Broken::Connection(error))),
        }
    }

    /// Writes what can be written of the request. Ready when all of it is.
    pub(super) fn poll_upload(
        &mut self,
        cx: &mut Context<'_>,
        upload: &mut Upload,
        body: &mut Body,
    ) -> Poll<Result<(), Stopped>> {
        match &mut self.socket {
            Some(socket) => upload.poll(cx, socket, body),
            None => Poll::Ready(Ok(())),
        }
    }
}

/// A request and its answer's head.
pub(super) struct Exchange<'a> {
    pub(super) line: &'a mut Line,
    pub(super) upload: &'a mut Upload,
    pub(super) method: &'a Method,
    pub(super) informational: Option<&'a OnInformational>,
    /// Bytes of a head. However many informational ones there are, no more than one is in memory.
    pub(super) head_bytes: usize,
    /// Bytes in which no head ends.
    pub(super) seen: usize,
}

impl Exchange<'_> {
    /// Writes the request and reads the head of its answer, whichever goes on.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        body: &mut Body,
    ) -> Poll<Result<Answer, Failed>> {
        loop {
            if !self.upload.is_over()
                && let Poll::Ready(Err(stopped)) = self.line.poll_upload(cx, self.upload, body)
            {
                return Poll::Ready(Err(match stopped {
                    Stopped::Body(error) => Failed::Request(error),
                    Stopped::Connection(error) => self.broken(Broken::Connection(error)),
                }));
            }
            let answer = match ready!(self.poll_head(cx)) {
                Ok(answer) => answer,
                Err(error) => return Poll::Ready(Err(self.broken(error))),
            };
            if !self.upload.has_begun() {
                // It answers nothing that was asked here.
                return Poll::Ready(Err(self.broken(Broken::Malformed("an answer to nothing"))));
            }
            let status = answer.head.status();
            if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
                return Poll::Ready(Ok(answer));
            }
            if let Some(on) = self.informational {
                on.call(status);
            }
        }
    }

    fn broken(&self, error: Broken) -> Failed {
        let sent = self.upload.has_begun();
        Failed::Broken { error, sent }
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Answer, Broken>> {
        loop {
            if has_end(&self.line.buffer, self.seen) {
                let before = self.line.buffer.len();
                if let Some(answer) = answer::parse(&mut self.line.buffer, self.method)? {
                    let length = before - self.line.buffer.len();
                    self.seen = 0;
                    return Poll::Ready(if length > self.head_bytes {
                        Err(Broken::Malformed(TOO_LARGE))
                    } else {
                        Ok(answer)
                    });
                }
            }
            self.seen = self.line.buffer.len();
            if self.seen >= self.head_bytes {
                return Poll::Ready(Err(Broken::Malformed(TOO_LARGE)));
            }
            if !ready!(self.line.poll_fill(cx))? {
                return Poll::Ready(Err(Broken::Ended));
            }
        }
    }
}

const TOO_LARGE: &str = "a head that is too large";

/// Whether a head may end in what came after the first `seen` bytes: a head that comes byte by byte is not parsed each time.
fn has_end(bytes: &[u8], seen: usize) -> bool {
    let new = &bytes[seen.saturating_sub(3)..];
    // Not HTTP at all is found out without waiting for an end.
    (seen < 16 && !bytes.is_empty())
        || new.windows(2).any(|pair| pair == b"\n\n")
        || new.windows(3).any(|three| three == b"\n\r\n")
}

/// The answer as its client gets it: the connection goes home when it was read to its end.
pub(super) fn deliver(
    home: &Arc<Inner>,
    mut line: Line,
    upload: Upload,
    request: Request<Body>,
    answer: Answer,
) -> Response<Body> {
    let Answer {
        head,
        coding,
        keeps,
    } = answer;
    let (mut parts, ()) = head.into_parts();
    if parts.status == StatusCode::SWITCHING_PROTOCOLS {
        let rest = std::mem::take(&mut line.buffer);
        if let Some(socket) = line.socket.take() {
            parts.extensions.insert(Upgraded::new(socket, rest).offer());
        }
        return Response::from_parts(parts, Body::empty());
    }
    let at_hand = coding.left().and_then(|left| usize::try_from(left).ok());
    let at_hand = at_hand.filter(|left| *left <= line.buffer.len());
    let body = if let Some(left) = at_hand {
        let body = Body::full(line.buffer.split_to(left).freeze());
        let clean = line.end();
        if keeps && clean {
            if upload.is_over() {
                home.keep(line);
            } else {
                finish_upload(home, line, upload, request.into_body());
            }
        }
        body
    } else {
        let reply = Reply::new(home, line, coding, keeps);
        if upload.is_over() {
            Body::reply(reply)
        } else {
            pump(reply, upload, request.into_body())
        }
    };
    Response::from_parts(parts, body)
}
