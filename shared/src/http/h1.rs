//! A strict reader of the HTTP/1 byte stream, in front of hyper.
//!
//! hyper is lenient where a proxy must not be: it drops a Content-Length beside a Transfer-Encoding without a word,
//! takes bare LF as a line end and waits for ever for a first byte. [`Scanner`] looks at every byte before hyper
//! does: it lets whole, strictly valid heads pass, follows the framing of bodies so that it knows where the next head
//! starts, and refuses everything else with the status that belongs to it. It only ever accepts less than hyper; if the
//! two should disagree on framing, the scanner meets bytes that are no head and the connection ends, which is safe.
//!
//! Pure: bytes in, verdict out. Sources: RFC 9110 sections 5 and 7, RFC 9112 sections 2 to 7.

mod chunked;
mod grammar;
mod head;

use bytes::{Buf, BytesMut};

use self::chunked::Chunked;
pub(crate) use self::grammar::is_authority;
pub use self::head::{Framing, Head, Limits, Refusal};

/// What the scanner made of the bytes it has.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// This many bytes at the front may be passed on.
    Pass(usize),
    /// More bytes are needed.
    More,
    /// The message is refused; nothing of it may be passed on and nothing after it will be read.
    Refuse(Refusal),
}

/// Where in the stream of messages the scanner is.
#[derive(Debug)]
enum State {
    /// Before or inside a head.
    Head { scanned: usize, blank_lines: u8 },
    /// Inside a body of known length.
    Fixed(u64),
    /// Inside a chunked body.
    Chunked(Chunked),
}

/// Follows one connection's requests.
#[derive(Debug)]
pub struct Scanner {
    limits: Limits,
    state: State,
    upgrade: bool,
}

impl Scanner {
    /// A scanner at the start of a connection.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: START,
            upgrade: false,
        }
    }

    /// Whether the last head has an `Upgrade` field: what follows it may be of another protocol.
    pub fn asks_for_upgrade(&self) -> bool {
        self.upgrade
    }

    /// Whether the last message is complete and no byte of a next one was seen.
    pub fn between_messages(&self, pending: usize) -> bool {
        pending == 0 && matches!(self.state, State::Head { .. })
    }

    /// Whether a head has been begun and is not complete.
    pub fn in_head(&self, pending: usize) -> bool {
        pending > 0 && matches!(self.state, State::Head { .. })
    }

    /// Looks at the unread bytes. `Pass(n)` consumes `n` of them: the caller splits them off and calls again.
    ///
    /// Blank lines before a request line (RFC 9112 section 2.2) are removed from `bytes`, at most two of them.
    pub fn scan(&mut self, bytes: &mut BytesMut) -> Verdict {
        match &mut self.state {
            State::Head { .. } => self.scan_head(bytes),
            State::Fixed(left) => {
                if bytes.is_empty() {
                    return Verdict::More;
                }
                let take = usize::try_from(*left)
                    .unwrap_or(usize::MAX)
                    .min(bytes.len());
                *left -= take as u64;
                if *left == 0 {
                    self.state = START;
                }
                Verdict::Pass(take)
            }
            State::Chunked(chunked) => {
                if bytes.is_empty() {
                    return Verdict::More;
                }
                match chunked.scan(bytes, &self.limits) {
                    Ok((taken, done)) => {
                        if done {
                            self.state = START;
                        }
                        Verdict::Pass(taken)
                    }
                    Err(refusal) => Verdict::Refuse(refusal),
                }
            }
        }
    }

    fn scan_head(&mut self, bytes: &mut BytesMut) -> Verdict {
        let State::Head {
            scanned,
            blank_lines,
        } = &mut self.state
        else {
            return Verdict::More;
        };
        while bytes.starts_with(b"\r\n") {
            *blank_lines += 1;
            if *blank_lines > 2 {
                return Verdict::Refuse(Refusal::bad("blank lines before the request line"));
            }
            bytes.advance(2);
            *scanned = 0;
        }
        if bytes.is_empty() {
            return Verdict::More;
        }
        // Three bytes back: the end of the head may straddle two reads.
        let from = scanned.saturating_sub(3);
        let end = find(&bytes[from..], b"\r\n\r\n").map(|at| from + at + 4);
        let seen = end.unwrap_or(bytes.len());
        if seen > self.limits.head_bytes {
            // As if the bytes had come one by one: what is wrong before the limit is reached comes first.
            let most = &bytes[..self.limits.head_bytes];
            if let Err(refusal) = head::check_prefix(most, &self.limits) {
                return Verdict::Refuse(refusal);
            }
            return Verdict::Refuse(if find(most, b"\r\n").is_some() {
                Refusal::HEAD_TOO_LARGE
            } else {
                Refusal::LINE_TOO_LONG
            });
        }
        let Some(end) = end else {
            // Refuse early what can never become a head: it must not be possible to wait out the timeout with garbage.
            if let Err(refusal) = head::check_prefix(bytes, &self.limits) {
                return Verdict::Refuse(refusal);
            }
            *scanned = bytes.len();
            return Verdict::More;
        };
        match Head::parse(&bytes[..end], &self.limits) {
            Ok(head) => {
                self.upgrade = head.upgrade;
                self.state = match head.framing {
                    Framing::None | Framing::Length(0) => START,
                    Framing::Length(n) => State::Fixed(n),
                    Framing::Chunked => State::Chunked(Chunked::default()),
                };
                Verdict::Pass(end)
            }
            Err(refusal) => Verdict::Refuse(refusal),
        }
    }
}

const START: State = State::Head {
    scanned: 0,
    blank_lines: 0,
};

/// First position of `needle` in `bytes`.
fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|w| w == needle)
}

#[cfg(test)]
mod tests;
