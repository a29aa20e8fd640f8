//! What was made of files, made anew when they change.
//!
//! Secrets that are mounted change behind a symlink, and other tools write in place, so that contents are compared and nothing is
//! watched: a few kilobytes are read every [`EVERY`]. What cannot be used changes nothing, and is said once. While one file of a
//! pair is written and the other not yet, that is the case for a moment.

use std::{fmt, sync::Arc, time::Duration};

use parking_lot::{Mutex, RwLock};
use rustls::pki_types::UnixTime;
use tokio::{
    task::spawn_blocking,
    time::{Instant, MissedTickBehavior, interval_at},
};

use super::file::{File, TlsError};

/// Between two looks. A kubelet takes up to a minute to bring a changed Secret.
const EVERY: Duration = Duration::from_secs(5);

/// Something that is made of files.
pub(super) trait Material: Send + Sync + 'static {
    type Made: Send + Sync + 'static;

    /// Which files, in the order in which [`Material::make`] takes them.
    fn files(&self) -> Vec<&File>;
    /// Makes it, if everything fits.
    fn make(&self, contents: &[Vec<u8>], now: UnixTime) -> Result<Self::Made, TlsError>;
}

/// What there is, and what it is made of.
pub(super) struct Kept<M: Material> {
    pub(super) material: M,
    current: RwLock<Arc<M::Made>>,
    /// What the files were when they were last looked at.
    seen: Mutex<Result<Vec<Vec<u8>>, TlsError>>,
}

/// What a look at the files found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// They are as they were at the last look.
    Same,
    /// They have changed: connections from now on use what is in them.
    Taken,
    /// They have changed and cannot be used: what was used goes on to be.
    Refused(TlsError),
}

impl<M: Material> Kept<M> {
    /// Reads the files for the first time.
    pub(super) fn load(material: M, now: UnixTime) -> Result<Self, TlsError> {
        let contents = read(&material)?;
        let made = material.make(&contents, now)?;
        Ok(Self {
            material,
            current: RwLock::new(Arc::new(made)),
            seen: Mutex::new(Ok(contents)),
        })
    }

    pub(super) fn current(&self) -> Arc<M::Made> {
        Arc::clone(&self.current.read())
    }

    /// Reads them again. May wait for a disk.
    pub(super) fn look(&self, now: UnixTime) -> Look {
        // One look at a time, from reading on: one that had read before another would put back what that has replaced.
        let mut seen = self.seen.lock();
        let found = read(&self.material);
        if *seen == found {
            return Look::Same;
        }
        let made = match &found {
            Ok(contents) => self.material.make(contents, now),
            Err(error) => Err(error.clone()),
        };
        *seen = found;
        match made {
            Ok(made) => {
                *self.current.write() = Arc::new(made);
                Look::Taken
            }
            Err(error) => Look::Refused(error),
        }
    }

    /// Looks for ever.
    pub(super) async fn follow(self: Arc<Self>) {
        // They were read a moment ago.
        let mut tick = interval_at(Instant::now() + EVERY, EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let kept = Arc::clone(&self);
            match spawn_blocking(move || kept.look(UnixTime::now())).await {
                Ok(Look::Taken) => tracing::info!(
                    files = ?self.paths(),
                    "TLS files have changed: new connections use them"
                ),
                Ok(Look::Refused(error)) => tracing::warn!(
                    %error,
                    "TLS files have changed and cannot be used: what was in them stays in use"
                ),
                // An error means that the runtime ends.
                Ok(Look::Same) | Err(_) => {}
            }
        }
    }

    fn paths(&self) -> Vec<&std::path::Path> {
        let files = self.material.files();
        files.into_iter().map(|file| file.path.as_path()).collect()
    }
}

fn read(material: &impl Material) -> Result<Vec<Vec<u8>>, TlsError> {
    material.files().into_iter().map(File::read).collect()
}

impl<M: Material> fmt::Debug for Kept<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Contents are secret.
        f.debug_tuple("Kept").field(&self.paths()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A number in a file.
    struct Number(File);

    impl Material for Number {
        type Made = u32;

        fn files(&self) -> Vec<&File> {
            vec![&self.0]
        }

        fn make(&self, contents: &[Vec<u8>], _now: UnixTime) -> Result<u32, TlsError> {
            let text = String::from_utf8_lossy(&contents[0]);
            text.parse().map_err(|_| self.0.unusable("is no number"))
        }
    }

    fn number() -> (tempfile::TempDir, std::path::PathBuf, Kept<Number>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("number");
        fs::write(&path, "1").unwrap();
        let file = File {
            flag: "--number",
            path: path.clone(),
        };
        let kept = Kept::load(Number(file), UnixTime::now()).unwrap();
        (folder, path, kept)
    }

    #[test]
    fn what_cannot_be_used_changes_nothing_and_is_said_once() {
        let (_folder, path, kept) = number();
        let look = || kept.look(UnixTime::now());
        assert_eq!(look(), Look::Same);
        fs::write(&path, "2").unwrap();
        assert_eq!((look(), look()), (Look::Taken, Look::Same));
        assert_eq!(*kept.current(), 2);
        fs::write(&path, "x").unwrap();
        let Look::Refused(error) = look() else {
            panic!("taken")
        };
        let said = error.to_string();
        assert_eq!(said, format!("--number {}: is no number", path.display()));
        assert_eq!((look(), *kept.current()), (Look::Same, 2));
        fs::remove_file(&path).unwrap();
        assert!(matches!(look(), Look::Refused(_)));
        assert_eq!((look(), *kept.current()), (Look::Same, 2));
        fs::write(&path, "3").unwrap();
        assert_eq!((look(), *kept.current()), (Look::Taken, 3));
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn files_are_looked_at_every_few_seconds() {
        let (_folder, path, kept) = number();
        let kept = Arc::new(kept);
        let following = tokio::spawn(Arc::clone(&kept).follow());
        for now in 2..5 {
            fs::write(&path, now.to_string()).unwrap();
            tokio::time::sleep(EVERY + Duration::from_millis(1)).await;
            assert_eq!(*kept.current(), now);
        }
        following.abort();
    }
}
