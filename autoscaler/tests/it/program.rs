//! The program itself.

use std::process::Stdio;

use tokio::{
    net::TcpListener,
    process::Command,
    time::{Duration, timeout},
};

/// Far more than anything here takes; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_signal_during_the_start_ends_it_with_status_0() {
    // A pod that takes the connection and never answers: the start waits for it.
    let hung = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let pod = format!("a={}", hung.local_addr().unwrap());
    let mut child = Command::new(env!("CARGO_BIN_EXE_rouse-autoscaler"))
        .args(["--pod", &pod])
        .env_clear()
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let _asked = timeout(PATIENCE, hung.accept()).await.unwrap().unwrap();
    let kill = format!("kill -TERM {}", child.id().unwrap());
    let killed = Command::new("/bin/sh").args(["-c", &kill]).status().await;
    assert!(killed.unwrap().success());
    let status = timeout(PATIENCE, child.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(0), "{status}");
}
