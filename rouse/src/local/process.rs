//! Replicas as child processes that end with Rouse.
//!
//! Each replica's program runs below a shim (`shim.rs`), which tells us over a socket how the program fares and ends it,
//! with everything it started, when that socket ends. Nothing here has to run for that: a panic, an exit without
//! unwinding and SIGKILL close the socket as well.

mod output;
mod replica;
mod resolve;

use std::fmt;
use std::io;
use std::path::PathBuf;

pub use replica::Replica;

/// What to run for one replica, all variables expanded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandSpec {
    /// The program and its arguments. A program without a slash is looked up in PATH, one with a slash but not absolute
    /// in the working directory.
    pub argv: Vec<String>,
    /// Variables on top of Rouse's own environment, which replicas inherit.
    pub env: Vec<(String, String)>,
    /// The folder to run in.
    pub working_dir: PathBuf,
}

/// The executable that becomes the shim: one whose `main` begins with [`super::shim::intercept`].
#[derive(Clone, Debug)]
pub struct Launcher {
    program: Option<PathBuf>,
    open_files: Option<u64>,
}

impl Launcher {
    /// The program that is running now.
    pub fn this_program() -> Self {
        Self {
            program: None,
            open_files: None,
        }
    }

    /// Starts programs with this soft limit of open files, instead of our own.
    #[must_use]
    pub fn open_files(mut self, soft: Option<u64>) -> Self {
        self.open_files = soft;
        self
    }

    /// Another executable, for tests.
    pub fn program(path: impl Into<PathBuf>) -> Self {
        Self {
            program: Some(path.into()),
            open_files: None,
        }
    }

    fn path(&self) -> io::Result<PathBuf> {
        if let Some(program) = &self.program {
            return Ok(program.clone());
        }
        let program = std::env::current_exe()?;
        // Replaced by a newer build while we run: the link still leads to what we run.
        Ok(if cfg!(target_os = "linux") && !program.exists() {
            PathBuf::from("/proc/self/exe")
        } else {
            program
        })
    }
}

/// Why a replica could not be started. `Display` names the command and the system's reason.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// There is no program of that name.
    #[error("command {program:?} not found: {looked}")]
    NotFound {
        /// The name as written.
        program: String,
        /// Where it was looked for.
        looked: String,
    },
    /// The program may not be executed.
    #[error("command {program:?} cannot be executed: permission denied for {}", .path.display())]
    NotExecutable {
        /// The name as written.
        program: String,
        /// The file that it stands for.
        path: PathBuf,
    },
    /// The working directory is none.
    #[error("working directory {} cannot be used: {error}", .path.display())]
    WorkingDir {
        /// The folder.
        path: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
    /// The system refused to start a process.
    #[error("no process can be started for command {program:?}: {error}")]
    Os {
        /// The name as written.
        program: String,
        /// The system's reason.
        error: io::Error,
    },
}

/// How a replica ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The program ended by itself with this code.
    Code(i32),
    /// The program was ended by this signal.
    Signal(i32),
    /// The program never ran: the system's reason. Some reasons show only when it is tried.
    NotStarted(String),
    /// The shim was killed, so that the program's own end is not known; the program has been killed.
    Unknown,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal(signal) => match signal_name(*signal) {
                Some(name) => write!(f, "was ended by {name}"),
                None => write!(f, "was ended by signal {signal}"),
            },
            Self::NotStarted(reason) => write!(f, "could not be started: {reason}"),
            Self::Unknown => f.write_str("was killed together with its supervising process"),
        }
    }
}

fn signal_name(number: i32) -> Option<&'static str> {
    use rustix::process::Signal;
    let names = [
        (Signal::HUP, "SIGHUP"),
        (Signal::INT, "SIGINT"),
        (Signal::QUIT, "SIGQUIT"),
        (Signal::ILL, "SIGILL"),
        (Signal::ABORT, "SIGABRT"),
        (Signal::BUS, "SIGBUS"),
        (Signal::FPE, "SIGFPE"),
        (Signal::KILL, "SIGKILL (possibly out of memory)"),
        (Signal::SEGV, "SIGSEGV"),
        (Signal::PIPE, "SIGPIPE"),
        (Signal::TERM, "SIGTERM"),
    ];
    names
        .iter()
        .find(|(signal, _)| signal.as_raw() == number)
        .map(|(_, name)| *name)
}
