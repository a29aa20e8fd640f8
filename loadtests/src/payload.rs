//! What is sent: one body for all requests, a template, or a list of bodies.
//!
//! A body is a function of the seed and the number of its request, so that a run can be repeated whatever its connections and threads.

use std::{fmt::Write as _, fs, path::Path, str::FromStr};

use bytes::Bytes;

use crate::{error::Error, plan::SplitMix};

/// Bytes of a file of bodies.
const MAX_BYTES: u64 = 256 * 1024 * 1024;
/// Numbers up to here are whole in JSON's readers too: 2^53.
const MAX_NUMBER: u64 = 1 << 53;

const ALLOWED: &str = "in a template {{ }} holds n (the number of the request, from 0), int LOW HIGH, pick ONE|OTHER|.. or uuid";

/// The bodies of a run.
#[derive(Clone, Debug, PartialEq)]
pub enum Payload {
    /// The same for every request; empty for none.
    Same(Bytes),
    /// Made for each.
    Template(Template),
    /// One after the other, and again from the first.
    Lines(Vec<Bytes>),
}

/// A text with gaps.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    pieces: Vec<Piece>,
    seed: u64,
}

#[derive(Clone, Debug, PartialEq)]
enum Piece {
    Text(String),
    Number,
    Int(u64, u64),
    Pick(Vec<String>),
    Uuid,
}

impl From<Bytes> for Payload {
    fn from(body: Bytes) -> Self {
        Self::Same(body)
    }
}

impl From<Vec<u8>> for Payload {
    fn from(body: Vec<u8>) -> Self {
        Self::Same(body.into())
    }
}

impl From<&'static str> for Payload {
    fn from(body: &'static str) -> Self {
        Self::Same(body.into())
    }
}

impl Default for Payload {
    fn default() -> Self {
        Self::Same(Bytes::new())
    }
}

impl Payload {
    /// The bodies of `path`, a line each. Empty lines are left out.
    ///
    /// # Errors
    /// Names the flag, the file and what is allowed.
    pub fn lines(flag: &'static str, path: &Path) -> Result<Self, Error> {
        let wrong = |what: String| Error::invalid(flag, path.display().to_string(), what);
        let size = fs::metadata(path).map_err(|e| wrong(format!("a readable file ({e})")))?;
        if size.len() > MAX_BYTES {
            return Err(wrong(format!("a file of at most {MAX_BYTES} bytes")));
        }
        let text = fs::read(path).map_err(|e| wrong(format!("a readable file ({e})")))?;
        // Each line is a part of the one file: nothing is copied.
        let text = Bytes::from(text);
        let lines: Vec<_> = text
            .split(|byte| *byte == b'\n')
            .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
            .filter(|line| !line.trim_ascii().is_empty())
            .map(|line| text.slice_ref(line))
            .collect();
        if lines.is_empty() {
            return Err(wrong("a file with a body on each line".to_owned()));
        }
        Ok(Self::Lines(lines))
    }

    /// A template whose random gaps depend on `seed`.
    ///
    /// # Errors
    /// Says which gap is none.
    pub fn template(text: &str, seed: u64) -> Result<Self, String> {
        let pieces = pieces(text)?;
        Ok(Self::Template(Template { pieces, seed }))
    }

    /// The body of request `number`.
    pub(crate) fn body(&self, number: u64) -> Bytes {
        match self {
            Self::Same(body) => body.clone(),
            Self::Template(template) => Bytes::from(template.fill(number)),
            Self::Lines(lines) => {
                let count = lines.len() as u64;
                // Below the number of lines, which is a usize.
                lines[usize::try_from(number % count).unwrap_or_default()].clone()
            }
        }
    }

    /// Whether all bodies are text in UTF-8.
    pub(crate) fn is_text(&self) -> bool {
        let is_text = |body: &Bytes| std::str::from_utf8(body).is_ok();
        match self {
            Self::Same(body) => is_text(body),
            Self::Template(_) => true,
            Self::Lines(lines) => lines.iter().all(is_text),
        }
    }

    /// Whether there never is one.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Same(body) if body.is_empty())
    }

    /// What it is called in a report.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Same(_) => "same",
            Self::Template(_) => "template",
            Self::Lines(_) => "lines",
        }
    }
}

