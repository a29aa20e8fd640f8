//! Streams of events as they come, in whatever pieces: the format of server-sent events
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation>).
//!
//! Pure: bytes in, events out. What of an event has not ended when the stream does is no event.

use std::mem::take;

/// Bytes of a line, and of the data of an event. Events of models have some hundred.
const LONGEST: usize = 1024 * 1024;
/// A buffer that was larger than this for one event is given back after it: of thousands of streams most are idle.
const KEPT: usize = 16 * 1024;
/// U+FEFF, which a stream may begin with.
const BOM: &[u8] = b"\xef\xbb\xbf";

/// Reads a stream.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    /// A line that has not ended.
    line: Vec<u8>,
    /// Whether a newline would belong to the line before.
    after_return: bool,
    has_begun: bool,
    fields: Fields,
}

/// An event that has not ended.
#[derive(Debug, Default)]
struct Fields {
    kind: Vec<u8>,
    /// A newline follows each line of it.
    data: Vec<u8>,
}

/// An event with data; those without are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event<'a> {
    /// Its type; empty if it has none.
    pub(crate) kind: &'a [u8],
    pub(crate) data: &'a [u8],
}

/// A line or an event has more than a mebibyte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

impl Parser {
    /// Takes the next bytes, and gives `sink` the events that end in them.
    pub(crate) fn eat(
        &mut self,
        mut bytes: &[u8],
        mut sink: impl FnMut(Event<'_>),
    ) -> Result<(), TooLong> {
        while let Some(first) = bytes.first() {
            if take(&mut self.after_return) && *first == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let Some(end) = bytes.iter().position(|b| matches!(b, b'\r' | b'\n')) else {
                return grow(&mut self.line, bytes);
            };
            let line = &bytes[..end];
            self.after_return = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            if self.line.is_empty() {
                self.end_line(line, &mut sink)?;
            } else {
                let mut whole = take(&mut self.line);
                grow(&mut whole, line)?;
                self.end_line(&whole, &mut sink)?;
                self.line = emptied(whole);
            }
        }
        Ok(())
    }

    fn end_line(
        &mut self,
        mut line: &[u8],
        sink: &mut impl FnMut(Event<'_>),
    ) -> Result<(), TooLong> {
        if !self.has_begun {
            self.has_begun = true;
            line = line.strip_prefix(BOM).unwrap_or(line);
        }
        self.fields.line(line, sink)
    }
}

impl Fields {
    fn line(&mut self, line: &[u8], sink: &mut impl FnMut(Event<'_>)) -> Result<(), TooLong> {
        if line.is_empty() {
            if let Some(data) = self.data.strip_suffix(b"\n") {
                let kind = &self.kind;
                sink(Event { kind, data });
            }
            self.data = emptied(take(&mut self.data));
            self.kind = emptied(take(&mut self.kind));
            return Ok(());
        }
        let (name, value) = match line.iter().position(|b| *b == b':') {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &[][..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match name {
            b"data" => {
                grow(&mut self.data, value)?;
                self.data.push(b'\n');
            }
            b"event" => {
                self.kind.clear();
                self.kind.extend_from_slice(value);
            }
            // Comments, which have an empty name; id and retry, which are of no use here; others are ignored.
            _ => {}
        }
        Ok(())
    }
}

fn grow(buffer: &mut Vec<u8>, bytes: &[u8]) -> Result<(), TooLong> {
    if buffer.len() + bytes.len() > LONGEST {
        return Err(TooLong);
    }
    buffer.extend_from_slice(bytes);
    Ok(())
}

fn emptied(mut buffer: Vec<u8>) -> Vec<u8> {
    buffer.clear();
    if buffer.capacity() > KEPT {
        return Vec::new();
    }
    buffer
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{KEPT, LONGEST, Parser, TooLong};

    type Events = Vec<(String, String)>;

    fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Events, TooLong> {
        let mut parser = Parser::default();
        let mut events = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        for piece in pieces {
            parser.eat(piece, |event| {
                events.push((text(event.kind), text(event.data)));
            })?;
        }
        Ok(events)
    }

    fn events(stream: &str) -> Events {
        read([stream.as_bytes()]).unwrap()
    }

    /// The examples of the standard, and its corners.
    #[test]
    fn streams_are_read_as_the_standard_says() {
        for (stream, want) in [
            (
                "data: YHOO\ndata: +2\ndata: 10\n\n",
                &[("", "YHOO\n+2\n10")][..],
            ),
            (
                ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event",
                &[("", "first event"), ("", "second event")],
            ),
            ("data\n\ndata\ndata\n\ndata:", &[("", ""), ("", "\n")]),
            ("data:test\n\ndata: test\n\n", &[("", "test"), ("", "test")]),
            (
                "event: add\ndata: 1\n\ndata: 2\n\n",
                &[("add", "1"), ("", "2")],
            ),
            ("event: add\n\ndata: 2\n\n", &[("", "2")]),
            ("data: a\r\ndata: b\r\n\r\n", &[("", "a\nb")]),
            ("data: a\rdata: b\r\r", &[("", "a\nb")]),
            ("data: a\r\r\n\n", &[("", "a")]),
            ("\u{feff}data: a\n\n", &[("", "a")]),
            ("data: a\n\n\u{feff}data: b\n\n", &[("", "a")]),
            (": ping\n\n: ping\n\n", &[]),
            ("datum: x\nDATA: x\n data: x\n\n", &[]),
            ("data: a:b: c\n\n", &[("", "a:b: c")]),
            ("", &[]),
        ] {
            let got = events(stream);
            let got: Vec<_> = got.iter().map(|(k, d)| (k.as_str(), d.as_str())).collect();
            assert_eq!(got, want, "{stream:?}");
        }
    }

    #[test]
    fn what_does_not_end_is_not_kept_for_ever() {
        let piece = [b'x'; 1000];
        let endless = std::iter::repeat_n(&piece[..], LONGEST / piece.len() + 1);
        assert_eq!(read(endless), Err(TooLong));
        let line = b"data: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n";
        assert_eq!(read(std::iter::repeat_n(&line[..], 20_000)), Err(TooLong));
    }

    #[test]
    fn what_was_large_once_is_given_back() {
        let large = "x".repeat(LONGEST / 2);
        let mut parser = Parser::default();
        let mut events = 0;
        let (kind, rest) = (format!("event: {large}\n"), format!("data: {large}\n\n"));
        for piece in [&kind[..100], &kind[100..], &rest[..100], &rest[100..]] {
            parser.eat(piece.as_bytes(), |_| events += 1).unwrap();
        }
        let fields = &parser.fields;
        let kept = [&parser.line, &fields.kind, &fields.data].map(Vec::capacity);
        assert!(
            events == 1 && kept.iter().all(|bytes| *bytes <= KEPT),
            "{kept:?}"
        );
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            parts in prop::collection::vec("data|event|id|:| |\r|\n|\r\n|a|\u{feff}|\n\n", 0..40),
            cuts in prop::collection::vec(0usize..80, 0..10),
        ) {
            let stream = parts.concat();
            let mut cuts: Vec<_> = cuts.into_iter().filter(|cut| *cut < stream.len()).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|cut| &stream.as_bytes()[cut[0]..cut[1]]);
            prop_assert_eq!(read(pieces).unwrap(), events(&stream));
        }
    }
}
