use super::*;
use crate::http::body::Body;

fn request(fields: &[(&str, &[u8])]) -> Request<Body> {
    let mut request = Request::builder().uri("/").body(Body::empty()).unwrap();
    for (name, value) in fields {
        request.headers_mut().append(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_bytes(value).unwrap(),
        );
    }
    request
}

#[test]
fn a_connection_header_removes_what_it_names_but_not_framing_or_routing() {
    let mut r = request(&[
        ("connection", b"close, X-Secret, Host"),
        ("connection", b"\xff\xfe, content-length"),
        ("x-secret", b"1"),
        ("host", b"a"),
        ("content-length", b"0"),
        ("te", b"trailers, gzip"),
        ("transfer-encoding", b"chunked"),
        ("keep-alive", b"5"),
    ]);
    strip_hop_by_hop(r.headers_mut());
    let mut left: Vec<_> = r.headers().keys().map(HeaderName::as_str).collect();
    left.sort_unstable();
    assert_eq!(left, ["content-length", "host"]);
    let mut r = request(&[("te", b"trailers")]);
    strip_hop_by_hop(r.headers_mut());
    assert_eq!(r.headers()[TE], "trailers");
}

#[test]
fn only_a_proper_websocket_request_is_an_upgrade() {
    let good: &[(&str, &[u8])] = &[
        ("connection", b"keep-alive, Upgrade"),
        ("upgrade", b"websocket"),
        ("sec-websocket-version", b"13"),
        ("sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    assert_eq!(websocket(&request(good)), Ok(true));
    assert_eq!(
        websocket(&request(&[("connection", b"upgrade"), ("upgrade", b"h2c")])),
        Ok(false)
    );
    assert_eq!(
        websocket(&request(&good[1..])),
        Ok(false),
        "no Connection: upgrade"
    );
    for (at, bad) in [
        (2, &b"8"[..]),
        (3, b"short"),
        (3, b"dGhlIHNhbXBsZSBub25jZ!=="),
    ] {
        let mut fields = good.to_vec();
        fields[at].1 = bad;
        assert!(websocket(&request(&fields)).is_err(), "{fields:?}");
    }
    let mut post = request(good);
    *post.method_mut() = Method::POST;
    assert!(websocket(&post).is_err());
}

#[test]
fn a_stranger_cannot_say_where_he_came_from() {
    let fields: &[(&str, &[u8])] = &[
        ("x-forwarded-for", b"1.1.1.1"),
        ("x-forwarded-proto", b"https"),
        ("forwarded", b"for=1.1.1.1"),
    ];
    let peer: IpAddr = "10.1.2.3".parse().unwrap();
    let nobody = TrustedProxies::default();
    for (is_tls, proto) in [(false, "http"), (true, "https")] {
        let sender = Sender {
            address: peer,
            is_tls,
            trusted: &nobody,
        };
        let mut r = request(fields);
        forwarded(
            r.headers_mut(),
            sender,
            Some(&HeaderValue::from_static("h")),
        );
        assert_eq!(r.headers()["x-forwarded-for"], "10.1.2.3");
        assert_eq!(r.headers()["x-forwarded-proto"], proto);
        assert!(!r.headers().contains_key("forwarded"));
    }
    let sender = Sender {
        address: peer,
        is_tls: false,
        trusted: &TrustedProxies::parse("192.168.0.0/16, 10.0.0.0/8").unwrap(),
    };
    let mut r = request(fields);
    forwarded(r.headers_mut(), sender, None);
    assert_eq!(r.headers()["x-forwarded-for"], "1.1.1.1, 10.1.2.3");
    assert_eq!(r.headers()["x-forwarded-proto"], "https");
}

#[test]
fn networks_are_read_strictly() {
    let all = TrustedProxies::parse("0.0.0.0/0,::1").unwrap();
    assert!(all.contains("9.9.9.9".parse().unwrap()) && all.contains("::1".parse().unwrap()));
    assert!(!all.contains("::2".parse().unwrap()));
    for bad in ["10.0.0.0/33", "10.0.0/8", "x", "::/129", "1.1.1.1/-1"] {
        assert!(TrustedProxies::parse(bad).is_err(), "{bad}");
    }
}
