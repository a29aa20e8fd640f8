//! The strict reader on any bytes: however they are cut it says the same, and what it lets pass is read by httparse and by
//! hyper as exactly the messages that it saw.

use std::{
    convert::Infallible,
    pin::pin,
    sync::Arc,
    task::{Context, Waker},
};

use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Collected, Empty};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use shared::http::h1::{Limits, Refusal, Scanner, Verdict};

/// What requests are made of, and what breaks them.
pub(crate) const PIECES: &[&[u8]] = &[
    b"GET / HTTP/1.1\r\n",
    b"POST /x?y HTTP/1.1\r\n",
    b"GET / HTTP/1.0\r\n",
    b"GET http://a/ HTTP/1.1\r\n",
    b"HEAD /<>`^|\\\"{} HTTP/1.1\r\n",
    b"Host: a\r\n",
    b"Content-Length: 3\r\n",
    b"Content-Length: 0\r\n",
    b"Content-Length: 18446744073709551615\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n",
    b"Connection: close\r\n",
    b"Connection: keep-alive\r\n",
    b"Upgrade: websocket\r\n",
    b"Expect: 100-continue\r\n",
    b"X: y\r\n",
    b"\r\n",
    b"\r\n",
    b"\r\n",
    b"abc",
    b"3\r\nabc\r\n",
    b"3;e=f\r\nabc\r\n",
    b"0\r\n",
    b"0\r\nT: u\r\n\r\n",
    b"0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\t",
    b":",
];

/// What chunks are made of, and what breaks them.
pub(crate) const CHUNKS: &[&[u8]] = &[
    b"0",
    b"1",
    b"5",
    b"a",
    b"F",
    b"fffffffffffffff",
    b"\r\n",
    b"\r\n",
    b"\r\n",
    b"\n",
    b"\r",
    b";",
    b"e=f",
    b"\"",
    b" ",
    b"\t",
    b"x",
    b"hello",
    b"5\r\nhello\r\n",
    b"1;e\r\nx\r\n",
    b"0\r\n\r\n",
    b"T: u\r\n",
    b": ",
    b"\0",
    b"\xff",
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
];

/// Bytes of one input that are looked at: the cut into single bytes reads each head once for every byte of it.
const MOST: usize = 8 * 1024;

/// Small enough that a short input meets them.
const SMALL: Limits = Limits {
    line_bytes: 24,
    head_bytes: 96,
    fields: 3,
};

/// A message that was let pass, perhaps not to its end.
#[derive(Debug, Default, PartialEq, Eq)]
struct Message {
    head: Vec<u8>,
    body: Vec<u8>,
    whole: bool,
}

/// What the reader made of all bytes.
#[derive(Debug)]
struct Seen {
    messages: Vec<Message>,
    refusal: Option<Refusal>,
    upgrade: bool,
    /// Bytes of a head that is not complete.
    pending: usize,
}

/// Reads `stream` in pieces of the sizes that `cut` gives.
fn read(stream: &[u8], limits: Limits, mut cut: impl FnMut() -> usize) -> Seen {
    let mut scanner = Scanner::new(limits);
    let mut seen = Seen {
        messages: Vec::new(),
        refusal: None,
        upgrade: false,
        pending: 0,
    };
    let mut bytes = BytesMut::new();
    let mut rest = stream;
    loop {
        let is_head = scanner.in_head(bytes.len());
        match scanner.scan(&mut bytes) {
            Verdict::Pass(n) => {
                assert!(n > 0 && n <= bytes.len(), "passes what is there");
                let passed = bytes.split_to(n);
                if is_head {
                    seen.messages.push(Message {
                        head: passed.to_vec(),
                        ..Message::default()
                    });
                    seen.upgrade = scanner.asks_for_upgrade();
                } else {
                    let message = seen.messages.last_mut().expect("a body has a head");
                    message.body.extend_from_slice(&passed);
                }
                let message = seen.messages.last_mut().expect("there is one");
                message.whole = scanner.between_messages(0);
            }
            Verdict::Refuse(refusal) => {
                assert!((400..600).contains(&refusal.status), "{refusal:?}");
                seen.refusal = Some(refusal);
                return seen;
            }
            Verdict::More if rest.is_empty() => {
                seen.pending = bytes.len();
                return seen;
            }
            Verdict::More => {
                let (now, later) = rest.split_at(cut().clamp(1, rest.len()));
                bytes.extend_from_slice(now);
                rest = later;
            }
        }
    }
}

