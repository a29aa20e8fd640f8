use bytes::BytesMut;

use super::*;

fn scan_all(text: &[u8]) -> (Vec<u8>, Option<Refusal>, Scanner) {
    let mut scanner = Scanner::new(Limits::default());
    let mut bytes = BytesMut::from(text);
    let mut passed = Vec::new();
    loop {
        match scanner.scan(&mut bytes) {
            Verdict::Pass(n) => passed.extend_from_slice(&bytes.split_to(n)),
            Verdict::More => return (passed, None, scanner),
            Verdict::Refuse(refusal) => return (passed, Some(refusal), scanner),
        }
    }
}

const GOOD: &[&str] = &[
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "\r\nGET / HTTP/1.1\r\nHost: a:80\r\n\r\n",
    "GET http://a:80/x HTTP/1.1\r\nHost: a:80\r\n\r\n",
    "GET / HTTP/1.0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: [::1]:8080\r\nContent-Length: 5\r\n\r\nhello",
    "POST / HTTP/1.1\r\nHost:\r\nTransfer-Encoding: Chunked\r\n\r\n3;a=b\r\nabc\r\n00\r\nX-T: 1\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX:\r\nY: \t tabs \t\r\n\r\n",
];

#[test]
fn passes_valid_requests_whole_however_they_are_cut() {
    for good in GOOD {
        let twice = good.repeat(2);
        let (passed, refusal, scanner) = scan_all(twice.as_bytes());
        assert_eq!(refusal, None, "{good}");
        assert_eq!(
            String::from_utf8(passed).unwrap(),
            twice.replace(
                "\r\nGET / HTTP/1.1\r\nHost: a:80",
                "GET / HTTP/1.1\r\nHost: a:80"
            )
        );
        assert!(scanner.between_messages(0));

        let mut scanner = Scanner::new(Limits::default());
        let mut bytes = BytesMut::new();
        let mut passed = 0;
        for byte in good.bytes() {
            bytes.extend_from_slice(&[byte]);
            loop {
                match scanner.scan(&mut bytes) {
                    Verdict::Pass(n) => {
                        passed += n;
                        drop(bytes.split_to(n));
                    }
                    Verdict::More => break,
                    Verdict::Refuse(r) => panic!("{good}: {r:?}"),
                }
            }
        }
        assert_eq!(passed, good.trim_start_matches("\r\n").len(), "{good}");
    }
}

