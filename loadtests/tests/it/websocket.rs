//! Round trips of messages.

use std::{future::pending, time::Duration};

use futures_util::{SinkExt as _, StreamExt as _};
use loadtests::{
    Config, Report,
    check::Check,
    config::{Limit, Load},
    payload::Payload,
    plan::Arrivals,
    protocol::Protocol,
    record::ErrorKind,
    unit::Rate,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_tungstenite::{
    WebSocketStream, accept_async,
    tungstenite::{
        Message,
        handshake::derive_accept_key,
        protocol::{CloseFrame, Role, frame::coding::CloseCode},
    },
};

use crate::{
    command::{output, text},
    schema,
    server::{OK, raw, read_head, run, write},
};

type Socket = WebSocketStream<TcpStream>;

/// Hands every connection to `handler` after its handshake.
async fn server<F>(handler: impl Fn(Socket) -> F + Clone + Send + Sync + 'static) -> String
where
    F: Future<Output = ()> + Send + 'static,
{
    let url = raw(move |stream: TcpStream| {
        let handler = handler.clone();
        async move {
            if let Ok(socket) = accept_async(stream).await {
                handler(socket).await;
            }
        }
    })
    .await;
    url.replace("http://", "ws://")
}

async fn echo(mut socket: Socket) {
    while let Some(Ok(message)) = socket.next().await {
        if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
            return;
        }
    }
}

fn closed(url: &str, body: &'static [u8], binary: bool) -> Config {
    let mut config = Config::new(url).unwrap();
    config.load = Load::Closed(Limit::Requests(20));
    config.timeout = Duration::from_secs(5);
    config.connections = 2;
    config.protocol = Protocol::WebSocket { binary };
    config.body = Payload::Same(body.into());
    config
}

#[track_caller]
fn assert_only(report: &Report, kind: ErrorKind, reason: &str) {
    let errors = &report.summary.errors;
    assert_eq!(*errors, [(kind, 20)].into(), "{report:#?}");
    let said = report.reasons.get(&kind).map_or("", String::as_str);
    assert!(said.contains(reason), "{said}");
    schema::check_report(report);
}

#[tokio::test]
async fn each_message_is_answered_by_the_next_on_one_handshake_per_connection() {
    let url = server(echo).await;
    let large = vec![b'x'; 1 << 20].leak();
    for (body, binary) in [
        (&b"hello"[..], false),
        (b"\xff\0", true),
        (large, false),
        (b"", false),
    ] {
        let report = run(closed(&url, body, binary)).await;
        let summary = &report.summary;
        assert_eq!(
            (summary.successes, summary.error_count),
            (20, 0),
            "{report:#?}"
        );
        assert_eq!(summary.connections_opened, 2);
        assert_eq!(summary.body_bytes, 20 * body.len() as u64);
        assert_eq!(report.config.protocol, "websocket");
        assert!(report.status.is_empty());
        schema::check_report(&report);
    }
}

#[tokio::test]
async fn pings_and_what_nobody_asked_for_are_no_answers_and_checks_look_at_those_that_are() {
    let url = server(async |mut socket: Socket| {
        let _ = socket.send(Message::text("welcome")).await;
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() {
                let _ = socket.send(Message::Ping("a".into())).await;
                // The answer waits for the answer to the ping.
                while !matches!(socket.next().await, Some(Ok(Message::Pong(_))) | None) {}
                let _ = socket.send(Message::text("answer")).await;
            }
        }
    })
    .await;
    let mut config = closed(&url, b"question", false);
    config.load = Config::steady(
        Rate::new(100.0).unwrap(),
        Duration::from_millis(300),
        Arrivals::Constant,
        1,
    );
    config.checks = vec![Check::Contains("answer".to_owned())];
    let report = run(config.clone()).await;
    assert_eq!(
        (report.summary.successes, report.summary.error_count),
        (30, 0),
        "{report:#?}"
    );
    config.load = Load::Closed(Limit::Requests(20));
    config.checks = vec![Check::Contains("else".to_owned())];
    assert_only(&run(config).await, ErrorKind::Content, "");
}

#[tokio::test]
async fn every_way_to_fail_is_told_apart() {
    let url = server(async |mut socket: Socket| {
        let _ = socket.next().await;
        let frame = CloseFrame {
            code: CloseCode::Error,
            reason: "out of memory".into(),
        };
        let _ = socket.close(Some(frame)).await;
    })
    .await;
    let report = run(closed(&url, b"x", false)).await;
    assert_only(&report, ErrorKind::ClosedFresh, "1011 out of memory");

    // Gone without a word, in the middle.
    let url = server(async |mut socket: Socket| drop(socket.next().await)).await;
    let report = run(closed(&url, b"x", false)).await;
    assert_only(&report, ErrorKind::ClosedFresh, "");

    let url = raw(|mut stream: TcpStream| async move {
        while read_head(&mut stream).await {
            write(&mut stream, OK).await;
        }
    })
    .await;
    let report = run(closed(&url, b"x", false)).await;
    assert_only(&report, ErrorKind::Status2xx, "answered with 200");
    assert_eq!(report.status, [("200".to_owned(), 20)].into());

    let url = server(async |mut socket: Socket| while socket.next().await.is_some() {}).await;
    let mut config = closed(&url, b"x", false);
    // All at once, each with enough time for its handshake.
    (config.timeout, config.connections) = (Duration::from_millis(500), 20);
    assert_only(&run(config).await, ErrorKind::Timeout, "");
}

