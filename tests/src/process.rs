//! Processes: our programs run as people run them, and what can be known of any process from outside.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    process::{ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, BufReader},
    process::{Child, Command},
    time::timeout,
};

use crate::wait;

/// A program under way. Killed when dropped.
#[derive(Debug)]
pub struct Program {
    child: Child,
    pid: u32,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Program {
    /// Starts `path` with `args` in `folder`.
    pub fn start(path: &Path, args: &[&str], folder: &Path) -> Self {
        let mut child = Command::new(path)
            .args(args)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the program starts");
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let (out, err) = (child.stdout.take(), child.stderr.take());
        tokio::spawn(keep(out.expect("it is piped"), Arc::clone(&lines)));
        tokio::spawn(keep(err.expect("it is piped"), Arc::clone(&lines)));
        let pid = child.id().expect("it was not waited for");
        Self { child, pid, lines }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// What it has printed.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().clone()
    }

    /// Waits for a line of which `read` makes something.
    pub async fn line<T>(&self, what: &str, read: impl Fn(&str) -> Option<T>) -> T {
        wait::some(what, Duration::from_secs(10), || {
            self.lines.lock().iter().find_map(|line| read(line))
        })
        .await
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        send(self.pid, signal);
    }

    /// Waits for its end.
    pub async fn end(&mut self, limit: Duration) -> ExitStatus {
        let Ok(status) = timeout(limit, self.child.wait()).await else {
            panic!("still running after {limit:?}: {:#?}", self.lines());
        };
        status.expect("it can be waited for")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("process {} printed {:#?}", self.pid, self.lines());
        }
    }
}

/// A program that has ended.
#[derive(Debug)]
pub struct Done {
    /// Its status, unless a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
}

/// Runs `path` with `args` in `folder` to its end, and to the end of everything that has its output.
pub async fn run(path: &Path, args: &[&str], folder: &Path, limit: Duration) -> Done {
    let run = Command::new(path)
        .args(args)
        .current_dir(folder)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(limit, run).await.expect("it ends in time");
    let output = output.expect("the program starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Done {
        code: output.status.code(),
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
    }
}

/// A port on which nobody listens, each time another one, for a program that is told its port. It lies above those that
/// models get and below those that the system gives to outgoing connections.
pub fn free_port() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Two test programs at once rarely begin at the same place.
    let base = u16::try_from(std::process::id() % 20).expect("it is small") * 100 + 30_100;
    loop {
        let port = base + NEXT.fetch_add(1, Relaxed) % 600;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

async fn keep(stream: impl AsyncRead + Unpin, lines: Arc<Mutex<Vec<String>>>) {
    let mut reader = BufReader::new(stream).lines();
    while let Ok(Some(line)) = reader.next_line().await {
        lines.lock().push(line);
    }
}

/// Sends a signal to a process that this test started. One that is gone already is left alone.
pub fn send(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    // Whether it was still there shows in what the test waits for next.
    let _gone = kill_process(pid.expect("a process id is positive"), signal);
}

/// Whether a process runs. A zombie does not.
pub fn runs(pid: u32) -> bool {
    state(pid).is_some_and(|(state, _)| !matches!(state, 'Z' | 'X'))
}

/// The processes below `pid`, at any depth.
pub fn below(pid: u32) -> Vec<u32> {
    let all: Vec<(u32, u32)> = std::fs::read_dir("/proc")
        .expect("Linux has it")
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, state(pid)?.1)))
        .collect();
    let mut found = vec![pid];
    let mut at = 0;
    while let Some(&parent) = found.get(at) {
        found.extend(
            all.iter()
                .filter(|(_, p)| *p == parent)
                .map(|(pid, _)| *pid),
        );
        at += 1;
    }
    found.split_off(1)
}

/// Waits until none of `pids` runs.
pub async fn gone(pids: &[u32], limit: Duration) {
    wait::until("all processes are gone", limit, || {
        !pids.iter().any(|pid| runs(*pid))
    })
    .await;
}

/// A process's state and its parent.
fn state(pid: u32) -> Option<(char, u32)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may hold anything; what follows the last one is fixed.
    let mut words = stat.rsplit(')').next()?.split_ascii_whitespace();
    Some((words.next()?.chars().next()?, words.next()?.parse().ok()?))
}
