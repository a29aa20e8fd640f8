//! HTTP/1.1 for a load generator: the request is bytes that were made once, the answer is read into one buffer and thrown away.
//!
//! hyper makes a request of each and a response with a map of all its fields, which is most of the CPU that a small answer costs
//! (`loadtests/runs`). Here the few fields that decide are picked out of the parsed head, by the rules of RFC 9112, section 6.3.

mod chunked;

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use std::future::poll_fn;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use self::chunked::Chunks;
use super::{
    Answer, BodyEnd, Failure, Order, Watchdog,
    stream::{Stream, alert},
    template::Parts,
};
use crate::{config::SERVED_BY, listen::Sink, record::ErrorKind};

/// A buffer begins so large: most answers fit.
const BUFFER: usize = 4 * 1024;
/// A head is no larger, and a body is read in no larger pieces.
const LARGEST: usize = 64 * 1024;
/// Reads of one turn.
const READS: u32 = 16;
/// Fields of an answer.
const FIELDS: usize = 128;

/// A connection.
#[derive(Debug)]
pub(super) struct H1 {
    stream: Stream,
    /// Allocated with the first request.
    buffer: Vec<u8>,
    /// How much of it is filled.
    filled: usize,
    closed: bool,
}

/// What comes next of an answer.
#[derive(Debug)]
enum Part {
    Head,
    /// So many bytes of body.
    Sized(u64),
    Chunked(Chunks),
    /// A body up to the end of the connection.
    Rest,
}

/// What is known of an answer.
#[derive(Debug, Default)]
struct Known {
    status: u16,
    served_by: Option<String>,
    body_bytes: u64,
    /// Whether another request may follow.
    is_last: bool,
}

/// A head that was read.
struct Head {
    bytes: usize,
    known: Known,
    part: Part,
}

