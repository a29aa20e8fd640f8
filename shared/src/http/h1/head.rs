//! One request head: the strict grammar and the framing it declares.

use http::Uri;

use super::{
    find,
    grammar::{is_authority, is_target, is_text, is_token, is_version},
};

/// How large heads may be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of the request line without its line end. More is 414.
    pub line_bytes: usize,
    /// Bytes of the whole head, blank line included. More is 431. Also the limit of trailers.
    pub head_bytes: usize,
    /// Header fields. More is 431. Also the limit of trailer fields.
    pub fields: usize,
}

impl Default for Limits {
    /// 8 KiB for the line (RFC 9112 section 3 asks for at least 8,000 octets), 16 KiB and 100 fields for the head, as
    /// most servers in front of which Rouse stands allow.
    fn default() -> Self {
        Self {
            line_bytes: 8 * 1024,
            head_bytes: 16 * 1024,
            fields: 100,
        }
    }
}

/// Why a message is not let through: the status to answer and a fixed text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Status code of the answer.
    pub status: u16,
    /// What is wrong, without quoting any of the client's bytes.
    pub reason: &'static str,
}

impl Refusal {
    /// The head is larger than allowed.
    pub const HEAD_TOO_LARGE: Self = Self::new(431, "request header fields too large");
    /// The request line is longer than allowed.
    pub const LINE_TOO_LONG: Self = Self::new(414, "request line too long");
    /// The head did not arrive in time.
    pub const TIMEOUT: Self = Self::new(408, "request head not received in time");

    /// A refusal with any status.
    pub const fn new(status: u16, reason: &'static str) -> Self {
        Self { status, reason }
    }

    /// A malformed message: 400.
    pub const fn bad(reason: &'static str) -> Self {
        Self::new(400, reason)
    }
}

/// How the body after a head is delimited (RFC 9112 section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// No body.
    None,
    /// Content-Length.
    Length(u64),
    /// Transfer-Encoding: chunked.
    Chunked,
}

/// What the scanner needs to know of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Framing of the body that follows.
    pub framing: Framing,
    /// Whether there is an `Upgrade` field.
    pub upgrade: bool,
}

/// Refuses what no further byte can turn into a valid head: a line that is too long, or wrong characters in what was seen so
/// far. The first fault counts, so that it does not matter in which pieces the bytes came.
pub(super) fn check_prefix(bytes: &[u8], limits: &Limits) -> Result<(), Refusal> {
    let mut previous = 0;
    let mut in_request_line = true;
    for (at, &byte) in bytes.iter().enumerate() {
        if previous == b'\r' && byte != b'\n' {
            return Err(Refusal::bad("bare CR"));
        }
        match byte {
            b'\n' if previous != b'\r' => return Err(Refusal::bad("bare LF")),
            b'\n' => in_request_line = false,
            // The line end itself does not count, and may have come without its second half.
            b'\r' if at <= limits.line_bytes => {}
            _ if in_request_line && at >= limits.line_bytes => return Err(Refusal::LINE_TOO_LONG),
            b'\r' => {}
            _ if is_text(byte) => {}
            _ => return Err(Refusal::bad("character not allowed in a head")),
        }
        previous = byte;
    }
    Ok(())
}

impl Head {
    /// Parses a whole head, the blank line at its end included.
    pub(super) fn parse(bytes: &[u8], limits: &Limits) -> Result<Self, Refusal> {
        check_prefix(bytes, limits)?;
        let text = &bytes[..bytes.len() - 4];
        let (line, fields) = match find(text, b"\r\n") {
            Some(at) => (&text[..at], &text[at + 2..]),
            None => (text, &[][..]),
        };
        let line = RequestLine::parse(line)?;
        let mut seen = Seen::default();
        let mut count = 0;
        let mut rest = fields;
        while !rest.is_empty() {
            let (field, next) = match find(rest, b"\r\n") {
                Some(at) => (&rest[..at], &rest[at + 2..]),
                None => (rest, &[][..]),
            };
            rest = next;
            count += 1;
            if count > limits.fields {
                return Err(Refusal::new(431, "too many header fields"));
            }
            let (name, value) = split_field(field)?;
            seen.field(name, value)?;
        }
        seen.conclude(&line)
    }
}

/// The parts of a request line that decide whether it is acceptable.
struct RequestLine<'a> {
    target: &'a [u8],
    http_10: bool,
}

