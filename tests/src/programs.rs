//! Where the programs are that tests start.

use std::path::{Path, PathBuf};

/// The folder with all programs of this build.
#[derive(Clone, Debug)]
pub struct Programs {
    folder: PathBuf,
}

impl Programs {
    /// Those beside `program`, which is one of them. Cargo puts all of a profile's programs into one folder, but builds
    /// only this package's own for its tests.
    pub fn beside(program: &Path) -> Self {
        let folder = program.parent().expect("a program is in a folder");
        Self {
            folder: folder.to_owned(),
        }
    }

    /// The program of this name.
    pub fn path(&self, name: &str) -> PathBuf {
        let path = self.folder.join(name);
        assert!(
            path.exists(),
            "{} is missing: `cargo xtask test` builds every program before the tests",
            path.display()
        );
        path
    }

    /// The fake model server.
    pub fn model(&self) -> String {
        self.path("tiny-model").display().to_string()
    }
}
