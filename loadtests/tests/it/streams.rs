//! Streams of events: when they begin, how they go on, and how they fail.

use std::{future::pending, time::Duration};

use loadtests::{
    Config, Report,
    check::Check,
    config::{Limit, Load},
    merge::merge,
    payload::Payload,
    protocol::{Dialect, Protocol},
    record::ErrorKind,
    slo::Objectives,
    table::Table,
};
use tokio::{io::AsyncWriteExt, net::TcpStream, time::sleep};

use crate::{
    command::{output, text},
    schema,
    server::{http, raw, read_head, run, write},
};

const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n";

fn closed(url: &str, requests: u64, dialect: Dialect) -> Config {
    let mut config = Config::new(url).unwrap();
    config.load = Load::Closed(Limit::Requests(requests));
    config.timeout = Duration::from_secs(5);
    config.protocol = Protocol::Events(dialect);
    config
}

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

/// Answers each request with these pieces as chunks, one every `gap`, and ends the body.
async fn streaming(pieces: &'static [&'static str], gap: Duration) -> String {
    raw(move |mut stream: TcpStream| async move {
        stream.set_nodelay(true).unwrap();
        while read_head(&mut stream).await {
            write(&mut stream, HEAD.as_bytes()).await;
            for piece in pieces {
                sleep(gap).await;
                write(&mut stream, chunk(piece).as_bytes()).await;
            }
            write(&mut stream, b"0\r\n\r\n").await;
        }
    })
    .await
}

const ROLE: &str =
    "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n";
const TOKEN: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"}}]}\n\n";
const DONE: &str = "data: [DONE]\n\n";

#[track_caller]
fn assert_only(report: &Report, kind: ErrorKind, reason: &str) {
    let errors: Vec<_> = report.summary.errors.keys().copied().collect();
    assert_eq!(errors, [kind], "{report:#?}");
    assert_eq!(report.summary.successes, 0);
    let said = report.reasons.get(&kind).map_or("", String::as_str);
    assert!(said.contains(reason), "{said}");
}

#[tokio::test]
async fn a_chat_is_counted_by_its_tokens() {
    let gap = Duration::from_millis(20);
    let url = streaming(&[ROLE, TOKEN, ": ping\n\n", TOKEN, TOKEN, DONE], gap).await;
    let report = run(closed(&url, 3, Dialect::OpenAi)).await;
    assert_eq!(
        (report.summary.successes, report.summary.error_count),
        (3, 0),
        "{report:#?}"
    );
    assert_eq!(report.summary.connections_opened, 1);
    let streams = report.streams.unwrap();
    assert_eq!(
        (streams.streams, streams.events, streams.tokens),
        (3, 12, 9)
    );
    let counts = [
        streams.ttfb,
        streams.first_event,
        streams.first_token,
        streams.inter_event,
        streams.inter_token,
        streams.time_per_token,
    ]
    .map(|percentiles| percentiles.count);
    assert_eq!(counts, [3, 3, 3, 9, 6, 3]);
    // The server waits so long before the role, again before the first token, and twice before the second.
    let least = |value: Option<f64>, gaps: f64| {
        let (value, gap) = (value.unwrap(), gap.as_secs_f64());
        assert!(
            value > gap * (gaps - 0.5),
            "{value} for {gaps} gaps: {streams:#?}"
        );
    };
    least(streams.first_event.p50, 1.0);
    least(streams.first_token.p50, 2.0);
    least(streams.inter_token.max, 2.0);
    least(streams.time_per_token.p50, 1.5);
    assert!(
        streams.ttfb.p50 < streams.first_event.p50
            && streams.first_event.p50 < streams.first_token.p50
    );
    assert!(streams.first_token.max < report.summary.latency.max);
    assert!(streams.tokens_per_second > 0.0);
    schema::check_report(&report);
    let table = Table(&report).to_string();
    assert!(
        table.contains("first token") && table.contains("9 tokens"),
        "{table}"
    );
}

