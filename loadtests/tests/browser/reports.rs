//! Reports of every kind: of real runs where one can be had quickly, else from `fixtures`.

use loadtests::config::{Limit, Load};
use loadtests::plan::{Schedule, Stages};
use loadtests::{Config, Report};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;
use tokio::sync::watch;

/// Answers so far, of all servers.
static ANSWERS: AtomicU64 = AtomicU64::new(0);

/// Answers the requests of a connection.
fn answer(stream: &TcpStream) {
    let mut lines = BufReader::new(stream).lines();
    let mut may_fail = false;
    while let Some(Ok(line)) = lines.next() {
        may_fail |= line.contains("/some-fail");
        if !line.is_empty() {
            continue;
        }
        let number = ANSWERS.fetch_add(1, Ordering::Relaxed);
        let status = if number % 10 == 9 && may_fail {
            "503 No"
        } else {
            "200 OK"
        };
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-length: 2\r\nx-served-by: pod-{}\r\n\r\nok",
            number % 3
        );
        let mut stream = stream;
        if stream.write_all(head.as_bytes()).is_err() {
            break;
        }
    }
}

/// A server that says one of three names, and whose every tenth answer is a 503 if it is asked for that by the path.
fn server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || answer(&stream));
        }
    });
    format!("http://{address}")
}

fn run(config: Config) -> Report {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let (_stop, stopped) = watch::channel(false);
    runtime
        .block_on(loadtests::run(config, |_| (), stopped))
        .unwrap()
}

/// Requests one after the other, all of which are answered well.
pub(crate) fn closed() -> Report {
    let mut config = Config::new(&format!("{}/v1/models/iris:predict", server())).unwrap();
    config.load = Load::Closed(Limit::Duration(Duration::from_millis(2_200)));
    config.connections = 4;
    run(config)
}

/// By a plan, with errors, and objectives of which one is missed.
pub(crate) fn open() -> Report {
    let mut config = Config::new(&format!("{}/some-fail", server())).unwrap();
    let Stages(stages) = "1s@50..100,2s@100".parse().unwrap();
    config.load = Load::Open(Schedule::of_stages(stages));
    config.connections = 8;
    let mut report = run(config);
    report.judge(&"p99<10s,errors<1%".parse().unwrap());
    report
}

/// Several workloads' worth of cold starts, made by hand.
pub(crate) fn cold() -> Report {
    serde_json::from_str(include_str!("fixtures/cold.json")).unwrap()
}

/// A report whose every text tries to be more than text.
pub(crate) fn hostile() -> Report {
    let bad = "</script><img src=x onerror=\"window.owned=1\"><!--<script>window.owned=1</script>\u{2028}'\"`{{script}}${1}";
    let mut report = cold();
    report.config.url = format!("http://127.0.0.1/{bad}{}", "long".repeat(200));
    report.config.headers = vec![bad.to_owned()];
    bad.clone_into(&mut report.tool);
    report.served_by = (0..30).map(|n| (format!("{n}{bad}"), n + 1)).collect();
    report.status = [(bad.to_owned(), 3)].into();
    let cold = report.cold.as_mut().unwrap();
    for wake in &mut cold.wakes {
        bad.clone_into(&mut wake.reason);
        wake.pod = Some(bad.to_owned());
        bad.clone_into(&mut wake.workload);
        for phase in &mut wake.phases {
            bad.clone_into(&mut phase.name);
        }
    }
    for moment in &mut cold.replicas {
        bad.clone_into(&mut moment.workload);
    }
    report
}

/// Of a run without a request.
pub(crate) fn empty() -> Report {
    serde_json::from_str(include_str!("fixtures/empty.json")).unwrap()
}
