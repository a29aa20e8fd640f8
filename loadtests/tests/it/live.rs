//! The lines of a running load on a real pseudo-terminal.

use crate::server::{http, ok};
use rustix::fs::OFlags;
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;
use tokio::task::spawn_blocking;

/// What a terminal shows: only what the lines use of its control sequences, and a panic at others.
#[derive(Debug)]
struct Terminal {
    width: usize,
    rows: Vec<Vec<char>>,
    row: usize,
    column: usize,
    /// Whether anything ever went over the right edge.
    has_wrapped: bool,
    /// The beginning of a control sequence whose end has not come yet.
    begun: String,
}

impl Terminal {
    fn new(width: usize) -> Self {
        Self {
            width,
            rows: vec![Vec::new()],
            row: 0,
            column: 0,
            has_wrapped: false,
            begun: String::new(),
        }
    }

    fn take(&mut self, piece: &str) {
        let mut text = std::mem::take(&mut self.begun) + piece;
        let is_begun = |at: &usize| !text[*at..].contains(|c: char| c.is_ascii_alphabetic());
        if let Some(at) = text.rfind('\x1b').filter(is_begun) {
            self.begun = text.split_off(at);
        }
        let mut chars = text.chars();
        while let Some(char) = chars.next() {
            match char {
                '\r' => self.column = 0,
                '\n' => {
                    self.row += 1;
                    if self.row == self.rows.len() {
                        self.rows.push(Vec::new());
                    }
                }
                '\x1b' => {
                    assert_eq!(chars.next(), Some('['), "{text:?}");
                    let mut sequence = String::new();
                    while !sequence.ends_with(|c: char| c.is_ascii_alphabetic()) {
                        sequence.push(chars.next().unwrap());
                    }
                    self.control(&sequence);
                }
                char => self.put(char),
            }
        }
    }

    fn control(&mut self, sequence: &str) {
        let (number, what) = sequence.split_at(sequence.len() - 1);
        match what {
            "A" => self.row -= number.parse::<usize>().unwrap(),
            "J" => {
                self.rows.truncate(self.row + 1);
                self.rows[self.row].truncate(self.column);
            }
            "m" => {}
            _ => panic!("{sequence:?} is not used"),
        }
    }

    fn put(&mut self, char: char) {
        self.has_wrapped |= self.column >= self.width;
        let row = &mut self.rows[self.row];
        row.resize(row.len().max(self.column + 1), ' ');
        row[self.column] = char;
        self.column += 1;
    }

    fn text(&self) -> String {
        let rows: Vec<_> = self
            .rows
            .iter()
            .map(|row| row.iter().collect::<String>())
            .collect();
        rows.join("\n")
    }
}

/// Starts the tool with a terminal as its standard error; what it writes there comes in pieces.
fn start(width: u16, args: &[&str], variables: &[(&str, &str)]) -> (Child, Receiver<String>) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let size = Winsize {
        ws_row: 24,
        ws_col: width,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&master, size).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let name = Path::new(std::ffi::OsStr::from_bytes(name.as_bytes()));
    let flags = OFlags::RDWR | OFlags::NOCTTY;
    let slave = rustix::fs::open(name, flags, rustix::fs::Mode::empty()).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_rouse-load"))
        .args(args)
        .env_remove("NO_COLOR")
        .envs([("TERM", "xterm"), ("LC_ALL", "C.UTF-8")])
        .envs(variables.iter().copied())
        .stdout(Stdio::piped())
        .stderr(slave)
        .spawn()
        .unwrap();
    let (sender, pieces) = channel();
    thread::spawn(move || {
        let mut master = File::from(master);
        let (mut bytes, mut kept) = ([0; 4096], Vec::new());
        // The end of a terminal is an error.
        while let Ok(read @ 1..) = master.read(&mut bytes) {
            kept.extend_from_slice(&bytes[..read]);
            // A character may be in two pieces.
            let whole = match std::str::from_utf8(&kept) {
                Ok(text) => text.len(),
                Err(error) => error.valid_up_to(),
            };
            let rest = kept.split_off(whole);
            let text = String::from_utf8(std::mem::replace(&mut kept, rest)).unwrap();
            if sender.send(text).is_err() {
                break;
            }
        }
    });
    (child, pieces)
}

/// All until the load has been seen, and then, after `stop`, all until the end.
fn watch(
    child: &mut Child,
    pieces: &Receiver<String>,
    width: u16,
    stop: impl Fn(&Child),
) -> (Terminal, Vec<String>) {
    let mut terminal = Terminal::new(width.into());
    let mut seen = Vec::new();
    while let Ok(piece) = pieces.recv_timeout(Duration::from_secs(30)) {
        terminal.take(&piece);
        let text = terminal.text();
        // A frame may come in pieces.
        if !is_whole(&text) {
            continue;
        }
        if seen.is_empty() {
            stop(child);
        }
        seen.push(text);
    }
    // If it hangs, the test fails for what it shows, and leaves nothing behind.
    if child.try_wait().unwrap().is_none() && seen.is_empty() {
        child.kill().unwrap();
    }
    (terminal, seen)
}

/// Whether all that the test looks for is there: the lines from the first to the last.
fn is_whole(text: &str) -> bool {
    ["time", "done", "p50", "errors    none"]
        .iter()
        .all(|words| text.contains(words))
}

fn interrupt(child: &Child) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
}

#[tokio::test]
async fn a_terminal_shows_how_the_load_is_doing_and_is_left_as_it_was() {
    let url = http(|_| async { ok() }).await;
    spawn_blocking(move || {
        for width in [40, 100] {
            // Far longer than the test: Ctrl-C ends it.
            let args = ["--rate", "50", "-d", "1h", "-c", "2", &url];
            let (mut child, pieces) = start(width, &args, &[]);
            let (terminal, seen) = watch(&mut child, &pieces, width, interrupt);
            assert_eq!(child.wait().unwrap().code(), Some(130));
            let shown = seen.first().unwrap();
            for words in [
                "time",
                "of 1:00:00 h",
                "rate",
                "/s",
                "in flight",
                "errors    none",
            ] {
                assert!(shown.contains(words), "{width}, {words}: {shown}");
            }
            assert!(!terminal.has_wrapped, "{width}: {shown}");
            assert_eq!(terminal.text().trim(), "", "{width}");
            assert_eq!((terminal.row, terminal.column), (0, 0), "{width}");
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn colours_and_lines_are_only_for_who_wants_them() {
    let url = http(|_| async { ok() }).await;
    spawn_blocking(move || {
        // Long enough for a line on a busy machine.
        let load = ["-d", "3s", "-c", "1", &url];
        let told = |more: &[&str], variables: &[(&str, &str)]| {
            let (mut child, pieces) = start(80, &[&load[..], more].concat(), variables);
            let told: String = pieces.iter().collect();
            assert_eq!(child.wait().unwrap().code(), Some(0), "{told}");
            told
        };
        assert!(told(&[], &[]).contains("\x1b[2m"));
        let plain = told(&[], &[("NO_COLOR", "1")]);
        assert!(
            plain.contains("in flight") && !plain.contains("\x1b[2m"),
            "{plain:?}"
        );
        for (more, variables) in [
            (&["--no-progress"][..], &[][..]),
            (&["--quiet"], &[]),
            (&[], &[("TERM", "dumb")]),
        ] {
            assert_eq!(told(more, variables), "", "{more:?}");
        }
    })
    .await
    .unwrap();
}