impl Template {
    fn fill(&self, number: u64) -> String {
        // Its own draws for each request: mixed, so that neighbours have nothing in common.
        let mut dice = SplitMix(SplitMix(self.seed ^ number.rotate_left(32)).next());
        let mut text = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(piece) => text.push_str(piece),
                Piece::Number => {
                    let _ = write!(text, "{number}");
                }
                Piece::Int(low, high) => {
                    let span = high - low + 1;
                    // The bias of the rest is below one in a thousand, as a span is at most 2^53.
                    let _ = write!(text, "{}", low + dice.next() % span);
                }
                Piece::Pick(words) => text.push_str(&words[dice.below(words.len())]),
                Piece::Uuid => {
                    let (high, low) = (dice.next(), dice.next());
                    // Version 4, variant 1 (RFC 9562, section 5.4).
                    let high = (high & 0xffff_ffff_ffff_0fff) | 0x4000;
                    let low = (low & 0x3fff_ffff_ffff_ffff) | 0x8000_0000_0000_0000;
                    let _ = write!(
                        text,
                        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
                        high >> 32,
                        (high >> 16) & 0xffff,
                        high & 0xffff,
                        low >> 48,
                        low & 0xffff_ffff_ffff
                    );
                }
            }
        }
        text
    }
}

fn pieces(mut text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    while let Some(begin) = text.find("{{") {
        let (before, rest) = (&text[..begin], &text[begin + 2..]);
        let end = rest
            .find("}}")
            .ok_or_else(|| format!("a gap does not end: {ALLOWED}"))?;
        if !before.is_empty() {
            pieces.push(Piece::Text(before.to_owned()));
        }
        pieces.push(rest[..end].parse()?);
        text = &rest[end + 2..];
    }
    if !text.is_empty() {
        pieces.push(Piece::Text(text.to_owned()));
    }
    Ok(pieces)
}

impl FromStr for Piece {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let wrong = || format!("{text:?} is no gap: {ALLOWED}");
        let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        match (word, rest.trim()) {
            ("n", "") => Ok(Self::Number),
            ("uuid", "") => Ok(Self::Uuid),
            ("pick", words) if !words.is_empty() => {
                Ok(Self::Pick(words.split('|').map(str::to_owned).collect()))
            }
            ("int", range) => {
                let (low, high) = range.split_once(char::is_whitespace).ok_or_else(wrong)?;
                let number = |text: &str| {
                    let number = text.trim().parse().ok();
                    number.filter(|n| *n <= MAX_NUMBER).ok_or_else(wrong)
                };
                let (low, high) = (number(low)?, number(high)?);
                if low > high {
                    return Err(wrong());
                }
                Ok(Self::Int(low, high))
            }
            _ => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Payload;

    fn fill(text: &str, number: u64) -> String {
        let body = Payload::template(text, 1).unwrap().body(number);
        String::from_utf8(body.to_vec()).unwrap()
    }

    #[test]
    fn gaps_are_filled_and_a_request_has_the_same_body_each_time() {
        assert_eq!(
            fill(r#"{"a": {"b": {{n}}}, "c": "{{ n }}"}"#, 7),
            r#"{"a": {"b": 7}, "c": "7"}"#
        );
        let text = "{{int 3 5}} {{pick a b|c}} {{uuid}}";
        let mut seen = std::collections::BTreeSet::new();
        for number in 0..200 {
            let body = fill(text, number);
            assert_eq!(body, fill(text, number));
            let (int, rest) = body.split_once(' ').unwrap();
            let (pick, uuid) = rest.rsplit_once(' ').unwrap();
            seen.insert(int.to_owned());
            seen.insert(pick.to_owned());
            assert!(uuid.len() == 36 && &uuid[14..15] == "4", "{uuid}");
            assert!("89ab".contains(&uuid[19..20]), "{uuid}");
            assert!(seen.insert(uuid.to_owned()), "{uuid} came twice");
        }
        let words: Vec<_> = seen
            .iter()
            .filter(|word| word.len() < 36)
            .cloned()
            .collect();
        assert_eq!(words, ["3", "4", "5", "a b", "c"]);
    }

    #[test]
    fn what_is_no_gap_is_named() {
        for text in [
            "{{",
            "{{x}}",
            "{{}}",
            "{{n 1}}",
            "{{int}}",
            "{{int 1}}",
            "{{int 2 1}}",
            "{{int a b}}",
            "{{pick}}",
            "{{int 0 99999999999999999}}",
        ] {
            let error = Payload::template(text, 1).expect_err(text);
            assert!(error.contains("int LOW HIGH"), "{text}: {error}");
        }
        assert_eq!(fill("}} { }", 0), "}} { }");
    }

    #[test]
    fn lines_come_one_after_the_other_and_again() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "a\r\n\n {\"b\": 1}\nc").unwrap();
        let payload = Payload::lines("--bodies", file.path()).unwrap();
        let bodies: Vec<_> = (0..5).map(|number| payload.body(number)).collect();
        assert_eq!(bodies, ["a", " {\"b\": 1}", "c", "a", " {\"b\": 1}"]);
        std::fs::write(file.path(), "\n \n").unwrap();
        let error = Payload::lines("--bodies", file.path())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("--bodies") && error.contains("a body on each line"),
            "{error}"
        );
    }
}
