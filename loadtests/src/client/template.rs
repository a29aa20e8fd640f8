//! The request of which every request is a copy.

use bytes::Bytes;
use http::{HeaderValue, Method, Request, header::CONTENT_LENGTH};
use http_body_util::Full;

use crate::config::REQUEST_ID;

/// A request as hyper takes it.
pub(crate) type Outgoing = Request<Full<Bytes>>;

/// Made once, sent many times.
#[derive(Debug)]
pub(crate) struct Template {
    request: Outgoing,
    /// The same for HTTP/1.1: from the request line to the last field, without the empty line.
    head: Vec<u8>,
    body: Bytes,
}

impl Template {
    /// Of a request whose target is a path for HTTP/1.1, and a whole URL for HTTP/2.
    pub(crate) fn new(request: Request<()>, body: Bytes) -> Self {
        let mut head = Vec::new();
        let line = format!("{} {} HTTP/1.1\r\n", request.method(), request.uri());
        head.extend_from_slice(line.as_bytes());
        for (name, value) in request.headers() {
            head.extend_from_slice(name.as_str().as_bytes());
            head.extend_from_slice(b": ");
            head.extend_from_slice(value.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
        // Methods with a meaning for a body say that it is empty (RFC 9110, section 8.6).
        let may_have = [Method::POST, Method::PUT, Method::PATCH].contains(request.method());
        if !request.headers().contains_key(CONTENT_LENGTH) && (may_have || !body.is_empty()) {
            head.extend_from_slice(format!("content-length: {}\r\n", body.len()).as_bytes());
        }
        Self {
            request: request.map(|()| Full::new(body.clone())),
            head,
            body,
        }
    }

    /// As hyper takes it, with this id.
    pub(super) fn outgoing(&self, id: Option<&str>) -> Outgoing {
        let mut request = self.request.clone();
        if let Some(id) = id {
            let id = HeaderValue::from_str(id)
                .expect("hexadecimal and decimal digits are a header value");
            request.headers_mut().insert(REQUEST_ID, id);
        }
        request
    }

    /// What goes before the end of the head, that end with this id, and the body.
    pub(super) fn parts(&self, id: Option<&str>) -> (&[u8], String, &[u8]) {
        let end = id.map_or_else(
            || "\r\n".to_owned(),
            |id| format!("{REQUEST_ID}: {id}\r\n\r\n"),
        );
        (&self.head, end, &self.body)
    }

    /// Whether its answer has no body whatever it says.
    pub(super) fn is_head(&self) -> bool {
        self.request.method() == Method::HEAD
    }
}
