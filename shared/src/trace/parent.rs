//! The value of `traceparent`.

use std::fmt;

/// A trace, all requests that have one cause. Never 0.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TraceId(pub [u8; 16]);

/// A span, one step of a trace. Never 0.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SpanId(pub [u8; 8]);

/// What a well-formed `traceparent` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace.
    pub trace: TraceId,
    /// The caller's span.
    pub span: SpanId,
    /// All flags; only one of them is defined, see [`Self::is_sampled`].
    pub flags: u8,
}

/// Bytes of a value of version 0, and of that part of later ones which means the same.
const LENGTH: usize = 55;
/// Longest value of a later version: nobody knows what else there will be, but it will not be a way to fill a model's head.
const LONGEST: usize = 256;
/// The caller may have recorded its span.
const SAMPLED: u8 = 1;
/// The second half of the trace's number is random (level 2).
const RANDOM: u8 = 2;

impl TraceParent {
    /// Reads a value; `None` if it is not one. Of a later version than 0 what all of them have in common is read.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (known, more) = value.split_at_checked(LENGTH)?;
        let [version] = bytes(&known[..2])?;
        match version {
            0 if !more.is_empty() => return None,
            0xff => return None,
            _ if value.len() > LONGEST || !matches!(more.first(), None | Some(b'-')) => {
                return None;
            }
            _ => {}
        }
        if [2, 35, 52].iter().any(|at| known[*at] != b'-') {
            return None;
        }
        let [flags] = bytes(&known[53..])?;
        let (trace, span) = (bytes(&known[3..35])?, bytes(&known[36..52])?);
        let is_null = trace == [0; 16] || span == [0; 8];
        (!is_null).then_some(Self {
            trace: TraceId(trace),
            span: SpanId(span),
            flags,
        })
    }

    /// Whether the caller may have recorded its span.
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The same trace as this one's, from a span of ours. Flags that later versions may have are not ours to pass on.
    #[must_use]
    pub fn child(self, span: SpanId) -> Self {
        Self {
            span,
            flags: self.flags & (SAMPLED | RANDOM),
            ..self
        }
    }

    /// A span of ours in a trace.
    pub fn of(trace: TraceId, span: SpanId, is_sampled: bool) -> Self {
        Self {
            trace,
            span,
            flags: if is_sampled { SAMPLED } else { 0 },
        }
    }
}

/// So many bytes in lower-case hexadecimal digits.
fn bytes<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    if digits.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

fn hexadecimal(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hexadecimal(&self.0, f)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hexadecimal(&self.0, f)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hexadecimal(&self.0, f)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hexadecimal(&self.0, f)
    }
}

/// In the form of version 0.
impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace, self.span, self.flags)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn reads_the_recommendation_s_example() {
        let parent = TraceParent::parse(GOOD.as_bytes()).unwrap();
        assert_eq!(parent.trace.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(parent.span.to_string(), "00f067aa0ba902b7");
        assert!(parent.is_sampled());
        assert_eq!(parent.to_string(), GOOD);
        let flags = |digits: &str| {
            let value = format!("{}{digits}", &GOOD[..53]);
            TraceParent::parse(value.as_bytes()).map(|parent| parent.is_sampled())
        };
        assert_eq!(flags("00"), Some(false));
        assert_eq!(flags("02"), Some(false));
        assert_eq!(flags("ff"), Some(true));
    }

    #[test]
    fn a_later_version_may_have_more_and_this_one_may_not() {
        let later = |more: &str| format!("cc{}{more}", &GOOD[2..]);
        for good in [later(""), later("-"), later("-what the future brings")] {
            assert!(TraceParent::parse(good.as_bytes()).is_some(), "{good}");
        }
        let long = format!("-{}", "x".repeat(LONGEST));
        for bad in [
            later("x"),
            later(&long),
            format!("{GOOD}-"),
            format!("ff{}", &GOOD[2..]),
        ] {
            assert!(TraceParent::parse(bad.as_bytes()).is_none(), "{bad}");
        }
    }

    #[test]
    fn refuses_what_is_not_one() {
        let nulls = [
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        ];
        for bad in nulls {
            assert!(TraceParent::parse(bad.as_bytes()).is_none(), "{bad}");
        }
        // Every byte matters: none may be left out, or be anything but what it is.
        for at in 0..GOOD.len() {
            let mut shorter = GOOD.as_bytes().to_vec();
            shorter.remove(at);
            assert!(TraceParent::parse(&shorter).is_none(), "without {at}");
            for other in [b'A', b'F', b'g', b' ', b'_', 0, 0xff] {
                let mut changed = GOOD.as_bytes().to_vec();
                changed[at] = other;
                assert!(
                    TraceParent::parse(&changed).is_none(),
                    "{other} instead of {at}"
                );
            }
        }
        assert!(TraceParent::parse(b"").is_none());
        assert!(TraceParent::parse(GOOD.to_uppercase().as_bytes()).is_none());
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_was_written(trace: [u8; 16], span: [u8; 8], flags: u8) {
            let parent = TraceParent { trace: TraceId(trace), span: SpanId(span), flags };
            let read = TraceParent::parse(parent.to_string().as_bytes());
            let is_null = trace == [0; 16] || span == [0; 8];
            prop_assert_eq!(read, (!is_null).then_some(parent));
        }

        #[test]
        fn any_bytes_are_survived_and_what_is_taken_is_written_the_same(value in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(parent) = TraceParent::parse(&value) {
                let written = parent.to_string();
                prop_assert_eq!(&written.as_bytes()[2..], &value[2..LENGTH]);
            }
        }
    }
}
