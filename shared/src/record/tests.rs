use std::{
    io::{self, Write},
    sync::mpsc,
};

use bytes::Bytes;
use http_body::Body as _;
use tokio::sync::watch;

use super::*;
use crate::http::body::Body;

/// Takes lines, and can be kept from it.
#[derive(Clone)]
struct Sink {
    lines: Arc<Mutex<Vec<u8>>>,
    gate: watch::Receiver<bool>,
}

impl Sink {
    fn open() -> Self {
        Self::behind(watch::channel(true).1)
    }

    fn behind(gate: watch::Receiver<bool>) -> Self {
        Self {
            lines: Arc::default(),
            gate,
        }
    }

    fn text(&self) -> String {
        String::from_utf8(self.lines.lock().clone()).unwrap()
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        // A closed channel opens it too.
        let _closed = runtime.block_on(self.gate.wait_for(|open| *open));
        self.lines.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn recorder(form: &str, sink: &Sink) -> Recorder {
    let settings = Settings {
        form: form.parse().unwrap(),
        query: false,
        probes: false,
    };
    let log = Log::start(settings, sink.clone(), metrics::Counter::noop());
    Recorder::new(Some(log.unwrap()))
}

fn place() -> Place {
    Place {
        program: "queue-proxy",
        workload: "default/model".to_owned(),
        port: Some(0),
        pod: Some("pod-1".into()),
        client: ([127, 0, 0, 1], 7).into(),
        is_probe: false,
    }
}

fn request(path: &str, agent: &[u8]) -> Request<()> {
    Request::builder()
        .uri(path)
        .header(USER_AGENT, agent)
        .body(())
        .unwrap()
}

async fn flushed(recorder: &Recorder) {
    recorder.flush(Duration::from_secs(10)).await;
}

#[tokio::test]
async fn a_line_of_json_has_every_field_and_is_written_when_the_answer_has_ended() {
    let sink = Sink::open();
    let recorder = recorder("json", &sink);
    let mut request = request("/v1/models?key=secret", b"curl/8");
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    request
        .headers_mut()
        .insert("traceparent", parent.parse().unwrap());
    let mut record = recorder.begin(&request, place);
    let notes = record.notes();
    notes.waits();
    notes.received().add(5);
    notes.given(None);
    notes.answered();
    record.status(StatusCode::OK);
    record.outcome("2xx");
    let mut body = Body::full("twelve bytes")
        .tallied(notes.sent())
        .ending(record);
    flushed(&recorder).await;
    assert_eq!(sink.text(), "", "the answer is on its way");
    let frame = std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).await;
    assert_eq!(
        frame.unwrap().unwrap().into_data().unwrap(),
        Bytes::from("twelve bytes")
    );
    flushed(&recorder).await;
    let text = sink.text();
    assert!(text.ends_with("}\n") && text.lines().count() == 1, "{text}");
    let line: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
    let names: std::collections::BTreeSet<_> = FIELDS.iter().map(|field| field.name).collect();
    assert!(line.keys().map(String::as_str).eq(names));
    for (name, value) in [
        ("program", "queue-proxy".into()),
        ("workload", "default/model".into()),
        ("pod", "pod-1".into()),
        ("port", 0.into()),
        ("client", "127.0.0.1:7".into()),
        ("method", "GET".into()),
        ("path", "/v1/models".into()),
        ("protocol", "HTTP/1.1".into()),
        ("user_agent", "curl/8".into()),
        ("trace_id", "4bf92f3577b34da6a3ce929d0e0e4736".into()),
        ("status", 200.into()),
        ("outcome", "2xx".into()),
        ("bytes_received", 5.into()),
        ("bytes_sent", 12.into()),
    ] as [(&str, serde_json::Value); 14]
    {
        assert_eq!(line[name], value, "{name}");
    }
    for name in ["duration_ms", "wait_ms", "first_byte_ms"] {
        assert!(
            line[name].as_f64().is_some_and(|ms| ms < 10_000.0),
            "{text}"
        );
    }
    let time: jiff::Timestamp = line["time"].as_str().unwrap().parse().unwrap();
    let age = jiff::Timestamp::now().duration_since(time).as_secs_f64();
    assert!((0.0..10.0).contains(&age), "{text}");
    assert!(line["time"].as_str().unwrap().ends_with('Z'), "{text}");
}

#[tokio::test]
async fn a_request_that_nobody_states_an_outcome_of_is_a_client_that_left() {
    let sink = Sink::open();
    let recorder = recorder("{outcome} {status} {wait_ms} {first_byte_ms} {pod}", &sink);
    drop(recorder.begin(&request("/", b""), place));
    let mut refused = recorder.begin_refused(place);
    refused.outcome("malformed");
    drop(refused);
    flushed(&recorder).await;
    assert_eq!(
        sink.text(),
        "client-gone - - - pod-1\nmalformed - - - pod-1\n"
    );
}

#[tokio::test]
async fn no_byte_from_outside_starts_a_line_or_breaks_one() {
    // All that a header can carry, and some that look like an end of line or of a string.
    let mut agent: Vec<u8> = (32..=255).filter(|byte| *byte != 127).collect();
    agent.insert(0, b'\t');
    agent.extend("\u{85}\u{2028}\u{202e}😀".as_bytes());
    let path = "/%0a%0D\"'{}\u{2028}\\";
    let plain = Sink::open();
    let recorder_plain = recorder("\"{path}\" \"{user_agent}\"", &plain);
    let json = Sink::open();
    let recorder_json = recorder("json", &json);
    let request = match Request::builder().uri(path).body(()) {
        Ok(mut request) => {
            request
                .headers_mut()
                .insert(USER_AGENT, agent.as_slice().try_into().unwrap());
            request
        }
        Err(error) => panic!("{error}"),
    };
    for recorder in [&recorder_plain, &recorder_json] {
        drop(recorder.begin(&request, place));
        flushed(recorder).await;
    }
    for text in [plain.text(), json.text()] {
        assert!(
            text.bytes()
                .all(|byte| (b' '..=b'~').contains(&byte) || byte == b'\n'),
            "{text}"
        );
        assert_eq!(text.matches('\n').count(), 1);
    }
    assert_eq!(plain.text().matches('"').count(), 4, "{}", plain.text());
    assert!(
        plain
            .text()
            .starts_with(r#""/%0a%0D\x22'{}\xe2\x80\xa8\x5c" "\x09 !\x22"#),
        "{}",
        plain.text()
    );
    let line: serde_json::Value = serde_json::from_str(&json.text()).unwrap();
    assert_eq!(line["path"], path);
    assert_eq!(line["user_agent"], *String::from_utf8_lossy(&agent));
}

#[tokio::test]
async fn what_is_long_is_cut() {
    let sink = Sink::open();
    let recorder = recorder("{path} {user_agent}", &sink);
    let path = format!("/{}", "p".repeat(8_000));
    drop(recorder.begin(&request(&path, &[b'a'; 8_000]), place));
    // In the middle of a character.
    let path = format!("/{}ü", "p".repeat(PATH_BYTES - 2));
    drop(recorder.begin(&request(&path, b"a"), place));
    flushed(&recorder).await;
    let text = sink.text();
    let (first, second) = text.trim_end().split_once('\n').unwrap();
    assert_eq!(first.len(), PATH_BYTES + 1 + AGENT_BYTES);
    assert_eq!(second.len(), PATH_BYTES - 1 + 2);
}

#[tokio::test]
async fn probes_are_left_out_and_queries_too_unless_they_are_asked_for() {
    let probe = || Place {
        is_probe: true,
        ..place()
    };
    for (wanted, lines) in [(false, "/\n"), (true, "/?a=1\n/healthz?b\n")] {
        let sink = Sink::open();
        let settings = Settings {
            form: "{path}".parse().unwrap(),
            query: wanted,
            probes: wanted,
        };
        let log = Log::start(settings, sink.clone(), metrics::Counter::noop()).unwrap();
        let recorder = Recorder::new(Some(log));
        drop(recorder.begin(&request("/?a=1", b""), place));
        drop(recorder.begin(&request("/healthz?b", b""), probe));
        flushed(&recorder).await;
        assert_eq!(sink.text(), lines);
    }
}

#[test]
fn without_a_log_there_is_no_record() {
    let recorder = Recorder::default();
    let record = recorder.begin(&request("/", b""), || panic!("nobody wants to know"));
    assert!(record.is_off());
    assert!(record.notes().0.is_none());
    assert!(record.notes().sent().is_off());
    assert_eq!(size_of::<Record>(), size_of::<usize>());
}

/// Counts what is dropped.
#[derive(Debug, Default)]
struct Count(AtomicU64);

impl metrics::CounterFn for Count {
    fn increment(&self, value: u64) {
        self.0.fetch_add(value, Relaxed);
    }

    fn absolute(&self, value: u64) {
        self.0.store(value, Relaxed);
    }
}

#[tokio::test]
async fn a_sink_that_blocks_keeps_nobody_waiting_and_what_is_left_out_is_counted() {
    const REQUESTS: u64 = 10_000;
    let (open, gate) = watch::channel(false);
    let sink = Sink::behind(gate);
    let dropped = Arc::new(Count::default());
    let settings = Settings {
        form: "{path}".parse().unwrap(),
        query: false,
        probes: false,
    };
    let counter = metrics::Counter::from_arc(Arc::clone(&dropped));
    let recorder = Recorder::new(Some(Log::start(settings, sink.clone(), counter).unwrap()));
    for n in 0..REQUESTS {
        drop(recorder.begin(&request(&format!("/{n}"), b""), place));
    }
    // Nobody has waited: nothing was written, and nothing can be.
    assert_eq!(sink.text(), "");
    let left_out = dropped.0.load(Relaxed);
    assert!((1..REQUESTS).contains(&left_out), "{left_out}");
    let late = std::time::Instant::now();
    recorder.flush(Duration::from_millis(50)).await;
    assert!(late.elapsed() < Duration::from_secs(5));
    open.send_replace(true);
    flushed(&recorder).await;
    let lines = sink.text();
    assert_eq!(lines.lines().count() as u64, REQUESTS - left_out);
    assert!(lines.starts_with("/0\n/1\n"), "in the order of their ends");
}

/// A pipe whose reader has left.
struct Broken(mpsc::Sender<()>);

impl Write for Broken {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        let _counted = self.0.send(());
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn lines_that_cannot_be_written_are_counted_and_the_next_are_tried() {
    let (tx, tried) = mpsc::channel();
    let dropped = Arc::new(Count::default());
    let settings = Settings {
        form: Form::Json,
        query: false,
        probes: false,
    };
    let counter = metrics::Counter::from_arc(Arc::clone(&dropped));
    let recorder = Recorder::new(Some(Log::start(settings, Broken(tx), counter).unwrap()));
    for _ in 0..3 {
        drop(recorder.begin(&request("/", b""), place));
        flushed(&recorder).await;
    }
    assert_eq!(tried.try_iter().count(), 3);
    assert_eq!(dropped.0.load(Relaxed), 3);
}
