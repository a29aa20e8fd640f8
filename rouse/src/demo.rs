//! The demo: a real model server sleeps at zero, wakes on the first request, scales to five and back to zero.
//!
//! KServe's own Python server with sklearn Iris, run by the same libraries as on a cluster. Every step is checked: a
//! request that is lost, a step that takes too long or load that is spread unevenly ends the demo with one line and
//! status 1.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use shared::{metrics, shutdown};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    cli::{Started, fail, greeting, start_up},
    local::{Local, LocalWorkload, Options, logs::Output, process::Launcher, supervisor::Snapshot},
    venv,
};

mod call;
mod load;
mod report;

use report::{Findings, Replicas};

/// Versions of Python that the pinned requirements install with.
const PYTHON: std::ops::RangeInclusive<venv::Version> = (3, 10)..=(3, 13);
/// Much shorter than Knative's 60 s, so that a demo takes a minute and not five. Said on screen.
const WINDOW: &str = "6s";
const GRACE: &str = "3s";
/// Replicas that the load must reach: the workload's max-scale.
const MOST: u32 = 5;

/// Flags of `rouse demo`.
#[derive(Debug, clap::Parser)]
pub struct Args {
    /// Fewer requests: the same steps and checks in about half the time.
    #[arg(long)]
    quick: bool,

    /// Folder of the Iris example [default: examples/iris here or beside the build folder].
    #[arg(long, value_name = "DIR")]
    example: Option<PathBuf>,

    /// Folder of the Python environment [default: demo/venv in the build folder].
    #[arg(long, value_name = "DIR")]
    venv: Option<PathBuf>,
}

/// Why the demo failed, one line.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {reason}")]
pub(crate) struct Failed {
    step: &'static str,
    reason: String,
}

impl Failed {
    pub(crate) fn new(step: &'static str, reason: impl Into<String>) -> Self {
        Self {
            step,
            reason: reason.into(),
        }
    }
}

/// Runs the demo.
pub fn main(args: &Args) -> ExitCode {
    let Started {
        runtime,
        output,
        launcher,
    } = match start_up("warn") {
        Ok(started) => started,
        Err(error) => return fail(1, &error.to_string()),
    };
    let code = runtime.block_on(async {
        tokio::select! {
            done = run(args, launcher, &output) => match done {
                Ok(table) => {
                    for line in table {
                        output.line(line);
                    }
                    ExitCode::SUCCESS
                }
                Err(failed) => {
                    output.finish(Duration::from_secs(2));
                    fail(1, &format!("demo failed at {failed}"))
                }
            },
            // Dropping the demo kills every replica.
            _signal = shutdown::signalled() => {
                output.line("interrupted; everything is stopped");
                ExitCode::from(130)
            }
        }
    });
    output.finish(Duration::from_secs(2));
    code
}

/// How much of everything.
#[derive(Clone, Copy, Debug)]
struct Size {
    /// Rounds of the three ways to the model, and requests in each.
    rounds: usize,
    requests: u64,
    /// Length of the measured load on five replicas.
    steady: Duration,
}

async fn run(args: &Args, launcher: Launcher, output: &Output) -> Result<Vec<String>, Failed> {
    let size = if args.quick {
        Size {
            rounds: 6,
            requests: 100,
            steady: Duration::from_secs(4),
        }
    } else {
        Size {
            rounds: 15,
            requests: 200,
            steady: Duration::from_secs(10),
        }
    };
    let local = start(args, launcher, output).await?;
    let iris = local
        .workloads
        .first()
        .cloned()
        .ok_or_else(|| Failed::new("start", "the example has no workload"))?;
    let findings = show(&local, &iris, size, output).await?;
    local.stop(Duration::from_secs(5)).await;
    match findings.errors() {
        0 => Ok(findings.table()),
        lost => Err(Failed::new(
            "count",
            format!("{lost} requests failed; none may"),
        )),
    }
}

/// Prepares the environment and starts local mode at zero.
async fn start(args: &Args, launcher: Launcher, output: &Output) -> Result<Local, Failed> {
    let example = find_example(args)?;
    let python = environment(args, &example, output).await?;
    output.line("");
    output.line(format!(
        "starting at zero; stable window {WINDOW} and grace {GRACE} instead of Knative's 60s and 30s, to be short"
    ));
    let mut options = Options::new(vec![example.join("iris.yaml")]);
    options.launcher = launcher;
    options.any_port = true;
    options.settings = BTreeMap::from([("scale-to-zero-grace-period".into(), GRACE.into())]);
    options.annotations =
        BTreeMap::from([("autoscaling.knative.dev/window".into(), WINDOW.into())]);
    options.path = python.parent().map(Path::to_path_buf);
    let recorder = metrics::install().ok();
    if let Some(handle) = recorder.clone() {
        tokio::spawn(metrics::upkeep(handle));
    }
    let local = Local::start(&options, output, recorder)
        .map_err(|e| Failed::new("start", e.to_string()))?;
    for line in greeting(&local) {
        output.line(line);
    }
    Ok(local)
}

