//! TLS of the ports for clients and activators.

use std::net::SocketAddr;

use queue_proxy::Config;
use rustls::HandshakeKind;
use shared::{
    TargetId,
    http::tls::{Look, Mode, ServerTls},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Duration, Instant},
};
use tokio_rustls::client::TlsStream;

use crate::{
    h2,
    model::{Model, echo, streamed},
    pki::{NAME, Pair, Pki, handshake},
    raw::{Raw, get, post},
    rig::{activator, addressed, config, front, metrics, outcomes, ready, until, within},
    websocket,
};

/// A client of a pod, over TLS and HTTP/1.1.
async fn secure(address: SocketAddr, pki: &Pki) -> Raw<TlsStream<TcpStream>> {
    let connector = pki.connector(&["http/1.1"], None);
    Raw::over(handshake(address, &connector).await.unwrap())
}

/// The configuration with TLS on its ports.
fn with_tls(mut config: Config, tls: &ServerTls) -> Config {
    config.tls = Some(tls.clone());
    config
}

#[tokio::test]
async fn http_1_and_http_2_are_served_over_tls_on_the_ports_for_clients_and_activators() {
    let model = Model::ok().await;
    let pki = Pki::new();
    let tls = pki.server(Mode::Strict, &[]);
    let proxy = ready(with_tls(config(&[model.address], 0), &tls)).await;
    for (listener, lines) in [
        (front(&proxy), String::new()),
        (activator(&proxy), addressed()),
    ] {
        for protocols in [&["http/1.1"][..], &[], &["h2", "http/1.1"], &["h2"]] {
            let connector = pki.connector(protocols, None);
            let stream = handshake(listener, &connector).await.unwrap();
            let agreed = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
            assert_eq!(agreed, protocols.first().map(|p| p.as_bytes().to_vec()));
            if protocols.first() == Some(&"h2") {
                continue;
            }
            let mut client = Raw::over(stream);
            for _ in 0..3 {
                client.send(get("/", &lines)).await;
                assert_eq!(client.answer().await.text(), "ok");
            }
        }
    }
    let mut client = secure(front(&proxy), &pki).await;
    client.get("/").await;
    assert_eq!(model.seen.last()["x-forwarded-proto"], "https");
    let model = Model::start_h2(|request| async { echo(request) }).await;
    let proxy = ready(with_tls(config(&[model.address], 0), &tls)).await;
    for protocols in [&["h2"][..], &[]] {
        let connector = pki.connector(protocols, None);
        let stream = handshake(front(&proxy), &connector).await.unwrap();
        let (mut client, _connection) = h2::over(stream).await;
        for _ in 0..3 {
            assert_eq!(h2::get(&mut client, "/").await.0.status(), 200);
        }
    }
    assert_eq!(model.seen.last()["x-forwarded-proto"], "https");
    until("the end", || proxy.open() == 0).await;
}

#[tokio::test]
async fn large_bodies_arrive_whole_in_both_directions() {
    let model = Model::start(|request| async { echo(request) }).await;
    let pki = Pki::new();
    let tls = pki.server(Mode::Strict, &[]);
    let proxy = ready(with_tls(config(&[model.address], 0), &tls)).await;
    let parts: Vec<String> = (0..400_000).map(|i| format!("{i:08}")).collect();
    let body = parts.concat();
    let client = secure(front(&proxy), &pki).await;
    let (from, mut to) = tokio::io::split(client.stream);
    let sending = async {
        to.write_all(post("/", "", &body).as_bytes()).await.unwrap();
        to.flush().await.unwrap();
    };
    let reading = async {
        let mut client = Raw::over(tokio::io::join(from, tokio::io::sink()));
        assert!(client.answer().await.text() == body);
    };
    within("the echo", async { tokio::join!(sending, reading) }).await;
}