impl<'a> RequestLine<'a> {
    fn parse(line: &'a [u8]) -> Result<Self, Refusal> {
        let mut parts = line.split(|b| *b == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Refusal::bad("malformed request line"));
        };
        if method.is_empty() || !method.iter().copied().all(is_token) {
            return Err(Refusal::bad("malformed method"));
        }
        let http_10 = match version {
            b"HTTP/1.1" => false,
            b"HTTP/1.0" => true,
            _ if is_version(version) => {
                return Err(Refusal::new(505, "HTTP version not supported"));
            }
            _ => return Err(Refusal::bad("malformed HTTP version")),
        };
        if !is_target(target) {
            return Err(Refusal::bad("malformed request target"));
        }
        match method {
            // A proxy to one workload opens no tunnels, and echoing requests back helps only attackers.
            b"CONNECT" | b"TRACE" => return Err(Refusal::new(405, "method not allowed")),
            _ if target == b"*" => return Err(Refusal::bad("request target not allowed")),
            _ => {}
        }
        Ok(Self { target, http_10 })
    }

    /// The authority of an absolute-form target (RFC 9112 section 3.2.2), which must equal Host.
    fn authority(&self) -> Result<Option<&'a [u8]>, Refusal> {
        if self.target.starts_with(b"/") {
            return Ok(None);
        }
        let scheme = self
            .target
            .get(..7)
            .filter(|s| s.eq_ignore_ascii_case(b"http://"));
        if scheme.is_none() {
            return Err(Refusal::bad("malformed request target"));
        }
        // hyper reads it once more, and must find what is found here.
        if Uri::try_from(self.target).is_err() {
            return Err(Refusal::bad("malformed request target"));
        }
        let rest = &self.target[7..];
        let end = rest
            .iter()
            .position(|b| matches!(b, b'/' | b'?' | b'#'))
            .unwrap_or(rest.len());
        Ok(Some(&rest[..end]))
    }
}

/// What the fields seen so far say about framing and authority.
#[derive(Default)]
struct Seen<'a> {
    host: Option<&'a [u8]>,
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
}

impl<'a> Seen<'a> {
    fn field(&mut self, name: &[u8], value: &'a [u8]) -> Result<(), Refusal> {
        if name.eq_ignore_ascii_case(b"content-length") {
            let length = parse_length(value).ok_or(Refusal::bad("malformed Content-Length"))?;
            if self.length.replace(length).is_some() {
                return Err(Refusal::bad("more than one Content-Length"));
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            // Exactly "chunked", once: anything that another reader might read differently is refused.
            if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Refusal::bad("Transfer-Encoding other than exactly chunked"));
            }
            self.chunked = true;
        } else if name.eq_ignore_ascii_case(b"host") {
            if self.host.replace(value).is_some() {
                return Err(Refusal::bad("more than one Host"));
            }
            if !is_authority(value) {
                return Err(Refusal::bad("malformed Host"));
            }
        } else if name.eq_ignore_ascii_case(b"upgrade") {
            self.upgrade = true;
        } else if name.eq_ignore_ascii_case(b"expect")
            && !value.eq_ignore_ascii_case(b"100-continue")
        {
            return Err(Refusal::new(417, "expectation not supported"));
        }
        Ok(())
    }

    fn conclude(&self, line: &RequestLine<'_>) -> Result<Head, Refusal> {
        if self.host.is_none() && !line.http_10 {
            return Err(Refusal::bad("no Host"));
        }
        if let Some(authority) = line.authority()? {
            let host = self.host.unwrap_or_default();
            if !is_authority(authority) || !authority.eq_ignore_ascii_case(host) {
                return Err(Refusal::bad("authority differs from Host"));
            }
        }
        let framing = match (self.length, self.chunked) {
            (Some(_), true) => {
                return Err(Refusal::bad("both Content-Length and Transfer-Encoding"));
            }
            (None, true) if line.http_10 => {
                return Err(Refusal::bad("Transfer-Encoding in HTTP/1.0"));
            }
            (None, true) => Framing::Chunked,
            (Some(n), false) => Framing::Length(n),
            (None, false) => Framing::None,
        };
        let upgrade = self.upgrade;
        Ok(Head { framing, upgrade })
    }
}

/// Splits `name: value` and trims the spaces (not tabs) before the value; everything else must be exact.
pub(super) fn split_field(field: &[u8]) -> Result<(&[u8], &[u8]), Refusal> {
    if matches!(field.first(), Some(b' ' | b'\t')) {
        return Err(Refusal::bad("folded header line"));
    }
    let colon = field
        .iter()
        .position(|b| *b == b':')
        .ok_or(Refusal::bad("header line without a colon"))?;
    let (name, value) = (&field[..colon], &field[colon + 1..]);
    if name.is_empty() || !name.iter().copied().all(is_token) {
        return Err(Refusal::bad("malformed header name"));
    }
    let start = value.iter().position(|b| *b != b' ').unwrap_or(value.len());
    Ok((name, &value[start..]))
}

/// Digits only, at most 19 of them, so that it always fits.
fn parse_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}
