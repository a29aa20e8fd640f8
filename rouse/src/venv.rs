//! A Python virtual environment with pinned requirements, prepared once and reused.
//!
//! The environment is whole exactly if its stamp file, written last, equals what is asked for now: the text of the
//! requirements and the version of Python. Anything else (changed pins, another Python, an install that was interrupted) is
//! removed and made again. A lock file beside the folder keeps two runs apart.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::time::sleep;

/// A version of Python: major and minor.
pub type Version = (u32, u32);
/// Written last; its content is what the environment was made from.
const STAMP: &str = "rouse-stamp";
/// Lines of output that a failure repeats.
const TAIL: usize = 8;
/// Bytes of a line of output that are kept.
const LINE_BYTES: u64 = 2048;
/// How often it is tried to get the lock that another run has.
const LOCK_PAUSE: Duration = Duration::from_millis(200);

/// Why there is no environment. `Display` is one line.
#[derive(Debug, thiserror::Error)]
pub enum VenvError {
    /// No Python, or none of the versions that are accepted.
    #[error("{found}: install Python {wanted} with its venv module ({INSTALL})")]
    NoPython {
        /// The versions that are accepted.
        wanted: String,
        /// What was found instead.
        found: String,
    },
    /// Python has no venv or pip.
    #[error("{} has no venv module or no pip: install them ({INSTALL}): {output}", .python.display())]
    NoVenv {
        /// The Python.
        python: PathBuf,
        /// The end of its output.
        output: String,
    },
    /// pip did not install the requirements.
    #[error("pip could not install {}: {output}", .requirements.display())]
    Install {
        /// The file with the requirements.
        requirements: PathBuf,
        /// The end of pip's output.
        output: String,
    },
    /// A file or process of the environment could not be used.
    #[error("{}: {error}", .path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
}

const INSTALL: &str = "Debian and Ubuntu: apt install python3 python3-venv; Fedora: dnf install python3; macOS: brew install \
                       python";

/// Prepares the environment in `folder` with a Python of one of `versions` and returns the path of its Python. Calls
/// `progress` with a line whenever there is something to tell.
///
/// The folder is owned by this function: what is in it is removed when it does not fit.
///
/// # Cancel safety
/// May be dropped: what it has started is killed, and the next run begins anew.
pub async fn prepare(
    folder: &Path,
    requirements: &Path,
    versions: &RangeInclusive<Version>,
    mut progress: impl FnMut(&str),
) -> Result<PathBuf, VenvError> {
    let pins = fs::read_to_string(requirements).map_err(at(requirements))?;
    let base = find_python(versions).await?;
    // An absolute path: the environment's programs are run from other folders.
    let parent = folder
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or_else(|| Path::new("."));
    fs::create_dir_all(parent).map_err(at(parent))?;
    let parent = parent.canonicalize().map_err(at(parent))?;
    let Some(name) = folder.file_name() else {
        return Err(at(folder)(io::Error::new(
            io::ErrorKind::InvalidInput,
            "must name a folder",
        )));
    };
    let folder = parent.join(name);

    let mut lock_name = name.to_owned();
    lock_name.push(".lock");
    let lock_path = parent.join(lock_name);
    let lock = File::create(&lock_path).map_err(at(&lock_path))?;
    if lock.try_lock().is_err() {
        progress("waiting for another run that prepares the same Python environment");
        while lock.try_lock().is_err() {
            sleep(LOCK_PAUSE).await;
        }
    }

    let python = folder.join("bin").join("python");
    let stamp_path = folder.join(STAMP);
    let stamp = format!("{}\n{}\n{pins}", base.version, base.path.display());
    if fs::read_to_string(&stamp_path).is_ok_and(|found| found == stamp) && works(&python).await {
        return Ok(python);
    }
    if folder.exists() {
        progress("removing a Python environment that is out of date or incomplete");
        fs::remove_dir_all(&folder).map_err(at(&folder))?;
    }
    progress(&format!(
        "making a Python environment in {} with {}",
        folder.display(),
        base.version
    ));
    let mut make = Command::new(&base.path);
    make.args(["-m", "venv"]).arg(&folder);
    run(make, &mut progress)
        .await
        .map_err(at(&base.path))?
        .map_err(|output| VenvError::NoVenv {
            python: base.path.clone(),
            output,
        })?;

    progress(&format!("installing {}", requirements.display()));
    let mut pip = Command::new(&python);
    pip.args([
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        "--no-input",
        "--progress-bar=off",
    ])
    .arg("--requirement")
    .arg(requirements);
    run(pip, &mut progress)
        .await
        .map_err(at(&python))?
        .map_err(|output| VenvError::Install {
            requirements: requirements.to_path_buf(),
            output,
        })?;
    fs::write(&stamp_path, stamp).map_err(at(&stamp_path))?;
    Ok(python)
}

