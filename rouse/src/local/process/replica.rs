//! One replica: started, watched, ended.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::process::Stdio;
use std::time::Duration;

use rustix::net::{SendFlags, send};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::watch;

use super::output::{Tail, forward};
use super::{CommandSpec, Exit, Launcher, SpawnError, resolve};
use crate::local::logs::LineSink;
use crate::local::shim;

/// How long output that is still in the pipes may take to be read after a program's end, before the end is reported.
const OUTPUT_GRACE: Duration = Duration::from_millis(200);

/// A replica's process. Dropping it kills the program and everything that it started.
#[derive(Debug)]
pub struct Replica {
    socket: StdUnixStream,
    state: watch::Receiver<State>,
    tail: Tail,
    shim: Option<u32>,
}

#[derive(Clone, Debug, Default)]
struct State {
    pid: Option<Pid>,
    exit: Option<Exit>,
}

impl Replica {
    /// Starts a replica. Returns once the process exists, without waiting for the program; must run inside a tokio runtime.
    ///
    /// Output lines go to `sink`.
    pub fn spawn(
        launcher: &Launcher,
        spec: &CommandSpec,
        sink: LineSink,
    ) -> Result<Self, SpawnError> {
        resolve::check(spec)?;
        let failed = |error| SpawnError::Os {
            program: spec.argv.first().cloned().unwrap_or_default(),
            error,
        };
        let (ours, theirs) = StdUnixStream::pair().map_err(failed)?;
        let (reader, mut child) = start(launcher, spec, &ours, theirs).map_err(failed)?;

        let tail = Tail::default();
        let outputs = [
            child
                .stdout
                .take()
                .map(|stream| tokio::spawn(forward(stream, sink.clone(), None))),
            child
                .stderr
                .take()
                .map(|stream| tokio::spawn(forward(stream, sink, Some(tail.clone())))),
        ];
        let shim = child.id();
        let (sender, state) = watch::channel(State::default());
        tokio::spawn(async move {
            let exit = follow(reader, &sender).await;
            // Reaped also when the program never started. Its status repeats what it said.
            let _ = child.wait().await;
            let exit = exit.unwrap_or_else(|| {
                if let Some(pid) = sender.borrow().pid {
                    let _ = kill_process_group(pid, Signal::KILL);
                }
                Exit::Unknown
            });
            // The last lines usually say why: they are in the tail before anyone hears of the end.
            for output in outputs.into_iter().flatten() {
                let _ = tokio::time::timeout(OUTPUT_GRACE, output).await;
            }
            sender.send_modify(|state| state.exit = Some(exit));
        });
        Ok(Self {
            socket: ours,
            state,
            tail,
            shim,
        })
    }

    /// The program's process id, once it runs. It is also the id of its process group.
    pub fn pid(&self) -> Option<u32> {
        self.state
            .borrow()
            .pid
            .map(|pid| pid.as_raw_nonzero().get().unsigned_abs())
    }

    /// The process id of the shim above the program.
    pub fn shim_pid(&self) -> Option<u32> {
        self.shim
    }

    /// Waits until the program runs, or will not any more.
    pub async fn started(&self) {
        let mut state = self.state.clone();
        // An error means that nobody follows the replica any more, which is an end too.
        let _gone = state
            .wait_for(|state| state.pid.is_some() || state.exit.is_some())
            .await;
    }

    /// How the replica ended, if it has.
    pub fn exit(&self) -> Option<Exit> {
        self.state.borrow().exit.clone()
    }

    /// Waits for the replica's end. May be called any number of times; cancelling it changes nothing.
    pub async fn wait(&self) -> Exit {
        let mut state = self.state.clone();
        let ended = state.wait_for(|state| state.exit.is_some()).await;
        ended
            .ok()
            .and_then(|state| state.exit.clone())
            .unwrap_or(Exit::Unknown)
    }

    /// Ends the replica: SIGTERM to the program's group, SIGKILL after `grace`, and waits until it is reaped.
    ///
    /// May be called again, also while another call is under way: the shorter grace counts.
    pub async fn terminate(&self, grace: Duration) -> Exit {
        if !grace.is_zero() {
            self.order(shim::TERMINATE);
            if let Ok(exit) = tokio::time::timeout(grace, self.wait()).await {
                return exit;
            }
        }
        self.kill_now();
        self.wait().await
    }

    /// Kills the program and everything that it started. Does not wait.
    pub fn kill_now(&self) {
        self.order(shim::KILL);
    }

    /// The last 20 lines of stderr, each of 4 KiB at most.
    pub fn stderr_tail(&self) -> Vec<String> {
        self.tail.lines()
    }

    fn order(&self, order: u8) {
        // Fails only once the shim has ended: one byte always finds room, since we send a handful at most.
        let _ = send(
            &self.socket,
            &[order],
            SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
        );
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.kill_now();
    }
}

fn start(
    launcher: &Launcher,
    spec: &CommandSpec,
    ours: &StdUnixStream,
    theirs: StdUnixStream,
) -> io::Result<(UnixStream, Child)> {
    let reader = ours.try_clone()?;
    reader.set_nonblocking(true)?;
    let reader = UnixStream::from_std(reader)?;
    let child = Command::new(launcher.path()?)
        .arg0("rouse")
        .arg(shim::ARGUMENT)
        .arg(shim::open_files(launcher.open_files))
        .args(&spec.argv)
        .envs(spec.env.iter().map(|(name, value)| (name, value)))
        .current_dir(&spec.working_dir)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()?;
    Ok((reader, child))
}

/// Reads what the shim says. `None` if it ended without telling how the program did.
async fn follow(reader: UnixStream, state: &watch::Sender<State>) -> Option<Exit> {
    let mut lines = BufReader::new(reader).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
        match word {
            "started" => {
                let pid = rest.parse().ok().and_then(Pid::from_raw);
                state.send_modify(|state| state.pid = pid);
            }
            "exited" => return rest.parse().ok().map(Exit::Code),
            "signalled" => return rest.parse().ok().map(Exit::Signal),
            "failed" => return Some(Exit::NotStarted(rest.to_owned())),
            _ => {}
        }
    }
    None
}
