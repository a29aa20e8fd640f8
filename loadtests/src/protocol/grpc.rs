//! gRPC over HTTP/2, as far as a client that measures needs it
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>): messages in, messages out, a status at the end.
//!
//! Messages are bytes. Two calls are known: the health check of every server, and the inference of models. What messages look like beyond
//! these is not known here, and compression is not offered.

use std::{str::FromStr, time::Duration};

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message as _;

use crate::error::Error;

/// The word for a call of the Open Inference Protocol.
pub(crate) const MODEL_INFER: &str = "model-infer";
/// Its path (<https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/open_inference_grpc.proto>).
const INFER_PATH: &str = "/inference.GRPCInferenceService/ModelInfer";
/// The path of a health check (<https://github.com/grpc/grpc/blob/master/doc/health-checking.md>).
const HEALTH_PATH: &str = "/grpc.health.v1.Health/Check";
/// `SERVING` of a health check.
const SERVING: i32 = 1;
/// What requests and answers are, to which `+` and a format may be added.
pub(crate) const CONTENT: &str = "application/grpc";
/// Bytes before each message: whether it is compressed, and its length.
pub(crate) const PREFIX: usize = 5;
/// Values of a tensor, so that a slip in its shape does not take the memory of the machine.
const MOST_VALUES: u64 = 16 * 1024 * 1024;
const METHOD_ALLOWED: &str =
    "SERVICE/METHOD such as package.Service/Method, health, health:SERVICE or model-infer";

/// The codes, from 0 (<https://github.com/grpc/grpc/blob/master/doc/statuscodes.md>).
const NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// How a call ended, as the server says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(u8);

impl Code {
    pub(crate) const OK: Self = Self(0);

    /// As it is written in a field. Codes that do not exist are `UNKNOWN`, as gRPC's own clients have it.
    pub(crate) fn read(field: &[u8]) -> Self {
        let code = std::str::from_utf8(field).ok().and_then(|f| f.parse().ok());
        Self(
            code.filter(|code| usize::from(*code) < NAMES.len())
                .unwrap_or(2),
        )
    }

    pub(crate) fn name(self) -> &'static str {
        NAMES[usize::from(self.0)]
    }
}

/// What is called, and what is looked at of the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    path: String,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Bytes,
    Health,
    Infer,
}

impl Call {
    /// The path of the method: `/SERVICE/METHOD`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// A call as it is typed (`SERVICE/METHOD`, `health` or `health:SERVICE`), and the message that it brings along.
    pub fn parse(text: &str) -> Result<(Self, Option<Bytes>), Error> {
        if text == "health" {
            return Ok(Self::health(""));
        }
        if let Some(service) = text.strip_prefix("health:") {
            return Ok(Self::health(service));
        }
        let name = |part: &str| {
            let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
            !part.is_empty() && part.bytes().all(fits)
        };
        let typed = text.strip_prefix('/').unwrap_or(text);
        match typed.split_once('/') {
            Some((service, method)) if name(service) && name(method) => {
                let path = format!("/{typed}");
                let kind = Kind::Bytes;
                Ok((Self { path, kind }, None))
            }
            _ => Err(Error::invalid("--grpc", text, METHOD_ALLOWED)),
        }
    }

    fn health(service: &str) -> (Self, Option<Bytes>) {
        let service = service.to_owned();
        let call = Self {
            path: HEALTH_PATH.to_owned(),
            kind: Kind::Health,
        };
        (call, Some(HealthRequest { service }.encode_to_vec().into()))
    }

    /// An inference, and its message.
    pub(crate) fn infer(model: &str, inputs: &[Tensor]) -> (Self, Bytes) {
        let request = InferRequest {
            model_name: model.to_owned(),
            inputs: inputs.iter().map(|Tensor(input)| input.clone()).collect(),
        };
        let call = Self {
            path: INFER_PATH.to_owned(),
            kind: Kind::Infer,
        };
        (call, request.encode_to_vec().into())
    }

    /// Whether the message of the answer is looked at.
    pub(crate) fn looks(&self) -> bool {
        self.kind == Kind::Health
    }

    /// What is wrong with an answer of so many messages that was a success, `kept` being their bytes.
    pub(crate) fn fault(&self, messages: u64, kept: &[u8]) -> Option<String> {
        if self.kind == Kind::Bytes {
            return None;
        }
        if messages != 1 {
            return Some(format!("{messages} messages instead of one"));
        }
        if self.kind == Kind::Infer {
            return None;
        }
        match HealthResponse::decode(kept) {
            Ok(HealthResponse { status: SERVING }) => None,
            Ok(HealthResponse { status }) => {
                let names = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
                let name = usize::try_from(status).ok().and_then(|at| names.get(at));
                Some(format!("the health is {}", name.unwrap_or(&"?")))
            }
            Err(error) => Some(format!("the message is no health: {error}")),
        }
    }
}

