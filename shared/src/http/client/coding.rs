//! Where the body of an answer ends (RFC 9112 sections 6 and 7).

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::Frame;

use super::{Broken, answer::FIELDS};

/// Bytes of one line with a chunk's size.
const LINE: usize = 4 * 1024;
/// Bytes of chunk extensions in one body. Nobody uses them.
const EXTENSIONS: usize = 16 * 1024;

/// What is still to come of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Coding {
    state: State,
    /// Bytes of chunk extensions so far.
    extensions: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Over,
    Length(u64),
    UntilEnd,
    /// Before a chunk's size.
    Size,
    /// In a chunk.
    Chunk(u64),
    /// Behind a chunk's bytes.
    ChunkEnd,
    /// Behind the last chunk.
    Trailers,
}

/// What the bytes so far make.
#[derive(Debug)]
pub(super) enum Next {
    /// A part of the body.
    Frame(Frame<Bytes>),
    /// Nothing without more bytes.
    More,
    /// The body is over.
    Over,
}

impl Coding {
    /// Nothing is to come.
    pub(super) const OVER: Self = Self::new(State::Over);

    const fn new(state: State) -> Self {
        Self {
            state,
            extensions: 0,
        }
    }

    /// So many bytes.
    pub(super) fn length(bytes: u64) -> Self {
        Self::new(if bytes == 0 {
            State::Over
        } else {
            State::Length(bytes)
        })
    }

    /// Everything until the connection ends.
    pub(super) fn until_end() -> Self {
        Self::new(State::UntilEnd)
    }

    /// Chunks.
    pub(super) fn chunked() -> Self {
        Self::new(State::Size)
    }

    /// Bytes to come, if that is known.
    pub(super) fn left(&self) -> Option<u64> {
        match self.state {
            State::Over => Some(0),
            State::Length(left) => Some(left),
            _ => None,
        }
    }

    /// Whether nothing is to come.
    pub(super) fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// Whether the end of the connection is that of the body; it is over then.
    pub(super) fn ends_with_connection(&mut self) -> bool {
        if self.state == State::UntilEnd {
            self.state = State::Over;
        }
        self.is_over()
    }

    /// Takes the next part from the front of `buffer`. Whether it was the last is known at once, if its end is there.
    /// `most` is the limit of trailers in bytes.
    ///
    /// # Errors
    /// When it is not what was declared.
    pub(super) fn next(&mut self, buffer: &mut BytesMut, most: usize) -> Result<Next, Broken> {
        if let Some(trailers) = self.advance(buffer, most)? {
            return Ok(Next::Frame(Frame::trailers(trailers)));
        }
        let left = match self.state {
            State::Over => return Ok(Next::Over),
            State::Length(left) | State::Chunk(left) => left,
            State::UntilEnd => u64::MAX,
            State::Size | State::ChunkEnd | State::Trailers => return Ok(Next::More),
        };
        if buffer.is_empty() {
            return Ok(Next::More);
        }
        let take = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let data = buffer.split_to(take).freeze();
        let left = left - take as u64;
        match &mut self.state {
            State::Length(n) | State::Chunk(n) if left > 0 => *n = left,
            State::Length(_) => self.state = State::Over,
            State::Chunk(_) => self.state = State::ChunkEnd,
            _ => {}
        }
        if self.state == State::ChunkEnd && buffer.starts_with(END) {
            self.advance(buffer, most)?;
        }
        Ok(Next::Frame(Frame::data(data)))
    }

    /// Gets past what is between chunks, as far as it is there. Returns trailers, which are the end.
    fn advance(&mut self, buffer: &mut BytesMut, most: usize) -> Result<Option<HeaderMap>, Broken> {
        loop {
            self.state = match self.state {
                State::Over | State::Length(_) | State::UntilEnd | State::Chunk(_) => {
                    return Ok(None);
                }
                State::ChunkEnd => match &buffer[..] {
                    [b'\r', b'\n', ..] => {
                        buffer.advance(2);
                        State::Size
                    }
                    [] | [b'\r'] => return Ok(None),
                    _ => return Err(Broken::Malformed("a chunk longer than its size")),
                },
                State::Size => match self.size(buffer)? {
                    Some(0) => State::Trailers,
                    Some(size) => State::Chunk(size),
                    None => return Ok(None),
                },
                State::Trailers => match trailers(buffer, most)? {
                    None => return Ok(None),
                    Some(trailers) => {
                        self.state = State::Over;
                        return Ok(trailers);
                    }
                },
            }
        }
    }

    fn size(&mut self, buffer: &mut BytesMut) -> Result<Option<u64>, Broken> {
        let seen = &buffer[..buffer.len().min(LINE)];
        let Some(end) = seen.iter().position(|byte| *byte == b'\n') else {
            return if seen.len() == LINE {
                Err(Broken::Malformed("a chunk's size of more than 4 KiB"))
            } else {
                Ok(None)
            };
        };
        let malformed = Broken::Malformed("a chunk's size");
        let Some(line) = seen[..end].strip_suffix(b"\r") else {
            return Err(malformed);
        };
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit());
        let digits = digits.count();
        let (number, rest) = line.split_at(digits);
        let rest = rest.trim_ascii_start();
        // 15 digits are below 2^60, far from anybody's overflow.
        if digits == 0 || digits > 15 || !matches!(rest.first(), None | Some(b';')) {
            return Err(malformed);
        }
        self.extensions += rest.len();
        if self.extensions > EXTENSIONS {
            return Err(Broken::Malformed("chunk extensions of more than 16 KiB"));
        }
        let size = number
            .iter()
            .filter_map(|digit| char::from(*digit).to_digit(16))
            .fold(0, |size, digit| size * 16 + u64::from(digit));
        buffer.advance(end + 1);
        Ok(Some(size))
    }
}

