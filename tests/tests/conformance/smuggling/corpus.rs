//! Byte streams that readers of HTTP/1 are known to disagree on, made from the grammar of RFC 9112: each rule is bent in every
//! way we know, alone and with each other rule that it touches.
//!
//! Deterministic: the same cases in the same order in every run. Every target of a case has the case's mark in it, by which a
//! request that an upstream sees is known to be of this case. A request whose target ends in `hidden` stands inside a body.

/// One connection's bytes.
#[derive(Clone, Debug)]
pub(super) struct Case {
    /// Which rules it bends.
    pub(super) group: &'static str,
    /// What is sent.
    pub(super) bytes: Vec<u8>,
    /// It bends none: every request in it must arrive.
    pub(super) good: bool,
}

/// What an id looks like in a target.
pub(super) fn mark(id: usize) -> String {
    format!("c{id}.")
}

/// Groups that are always whole: they are small, and what upstreams refuse by themselves is in them.
const WHOLE: [&str; 3] = ["request lines", "hosts", "options"];

/// All cases, or one of so many; the id of a case is its place.
pub(super) fn corpus(step: usize) -> Vec<Case> {
    let mut corpus = Corpus {
        cases: Vec::new(),
        made: 0,
        step,
    };
    corpus.framings();
    corpus.chunks();
    corpus.hidden_in_chunks();
    corpus.line_ends();
    corpus.request_lines();
    corpus.hosts();
    corpus.every_byte();
    corpus.options();
    corpus.before_and_between();
    corpus.cases
}

struct Corpus {
    cases: Vec<Case>,
    made: usize,
    step: usize,
}

/// The body for which a block of fields is right.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fits {
    Nothing,
    Length,
    Chunked,
    Never,
}

