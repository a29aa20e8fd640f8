//! Processes on a core of their own, and what the kernel knows of them.

use std::{fs, process::Stdio, time::Duration};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

/// A process on one core. Ends with this.
#[derive(Debug)]
pub(crate) struct Pinned {
    child: Child,
}

impl Pinned {
    /// Starts `command` on `core`, its output thrown away unless it is to be piped.
    pub(crate) fn start(core: usize, command: &[String], piped: bool) -> anyhow::Result<Self> {
        // taskset, so that the mask is there before the program starts: runtimes count the cores that they may use.
        let mut taskset = Command::new("taskset");
        taskset.arg("-c").arg(core.to_string()).args(command);
        let stdout = if piped { Stdio::piped() } else { Stdio::null() };
        let child = taskset
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start taskset {}", command.join(" ")))?;
        Ok(Self { child })
    }

    /// Its number; taskset has become the program.
    pub(crate) fn pid(&self) -> anyhow::Result<u32> {
        self.child.id().context("it has ended")
    }

    /// Waits for its end and returns what it wrote.
    pub(crate) async fn output(self) -> anyhow::Result<String> {
        let output = self.child.wait_with_output().await?;
        anyhow::ensure!(output.status.success(), "it failed: {}", output.status);
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Ends it with its children, whom nobody would tell that it has gone, and waits until it has.
    pub(crate) async fn end(mut self) -> anyhow::Result<()> {
        let children = family(self.pid()?).into_iter().skip(1);
        let children: Vec<_> = children
            .filter_map(|pid| Pid::from_raw(pid.cast_signed()))
            .collect();
        self.child.kill().await?;
        for child in children {
            // It may have ended with its parent.
            let _gone = kill_process(child, Signal::KILL);
        }
        Ok(())
    }
}

/// Nanoseconds that the threads of a process and of its children have run so far (nginx works in a child).
pub(crate) fn cpu_nanos(pid: u32) -> anyhow::Result<u64> {
    let mut sum = 0;
    for pid in family(pid) {
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            // A thread may have ended since.
            if let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) {
                let ran = text.split_whitespace().next().context("schedstat")?;
                sum += ran.parse::<u64>()?;
            }
        }
    }
    Ok(sum)
}

/// Proportional set size of a process and its children, in KiB.
pub(crate) fn pss_kib(pid: u32) -> anyhow::Result<u64> {
    let mut sum = 0;
    for pid in family(pid) {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("Pss:"))
            .context("no Pss")?;
        sum += line.trim().trim_end_matches(" kB").parse::<u64>()?;
    }
    Ok(sum)
}

/// A process and its children.
fn family(pid: u32) -> Vec<u32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let children = fs::read_to_string(path).unwrap_or_default();
    let children = children
        .split_whitespace()
        .filter_map(|text| text.parse().ok());
    std::iter::once(pid).chain(children).collect()
}

/// The clock that all processes of a machine share.
pub(crate) fn monotonic_nanos() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let whole = u64::try_from(now.tv_sec).unwrap_or_default() * 1_000_000_000;
    whole + u64::try_from(now.tv_nsec).unwrap_or_default()
}

/// Waits until something takes connections at `address`.
pub(crate) async fn listening(address: std::net::SocketAddr) -> anyhow::Result<()> {
    for _ in 0..2_000 {
        if tokio::net::TcpStream::connect(address).await.is_ok() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    anyhow::bail!("nothing listens on {address} after 10 s")
}
