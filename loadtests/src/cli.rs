//! The command: arguments in, report out. `rouse-load` is this and nothing more, and other programs may offer it, too.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is the output module"
)]

use crate::args::Args;
use crate::error::Error;
use crate::journal::{Journal, JournalFile};
use crate::progress::Progress;
use crate::report::Report;
use crate::run::run;
use crate::table::Table;
use clap::Parser;
use clap::error::ErrorKind;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::error::Error as _;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use tokio::sync::watch;

/// The load ran, but with errors, or its result could not be written.
const FAILED: u8 = 1;
/// The arguments make no sense; nothing was sent.
const USAGE: u8 = 2;
/// Stopped by Ctrl-C, as shells report it.
const INTERRUPTED: u8 = 130;

/// Runs the command; the first argument is the program's name.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(error) => return refuse(&error),
    };
    match execute(&args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {}", line(&error));
            ExitCode::from(if error.is_usage() { USAGE } else { FAILED })
        }
    }
}

/// An error and its cause.
fn line(error: &Error) -> String {
    let cause = error.source();
    cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

/// Help goes out as it is; a bad value is one line that names flag, value and what is allowed.
fn refuse(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            print!("{error}");
            return ExitCode::SUCCESS;
        }
        ErrorKind::ValueValidation | ErrorKind::InvalidValue => {
            let text = error.to_string();
            let lines = text
                .lines()
                .map(str::trim)
                .filter(|line| !line.is_empty() && !line.starts_with("For more"));
            eprintln!("{}", lines.collect::<Vec<_>>().join(" "));
        }
        _ => eprint!("{error}"),
    }
    ExitCode::from(USAGE)
}

fn execute(args: &Args) -> Result<ExitCode, Error> {
    let mut config = args.config()?;
    let mut report_file = args
        .json
        .as_deref()
        .filter(|path| !is_stdout(path))
        .map(create)
        .transpose()?;
    let journal_file =
        args.journal
            .as_deref()
            .map(Journal::file)
            .transpose()?
            .map(|(journal, file)| {
                config.journal = Some(journal);
                file
            });
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::Thread)?;
    let shows = io::stderr().is_terminal();
    let report = runtime.block_on(async {
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                stop.send_replace(true);
            }
            stop.closed().await; // so that the sender outlives the run
        });
        run(config, move |progress| show(shows, &progress), stopped).await
    })?;
    if shows {
        eprint!("\r\x1b[K");
    }
    let written = write_report(args, report_file.as_mut(), &report)
        .map_err(|error| format!("--json: cannot write the report: {error}"));
    let finished = journal_file
        .map_or(Ok(()), JournalFile::finish)
        .map_err(|error| line(&error));
    let problems: Vec<_> = [written.err(), finished.err()]
        .into_iter()
        .flatten()
        .collect();
    if !problems.is_empty() {
        for problem in problems {
            eprintln!("error: {problem}");
        }
        return Ok(ExitCode::from(FAILED));
    }
    Ok(match &report {
        report if report.interrupted => ExitCode::from(INTERRUPTED),
        report if args.fail_on_errors && report.summary.error_count > 0 => ExitCode::from(FAILED),
        _ => ExitCode::SUCCESS,
    })
}

/// Each connection is a file, and the usual soft limit is a mere 1,024. Where the hard limit is lower than the number of
/// connections, the report shows connect errors.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            ..limit
        },
    );
}

fn show(shows: bool, progress: &Progress) {
    if shows {
        eprint!("\r\x1b[K{progress}");
    }
}

fn is_stdout(path: &Path) -> bool {
    path == Path::new("-")
}

/// Opened before the run: an hour of load must not end in "permission denied".
fn create(path: &Path) -> Result<File, Error> {
    File::create(path).map_err(|error| {
        Error::invalid(
            "--json",
            path.display().to_string(),
            format!("- or a file that can be written ({error})"),
        )
    })
}

/// A closed pipe is not worth a panic, so nothing here uses `println!`.
fn write_report(args: &Args, file: Option<&mut File>, report: &Report) -> io::Result<()> {
    let json = serde_json::to_string_pretty(report)? + "\n";
    let mut stdout = io::stdout().lock();
    match (&args.json, file) {
        (Some(_), None) => stdout.write_all(json.as_bytes()),
        (_, file) => {
            file.map_or(Ok(()), |file| file.write_all(json.as_bytes()))?;
            write!(stdout, "{}", Table(report))
        }
    }?;
    stdout.flush()
}
