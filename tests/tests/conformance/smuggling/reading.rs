//! What our strict reader makes of a connection's bytes.

use bytes::{Buf as _, BytesMut};
use shared::http::h1::{Limits, Refusal, Scanner, Verdict};

use super::upstream::Seen;

/// The whole requests of a connection, and what comes after the last of them.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) requests: Vec<Seen>,
    pub(super) end: End,
}

/// What follows the last whole request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Nothing.
    Clean,
    /// A head that is not complete.
    InHead,
    /// A body that is not complete.
    InBody,
    /// A head that is refused.
    Refused(Refusal),
    /// A body that is refused, after its head was let through.
    BodyRefused,
}

/// Reads all of `bytes`.
pub(super) fn read(bytes: &[u8]) -> Reading {
    let mut scanner = Scanner::new(Limits::default());
    let mut left = BytesMut::from(bytes);
    let mut requests = Vec::new();
    let mut open: Option<(Seen, bool)> = None;
    let end = loop {
        // A blank line that is skipped is no head.
        let verdict = scanner.scan(&mut left);
        match verdict {
            Verdict::Pass(n) => {
                let taken = left.split_to(n);
                match &mut open {
                    Some((seen, _)) => seen.body.extend_from_slice(&taken),
                    None => open = Some(head(&taken)),
                }
                if scanner.between_messages(0) {
                    let (mut seen, chunked) = open.take().expect("a message was begun");
                    if chunked {
                        seen.body = unchunk(&seen.body);
                    }
                    requests.push(seen);
                }
            }
            Verdict::More if open.is_some() => break End::InBody,
            Verdict::More if left.is_empty() => break End::Clean,
            Verdict::More => break End::InHead,
            Verdict::Refuse(_) if open.is_some() => break End::BodyRefused,
            Verdict::Refuse(refusal) => break End::Refused(refusal),
        }
    };
    Reading { requests, end }
}

/// The request line of a head that was let through, as it goes on, and whether its body is chunked.
fn head(head: &[u8]) -> (Seen, bool) {
    let text = String::from_utf8_lossy(head).into_owned();
    let mut words = text.split(' ');
    let method = words.next().expect("a method").to_owned();
    let target = words.next().expect("a target");
    let chunked = text.to_ascii_lowercase().contains("\r\ntransfer-encoding:");
    let seen = Seen {
        method,
        target: origin_form(target),
        body: Vec::new(),
    };
    (seen, chunked)
}

/// A target without scheme and authority, which both are said elsewhere, and without fragment, which is nobody's business.
fn origin_form(target: &str) -> String {
    let target = target.split('#').next().unwrap_or_default();
    let Some(rest) = target
        .get(..7)
        .filter(|scheme| scheme.eq_ignore_ascii_case("http://"))
        .map(|_| &target[7..])
    else {
        return target.to_owned();
    };
    match rest.find(['/', '?']) {
        Some(at) if rest[at..].starts_with('?') => format!("/{}", &rest[at..]),
        Some(at) => rest[at..].to_owned(),
        None => "/".to_owned(),
    }
}

/// The data of a chunked body that was let through.
fn unchunk(mut raw: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let digits = raw.iter().take_while(|b| b.is_ascii_hexdigit()).count();
        let size = std::str::from_utf8(&raw[..digits]).expect("digits");
        let size = usize::from_str_radix(size, 16).expect("a size that fits");
        let line = raw.windows(2).position(|w| w == b"\r\n").expect("a line");
        raw.advance(line + 2);
        if size == 0 {
            return body;
        }
        body.extend_from_slice(&raw[..size]);
        raw.advance(size + 2);
    }
}

#[test]
fn a_reading_has_the_bodies_and_says_what_follows() {
    let stream = "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n02\r\nde\r\n0\r\nT: u\r\n\r\n\
        GET http://a?q HTTP/1.1\r\nHost: a\r\n\r\n";
    let reading = read(stream.as_bytes());
    let seen = |method: &str, target: &str, body: &str| Seen {
        method: method.to_owned(),
        target: target.to_owned(),
        body: body.into(),
    };
    assert_eq!(
        reading.requests,
        [seen("POST", "/x", "abcde"), seen("GET", "/?q", "")]
    );
    assert_eq!(reading.end, End::Clean);
    let cut = |at: usize| read(&stream.as_bytes()[..at]);
    assert_eq!(cut(65).end, End::InBody);
    assert_eq!(cut(20).end, End::InHead);
    assert!(matches!(read(b"GET / HTTP/1.1\n").end, End::Refused(_)));
}
