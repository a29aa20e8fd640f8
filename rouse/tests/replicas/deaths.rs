//! Rouse itself dies: whatever it started ends too.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rouse::local::process::Exit;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::sleep;

use crate::cases::{FAMILY, family};
use crate::support::{Case, assert_gone, number_in, start};

/// First argument of the Rouse that dies.
pub(crate) const HOST: &str = "__host";

pub(crate) fn all() -> Vec<Case> {
    crate::cases![
        rouse_is_killed,
        rouse_is_killed_right_after_a_start,
        rouse_exits_without_unwinding,
        rouse_panics,
        rouse_returns_from_main,
        the_shim_is_killed,
    ]
}

/// A Rouse with one replica and a given way to end.
pub(crate) async fn host(args: &[String]) {
    let [folder, way] = args else {
        panic!("usage: {HOST} FOLDER WAY")
    };
    let folder = Path::new(folder);
    let replica = start(FAMILY, folder);
    std::fs::write(folder.join("shim"), replica.shim_pid().unwrap().to_string()).unwrap();
    if way == "early" {
        std::future::pending::<()>().await;
    }
    family(folder).await;
    match way.as_str() {
        "return" => {
            // Not even the replica's own drop has run.
            Box::leak(Box::new(replica));
        }
        "exit" => std::process::exit(3),
        "panic" => panic!("as asked"),
        _ => {
            std::future::pending::<()>().await;
        }
    }
}

fn start_host(folder: &Path, way: &str) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .arg(HOST)
        .arg(folder)
        .arg(way)
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    command.kill_on_drop(true).spawn().unwrap()
}

async fn rouse_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let mut host = start_host(folder.path(), "wait");
    let mut pids = family(folder.path()).await;
    pids.push(number_in(&folder.path().join("shim")).await);
    host.start_kill().unwrap();
    assert_gone(&pids).await;
    host.wait().await.unwrap();
}

async fn rouse_is_killed_right_after_a_start() {
    for _ in 0..20 {
        let folder = tempfile::tempdir().unwrap();
        let mut host = start_host(folder.path(), "early");
        let shim = number_in(&folder.path().join("shim")).await;
        host.kill().await.unwrap();
        assert_gone(&[shim]).await;
        // The shim ends last, so that whatever did start is gone by now.
        for file in ["program", "child", "session", "orphan"] {
            if let Ok(pid) = std::fs::read_to_string(folder.path().join(file)) {
                assert_gone(&[pid.trim().parse().unwrap_or(u32::MAX)]).await;
            }
        }
    }
}

async fn rouse_exits_without_unwinding() {
    dies_by_itself("exit").await;
}

async fn rouse_panics() {
    dies_by_itself("panic").await;
}

async fn rouse_returns_from_main() {
    dies_by_itself("return").await;
}

async fn dies_by_itself(way: &str) {
    let folder = tempfile::tempdir().unwrap();
    let mut host = start_host(folder.path(), way);
    host.wait().await.unwrap();
    let mut pids = family(folder.path()).await;
    pids.push(number_in(&folder.path().join("shim")).await);
    assert_gone(&pids).await;
}

async fn the_shim_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let replica = start(
        "sleep 1000 & echo $! >child; echo $$ >program; wait",
        folder.path(),
    );
    let pids = [
        number_in(&folder.path().join("program")).await,
        number_in(&folder.path().join("child")).await,
    ];
    // The shim tells right after the start, but a busy machine may let the program write its number first.
    while replica.pid().is_none() {
        sleep(Duration::from_millis(1)).await;
    }
    let shim = replica
        .shim_pid()
        .and_then(|pid| Pid::from_raw(pid.try_into().ok()?))
        .unwrap();
    kill_process(shim, Signal::KILL).unwrap();
    let exit = tokio::time::timeout(Duration::from_secs(2), replica.wait())
        .await
        .unwrap();
    assert_eq!(exit, Exit::Unknown);
    assert_gone(&pids).await;
}
