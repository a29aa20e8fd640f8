//! Requests of HTTP/2 that are malformed (RFC 9113 section 8) or that no proxy may send on.

use crate::frame::{GET, POST, block, field};

/// Field blocks, each with what is wrong with it. Each is a whole request: no body follows.
pub fn requests() -> Vec<(&'static str, Vec<u8>)> {
    let without = |name: &str| {
        let rest: Vec<_> = GET.iter().copied().filter(|(n, _)| *n != name).collect();
        block(&rest)
    };
    let with = |name: &str, value: &str| {
        let replaced: Vec<_> = GET
            .iter()
            .map(|&(n, v)| (n, if n == name { value } else { v }))
            .collect();
        block(&replaced)
    };
    let and = |name: &str, value: &str| [block(GET), field(name, value)].concat();
    let early = |name: &str, value: &str| [field(name, value), block(GET)].concat();
    let posted = |fields: &[(&str, &str)]| [block(POST), block(fields)].concat();
    vec![
        ("no :method", without(":method")),
        ("no :scheme", without(":scheme")),
        ("no :path", without(":path")),
        ("no :authority and no Host", without(":authority")),
        ("two :method", early(":method", "GET")),
        ("two :scheme", early(":scheme", "http")),
        ("two :path", early(":path", "/other")),
        ("two :authority", early(":authority", "b")),
        (
            "a pseudo-header after a field",
            [field("x", "y"), block(GET)].concat(),
        ),
        ("a pseudo-header that there is not", early(":x", "y")),
        ("a pseudo-header of answers", early(":status", "200")),
        (
            "a pseudo-header of RFC 8441",
            early(":protocol", "websocket"),
        ),
        ("an empty :method", with(":method", "")),
        ("a :method with a space", with(":method", "GET /")),
        (":method CONNECT", with(":method", "CONNECT")),
        (":method TRACE", with(":method", "TRACE")),
        ("an empty :path", with(":path", "")),
        ("a :path without a slash", with(":path", "other")),
        ("a :path of another form", with(":path", "http://b/")),
        ("a :path with a space", with(":path", "/ HTTP/1.1")),
        ("a :path with a line end", with(":path", "/\r\nx: y")),
        ("a :path with a zero", with(":path", "/\0")),
        ("an empty :authority", with(":authority", "")),
        ("an :authority with a user", with(":authority", "user@a")),
        ("an :authority with a path", with(":authority", "a/b")),
        (
            "an :authority with a line end",
            with(":authority", "a\r\nb"),
        ),
        (
            "an :authority with a bad port",
            with(":authority", "a:99999"),
        ),
        ("a Host that differs", and("host", "b")),
        ("two Hosts", [and("host", "a"), field("host", "b")].concat()),
        ("a name in capitals", and("X-Upper", "y")),
        ("an empty name", and("", "y")),
        ("a name with a space", and("x y", "z")),
        ("a name with a colon", and("x:y", "z")),
        ("a name with a line end", and("x\r\ny", "z")),
        (
            "a value with a line end",
            and("x", "y\r\ntransfer-encoding: chunked"),
        ),
        ("a value with a bare LF", and("x", "y\nz")),
        ("a value with a zero", and("x", "y\0z")),
        ("Connection", and("connection", "x")),
        ("Keep-Alive", and("keep-alive", "5")),
        ("Proxy-Connection", and("proxy-connection", "keep-alive")),
        ("Upgrade", and("upgrade", "h2c")),
        ("Transfer-Encoding", and("transfer-encoding", "chunked")),
        ("TE other than trailers", and("te", "gzip")),
        ("a length that is none", posted(&[("content-length", "+0")])),
        ("a list of lengths", posted(&[("content-length", "0, 0")])),
        (
            "a length without a body",
            posted(&[("content-length", "5")]),
        ),
        (
            "the same length twice",
            posted(&[("content-length", "0"), ("content-length", "0")]),
        ),
        (
            "two lengths",
            posted(&[("content-length", "0"), ("content-length", "5")]),
        ),
    ]
}