/// Fields that say where a body ends. `#` stands for its length.
const FRAMINGS: &[(Fits, &str)] = &[
    (Fits::Nothing, "X: y"),
    (Fits::Length, "Content-Length: #"),
    (Fits::Length, "content-length:#"),
    (Fits::Length, "CONTENT-LENGTH:  #"),
    (Fits::Length, "Content-Length: 00#"),
    (Fits::Chunked, "Transfer-Encoding: chunked"),
    (Fits::Chunked, "transfer-encoding:chunked"),
    (Fits::Chunked, "TRANSFER-ENCODING: Chunked"),
    // One length, written in another way.
    (Fits::Never, "Content-Length: +#"),
    (Fits::Never, "Content-Length: -#"),
    (Fits::Never, "Content-Length: -0"),
    (Fits::Never, "Content-Length: # "),
    (Fits::Never, "Content-Length: #\t"),
    (Fits::Never, "Content-Length:\t#"),
    (Fits::Never, "Content-Length: 0x#"),
    (Fits::Never, "Content-Length: #;"),
    (Fits::Never, "Content-Length: #;q=1"),
    (Fits::Never, "Content-Length: #.0"),
    (Fits::Never, "Content-Length: #e0"),
    (Fits::Never, "Content-Length: # #"),
    (Fits::Never, "Content-Length: \"#\""),
    (Fits::Never, "Content-Length: #_0"),
    (Fits::Never, "Content-Length:"),
    (Fits::Never, "Content-Length: "),
    (Fits::Never, "Content-Length: #a"),
    (Fits::Never, "Content-Length: \u{0665}"),
    (Fits::Never, "Content-Length: 9223372036854775807"),
    (Fits::Never, "Content-Length: 9223372036854775808"),
    (Fits::Never, "Content-Length: 18446744073709551615"),
    (Fits::Never, "Content-Length: 18446744073709551616"),
    (Fits::Never, "Content-Length: 18446744073709551621"),
    (Fits::Never, "Content-Length: 4294967301"),
    (Fits::Never, "Content-Length: 0"),
    (Fits::Never, "Content-Length: 1"),
    (Fits::Never, "Content-Length: 100"),
    // Several.
    (Fits::Never, "Content-Length: #, #"),
    (Fits::Never, "Content-Length: #,#"),
    (Fits::Never, "Content-Length: #, 0"),
    (Fits::Never, "Content-Length: ,#"),
    (Fits::Never, "Content-Length: #,"),
    (Fits::Never, "Content-Length: #\r\nContent-Length: #"),
    (Fits::Never, "Content-Length: #\r\nContent-Length: 0"),
    (Fits::Never, "Content-Length: 0\r\nContent-Length: #"),
    (
        Fits::Never,
        "Content-Length: #\r\nX: y\r\ncontent-length: 0",
    ),
    // Names that are nearly the one.
    (Fits::Never, "Content-Length : #"),
    (Fits::Never, "Content-Length\t: #"),
    (Fits::Never, " Content-Length: #"),
    (Fits::Never, "X: y\r\n Content-Length: #"),
    (Fits::Never, "X: y\r\n\tContent-Length: #"),
    (Fits::Never, "Content_Length: #"),
    (Fits::Never, "Content Length: #"),
    (Fits::Never, "Content-Length\0: #"),
    (Fits::Never, "Content-Length\r: #"),
    (Fits::Never, "\u{feff}Content-Length: #"),
    (Fits::Never, "Content-Length #"),
    (Fits::Never, "Content-Length:\r\n #"),
    (Fits::Never, "Content-Length: #\r\n "),
    (Fits::Never, "Content-Length: #\r\n 0"),
    (Fits::Never, "X: y\rContent-Length: #"),
    (Fits::Never, "X: y\nContent-Length: #"),
    (Fits::Never, "X: y\n\rContent-Length: #"),
    (Fits::Never, ":\r\nContent-Length: #"),
    (Fits::Never, ": y\r\nContent-Length: #"),
    (Fits::Never, "X\r\nContent-Length: #"),
    // The coding, written in another way.
    (Fits::Never, "Transfer-Encoding:  chunked"),
    (Fits::Never, "Transfer-Encoding:\tchunked"),
    (Fits::Never, "Transfer-Encoding: chunked "),
    (Fits::Never, "Transfer-Encoding: chunked\t"),
    (Fits::Never, "Transfer-Encoding: \u{b}chunked"),
    (Fits::Never, "Transfer-Encoding: chunked\u{c}"),
    (Fits::Never, "Transfer-Encoding: \0chunked"),
    (Fits::Never, "Transfer-Encoding: chunked\0"),
    (Fits::Never, "Transfer-Encoding: xchunked"),
    (Fits::Never, "Transfer-Encoding: chunkedx"),
    (Fits::Never, "Transfer-Encoding: chunk"),
    (Fits::Never, "Transfer-Encoding: \"chunked\""),
    (Fits::Never, "Transfer-Encoding: 'chunked'"),
    (Fits::Never, "Transfer-Encoding: chunked;q=1"),
    (Fits::Never, "Transfer-Encoding: chunked;"),
    (Fits::Never, "Transfer-Encoding: chunked,"),
    (Fits::Never, "Transfer-Encoding: ,chunked"),
    (Fits::Never, "Transfer-Encoding: chunked, chunked"),
    (Fits::Never, "Transfer-Encoding: identity"),
    (Fits::Never, "Transfer-Encoding: identity, chunked"),
    (Fits::Never, "Transfer-Encoding: chunked, identity"),
    (Fits::Never, "Transfer-Encoding: gzip, chunked"),
    (Fits::Never, "Transfer-Encoding: chunked, gzip"),
    (Fits::Never, "Transfer-Encoding: gzip"),
    (Fits::Never, "Transfer-Encoding:"),
    (Fits::Never, "Transfer-Encoding: "),
    (Fits::Never, "Transfer-Encoding : chunked"),
    (Fits::Never, "Transfer-Encoding\t: chunked"),
    (Fits::Never, " Transfer-Encoding: chunked"),
    (Fits::Never, "X: y\r\n Transfer-Encoding: chunked"),
    (Fits::Never, "Transfer_Encoding: chunked"),
    (Fits::Never, "Transfer Encoding: chunked"),
    (Fits::Never, "Transfer-Encoding\0: chunked"),
    (Fits::Never, "Transfer-\u{ff}Encoding: chunked"),
    (Fits::Never, "Transfer-Encoding:\r\n chunked"),
    (Fits::Never, "Transfer-Encoding: chunked\r\n "),
    (Fits::Never, "Transfer-Encoding: chun\r\n ked"),
    (Fits::Never, "X: y\rTransfer-Encoding: chunked"),
    (Fits::Never, "X: y\nTransfer-Encoding: chunked"),
    (Fits::Never, "Transfer-Encoding: chunked\nX: y"),
    (
        Fits::Never,
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    ),
    (
        Fits::Never,
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    ),
    (
        Fits::Never,
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
    ),
    (
        Fits::Never,
        "Transfer-Encoding:\r\nTransfer-Encoding: chunked",
    ),
    // Both.
    (
        Fits::Never,
        "Content-Length: #\r\nTransfer-Encoding: chunked",
    ),
    (
        Fits::Never,
        "Transfer-Encoding: chunked\r\nContent-Length: #",
    ),
    (
        Fits::Never,
        "Content-Length: 0\r\nTransfer-Encoding: chunked",
    ),
    (
        Fits::Never,
        "Content-Length: #\r\nTransfer-Encoding: identity",
    ),
    (
        Fits::Never,
        "Content-Length: #\r\nTransfer-Encoding: xchunked",
    ),
    (
        Fits::Never,
        "Content-Length: #\r\nTransfer-Encoding : chunked",
    ),
    (
        Fits::Never,
        "Content-Length: #\r\n Transfer-Encoding: chunked",
    ),
    (
        Fits::Never,
        "Content-Length : #\r\nTransfer-Encoding: chunked",
    ),
    (
        Fits::Never,
        "Content-Length: x\r\nTransfer-Encoding: chunked",
    ),
];

