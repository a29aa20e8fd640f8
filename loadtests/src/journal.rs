//! The story of every single request, for comparing with what the server says it did.
//!
//! While a journal is kept, each request carries a unique id in `x-request-id`. The journal is told once for every
//! planned request, warm-up and dropped ones included, in order of completion. Callers must return fast: they run on the
//! threads that send.

use crate::error::Error;
use crate::record::ErrorKind;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// What became of one request. Times count from the start of the load, warm-up included; in JSON they are seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The unique id sent in `x-request-id`.
    pub id: String,
    /// When the request was due; in a closed loop, when the connection was free for it.
    #[serde(with = "seconds")]
    pub planned: Duration,
    /// When it was handed to the connection, or `None` if it never was.
    #[serde(with = "seconds::option")]
    pub sent: Option<Duration>,
    /// When its response ended, or it failed.
    #[serde(with = "seconds")]
    pub done: Duration,
    /// Response status, if a response head arrived.
    pub status: Option<u16>,
    /// Why it is an error, or `None` if it is a success.
    pub error: Option<ErrorKind>,
    /// True if the connection had carried an earlier request.
    pub reused: bool,
    /// The value of the response header `x-served-by`.
    pub served_by: Option<String>,
    /// True if it was part of the warm-up and so is not in the report.
    pub warmup: bool,
}

/// The outcomes collected by [`Journal::collect`].
pub type Collected = Arc<Mutex<Vec<Outcome>>>;

/// Where outcomes are told.
#[derive(Clone)]
pub struct Journal(Arc<dyn Fn(Outcome) + Send + Sync>);

impl Journal {
    /// Tells `listener` each outcome as it happens.
    pub fn new(listener: impl Fn(Outcome) + Send + Sync + 'static) -> Self {
        Self(Arc::new(listener))
    }

    /// Keeps all outcomes in memory: read them after the run.
    pub fn collect() -> (Self, Collected) {
        let collected = Collected::default();
        let into = Arc::clone(&collected);
        (
            Self::new(move |outcome| into.lock().push(outcome)),
            collected,
        )
    }

    /// Writes each outcome as a line of JSON. Call [`JournalFile::finish`] after the run.
    pub fn file(path: &Path) -> Result<(Self, JournalFile), Error> {
        let file = File::create(path).map_err(|source| cannot_write(path, source))?;
        let writer = Arc::new(Mutex::new(Writer {
            file: BufWriter::with_capacity(1 << 16, file),
            failed: None,
        }));
        let into = Arc::clone(&writer);
        let journal = Self::new(move |outcome| into.lock().write(&outcome));
        Ok((
            journal,
            JournalFile {
                path: path.to_owned(),
                writer,
            },
        ))
    }

    pub(crate) fn tell(&self, outcome: Outcome) {
        (self.0)(outcome);
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").finish_non_exhaustive()
    }
}

/// The file behind [`Journal::file`].
#[derive(Debug)]
pub struct JournalFile {
    path: PathBuf,
    writer: Arc<Mutex<Writer>>,
}

impl JournalFile {
    /// Writes what is buffered, and tells the first error of the whole run, after which nothing more was written.
    pub fn finish(self) -> Result<(), Error> {
        let mut writer = self.writer.lock();
        let first = writer.failed.take();
        first
            .map_or_else(|| writer.file.flush(), Err)
            .map_err(|source| cannot_write(&self.path, source))
    }
}

#[derive(Debug)]
struct Writer {
    file: BufWriter<File>,
    failed: Option<io::Error>,
}

impl Writer {
    fn write(&mut self, outcome: &Outcome) {
        if self.failed.is_none() {
            let written = serde_json::to_writer(&mut self.file, outcome).map_err(io::Error::from);
            self.failed = written.and_then(|()| self.file.write_all(b"\n")).err();
        }
    }
}

fn cannot_write(path: &Path, source: io::Error) -> Error {
    Error::Journal {
        path: path.display().to_string(),
        source,
    }
}

/// Durations as seconds in JSON.
mod seconds {
    use serde::{Deserialize, Deserializer, Serializer};
    use std::time::Duration;

    pub(super) fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(value.as_secs_f64())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(from)?).map_err(serde::de::Error::custom)
    }

    pub(super) mod option {
        use serde::{Deserialize, Deserializer, Serialize, Serializer};
        use std::time::Duration;

        #[expect(clippy::ref_option, reason = "the signature serde calls")]
        pub(in super::super) fn serialize<S: Serializer>(
            value: &Option<Duration>,
            to: S,
        ) -> Result<S::Ok, S::Error> {
            value.map(|value| value.as_secs_f64()).serialize(to)
        }

        pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
            from: D,
        ) -> Result<Option<Duration>, D::Error> {
            Option::<f64>::deserialize(from)?
                .map(|value| Duration::try_from_secs_f64(value).map_err(serde::de::Error::custom))
                .transpose()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Journal, Outcome};
    use crate::record::ErrorKind;
    use std::fs;
    use std::time::Duration;

    #[test]
    fn a_journal_file_reads_back_as_it_was_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.jsonl");
        let (journal, file) = Journal::file(&path).unwrap();
        let outcome = Outcome {
            id: "a-1".into(),
            planned: Duration::from_millis(250),
            sent: None,
            done: Duration::from_secs(1),
            status: None,
            error: Some(ErrorKind::ClosedReused),
            reused: true,
            served_by: Some("7".into()),
            warmup: false,
        };
        journal.tell(outcome.clone());
        journal.tell(outcome.clone());
        file.finish().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(r#""error":"closed_reused""#), "{text}");
        for line in text.lines() {
            assert_eq!(serde_json::from_str::<Outcome>(line).unwrap(), outcome);
        }
        assert_eq!(text.lines().count(), 2);
    }

    #[test]
    fn an_unwritable_journal_is_an_error_before_the_run() {
        let error = Journal::file("/nonexistent/dir/journal".as_ref()).unwrap_err();
        assert!(
            error.is_usage() && error.to_string().contains("--journal"),
            "{error}"
        );
    }
}
