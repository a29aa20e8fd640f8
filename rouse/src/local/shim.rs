//! The small process between Rouse and a replica's program, so that the program dies with Rouse whatever Rouse dies of.
//!
//! Rouse starts itself again as `rouse __shim FILES PROGRAM ARGS...` with one end of a socket pair as standard input. The shim
//! starts the program, with FILES as its soft limit of open files (`-`: the shim's own), as the leader of a process group of its own and waits for three things:
//!
//! - an order on the socket: [`TERMINATE`] or [`KILL`] for the program's group;
//! - the end of the socket: Rouse is gone, even by SIGKILL, so the group is killed;
//! - the end of the program: whatever it left behind is killed, as the end of a container's first process does.
//!
//! Why not `PR_SET_PDEATHSIG`: it fires when the *thread* that spawned ends, reaches only the direct child, and setting it
//! between fork and exec takes unsafe code. The shim needs no signal handlers either: it sits in a third process group,
//! neither the terminal's nor the program's, so that nobody's Ctrl-C and no group signal reaches it. It is a child
//! subreaper, so that a grandchild that left the group comes back to it and ends too.
//!
//! The shim says on the socket what happened, one line each: `started PID`, then `exited CODE` or `signalled NUMBER`; or
//! `failed TEXT` alone if the program cannot be started. Its own exit status repeats it as a shell would.

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::thread;

use parking_lot::Mutex;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus, WaitOptions};
use shared::files;

/// The hidden first argument.
pub const ARGUMENT: &str = "__shim";
/// Order: SIGTERM to the program's group.
pub const TERMINATE: u8 = b'T';
/// Order: SIGKILL to the program's group and everything it started.
pub const KILL: u8 = b'K';

/// Exit status when the program cannot be started, as in a shell.
const NOT_STARTED: u8 = 127;

/// The argument after [`ARGUMENT`]: the soft limit of open files for the program.
pub(crate) fn open_files(soft: Option<u64>) -> String {
    soft.map_or_else(|| "-".to_owned(), |soft| soft.to_string())
}

/// Runs the shim if this process was started as one. To be called first in `main`, before any runtime exists.
pub fn intercept() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    (args.next()? == ARGUMENT).then(|| main(args))
}

/// The shim's `main`: `args` are the limit, the program and its arguments.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    match run(&args.into_iter().collect::<Vec<_>>()) {
        Ok(code) => ExitCode::from(code),
        // Without the socket there is nobody to tell but the reader of our exit status.
        Err(_) => ExitCode::from(NOT_STARTED),
    }
}

fn run(args: &[OsString]) -> io::Result<u8> {
    let mut socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    // Without it, what leaves the program's group and loses its parent is out of our reach; the rest still works.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));

    let [files, program, args @ ..] = args else {
        tell(&mut socket, "failed no program given");
        return Ok(NOT_STARTED);
    };
    // Rouse has raised its own, which a program that uses select(2) could not stand.
    if let Some(soft) = files.to_str().and_then(|files| files.parse().ok()) {
        files::set_limit(soft);
    }
    let spawned = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .process_group(0)
        .spawn();
    // The handle is not waited on: see `reap`. Dropping it does nothing.
    let program = match spawned.map(|child| Pid::from_child(&child)) {
        Ok(pid) => pid,
        Err(error) => {
            tell(&mut socket, &format!("failed {error}"));
            return Ok(NOT_STARTED);
        }
    };
    tell(
        &mut socket,
        &format!("started {}", program.as_raw_nonzero()),
    );

    let watched = watch(program, &socket);
    if watched.is_err() {
        let _ = rustix::process::kill_process_group(program, Signal::KILL);
    }
    let (word, number) = watched?;
    tell(&mut socket, &format!("{word} {number}"));
    let code = if word == "signalled" {
        128 + number
    } else {
        number
    };
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}

/// Follows orders until the program has ended and everything that it started is gone.
fn watch(program: Pid, socket: &UnixStream) -> io::Result<(&'static str, i32)> {
    // `Some` while the program is not reaped: until then its number belongs to nobody else.
    let alive = Arc::new(Mutex::new(Some(program)));
    let orders = socket.try_clone()?;
    let followed = Arc::clone(&alive);
    thread::Builder::new()
        .stack_size(64 * 1024)
        .spawn(move || follow(orders, &followed))?;
    reap(program, &alive)
}

/// Rouse may be gone: then nobody needs to know.
fn tell(socket: &mut UnixStream, line: &str) {
    let _ = socket.write_all(format!("{}\n", line.replace('\n', " ")).as_bytes());
}

/// Carries out orders until the socket ends. Never returns: a thread that ends hands its children on, and `orphans` could
/// look where they are no more and not yet.
fn follow(mut socket: UnixStream, alive: &Mutex<Option<Pid>>) {
    let mut order = [0];
    let mut kill = false;
    while !kill {
        kill = match socket.read(&mut order) {
            Ok(1) => order[0] != TERMINATE,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Ok(_) | Err(_) => true,
        };
        if let Some(program) = *alive.lock() {
            // Of a kill the main thread does the rest once the program has ended.
            let signal = if kill { Signal::KILL } else { Signal::TERM };
            let _ = rustix::process::kill_process_group(program, signal);
        }
    }
    loop {
        thread::park();
    }
}

/// Waits for the program's end, reaping orphans meanwhile; ends what it left; reaps it last of all.
fn reap(program: Pid, alive: &Mutex<Option<Pid>>) -> io::Result<(&'static str, i32)> {
    // Look without reaping: the group is killed by the program's number, which must still be its own then.
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    let end = loop {
        let any = if children().is_some() {
            WaitId::All
        } else {
            WaitId::Pid(program)
        };
        match rustix::process::waitid(any, look) {
            Err(Errno::INTR) => continue,
            other => drop(other?),
        }
        match rustix::process::waitid(WaitId::Pid(program), look | WaitIdOptions::NOHANG)? {
            Some(status) => break describe(&status),
            None => orphans(program).for_each(|orphan| {
                let _ = rustix::process::waitpid(Some(orphan), WaitOptions::NOHANG);
            }),
        }
    };
    let _ = rustix::process::kill_process_group(program, Signal::KILL);
    *alive.lock() = None;
    // What left the group has come to us by now or comes when its own parent ends: one generation per round.
    loop {
        let mut any = false;
        for orphan in orphans(program) {
            any = true;
            let _ = rustix::process::kill_process(orphan, Signal::KILL);
            let _ = rustix::process::waitpid(Some(orphan), WaitOptions::empty());
        }
        if !any {
            break;
        }
    }
    let _ = rustix::process::waitpid(Some(program), WaitOptions::empty());
    Ok(end)
}

fn describe(status: &WaitIdStatus) -> (&'static str, i32) {
    match status.terminating_signal() {
        Some(signal) => ("signalled", signal),
        None => ("exited", status.exit_status().unwrap_or_default()),
    }
}

/// Our children other than the program: its descendants whose parents have ended.
fn orphans(program: Pid) -> impl Iterator<Item = Pid> {
    children()
        .unwrap_or_default()
        .into_iter()
        .filter(move |pid| *pid != program)
}

/// Our children, if the system lists them.
fn children() -> Option<Vec<Pid>> {
    let mut pids = None;
    for task in std::fs::read_dir("/proc/self/task").ok()?.flatten() {
        if let Ok(list) = std::fs::read_to_string(task.path().join("children")) {
            let found = list
                .split_ascii_whitespace()
                .filter_map(|pid| Pid::from_raw(pid.parse().ok()?));
            pids.get_or_insert_with(Vec::new).extend(found);
        }
    }
    pids
}