/// How a line may end, or may be taken to end.
const LINE_ENDS: [&str; 7] = ["\r\n", "\n", "\r", "\r\r\n", "\n\r", "\r\n\r", ""];

fn after(id: &str) -> String {
    format!("GET /{id}after HTTP/1.1\r\nHost: a\r\n\r\n")
}

fn hidden(id: &str) -> String {
    format!("GET /{id}hidden HTTP/1.1\r\nHost: a\r\n\r\n")
}

/// The bytes of a text whose characters stand for one byte each; beyond Latin-1, for their UTF-8.
fn bytes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for character in text.chars() {
        if let Ok(byte) = u8::try_from(u32::from(character)) {
            bytes.push(byte);
        } else {
            let mut buffer = [0; 4];
            bytes.extend(character.encode_utf8(&mut buffer).as_bytes());
        }
    }
    bytes
}

impl Corpus {
    /// Adds a case that is made with its own mark.
    fn add(&mut self, group: &'static str, good: bool, make: impl FnOnce(&str) -> String) {
        self.made += 1;
        if !self.made.is_multiple_of(self.step) && !WHOLE.contains(&group) {
            return;
        }
        let text = make(&mark(self.cases.len()));
        self.cases.push(Case {
            group,
            bytes: bytes(&text),
            good,
        });
    }

