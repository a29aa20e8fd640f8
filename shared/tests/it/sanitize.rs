//! Any header map on its way to the next hop: nothing of ours and nothing of this hop goes on, and nobody makes us remove
//! framing or routing.

use std::net::IpAddr;

use arbitrary::{Arbitrary, Unstructured};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Version, header};
use shared::http::{
    body::Body,
    sanitize::{Sender, TrustedProxies, prepare, strip_hop_by_hop, websocket},
};

/// Names that mean something here, in spellings of which HTTP/1 has many.
const NAMES: &[&str] = &[
    "Connection",
    "connection",
    "Keep-Alive",
    "Proxy-Connection",
    "Proxy-Authenticate",
    "Proxy-Authorization",
    "TE",
    "Transfer-Encoding",
    "Upgrade",
    "HTTP2-Settings",
    "Host",
    "Content-Length",
    "Content-Type",
    "Forwarded",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "Sec-WebSocket-Key",
    "Sec-WebSocket-Version",
    "Authorization",
    "X-Secret",
    "Rouse-Admission",
    "rouse-op",
    "ROUSE-TICKET",
    "rouse-",
    "rouse-anything",
];

const VALUES: &[&str] = &[
    "close",
    "keep-alive, Upgrade",
    "upgrade",
    "websocket",
    "h2c",
    "trailers",
    "trailers, gzip",
    "chunked",
    "13",
    "dGhlIHNhbXBsZSBub25jZQ==",
    "host, content-length",
    "X-Secret,  te,\tauthorization ,, rouse-op",
    "x-forwarded-for, forwarded",
    "1.1.1.1",
    "5",
    "",
];

/// One field.
#[derive(Arbitrary, Debug)]
struct Field {
    name: u8,
    value: u8,
    /// Instead of one of the values above.
    own: Option<Vec<u8>>,
}

/// A request.
#[derive(Arbitrary, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is true or not whatever the others are"
)]
struct Asked {
    fields: Vec<Field>,
    post: bool,
    h2: bool,
    http_10: bool,
    peer: [u8; 4],
    first: bool,
    trusted: bool,
}

/// # Panics
/// If anything does not hold.
pub(crate) fn check(bytes: &[u8]) {
    let Ok(asked) = Asked::arbitrary(&mut Unstructured::new(bytes)) else {
        return;
    };
    let mut headers = HeaderMap::new();
    for field in asked.fields.iter().take(64) {
        let name = NAMES[usize::from(field.name) % NAMES.len()];
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        let value = VALUES[usize::from(field.value) % VALUES.len()].as_bytes();
        if let Ok(value) = HeaderValue::from_bytes(field.own.as_deref().unwrap_or(value)) {
            headers.append(name, value);
        }
    }
    let mut request = Request::new(Body::empty());
    *request.headers_mut() = headers.clone();
    if asked.post {
        *request.method_mut() = Method::POST;
    }
    *request.version_mut() = match (asked.h2, asked.http_10) {
        (true, _) => Version::HTTP_2,
        (_, true) => Version::HTTP_10,
        _ => Version::HTTP_11,
    };
    let upgrades = websocket(&request);
    if upgrades == Ok(true) {
        assert!(!asked.post && !asked.h2 && !asked.http_10);
        assert_eq!(headers.get_all(header::SEC_WEBSOCKET_KEY).iter().count(), 1);
        assert_eq!(headers[header::SEC_WEBSOCKET_VERSION], "13");
    }
    let upgrades = upgrades.unwrap_or(false);

    let mut stripped = headers.clone();
    strip_hop_by_hop(&mut stripped);
    assert_hop(&headers, &stripped);
    assert!(!stripped.contains_key(header::UPGRADE) && !stripped.contains_key(header::CONNECTION));

    let peer = IpAddr::from(asked.peer);
    let trusted = if asked.trusted {
        TrustedProxies::parse("0.0.0.0/0").unwrap()
    } else {
        TrustedProxies::default()
    };
    let sender = Sender {
        address: peer,
        is_tls: false,
        trusted: &trusted,
    };
    prepare(&mut request, upgrades, asked.first.then_some(sender));
    let sent = request.headers();
    assert_hop(&headers, sent);
    for name in sent.keys() {
        assert!(!name.as_str().starts_with("rouse-"), "{name} is ours");
    }
    let list = |name| sent.get_all(name).iter().collect::<Vec<_>>();
    if upgrades {
        assert_eq!(list(header::UPGRADE), ["websocket"]);
        assert_eq!(list(header::CONNECTION), ["upgrade"]);
    } else {
        assert!(list(header::UPGRADE).is_empty() && list(header::CONNECTION).is_empty());
    }
    if asked.first {
        let from = list(HeaderName::from_static("x-forwarded-for"));
        assert_eq!(from.len(), 1, "{from:?}");
        let from = from[0].to_str().unwrap();
        if asked.trusted {
            assert!(from.ends_with(&peer.to_string()), "{from}");
        } else {
            assert_eq!(from, peer.to_string());
            assert!(!sent.contains_key(header::FORWARDED));
            assert_eq!(sent["x-forwarded-proto"], "http");
        }
    }
    assert_ne!(request.version(), Version::HTTP_10);
}

/// What holds of `after`, made of `before`, on the way out.
fn assert_hop(before: &HeaderMap, after: &HeaderMap) {
    for name in [
        "keep-alive",
        "proxy-connection",
        "proxy-authenticate",
        "proxy-authorization",
        "transfer-encoding",
        "http2-settings",
    ] {
        assert!(!after.contains_key(name), "{name} went on");
    }
    let te: Vec<_> = after.get_all(header::TE).iter().collect();
    assert!(te.is_empty() || te == ["trailers"], "{te:?}");
    let both = [before, after];
    for name in [header::HOST, header::CONTENT_LENGTH] {
        let [before, after] = both.map(|map| map.get_all(&name).iter().collect::<Vec<_>>());
        assert_eq!(before, after, "{name}");
    }
    // Read as RFC 9110 section 5.6.1 has it, by other means than the code's.
    for value in before.get_all(header::CONNECTION) {
        let Ok(value) = value.to_str() else { continue };
        for token in value
            .split(',')
            .map(|token| token.trim_matches([' ', '\t']))
        {
            let token = token.to_ascii_lowercase();
            // The fields that are set anew, and those that stay whatever is said.
            let ours = ["host", "content-length", "te", "upgrade", "connection"];
            if ours.contains(&&*token) || token.starts_with("x-forwarded-") || token.is_empty() {
                continue;
            }
            assert!(!after.contains_key(&*token), "{token} went on");
        }
    }
}
