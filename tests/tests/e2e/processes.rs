//! Processes of this machine. Containers of a cluster of `tests/cluster` are among them, under other ids than inside.

use std::{fs, path::PathBuf};

/// One that runs, or has just ended.
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// Its command line.
    pub(crate) words: Vec<Vec<u8>>,
    folder: PathBuf,
}

/// All of them.
pub(crate) fn all() -> impl Iterator<Item = Process> {
    let entries = fs::read_dir("/proc").unwrap();
    entries.filter_map(|entry| {
        let folder = entry.ok()?.path();
        Some(Process {
            pid: folder.file_name()?.to_str()?.parse().ok()?,
            words: split(&fs::read(folder.join("cmdline")).ok()?),
            folder,
        })
    })
}

impl Process {
    /// Whether it was given this variable, as `NAME=VALUE`.
    pub(crate) fn has_variable(&self, variable: &str) -> bool {
        let environment = fs::read(self.folder.join("environ")).unwrap_or_default();
        split(&environment)
            .iter()
            .any(|one| one == variable.as_bytes())
    }

    /// Resident memory in KiB. None if it has ended.
    pub(crate) fn resident(&self) -> Option<i64> {
        let status = fs::read_to_string(self.folder.join("status")).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
        line.split_whitespace().nth(1)?.parse().ok()
    }
}

fn split(text: &[u8]) -> Vec<Vec<u8>> {
    text.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect()
}