/// Whether it does not matter which of the two cuts it was.
fn assert_same(one: &Seen, other: &Seen) {
    assert_eq!(one.refusal, other.refusal, "{one:?}\n{other:?}");
    assert_eq!(one.messages.len(), other.messages.len());
    assert_eq!((one.upgrade, one.pending), (other.upgrade, other.pending));
    for (a, b) in one.messages.iter().zip(&other.messages) {
        assert_eq!((&a.head, a.whole), (&b.head, b.whole));
        if one.refusal.is_none() || a.whole {
            assert_eq!(a.body, b.body);
        } else {
            // Of a body that turns out malformed as much has gone on as had come before.
            let common = a.body.len().min(b.body.len());
            assert_eq!(a.body[..common], b.body[..common]);
        }
    }
}

/// Four bytes choose limits and cuts, the others are what a client sends.
///
/// # Panics
/// If anything does not hold.
pub(crate) fn check(bytes: &[u8]) {
    let Some((seed, stream)) = bytes.split_first_chunk::<4>() else {
        return;
    };
    let stream = &stream[..stream.len().min(MOST)];
    let limits = if seed[0].is_multiple_of(2) {
        Limits::default()
    } else {
        SMALL
    };
    let whole = read(stream, limits, || usize::MAX);
    assert_same(&whole, &read(stream, limits, || 1));
    let mut random = u32::from_le_bytes(*seed) | 1;
    let cut = || {
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        (random % 40) as usize
    };
    assert_same(&whole, &read(stream, limits, cut));
    for message in &whole.messages {
        beside_httparse(message);
    }
    beside_hyper(&whole.messages);
}

/// The same with bytes that stand in a chunked body from the first one after the seed.
///
/// # Panics
/// If anything does not hold.
pub(crate) fn check_chunked(bytes: &[u8]) {
    const HEAD: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    if let Some((seed, body)) = bytes.split_first_chunk::<4>() {
        // The head is within the small limits too.
        check(&[seed, HEAD, body].concat());
    }
}

/// The head as httparse reads it. Returns the method, the target, and whether the connection may end after it.
fn parse(head: &[u8]) -> (String, String, bool) {
    let mut fields = [httparse::EMPTY_HEADER; 128];
    let mut request = httparse::Request::new(&mut fields);
    let parsed = request.parse(head);
    assert_eq!(
        parsed,
        Ok(httparse::Status::Complete(head.len())),
        "{head:?}"
    );
    let closes = request.version == Some(0)
        || request.headers.iter().any(|field| {
            let value = field.value.to_ascii_lowercase();
            field.name.eq_ignore_ascii_case("connection")
                && value.windows(5).any(|part| part == b"close")
        });
    let text = |part: Option<&str>| part.unwrap_or_default().to_owned();
    (text(request.method), text(request.path), closes)
}

/// The framing that httparse's reading of the head means, which is the one that was followed.
fn beside_httparse(message: &Message) {
    let mut fields = [httparse::EMPTY_HEADER; 128];
    let mut request = httparse::Request::new(&mut fields);
    assert!(request.parse(&message.head).is_ok(), "{message:?}");
    let values = |name: &str| -> Vec<&[u8]> {
        let of = |field: &&httparse::Header<'_>| field.name.eq_ignore_ascii_case(name);
        request.headers.iter().filter(of).map(|f| f.value).collect()
    };
    let (lengths, codings) = (values("content-length"), values("transfer-encoding"));
    match (lengths.as_slice(), codings.as_slice()) {
        ([], []) => assert!(message.body.is_empty() && message.whole, "{message:?}"),
        ([length], []) => {
            let length: u64 = std::str::from_utf8(length).unwrap().parse().unwrap();
            let came = message.body.len() as u64;
            assert!(came <= length, "{message:?}");
            assert_eq!(message.whole, came == length, "{message:?}");
        }
        ([], [coding]) => {
            assert!(coding.eq_ignore_ascii_case(b"chunked"), "{message:?}");
            assert_eq!(
                unchunk(&message.body).is_some(),
                message.whole,
                "{message:?}"
            );
        }
        _ => panic!("framed twice: {message:?}"),
    }
}

