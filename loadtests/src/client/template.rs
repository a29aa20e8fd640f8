//! The request of which every request is a copy.

use std::fmt::Write as _;

use bytes::Bytes;
use http::{HeaderValue, Method, Request};
use http_body_util::Full;

use crate::{config::REQUEST_ID, payload::Payload, protocol::grpc};

/// A request as hyper takes it.
pub(crate) type Outgoing = Request<Full<Bytes>>;

/// Made once, sent many times.
#[derive(Debug)]
pub(crate) struct Template {
    request: Request<()>,
    /// The same for HTTP/1.1: from the request line to the last field that all requests have.
    head: Vec<u8>,
    payload: Payload,
    /// Whether a body is a message of gRPC.
    is_message: bool,
    /// Whether a request says how long its body is.
    has_length: bool,
}

/// A request of HTTP/1.1: what goes before the rest of its head, that, and the body.
pub(super) struct Parts<'a> {
    pub(super) head: &'a [u8],
    pub(super) rest: String,
    pub(super) body: Bytes,
}

impl Template {
    /// Of a request whose target is a path for HTTP/1.1, and a whole URL for HTTP/2.
    pub(crate) fn new(request: Request<()>, payload: Payload, is_message: bool) -> Self {
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
        Self {
            has_length: may_have || !payload.is_empty(),
            request,
            head,
            payload,
            is_message,
        }
    }

    /// Request `number` as hyper takes it, with this id.
    pub(crate) fn outgoing(&self, number: u64, id: Option<&str>) -> Outgoing {
        let mut body = self.payload.body(number);
        if self.is_message {
            body = grpc::framed(&body);
        }
        let mut request = self.request.clone().map(|()| Full::new(body));
        if let Some(id) = id {
            let id = HeaderValue::from_str(id)
                .expect("hexadecimal and decimal digits are a header value");
            request.headers_mut().insert(REQUEST_ID, id);
        }
        request
    }

    /// The body of request `number`.
    pub(super) fn body(&self, number: u64) -> Bytes {
        self.payload.body(number)
    }

    /// The same for HTTP/1.1.
    pub(super) fn parts(&self, number: u64, id: Option<&str>) -> Parts<'_> {
        let body = self.payload.body(number);
        let mut rest = String::new();
        if self.has_length {
            let _ = write!(rest, "content-length: {}\r\n", body.len());
        }
        if let Some(id) = id {
            let _ = write!(rest, "{REQUEST_ID}: {id}\r\n");
        }
        rest.push_str("\r\n");
        Parts {
            head: &self.head,
            rest,
            body,
        }
    }

    /// Whether its answer has no body whatever it says.
    pub(super) fn is_head(&self) -> bool {
        self.request.method() == Method::HEAD
    }
}
