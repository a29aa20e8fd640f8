//! The head of an answer: strict where another reader could take it for something else.

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::{
    HeaderName, HeaderValue, Method, Response, StatusCode, Version,
    header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING},
};
use hyper::ext::ReasonPhrase;

use super::{Broken, coding::Coding, request::length};

/// Most header fields of an answer; also of its trailers.
pub(super) const FIELDS: usize = 100;

/// A head that was read.
#[derive(Debug)]
pub(super) struct Answer {
    /// Status, fields.
    pub(super) head: Response<()>,
    /// What follows.
    pub(super) coding: Coding,
    /// Whether the connection may be used again after it.
    pub(super) keeps: bool,
}

/// Where a field's name and value are.
#[derive(Clone, Copy, Default)]
struct Field {
    name: (usize, usize),
    value: (usize, usize),
}

/// Takes a whole head from the front of `buffer`; `None` if there is none yet. `method` is that of the request.
///
/// # Errors
/// When it is no head of an answer, or its body cannot be told from what follows it.
pub(super) fn parse(buffer: &mut BytesMut, method: &Method) -> Result<Option<Answer>, Broken> {
    let mut uninit = [const { MaybeUninit::uninit() }; FIELDS];
    let mut fields = [Field::default(); FIELDS];
    let mut response = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut response,
        buffer,
        &mut uninit,
    );
    let end = match parsed {
        Ok(httparse::Status::Complete(end)) => end,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(Broken::Malformed("too many header fields"));
        }
        Err(_) => return Err(Broken::Malformed("no head of an answer")),
    };
    let start = buffer.as_ptr().addr();
    let place = |part: &[u8]| {
        let from = part.as_ptr().addr() - start;
        (from, from + part.len())
    };
    let count = response.headers.len();
    for (field, read) in fields.iter_mut().zip(&*response.headers) {
        *field = Field {
            name: place(read.name.as_bytes()),
            value: place(read.value),
        };
    }
    let status = StatusCode::from_u16(response.code.unwrap_or_default())
        .map_err(|_| Broken::Malformed("no status"))?;
    let http_11 = response.version == Some(1);
    let reason = response
        .reason
        .filter(|reason| Some(*reason) != status.canonical_reason())
        .and_then(|reason| ReasonPhrase::try_from(reason.as_bytes()).ok());
    let bytes = buffer.split_to(end).freeze();
    let mut head = Response::new(());
    *head.status_mut() = status;
    *head.version_mut() = if http_11 {
        Version::HTTP_11
    } else {
        Version::HTTP_10
    };
    if let Some(reason) = reason {
        head.extensions_mut().insert(reason);
    }
    head.headers_mut().reserve(count);
    for field in &fields[..count] {
        let (name, value) = field.read(&bytes)?;
        head.headers_mut().append(name, value);
    }
    conclude(head, http_11, method).map(Some)
}

impl Field {
    fn read(&self, bytes: &Bytes) -> Result<(HeaderName, HeaderValue), Broken> {
        let malformed = |_| Broken::Malformed("a header field");
        let name = HeaderName::from_bytes(&bytes[self.name.0..self.name.1])
            .map_err(|_| Broken::Malformed("a header field's name"))?;
        let value = bytes.slice(self.value.0..self.value.1);
        let value = HeaderValue::from_maybe_shared(value).map_err(malformed)?;
        Ok((name, value))
    }
}

/// What follows a head (RFC 9112 section 6.3), and whether the connection lasts (section 9.3).
fn conclude(head: Response<()>, http_11: bool, method: &Method) -> Result<Answer, Broken> {
    let mut head = head;
    let status = head.status();
    let has_none = status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        || method == Method::HEAD;
    let headers = head.headers_mut();
    let mut keeps = if http_11 {
        !has_option(headers, "close")
    } else {
        has_option(headers, "keep-alive")
    };
    let mut encodings = headers.get_all(TRANSFER_ENCODING).iter();
    let coding = match (encodings.next(), encodings.next()) {
        _ if has_none => Coding::OVER,
        (None, _) => {
            let declared = declared(headers.get_all(CONTENT_LENGTH).iter())?;
            keeps &= declared.is_some();
            declared.map_or_else(Coding::until_end, Coding::length)
        }
        // No other coding is asked for, and what was not undone here would be passed on without its name.
        (Some(value), None) if http_11 && value.as_bytes().eq_ignore_ascii_case(b"chunked") => {
            // Both at once: the chunks count, the length must not travel on, and the connection cannot be trusted to be
            // in step.
            keeps &= headers.remove(CONTENT_LENGTH).is_none();
            Coding::chunked()
        }
        _ => return Err(Broken::Malformed("a Transfer-Encoding other than chunked")),
    };
    Ok(Answer {
        head,
        coding,
        keeps,
    })
}

