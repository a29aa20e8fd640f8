//! The characters and small words of which heads are made.

use super::find;

/// `host[:port]` without user information; empty is allowed as RFC 9112 section 3.2 has it for targets without one.
pub(crate) fn is_authority(value: &[u8]) -> bool {
    let (host, port) = if value.first() == Some(&b'[') {
        let Some(close) = value.iter().position(|b| *b == b']') else {
            return false;
        };
        let inside = &value[1..close];
        if inside.is_empty()
            || !inside
                .iter()
                .all(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.'))
        {
            return false;
        }
        (&[][..], &value[close + 1..])
    } else {
        let colon = value.iter().position(|b| *b == b':').unwrap_or(value.len());
        (&value[..colon], &value[colon..])
    };
    // RFC 3986's unreserved characters and sub-delims that occur in real names; "..", "/" and "@" are never in one.
    let host_ok = host
        .iter()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~'))
        && find(host, b"..").is_none();
    let port_ok = match port {
        [] => true,
        [b':', digits @ ..] => {
            digits.len() <= 5
                && digits.iter().all(u8::is_ascii_digit)
                && (digits.is_empty()
                    || std::str::from_utf8(digits).is_ok_and(|d| d.parse::<u16>().is_ok()))
        }
        _ => false,
    };
    host_ok && port_ok
}

pub(super) fn is_version(version: &[u8]) -> bool {
    matches!(version, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit())
}

/// A request target in origin form, without a byte that hyper does not take where it stands: RFC 3986 allows none of `<`, `>`,
/// `"` and the backtick anywhere, but hyper takes quotes in a path and backticks in a query. What is behind a `#` is nobody's.
pub(super) fn is_target(target: &[u8]) -> bool {
    let end = target.iter().position(|b| *b == b'#');
    let sent = &target[..end.unwrap_or(target.len())];
    let query = sent.iter().position(|b| *b == b'?');
    let (path, query) = sent.split_at(query.unwrap_or(sent.len()));
    !target.is_empty()
        && target.iter().all(|b| (0x21..0x7f).contains(b))
        && !sent.iter().any(|b| matches!(b, b'<' | b'>'))
        && !path.contains(&b'`')
        && !query.contains(&b'"')
}

/// RFC 9110 section 5.6.2.
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

/// Visible ASCII, space and tab. RFC 9110 lets bytes above 0x7f pass as opaque; readers disagree on them, so we do not.
pub(super) fn is_text(byte: u8) -> bool {
    byte == b'\t' || (0x20..0x7f).contains(&byte)
}