#[test]
fn refuses_what_two_readers_could_read_differently() {
    let post =
        |fields: &str, body: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n{body}");
    let rows: Vec<(u16, String)> = vec![
        (
            400,
            post(
                "Content-Length: 3\r\nTransfer-Encoding: chunked",
                "0\r\n\r\n",
            ),
        ),
        (
            400,
            post(
                "Transfer-Encoding: chunked\r\nContent-Length: 3",
                "0\r\n\r\n",
            ),
        ),
        (400, post("Content-Length: 3\r\nContent-Length: 3", "abc")),
        (400, post("Content-Length: 3\r\nContent-Length: 4", "abc")),
        (400, post("Content-Length: +5", "hello")),
        (400, post("Content-Length: 5,5", "hello")),
        (400, post("Content-Length: 5 ", "hello")),
        (400, post("Content-Length: 0x5", "hello")),
        (400, post("Content-Length:", "")),
        (400, post("Content-Length: 99999999999999999999", "")),
        (400, post("Transfer-Encoding: chunked, identity", "")),
        (400, post("Transfer-Encoding: identity", "")),
        (400, post("Transfer-Encoding: \tchunked", "")),
        (400, post("Transfer-Encoding: chunked\t", "")),
        (
            400,
            post(
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
                "",
            ),
        ),
        (
            400,
            "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".into(),
        ),
        (400, post("Content-Length : 5", "hello")),
        (400, post("X: a\r\n b", "")),
        (400, post("X: a\nY: b", "")),
        (400, post("X: a\rb", "")),
        (400, post("X: a\0b", "")),
        (400, post("X: \u{fc}", "")),
        (400, post("X\u{fc}: a", "")),
        (400, post("X Y: a", "")),
        (400, post(": a", "")),
        (400, post("no colon", "")),
        (400, "GET / HTTP/1.1\n\n".into()),
        (400, "GET / HTTP/1.1\r\n\r\n".into()),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n".into()),
        (400, "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n".into()),
        (400, "GET / HTTP/1.1\r\nHost: a..b\r\n\r\n".into()),
        (400, "GET / HTTP/1.1\r\nHost: a:b\r\n\r\n".into()),
        (400, "GET / HTTP/1.1\r\nHost: a:70000\r\n\r\n".into()),
        (400, "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n".into()),
        (400, "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        (400, "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        (400, "GET  / HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        (400, "GET /\tx HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        (400, "GET / HTTP/1.1 \r\nHost: a\r\n\r\n".into()),
        (400, "GET /<x> HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        (400, "GET http:///x HTTP/1.1\r\nHost:\r\n\r\n".into()),
        (400, "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        (405, "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n".into()),
        (405, "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        (505, "GET / HTTP/2.0\r\nHost: a\r\n\r\n".into()),
        (417, post("Expect: the-spanish-inquisition", "")),
        (
            414,
            format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(64 * 1024)),
        ),
        (431, post(&format!("X: {}", "x".repeat(16 * 1024)), "")),
        (
            431,
            post(
                &(0..100)
                    .map(|i| format!("X{i}: y"))
                    .collect::<Vec<_>>()
                    .join("\r\n"),
                "",
            ),
        ),
    ];
    for (status, text) in rows {
        // Written as Latin-1, as an attacker would.
        let bytes: Vec<u8> = text
            .chars()
            .map(|c| u8::try_from(u32::from(c)).unwrap())
            .collect();
        let (passed, refusal, _) = scan_all(&bytes);
        assert_eq!(refusal.map(|r| r.status), Some(status), "{text:?}");
        assert!(passed.is_empty(), "{text:?} reached the other side");
    }
}

#[test]
fn refuses_malformed_chunked_bodies_after_their_head() {
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (status, body) in [
        (400, "ffffffffffffffff0\r\n".to_owned()),
        (400, "g\r\n".to_owned()),
        (400, "-1\r\n".to_owned()),
        (400, "3\nabc\r\n".to_owned()),
        (400, "3\r\nabcd\r\n".to_owned()),
        (400, "3 \r\nabc\r\n".to_owned()),
        (400, format!("3;{}\r\nabc\r\n", "e".repeat(1 << 20))),
        (400, "0\r\nbad trailer\r\n\r\n".to_owned()),
        (431, format!("0\r\n{}\r\n", "X: y\r\n".repeat(10_000))),
    ] {
        let (passed, refusal, _) = scan_all(format!("{head}{body}").as_bytes());
        assert_eq!(refusal.map(|r| r.status), Some(status), "{body:.60}");
        assert!(passed.starts_with(head.as_bytes()));
    }
}

#[test]
fn a_missing_final_line_end_is_never_a_complete_message() {
    let text = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n";
    let (_, refusal, scanner) = scan_all(text.as_bytes());
    assert_eq!(refusal, None);
    assert!(!scanner.between_messages(0));
}

#[test]
fn garbage_is_refused_without_waiting_for_a_whole_head() {
    for garbage in [
        &b"\x16\x03\x01\x02\x00"[..],
        b"GET / HTTP/1.1\r\nX: \x00",
        b"GET / HTTP/1.1\nHost: a",
    ] {
        assert!(matches!(
            Scanner::new(Limits::default()).scan(&mut BytesMut::from(garbage)),
            Verdict::Refuse(Refusal { status: 400, .. })
        ));
    }
}

#[test]
fn a_line_of_just_the_limit_passes_when_its_end_comes_in_two_pieces() {
    let line = format!("GET /{} HTTP/1.1", "x".repeat(8 * 1024 - 14));
    assert_eq!(line.len(), Limits::default().line_bytes);
    let mut scanner = Scanner::new(Limits::default());
    let mut bytes = BytesMut::from(format!("{line}\r").as_bytes());
    assert_eq!(scanner.scan(&mut bytes), Verdict::More);
    bytes.extend_from_slice(b"\nHost: a\r\n\r\n");
    assert_eq!(scanner.scan(&mut bytes), Verdict::Pass(bytes.len()));
}

#[test]
fn a_target_has_the_characters_that_hyper_takes_in_one() {
    for byte in 0..=u8::MAX {
        for before in [&b"/a"[..], b"/a?b", b"/a?b#c", b"/a?b?c"] {
            let target = [before, &[byte], b"d"].concat();
            let ours = grammar::is_target(&target);
            let hypers = http::Uri::try_from(&target[..]).is_ok();
            let text = target.escape_ascii().to_string();
            // Behind a # it does not look.
            let visible = (0x21..0x7f).contains(&byte);
            assert_eq!(ours, hypers && visible, "{text}");
        }
    }
}
