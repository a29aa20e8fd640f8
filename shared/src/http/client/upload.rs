//! A request on its way out.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use http_body::{Body as _, Frame};

use super::{
    RequestBroken,
    request::{Delimited, chunk_head, last_chunk},
    socket::Socket,
};
use crate::http::body::Body;

/// Bytes of a body that may wait for the socket.
const WAITING: usize = 64 * 1024;
/// Pieces that go out in one call.
const PIECES: usize = 16;

/// What of a request has not been written.
#[derive(Debug)]
pub(super) struct Upload {
    waiting: VecDeque<Bytes>,
    bytes: usize,
    /// Of the body that has not been taken yet; nothing when all of it was.
    delimited: Delimited,
    /// What was taken of the body before anything was written: until then all of it can be had back.
    first: Option<Frame<Bytes>>,
    began: bool,
    /// Whether what was written may still be on this side.
    unsent: bool,
}

/// Why a request does not go out.
#[derive(Debug)]
pub(super) enum Stopped {
    /// Its body broke.
    Body(RequestBroken),
    /// The connection broke.
    Connection(io::Error),
}

impl Upload {
    /// `head`, then a body as it is `delimited`.
    pub(super) fn new(head: Bytes, delimited: Delimited) -> Self {
        let bytes = head.len();
        // A head and a short body.
        let mut waiting = VecDeque::with_capacity(4);
        waiting.push_back(head);
        Self {
            waiting,
            bytes,
            delimited,
            first: None,
            began: false,
            unsent: false,
        }
    }

    /// Whether all of it was written.
    pub(super) fn is_over(&self) -> bool {
        self.waiting.is_empty() && self.delimited == Delimited::Nothing && !self.unsent
    }

    /// Whether anything of it was written.
    pub(super) fn has_begun(&self) -> bool {
        self.began
    }

    /// Puts back what was taken of `body`, if nothing was written.
    pub(super) fn undo(&mut self, body: &mut Body) {
        if let Some(first) = self.first.take() {
            body.put_back(first);
        }
    }

    /// Writes what can be written. Ready when nothing is left.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut Socket,
        body: &mut Body,
    ) -> Poll<Result<(), Stopped>> {
        loop {
            let more = self.take(cx, body).map_err(Stopped::Body)?;
            if self.waiting.is_empty() {
                if self.unsent {
                    ready!(socket.poll_sent(cx)).map_err(Stopped::Connection)?;
                    self.unsent = false;
                }
                return more.map(Ok);
            }
            if !self.began && socket.sends_in_steps() {
                self.begin();
            }
            let mut slices = [IoSlice::new(&[]); PIECES];
            let count = self.waiting.len().min(PIECES);
            for (slice, piece) in slices.iter_mut().zip(&self.waiting) {
                *slice = IoSlice::new(piece);
            }
            match ready!(socket.poll_send(cx, &slices[..count])) {
                // Nothing of it can have been read.
                Ok(_) if socket.is_deaf() && !self.began => {
                    let error = io::ErrorKind::BrokenPipe.into();
                    return Poll::Ready(Err(Stopped::Connection(error)));
                }
                Ok(n) => self.wrote(n),
                Err(error) => return Poll::Ready(Err(Stopped::Connection(error))),
            }
        }
    }

    /// From now on some of it may have been read.
    fn begin(&mut self) {
        self.began = true;
        self.first = None;
    }

    fn wrote(&mut self, n: usize) {
        self.begin();
        self.unsent = true;
        self.bytes -= n;
        let mut left = n;
        while let Some(piece) = self.waiting.front_mut() {
            if piece.len() > left {
                piece.advance(left);
                return;
            }
            left -= piece.len();
            self.waiting.pop_front();
        }
    }

    /// Takes of the body what there is and fits. Ready when there is nothing more to take.
    fn take(&mut self, cx: &mut Context<'_>, body: &mut Body) -> Poll<Result<(), RequestBroken>> {
        while self.delimited != Delimited::Nothing {
            let is_first = !self.began && self.first.is_some();
            if self.bytes >= WAITING || self.waiting.len() + 3 > PIECES || is_first {
                return Poll::Pending;
            }
            let Some(frame) = ready!(Pin::new(&mut *body).poll_frame(cx)) else {
                self.end(None)?;
                break;
            };
            let frame = frame.map_err(RequestBroken::new)?;
            if !self.began {
                self.first = Some(copy(&frame));
            }
            match frame.into_data() {
                Ok(data) => self.put_data(data)?,
                Err(frame) => self.end(frame.into_trailers().ok().as_ref())?,
            }
            if self.delimited != Delimited::Nothing && body.is_end_stream() {
                self.end(None)?;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn put_data(&mut self, data: Bytes) -> Result<(), RequestBroken> {
        if data.is_empty() {
            return Ok(());
        }
        let length = data.len() as u64;
        match &mut self.delimited {
            Delimited::Length(left) => {
                *left = left.checked_sub(length).ok_or_else(RequestBroken::length)?;
                self.put(data);
            }
            Delimited::Chunks => {
                self.put(chunk_head(data.len()));
                self.put(data);
                self.put(Bytes::from_static(b"\r\n"));
            }
            Delimited::Nothing => {}
        }
        Ok(())
    }

    fn end(&mut self, trailers: Option<&http::HeaderMap>) -> Result<(), RequestBroken> {
        match std::mem::replace(&mut self.delimited, Delimited::Nothing) {
            Delimited::Length(1..) => return Err(RequestBroken::length()),
            Delimited::Chunks => self.put(last_chunk(trailers)),
            Delimited::Length(0) | Delimited::Nothing => {}
        }
        Ok(())
    }

    fn put(&mut self, bytes: Bytes) {
        self.bytes += bytes.len();
        self.waiting.push_back(bytes);
    }
}

/// The same frame once more; its bytes are shared.
fn copy(frame: &Frame<Bytes>) -> Frame<Bytes> {
    match (frame.data_ref(), frame.trailers_ref()) {
        (Some(data), _) => Frame::data(data.clone()),
        (None, Some(trailers)) => Frame::trailers(trailers.clone()),
        (None, None) => Frame::data(Bytes::new()),
    }
}