/// What is behind the last bytes of a body without trailers.
const END: &[u8] = b"\r\n0\r\n\r\n";

/// Takes the trailers, to their blank line. `Some(None)` if there are none, `None` if they are not all there.
#[expect(clippy::option_option, reason = "not there yet, and there is none")]
fn trailers(buffer: &mut BytesMut, most: usize) -> Result<Option<Option<HeaderMap>>, Broken> {
    if buffer.starts_with(b"\r\n") {
        buffer.advance(2);
        return Ok(Some(None));
    }
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let (end, fields) = match httparse::parse_headers(buffer, &mut fields) {
        Ok(httparse::Status::Complete(read)) => read,
        Ok(httparse::Status::Partial) if buffer.len() >= most => {
            return Err(Broken::Malformed("trailers that are too large"));
        }
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(Broken::Malformed("trailers")),
    };
    let malformed = || Broken::Malformed("trailers");
    let mut trailers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| malformed())?;
        let value = HeaderValue::from_bytes(field.value).map_err(|_| malformed())?;
        trailers.append(name, value);
    }
    buffer.advance(end);
    Ok(Some(Some(trailers)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `text`, `step` bytes at a time; what was left over, and whether it ended.
    fn read(mut coding: Coding, text: &[u8], step: usize) -> Result<Read, Broken> {
        let (mut buffer, mut read) = (BytesMut::new(), Read::default());
        for piece in text.chunks(step) {
            buffer.extend_from_slice(piece);
            loop {
                match coding.next(&mut buffer, 1024)? {
                    Next::Frame(frame) => match frame.into_data() {
                        Ok(data) => {
                            assert!(!data.is_empty());
                            read.data.extend_from_slice(&data);
                        }
                        Err(frame) => read.trailers = frame.into_trailers().ok(),
                    },
                    Next::More => break,
                    Next::Over => {
                        assert!(coding.is_over());
                        read.over = true;
                        break;
                    }
                }
            }
        }
        read.rest = buffer.to_vec();
        Ok(read)
    }

    #[derive(Debug, Default, PartialEq, Eq)]
    struct Read {
        data: Vec<u8>,
        trailers: Option<HeaderMap>,
        over: bool,
        rest: Vec<u8>,
    }

    #[test]
    fn bodies_end_where_they_say_however_they_are_cut() {
        let chunked = b"5\r\nhello\r\n1;a=\"b\"\r\n \r\n00005 \r\nworld\r\n0\r\n\r\n";
        for (coding, text, rest) in [
            (Coding::length(11), b"hello world".as_slice(), ""),
            (Coding::chunked(), chunked, ""),
            (Coding::length(11), b"hello worldNEXT", "NEXT"),
        ] {
            for step in 1..=text.len() {
                let read = read(coding.clone(), text, step).unwrap();
                assert_eq!(read.data, b"hello world");
                assert!(read.over && read.trailers.is_none());
                assert_eq!(read.rest, rest.as_bytes());
            }
        }
        let read = read(Coding::until_end(), b"hello", 2).unwrap();
        assert!(!read.over);
        let mut coding = Coding::until_end();
        assert!(coding.ends_with_connection() && coding.is_over());
        assert!(!Coding::length(1).ends_with_connection());
        assert!(!Coding::chunked().ends_with_connection());
    }

    #[test]
    fn trailers_are_the_end() {
        let text = b"1\r\nx\r\n0\r\nA: 1\r\na: 2\r\n\r\nNEXT";
        for step in 1..=text.len() {
            let read = read(Coding::chunked(), text, step).unwrap();
            assert_eq!(read.data, b"x");
            assert!(read.over);
            assert_eq!(read.rest, b"NEXT");
            let trailers = read.trailers.unwrap();
            let values: Vec<_> = trailers.get_all("a").iter().collect();
            assert_eq!(values, ["1", "2"]);
        }
    }

    #[test]
    fn the_last_part_is_known_to_be_the_last_when_its_end_is_there() {
        for (text, over) in [
            ("5\r\nhello\r\n0\r\n\r\n", true),
            ("5\r\nhello\r\n0\r\n\r", false),
            ("5\r\nhello\r\n0\r\na: b\r\n\r\n", false),
            ("5\r\nhello", false),
        ] {
            let mut coding = Coding::chunked();
            let mut buffer = BytesMut::from(text);
            let next = coding.next(&mut buffer, 1024).unwrap();
            assert!(matches!(next, Next::Frame(_)), "{next:?}");
            assert_eq!(coding.is_over(), over, "{text:?}");
        }
    }

    #[test]
    fn what_is_not_chunked_coding_is_refused() {
        let long = format!("1;{}\r\nx", "a".repeat(LINE));
        let extensions = format!("1;{}\r\nx\r\n", "a".repeat(LINE - 10)).repeat(5);
        let fields = format!("0\r\n{}\r\n", "a: b\r\n".repeat(FIELDS + 1));
        let large = format!("0\r\na: {}", "b".repeat(1100));
        for text in [
            "\r\n",
            "x\r\n",
            "-1\r\n",
            "+1\r\n",
            "0x1\r\n",
            "1 2\r\n",
            "1\n",
            "1\r\nxy",
            "1\r\nx\n",
            "1234567890123456\r\n",
            "0\r\na\r\n\r\n",
            "0\r\n b: c\r\n\r\n",
            &long,
            &extensions,
            &fields,
            &large,
        ] {
            for step in [1, text.len()] {
                let read = read(Coding::chunked(), text.as_bytes(), step);
                assert!(read.is_err(), "{text:?} by {step}: {read:?}");
            }
        }
    }
}
