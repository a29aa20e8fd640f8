//! The end: of the library and of the program.

use std::{process::Stdio, time::Duration};

use tokio::{
    io::AsyncReadExt,
    process::Command,
    time::{Instant, sleep, timeout},
};

use crate::{
    bed::{Bed, Pod, loopback, metrics, until},
    heartbeats::counted,
    http1::{PATIENCE, Raw, ask, get},
    websocket::HANDSHAKE,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_held_get_the_grace_to_be_handed_out() {
    let bed = Bed::new();
    let site = bed.site("a", |_| {});
    let mut raw = Raw::sent(site.address(), get("/", "x")).await;
    site.holds(1).await;
    let stopping = tokio::spawn(bed.activator.stop(Duration::from_secs(20)));
    let pod = Pod::start("p", 0);
    site.pods(&[&pod]);
    let answer = raw.answer().await.unwrap();
    assert_eq!(answer.status, 200);
    assert!(raw.ends().await);
    timeout(PATIENCE, stopping)
        .await
        .expect("no reason to wait")
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_hands_out_takes_no_new_client_and_still_learns_of_pods() {
    let bed = Bed::new();
    let site = bed.site("a", |_| {});
    let mut raw = Raw::sent(site.address(), get("/", "x")).await;
    site.holds(1).await;
    bed.activator.leave();
    let pod = Pod::start("p", 0);
    let later = async {
        until("closed", || {
            std::net::TcpStream::connect(site.address()).is_err()
        })
        .await;
        site.pods(&[&pod]);
        raw.answer().await.unwrap()
    };
    let (answer, ()) = tokio::join!(later, bed.activator.hand_out(Duration::from_secs(20)));
    assert_eq!((answer.status, answer.closes()), (200, true));
    assert_eq!(bed.activator.held(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_still_held_after_the_grace_are_refused() {
    let bed = Bed::new();
    let site = bed.site("a", |_| {});
    let mut held = Vec::new();
    for i in 0..10 {
        held.push(Raw::sent(site.address(), get("/", "x")).await);
        site.holds(i + 1).await;
    }
    let began = Instant::now();
    let stopping = tokio::spawn(bed.activator.stop(Duration::from_millis(200)));
    for raw in &mut held {
        let answer = raw.answer().await.expect("a refusal");
        assert_eq!((answer.status, answer.closes()), (503, true));
    }
    assert!(began.elapsed() >= Duration::from_millis(200));
    stopping.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_pod_has_gets_the_rest_of_the_grace_to_end() {
    let bed = Bed::new();
    let site = bed.site("a", |_| {});
    let pod = Pod::start("p", 0);
    site.pods(&[&pod]);
    let slow = tokio::spawn(ask(site.address(), get("/sleep?2600", "slow")));
    until("there", || pod.proxy.open() == 1).await;
    let stopping = tokio::spawn(bed.activator.stop(Duration::from_secs(10)));
    assert_eq!(slow.await.unwrap().status, 200);
    timeout(Duration::from_secs(2), stopping)
        .await
        .expect("done then")
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_not_ended_by_then_is_cut_and_counted_as_that() {
    let metrics = metrics();
    let bed = Bed::new();
    let site = bed.site("cut", |_| {});
    let pod = Pod::start("p", 0);
    site.pods(&[&pod]);
    site.ready().await;
    let mut slow = Raw::sent(site.address(), get("/sleep?60000", "slow")).await;
    let mut socket = Raw::sent(site.address(), HANDSHAKE).await;
    assert_eq!(socket.answer().await.unwrap().status, 101);
    until("both there", || pod.proxy.open() == 2).await;
    // One who leaves by himself, while the others are waited for, is counted as gone.
    let mut left = Raw::sent(site.address(), HANDSHAKE).await;
    assert_eq!(left.answer().await.unwrap().status, 101);
    let stopping = tokio::spawn(bed.activator.stop(Duration::from_millis(400)));
    sleep(Duration::from_millis(100)).await;
    drop(left);
    counted(&metrics, "default/cut", &[("1xx", 1)]).await;
    stopping.await.unwrap();
    assert!(slow.ends().await && socket.ends().await);
    counted(&metrics, "default/cut", &[("1xx", 1), ("cut", 2)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_pod_has_gets_its_patience_although_those_held_used_up_the_grace() {
    let bed = Bed::new();
    let site = bed.site("a", |_| {});
    let pod = Pod::start("p", 0);
    site.pods(&[&pod]);
    let slow = tokio::spawn(ask(site.address(), get("/sleep?800", "slow")));
    until("there", || pod.proxy.open() == 1).await;
    let stopping = bed.activator.stop_patiently(Duration::ZERO, PATIENCE);
    let stopping = tokio::spawn(stopping);
    assert_eq!(slow.await.unwrap().status, 200);
    timeout(Duration::from_secs(2), stopping)
        .await
        .expect("done then")
        .unwrap();
}

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rouse-activator"));
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

async fn ends_with(mut command: Command) -> (Option<i32>, String) {
    let output = timeout(PATIENCE, command.output())
        .await
        .expect("it ends")
        .unwrap();
    (
        output.status.code(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flag_that_cannot_be_ends_the_program_with_2() {
    for flags in [
        &[][..],
        &["--listen", "nowhere"],
        &["--listen", "127.0.0.1:0", "--container-concurrency", "-1"],
        &["--listen", "127.0.0.1:0", "--pod", "no-address"],
        &["--listen", "127.0.0.1:0", "--no-such-flag"],
    ] {
        let mut command = program();
        command.args(flags);
        let (code, stderr) = ends_with(command).await;
        assert_eq!(code, Some(2), "{flags:?}: {stderr}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_is_in_use_ends_the_program_with_2_and_one_line() {
    let taken = std::net::TcpListener::bind(loopback()).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for flags in [
        &["--listen", &address][..],
        &["--listen", "127.0.0.1:0", "--stats-listen", &address],
    ] {
        let mut command = program();
        command.args(flags);
        let (code, stderr) = ends_with(command).await;
        assert_eq!(code, Some(2), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(
            stderr.contains(&address) && stderr.contains("in use"),
            "{stderr}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_program_serves_its_pods_and_ends_with_0_when_it_is_told_to() {
    let pod = Pod::start("p", 0);
    let free = std::net::TcpListener::bind(loopback()).unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let at = pod.proxy.activator_address().unwrap();
    let mut command = program();
    command.args([
        "--listen",
        &address.to_string(),
        "--pod",
        &format!("p={at}"),
    ]);
    let mut child = command.spawn().unwrap();
    let end = Instant::now() + PATIENCE;
    while tokio::net::TcpStream::connect(address).await.is_err() {
        assert!(Instant::now() < end, "it never listens");
        sleep(Duration::from_millis(5)).await;
    }
    let answer = ask(address, get("/", "x")).await;
    assert_eq!((answer.status, answer.header("x-model")), (200, Some("p")));
    let pid = i32::try_from(child.id().unwrap()).unwrap();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid).unwrap(),
        rustix::process::Signal::TERM,
    )
    .unwrap();
    let status = timeout(PATIENCE, child.wait())
        .await
        .expect("it ends")
        .unwrap();
    let mut stderr = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut stderr)
        .await
        .unwrap();
    assert_eq!(status.code(), Some(0), "{stderr}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_access_to_a_cluster_the_program_says_so_once_and_ends() {
    let mut program = Command::new(env!("CARGO_BIN_EXE_rouse-activator"));
    program
        .env_clear()
        .env("HOME", "/there/is/no/such/home")
        .arg("--kubernetes");
    let done = timeout(PATIENCE, program.output()).await.unwrap().unwrap();
    assert_eq!(done.status.code(), Some(2));
    let said = String::from_utf8(done.stderr).unwrap();
    assert_eq!(said.matches("in-cluster").count(), 1, "{said}");
    assert!(said.contains("set KUBECONFIG"), "{said}");
}