/// It is not HTTP.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl H1 {
    pub(super) fn new(stream: Stream) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
            filled: 0,
            closed: false,
        }
    }

    /// Below HTTP.
    pub(super) fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Ready once nothing can be asked on it any more. Between exchanges a server has nothing to say.
    pub(super) fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.closed {
            let mut byte = [0];
            let mut unread = ReadBuf::new(&mut byte);
            if Pin::new(&mut self.stream)
                .poll_read(cx, &mut unread)
                .is_pending()
            {
                return Poll::Pending;
            }
            self.closed = true;
        }
        Poll::Ready(())
    }

    /// See [`super::Connection::exchange`].
    pub(super) async fn exchange(
        &mut self,
        order: &Order<'_>,
        sink: &mut Sink<'_>,
        is_reused: bool,
        watchdog: &mut Watchdog,
        deadline: Instant,
    ) -> Result<Answer, Failure> {
        let Parts { head, rest, body } = order.template.parts(order.number, order.id);
        let mut unsent = [head, rest.as_bytes(), &body[..]];
        let is_head = order.template.is_head();
        let mut part = Part::Head;
        let mut known = Known::default();
        let mut has_read = false;
        self.filled = 0;
        if self.buffer.is_empty() {
            self.buffer.resize(BUFFER, 0);
        }
        // Half an exchange leaves nothing that could be used, also if it is dropped here.
        self.closed = true;
        let ended = poll_fn(|cx| {
            let mut reads = 0;
            if self.write(&mut unsent, cx).is_err() {
                let is_whole = [head.len(), rest.len(), body.len()] == unsent.map(<[u8]>::len);
                if is_whole && self.stream.fails_whole() {
                    return Poll::Ready(Err(Failure::Unsent));
                }
                // The server may have answered before it stopped reading.
                unsent = [&[]; 3];
                known.is_last = true;
            }
            loop {
                match self.digest(&mut part, &mut known, sink, is_head) {
                    Ok(true) => return Poll::Ready(Ok(BodyEnd::Whole)),
                    Ok(false) => {}
                    Err(Malformed) if matches!(part, Part::Head) => {
                        return Poll::Ready(Err(Failure::Error(ErrorKind::Protocol)));
                    }
                    Err(Malformed) => return Poll::Ready(Ok(BodyEnd::Broken)),
                }
                // Whoever always has more to say is not let off the deadline by it, and others have their turn.
                if reads == READS {
                    if Instant::now() >= deadline {
                        return Poll::Ready(late(&part));
                    }
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                reads += 1;
                match self.read(cx) {
                    Poll::Ready(Ok(0)) if matches!(part, Part::Rest) => {
                        return Poll::Ready(Ok(BodyEnd::Whole));
                    }
                    Poll::Ready(ended @ (Ok(0) | Err(_))) => {
                        let alert = ended.err().and_then(|error| alert(&error));
                        return Poll::Ready(match (&part, has_read) {
                            (Part::Head, _) if let Some(alert) = alert => Err(alert),
                            (Part::Head, true) => Err(Failure::Error(ErrorKind::Protocol)),
                            (Part::Head, false) if is_reused => {
                                Err(Failure::Error(ErrorKind::ClosedReused))
                            }
                            (Part::Head, false) => Err(Failure::Error(ErrorKind::ClosedFresh)),
                            _ => Ok(BodyEnd::Broken),
                        });
                    }
                    Poll::Ready(Ok(_)) => has_read = true,
                    Poll::Pending => break,
                }
            }
            watchdog.poll_expired(deadline, cx).map(|()| late(&part))
        })
        .await?;
        let is_sent = unsent.iter().all(|part| part.is_empty());
        self.closed = ended != BodyEnd::Whole || known.is_last || !is_sent || self.filled > 0;
        Ok(Answer {
            status: Some(known.status),
            served_by: known.served_by,
            body_bytes: known.body_bytes,
            end: ended,
        })
    }

    /// Writes what the socket takes.
    fn write(&mut self, unsent: &mut [&[u8]; 3], cx: &mut Context<'_>) -> io::Result<()> {
        while unsent.iter().any(|part| !part.is_empty()) {
            let slices = unsent.map(IoSlice::new);
            let stream = Pin::new(&mut self.stream);
            let Poll::Ready(written) = stream.poll_write_vectored(cx, &slices) else {
                break;
            };
            let mut written = written?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            for part in unsent.iter_mut() {
                let taken = written.min(part.len());
                *part = &part[taken..];
                written -= taken;
            }
        }
        match Pin::new(&mut self.stream).poll_flush(cx) {
            Poll::Ready(Err(error)) => Err(error),
            _ => Ok(()),
        }
    }

    /// Reads into what is free of the buffer, of which there always is something after a digestion.
    fn read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut free = ReadBuf::new(&mut self.buffer[self.filled..]);
        let read = Pin::new(&mut self.stream).poll_read(cx, &mut free);
        let bytes = free.filled().len();
        self.filled += bytes;
        read.map_ok(|()| bytes)
    }

    /// Takes what has come. True when the answer is whole.
    fn digest(
        &mut self,
        part: &mut Part,
        known: &mut Known,
        sink: &mut Sink<'_>,
        is_head: bool,
    ) -> Result<bool, Malformed> {
        while matches!(part, Part::Head) {
            if self.filled == 0 {
                return Ok(false);
            }
            let Some(head) = parse(&self.buffer[..self.filled], is_head)? else {
                if self.filled == self.buffer.len() {
                    if self.filled == LARGEST {
                        return Err(Malformed);
                    }
                    self.buffer.resize(LARGEST, 0);
                }
                return Ok(false);
            };
            // Others announce it (RFC 9110, section 15.2); after a change of protocols none follows.
            if !(100..200).contains(&head.known.status) || head.known.status == 101 {
                if let Some(listener) = sink.listener() {
                    let bytes = &self.buffer[..head.bytes];
                    listener.head(head.known.status, &content_type(bytes));
                }
                let is_last = known.is_last || head.known.is_last;
                *known = Known {
                    is_last,
                    ..head.known
                };
                *part = head.part;
            }
            self.take(head.bytes);
        }
        let is_full = self.filled == self.buffer.len();
        let is_whole = match part {
            Part::Head => false,
            Part::Rest => {
                sink.take(&self.buffer[..self.filled]);
                known.body_bytes += self.filled as u64;
                self.filled = 0;
                false
            }
            Part::Sized(left) => {
                let taken = usize::try_from(*left)
                    .unwrap_or(usize::MAX)
                    .min(self.filled);
                sink.take(&self.buffer[..taken]);
                self.take(taken);
                known.body_bytes += taken as u64;
                *left -= taken as u64;
                *left == 0
            }
            Part::Chunked(chunks) => {
                let eaten = chunks.eat(&self.buffer[..self.filled], |bytes| sink.take(bytes))?;
                self.take(eaten.bytes);
                known.body_bytes += eaten.data;
                eaten.is_end
            }
        };
        if is_full && !is_whole && self.buffer.len() < LARGEST {
            self.buffer.resize(LARGEST, 0);
        }
        Ok(is_whole)
    }

    /// Takes so many bytes from the beginning of the buffer.
    fn take(&mut self, bytes: usize) {
        self.buffer.copy_within(bytes..self.filled, 0);
        self.filled -= bytes;
    }
}

/// What an exchange has come to that is not over at its deadline.
fn late(part: &Part) -> Result<BodyEnd, Failure> {
    match part {
        Part::Head => Err(Failure::Timeout),
        _ => Ok(BodyEnd::TimedOut),
    }
}

