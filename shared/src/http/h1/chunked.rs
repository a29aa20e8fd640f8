//! Follows a chunked body (RFC 9112 section 7.1) to its end.

use super::head::{Limits, Refusal, split_field};

/// Bytes of chunk extensions that one body may carry. Nobody uses them; without a limit they carry data for free.
const EXTENSION_BYTES: usize = 4 * 1024;

/// The ends of the last trailer field and of the blank line, with room to spare: hyper refuses trailers that just reach its
/// limit, which is the same, and would break off the body that was let pass.
const LINE_ENDS: usize = 5;

/// Where in the chunked coding the stream is. Works byte by byte in lines, chunk data is skipped in one step.
#[derive(Debug, Default)]
pub(super) struct Chunked {
    at: At,
    extension_bytes: usize,
    trailer_bytes: usize,
    trailer_fields: usize,
    line: Vec<u8>,
}

#[derive(Debug, Default, Clone, Copy)]
enum At {
    #[default]
    SizeStart,
    Size(u64, u8),
    Extension(u64),
    SizeLf(u64),
    Data(u64),
    DataCr,
    DataLf,
    TrailerLine,
    TrailerLf,
}

impl Chunked {
    /// Consumes as much of `bytes` as belongs to this body. Returns how much that is and whether the body ended.
    pub(super) fn scan(&mut self, bytes: &[u8], limits: &Limits) -> Result<(usize, bool), Refusal> {
        let mut i = 0;
        while i < bytes.len() {
            if let At::Data(left) = self.at {
                let take = usize::try_from(left)
                    .unwrap_or(usize::MAX)
                    .min(bytes.len() - i);
                i += take;
                let left = left - take as u64;
                self.at = if left == 0 {
                    At::DataCr
                } else {
                    At::Data(left)
                };
                continue;
            }
            let byte = bytes[i];
            i += 1;
            if self.step(byte, limits)? {
                return Ok((i, true));
            }
        }
        Ok((i, false))
    }

    /// One byte of the coding itself. True at the end of the body.
    fn step(&mut self, byte: u8, limits: &Limits) -> Result<bool, Refusal> {
        self.at = match (self.at, byte) {
            (At::SizeStart, b) if b.is_ascii_hexdigit() => At::Size(hex(b), 1),
            (At::Size(n, digits), b) if b.is_ascii_hexdigit() => {
                // 15 digits keep the size below 2^60, far from any overflow in anyone's arithmetic.
                if digits >= 15 {
                    return Err(Refusal::bad("chunk size too large"));
                }
                At::Size(n * 16 + hex(b), digits + 1)
            }
            (At::Size(n, _), b';') => At::Extension(n),
            (At::Size(n, _) | At::Extension(n), b'\r') => At::SizeLf(n),
            (At::Extension(n), b) if b == b'\t' || (0x20..0x7f).contains(&b) => {
                self.extension_bytes += 1;
                if self.extension_bytes > EXTENSION_BYTES {
                    return Err(Refusal::bad("chunk extensions too long"));
                }
                At::Extension(n)
            }
            (At::SizeLf(0), b'\n') => At::TrailerLine,
            (At::SizeLf(n), b'\n') => At::Data(n),
            (At::DataCr, b'\r') => At::DataLf,
            (At::DataLf, b'\n') => At::SizeStart,
            (At::TrailerLine, b'\r') => At::TrailerLf,
            (At::TrailerLine, b) if b == b'\t' || (0x20..0x7f).contains(&b) => {
                self.trailer_bytes += 1;
                if self.trailer_bytes > limits.head_bytes.saturating_sub(LINE_ENDS) {
                    return Err(Refusal::HEAD_TOO_LARGE);
                }
                self.line.push(b);
                At::TrailerLine
            }
            (At::TrailerLf, b'\n') => {
                if self.line.is_empty() {
                    return Ok(true);
                }
                self.trailer_fields += 1;
                if self.trailer_fields > limits.fields {
                    return Err(Refusal::new(431, "too many trailer fields"));
                }
                split_field(&self.line)?;
                self.line.clear();
                self.trailer_bytes += 2;
                At::TrailerLine
            }
            _ => return Err(Refusal::bad("malformed chunked body")),
        };
        Ok(false)
    }
}

fn hex(digit: u8) -> u64 {
    u64::from(char::from(digit).to_digit(16).unwrap_or(0))
}