/// A message as it is sent.
pub(crate) fn framed(message: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(PREFIX + message.len());
    bytes.put_u8(0);
    // See `Protocol::check`.
    bytes.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    bytes.put_slice(message);
    bytes.freeze()
}

/// The field `grpc-timeout`: a number of at most eight digits with a unit.
pub(crate) fn timeout(timeout: Duration) -> String {
    let micros = timeout.as_micros().max(1);
    if micros < 100_000_000 {
        return format!("{micros}u");
    }
    format!("{}m", timeout.as_millis().min(99_999_999))
}

/// The words of a status, which are percent-encoded.
pub(crate) fn words(field: &[u8]) -> String {
    let digit = |at: usize| field.get(at).and_then(|b| char::from(*b).to_digit(16));
    let mut bytes = Vec::new();
    let mut at = 0;
    while let Some(&byte) = field.get(at) {
        if let (b'%', Some(high), Some(low)) = (byte, digit(at + 1), digit(at + 2)) {
            // Two digits of base 16 are a byte.
            bytes.push(u8::try_from(high * 16 + low).unwrap_or_default());
            at += 3;
        } else {
            bytes.push(byte);
            at += 1;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Takes the body of an answer apart.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    prefix: [u8; PREFIX],
    /// How much of it is there.
    read: usize,
    /// Bytes of the present message that are missing.
    left: u32,
}

/// Why a message cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unreadable {
    /// Nobody offered to take it so.
    #[error("a compressed message")]
    Compressed,
    #[error("what came is no message of gRPC: it begins with {0} instead of 0 or 1")]
    Flag(u8),
}

/// What the bytes of an answer are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// Of a message.
    Data(&'a [u8]),
    /// The end of a message.
    End,
}

impl Messages {
    pub(crate) fn eat(
        &mut self,
        mut bytes: &[u8],
        mut sink: impl FnMut(Piece<'_>),
    ) -> Result<(), Unreadable> {
        while !bytes.is_empty() {
            if self.read < PREFIX {
                let taken = bytes.len().min(PREFIX - self.read);
                self.prefix[self.read..self.read + taken].copy_from_slice(&bytes[..taken]);
                self.read += taken;
                bytes = &bytes[taken..];
                if self.read < PREFIX {
                    return Ok(());
                }
                let [flag, length @ ..] = self.prefix;
                match flag {
                    0 => {}
                    1 => return Err(Unreadable::Compressed),
                    other => return Err(Unreadable::Flag(other)),
                }
                self.left = u32::from_be_bytes(length);
            } else {
                let left = usize::try_from(self.left).unwrap_or(usize::MAX);
                let (data, rest) = bytes.split_at(left.min(bytes.len()));
                sink(Piece::Data(data));
                // Not more than was left.
                self.left -= u32::try_from(data.len()).unwrap_or(self.left);
                bytes = rest;
            }
            if self.left == 0 {
                sink(Piece::End);
                self.read = 0;
            }
        }
        Ok(())
    }

    /// Whether nothing of a message has come that has not ended.
    pub(crate) fn is_between(&self) -> bool {
        self.read == 0
    }
}

/// A tensor as it is typed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tensor(Input);

impl Tensor {
    pub(crate) fn name(&self) -> &str {
        &self.0.name
    }
}

impl FromStr for Tensor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const ALLOWED: &str =
            "a tensor is NAME:DATATYPE:SHAPE=VALUES, such as x:FP32:1x4=5.1,3.5,1.4,0.2";
        let (about, values) = text.split_once('=').ok_or(ALLOWED)?;
        // A name may have colons.
        let mut parts = about.rsplitn(3, ':');
        let (Some(shape), Some(datatype), Some(name)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(ALLOWED.into());
        };
        let sizes: Option<Vec<i64>> = shape
            .split('x')
            .map(|size| size.parse().ok().filter(|size| *size >= 0))
            .collect();
        let shape = sizes.ok_or_else(|| format!("{shape:?} is no shape: {ALLOWED}"))?;
        let wanted = shape
            .iter()
            .try_fold(1_u64, |all, size| all.checked_mul(size.unsigned_abs()))
            .filter(|count| *count <= MOST_VALUES)
            .ok_or_else(|| format!("a tensor has at most {MOST_VALUES} values"))?;
        let values: Vec<_> = if values.is_empty() {
            Vec::new()
        } else {
            values.split(',').map(str::trim).collect()
        };
        if values.len() as u64 != wanted {
            let got = values.len();
            return Err(format!("{got} values for a shape of {wanted}: {ALLOWED}"));
        }
        Ok(Self(Input {
            contents: Some(Contents::of(datatype, &values)?),
            name: name.to_owned(),
            datatype: datatype.to_owned(),
            shape,
        }))
    }
}

