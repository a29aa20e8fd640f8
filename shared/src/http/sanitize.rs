//! What a proxy must check and remove on every message, whichever HTTP version brought it.
//!
//! Sources: RFC 9110 section 7.6 (what intermediaries must and must not forward), RFC 6455 section 4.2.1 (WebSocket).

use std::net::IpAddr;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version,
    header::{
        AUTHORIZATION, CONNECTION, CONTENT_LENGTH, FORWARDED, HOST, PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, TE, TRAILER,
        TRANSFER_ENCODING, UPGRADE,
    },
    uri::{Authority, PathAndQuery, Scheme},
};

use super::h1::Refusal;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Headers that a `Connection` header of the sender cannot make us remove: framing and routing stay ours.
const KEPT: [HeaderName; 2] = [HOST, CONTENT_LENGTH];

/// Checks what holds for both HTTP versions and gives HTTP/1 requests an origin-form target.
///
/// # Errors
/// The refusal to answer with.
pub fn check_request<B>(request: &mut Request<B>) -> Result<(), Refusal> {
    if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
        return Err(Refusal::new(405, "method not allowed"));
    }
    if request.version() == Version::HTTP_2 {
        // h2 looks at the first one only; whoever turns this into HTTP/1 may believe another.
        for (name, reason) in [
            (CONTENT_LENGTH, "more than one Content-Length"),
            (HOST, "more than one Host"),
        ] {
            if request.headers().get_all(name).iter().nth(1).is_some() {
                return Err(Refusal::bad(reason));
            }
        }
        match (request.uri().authority(), request.headers().get(HOST)) {
            (None, None) => return Err(Refusal::bad("no authority")),
            // Allowed (RFC 9113 section 8.3.1), but only the other form can be sent on.
            (None, Some(host)) => {
                let uri = Authority::from_maybe_shared(Bytes::copy_from_slice(host.as_bytes()))
                    .map_err(http::Error::from)
                    .and_then(|authority| with_authority(request.uri(), authority))
                    .map_err(|_| Refusal::bad("malformed authority"))?;
                *request.uri_mut() = uri;
            }
            (Some(authority), Some(host))
                if !host
                    .as_bytes()
                    .eq_ignore_ascii_case(authority.as_str().as_bytes()) =>
            {
                return Err(Refusal::bad("authority differs from Host"));
            }
            _ => {}
        }
        let authority = request.uri().authority();
        if authority.is_some_and(|a| !super::h1::is_authority(a.as_str().as_bytes())) {
            return Err(Refusal::bad("malformed authority"));
        }
        return Ok(());
    }
    if !request.headers().contains_key(HOST) {
        // HTTP/1.0 needs none, the HTTP/1.1 in which we speak to the model does: empty if unknown (RFC 9112 section 3.2).
        let none = HeaderValue::from_static("");
        request.headers_mut().insert(HOST, none);
    }
    if request.uri().authority().is_some() {
        let target = request.uri().path_and_query().cloned();
        *request.uri_mut() = target.map_or_else(|| Uri::from_static("/"), Uri::from);
    }
    Ok(())
}

fn with_authority(uri: &Uri, authority: Authority) -> Result<Uri, http::Error> {
    let path = uri
        .path_and_query()
        .cloned()
        .unwrap_or(PathAndQuery::from_static("/"));
    let scheme = uri.scheme().cloned().unwrap_or(Scheme::HTTP);
    Uri::builder()
        .scheme(scheme)
        .authority(authority)
        .path_and_query(path)
        .build()
}

/// The host that a request is for: HTTP/2 says it in the request line, as it were.
pub fn host<B>(request: &Request<B>) -> Option<HeaderValue> {
    request.headers().get(HOST).cloned().or_else(|| {
        let authority = request.uri().authority()?;
        HeaderValue::try_from(authority.as_str()).ok()
    })
}

/// Whether the request asks for a WebSocket, properly.
///
/// Other upgrades are not an error: they are left out and the request goes on without them (RFC 9110 section 7.8).
///
/// # Errors
/// 400 when a WebSocket is asked for in a way that RFC 6455 does not allow.
pub fn websocket<B: http_body::Body>(request: &Request<B>) -> Result<bool, Refusal> {
    let headers = request.headers();
    let asks = headers
        .get_all(UPGRADE)
        .iter()
        .any(|v| v.as_bytes().eq_ignore_ascii_case(b"websocket"))
        && list_has(headers, &CONNECTION, "upgrade");
    if !asks || request.version() != Version::HTTP_11 {
        return Ok(false);
    }
    if request.method() != Method::GET || !request.body().is_end_stream() {
        return Err(Refusal::bad("a WebSocket upgrade is a GET without a body"));
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|v| v != "13") {
        return Err(Refusal::bad("WebSocket version other than 13"));
    }
    let mut keys = headers.get_all(SEC_WEBSOCKET_KEY).iter();
    match (keys.next(), keys.next()) {
        (Some(key), None) if is_websocket_key(key.as_bytes()) => Ok(true),
        _ => Err(Refusal::bad("malformed Sec-WebSocket-Key")),
    }
}

/// 16 bytes in base64: 22 digits and two signs of equality.
fn is_websocket_key(key: &[u8]) -> bool {
    key.len() == 24
        && key.ends_with(b"==")
        && key[..22]
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'))
}

