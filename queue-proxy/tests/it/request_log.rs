//! The request log: one line for each request, when its answer has ended, and what it says.

use std::{io, sync::Arc};

use bytes::Bytes;
use hyper::body::Frame;
use parking_lot::Mutex;
use queue_proxy::{Config, timeouts::Timeouts};
use serde_json::Value;
use shared::{
    TargetId, metrics as names,
    record::{Log, Recorder, Settings},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::watch,
    time::Duration,
};

use crate::{
    h2,
    model::{Model, streamed, text},
    raw::{Raw, get, post},
    rig::{UID, activator, addressed, config, front, metrics, outcomes, ready, until},
};

/// What was written.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Written {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().clone()).unwrap()
    }

    /// As soon as there are `n` lines of JSON.
    async fn lines(&self, n: usize) -> Vec<Value> {
        until(&format!("{n} lines"), || self.text().lines().count() >= n).await;
        self.text()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

fn settings(form: &str) -> Settings {
    Settings {
        form: form.parse().unwrap(),
        query: false,
        probes: false,
    }
}

/// A log in JSON of the workload `default/NAME`, and where its lines go.
fn logged(config: &mut Config, name: &str) -> Written {
    metrics();
    let written = Written::default();
    let dropped = names::PROXY_LOG_DROPPED.counter(&[]);
    let log = Log::start(settings("json"), written.clone(), dropped).unwrap();
    config.recorder = Recorder::new(Some(log));
    config.target = TargetId::new("default", name).unwrap();
    written
}

/// The lines are those of as many requests as were counted, with the same outcomes.
async fn as_counted(written: &Written, name: &str, n: usize) -> Vec<Value> {
    let lines = written.lines(n).await;
    assert_eq!(lines.len(), n, "{}", written.text());
    let mut told = std::collections::BTreeMap::new();
    for line in &lines {
        let outcome = line["outcome"].as_str().unwrap().to_owned();
        *told.entry(outcome).or_insert(0_u64) += 1;
    }
    assert_eq!(outcomes(name), told);
    lines
}

#[tokio::test]
async fn an_answered_request_is_one_line_with_all_that_there_is_to_tell() {
    let model = Model::start(|_| async { text("twelve bytes") }).await;
    let mut config = config(&[model.address], 1);
    let written = logged(&mut config, "log-answered");
    let proxy = ready(config).await;
    let mut client = Raw::connect(front(&proxy)).await;
    let lines = "user-agent: curl/8\r\ntraceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00\r\n";
    client.send(post("/v1/x?key=secret", lines, "hello")).await;
    assert_eq!(client.answer().await.status, 200);
    client
        .send("HEAD /head HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
        .await;
    assert_eq!(client.head().await.status, 200);
    let lines = as_counted(&written, "log-answered", 2).await;
    let line = &lines[0];
    let address = client.stream.local_addr().unwrap().to_string();
    for (field, value) in [
        ("program", Value::from("queue-proxy")),
        ("workload", "default/log-answered".into()),
        ("pod", UID.into()),
        ("port", 0.into()),
        ("client", address.into()),
        ("method", "POST".into()),
        ("path", "/v1/x".into()),
        ("protocol", "HTTP/1.1".into()),
        ("user_agent", "curl/8".into()),
        ("trace_id", "4bf92f3577b34da6a3ce929d0e0e4736".into()),
        ("status", 200.into()),
        ("outcome", "2xx".into()),
        ("bytes_received", 5.into()),
        ("bytes_sent", 12.into()),
    ] {
        assert_eq!(line[field], value, "{field}: {line}");
    }
    let ms = |field: &str| line[field].as_f64().unwrap();
    assert!(ms("wait_ms") + ms("first_byte_ms") <= ms("duration_ms"));
    assert_eq!(lines[1]["protocol"], "HTTP/1.0");
    assert_eq!(lines[1]["method"], "HEAD");
    assert_eq!(lines[1]["bytes_sent"], 0);
    assert_eq!(lines[1]["user_agent"], Value::Null);
    assert_eq!(lines[1]["trace_id"], Value::Null);
}

#[tokio::test]
async fn what_an_activator_answers_is_told_as_handed_on_and_what_comes_back_as_served() {
    let model = Model::start(|_| async { text("from here") }).await;
    let there = Model::start(|_| async { text("from there") }).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = listener.local_addr().unwrap();
    drop(listener);
    let ways = [
        ("log-handed-on", there.address, "relayed", "from there"),
        ("log-came-back", nobody, "2xx", "from here"),
    ];
    for (name, to, outcome, body) in ways {
        let mut config = config(&[model.address], 0);
        let written = logged(&mut config, name);
        config.bounce_to = vec![Some(to.into())];
        config.bounce.soft_limit = Some(0);
        let proxy = ready(config).await;
        let mut client = Raw::sent(front(&proxy), post("/", "", "hello")).await;
        assert_eq!(client.answer().await.text(), body);
        let lines = as_counted(&written, name, 1).await;
        for (field, value) in [
            ("outcome", Value::from(outcome)),
            ("status", 200.into()),
            ("bytes_received", 5.into()),
            ("bytes_sent", body.len().into()),
        ] {
            assert_eq!(lines[0][field], value, "{field}: {}", lines[0]);
        }
        let ms = |field: &str| lines[0][field].as_f64().unwrap();
        assert!(ms("wait_ms") + ms("first_byte_ms") <= ms("duration_ms"));
    }
}

#[tokio::test]
async fn a_line_comes_with_the_last_byte_and_not_before() {
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
    let mut config = config(&[model.address], 0);
    let written = logged(&mut config, "log-streamed");
    let proxy = ready(config).await;
    let mut whole = Raw::sent(front(&proxy), get("/whole", "")).await;
    let feed = taken.recv().await.unwrap();
    let mut left = Raw::sent(front(&proxy), get("/left", "")).await;
    let left_feed = taken.recv().await.unwrap();
    for (client, feed) in [(&mut whole, &feed), (&mut left, &left_feed)] {
        client.head().await;
        feed.send(Frame::data(Bytes::from("one"))).unwrap();
        assert_eq!(client.chunk().await.unwrap(), "one");
    }
    assert_eq!(written.text(), "");
    // One who leaves in the middle of the answer.
    drop(left);
    let lines = written.lines(1).await;
    assert_eq!(
        (&lines[0]["path"], &lines[0]["outcome"], &lines[0]["status"]),
        (&"/left".into(), &"client-gone".into(), &200.into())
    );
    assert_eq!(lines[0]["bytes_sent"], 3);
    feed.send(Frame::data(Bytes::from("two"))).unwrap();
    drop(feed);
    assert_eq!(whole.chunk().await.unwrap(), "two");
    assert_eq!(whole.chunk().await, None);
    let lines = as_counted(&written, "log-streamed", 2).await;
    assert_eq!(
        (&lines[1]["path"], &lines[1]["outcome"]),
        (&"/whole".into(), &"2xx".into())
    );
    assert_eq!(lines[1]["bytes_sent"], 6);
}

#[tokio::test]
async fn what_is_refused_has_its_line_too() {
    let (model, gate) = Model::gated().await;
    let mut config = config(&[model.address], 1);
    config.queue_depth = 1;
    config.queue_timeout = Duration::from_millis(300);
    let written = logged(&mut config, "log-refused");
    let proxy = ready(config).await;
    let front = front(&proxy);
    // A head that is none.
    let mut bad = Raw::sent(front, "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n").await;
    assert_eq!(bad.answer().await.status, 400);
    // One at the model, one that waits for too long, and one for whom there is no room.
    let mut first = Raw::sent(front, get("/first", "")).await;
    until("it to be at the model", || model.seen.count() == 1).await;
    let mut late = Raw::sent(front, get("/late", "")).await;
    until("it to wait", || proxy.stats().gauges() == (1, 1)).await;
    let mut full = Raw::sent(front, get("/full", "")).await;
    let answer = full.answer().await;
    assert_eq!(answer.status, 503);
    assert_eq!(late.answer().await.status, 504);
    // One that is meant for another pod, and one whose client leaves before there is an answer.
    let other = "rouse-pod-uid: other\r\nrouse-port: 0\r\n";
    let mut strayed = Raw::sent(activator(&proxy), get("/strayed", other)).await;
    assert_eq!(strayed.answer().await.status, 421);
    gate.add_permits(1);
    assert_eq!(first.answer().await.status, 200);
    let gone = Raw::sent(front, get("/gone", "")).await;
    until("it to be at the model", || model.seen.count() == 2).await;
    drop(gone);
    let lines = as_counted(&written, "log-refused", 6).await;
    let told: Vec<_> = lines
        .iter()
        .map(|line| {
            let path = line["path"].as_str().unwrap_or("-");
            let status = line["status"].as_u64().unwrap_or_default();
            (path, line["outcome"].as_str().unwrap(), status)
        })
        .collect();
    let expected = [
        ("-", "malformed", 400),
        ("/full", "queue-full", 503),
        ("/late", "queue-timeout", 504),
        ("/strayed", "misdirected", 421),
        ("/first", "2xx", 200),
        ("/gone", "client-gone", 0),
    ];
    assert_eq!(told, expected);
    let by = |n: usize, field: &str| lines[n][field].clone();
    assert_eq!(by(0, "method"), Value::Null);
    assert_eq!(
        by(0, "client"),
        bad.stream.local_addr().unwrap().to_string()
    );
    assert_eq!(by(1, "bytes_sent"), answer.body.len());
    assert!(by(2, "wait_ms").as_f64().unwrap() >= 295.0);
    assert_eq!(by(2, "first_byte_ms"), Value::Null);
    assert_eq!(
        (by(3, "port"), by(3, "wait_ms")),
        (Value::Null, Value::Null)
    );
}

#[tokio::test]
async fn a_time_limit_and_a_model_that_breaks_are_told_by_their_codes() {
    let (model, _gate) = Model::gated().await;
    let mut timed = config(&[model.address], 1);
    timed.timeouts = Timeouts {
        response_start: Some(Duration::from_millis(100)),
        ..Timeouts::default()
    };
    let written = logged(&mut timed, "log-late");
    let proxy = ready(timed).await;
    let mut client = Raw::sent(front(&proxy), get("/", "")).await;
    assert_eq!(client.answer().await.status, 504);
    let lines = as_counted(&written, "log-late", 1).await;
    assert_eq!(lines[0]["outcome"], "response-start-timeout");
    assert!(lines[0]["duration_ms"].as_f64().unwrap() >= 95.0);

    let model = Model::raw(|mut stream| async move {
        let _read = stream.read(&mut [0; 1024]).await;
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort";
        stream.write_all(answer).await.unwrap();
    })
    .await;
    let mut config = config(&[model.address], 1);
    let written = logged(&mut config, "log-broke");
    let proxy = ready(config).await;
    let mut client = Raw::sent(front(&proxy), get("/", "")).await;
    client.head().await;
    assert_eq!(client.exact(5).await, "short");
    let lines = as_counted(&written, "log-broke", 1).await;
    assert_eq!(lines[0]["outcome"], "model-broke");
    assert_eq!(
        (&lines[0]["status"], &lines[0]["bytes_sent"]),
        (&200.into(), &5.into())
    );
}

#[tokio::test]
async fn a_websocket_is_one_line_when_it_ends_with_the_bytes_of_both_ways() {
    let model = Model::raw(|mut stream| async move {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nhello";
        stream.write_all(answer).await.unwrap();
        let (mut from, mut to) = stream.split();
        let _gone = tokio::io::copy(&mut from, &mut to).await;
        let _gone = to.write_all(b"bye").await;
    })
    .await;
    let mut config = config(&[model.address], 1);
    let written = logged(&mut config, "log-tunnel");
    let proxy = ready(config).await;
    let ask = "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let mut client = Raw::sent(front(&proxy), get("/ws", ask)).await;
    assert_eq!(client.head().await.status, 101);
    assert_eq!(client.exact(5).await, "hello");
    client.send("four").await;
    assert_eq!(client.exact(4).await, "four");
    assert_eq!(written.text(), "");
    client.stream.shutdown().await.unwrap();
    assert_eq!(client.rest().await, "bye");
    let lines = as_counted(&written, "log-tunnel", 1).await;
    let line = &lines[0];
    assert_eq!(
        (&line["status"], &line["outcome"]),
        (&101.into(), &"1xx".into())
    );
    assert_eq!(line["bytes_received"], 4);
    assert_eq!(line["bytes_sent"], 5 + 4 + 3);
}

#[tokio::test]
async fn requests_of_one_http_2_connection_have_a_line_each() {
    let model = Model::start_h2(|_| async { text("ok") }).await;
    let mut config = config(&[model.address], 0);
    let written = logged(&mut config, "log-h2");
    let proxy = ready(config).await;
    let (mut client, _connection) = h2::connect(front(&proxy)).await;
    for n in 0..3 {
        h2::get(&mut client, &format!("/{n}?q")).await;
    }
    let lines = as_counted(&written, "log-h2", 3).await;
    for (n, line) in lines.iter().enumerate() {
        assert_eq!(line["path"], format!("/{n}"));
        assert_eq!(line["protocol"], "HTTP/2");
        assert_eq!(line["bytes_sent"], 2);
    }
}

#[tokio::test]
async fn probes_and_what_activators_ask_of_the_pod_itself_have_none() {
    let model = Model::ok().await;
    let mut config = config(&[model.address], 0);
    config.probe_paths = vec!["/healthz".to_owned()];
    let written = logged(&mut config, "log-probes");
    let proxy = ready(config).await;
    let mut client = Raw::connect(front(&proxy)).await;
    assert_eq!(client.get("/healthz?x").await.status, 200);
    let mut asks = Raw::connect(activator(&proxy)).await;
    for op in ["wait-ready", "reserve"] {
        let lines = format!("{}rouse-op: {op}\r\n", addressed());
        asks.send(get("/", &lines)).await;
        assert_eq!(asks.answer().await.status, 200);
    }
    asks.send(get("/through", &addressed())).await;
    assert_eq!(asks.answer().await.status, 200);
    // From a client it is a header like any other.
    client.send(get("/posing", "rouse-op: reserve\r\n")).await;
    assert_eq!(client.answer().await.status, 200);
    let lines = written.lines(2).await;
    let paths: Vec<_> = lines.iter().map(|line| line["path"].clone()).collect();
    assert_eq!(paths, ["/through", "/posing"]);
    assert_eq!(lines[0]["port"], 0);
}

#[tokio::test]
async fn no_client_can_write_a_line_of_its_own() {
    let model = Model::ok().await;
    let mut config = config(&[model.address], 0);
    let written = logged(&mut config, "log-hostile");
    let proxy = ready(config).await;
    let mut client = Raw::connect(front(&proxy)).await;
    let mut sent = 0;
    for path in [
        "/%0d%0a%7B%22status%22:200%7D",
        "/'});--{status}",
        "/\"},{\"x\":\"\\",
        "/caf\u{e9}\u{2028}\u{85}",
    ] {
        for agent in [
            &b"a\", \"status\": 999, \"x\": \""[..],
            b"\xff\xfe\xc2\x85\xe2\x80\xa8",
            b"tab\tand \\n",
        ] {
            let mut request =
                format!("GET {path} HTTP/1.1\r\nhost: a\r\nuser-agent: ").into_bytes();
            request.extend_from_slice(agent);
            request.extend_from_slice(b"\r\n\r\n");
            client.send(request).await;
            let status = client.answer().await.status;
            sent += 1;
            if status == 400 {
                // The reader of heads does not let it in, which is a line as well.
                client = Raw::connect(front(&proxy)).await;
            }
            let lines = written.lines(sent).await;
            assert_eq!(lines.len(), sent, "{}", written.text());
            assert_eq!(lines[sent - 1]["status"], status);
            if status == 200 {
                assert_eq!(lines[sent - 1]["path"], path);
                let agent = String::from_utf8_lossy(agent);
                assert_eq!(lines[sent - 1]["user_agent"], agent.trim());
            }
        }
    }
    assert!(outcomes("log-hostile")["2xx"] >= 6);
    let text = written.text();
    let is_plain = |byte: u8| (b' '..=b'~').contains(&byte) || byte == b'\n';
    assert!(text.bytes().all(is_plain), "{text}");
}

/// A pipe that nobody reads, until somebody does.
struct Stuck(watch::Receiver<bool>, Written);

impl io::Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let _gone = runtime.block_on(self.0.wait_for(|open| *open));
        self.1.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn requests_never_wait_for_the_log_and_lines_without_room_are_counted() {
    const REQUESTS: usize = 5_000;
    metrics();
    let model = Model::ok().await;
    let mut config = config(&[model.address], 0);
    let (open, gate) = watch::channel(false);
    let written = Written::default();
    let stuck = Stuck(gate, written.clone());
    let dropped = names::PROXY_LOG_DROPPED.counter(&[]);
    let log = Log::start(settings("{path} {status}"), stuck, dropped).unwrap();
    config.recorder = Recorder::new(Some(log));
    // However slow the machine: each client keeps its connection.
    config.max_connection_age = None;
    let proxy = ready(config).await;
    let served = |address| async move {
        let mut client = Raw::connect(address).await;
        for n in 0..REQUESTS / 2 {
            assert_eq!(client.get(&format!("/{n}")).await.status, 200);
        }
    };
    let front = front(&proxy);
    tokio::join!(served(front), served(front));
    assert_eq!(written.text(), "");
    let lost = dropped_lines();
    assert!((1..REQUESTS).contains(&lost), "{lost}");
    open.send_replace(true);
    until("the rest to be written", || {
        written.text().lines().count() == REQUESTS - lost
    })
    .await;
    assert!(written.text().starts_with("/0 200\n"));
}

/// What `/metrics` says. In this process only one test drops lines.
fn dropped_lines() -> usize {
    let all = metrics().render();
    let line = all
        .lines()
        .find(|line| line.starts_with("rouse_queue_proxy_request_log_dropped_total "));
    let (_, count) = line.unwrap().rsplit_once(' ').unwrap();
    count.parse().unwrap()
}