#[tokio::test]
async fn events_of_any_kind_are_counted_over_both_versions_of_http() {
    const BODY: &str = "data: a\n\nevent: x\ndata: b\ndata: c\n\n: no event\n\ndata: d";
    let url = http(|request| async move {
        let accepts = &request.headers()["accept"];
        assert_eq!(accepts, "text/event-stream");
        let body = http_body_util::Full::new(bytes::Bytes::from(BODY));
        let mut response = http::Response::new(body);
        let kind = "text/event-stream".parse().unwrap();
        response.headers_mut().insert("content-type", kind);
        response
    })
    .await;
    for http2 in [false, true] {
        let mut config = closed(&url, 4, Dialect::Sse);
        config.http2 = http2;
        config.checks = vec![Check::Contains("data: c".to_owned())];
        let report = run(config).await;
        assert_eq!(report.summary.successes, 4, "{report:#?}");
        let streams = report.streams.unwrap();
        assert_eq!((streams.streams, streams.events, streams.tokens), (4, 8, 0));
        assert_eq!(
            (streams.first_event.count, streams.inter_event.count),
            (4, 4)
        );
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_stream_is_told_apart() {
    let none = Duration::ZERO;
    for (pieces, dialect, kind, reason) in [
        (
            &[ROLE, TOKEN][..],
            Dialect::OpenAi,
            ErrorKind::Body,
            "[DONE]",
        ),
        (
            &[
                TOKEN,
                "data: {\"error\":{\"message\":\"out of memory\"}}\n\n",
                DONE,
            ],
            Dialect::OpenAi,
            ErrorKind::Content,
            "out of memory",
        ),
        (
            &["data: x\n\n", DONE],
            Dialect::OpenAi,
            ErrorKind::Content,
            "no JSON",
        ),
        (
            &["data: x\n\n", "event: error\ndata: upstream is gone\n\n"],
            Dialect::Sse,
            ErrorKind::Content,
            "upstream is gone",
        ),
    ] {
        let url = streaming(pieces, none).await;
        assert_only(&run(closed(&url, 2, dialect)).await, kind, reason);
    }
    let url = http(|_| async { crate::server::ok() }).await;
    let report = run(closed(&url, 2, Dialect::Sse)).await;
    assert_only(&report, ErrorKind::Content, "not text/event-stream");
    let report = run(Config {
        expect: loadtests::config::Expect::Status(404),
        ..closed(&url, 2, Dialect::Sse)
    })
    .await;
    assert_only(&report, ErrorKind::Status2xx, "");
}

#[tokio::test]
async fn a_line_without_end_is_an_error_and_not_kept() {
    let url = raw(|mut stream: TcpStream| async move {
        read_head(&mut stream).await;
        write(&mut stream, HEAD.as_bytes()).await;
        let piece = chunk(&"x".repeat(60_000));
        while stream.write_all(piece.as_bytes()).await.is_ok() {}
    })
    .await;
    let mut config = closed(&url, 1, Dialect::Sse);
    config.timeout = Duration::from_millis(500);
    assert_only(&run(config).await, ErrorKind::Body, "1 MiB");
}

#[tokio::test]
async fn a_target_that_dies_in_the_middle_leaves_a_full_report() {
    let url = raw(|mut stream: TcpStream| async move {
        read_head(&mut stream).await;
        write(&mut stream, HEAD.as_bytes()).await;
        write(&mut stream, chunk(TOKEN).as_bytes()).await;
        write(&mut stream, chunk(TOKEN).as_bytes()).await;
    })
    .await;
    let mut config = closed(&url, 20, Dialect::OpenAi);
    config.connections = 4;
    let report = run(config).await;
    assert_only(&report, ErrorKind::Body, "");
    let streams = report.streams.unwrap();
    assert_eq!(
        (streams.streams, streams.tokens),
        (20, 40),
        "what was seen is in the report"
    );
    assert_eq!(streams.first_token.count, 20);
}

#[tokio::test]
async fn an_idle_stream_ends_with_the_timeout() {
    let url = raw(|mut stream: TcpStream| async move {
        read_head(&mut stream).await;
        write(&mut stream, HEAD.as_bytes()).await;
        write(&mut stream, chunk(TOKEN).as_bytes()).await;
        pending::<()>().await;
    })
    .await;
    let mut config = closed(&url, 2, Dialect::OpenAi);
    config.timeout = Duration::from_millis(200);
    let report = run(config).await;
    assert_only(&report, ErrorKind::Timeout, "");
    assert_eq!(report.streams.unwrap().tokens, 2);
}

#[tokio::test]
async fn reports_of_streams_are_merged_and_held_to_objectives() {
    let url = streaming(&[TOKEN, TOKEN, DONE], Duration::from_millis(5)).await;
    let mut config = closed(&url, 3, Dialect::OpenAi);
    config.body = Payload::Same("{}".into());
    let one = run(config.clone()).await;
    let mut merged = merge(&[one.clone(), one]).unwrap();
    let streams = merged.streams.unwrap();
    assert_eq!((streams.streams, streams.tokens), (6, 12));
    assert_eq!(
        (streams.first_token.count, streams.inter_token.count),
        (6, 6)
    );
    schema::check_report(&merged);
    let objectives: Objectives =
        "ttft.p95<5s,itl.max<5s,tpot.mean<5s,ttfb.p50<5s,ttfe.p50<5s,tokens>0"
            .parse()
            .unwrap();
    assert!(merged.judge(&objectives), "{:?}", merged.slo);
    assert!(!merged.judge(&"ttft.p50<1ms".parse().unwrap()));
    config.protocol = Protocol::Plain;
    let mut plain = run(config).await;
    assert!(!plain.judge(&objectives) && plain.streams.is_none());
}

#[tokio::test]
async fn forms_that_there_are_not_are_named() {
    let url = "http://127.0.0.1:9/";
    for (args, words) in [
        (&[url, "--stream", "tea"][..], ["--stream", "openai"]),
        (
            &[url, "--stream", "sse", "--grpc", "a/b"],
            ["--grpc", "--stream"],
        ),
        (&[url, "--slo", "ttft.p95>1s"], ["--slo", "ttft"]),
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

#[tokio::test]
async fn of_an_error_event_only_its_message_is_kept() {
    const ERROR: &str =
        "event: error\ndata: {\"error\":{\"message\":\"too long\",\"prompt\":\"secret\"}}\n\n";
    let url = streaming(&[ERROR], Duration::ZERO).await;
    let report = run(closed(&url, 2, Dialect::Sse)).await;
    assert_eq!(report.reasons[&ErrorKind::Content], "too long");
}
