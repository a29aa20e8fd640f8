//! Everything that local mode prints, through one thread that owns standard output.
//!
//! Lines are never interleaved inside, the status table stays below them, and a reader that is too slow costs lines, not
//! memory and not a model that hangs on a full pipe: replicas' lines wait a moment for room and are then counted and left
//! out.

mod clean;
mod writer;

use std::io::{self, IsTerminal as _, Write};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

pub(crate) use clean::clean;
use writer::Shared;

use super::status::StatusRow;

/// How often and how long a replica's line waits for room: 250 ms in all, well above any pause of a living terminal.
const ATTEMPTS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(5);

/// Colours that read on light and dark backgrounds.
const COLOURS: [u8; 6] = [36, 33, 35, 32, 34, 31];

/// What the output goes to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Surface {
    /// Whether colours may be used.
    pub colour: bool,
    /// The size (columns, rows) of the terminal, asked before each drawing; `None` if it is no terminal.
    pub size: Option<fn() -> (usize, usize)>,
}

impl Surface {
    /// Standard output. `NO_COLOR`, if set to anything, turns colours off.
    pub fn stdout() -> Self {
        if !io::stdout().is_terminal() {
            return Self::default();
        }
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            colour: !no_color,
            size: Some(terminal_size),
        }
    }
}

fn terminal_size() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => (80, 24),
    }
}

/// The one way to print. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Output {
    shared: Arc<Shared>,
    colour: bool,
}

impl Output {
    /// Starts the thread that owns standard output.
    pub fn stdout() -> io::Result<Self> {
        Self::start(io::stdout(), Surface::stdout())
    }

    /// Starts a thread that owns `writer`.
    pub fn start(writer: impl Write + Send + 'static, surface: Surface) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let used = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("output".to_owned())
            .spawn(move || writer::run(&used, writer, surface))?;
        Ok(Self {
            shared,
            colour: surface.colour,
        })
    }

    /// Prints a line of Rouse's own. Never waits.
    pub fn line(&self, text: impl Into<String>) {
        self.shared.push_own(text.into());
    }

    /// A sink for one replica's lines, with its prefix and colour.
    pub fn replica(&self, workload: &str, number: u32) -> LineSink {
        let seed = workload.bytes().fold(0u32, |sum, byte| {
            sum.wrapping_mul(31).wrapping_add(byte.into())
        });
        let name = format!("{workload}/{number}");
        let prefix = if self.colour {
            let colour = COLOURS[seed.wrapping_add(number) as usize % COLOURS.len()];
            format!("\u{1b}[{colour}m{name}\u{1b}[0m | ")
        } else {
            format!("{name} | ")
        };
        LineSink {
            output: self.clone(),
            prefix: prefix.into(),
        }
    }

    /// Shows the state of all workloads: on a terminal as a table below the lines, redrawn in place; elsewhere as one line
    /// for each workload whose state changed. Meant to be called about four times a second.
    pub fn status(&self, rows: Vec<StatusRow>) {
        self.shared.set_status(rows);
    }

    /// A writer for a logger's lines.
    pub fn writer(&self) -> LineWriter {
        LineWriter {
            output: self.clone(),
            pending: Vec::new(),
        }
    }

    /// Waits until everything is printed, `limit` at most, and ends the thread. The table stays as it was last drawn.
    pub fn finish(&self, limit: Duration) {
        self.shared.finish(Instant::now() + limit);
    }
}

/// Where a replica's lines go.
#[derive(Clone, Debug)]
pub struct LineSink {
    output: Output,
    prefix: Arc<str>,
}

impl LineSink {
    /// Prints a line. Waits a moment for room if the reader is slow, then leaves the line out.
    pub async fn line(&self, text: &str) {
        let shared = &self.output.shared;
        let mut line = format!("{}{}", self.prefix, clean(text, self.output.colour));
        // While the reader does not read at all, only the first line waits for it.
        let attempts = if shared.is_stalled() { 1 } else { ATTEMPTS };
        for attempt in 1..=attempts {
            match shared.push_if_room(line) {
                Ok(()) => return,
                Err(back) => line = back,
            }
            if attempt < attempts {
                tokio::time::sleep(PAUSE).await;
            }
        }
        shared.leave_out();
    }
}

/// Turns a logger's writes into lines. What has no line end yet is printed on drop.
#[derive(Debug)]
pub struct LineWriter {
    output: Output,
    pending: Vec<u8>,
}

impl Write for LineWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.pending.extend_from_slice(bytes);
        while let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.pending.drain(..=end).collect();
            self.output.line(String::from_utf8_lossy(&line[..end]));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LineWriter {
    fn drop(&mut self) {
        if !self.pending.is_empty() {
            self.output.line(String::from_utf8_lossy(&self.pending));
        }
    }
}
