//! The program itself.

use std::{net::SocketAddr, process::Stdio};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::{Child, Command},
    time::{Duration, Instant},
};

use crate::{
    model::Model,
    pki::{NAME, Pki, handshake},
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

#[tokio::test]
async fn a_file_of_tls_that_cannot_be_used_is_one_line_that_names_flag_and_file_and_status_2() {
    let pki = Pki::new();
    let pair = pki.issue(NAME);
    let path = |name: &str, text: &str| {
        let file = pki.file("", name, text);
        file.path.to_str().unwrap().to_owned()
    };
    let ca = path("ca.crt", &pki.pem());
    let (certificate, key) = (path("a.crt", &pair.certificate), path("a.key", &pair.key));
    let other = path("other.key", &pki.issue(NAME).key);
    let (expired, bad) = (
        path("expired.crt", &pki.expired(NAME).certificate),
        path(
            "bad.pem",
            "-----BEGIN CERTIFICATE-----\nMIIB!\n-----END CERTIFICATE-----\n",
        ),
    );
    let empty = path("empty.pem", "");
    let none = format!("{ca}.none");
    let server = "--tls-certificate";
    for (flags, flag, file, says) in [
        (
            [server, &none, "--tls-key", &key],
            server,
            &none,
            "cannot be read: No such file",
        ),
        (
            [server, &certificate, "--tls-key", &none],
            "--tls-key",
            &none,
            "cannot be read",
        ),
        (
            [server, &bad, "--tls-key", &key],
            server,
            &bad,
            "is not PEM",
        ),
        (
            [server, &empty, "--tls-key", &key],
            server,
            &empty,
            "has no certificate",
        ),
        (
            [server, &key, "--tls-key", &key],
            server,
            &key,
            "has no certificate",
        ),
        (
            [server, &certificate, "--tls-key", &certificate],
            "--tls-key",
            &certificate,
            "has no private key",
        ),
        (
            [server, &certificate, "--tls-key", &other],
            "--tls-key",
            &other,
            "is not the key of the certificate",
        ),
        (
            [server, &expired, "--tls-key", &key],
            server,
            &expired,
            "has expired",
        ),
        (
            ["--upstream-tls-ca", &none, "--upstream-tls-name", "a"],
            "--upstream-tls-ca",
            &none,
            "cannot be read",
        ),
        (
            ["--upstream-tls-ca", &key, "--upstream-tls-name", "a"],
            "--upstream-tls-ca",
            &key,
            "has no certificate",
        ),
    ] {
        let mut command = program();
        command.args(["--listen", "127.0.0.1:0", "--upstream", "127.0.0.1:1"]);
        let output = within("the end", command.args(flags).output())
            .await
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        let begins = format!("rouse-queue-proxy: {flag} {file}: ");
        assert!(said.starts_with(&begins) && said.contains(says), "{said}");
    }
}

#[tokio::test]
async fn the_program_serves_what_its_flags_say_over_tls() {
    let pki = Pki::new();
    let model = Model::ok().await;
    let (certificate, key) = pki.write(&pki.issue(NAME));
    let client_ca = pki.file("--tls-client-ca", "ca.crt", &pki.pem());
    let mut flags = Vec::new();
    for file in [&certificate, &key, &client_ca] {
        flags.extend([file.flag, file.path.to_str().unwrap()]);
    }
    flags.extend(["--tls-client-name", "spiffe://a/*,client.example"]);
    let own = pki.issue("client.example");
    let connector = pki.connector(&["h2", "http/1.1"], Some(&own));
    let agreed = async |flags: &[&str]| {
        let (child, address) = running(&model, flags).await;
        let stream = handshake(address, &connector).await.unwrap();
        let protocol = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        (child, stream, protocol.unwrap())
    };
    // Most models know no HTTP/2, and most clients would take it.
    let (_child, stream, protocol) = agreed(&flags).await;
    assert_eq!(protocol, b"http/1.1");
    assert_eq!(Raw::over(stream).get("/").await.text(), "ok");
    flags.extend(["--tls-protocols", "h2,http/1.1"]);
    let (_child, _stream, protocol) = agreed(&flags).await;
    assert_eq!(protocol, b"h2");
}
