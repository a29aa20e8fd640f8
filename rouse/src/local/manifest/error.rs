//! The one line that a user gets for bad input: file, document, position, key, value, what is allowed.

use std::fmt;
use std::path::{Path, PathBuf};

/// Longest piece of a bad value that is repeated in a message.
const SHOWN_VALUE: usize = 60;

/// A file and one of its YAML documents.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source {
    /// The file as the user named it.
    pub file: PathBuf,
    /// The document in it, from 1; documents without content are not counted. 0 stands for the file as a whole.
    pub document: usize,
}

impl Source {
    pub(super) fn file(file: &Path) -> Self {
        Self {
            file: file.to_path_buf(),
            document: 0,
        }
    }

    /// An error about this document in the same form as those of the manifest reader.
    ///
    /// `key` is the path of the value (`metadata.name`), `value` what stands there (`None`: it is missing) and
    /// `allowed` says what may stand there.
    pub fn error(
        &self,
        key: &str,
        value: Option<&str>,
        allowed: impl Into<String>,
    ) -> ManifestError {
        Fault {
            place: self.clone(),
            position: None,
            value: Some((key.to_owned(), shown_or_missing(value))),
            allowed: allowed.into(),
        }
        .error()
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.document > 0 {
            write!(f, ": document {}", self.document)?;
        }
        Ok(())
    }
}

/// A line and a column of a file, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) line: u64,
    pub(super) column: u64,
}

/// Bad input. `Display` is one line that names the place, the value and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestError(Box<Fault>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) place: Source,
    pub(super) position: Option<Position>,
    /// The path of the value and the value as shown.
    pub(super) value: Option<(String, String)>,
    pub(super) allowed: String,
}

impl Fault {
    pub(super) fn error(self) -> ManifestError {
        ManifestError(Box::new(self))
    }
}

impl ManifestError {
    /// An error about a file as a whole.
    pub(super) fn whole(file: &Path, problem: impl Into<String>) -> Self {
        let place = Source::file(file);
        Fault {
            place,
            position: None,
            value: None,
            allowed: problem.into(),
        }
        .error()
    }

    /// The file and document at fault.
    pub fn place(&self) -> &Source {
        &self.0.place
    }
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fault {
            place,
            position,
            value,
            allowed,
        } = &*self.0;
        write!(f, "{place}")?;
        if let Some(Position { line, column }) = position {
            write!(f, ", line {line}, column {column}")?;
        }
        if let Some((key, value)) = value {
            write!(f, ": {key} is {value}")?;
        }
        write!(f, ": {allowed}")
    }
}

impl std::error::Error for ManifestError {}

/// A value, or its absence, as it appears in a message.
pub(super) fn shown_or_missing(value: Option<&str>) -> String {
    value.map_or_else(|| "missing".to_owned(), shown)
}

/// A value as it appears in a message: quoted, on one line, cut.
pub(super) fn shown(value: &str) -> String {
    let mut cut: String = value.chars().take(SHOWN_VALUE).collect();
    if cut.len() < value.len() {
        cut.push('…');
    }
    format!("{cut:?}")
}

/// Folds a message of several lines into one.
pub(super) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