/// Removes what concerns only one connection: `Connection` and all it names, and the fields that always do.
///
/// `te: trailers` stays, since gRPC demands it of every hop. Our own headers are added after this, so that a sender's
/// `Connection` cannot remove them.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .flat_map(|value| value.as_bytes().split(|b| *b == b','))
            .filter_map(|token| HeaderName::from_bytes(token.trim_ascii()).ok())
            .filter(|name| !KEPT.contains(name) && *name != TE)
            .collect();
        headers.remove(CONNECTION);
        for name in named {
            headers.remove(name);
        }
    }
    let trailers = headers
        .get_all(TE)
        .iter()
        .any(|v| v.as_bytes().trim_ascii().eq_ignore_ascii_case(b"trailers"));
    for name in [
        KEEP_ALIVE,
        PROXY_CONNECTION,
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
        TE,
        TRANSFER_ENCODING,
        UPGRADE,
        HTTP2_SETTINGS,
    ] {
        headers.remove(name);
    }
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Removes from trailers what only a head may say: framing, routing, who somebody is, what concerns one connection, and what poses as
/// ours (RFC 9110 section 6.5.1). Whoever merges trailers into a head would believe it.
pub(super) fn strip_trailers(trailers: &mut HeaderMap) {
    strip_hop_by_hop(trailers);
    crate::headers::strip_ours(trailers);
    for name in [AUTHORIZATION, CONTENT_LENGTH, HOST, TE, TRAILER] {
        trailers.remove(name);
    }
}

/// Puts the upgrade back that [`strip_hop_by_hop`] removed, for an accepted WebSocket.
pub fn add_websocket(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
}

/// Addresses whose `X-Forwarded-*` and `Forwarded` headers are believed.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies(Vec<(IpAddr, u8)>);

/// A text is not a list of networks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a network: expected ADDRESS or ADDRESS/PREFIX, e.g. 10.0.0.0/8")]
pub struct InvalidNetwork {
    text: String,
}

impl TrustedProxies {
    /// Reads a comma-separated list of networks.
    ///
    /// # Errors
    /// Names the first part that is not one.
    pub fn parse(text: &str) -> Result<Self, InvalidNetwork> {
        text.split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(|part| {
                let invalid = || InvalidNetwork {
                    text: part.to_owned(),
                };
                let (address, prefix) = part
                    .split_once('/')
                    .map_or((part, None), |(a, p)| (a, Some(p)));
                let address: IpAddr = address.parse().map_err(|_| invalid())?;
                let bits = if address.is_ipv4() { 32 } else { 128 };
                let prefix = prefix.map_or(Ok(bits), |p| p.parse().map_err(|_| invalid()))?;
                if prefix > bits {
                    Err(invalid())
                } else {
                    Ok((address, prefix))
                }
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Whether `peer` is in one of the networks.
    pub fn contains(&self, peer: IpAddr) -> bool {
        self.0
            .iter()
            .any(|(network, prefix)| match (network, peer) {
                (IpAddr::V4(n), IpAddr::V4(p)) => {
                    let shift = 32 - u32::from(*prefix);
                    n.to_bits().checked_shr(shift) == p.to_bits().checked_shr(shift)
                }
                (IpAddr::V6(n), IpAddr::V6(p)) => {
                    let shift = 128 - u32::from(*prefix);
                    n.to_bits().checked_shr(shift) == p.to_bits().checked_shr(shift)
                }
                _ => false,
            })
    }
}

/// Who sends a request over the present connection.
#[derive(Clone, Copy, Debug)]
pub struct Sender<'a> {
    /// The other end.
    pub address: IpAddr,
    /// Whether it speaks TLS with us.
    pub is_tls: bool,
    /// Whose word about those before it counts.
    pub trusted: &'a TrustedProxies,
}

/// Makes a checked request fit for the next hop: what concerns only this one, what poses as ours and what is no trace context is
/// removed, an accepted WebSocket upgrade is put back, and everything that is not HTTP/2 goes on as HTTP/1.1. With `sender`, it is
/// stated where the request came from; the hop before has done so otherwise.
pub fn prepare<B>(request: &mut Request<B>, websocket: bool, sender: Option<Sender<'_>>) {
    strip_hop_by_hop(request.headers_mut());
    crate::headers::strip_ours(request.headers_mut());
    crate::trace::sanitize(request.headers_mut());
    if let Some(sender) = sender {
        let host = host(request);
        forwarded(request.headers_mut(), sender, host.as_ref());
    }
    if websocket {
        add_websocket(request.headers_mut());
    }
    if request.version() != Version::HTTP_2 {
        *request.version_mut() = Version::HTTP_11;
    }
}

/// States where the request came from. What an untrusted peer claims about that is replaced, never added to.
pub fn forwarded(headers: &mut HeaderMap, sender: Sender<'_>, host: Option<&HeaderValue>) {
    let address = sender.address.to_string();
    let mut chain = String::new();
    if sender.trusted.contains(sender.address) {
        for value in headers
            .get_all(X_FORWARDED_FOR)
            .iter()
            .filter_map(|v| v.to_str().ok())
        {
            chain.push_str(value);
            chain.push_str(", ");
        }
    } else {
        headers.remove(FORWARDED);
        headers.remove(X_FORWARDED_PROTO);
        headers.remove(X_FORWARDED_HOST);
    }
    chain.push_str(&address);
    if let Ok(value) = HeaderValue::try_from(chain) {
        headers.insert(X_FORWARDED_FOR, value);
    }
    headers
        .entry(X_FORWARDED_PROTO)
        .or_insert(HeaderValue::from_static(if sender.is_tls {
            "https"
        } else {
            "http"
        }));
    if let Some(host) = host {
        headers
            .entry(X_FORWARDED_HOST)
            .or_insert_with(|| host.clone());
    }
}

/// Whether a comma-separated header has `token`, without regard to case.
fn list_has(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .flat_map(|value| value.as_bytes().split(|b| *b == b','))
        .any(|part| part.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

#[cfg(test)]
mod tests;