#[tokio::test]
async fn strict_takes_nothing_but_tls_and_permissive_both() {
    let model = Model::ok().await;
    let pki = Pki::new();
    let strict = pki.server(Mode::Strict, &[]);
    let proxy = ready(with_tls(config(&[model.address], 0), &strict)).await;
    let h2_preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    for plain in [get("/", "").into_bytes(), h2_preface] {
        let mut client = Raw::sent(front(&proxy), plain).await;
        let mut got = Vec::new();
        let _reset = within("the end", client.stream.read_to_end(&mut got)).await;
        // At most an alert of TLS.
        assert!(got.is_empty() || got[0] == 21, "{got:?}");
    }
    assert_eq!(model.seen.count(), 0);

    let permissive = pki.server(Mode::Permissive, &[]);
    let proxy = ready(with_tls(config(&[model.address], 0), &permissive)).await;
    let mut plain = Raw::connect(front(&proxy)).await;
    let mut secret = secure(front(&proxy), &pki).await;
    for _ in 0..2 {
        assert_eq!(plain.get("/").await.text(), "ok");
        assert_eq!(model.seen.last()["x-forwarded-proto"], "http");
        assert_eq!(secret.get("/").await.text(), "ok");
        assert_eq!(model.seen.last()["x-forwarded-proto"], "https");
    }
    // The ports that are nobody's but ours have none.
    let mut stats = Raw::connect(proxy.stats_address().unwrap()).await;
    assert_eq!(stats.get("/livez").await.status, 200);
}

#[tokio::test]
async fn another_protocol_than_was_agreed_on_is_not_spoken() {
    let model = Model::ok().await;
    let pki = Pki::new();
    let tls = pki.server(Mode::Strict, &[]);
    let proxy = ready(with_tls(config(&[model.address], 0), &tls)).await;
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned();
    for (protocol, bytes) in [("h2", get("/", "")), ("http/1.1", preface)] {
        let connector = pki.connector(&[protocol], None);
        let mut client = Raw::over(handshake(front(&proxy), &connector).await.unwrap());
        client.send(bytes).await;
        client.closed().await;
    }
    let unknown = pki.connector(&["spdy/3"], None);
    assert!(handshake(front(&proxy), &unknown).await.is_err());
    assert_eq!(model.seen.count(), 0);
}

#[tokio::test]
async fn a_client_needs_a_certificate_of_the_authority_with_one_of_the_names() {
    let model = Model::ok().await;
    let (pki, other) = (Pki::new(), Pki::new());
    let names = ["spiffe://cluster.local/ns/a/*", "client.example"];
    let tls = pki.server(Mode::Strict, &names);
    let proxy = ready(with_tls(config(&[model.address], 0), &tls)).await;
    let right = "spiffe://cluster.local/ns/a/sa/b";
    for (what, own, served) in [
        ("none", None, false),
        (
            "wrong ID",
            Some(pki.issue("spiffe://cluster.local/ns/b/sa/b")),
            false,
        ),
        ("wrong name", Some(pki.issue("other.example")), false),
        ("other authority", Some(other.issue(right)), false),
        ("expired", Some(pki.expired(right)), false),
        ("right ID", Some(pki.issue(right)), true),
        ("right name", Some(pki.issue("client.example")), true),
    ] {
        let before = model.seen.count();
        let connector = pki.connector(&["http/1.1"], own.as_ref());
        // In TLS 1.3 a client learns only afterwards that its certificate is none.
        let answered = match handshake(front(&proxy), &connector).await {
            Err(_) => false,
            Ok(stream) => {
                let mut client = Raw::over(stream);
                client.send(get("/", "")).await;
                let first = within("an answer or the end", client.stream.read(&mut [0])).await;
                matches!(first, Ok(1))
            }
        };
        assert_eq!(answered, served, "{what}");
        assert_eq!(model.seen.count() - before, usize::from(served), "{what}");
    }
}

#[tokio::test]
async fn a_new_certificate_is_seen_by_new_connections_while_an_old_one_goes_on() {
    let model = Model::ok().await;
    let pki = Pki::new();
    let tls = pki.server(Mode::Strict, &[]);
    let proxy = ready(with_tls(config(&[model.address], 0), &tls)).await;
    let shown = |client: &Raw<TlsStream<TcpStream>>| {
        client
            .stream
            .get_ref()
            .1
            .peer_certificates()
            .unwrap()
            .to_vec()
    };
    let mut old = secure(front(&proxy), &pki).await;
    assert_eq!(old.get("/").await.text(), "ok");
    let new = pki.issue(NAME);
    pki.write(&new);
    // The program, which looks every few seconds, may have been first; so below.
    let seen = tls.look();
    assert!(matches!(seen, Look::Taken | Look::Same), "{seen:?}");
    let mut next = secure(front(&proxy), &pki).await;
    assert_eq!(next.get("/").await.text(), "ok");
    assert_eq!(shown(&next), new.chain());
    assert_ne!(shown(&old), new.chain());
    assert_eq!(old.get("/").await.text(), "ok");
    // What cannot be used leaves it.
    let bad = pki.issue(NAME);
    let mixed = Pair {
        key: new.key.clone(),
        ..bad
    };
    for (pair, says) in [
        (
            mixed,
            "tls.key: is not the key of the certificate of --tls-certificate",
        ),
        (
            pki.expired(NAME),
            "tls.crt: its first certificate has expired",
        ),
    ] {
        pki.write(&pair);
        match tls.look() {
            Look::Refused(error) => assert!(error.to_string().contains(says), "{error}"),
            Look::Same => {}
            Look::Taken => panic!("taken"),
        }
        assert_eq!(tls.look(), Look::Same, "it is said once");
        let mut client = secure(front(&proxy), &pki).await;
        assert_eq!(client.get("/").await.text(), "ok");
        assert_eq!(shown(&client), new.chain());
    }
}

