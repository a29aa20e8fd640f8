//! What the cases share.

use std::io::{self, Write};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rouse::local::logs::{LineSink, Output, Surface};
use rouse::local::process::{CommandSpec, Launcher, Replica};
use tokio::time::{Instant, sleep};

/// A case under way.
pub(crate) type Running = Pin<Box<dyn Future<Output = ()>>>;
/// A case: its name and what it does.
pub(crate) type Case = (&'static str, fn() -> Running);

/// Makes a case of an async function.
#[macro_export]
macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        vec![$((stringify!($name), (|| -> $crate::support::Running { Box::pin($name()) }) as fn() -> _)),*]
    };
}

/// A shell script as a replica's command.
pub(crate) fn script(script: &str, folder: &Path) -> CommandSpec {
    command(&["sh", "-c", script], folder)
}

pub(crate) fn command(argv: &[&str], folder: &Path) -> CommandSpec {
    CommandSpec {
        argv: argv.iter().map(|arg| (*arg).to_owned()).collect(),
        env: Vec::new(),
        working_dir: folder.to_path_buf(),
    }
}

/// A replica of a shell script whose output goes nowhere.
pub(crate) fn start(text: &str, folder: &Path) -> Replica {
    Replica::spawn(&Launcher::this_program(), &script(text, folder), nowhere()).unwrap()
}

pub(crate) fn nowhere() -> LineSink {
    Output::start(io::sink(), Surface::default())
        .unwrap()
        .replica("model", 0)
}

/// A writer that keeps what it gets.
#[derive(Clone, Default)]
pub(crate) struct Kept(Arc<Mutex<Vec<u8>>>);

impl Kept {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().clone()).unwrap()
    }
}

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The number that a process wrote to a file, once it has.
pub(crate) async fn number_in(file: &Path) -> u32 {
    let begin = Instant::now();
    loop {
        if let Some(number) = std::fs::read_to_string(file)
            .ok()
            .and_then(|text| text.trim().parse().ok())
        {
            return number;
        }
        assert!(
            begin.elapsed() < Duration::from_secs(5),
            "nothing in {}",
            file.display()
        );
        sleep(Duration::from_millis(2)).await;
    }
}

/// Whether a process runs. A zombie does not.
pub(crate) fn runs(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    // The name is in parentheses and may hold anything; the state follows the last one.
    !stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .trim_start()
        .starts_with(['Z', 'X'])
}

/// Asserts that processes end within two seconds.
pub(crate) async fn assert_gone(pids: &[u32]) {
    let begin = Instant::now();
    while pids.iter().any(|pid| runs(*pid)) {
        let left: Vec<_> = pids.iter().filter(|pid| runs(**pid)).collect();
        assert!(
            begin.elapsed() < Duration::from_secs(2),
            "still running: {left:?} of {pids:?}"
        );
        sleep(Duration::from_millis(2)).await;
    }
}

/// Memory of this process in KiB.
pub(crate) fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
