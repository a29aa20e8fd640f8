//! The command as people and scripts use it.

use crate::server::{http, ok};
use loadtests::Report;
use loadtests::journal::Outcome;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rouse-load"));
    command
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

pub(crate) async fn output(args: &[&str]) -> Output {
    let mut command = command(args);
    spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap()
}

/// Starts the command.
pub(crate) fn begin(args: &[&str]) -> Child {
    command(args).spawn().unwrap()
}

pub(crate) fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

/// Interrupts the command once `moment` has come.
pub(crate) async fn interrupted_after(args: &[&str], mut moment: mpsc::Receiver<()>) -> Output {
    let child = begin(args);
    moment.recv().await.unwrap();
    signal(&child, Signal::INT);
    spawn_blocking(move || child.wait_with_output().unwrap())
        .await
        .unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn nonsense_is_one_line_and_exit_two() {
    let url = "http://127.0.0.1:9/";
    for (args, words) in [
        (
            &[url, "--rate", "0"][..],
            ["--rate", "'0'", "0.0001 to 1000000"],
        ),
        (
            &[url, "--rate", "1e9"],
            ["--rate", "'1e9'", "0.0001 to 1000000"],
        ),
        (
            &[url, "--stages", "10s@5,1m"],
            ["--stages", "\"1m\"", "30s@50"],
        ),
        (
            &[url, "--duration", "0s"],
            ["--duration", "0ns", "at most 24h"],
        ),
        (
            &[url, "--connections", "0"],
            ["--connections", "\"0\"", "1 to 50000"],
        ),
        (
            &[url, "--json", "/nonexistent/report"],
            ["--json", "/nonexistent/report", "written"],
        ),
        (
            &[url, "--journal", "/nonexistent/journal"],
            ["--journal", "/nonexistent/journal", "No such file"],
        ),
        (
            &[url, "--header", "Content-Length: 5"],
            ["--header", "content-length", "framing"],
        ),
        (
            &[url, "--prometheus", "/"],
            ["--prometheus", "\"/\"", "a file that can be written"],
        ),
        (
            &["nonsense"],
            ["URL", "nonsense", "an absolute http or https URL"],
        ),
        (
            &["http://no-such-host.invalid/"],
            ["URL", "no-such-host.invalid", "cannot resolve"],
        ),
    ] {
        let output = output(args).await;
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(
            (output.status.code(), stdout.as_str()),
            (Some(2), ""),
            "{args:?}: {stderr}"
        );
        assert_eq!(stderr.trim_end().lines().count(), 1, "{args:?}: {stderr}");
        for word in words {
            assert!(stderr.contains(word), "{args:?} lacks {word}: {stderr}");
        }
    }
}

#[tokio::test]
async fn a_good_run_prints_a_table_and_writes_what_was_asked_for() {
    let url = http(|_| async { ok() }).await;
    let dir = tempfile::tempdir().unwrap();
    let (json, journal) = (
        dir.path().join("report.json"),
        dir.path().join("journal.jsonl"),
    );
    let (json, journal) = (json.to_str().unwrap(), journal.to_str().unwrap());
    let args = [
        "-n",
        "50",
        "-c",
        "4",
        "--json",
        json,
        "--journal",
        journal,
        "--body",
        "x",
        "--fail-on-errors",
        &url,
    ];
    let output = output(&args).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "", "quiet where nobody watches");
    let table = text(&output.stdout);
    assert!(
        table.contains("throughput")
            && table.contains("p99.9")
            && table.contains("50 ok, 0 errors"),
        "{table}"
    );
    let report: Report = serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap();
    assert_eq!(
        (report.summary.successes, report.config.method.as_str()),
        (50, "POST")
    );
    let lines = fs::read_to_string(journal).unwrap();
    let told: Vec<Outcome> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(told.len(), 50);
}

#[tokio::test]
async fn errors_change_the_exit_status_only_on_request() {
    let url = "http://127.0.0.1:1/"; // nothing listens there
    let quiet = output(&["-n", "3", "-c", "1", "--json", "-", url]).await;
    assert_eq!(quiet.status.code(), Some(0), "{}", text(&quiet.stderr));
    let report: Report = serde_json::from_slice(&quiet.stdout).unwrap();
    assert_eq!(report.summary.error_count, 3);
    let strict = output(&["-n", "3", "-c", "1", "--fail-on-errors", url]).await;
    assert_eq!(strict.status.code(), Some(1));
}

#[tokio::test]
async fn an_interrupt_ends_with_a_partial_report() {
    let url = http(|_| async { ok() }).await;
    let child = command(&["-d", "60s", "-c", "2", "--json", "-", &url])
        .spawn()
        .unwrap();
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    sleep(Duration::from_millis(600)).await;
    kill_process(pid, Signal::INT).unwrap();
    let output = spawn_blocking(move || child.wait_with_output().unwrap())
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    let report: Report = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report.interrupted && report.summary.successes > 0);
}

#[tokio::test]
async fn the_signal_that_ends_a_pod_ends_with_a_partial_report_too() {
    let (tell, mut came) = mpsc::channel(1);
    let url = http(move |_| {
        let _full = tell.try_send(());
        async { ok() }
    })
    .await;
    let child = begin(&["-d", "60s", "-c", "2", "--json", "-", &url]);
    came.recv().await.unwrap();
    signal(&child, Signal::TERM);
    let output = spawn_blocking(move || child.wait_with_output().unwrap())
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    let report: Report = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report.interrupted);
}

#[tokio::test]
async fn help_says_what_it_does() {
    let output = output(&["--help"]).await;
    let help = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0));
    for words in [
        "closed loop",
        "open loop",
        "--stages",
        "Exit status",
        "Examples",
    ] {
        assert!(help.contains(words), "{words}: {help}");
    }
}