    /// Every way to say where a body ends, before every kind of body.
    fn framings(&mut self) {
        for &(fits, fields) in FRAMINGS {
            for (kind, body) in [
                (Fits::Nothing, (|_| String::new()) as fn(&str) -> String),
                (Fits::Length, |_| "hello".to_owned()),
                (Fits::Length, hidden),
                (Fits::Chunked, |_| "5\r\nhello\r\n0\r\n\r\n".to_owned()),
                (Fits::Chunked, |id| {
                    let hidden = hidden(id);
                    format!("{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len())
                }),
                // Over for who reads chunks, and just begun for who counts.
                (Fits::Never, |id| format!("0\r\n\r\n{}", hidden(id))),
            ] {
                for (method, version) in [
                    ("POST", "1.1"),
                    ("GET", "1.1"),
                    ("POST", "1.0"),
                    ("GET", "1.0"),
                ] {
                    self.add("framing", fits != Fits::Never && fits == kind && version == "1.1", |id| {
                        let body = body(id);
                        let fields = fields.replace('#', &body.len().to_string());
                        let after = after(id);
                        format!(
                            "{method} /{id}x HTTP/{version}\r\nHost: a\r\n{fields}\r\n\r\n{body}{after}"
                        )
                    });
                }
            }
        }
    }

    /// Chunks whose size, data or end is not as it should be.
    fn chunks(&mut self) {
        const SIZES: &[(bool, &str)] = &[
            (true, "5\r\n"),
            (true, "05\r\n"),
            (true, "000000000000005\r\n"),
            (false, "0000000000000005\r\n"),
            (false, "00000000000000005\r\n"),
            (true, "5;a\r\n"),
            (true, "5;a=b\r\n"),
            (true, "5;a=\"b\"\r\n"),
            (false, "5;a=\"b\r\n"),
            (false, "5;a=\"\r\n\"\r\n"),
            (false, "5;\r\n"),
            (false, "5 ;a\r\n"),
            (false, "5 \r\n"),
            (false, "5\t\r\n"),
            (false, " 5\r\n"),
            (false, "+5\r\n"),
            (false, "-5\r\n"),
            (false, "0x5\r\n"),
            (false, "5h\r\n"),
            (false, "5_\r\n"),
            (false, "5,5\r\n"),
            (false, "5.0\r\n"),
            (false, "5\n"),
            (false, "5\r"),
            (false, "5;a\n"),
            (false, "5;a\rb\r\n"),
            (false, "5;a\0\r\n"),
            (false, "5;\u{ff}\r\n"),
            (false, "\r\n5\r\n"),
            (false, "\r\n"),
            (false, "g\r\n"),
            (false, "4\r\n"),
            (false, "6\r\n"),
            (false, "ffffffffffffffff\r\n"),
            (false, "10000000000000005\r\n"),
            (false, "fffffffffffffff\r\n"),
            (false, "\u{0665}\r\n"),
        ];
        const DATA_ENDS: [&str; 7] = ["\r\n", "\n", "\r", "", "xx", " \r\n", "\r\n\r\n"];
        const ENDS: &[(bool, &str)] = &[
            (true, "0\r\n\r\n"),
            (true, "00\r\n\r\n"),
            (true, "0;a=b\r\n\r\n"),
            (true, "0\r\nX: y\r\n\r\n"),
            (true, "0\r\nX: y\r\nZ: \r\n\r\n"),
            (false, "0\r\nContent-Length: 5\r\n\r\n"),
            (false, "0\r\nTransfer-Encoding: chunked\r\n\r\n"),
            (false, "0\r\nHost: b\r\n\r\n"),
            (false, "0\r\nX : y\r\n\r\n"),
            (false, "0\r\n X: y\r\n\r\n"),
            (false, "0\r\nX: y\r\n z\r\n\r\n"),
            (false, "0\r\nbad\r\n\r\n"),
            (false, "0\r\nX: \0\r\n\r\n"),
            (false, "0\r\nX: y\n\r\n"),
            (false, "0\r\nX: y\r\r\n\r\n"),
            (false, "0\n\n"),
            (false, "0\r\n\n"),
            (false, "0\n\r\n"),
            (false, "0\r\r"),
            (false, "0\r\n\r"),
            (false, "0\r\n"),
            (false, "0"),
            (false, "0 \r\n\r\n"),
            (false, "+0\r\n\r\n"),
            (false, "0x0\r\n\r\n"),
            (false, "-0\r\n\r\n"),
            (false, ""),
        ];
        // Each with each of the others as it should be, and all pairs with the ends of data.
        for &(good_size, size) in SIZES {
            for data_end in DATA_ENDS {
                for &(good_end, end) in ENDS {
                    let bent = [!good_size, data_end != "\r\n", !good_end];
                    if bent.iter().filter(|&&bent| bent).count() > 2 {
                        continue;
                    }
                    let good = bent == [false; 3];
                    self.add("chunks", good, |id| {
                        let after = after(id);
                        format!(
                            "POST /{id}x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{size}hello{data_end}{end}{after}"
                        )
                    });
                }
            }
        }
    }

    /// A request where only an extension or a trailer should be.
    fn hidden_in_chunks(&mut self) {
        for body in [
            "5;\n{}\r\nhello\r\n0\r\n\r\n",
            "5;a=\"\r\n{}\"\r\nhello\r\n0\r\n\r\n",
            "5\r\nhello\r\n0\r\nX: y\n\n{}\r\n\r\n",
            "5\r\nhello\r\n0\r\nX: y\r\r{}\r\n\r\n",
            "5\r\nhello\r\n0\r\n{}\r\n",
        ] {
            self.add("chunks", false, |id| {
                let body = body.replace("{}", &hidden(id));
                let after = after(id);
                format!(
                    "POST /{id}x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}{after}"
                )
            });
        }
    }

    /// Each line of a head ended in each way.
    fn line_ends(&mut self) {
        for first in LINE_ENDS {
            for second in LINE_ENDS {
                for last in LINE_ENDS {
                    for (field, body) in [("X: y", ""), ("Content-Length: 5", "hello")] {
                        let good = [first, second, last] == ["\r\n"; 3];
                        self.add("line ends", good, |id| {
                            let after = after(id);
                            format!(
                                "POST /{id}x HTTP/1.1{first}Host: a{second}{field}\r\n{last}{body}{after}"
                            )
                        });
                    }
                }
            }
        }
    }

    /// Methods, targets and versions, all with each other.
    fn request_lines(&mut self) {
        const METHODS: &[&str] = &[
            "GET", "OPTIONS", "get", "X-Y", "G\u{1}T", "G(T", "", " GET", "GET ", "TRACE",
            "CONNECT",
        ];
        const TARGETS: &[&str] = &[
            "/#x",
            "/#x?q=%00&r=/../",
            "/a/../#x",
            "/a/./#x",
            "//#x",
            "/%2e%2e/#x",
            "/%00#x",
            "/%zz#x",
            "/#x%0d%0aX:%20y",
            "/#x;a=b",
            "/#x\\y",
            "/#x|y",
            "/#x\"y",
            "/#x<y>",
            "/#x{y}",
            "/#x\u{7f}",
            "/#x\u{ff}",
            "/#x\u{1}",
            "/#x\ty",
            "/#x y",
            "/#x!frag",
            "#x",
            "*#x",
            "?#x",
            "http://a/#x",
            "HTTP://A/#x",
            "http://a?#x",
            "http://b/#x",
            "http://a:80/#x",
            "http://u@a/#x",
            "http:///#x",
            "http:/#x",
            "http://a/ http://b/#x",
            "https://a/#x",
            "ftp://a/#x",
            "a:80#x",
        ];
        const VERSIONS: &[&str] = &[
            " HTTP/1.1",
            " HTTP/1.0",
            " HTTP/1.2",
            " HTTP/2.0",
            " HTTP/0.9",
            " http/1.1",
            " HTTP/1.1 ",
            " HTTP/1.1\t",
            " HTTP/01.1",
            " HTTP/1.10",
            " HTTP/11",
            " HTTP /1.1",
            "\tHTTP/1.1",
            "  HTTP/1.1",
            "\u{b}HTTP/1.1",
            " ",
            "",
        ];
        for method in METHODS {
            for target in TARGETS {
                for version in VERSIONS {
                    self.add("request lines", false, |id| {
                        // `!` stands for the sign that begins a fragment.
                        let target = target.replace('#', id).replace('!', "#");
                        let after = after(id);
                        format!("{method} {target}{version}\r\nHost: a\r\n\r\n{after}")
                    });
                }
            }
        }
    }

    /// Hosts, with targets that name one and that do not.
    fn hosts(&mut self) {
        const HOSTS: &[&str] = &[
            "",
            "Host: a\r\n",
            "Host:a\r\n",
            "host: A\r\n",
            "Host:\r\n",
            "Host: \r\n",
            "Host: a:80\r\n",
            "Host: a:\r\n",
            "Host: a:x\r\n",
            "Host: a:99999\r\n",
            "Host: a \r\n",
            "Host: a b\r\n",
            "Host: a, a\r\n",
            "Host: a,b\r\n",
            "Host: u@a\r\n",
            "Host: a/b\r\n",
            "Host: a?b\r\n",
            "Host: a#b\r\n",
            "Host: a\\b\r\n",
            "Host: a\u{ff}\r\n",
            "Host: a%00\r\n",
            "Host: [::1]\r\n",
            "Host: [::1\r\n",
            "Host: [::1]x\r\n",
            "Host: a..b\r\n",
            "Host: http://a\r\n",
            "Host: a\r\nHost: a\r\n",
            "Host: a\r\nHost: b\r\n",
            "Host: a\r\nhost:\r\n",
            "Host: a\r\n b\r\n",
            "Host : a\r\n",
            " Host: a\r\n",
            "Host: a\nHost: b\r\n",
            "X: y\rHost: a\r\n",
        ];
        for host in HOSTS {
            for target in ["/#x", "http://a/#x", "http://b/#x", "http://a:80/#x"] {
                for version in ["1.1", "1.0"] {
                    self.add("hosts", false, |id| {
                        let target = target.replace('#', id);
                        let after = after(id);
                        format!("GET {target} HTTP/{version}\r\n{host}\r\n{after}")
                    });
                }
            }
        }
    }

    /// Every byte in every place of a field where one might be overlooked.
    fn every_byte(&mut self) {
        for byte in 0..=255_u8 {
            let byte = char::from(byte);
            for (name, value) in [("Content-Length", "5"), ("Transfer-Encoding", "chunked")] {
                let (head, tail) = name.split_at(7);
                let (first, rest) = value.split_at(1);
                for field in [
                    format!("{byte}{name}: {value}"),
                    format!("{head}{byte}{tail}: {value}"),
                    format!("{name}{byte}: {value}"),
                    format!("{name}:{byte}{value}"),
                    format!("{name}: {first}{byte}{rest}"),
                    format!("{name}: {value}{byte}"),
                ] {
                    self.add("every byte", false, |id| {
                        let body = if value == "5" {
                            "hello"
                        } else {
                            "5\r\nhello\r\n0\r\n\r\n"
                        };
                        let after = after(id);
                        format!("POST /{id}x HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n{body}{after}")
                    });
                }
            }
        }
    }

    /// Fields that change what becomes of the connection or of other fields.
    fn options(&mut self) {
        const OPTIONS: &[&str] = &[
            "Connection: close",
            "Connection: keep-alive",
            "Connection: close, keep-alive",
            "Connection: Content-Length",
            "Connection: content-length, close",
            "Connection: Transfer-Encoding",
            "Connection: Host",
            "Connection: TE\r\nTE: trailers",
            "Connection: TE\r\nTE: chunked",
            "TE: trailers, chunked;q=0.5",
            "Trailer: X",
            "Trailer: Content-Length",
            "Keep-Alive: timeout=5",
            "Proxy-Connection: close",
            "Expect: 100-continue",
            "Expect: 100-Continue",
            "Expect: 100-continue\r\nExpect: 100-continue",
            "Expect: other",
            "Expect:",
            "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
            "Upgrade: websocket",
            "Upgrade: websocket\r\nConnection: upgrade",
            "Upgrade: other\r\nConnection: upgrade",
            "Content-Encoding: gzip",
            "X-HTTP-Method-Override: DELETE",
            "X-Original-URL: /other",
            "rouse-pod-uid: a\r\nrouse-port: 0",
            "rouse-op: wait-ready",
        ];
        for option in OPTIONS {
            for (fields, body) in [
                ("X: y", (|_| String::new()) as fn(&str) -> String),
                ("Content-Length: 0", |_| String::new()),
                ("Content-Length: #", hidden),
                ("Transfer-Encoding: chunked", |id| {
                    let hidden = hidden(id);
                    format!("{:x}\r\n{hidden}\r\n0\r\nX: y\r\n\r\n", hidden.len())
                }),
            ] {
                for (method, version) in [("POST", "1.1"), ("GET", "1.1"), ("GET", "1.0")] {
                    for first in [true, false] {
                        self.add("options", false, |id| {
                            let body = body(id);
                            let fields = fields.replace('#', &body.len().to_string());
                            let fields = if first {
                                format!("{option}\r\n{fields}")
                            } else {
                                format!("{fields}\r\n{option}")
                            };
                            let after = after(id);
                            format!(
                                "{method} /{id}x HTTP/{version}\r\nHost: a\r\n{fields}\r\n\r\n{body}{after}"
                            )
                        });
                    }
                }
            }
        }
    }

    /// Bytes before the first request and between two of them.
    fn before_and_between(&mut self) {
        for filler in [
            "",
            "\r\n",
            "\r\n\r\n",
            "\r\n\r\n\r\n",
            "\n",
            "\r",
            "\n\n",
            " ",
            "\t",
            "\0",
            "0\r\n\r\n",
            "\r\n ",
            "x",
            "\u{feff}",
        ] {
            for (fields, body) in [
                ("X: y", "#"),
                ("Content-Length: 5", "hello#"),
                ("Content-Length: 5", "hel#"),
                ("Content-Length: 5", "hello world#"),
                ("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n#"),
            ] {
                for count in 1..=4 {
                    let good = filler.is_empty()
                        && (body == "#" || body.ends_with("lo#") || body.ends_with("\n#"));
                    self.add("before and between", good, |id| {
                        let one = format!(
                            "POST /{id}x HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n{}",
                            body.replace('#', filler)
                        );
                        let after = after(id);
                        format!("{filler}{}{after}", one.repeat(count))
                    });
                }
            }
        }
    }
}