struct Python {
    path: PathBuf,
    version: String,
}

/// The first Python on PATH of one of `versions`: `python3` if it is, else one that carries its version in its name.
async fn find_python(versions: &RangeInclusive<Version>) -> Result<Python, VenvError> {
    let (oldest, newest) = (versions.start(), versions.end());
    let numbered = (oldest.1..=newest.1)
        .rev()
        .map(|minor| format!("python{}.{minor}", newest.0));
    let names: Vec<_> = ["python3", "python"]
        .map(str::to_owned)
        .into_iter()
        .chain(numbered)
        .collect();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let candidates = names
        .iter()
        .flat_map(|name| std::env::split_paths(&path).map(move |folder| folder.join(name)));
    let mut found = None;
    for candidate in candidates.filter(|candidate| candidate.is_file()) {
        // Asked, not parsed from `--version`: a shim of a version manager may stand there and have nothing behind it.
        let ask = "import sys; print(*sys.version_info[:3], sys.implementation.name)";
        let answer = Command::new(&candidate)
            .args(["-c", ask])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await;
        let Ok(answer) = answer else { continue };
        let answer = String::from_utf8_lossy(&answer.stdout).into_owned();
        let Some(version) = parse_version(&answer) else {
            continue;
        };
        if versions.contains(&version) {
            let version = format!("Python {}", answer.trim().replacen(' ', ".", 2));
            return Ok(Python {
                path: candidate,
                version,
            });
        }
        found.get_or_insert_with(|| {
            format!(
                "{} is Python {}.{}",
                candidate.display(),
                version.0,
                version.1
            )
        });
    }
    Err(VenvError::NoPython {
        wanted: format!("{}.{} to {}.{}", oldest.0, oldest.1, newest.0, newest.1),
        found: found.unwrap_or_else(|| "python3 was not found on PATH".to_owned()),
    })
}

fn parse_version(answer: &str) -> Option<(u32, u32)> {
    let mut words = answer.split_whitespace();
    Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

/// Whether an environment's Python starts: the Python it was made from may be gone.
async fn works(python: &Path) -> bool {
    let mut command = Command::new(python);
    command
        .args(["-c", ""])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    command.status().await.is_ok_and(|status| status.success())
}

/// Runs a command, passing on its output line by line. The inner error is the end of its output. Dropped, it kills the
/// command and everything that it started.
async fn run(
    mut command: Command,
    progress: &mut impl FnMut(&str),
) -> io::Result<Result<(), String>> {
    // One pipe for both streams, so that their order is kept and neither can fill up unread.
    let (reader, writer) = io::pipe()?;
    let child = command
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        // pip starts programs of its own; and a terminal's Ctrl-C is ours to deal with.
        .process_group(0)
        .spawn()?;
    drop(command); // its copies of the writing end would keep the pipe open
    let mut group = Group(child);
    let mut reader = BufReader::new(pipe::Receiver::from_owned_fd(reader.into())?);
    let mut tail = VecDeque::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut bounded = (&mut reader).take(LINE_BYTES);
        if bounded.read_until(b'\n', &mut line).await? == 0 {
            break;
        }
        let text = String::from_utf8_lossy(&line).trim().to_owned();
        if !text.is_empty() {
            progress(&text);
            if tail.len() == TAIL {
                tail.pop_front();
            }
            tail.push_back(text);
        }
    }
    if group.0.wait().await?.success() {
        return Ok(Ok(()));
    }
    Ok(Err(Vec::from(tail).join(" | ")))
}

