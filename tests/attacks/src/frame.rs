//! Frames of HTTP/2 (RFC 9113 sections 4 and 6) and field blocks without compression (RFC 7541 section 6.2).

/// What a client sends before its first frame.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Types of frames.
pub mod kind {
    #![expect(missing_docs, reason = "the words of RFC 9113 section 6")]
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// Flag of DATA and HEADERS: nothing follows on the stream.
pub const END_STREAM: u8 = 1;
/// Flag of HEADERS and CONTINUATION: the field block is whole.
pub const END_HEADERS: u8 = 4;
/// Setting: bytes that may be sent on a new stream.
pub const INITIAL_WINDOW_SIZE: u16 = 4;

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its type, see [`kind`].
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream; 0 is the connection.
    pub stream: u32,
    /// What is in it.
    pub payload: Vec<u8>,
}

/// A frame's bytes.
///
/// # Panics
/// If the payload is longer than a frame can say.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame's length");
    let [none, length @ ..] = length.to_be_bytes();
    assert_eq!(none, 0, "a frame's length has 24 bits");
    let mut bytes = Vec::with_capacity(9 + payload.len());
    bytes.extend(length);
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Takes the first frame off `bytes` if it is whole.
pub fn take(bytes: &mut Vec<u8>) -> Option<Frame> {
    let (&[a, b, c, kind, flags, ref stream @ ..], _) = bytes.split_first_chunk::<9>()?;
    let end = 9 + usize::try_from(u32::from_be_bytes([0, a, b, c])).ok()?;
    let frame = Frame {
        kind,
        flags,
        stream: u32::from_be_bytes(*stream) & 0x7fff_ffff,
        payload: bytes.get(9..end)?.to_vec(),
    };
    bytes.drain(..end);
    Some(frame)
}

/// SETTINGS with these values.
pub fn settings(values: &[(u16, u32)]) -> Vec<u8> {
    let value = |(id, value): &(u16, u32)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat();
    let payload: Vec<_> = values.iter().flat_map(value).collect();
    frame(kind::SETTINGS, 0, 0, &payload)
}

/// A field as a literal that nobody remembers.
pub fn field(name: &str, value: impl AsRef<[u8]>) -> Vec<u8> {
    literal(0, name, value.as_ref())
}

/// A field as a literal that the other side has to remember, as the first of its table.
pub fn remembered(name: &str, value: impl AsRef<[u8]>) -> Vec<u8> {
    literal(0x40, name, value.as_ref())
}

/// The first field of the other side's table, in one byte.
pub const FIRST_REMEMBERED: u8 = 0x80 | 0x3e;

fn literal(kind: u8, name: &str, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    for text in [name.as_bytes(), value] {
        length(&mut bytes, text.len());
        bytes.extend(text);
    }
    bytes
}

/// A number of seven bits or more (RFC 7541 section 5.1).
fn length(bytes: &mut Vec<u8>, length: usize) {
    let [low, ..] = length.to_le_bytes();
    if length < 127 {
        bytes.push(low);
        return;
    }
    bytes.push(127);
    let mut rest = length - 127;
    while rest >= 128 {
        let [low, ..] = rest.to_le_bytes();
        bytes.push(low | 128);
        rest >>= 7;
    }
    let [low, ..] = rest.to_le_bytes();
    bytes.push(low);
}

/// The fields that a proper GET begins with.
pub const GET: &[(&str, &str)] = &[
    (":method", "GET"),
    (":scheme", "http"),
    (":authority", "a"),
    (":path", "/"),
];
/// The same of a POST.
pub const POST: &[(&str, &str)] = &[
    (":method", "POST"),
    (":scheme", "http"),
    (":authority", "a"),
    (":path", "/"),
];

/// A field block of these.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    fields
        .iter()
        .flat_map(|(name, value)| field(name, value))
        .collect()
}

/// HEADERS with all of a field block.
pub fn headers(stream: u32, flags: u8, block: &[u8]) -> Vec<u8> {
    frame(kind::HEADERS, flags | END_HEADERS, stream, block)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_taken_once_it_is_whole() {
        let mut bytes = [
            frame(kind::PING, 1, 0, b"12345678"),
            frame(kind::DATA, 0, 7, &vec![0; 70_000]),
        ]
        .concat();
        let last = bytes.pop();
        let first = take(&mut bytes).unwrap();
        assert_eq!((first.kind, first.flags, first.stream), (kind::PING, 1, 0));
        assert_eq!(first.payload, b"12345678");
        assert_eq!(take(&mut bytes), None);
        bytes.extend(last);
        let second = take(&mut bytes).unwrap();
        assert_eq!((second.stream, second.payload.len()), (7, 70_000));
        assert!(bytes.is_empty());
    }

    /// RFC 7541 appendix C.1: the numbers there, with a prefix of seven bits.
    #[test]
    fn lengths_are_written_as_hpack_has_them() {
        let written = |n| {
            let mut bytes = Vec::new();
            length(&mut bytes, n);
            bytes
        };
        assert_eq!(written(10), [10]);
        assert_eq!(written(126), [126]);
        assert_eq!(written(127), [127, 0]);
        assert_eq!(written(1_337), [127, 0b1011_1010, 0b0000_1001]);
    }
}
