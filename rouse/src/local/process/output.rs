//! A replica's output: cut into lines of bounded length, forwarded, the last lines of stderr kept.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::local::logs::{LineSink, clean};

/// Lines of stderr that are kept.
pub(super) const TAIL_LINES: usize = 20;
/// Bytes of a line that are forwarded and kept; the rest of the line is left out.
pub(super) const LINE_BYTES: usize = 4096;

/// The last lines of stderr.
#[derive(Clone, Debug, Default)]
pub(super) struct Tail(Arc<Mutex<VecDeque<String>>>);

impl Tail {
    pub(super) fn lines(&self) -> Vec<String> {
        self.0.lock().iter().cloned().collect()
    }

    fn push(&self, line: String) {
        let mut lines = self.0.lock();
        if lines.len() == TAIL_LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }
}

/// Forwards a stream's lines until it ends.
pub(super) async fn forward(
    mut stream: impl AsyncRead + Unpin,
    sink: LineSink,
    tail: Option<Tail>,
) {
    let mut cutter = Cutter::default();
    let mut buffer = vec![0; 8192];
    loop {
        let read = match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(read) => read,
        };
        let mut rest = &buffer[..read];
        while let Some((line, after)) = cutter.next_line(rest) {
            emit(&line, &sink, tail.as_ref()).await;
            rest = after;
        }
    }
    if let Some(line) = cutter.last_line() {
        emit(&line, &sink, tail.as_ref()).await;
    }
}

async fn emit(line: &str, sink: &LineSink, tail: Option<&Tail>) {
    if let Some(tail) = tail {
        tail.push(clean(line, false));
    }
    sink.line(line).await;
}

/// Cuts bytes into lines, holding at most [`LINE_BYTES`] of an unfinished one.
#[derive(Debug, Default)]
struct Cutter {
    line: Vec<u8>,
    cut: bool,
}

impl Cutter {
    /// The next finished line and what follows it; `None` once `bytes` are used up.
    fn next_line<'a>(&mut self, bytes: &'a [u8]) -> Option<(String, &'a [u8])> {
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let piece = &bytes[..end.unwrap_or(bytes.len())];
        let room = LINE_BYTES - self.line.len();
        self.line.extend_from_slice(&piece[..piece.len().min(room)]);
        self.cut |= piece.len() > room;
        end.map(|end| (self.take(), &bytes[end + 1..]))
    }

    fn last_line(&mut self) -> Option<String> {
        (!self.line.is_empty()).then(|| self.take())
    }

    fn take(&mut self) -> String {
        let mut line = String::from_utf8_lossy(&self.line).into_owned();
        if self.cut {
            line.push('…');
        }
        self.line.clear();
        self.cut = false;
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(chunks: &[&[u8]]) -> Vec<String> {
        let mut cutter = Cutter::default();
        let mut lines = Vec::new();
        for chunk in chunks {
            let mut rest = *chunk;
            while let Some((line, after)) = cutter.next_line(rest) {
                lines.push(line);
                rest = after;
            }
        }
        lines.extend(cutter.last_line());
        lines
    }

    #[test]
    fn lines_are_cut_wherever_chunks_end() {
        assert_eq!(lines(&[b"a\nb", b"c\n", b"\n", b"d"]), ["a", "bc", "", "d"]);
        assert_eq!(lines(&[]), Vec::<String>::new());
        assert_eq!(lines(&[b"bad \xff byte\r\n"]), ["bad \u{fffd} byte\r"]);
    }

    #[test]
    fn long_lines_are_shortened_and_the_next_is_whole() {
        let long = vec![b'x'; 3 * LINE_BYTES];
        let lines = lines(&[&long, &long, b"\nnext\n"]);
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].chars().count(), LINE_BYTES + 1);
        assert!(lines[0].ends_with('…'));
        assert_eq!(lines[1], "next");
    }

    #[test]
    fn the_tail_is_bounded() {
        let tail = Tail::default();
        for number in 0..100 {
            tail.push(number.to_string());
        }
        let lines = tail.lines();
        assert_eq!((lines.len(), lines[0].as_str()), (TAIL_LINES, "80"));
    }
}