impl Contents {
    fn of(datatype: &str, values: &[&str]) -> Result<Self, String> {
        fn all<T: FromStr>(datatype: &str, values: &[&str]) -> Result<Vec<T>, String> {
            let wrong = |value: &str| format!("{value:?} is no {datatype}");
            let one = |value: &&str| value.parse().map_err(|_| wrong(value));
            values.iter().map(one).collect()
        }
        /// Small integers travel as larger ones.
        fn narrow<T: FromStr, W: From<T>>(d: &str, values: &[&str]) -> Result<Vec<W>, String> {
            Ok(all::<T>(d, values)?.into_iter().map(W::from).collect())
        }
        let mut contents = Self::default();
        match datatype {
            "BOOL" => contents.bools = all(datatype, values)?,
            "INT8" => contents.ints = narrow::<i8, _>(datatype, values)?,
            "INT16" => contents.ints = narrow::<i16, _>(datatype, values)?,
            "INT32" => contents.ints = all(datatype, values)?,
            "INT64" => contents.int64s = all(datatype, values)?,
            "UINT8" => contents.uints = narrow::<u8, _>(datatype, values)?,
            "UINT16" => contents.uints = narrow::<u16, _>(datatype, values)?,
            "UINT32" => contents.uints = all(datatype, values)?,
            "UINT64" => contents.uint64s = all(datatype, values)?,
            "FP32" => contents.fp32s = all(datatype, values)?,
            "FP64" => contents.fp64s = all(datatype, values)?,
            "BYTES" => contents.bytes = values.iter().map(|v| v.as_bytes().to_vec()).collect(),
            _ => {
                return Err(format!(
                    "{datatype:?} is no datatype: BOOL, INT8 to INT64, UINT8 to UINT64, FP32, FP64 or BYTES"
                ));
            }
        }
        Ok(contents)
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// `inference.ModelInferRequest`, without what is not sent.
#[derive(Clone, PartialEq, prost::Message)]
struct InferRequest {
    #[prost(string, tag = "1")]
    model_name: String,
    #[prost(message, repeated, tag = "5")]
    inputs: Vec<Input>,
}

/// `InferInputTensor`.
#[derive(Clone, PartialEq, prost::Message)]
struct Input {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    datatype: String,
    #[prost(int64, repeated, tag = "3")]
    shape: Vec<i64>,
    #[prost(message, optional, tag = "5")]
    contents: Option<Contents>,
}

/// `InferTensorContents`.
#[derive(Clone, PartialEq, prost::Message)]
struct Contents {
    #[prost(bool, repeated, tag = "1")]
    bools: Vec<bool>,
    #[prost(int32, repeated, tag = "2")]
    ints: Vec<i32>,
    #[prost(int64, repeated, tag = "3")]
    int64s: Vec<i64>,
    #[prost(uint32, repeated, tag = "4")]
    uints: Vec<u32>,
    #[prost(uint64, repeated, tag = "5")]
    uint64s: Vec<u64>,
    #[prost(float, repeated, tag = "6")]
    fp32s: Vec<f32>,
    #[prost(double, repeated, tag = "7")]
    fp64s: Vec<f64>,
    #[prost(bytes = "vec", repeated, tag = "8")]
    bytes: Vec<Vec<u8>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn infer(tensor: &str) -> Bytes {
        Call::infer("m", &[tensor.parse().unwrap()]).1
    }

    /// Written by hand from the encoding of protobuf (<https://protobuf.dev/programming-guides/encoding>): a tag is the number of the field
    /// times eight, and 2 for what has a length.
    #[test]
    fn messages_are_the_bytes_of_the_specification() {
        assert_eq!(Call::parse("health").unwrap().1.unwrap(), "");
        let named = Call::parse("health:ab").unwrap().1.unwrap();
        assert_eq!(named, &b"\x0a\x02ab"[..]);
        // Field 1: "m". Field 5: name "x", datatype "INT32", shape 1 and 2 (packed), contents with field 2: 150 and -1 (packed).
        let wanted = b"\x0a\x01m\x2a\x1e\x0a\x01x\x12\x05INT32\x1a\x02\x01\x02\x2a\x0e\x12\x0c\x96\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
        assert_eq!(infer("x:INT32:1x2=150,-1"), &wanted[..]);
        let wanted =
            b"\x0a\x01m\x2a\x14\x0a\x01x\x12\x04FP32\x1a\x01\x01\x2a\x06\x32\x04\x00\x00\xc0\x3f";
        assert_eq!(infer("x:FP32:1=1.5"), &wanted[..]);
        let wanted =
            b"\x0a\x01m\x2a\x18\x0a\x03a:b\x12\x05BYTES\x1a\x01\x02\x2a\x07\x42\x02hi\x42\x01y";
        assert_eq!(infer("a:b:BYTES:2=hi,y"), &wanted[..]);
        assert_eq!(framed(b"abc"), &b"\0\0\0\0\x03abc"[..]);
    }

    #[test]
    fn what_is_no_tensor_or_method_is_named() {
        for (text, word) in [
            ("", "NAME:DATATYPE"),
            ("x:FP32:1", "NAME:DATATYPE"),
            ("x:FP32=1", "NAME:DATATYPE"),
            ("x:FP32:a=1", "\"a\""),
            ("x:FP32:-1=1", "\"-1\""),
            ("x:FP32:2=1", "1 values for a shape of 2"),
            ("x:FP32:1=", "0 values"),
            ("x:FP32:1=b", "\"b\" is no FP32"),
            ("x:INT8:1=128", "\"128\" is no INT8"),
            ("x:FP16:1=1", "\"FP16\""),
            ("x:FP32:9999999999x9999999999x99=1", "at most"),
        ] {
            let error = text.parse::<Tensor>().expect_err(text);
            assert!(error.contains(word), "{text}: {error}");
        }
        for method in ["", "a", "a/", "/b", "a/b/c", "a b/c", "healthy", "a/b?c"] {
            let error = Call::parse(method).expect_err(method).to_string();
            assert!(error.contains("SERVICE/METHOD"), "{method}: {error}");
        }
        for method in ["a.B/C", "/a.B/C"] {
            assert_eq!(Call::parse(method).unwrap().0.path(), "/a.B/C");
        }
    }

    #[test]
    fn answers_are_taken_apart_whatever_the_pieces() {
        let body = b"\0\0\0\0\x02ab\0\0\0\0\0\0\0\0\0\x01c\0\0";
        for size in 1..=body.len() {
            let mut messages = Messages::default();
            let (mut data, mut ends) = (Vec::new(), 0);
            for piece in body.chunks(size) {
                let sink = |piece: Piece<'_>| match piece {
                    Piece::Data(bytes) => data.extend_from_slice(bytes),
                    Piece::End => ends += 1,
                };
                messages.eat(piece, sink).unwrap();
                // Only the last two bytes are of a message that has not ended.
            }
            assert_eq!((data.as_slice(), ends), (&b"abc"[..], 3), "{size}");
            assert!(!messages.is_between());
        }
        let eaten = Messages::default().eat(b"\x01\0\0\0\0", |_| ());
        assert_eq!(eaten, Err(Unreadable::Compressed));
    }

    #[test]
    fn a_health_other_than_serving_is_a_fault() {
        let (call, _) = Call::parse("health").unwrap();
        assert_eq!(call.fault(1, b"\x08\x01"), None);
        for (messages, kept, word) in [
            (1, &b"\x08\x02"[..], "NOT_SERVING"),
            (1, b"", "UNKNOWN"),
            (1, b"\xff", "no health"),
            (0, b"", "0 messages"),
        ] {
            let fault = call.fault(messages, kept).unwrap();
            assert!(fault.contains(word), "{fault}");
        }
    }

    #[test]
    fn timeouts_codes_and_words_are_those_of_the_specification() {
        for (duration, text) in [
            (Duration::from_millis(1500), "1500000u"),
            (Duration::from_secs(100), "100000m"),
            (Duration::from_hours(1), "3600000m"),
            (Duration::from_nanos(1), "1u"),
        ] {
            assert_eq!(timeout(duration), text);
        }
        assert_eq!(Code::read(b"14").name(), "UNAVAILABLE");
        assert_eq!([&b"17"[..], b"x", b"-1", b""].map(Code::read), [Code(2); 4]);
        assert_eq!(words(b"a%20b%C3%A4%2x%"), "a b\u{e4}%2x%");
    }
}
