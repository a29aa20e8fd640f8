//! The program itself.

use std::{net::SocketAddr, process::Stdio};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::{Child, Command},
    time::{Duration, Instant},
};

use crate::{
    model::Model,
    raw::{Raw, get},
    rig::{until, within},
};

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rouse-queue-proxy"));
    command
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Starts it in front of a model and reads from its log where it listens.
async fn running(model: &Model, more: &[&str]) -> (Child, SocketAddr) {
    let upstream = model.address.to_string();
    let mut child = program()
        .args(["--listen", "127.0.0.1:0", "--upstream", &upstream])
        .args(more)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let address = within("the log to say where", async {
        while let Some(line) = lines.next_line().await.unwrap() {
            let address = line
                .split_whitespace()
                .find_map(|w| w.strip_prefix("address="));
            if let Some(address) = address {
                return address.parse().unwrap();
            }
        }
        panic!("ended without listening")
    })
    .await;
    // The rest of the log must not fill the pipe.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    (child, address)
}

fn signal(child: &Child, signal: rustix::process::Signal) {
    let pid = i32::try_from(child.id().unwrap()).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

#[tokio::test]
async fn on_sigterm_a_request_in_flight_is_finished_and_the_status_is_0() {
    let (model, gate) = Model::gated().await;
    let (mut child, address) = running(&model, &[]).await;
    let mut client = Raw::sent(address, get("/in-flight", "")).await;
    until("it to arrive", || model.seen.count() == 1).await;
    let started = Instant::now();
    signal(&child, rustix::process::Signal::TERM);
    // Others do not know yet that this pod is going: they are served.
    gate.add_permits(1);
    let mut late = Raw::sent(address, get("/late", "")).await;
    until("it to arrive", || model.seen.count() == 2).await;
    gate.add_permits(1);
    assert_eq!(client.answer().await.text(), "/in-flight");
    assert_eq!(late.answer().await.text(), "/late");
    let status = within("the exit", child.wait()).await.unwrap();
    assert_eq!(status.code(), Some(0));
    let took = started.elapsed();
    assert!(
        took >= Duration::from_secs(4),
        "endpoints need time to go: {took:?}"
    );
}

#[tokio::test]
async fn on_sigint_it_ends_as_soon_as_the_request_in_flight_has() {
    let (model, gate) = Model::gated().await;
    let (mut child, address) = running(&model, &[]).await;
    let mut client = Raw::sent(address, get("/in-flight", "")).await;
    until("it to arrive", || model.seen.count() == 1).await;
    signal(&child, rustix::process::Signal::INT);
    gate.add_permits(1);
    assert_eq!(client.answer().await.text(), "/in-flight");
    let status = within("the exit", child.wait()).await.unwrap();
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn the_request_log_is_on_standard_output_and_whole_at_the_exit() {
    let model = Model::ok().await;
    let log = ["--request-log", "{method} {path} {status} {outcome}"];
    let (mut child, address) = running(&model, &log).await;
    let mut client = Raw::connect(address).await;
    for n in 0..100 {
        assert_eq!(client.get(&format!("/{n}?secret")).await.status, 200);
    }
    signal(&child, rustix::process::Signal::INT);
    let status = within("the exit", child.wait()).await.unwrap();
    assert_eq!(status.code(), Some(0));
    let mut said = String::new();
    let mut stdout = child.stdout.take().unwrap();
    within("the log", stdout.read_to_string(&mut said))
        .await
        .unwrap();
    let expected: Vec<_> = (0..100).map(|n| format!("GET /{n} 200 2xx")).collect();
    assert_eq!(said.lines().collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn a_port_in_use_is_one_line_that_names_it_and_status_2() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for flag in ["--listen", "--activator-listen", "--stats-listen"] {
        let mut command = program();
        command.args([flag, &address, "--upstream", "127.0.0.1:1"]);
        if flag != "--listen" {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        let mut child = command.spawn().unwrap();
        let mut said = String::new();
        let mut stderr = child.stderr.take().unwrap();
        within("the last words", stderr.read_to_string(&mut said))
            .await
            .unwrap();
        assert_eq!(child.wait().await.unwrap().code(), Some(2), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains(&address) && said.contains("in use"), "{said}");
    }
}

#[tokio::test]
async fn a_flag_that_cannot_be_is_status_2_and_nothing_binds() {
    for flags in [
        "--listen 127.0.0.1:0",
        "--listen 127.0.0.1:0,127.0.0.1:0 --upstream 127.0.0.1:1",
        "--listen 127.0.0.1:0 --upstream 127.0.0.1:1 --queue-timeout -1",
        "--listen 127.0.0.1:0 --upstream 127.0.0.1:1 --lifecycle-listen 127.0.0.1:0 --lifecycle-token=",
        "--listen 127.0.0.1:0 --upstream 127.0.0.1:1 --request-log {methd}",
    ] {
        let output = program().args(flags.split(' ')).output();
        let output = within("the end", output).await.unwrap();
        assert_eq!(output.status.code(), Some(2), "{flags}");
        assert!(!output.stderr.is_empty());
    }
}
