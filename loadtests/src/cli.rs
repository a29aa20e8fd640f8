//! The command: arguments in, report out. `rouse-load` is this and nothing more, and other programs may offer it, too.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is the output module"
)]

use crate::ab::args::AbArgs;
use crate::ab::{self, Stage};
use crate::args::{Args, Command};
use crate::cold::{self, ColdArgs, Outcome};
use crate::compare::{Comparison, Limits};
use crate::error::Error;
use crate::export;
use crate::html::page;
use crate::journal::{Journal, JournalFile};
use crate::live::Screen;
use crate::merge::merge;
use crate::progress::Progress;
use crate::report::{Report, SCHEMA_VERSION};
use crate::run::run;
use crate::series::MOST;
use crate::slo::Objectives;
use crate::table::Table;
use clap::Parser;
use clap::error::ErrorKind;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;
use std::error::Error as _;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// The load ran, but with errors or past an objective, or its target was not ready in time, or its result could not be written.
const FAILED: u8 = 1;
/// The arguments make no sense; nothing was sent.
const USAGE: u8 = 2;
/// Stopped by Ctrl-C or SIGTERM, as shells report the former.
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
    match &args.command {
        None => load(args),
        Some(Command::Cold(args)) => cold(args),
        Some(Command::Merge {
            reports,
            json,
            html,
            slo,
        }) => merged(reports, json.as_deref(), html.as_deref(), slo.as_ref()),
        Some(Command::Html { report, page }) => paged(report, page),
        Some(Command::Ab(args)) => in_turn(args),
        Some(Command::Compare { a, b, limit, json }) => {
            compared(a, b, limit.as_ref(), json.as_deref())
        }
    }
}

/// Where a result goes, opened before there is one: an hour of load must not end in "permission denied".
struct Output {
    flag: &'static str,
    /// None for standard output.
    file: Option<File>,
    /// Where the file goes once it is whole, if not where it is.
    moves: Option<(PathBuf, PathBuf)>,
}

impl Output {
    fn open(flag: &'static str, path: Option<&Path>) -> Result<Option<Self>, Error> {
        let Some(path) = path else { return Ok(None) };
        let file = (path != Path::new("-"))
            .then(|| create(flag, path))
            .transpose()?;
        Ok(Some(Self {
            flag,
            file,
            moves: None,
        }))
    }

    /// A file that whoever reads it sees whole or not at all.
    fn open_whole(flag: &'static str, path: Option<&Path>) -> Result<Option<Self>, Error> {
        let Some(path) = path else { return Ok(None) };
        if path.is_dir() || path == Path::new("-") {
            let shown = path.display().to_string();
            return Err(Error::invalid(flag, shown, "a file that can be written"));
        }
        let mut beside = path.as_os_str().to_owned();
        beside.push(format!(".{}.tmp", std::process::id()));
        let beside = PathBuf::from(beside);
        Ok(Some(Self {
            flag,
            file: Some(create(flag, &beside)?),
            moves: Some((beside, path.to_owned())),
        }))
    }

    fn is_stdout(&self) -> bool {
        self.file.is_none()
    }

    /// A closed pipe is not worth a panic, so nothing here uses `println!`.
    fn write(mut self, text: &str) -> Result<(), String> {
        let written = match &mut self.file {
            Some(file) => file.write_all(text.as_bytes()),
            None => say(text),
        };
        let written = written.and_then(|()| match &self.moves {
            Some((from, to)) => std::fs::rename(from, to),
            None => Ok(()),
        });
        written.map_err(|error| format!("{}: cannot write the result: {error}", self.flag))
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // Of a run that did not get as far there is nothing to leave behind.
        if let Some((beside, _)) = &self.moves {
            let _moved = std::fs::remove_file(beside);
        }
    }
}

