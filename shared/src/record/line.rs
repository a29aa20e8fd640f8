//! A line of the log, of which no byte that came from outside can make two, or break its form.

use std::fmt::Write as _;

use super::{
    Ended,
    field::{FIELDS, Value},
    form::{Form, Piece},
};

/// Adds the line of a request, with its end. Writing to a string cannot fail.
pub(super) fn write(line: &mut String, form: &Form, ended: &Ended) {
    match form {
        Form::Json => json(line, ended),
        Form::Template(pieces) => {
            for piece in pieces {
                match piece {
                    Piece::Text(text) => line.push_str(text),
                    Piece::Field(field) => plain(line, &field.what.of(ended)),
                }
            }
        }
    }
    line.push('\n');
}

fn json(line: &mut String, ended: &Ended) {
    let mut before = '{';
    for field in FIELDS {
        line.push(before);
        before = ',';
        // Names need no escape.
        let _ = write!(line, "\"{}\":", field.name);
        match field.what.of(ended) {
            Value::None => line.push_str("null"),
            Value::Own(text) => quoted(line, &text),
            Value::Foreign(bytes) => quoted(line, &String::from_utf8_lossy(bytes)),
            number @ (Value::Number(_) | Value::Millis(_)) => plain(line, &number),
        }
    }
    line.push('}');
}

/// As a string of JSON, in ASCII: to some readers there are more ends of lines than two, and terminals obey some of the rest.
fn quoted(line: &mut String, text: &str) {
    line.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => line.extend(['\\', c]),
            ' '..='~' => line.push(c),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(line, "\\u{unit:04x}");
                }
            }
        }
    }
    line.push('"');
}

/// As plain text: every byte that is no printable ASCII, quotation marks and the backslash as `\xHH`, so that also what stands
/// between quotation marks stays there.
fn plain(line: &mut String, value: &Value<'_>) {
    let escaped = |line: &mut String, bytes: &[u8]| {
        for byte in bytes {
            match byte {
                b'"' | b'\\' => drop(write!(line, "\\x{byte:02x}")),
                b' '..=b'~' => line.push(char::from(*byte)),
                _ => drop(write!(line, "\\x{byte:02x}")),
            }
        }
    };
    match value {
        Value::None => line.push('-'),
        Value::Own(text) => escaped(line, text.as_bytes()),
        Value::Foreign(bytes) => escaped(line, bytes),
        Value::Number(number) => drop(write!(line, "{number}")),
        Value::Millis(time) => drop(write!(line, "{:.3}", time.as_secs_f64() * 1e3)),
    }
}
