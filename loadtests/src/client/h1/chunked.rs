//! Chunked bodies (RFC 9112, section 7.1), of which only the lengths matter.

use super::Malformed;

/// Bytes of a line: a size with its extensions, or a field of the trailers.
const LINE: usize = 8 * 1024;
/// Bytes of all trailers.
const TRAILERS: usize = 64 * 1024;

/// Where a body is that comes in pieces.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    at: At,
    /// Bytes of the present line.
    line: usize,
    trailers: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    /// In a size of so many digits.
    #[default]
    Start,
    Size(u64),
    /// After a size, up to the end of its line.
    Extension(u64),
    /// Before the newline that ends a size.
    SizeEnd(u64),
    /// Before so many bytes of data.
    Data(u64),
    /// Before the line end after data.
    DataEnd,
    DataNewline,
    /// At the beginning of a line of trailers, after its beginning, and before the newline that ends all.
    Trailers,
    Trailer,
    LastNewline,
}

/// What was taken.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Eaten {
    pub(super) bytes: usize,
    pub(super) data: u64,
    /// Whether the body has ended.
    pub(super) is_end: bool,
}

impl Chunks {
    /// Takes what there is, but nothing of what comes after the body. Data goes to `sink`.
    pub(super) fn eat(
        &mut self,
        bytes: &[u8],
        mut sink: impl FnMut(&[u8]),
    ) -> Result<Eaten, Malformed> {
        let mut eaten = Eaten::default();
        while let Some(&byte) = bytes.get(eaten.bytes) {
            if let At::Data(left) = self.at {
                let there = bytes.len() - eaten.bytes;
                let taken = usize::try_from(left).unwrap_or(usize::MAX).min(there);
                sink(&bytes[eaten.bytes..][..taken]);
                eaten.bytes += taken;
                eaten.data += taken as u64;
                let left = left - taken as u64;
                self.at = if left == 0 {
                    At::DataEnd
                } else {
                    At::Data(left)
                };
                continue;
            }
            eaten.bytes += 1;
            self.line += 1;
            if self.line > LINE {
                return Err(Malformed);
            }
            self.at = match (self.at, byte) {
                (At::Size(size) | At::Extension(size), b'\r') => At::SizeEnd(size),
                (At::Start, digit) => At::Size(more(0, digit)?),
                (At::Size(size), b';' | b' ' | b'\t') => At::Extension(size),
                (At::Size(size), digit) => At::Size(more(size, digit)?),
                (At::Extension(size), byte) if byte != b'\n' => At::Extension(size),
                (At::SizeEnd(0), b'\n') => At::Trailers,
                (At::SizeEnd(size), b'\n') => At::Data(size),
                (At::DataEnd, b'\r') => At::DataNewline,
                (At::DataNewline, b'\n') => At::Start,
                (At::Trailers, b'\r') => At::LastNewline,
                (At::Trailers | At::Trailer, byte) => {
                    self.trailers += 1;
                    if self.trailers > TRAILERS {
                        return Err(Malformed);
                    }
                    if byte == b'\n' {
                        At::Trailers
                    } else {
                        At::Trailer
                    }
                }
                (At::LastNewline, b'\n') => {
                    eaten.is_end = true;
                    return Ok(eaten);
                }
                _ => return Err(Malformed),
            };
            if matches!(self.at, At::Start | At::Data(_) | At::Trailers) {
                self.line = 0;
            }
        }
        Ok(eaten)
    }
}

fn more(size: u64, digit: u8) -> Result<u64, Malformed> {
    let digit = char::from(digit).to_digit(16).ok_or(Malformed)?;
    let size = size.checked_mul(16).ok_or(Malformed)?;
    Ok(size | u64::from(digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = "5\r\nhello\r\n0A;x=\"y\"\r\n0123456789\r\n0\r\na: b\r\nc: d\r\n\r\n";

    #[test]
    fn data_is_counted_however_it_comes_and_what_follows_is_left() {
        let text = format!("{BODY}HTTP/1.1");
        for piece in 1..text.len() {
            let (mut chunks, mut data, mut rest) = (Chunks::default(), 0, text.as_bytes());
            let mut said = Vec::new();
            loop {
                let eaten = chunks
                    .eat(&rest[..piece.min(rest.len())], |data| {
                        said.extend_from_slice(data);
                    })
                    .unwrap();
                (data, rest) = (data + eaten.data, &rest[eaten.bytes..]);
                if eaten.is_end {
                    break;
                }
            }
            assert_eq!((data, rest), (15, &b"HTTP/1.1"[..]), "{piece}");
            assert_eq!(said, b"hello0123456789");
        }
    }

    #[test]
    fn what_is_no_chunk_is_malformed() {
        let long = format!("1;{}", "x".repeat(LINE));
        let trailers = format!("0\r\n{}", "a: b\r\n".repeat(TRAILERS / 5));
        for body in [
            "\r\n",
            "x\r\n",
            "-1\r\n",
            "5\nhello",
            "1\r\nab",
            "1\r\na\nb",
            "5 \n",
            "0\r\n\rx",
            "10000000000000000\r\n",
            &long,
            &trailers,
        ] {
            assert_eq!(
                Chunks::default().eat(body.as_bytes(), |_| ()),
                Err(Malformed),
                "{body:.20}"
            );
        }
    }
}