/// The declared length; the same one may be stated more than once.
fn declared<'a>(values: impl Iterator<Item = &'a HeaderValue>) -> Result<Option<u64>, Broken> {
    let mut declared = None;
    for part in values.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')) {
        let length = length(part.trim_ascii()).ok_or(Broken::Malformed("a Content-Length"))?;
        if declared
            .replace(length)
            .is_some_and(|before| before != length)
        {
            return Err(Broken::Malformed("two lengths"));
        }
    }
    Ok(declared)
}

fn has_option(headers: &http::HeaderMap, option: &str) -> bool {
    headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|part| part.trim_ascii().eq_ignore_ascii_case(option.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, method: &Method) -> Result<Option<Answer>, Broken> {
        parse(&mut BytesMut::from(text), method)
    }

    #[test]
    fn what_follows_a_head_is_what_it_says() {
        for (fields, coding, keeps) in [
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n",
                Coding::length(5),
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 5\r\n",
                Coding::length(5),
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 5, 5\r\n",
                Coding::length(5),
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: x, Close\r\n",
                Coding::length(5),
                false,
            ),
            (
                "HTTP/1.0 200 OK\r\ncontent-length: 5\r\n",
                Coding::length(5),
                false,
            ),
            (
                "HTTP/1.0 200 OK\r\ncontent-length: 5\r\nconnection: keep-alive\r\n",
                Coding::length(5),
                true,
            ),
            ("HTTP/1.1 200 OK\r\n", Coding::until_end(), false),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n",
                Coding::chunked(),
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 1\r\n",
                Coding::chunked(),
                false,
            ),
            ("HTTP/1.1 204 No Content\r\n", Coding::OVER, true),
            (
                "HTTP/1.1 304 Not Modified\r\ncontent-length: 7\r\n",
                Coding::OVER,
                true,
            ),
            ("HTTP/1.1 101 Switching Protocols\r\n", Coding::OVER, true),
        ] {
            let answer = read(&format!("{fields}\r\n"), &Method::GET)
                .unwrap()
                .unwrap();
            assert_eq!((answer.coding, answer.keeps), (coding, keeps), "{fields}");
        }
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n";
        let answer = read(head, &Method::HEAD).unwrap().unwrap();
        assert_eq!(answer.coding, Coding::OVER);
        assert_eq!(answer.head.headers()["content-length"], "5");
    }

    #[test]
    fn what_others_could_read_otherwise_is_refused() {
        for fields in [
            "content-length: 5\r\ncontent-length: 6\r\n",
            "content-length: 5, 6\r\n",
            "content-length: +5\r\n",
            "content-length: 0x5\r\n",
            "content-length: \r\n",
            "content-length: 99999999999999999999\r\n",
            "transfer-encoding: gzip, chunked\r\n",
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
            "transfer-encoding: identity\r\n",
            "transfer-encoding : chunked\r\n",
            "a\r\n",
            " folded: x\r\n",
        ] {
            let text = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
            assert!(read(&text, &Method::GET).is_err(), "{fields:?}");
        }
        for start in [
            "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked",
            "HTTP/2.0 200 OK",
            "SSH-2.0",
            "HTTP/1.1 20 OK",
        ] {
            let text = format!("{start}\r\n\r\n");
            assert!(read(&text, &Method::GET).is_err(), "{start:?}");
        }
        let many = "a: b\r\n".repeat(FIELDS + 1);
        let text = format!("HTTP/1.1 200 OK\r\n{many}\r\n");
        assert!(read(&text, &Method::GET).is_err());
    }

    #[test]
    fn a_head_that_comes_in_pieces_is_waited_for_and_what_follows_it_stays() {
        let text = "HTTP/1.1 299 Fine\r\nX-A: 1\r\nx-a: \u{e9}\r\n\r\nbody";
        let end = text.len() - 4;
        for cut in 0..end {
            assert!(
                read(&text[..text.floor_char_boundary(cut)], &Method::GET)
                    .unwrap()
                    .is_none(),
                "{cut}"
            );
        }
        let mut buffer = BytesMut::from(text);
        let answer = parse(&mut buffer, &Method::GET).unwrap().unwrap();
        assert_eq!(buffer, "body");
        assert_eq!(answer.head.status(), 299);
        let reason = answer.head.extensions().get::<ReasonPhrase>().unwrap();
        assert_eq!(reason.as_bytes(), b"Fine");
        let values: Vec<_> = answer
            .head
            .headers()
            .get_all("x-a")
            .iter()
            .map(HeaderValue::as_bytes)
            .collect();
        assert_eq!(values, [b"1".as_slice(), "\u{e9}".as_bytes()]);
    }
}
