//! The value of `tracestate`, which may be on several lines.

use http::HeaderValue;

/// Bytes over all lines that have to be passed on, commas between them included (section 3.3.1.5).
const LONGEST: usize = 512;
/// Members of the list (section 3.3.1.1).
const MOST: usize = 32;
/// Of a key, and of a value.
const LONGEST_PART: usize = 256;

/// Whether all lines together are a list that is to be passed on. Members may be empty.
pub(super) fn is_sound<'a>(lines: impl IntoIterator<Item = &'a HeaderValue>) -> bool {
    let (mut bytes, mut count) = (0, 0);
    let mut keys = [b"".as_slice(); MOST];
    for line in lines {
        // The comma that joins it to the one before.
        bytes += line.len() + usize::from(bytes > 0);
        if bytes > LONGEST {
            return false;
        }
        for member in line.as_bytes().split(|byte| *byte == b',') {
            let member = trim(member);
            if member.is_empty() {
                continue;
            }
            match key(member) {
                Some(key) if count < MOST && !keys[..count].contains(&key) => {
                    keys[count] = key;
                    count += 1;
                }
                _ => return false,
            }
        }
    }
    true
}

/// Without optional white space (RFC 9110, section 5.6.3).
fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// The key of a member, if the member is well formed.
fn key(member: &[u8]) -> Option<&[u8]> {
    let at = member.iter().position(|byte| *byte == b'=')?;
    let (key, value) = (&member[..at], &member[at + 1..]);
    let is_key = key.len() <= LONGEST_PART
        && matches!(key.first(), Some(b'a'..=b'z' | b'0'..=b'9'))
        && key.iter().all(
            |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@'),
        );
    let is_value = (1..=LONGEST_PART).contains(&value.len())
        && value
            .iter()
            .all(|byte| matches!(byte, b' '..=b'~') && *byte != b'=');
    (is_key && is_value).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound(lines: &[&[u8]]) -> bool {
        let lines: Vec<_> = lines
            .iter()
            .map(|line| HeaderValue::from_bytes(line).unwrap())
            .collect();
        is_sound(&lines)
    }

    fn members(count: usize) -> Vec<u8> {
        let members: Vec<_> = (0..count).map(|n| format!("k{n}=v")).collect();
        members.join(",").into_bytes()
    }

    #[test]
    fn a_list_of_up_to_32_members_and_512_bytes_is_sound() {
        assert!(sound(&[]));
        assert!(sound(&[b""]));
        assert!(sound(&[b"rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"]));
        assert!(sound(&[b" a=1\t,\t, 2b@vendor/x*y-z_=a b ~ "]));
        assert!(sound(&[&members(32)]));
        assert!(!sound(&[&members(33)]));
        assert!(sound(&[&members(16), b"other=1"]));
        assert!(!sound(&[&members(16), b"k3=again"]), "a key is there once");
        let spaces = |n: usize| [b"a=1".as_slice(), &vec![b' '; n]].concat();
        assert!(sound(&[&spaces(509)]));
        assert!(!sound(&[&spaces(510)]));
        assert!(!sound(&[&spaces(300), &spaces(300)]));
    }

    #[test]
    fn keys_and_values_are_what_the_grammar_says() {
        let long = |key: usize, value: usize| {
            format!("{}={}", "k".repeat(key), "v".repeat(value)).into_bytes()
        };
        assert!(sound(&[&long(255, 256)]));
        assert!(sound(&[&long(256, 255)]));
        assert!(!sound(&[&long(257, 1)]));
        assert!(!sound(&[&long(1, 257)]));
        for bad in [
            b"a".as_slice(),
            b"=1",
            b"a=",
            b"A=1",
            b"a=b=c",
            b"-a=1",
            b"a b=1",
            b"a=\xff",
            b"a=1;b",
        ] {
            assert_eq!(
                sound(&[bad]),
                bad == b"a=1;b",
                "{}",
                String::from_utf8_lossy(bad)
            );
        }
        assert!(!sound(&[b"a=1\t2"]), "a tab is no character of a value");
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(line in proptest::collection::vec(32_u8..=255, 0..600)) {
            let line: Vec<u8> = line.into_iter().filter(|byte| *byte != 127).collect();
            proptest::prop_assert!(!sound(&[&line]) || line.len() <= LONGEST);
        }
    }
}
