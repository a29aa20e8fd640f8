//! A request as HTTP/1.1 writes it: how its body is delimited, and the bytes of its head.

use std::fmt::Write as _;

use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, HeaderValue, Request,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING},
};
use http_body::Body as _;

use super::RequestBroken;
use crate::http::body::Body;

/// How a request body is delimited (RFC 9112 section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delimited {
    /// There is none.
    Nothing,
    /// By so many bytes that are still to come.
    Length(u64),
    /// By chunks.
    Chunks,
}

/// Sees to it that the head says how the body is delimited. A length that was declared is kept.
///
/// # Errors
/// If the declared length is not that of the body: what follows would be read as another request.
pub(super) fn delimit(request: &mut Request<Body>) -> Result<Delimited, RequestBroken> {
    let body = request.body();
    let exact = if body.is_end_stream() {
        Some(0)
    } else {
        body.size_hint().exact()
    };
    let is_over = body.is_end_stream();
    let headers = request.headers_mut();
    headers.remove(TRANSFER_ENCODING);
    let declared = match headers.get(CONTENT_LENGTH) {
        None => None,
        Some(value) => Some(length(value.as_bytes()).ok_or_else(RequestBroken::length)?),
    };
    Ok(match (declared, exact) {
        (Some(declared), Some(exact)) if declared != exact => return Err(RequestBroken::length()),
        (_, _) if is_over => Delimited::Nothing,
        (Some(declared), _) => Delimited::Length(declared),
        (None, Some(exact)) => {
            headers.insert(CONTENT_LENGTH, exact.into());
            Delimited::Length(exact)
        }
        (None, None) => {
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            Delimited::Chunks
        }
    })
}

/// A Content-Length: digits only, at most 19 of them, so that it always fits.
pub(super) fn length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// The head, to its blank line.
pub(super) fn head<B>(request: &Request<B>) -> Bytes {
    let uri = request.uri();
    let fields: usize = request
        .headers()
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum();
    let target = uri
        .path_and_query()
        .map_or(1, |target| target.as_str().len());
    let mut head = BytesMut::with_capacity(fields + target + 32);
    head.extend_from_slice(request.method().as_str().as_bytes());
    head.extend_from_slice(b" ");
    match uri.path_and_query() {
        Some(target) if uri.authority().is_none() => {
            head.extend_from_slice(target.as_str().as_bytes());
        }
        // A buffer in memory takes everything.
        _ => {
            let _written = write!(head, "{uri}");
        }
    }
    head.extend_from_slice(b" HTTP/1.1\r\n");
    put_fields(&mut head, request.headers());
    head.extend_from_slice(b"\r\n");
    head.freeze()
}

fn put_fields(out: &mut BytesMut, fields: &HeaderMap) {
    for (name, value) in fields {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

/// What goes before the bytes of a chunk.
pub(super) fn chunk_head(length: usize) -> Bytes {
    let mut head = BytesMut::with_capacity(18);
    // A buffer in memory takes everything.
    let _written = write!(head, "{length:x}\r\n");
    head.freeze()
}

/// The end of a chunked body, with its trailers.
pub(super) fn last_chunk(trailers: Option<&HeaderMap>) -> Bytes {
    let Some(trailers) = trailers else {
        return Bytes::from_static(b"0\r\n\r\n");
    };
    let mut end = BytesMut::from(&b"0\r\n"[..]);
    put_fields(&mut end, trailers);
    end.extend_from_slice(b"\r\n");
    end.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(length: Option<&str>, body: Body) -> (Result<Delimited, RequestBroken>, Bytes) {
        let mut request = Request::post("/a?b").body(body).unwrap();
        if let Some(length) = length {
            let length = HeaderValue::try_from(length).unwrap();
            request.headers_mut().insert(CONTENT_LENGTH, length);
        }
        let delimited = delimit(&mut request);
        (delimited, head(&request))
    }

    #[test]
    fn the_head_says_how_the_body_is_delimited() {
        let (delimited, head) = of(None, Body::full("abc"));
        assert_eq!(delimited.unwrap(), Delimited::Length(3));
        assert_eq!(head, "POST /a?b HTTP/1.1\r\ncontent-length: 3\r\n\r\n");
        let (delimited, head) = of(Some("3"), Body::full("abc"));
        assert_eq!(delimited.unwrap(), Delimited::Length(3));
        assert_eq!(head, "POST /a?b HTTP/1.1\r\ncontent-length: 3\r\n\r\n");
        let (delimited, head) = of(None, Body::empty());
        assert_eq!(delimited.unwrap(), Delimited::Nothing);
        assert_eq!(head, "POST /a?b HTTP/1.1\r\n\r\n");
        let (delimited, head) = of(Some("0"), Body::empty());
        assert_eq!(delimited.unwrap(), Delimited::Nothing);
        assert_eq!(head, "POST /a?b HTTP/1.1\r\ncontent-length: 0\r\n\r\n");
        let unknown = http_body_util::StreamBody::new(futures_util::stream::pending());
        let (delimited, head) = of(None, Body::made(unknown));
        assert_eq!(delimited.unwrap(), Delimited::Chunks);
        assert_eq!(
            head,
            "POST /a?b HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n"
        );
    }

    #[test]
    fn a_length_that_is_not_the_body_s_is_not_sent() {
        for (length, body) in [
            ("4", "abc"),
            ("2", "abc"),
            ("1", ""),
            ("+3", "abc"),
            ("", ""),
        ] {
            let (delimited, _) = of(Some(length), Body::full(body));
            assert!(delimited.is_err(), "{length:?} for {body:?}");
        }
    }

    #[test]
    fn chunks_have_their_size_and_the_last_one_the_trailers() {
        let mut trailers = HeaderMap::new();
        trailers.append("x-sum", HeaderValue::from_static("a"));
        trailers.append("x-sum", HeaderValue::from_static("b"));
        let end = last_chunk(Some(&trailers));
        assert_eq!(end, "0\r\nx-sum: a\r\nx-sum: b\r\n\r\n");
        assert_eq!(last_chunk(None), "0\r\n\r\n");
        assert_eq!(chunk_head(0x1a2b), "1a2b\r\n");
    }

    #[test]
    fn a_target_with_an_authority_keeps_it() {
        let request = Request::get("http://host:1/x?y").body(()).unwrap();
        assert_eq!(head(&request), "GET http://host:1/x?y HTTP/1.1\r\n\r\n");
    }
}
