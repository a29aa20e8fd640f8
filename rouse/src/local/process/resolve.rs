//! Finding a program before a process is started for it, so that the usual mistakes are reported at once.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::{CommandSpec, SpawnError};

/// Checks working directory and program as the shim's exec will see them.
pub(super) fn check(spec: &CommandSpec) -> Result<(), SpawnError> {
    let folder = spec.working_dir.as_path();
    let usable = match folder.metadata() {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(io::ErrorKind::NotADirectory.into()),
        Err(error) => Err(error),
    };
    usable.map_err(|error| SpawnError::WorkingDir {
        path: folder.to_path_buf(),
        error,
    })?;

    let program = spec.argv.first().cloned().unwrap_or_default();
    if program.is_empty() {
        return Err(SpawnError::NotFound {
            program,
            looked: "it has no name".to_owned(),
        });
    }
    if program.contains('/') {
        let path = folder.join(&program);
        return match state(&path) {
            State::Executable => Ok(()),
            State::File => Err(SpawnError::NotExecutable { program, path }),
            State::None => Err(SpawnError::NotFound {
                program,
                looked: format!("no file {}", path.display()),
            }),
        };
    }
    let set = spec
        .env
        .iter()
        .rev()
        .find(|(name, _)| name == "PATH")
        .map(|(_, value)| value.into());
    let Some(path) = set.or_else(|| std::env::var_os("PATH")) else {
        return Ok(()); // the system has a default; exec will tell
    };
    let candidates = std::env::split_paths(&path).map(|entry| folder.join(entry).join(&program));
    let mut refused: Option<PathBuf> = None;
    for candidate in candidates {
        match state(&candidate) {
            State::Executable => return Ok(()),
            State::File => refused = refused.or(Some(candidate)),
            State::None => {}
        }
    }
    Err(match refused {
        Some(path) => SpawnError::NotExecutable { program, path },
        None => SpawnError::NotFound {
            program,
            looked: "it is in no folder of PATH".to_owned(),
        },
    })
}

enum State {
    Executable,
    File,
    None,
}

fn state(path: &Path) -> State {
    match path.metadata() {
        Ok(found) if found.is_file() && found.permissions().mode() & 0o111 != 0 => {
            State::Executable
        }
        Ok(_) => State::File,
        Err(_) => State::None,
    }
}