fn say(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Says what could not be written; whether there was anything.
fn complain(problems: impl IntoIterator<Item = String>) -> bool {
    let mut any = false;
    for problem in problems {
        eprintln!("error: {problem}");
        any = true;
    }
    any
}

fn load(args: &Args) -> Result<ExitCode, Error> {
    let mut config = args.config()?;
    let json = Output::open("--json", args.result.json.as_deref())?;
    let csv = Output::open("--csv", args.result.csv.as_deref())?;
    let html = Output::open("--html", args.result.html.as_deref())?;
    let prometheus = Output::open_whole("--prometheus", args.result.prometheus.as_deref())?;
    let journal_file = args
        .result
        .journal
        .as_deref()
        .map(Journal::file)
        .transpose()?
        .map(|(journal, file)| {
            config.journal = Some(journal);
            file
        });
    let screen = Screen::of_stderr(args.result.no_progress).map(Arc::new);
    let shown = screen.clone();
    if let (Some(_), Some(start)) = (&screen, config.start_at) {
        let ahead = start.duration_since(SystemTime::now()).unwrap_or_default();
        eprintln!("the load begins in {:.0} s", ahead.as_secs_f64());
    }
    let show = move |progress: Progress| {
        if let Some(screen) = &shown {
            screen.show(&progress);
        }
    };
    let report = until_stopped(|stopped| run(config, show, stopped));
    if let Some(screen) = screen {
        screen.clear();
    }
    let mut report = report?;
    let is_met = args.result.slo.as_ref().is_none_or(|slo| report.judge(slo));
    let finished = journal_file
        .map_or(Ok(()), JournalFile::finish)
        .map_err(|error| line(&error));
    let has_stdout = [&json, &csv, &html]
        .into_iter()
        .flatten()
        .any(Output::is_stdout);
    let table = (!has_stdout)
        .then(|| say(&Table(&report).to_string()))
        .transpose()
        .map_err(|error| format!("cannot write the report: {error}"));
    let written = [
        table.map(drop),
        json.map_or(Ok(()), |to| to.write(&as_json(&report))),
        csv.map_or(Ok(()), |to| to.write(&export::csv(&report))),
        html.map_or(Ok(()), |to| to.write(&page(&report))),
        prometheus.map_or(Ok(()), |to| to.write(&export::prometheus(&report))),
        finished,
    ];
    if complain(written.into_iter().filter_map(Result::err)) {
        return Ok(ExitCode::from(FAILED));
    }
    let has_failed = !is_met || args.result.fail_on_errors && report.summary.error_count > 0;
    Ok(if report.interrupted {
        ExitCode::from(INTERRUPTED)
    } else if has_failed {
        ExitCode::from(FAILED)
    } else {
        ExitCode::SUCCESS
    })
}

/// Runs it to its end; the receiver hears of Ctrl-C, and of SIGTERM, with which Kubernetes ends a pod.
fn until_stopped<T, F>(body: impl FnOnce(watch::Receiver<bool>) -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::Thread)?;
    let result = runtime.block_on(async {
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(hear(stop));
        body(stopped).await
    });
    // Not dropped: that would wait for a look-up of a name that nobody answers.
    runtime.shutdown_background();
    result
}

/// Stops the run at the first signal. The second one ends the process at once, whatever it waits for.
async fn hear(stop: watch::Sender<bool>) {
    let signals = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    );
    if let (Ok(mut interrupt), Ok(mut terminate)) = signals {
        let mut next = async || {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        };
        next().await;
        stop.send_replace(true);
        next().await;
        leave();
    }
    stop.closed().await; // so that the sender outlives the run
}

#[expect(clippy::exit, reason = "whoever asks twice does not want to wait")]
fn leave() -> ! {
    std::process::exit(i32::from(INTERRUPTED))
}

/// Wakes from zero.
fn cold(args: &ColdArgs) -> Result<ExitCode, Error> {
    let plan = args.plan()?;
    let json = Output::open("--json", args.json.as_deref())?;
    let html = Output::open("--html", args.html.as_deref())?;
    raise_file_limit();
    let shows = io::stderr().is_terminal();
    let tell = move |line: String| {
        if shows {
            eprintln!("{line}");
        }
    };
    let Outcome {
        mut report,
        problems,
    } = until_stopped(|stopped| cold::run(plan, tell, stopped))?;
    let is_met = args.slo.as_ref().is_none_or(|slo| report.judge(slo));
    let has_failed = args.fail_on_errors && report.summary.error_count > 0;
    let has_problems = complain(problems);
    let text = Table(&report).to_string();
    let paged = html.map_or(Ok(()), |to| to.write(&page(&report)));
    let is_written = !complain(paged.err());
    // That it was stopped says more than that what there is of it misses something.
    let is_good = report.interrupted || is_met && !has_failed && !has_problems;
    let code = conclude(json, &report, &text, is_good && is_written);
    Ok(if report.interrupted && code == ExitCode::SUCCESS {
        ExitCode::from(INTERRUPTED)
    } else {
        code
    })
}

/// Two servers in one run.
fn in_turn(args: &AbArgs) -> Result<ExitCode, Error> {
    let setup = args.setup()?;
    let json = Output::open("--json", args.json.as_deref())?;
    let shows = io::stderr().is_terminal();
    let tell = |stage: Stage| {
        if shows {
            let Stage {
                block,
                blocks,
                arm,
                progress,
            } = stage;
            eprint!(
                "\r\x1b[K{block}/{blocks} {:<7} {:>9.1} req/s  {} errors",
                arm.name(),
                progress.rate,
                progress.errors
            );
        }
    };
    let result = until_stopped(|stopped| ab::run(&setup, tell, stopped));
    if shows {
        eprint!("\r\x1b[K");
    }
    let result = result?;
    let is_met = result.limits.iter().all(|limit| limit.met);
    let is_good = result.failed.is_none() && (is_met || result.interrupted);
    let code = conclude(json, &result, &result.to_string(), is_good);
    Ok(if result.interrupted && code == ExitCode::SUCCESS {
        ExitCode::from(INTERRUPTED)
    } else {
        code
    })
}