#[tokio::test]
async fn messages_go_over_tls() {
    let authority = crate::tls::Authority::new();
    let acceptor = authority.acceptor(&[b"http/1.1"], false);
    let url = raw(move |stream: TcpStream| {
        let acceptor = acceptor.clone();
        async move {
            let stream = acceptor.accept(stream).await.unwrap();
            let mut socket = accept_async(stream).await.unwrap();
            while let Some(Ok(message)) = socket.next().await {
                if message.is_text() {
                    let _ = socket.send(message).await;
                }
            }
        }
    })
    .await;
    let mut config = closed(&url.replace("http://", "wss://"), b"x", false);
    config.tls.ca = Some(authority.file("ca.pem"));
    let report = run(config).await;
    assert_eq!(report.summary.successes, 20, "{report:#?}");
    assert_eq!(report.config.tls_verified, Some(true));
}

#[tokio::test]
async fn what_makes_no_sense_with_it_is_named() {
    let url = "ws://127.0.0.1:9/";
    let bytes = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(bytes.path(), b"\xff").unwrap();
    let file = bytes.path().display().to_string();
    for (args, words) in [
        (&[url][..], ["URL", "--websocket"]),
        (
            &[url, "--websocket", "--http2"],
            ["--http2", "cannot be used with"],
        ),
        (
            &[url, "--websocket", "--stream", "sse"],
            ["--websocket", "--stream"],
        ),
        (&[url, "--websocket-binary"], ["--websocket", "required"]),
        (
            &[url, "--websocket", "--body-file", &file],
            ["--websocket", "--websocket-binary"],
        ),
        (
            &[url, "--websocket", "--header", "upgrade: h2c"],
            ["--header", "--websocket"],
        ),
        (
            &[url, "--websocket", "--header", "Sec-WebSocket-Key: x"],
            ["sec-websocket-key", "--websocket"],
        ),
        (
            &[url, "--websocket", "--tls-insecure"],
            ["--tls-insecure", "https"],
        ),
    ] {
        let run = output(args).await;
        let error = text(&run.stderr);
        assert_eq!(run.status.code(), Some(2), "{args:?}: {error}");
        assert!(
            words.iter().all(|word| error.contains(word)),
            "{args:?}: {error}"
        );
    }
}

/// Messages that come with the handshake, more than are read in one turn.
const GREETINGS: usize = 40;

#[tokio::test]
async fn however_many_greetings_there_are_they_are_no_answers() {
    let url = raw(|mut stream: TcpStream| async move {
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).await.is_ok() {
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let key = head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: "));
        let key = key.or_else(|| head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")));
        let accept = derive_accept_key(key.unwrap().as_bytes());
        let mut bytes = format!(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {accept}\r\n\r\n"
        )
        .into_bytes();
        // Text of two bytes that is not masked, as servers send it.
        bytes.extend(b"\x81\x02hi".repeat(GREETINGS));
        stream.write_all(&bytes).await.unwrap();
        let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() {
                let _ = socket.send(Message::text("answer")).await;
            }
        }
    })
    .await
    .replace("http://", "ws://");
    let mut config = closed(&url, b"question", false);
    config.checks = vec![Check::Contains("answer".to_owned())];
    let report = run(config).await;
    assert_eq!(
        (report.summary.successes, report.summary.error_count),
        (20, 0),
        "{report:#?}"
    );
}

#[tokio::test]
async fn a_handshake_that_is_not_answered_in_time_is_named() {
    let url = raw(async |stream: TcpStream| {
        pending::<()>().await;
        drop(stream);
    })
    .await;
    let mut config = closed(&url.replace("http://", "ws://"), b"x", false);
    (config.timeout, config.connections) = (Duration::from_millis(300), 20);
    assert_only(
        &run(config).await,
        ErrorKind::Timeout,
        "no answer to the WebSocket handshake",
    );
}

#[tokio::test]
async fn handshakes_that_are_refused_are_no_busy_loop() {
    let url = raw(|mut stream: TcpStream| async move {
        read_head(&mut stream).await;
        let no = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
        write(&mut stream, no).await;
    })
    .await;
    let mut config = closed(&url.replace("http://", "ws://"), b"x", false);
    config.connections = 1;
    config.load = Load::Closed(Limit::Duration(Duration::from_millis(300)));
    let report = run(config).await;
    let count = report.summary.errors[&ErrorKind::Status5xx];
    // After each there is a pause of 10 ms.
    assert!((1..=31).contains(&count), "{count}");
}

#[tokio::test]
async fn who_waits_for_its_turn_to_connect_has_its_whole_time_afterwards() {
    let url = raw(|stream: TcpStream| async move {
        // Four rounds of it are longer than a connection may take.
        tokio::time::sleep(Duration::from_millis(350)).await;
        if let Ok(socket) = accept_async(stream).await {
            echo(socket).await;
        }
    })
    .await;
    let mut config = closed(&url.replace("http://", "ws://"), b"x", false);
    config.connections = 256;
    config.load = Config::steady(
        Rate::new(10.0).unwrap(),
        Duration::from_millis(100),
        Arrivals::Constant,
        1,
    );
    let report = run(config).await;
    assert_eq!(report.summary.connections_opened, 256, "{report:#?}");
}