/// Every step, from zero to zero.
async fn show(
    local: &Local,
    iris: &LocalWorkload,
    size: Size,
    output: &Output,
) -> Result<Findings, Failed> {
    let replicas = Replicas::watch(iris.snapshot.clone());
    sleep(Duration::from_secs(1)).await;
    expect_zero(iris)?;
    let idle_memory = report::resident_bytes();

    output.line("");
    output.line(format!(
        "one request at zero replicas: POST {} {}",
        call::PATH,
        call::BODY
    ));
    let url = call::url(iris)?;
    let (prediction, cold) = call::predict(iris, Duration::from_mins(2)).await?;
    output.line(format!(
        "answer after {:.0} ms: {prediction}",
        cold.as_secs_f64() * 1e3
    ));
    let wake = local
        .wakes()
        .pop()
        .ok_or_else(|| Failed::new("cold start", "no wake was recorded"))?;
    for line in report::timeline(&wake) {
        output.line(line);
    }

    output.line("");
    output.line(format!(
        "warm, one request at a time: {} rounds of {} requests directly, through the sidecar, through Rouse",
        size.rounds, size.requests
    ));
    let ways = load::three_ways(iris, &url, size.rounds, size.requests).await?;

    output.line("");
    output.line(format!(
        "load of {} requests at once until {MOST} replicas serve it",
        load::CONNECTIONS
    ));
    let ramp = load::until(
        &url,
        || ready(&iris.snapshot.borrow()) >= MOST,
        Duration::from_secs(90),
    )
    .await?;
    output.line(format!(
        "{MOST} replicas are ready; measuring for {} s",
        size.steady.as_secs()
    ));
    let before = load::served(&iris.snapshot.borrow());
    let steady = load::steady(&url, size.steady).await?;
    let shares = load::shares(&before, &iris.snapshot.borrow());
    load::check_even(&shares, MOST)?;

    output.line("");
    output.line("the load stops; waiting for zero");
    let stopped = Instant::now();
    wait_for_zero(iris, Duration::from_secs(90)).await?;
    Ok(Findings {
        idle_memory,
        peak_memory: report::peak_bytes(),
        cold,
        wake,
        ways,
        ramp,
        steady,
        shares,
        to_zero: stopped.elapsed(),
        replicas: replicas.end(),
    })
}

async fn environment(args: &Args, example: &Path, output: &Output) -> Result<PathBuf, Failed> {
    let folder = args
        .venv
        .clone()
        .unwrap_or_else(|| build_folder().join("demo").join("venv"));
    let requirements = example.join("requirements.txt");
    output.line(format!("Python environment: {}", folder.display()));
    let progress = |line: &str| output.line(format!("  {line}"));
    let prepared = venv::prepare(&folder, &requirements, &PYTHON, progress);
    timeout(Duration::from_mins(15), prepared)
        .await
        .map_err(|_| Failed::new("Python environment", "not ready within 15 minutes"))?
        .map_err(|e| Failed::new("Python environment", e.to_string()))
}

/// The folder that this program was built in, or `target` here.
fn build_folder() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    match program.parent().and_then(Path::parent) {
        Some(folder) if folder.file_name().is_some_and(|name| name == "target") => {
            folder.to_path_buf()
        }
        _ => PathBuf::from("target"),
    }
}

fn find_example(args: &Args) -> Result<PathBuf, Failed> {
    let here = PathBuf::from("examples/iris");
    let beside = build_folder()
        .parent()
        .map(|root| root.join("examples").join("iris"));
    let candidates: Vec<_> = match &args.example {
        Some(folder) => vec![folder.clone()],
        None => std::iter::once(here).chain(beside).collect(),
    };
    let found = candidates
        .iter()
        .find(|folder| folder.join("iris.yaml").is_file());
    found.cloned().ok_or_else(|| {
        let looked: Vec<_> = candidates
            .iter()
            .map(|folder| folder.display().to_string())
            .collect();
        Failed::new(
            "start",
            format!(
                "no iris.yaml in {}; name its folder with --example",
                looked.join(" or ")
            ),
        )
    })
}

fn ready(snapshot: &Arc<Snapshot>) -> u32 {
    let count = snapshot
        .replicas
        .iter()
        .filter(|replica| replica.ready && !replica.terminating)
        .count();
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn expect_zero(iris: &LocalWorkload) -> Result<(), Failed> {
    let snapshot = iris.snapshot.borrow();
    if snapshot.wanted == 0 && snapshot.replicas.is_empty() {
        Ok(())
    } else {
        Err(Failed::new(
            "start",
            format!(
                "{} replicas although nothing was asked for",
                snapshot.replicas.len()
            ),
        ))
    }
}

async fn wait_for_zero(iris: &LocalWorkload, limit: Duration) -> Result<(), Failed> {
    let mut snapshot = iris.snapshot.clone();
    let zero = snapshot.wait_for(|snapshot| snapshot.wanted == 0 && snapshot.replicas.is_empty());
    match timeout(limit, zero).await {
        Ok(Ok(_)) => Ok(()),
        _ => Err(Failed::new(
            "back to zero",
            format!("not at zero within {} s", limit.as_secs()),
        )),
    }
}