/// Writes what a command has come to: as JSON where that is asked for, and as text unless that went to standard output.
fn conclude(json: Option<Output>, value: &impl Serialize, text: &str, is_good: bool) -> ExitCode {
    let is_said = json.as_ref().is_some_and(Output::is_stdout);
    let said = if is_said { Ok(()) } else { say(text) };
    let written = [
        said.map_err(|error| format!("cannot write the result: {error}")),
        json.map_or(Ok(()), |to| to.write(&as_json(value))),
    ];
    let has_problems = complain(written.into_iter().filter_map(Result::err));
    if has_problems || !is_good {
        ExitCode::from(FAILED)
    } else {
        ExitCode::SUCCESS
    }
}

fn merged(
    paths: &[PathBuf],
    json: Option<&Path>,
    html: Option<&Path>,
    slo: Option<&Objectives>,
) -> Result<ExitCode, Error> {
    let reports = paths
        .iter()
        .map(|path| read("REPORT", path))
        .collect::<Result<Vec<_>, _>>()?;
    let shown: Vec<_> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    let mut report = merge(&reports)
        .map_err(|error| Error::invalid("REPORT", shown.join(" "), error.to_string()))?;
    let json = Output::open("--json", json)?;
    let html = Output::open("--html", html)?;
    let is_met = slo.is_none_or(|slo| report.judge(slo));
    let text = match &html {
        Some(html) if html.is_stdout() => String::new(),
        _ => Table(&report).to_string(),
    };
    let paged = html.map_or(Ok(()), |to| to.write(&page(&report)));
    let is_written = !complain(paged.err());
    Ok(conclude(json, &report, &text, is_met && is_written))
}

/// The page of a report that was written before.
fn paged(path: &Path, to: &Path) -> Result<ExitCode, Error> {
    let report = read("REPORT", path)?;
    let written = Output::open("FILE", Some(to))?.map_or(Ok(()), |to| to.write(&page(&report)));
    Ok(if complain(written.err()) {
        ExitCode::from(FAILED)
    } else {
        ExitCode::SUCCESS
    })
}

fn compared(
    a: &Path,
    b: &Path,
    limits: Option<&Limits>,
    json: Option<&Path>,
) -> Result<ExitCode, Error> {
    let (a, b) = (read("A", a)?, read("B", b)?);
    let json = Output::open("--json", json)?;
    let none = Limits::default();
    let comparison = Comparison::of(&a, &b, limits.unwrap_or(&none));
    let text = comparison.to_string();
    Ok(conclude(json, &comparison, &text, comparison.is_within()))
}

/// A report has some 50 KB; whatever is so much larger is none.
const LARGEST_REPORT: u64 = 64 * 1024 * 1024;

fn read(argument: &'static str, path: &Path) -> Result<Report, Error> {
    let wrong = |what: String| Error::invalid(argument, path.display().to_string(), what);
    let mut text = String::new();
    let file = File::open(path).map_err(|e| wrong(format!("a readable file ({e})")))?;
    let bytes = file
        .take(LARGEST_REPORT)
        .read_to_string(&mut text)
        .map_err(|e| wrong(format!("a report, which is text ({e})")))?;
    if bytes as u64 == LARGEST_REPORT {
        return Err(wrong("a report, which is smaller than 64 MiB".to_owned()));
    }
    let report: Report = serde_json::from_str(&text)
        .map_err(|e| wrong(format!("a report as --json writes it ({e})")))?;
    if report.series.points.len().max(report.series.answered.len()) > MOST {
        return Err(wrong(format!("a report with at most {MOST} slices")));
    }
    if report.schema_version != SCHEMA_VERSION {
        let version = report.schema_version;
        return Err(wrong(format!(
            "a report of version {SCHEMA_VERSION}, this one has {version}"
        )));
    }
    Ok(report)
}

fn as_json(value: &impl Serialize) -> String {
    // Nothing in a result can fail to be written as JSON: its keys are text.
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
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

fn create(flag: &'static str, path: &Path) -> Result<File, Error> {
    File::create(path).map_err(|error| {
        let allowed = format!("a file that can be written, or - for standard output ({error})");
        Error::invalid(flag, path.display().to_string(), allowed)
    })
}