/// The head at the beginning of `bytes`, if it is whole.
fn parse(bytes: &[u8], is_head: bool) -> Result<Option<Head>, Malformed> {
    // Most answers have few of them: the rest is not written to.
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS];
    let mut response = httparse::Response::new(&mut []);
    let parser = httparse::ParserConfig::default();
    let parsed = parser.parse_response_with_uninit_headers(&mut response, bytes, &mut fields);
    let size = match parsed {
        Ok(httparse::Status::Complete(size)) => size,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(Malformed),
    };
    let (Some(status), Some(version)) = (response.code, response.version) else {
        return Err(Malformed);
    };
    let mut known = Known {
        status,
        is_last: version == 0,
        ..Known::default()
    };
    let (mut length, mut is_coded, mut is_chunked) = (None, false, false);
    for field in response.headers.iter() {
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        if is("content-length") {
            let value = std::str::from_utf8(field.value).map_err(|_| Malformed)?;
            let value = value.trim();
            // Not what Rust takes for a number: a sign, for one.
            if value.is_empty() || !value.bytes().all(|b| b.is_ascii_digit()) {
                return Err(Malformed);
            }
            let value: u64 = value.parse().map_err(|_| Malformed)?;
            if length.is_some_and(|length| length != value) {
                return Err(Malformed);
            }
            length = Some(value);
        } else if is("transfer-encoding") {
            is_chunked = last(field.value).eq_ignore_ascii_case(b"chunked");
            is_coded = true;
        } else if is("connection") {
            for token in field.value.split(|b| *b == b',').map(<[u8]>::trim_ascii) {
                if token.eq_ignore_ascii_case(b"close") {
                    known.is_last = true;
                } else if version == 0 && token.eq_ignore_ascii_case(b"keep-alive") {
                    known.is_last = false;
                }
            }
        } else if is(SERVED_BY) {
            known.served_by = std::str::from_utf8(field.value).ok().map(str::to_owned);
        }
    }
    let has_none = is_head || status == 204 || status == 304 || (100..200).contains(&status);
    known.is_last |= status == 101;
    let part = match (has_none, is_chunked, length) {
        (true, ..) => Part::Sized(0),
        (false, true, _) => Part::Chunked(Chunks::default()),
        // A coding whose end is not told, or nothing at all: to the end of the connection.
        (false, false, Some(length)) if !is_coded => Part::Sized(length),
        (false, false, _) => {
            known.is_last = true;
            Part::Rest
        }
    };
    Ok(Some(Head {
        bytes: size,
        known,
        part,
    }))
}

/// What a body is, of a head that was parsed before. Only streams ask.
fn content_type(head: &[u8]) -> Vec<u8> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    let _parsed = response.parse(head);
    let mut fields = response.headers.iter();
    let found = fields.find(|field| field.name.eq_ignore_ascii_case("content-type"));
    found.map_or_else(Vec::new, |field| field.value.to_vec())
}

fn last(list: &[u8]) -> &[u8] {
    let parts = list.rsplit(|b| *b == b',').next();
    parts.unwrap_or_default().trim_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(head: &str, is_head: bool) -> Result<Option<(u16, String, bool)>, Malformed> {
        let head = parse(head.as_bytes(), is_head)?;
        Ok(head.map(|head| {
            let part = match head.part {
                Part::Head => "head".to_owned(),
                Part::Sized(length) => length.to_string(),
                Part::Chunked(_) => "chunked".to_owned(),
                Part::Rest => "rest".to_owned(),
            };
            (head.known.status, part, head.known.is_last)
        }))
    }

    #[test]
    fn the_head_says_how_the_body_ends_and_whether_another_may_follow() {
        for (head, part, is_last) in [
            ("1.1 200 OK\r\nContent-Length: 5", "5", false),
            (
                "1.1 200 OK\r\nContent-Length: 5\r\ncontent-length: 5",
                "5",
                false,
            ),
            (
                "1.1 200 OK\r\nConnection: close\r\nContent-Length: 5",
                "5",
                true,
            ),
            (
                "1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 5",
                "5",
                true,
            ),
            ("1.0 200 OK\r\nContent-Length: 5", "5", true),
            (
                "1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5",
                "5",
                false,
            ),
            (
                "1.1 200 OK\r\nTransfer-Encoding: gzip, Chunked",
                "chunked",
                false,
            ),
            (
                "1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked",
                "chunked",
                false,
            ),
            ("1.1 200 OK\r\nTransfer-Encoding: gzip", "rest", true),
            (
                "1.1 200 OK\r\nTransfer-Encoding: gzip\r\nContent-Length: 5",
                "rest",
                true,
            ),
            ("1.1 200", "rest", true),
            ("1.1 204 No Content", "0", false),
            ("1.1 304 Not Modified\r\nContent-Length: 5", "0", false),
            ("1.1 101 Switching Protocols", "0", true),
        ] {
            let text = format!("HTTP/{head}\r\n\r\n");
            let (_, got, last) = read(&text, false).unwrap().expect(head);
            assert_eq!((got.as_str(), last), (part, is_last), "{head}");
            for end in 0..text.len() {
                assert_eq!(read(&text[..end], false), Ok(None), "{head}: {end}");
            }
        }
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n";
        assert_eq!(read(head, true), Ok(Some((200, "0".to_owned(), false))));
        for head in [
            "HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\n",
            "HTTP/2 200 OK\r\n\r\n",
            "SSH-2.0-server\r\n\r\n",
        ] {
            assert_eq!(read(head, false), Err(Malformed), "{head}");
        }
    }
}