#[tokio::test]
async fn a_session_is_resumed_unless_clients_are_known_by_certificates() {
    let model = Model::ok().await;
    let pki = Pki::new();
    let own = pki.issue("client.example");
    for (names, resumed) in [(&[][..], true), (&["client.example"], false)] {
        let tls = pki.server(Mode::Strict, names);
        let proxy = ready(with_tls(config(&[model.address], 0), &tls)).await;
        let connector = pki.connector(&["http/1.1"], Some(&own));
        let mut kinds = Vec::new();
        for _ in 0..2 {
            let mut client = Raw::over(handshake(front(&proxy), &connector).await.unwrap());
            assert_eq!(client.get("/").await.text(), "ok");
            kinds.push(client.stream.get_ref().1.handshake_kind());
        }
        assert_eq!(kinds[0], Some(HandshakeKind::Full));
        assert_eq!(
            kinds[1] == Some(HandshakeKind::Resumed),
            resumed,
            "{kinds:?}"
        );
    }
}

#[tokio::test]
async fn a_handshake_that_stalls_is_closed_at_the_deadline_and_counts_until_then() {
    let model = Model::ok().await;
    let pki = Pki::new();
    for mode in [Mode::Strict, Mode::Permissive] {
        let tls = pki.server(mode, &[]);
        let mut config = with_tls(config(&[model.address], 0), &tls);
        config.serve.timeouts.first_byte = Duration::from_millis(400);
        config.serve.max_connections = 2;
        let proxy = ready(config).await;
        let began = Instant::now();
        // The beginning of a hello, and nothing.
        let mut stalled = Raw::sent(front(&proxy), b"\x16\x03\x01\x02\x00\x01").await;
        let mut silent = Raw::connect(front(&proxy)).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        // They are as many as may be: who speaks TLS is not told so in plain text.
        let mut third = Raw::sent(front(&proxy), b"\x16\x03\x01\x02\x00\x01").await;
        third.closed().await;
        assert!(began.elapsed() < Duration::from_millis(390));
        stalled.closed().await;
        silent.closed().await;
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(390), "{took:?}");
        let mut client = secure(front(&proxy), &pki).await;
        assert_eq!(client.get("/").await.text(), "ok");
    }
}