/// The data of a chunked body, if it ends with the bytes.
fn unchunk(mut body: &[u8]) -> Option<Vec<u8>> {
    let mut data = Vec::new();
    loop {
        let httparse::Status::Complete((at, size)) = httparse::parse_chunk_size(body).ok()? else {
            return None;
        };
        body = &body[at..];
        if size == 0 {
            let mut trailers = [httparse::EMPTY_HEADER; 128];
            let end = httparse::parse_headers(body, &mut trailers).ok()?;
            return (end.is_complete() && end.unwrap().0 == body.len()).then_some(data);
        }
        let size = usize::try_from(size).ok()?;
        data.extend_from_slice(body.get(..size)?);
        body = body[size..].strip_prefix(b"\r\n")?;
    }
}

/// What a server read.
type Requests = Arc<Mutex<Vec<(Request<()>, Option<Bytes>)>>>;

/// hyper reads the same messages from what was let pass, and refuses none.
fn beside_hyper(messages: &[Message]) {
    let stream: Vec<u8> = messages
        .iter()
        .flat_map(|message| message.head.iter().chain(&message.body).copied())
        .collect();
    let requests = Requests::default();
    let service = service_fn(|request: Request<Incoming>| {
        let requests = Arc::clone(&requests);
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.ok().map(Collected::to_bytes);
            let request = Request::from_parts(parts, ());
            requests.lock().push((request, body));
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let mut written = Vec::new();
    let io = TokioIo::new(tokio::io::join(&stream[..], &mut written));
    let connection = http1::Builder::new()
        .half_close(true)
        .serve_connection(io, service);
    let mut connection = pin!(connection);
    let mut cx = Context::from_waker(Waker::noop());
    let mut polls = 0;
    while connection.as_mut().poll(&mut cx).is_pending() {
        polls += 1; // now and then it yields
        assert!(polls < 100_000, "hyper waits for something");
    }
    let requests = requests.lock();
    for (n, message) in messages.iter().enumerate() {
        let (method, target, closes) = parse(&message.head);
        let Some((request, body)) = requests.get(n) else {
            panic!(
                "hyper does not take what was let pass: {message:?}, it says {:?}",
                String::from_utf8_lossy(&written)
            );
        };
        assert_eq!(request.method().as_str(), method);
        if target.starts_with('/') && !target.contains('#') {
            assert_eq!(request.uri().to_string(), target);
        }
        if !message.whole {
            assert_eq!(*body, None, "{message:?}");
        } else if message.body.is_empty() {
            assert_eq!(body.as_deref(), Some(&[][..]), "{message:?}");
        } else {
            let data = unchunk(&message.body).filter(|_| is_chunked(&message.head));
            let data = data.unwrap_or_else(|| message.body.clone());
            assert_eq!(body.as_deref(), Some(&data[..]), "{message:?}");
        }
        if closes {
            return;
        }
    }
    assert_eq!(requests.len(), messages.len());
}

fn is_chunked(head: &[u8]) -> bool {
    let mut fields = [httparse::EMPTY_HEADER; 128];
    let mut request = httparse::Request::new(&mut fields);
    let _parsed_before = request.parse(head);
    let is = |field: &httparse::Header<'_>| field.name.eq_ignore_ascii_case("transfer-encoding");
    request.headers.iter().any(is)
}