/// A process that leads a group of its own, which dies with this.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        // No id once it was waited for: the number may belong to somebody else by then.
        let id = self.0.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        if let Some(leader) = id {
            let _ended = kill_process_group(leader, Signal::KILL);
        }
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> VenvError {
    let path = path.to_path_buf();
    move |error| VenvError::Io { path, error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(parse_version("3 11 7 cpython\n"), Some((3, 11)));
        assert!(parse_version("3 10 0").unwrap() > (3, 9));
        assert_eq!(parse_version("no python here"), None);
    }

    #[tokio::test]
    async fn output_is_passed_on_and_its_end_kept() {
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            command
        };
        let mut lines = Vec::new();
        let result = run(
            shell("for i in $(seq 20); do echo $i; done; echo bad >&2; exit 3"),
            &mut |line: &str| {
                lines.push(line.to_owned());
            },
        )
        .await;
        assert_eq!(lines.len(), 21);
        assert_eq!(
            result.unwrap().unwrap_err(),
            "14 | 15 | 16 | 17 | 18 | 19 | 20 | bad"
        );
        let good = run(shell("exit 0"), &mut |_: &str| {}).await;
        assert!(good.unwrap().is_ok());
    }

    #[tokio::test]
    async fn a_command_that_is_not_waited_for_dies_with_what_it_started() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 100 & echo $!; wait"]);
        let mut grandchild = None;
        let mut progress =
            |line: &str| grandchild = line.parse::<i32>().ok().and_then(Pid::from_raw);
        let waited = tokio::time::timeout(Duration::from_millis(500), run(command, &mut progress));
        assert!(waited.await.is_err());
        let runs = |pid: Pid| {
            let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
            stat.is_ok_and(|stat| !stat.contains(") Z "))
        };
        let grandchild = grandchild.unwrap();
        for _ in 0..100 {
            if !runs(grandchild) {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("still runs");
    }

    #[tokio::test]
    async fn an_environment_is_made_once_and_again_when_it_does_not_fit() {
        const ANY: &RangeInclusive<Version> = &((3, 0)..=(3, 99));
        let root = tempfile::tempdir().unwrap();
        let (folder, requirements) = (
            root.path().join("venv"),
            root.path().join("requirements.txt"),
        );
        // Nothing to install: no network is needed.
        fs::write(&requirements, "# nothing\n").unwrap();
        let python = prepare(&folder, &requirements, ANY, |_| {}).await.unwrap();
        assert!(python.is_absolute() && works(&python).await);
        prepare(&folder, &requirements, ANY, |line| {
            panic!("made again for nothing: {line}")
        })
        .await
        .unwrap();

        fs::write(&requirements, "no-such-package @ file:///nowhere\n").unwrap();
        let error = prepare(&folder, &requirements, ANY, |_| {})
            .await
            .unwrap_err();
        assert!(matches!(error, VenvError::Install { .. }), "{error}");
        assert!(
            !error.to_string().contains('\n') && !folder.join(STAMP).exists(),
            "{error}"
        );

        let missing = root.path().join("none.txt");
        let error = prepare(&folder, &missing, ANY, |_| {})
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("none.txt"), "{error}");
        let error = prepare(&folder, &requirements, &((2, 0)..=(2, 1)), |_| {})
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("install Python 2.0 to 2.1"), "{error}");
    }
}