#[tokio::test]
async fn a_client_that_is_gone_cancels_its_request_at_the_model() {
    let (model, gate) = Model::gated().await;
    let pki = Pki::new();
    let tls = pki.server(Mode::Strict, &[]);
    let proxy = ready(with_tls(config(&[model.address], 1), &tls)).await;
    // Before the answer: with a goodbye, and without.
    for goodbye in [true, false] {
        let mut client = secure(front(&proxy), &pki).await;
        client.send(get("/", "")).await;
        until("it to arrive", || model.seen.active() == 1).await;
        if goodbye {
            client.stream.shutdown().await.unwrap();
        }
        drop(client);
        until("the slot to be free", || proxy.open() == 0).await;
        until("the model's end", || model.seen.active() == 0).await;
    }
    // While it waits for a slot.
    let mut first = secure(front(&proxy), &pki).await;
    first.send(get("/", "")).await;
    until("it to arrive", || model.seen.active() == 1).await;
    let mut waiting = secure(front(&proxy), &pki).await;
    waiting.send(get("/", "")).await;
    until("it to wait", || proxy.stats().gauges() == (1, 1)).await;
    drop(waiting);
    until("it to be gone", || proxy.stats().gauges() == (1, 0)).await;
    gate.add_permits(1);
    assert_eq!(first.answer().await.status, 200);
    // In the answer.
    let (feeds, mut taken) = tokio::sync::mpsc::unbounded_channel();
    let model = Model::start(move |_| {
        let feeds = feeds.clone();
        async move {
            let (feed, answer) = streamed();
            feeds.send(feed).unwrap();
            answer
        }
    })
    .await;
    let proxy = ready(with_tls(config(&[model.address], 1), &tls)).await;
    let mut client = secure(front(&proxy), &pki).await;
    client.send(get("/", "")).await;
    let feed = within("the request", taken.recv()).await.unwrap();
    feed.send(hyper::body::Frame::data("part".into())).unwrap();
    client.head().await;
    assert_eq!(client.chunk().await.unwrap(), "part");
    drop(client);
    until("the model's end", || feed.is_closed()).await;
    until("the slot to be free", || proxy.open() == 0).await;
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_cut_at_the_limit() {
    let model = Model::start(|_| async {
        let (feed, answer) = streamed();
        for _ in 0..400 {
            let chunk = bytes::Bytes::from(vec![7; 64 * 1024]);
            let _gone = feed.send(hyper::body::Frame::data(chunk));
        }
        answer
    })
    .await;
    let pki = Pki::new();
    metrics();
    let mut config = with_tls(config(&[model.address], 1), &pki.server(Mode::Strict, &[]));
    config.target = TargetId::new("default", "tls-stalled").unwrap();
    config.serve.send = Some(Duration::from_secs(1));
    let proxy = ready(config).await;
    let mut client = secure(front(&proxy), &pki).await;
    client.send(get("/", "")).await;
    client.head().await;
    until("the slot to be free", || proxy.open() == 0).await;
    let stalled = || outcomes("tls-stalled").get("client-stalled") == Some(&1);
    until("it to be counted", stalled).await;
}

#[tokio::test]
async fn a_websocket_goes_both_ways_and_each_way_ends_by_itself() {
    let model = websocket::echoing().await;
    let pki = Pki::new();
    let tls = pki.server(Mode::Strict, &[]);
    let proxy = ready(with_tls(config(&[model.address], 1), &tls)).await;
    let mut client = secure(front(&proxy), &pki).await;
    client.send(get("/ws", websocket::ASK)).await;
    assert_eq!(client.head().await.status, 101);
    assert_eq!(client.exact(5).await, "hello");
    for message in [&b"\x81\x05\x00\xff\r\n\r\n"[..], &vec![7; 100_000]] {
        client.send(message).await;
        assert_eq!(client.exact(message.len()).await, message);
    }
    assert_eq!((proxy.open(), proxy.load()), (1, 1));
    client.stream.shutdown().await.unwrap();
    assert_eq!(client.rest().await, "bye");
    until("the end of the tunnel", || proxy.open() == 0).await;
    // One that vanishes.
    let mut client = secure(front(&proxy), &pki).await;
    client.send(get("/ws", websocket::ASK)).await;
    client.head().await;
    drop(client);
    until("the end", || proxy.open() == 0).await;
    until("the model's end", || model.seen.open() == 0).await;
}

#[tokio::test]
async fn a_drain_finishes_what_is_in_flight_and_says_goodbye() {
    let (model, gate) = Model::gated().await;
    let pki = Pki::new();
    let tls = pki.server(Mode::Strict, &[]);
    let proxy = ready(with_tls(config(&[model.address], 2), &tls)).await;
    let mut idle = secure(front(&proxy), &pki).await;
    gate.add_permits(1);
    idle.get("/idle").await;
    let mut client = secure(front(&proxy), &pki).await;
    client.send(get("/last", "")).await;
    until("it to arrive", || model.seen.active() == 1).await;
    proxy.begin_drain();
    gate.add_permits(1);
    let answer = client.answer().await;
    assert_eq!(answer.text(), "/last");
    assert_eq!(answer.header("connection"), Some("close"));
    // An end without a goodbye would be an error here.
    assert_eq!(client.rest().await, "");
    let stopping = tokio::spawn(proxy.stop(Duration::from_secs(5)));
    assert_eq!(idle.rest().await, "");
    assert_eq!(within("the stop", stopping).await.unwrap(), 0);
}
