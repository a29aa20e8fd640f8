//! The queue of lines and the thread that prints them.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex};
use tokio::time::Instant;

use super::Surface;
use crate::local::status::{self, StatusRow};

/// Replicas' lines that wait to be printed. With lines of 4 KiB at most that is a bound of 1 MiB.
const QUEUED: usize = 256;
/// The same for Rouse's own lines, which do not wait for room.
const QUEUED_OWN: usize = 4096;

/// What the handles and the thread share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    ended: Condvar,
    stalled: AtomicBool,
    left_out: AtomicU64,
}

#[derive(Debug, Default)]
struct Queue {
    lines: VecDeque<String>,
    status: Option<Vec<StatusRow>>,
    closing: bool,
    ended: bool,
}

impl Shared {
    pub(super) fn push_own(&self, line: String) {
        let mut queue = self.queue.lock();
        if queue.lines.len() < QUEUED_OWN {
            queue.lines.push_back(line);
            self.wake.notify_one();
        } else {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn push_if_room(&self, line: String) -> Result<(), String> {
        let mut queue = self.queue.lock();
        if queue.lines.len() >= QUEUED {
            return Err(line);
        }
        queue.lines.push_back(line);
        self.wake.notify_one();
        drop(queue);
        self.stalled.store(false, Ordering::Relaxed);
        Ok(())
    }

    pub(super) fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::Relaxed)
    }

    pub(super) fn leave_out(&self) {
        self.stalled.store(true, Ordering::Relaxed);
        self.left_out.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn set_status(&self, rows: Vec<StatusRow>) {
        self.queue.lock().status = Some(rows);
        self.wake.notify_one();
    }

    pub(super) fn finish(&self, deadline: Instant) {
        let mut queue = self.queue.lock();
        queue.closing = true;
        self.wake.notify_one();
        while !queue.ended
            && !self
                .ended
                .wait_until(&mut queue, deadline.into_std())
                .timed_out()
        {}
    }
}

/// Prints until told to end or until nobody reads any more.
pub(super) fn run(shared: &Shared, writer: impl Write, surface: Surface) {
    let mut screen = Screen {
        writer,
        surface,
        status: Vec::new(),
        drawn: 0,
    };
    loop {
        let mut queue = shared.queue.lock();
        while queue.lines.is_empty() && queue.status.is_none() && !queue.closing {
            shared.wake.wait(&mut queue);
        }
        let mut lines = std::mem::take(&mut queue.lines);
        let status = queue.status.take();
        let last = queue.closing;
        drop(queue);

        let left_out = shared.left_out.swap(0, Ordering::Relaxed);
        if left_out > 0 {
            lines.push_front(format!(
                "({left_out} lines left out: output was not read fast enough)"
            ));
        }
        let written = screen.write(lines, status);
        if last || written.is_err() {
            shared.queue.lock().ended = true;
            shared.ended.notify_all();
            return;
        }
    }
}

struct Screen<W> {
    writer: W,
    surface: Surface,
    status: Vec<StatusRow>,
    /// Rows of the table that stand above the cursor.
    drawn: usize,
}

impl<W: Write> Screen<W> {
    fn write(&mut self, lines: VecDeque<String>, status: Option<Vec<StatusRow>>) -> io::Result<()> {
        let mut text = String::new();
        if self.drawn > 0 {
            // Up to the table's first row, then clear to the end of the screen.
            let _ = write!(text, "\u{1b}[{}A\r\u{1b}[0J", self.drawn);
            self.drawn = 0;
        }
        for line in lines {
            text.push_str(&line);
            text.push('\n');
        }
        if let Some(rows) = status {
            if self.surface.size.is_none() {
                for line in status::changes(&self.status, &rows) {
                    text.push_str(&line);
                    text.push('\n');
                }
            }
            self.status = rows;
        }
        if let Some(size) = self.surface.size.filter(|_| !self.status.is_empty()) {
            let (width, height) = size();
            let table = status::table(
                &self.status,
                width,
                height.saturating_sub(1),
                self.surface.colour,
            );
            self.drawn = table.len();
            for row in table {
                text.push_str(&row);
                text.push('\n');
            }
        }
        self.writer.write_all(text.as_bytes())?;
        self.writer.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(ready: u32) -> StatusRow {
        StatusRow {
            workload: "default/iris".to_owned(),
            ready,
            ..StatusRow::default()
        }
    }

    fn written(surface: Surface, steps: Vec<(Vec<&str>, Option<u32>)>) -> String {
        let mut screen = Screen {
            writer: Vec::new(),
            surface,
            status: Vec::new(),
            drawn: 0,
        };
        for (lines, ready) in steps {
            let lines = lines.into_iter().map(str::to_owned).collect();
            screen
                .write(lines, ready.map(|ready| vec![row(ready)]))
                .unwrap();
        }
        String::from_utf8(screen.writer).unwrap()
    }

    #[test]
    fn the_table_is_redrawn_below_new_lines() {
        let surface = Surface {
            colour: false,
            size: Some(|| (100, 30)),
        };
        let text = written(surface, vec![(vec!["one"], Some(1)), (vec!["two"], None)]);
        let table = status::table(&[row(1)], 100, 29, false).join("\n");
        assert_eq!(
            text,
            format!("one\n{table}\n\u{1b}[2A\r\u{1b}[0Jtwo\n{table}\n")
        );
    }

    #[test]
    fn without_a_terminal_only_changes_are_printed() {
        let text = written(
            Surface::default(),
            vec![(vec!["one"], Some(0)), (vec![], Some(0)), (vec![], Some(2))],
        );
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(!text.contains('\u{1b}'));
    }

    #[test]
    fn replicas_lines_are_bounded_and_own_lines_come_through() {
        let shared = Shared::default();
        for _ in 0..QUEUED {
            shared.push_if_room("line".to_owned()).unwrap();
        }
        assert!(shared.push_if_room("line".to_owned()).is_err());
        shared.push_own("own".to_owned());
        assert_eq!(shared.queue.lock().lines.len(), QUEUED + 1);
    }
}
