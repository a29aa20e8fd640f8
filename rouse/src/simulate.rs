//! `rouse simulate`: what Rouse, and Knative's rules, would have done with a workload, without a cluster.
//!
//! The simulator itself is `autoscaler_core::sim`; here are what goes in (scenario files, traces, flags) and what comes out
//! (tables, JSON, a page of plots).

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use autoscaler_core::{
    ClusterConfig, Metric, TargetSpec, annotations,
    sim::{self, Comparison, Outcome, Overall, Policy, Scenario, Summary, Time},
};
use clap::{Parser, ValueEnum};

use crate::cli::{fail, pair};

mod bars;
mod html;
mod json;
mod scenario;
mod table;
mod trace;

/// Bytes of an input at most.
const MAX_BYTES: u64 = 512 * 1024 * 1024;
/// What standard scenarios are compared without: staying costs replica-seconds that Knative does not spend.
const MIN_STAY: (&str, &str) = ("rouse.dev/min-stay", "0s");

/// What to simulate.
#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// Scenario file (.yaml), trace (.csv as of Azure Functions, .jsonl with timestamps), or the name of a standard scenario.
    #[arg(required_unless_present = "standard", value_name = "INPUT")]
    inputs: Vec<String>,

    /// Run all standard scenarios, and compare.
    #[arg(long, conflicts_with = "inputs")]
    standard: bool,

    /// With --standard: exit 1 if Rouse does not do as well as its documentation says.
    #[arg(long)]
    check: bool,

    /// Whose rules to run.
    #[arg(long, value_enum, default_value_t = Which::Both)]
    policy: Which,

    /// An annotation of the workload; wins over the file. May be repeated.
    #[arg(long, visible_alias = "annotations", value_parser = pair, value_name = "KEY=VALUE")]
    annotation: Vec<(String, String)>,

    /// A cluster-wide setting, such as scale-to-zero-grace-period=10s. May be repeated.
    #[arg(long, value_parser = pair, value_name = "KEY=VALUE")]
    set: Vec<(String, String)>,

    /// Runs, each with other random numbers. What is told are means over them.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000), value_name = "N")]
    seeds: u32,

    /// How long a pod works on a request: 1s, uniform(1s,3s), exponential(1s) or lognormal(1s,0.5).
    #[arg(long, value_name = "TIME")]
    service: Option<Time>,

    /// From a pod's creation until it is ready, as --service.
    #[arg(long, value_name = "TIME")]
    start: Option<Time>,

    /// Requests that a pod works on at once.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000), value_name = "N")]
    concurrency: Option<u32>,

    /// The share of starts that fail, from 0 to 1.
    #[arg(long, value_parser = share, value_name = "SHARE")]
    start_failures: Option<f64>,

    /// The share of answers to scrapes that are lost, from 0 to 1.
    #[arg(long, value_parser = share, value_name = "SHARE")]
    scrape_loss: Option<f64>,

    /// Pods that are ready at the beginning.
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=10_000), value_name = "N")]
    replicas: Option<u32>,

    /// How long requests arrive; a longer trace is cut off.
    #[arg(long, value_parser = length, value_name = "DURATION")]
    length: Option<Duration>,

    /// The function of a CSV trace: the number of its row, or the beginning of its hash [default: all together].
    #[arg(long, value_name = "ROW")]
    row: Option<String>,

    /// Write everything as JSON to this file, or - for standard output instead of the table.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Write a page with plots of the first run to this file.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Whose rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Which {
    /// Knative's.
    Knative,
    /// Rouse's.
    Rouse,
    /// Both, side by side.
    Both,
}

/// One scenario and what came of it.
#[derive(Debug)]
struct Done {
    scenario: Scenario,
    /// By policy, in the order in which they are shown.
    runs: Vec<Run>,
}

/// One policy's runs.
#[derive(Debug)]
struct Run {
    policy: Policy,
    summary: Summary,
    /// The run with the first seed.
    first: Outcome,
}

impl Done {
    fn of(&self, policy: Policy) -> Option<&Run> {
        self.runs.iter().find(|run| run.policy == policy)
    }

    /// Both side by side, if both were run.
    fn comparison(&self) -> Option<Comparison> {
        Some(Comparison {
            scenario: self.scenario.name.clone(),
            start: self.scenario.start.mean(),
            knative: self.of(Policy::Knative)?.summary,
            rouse: self.of(Policy::Rouse)?.summary,
        })
    }
}

/// Runs the command.
pub(crate) fn main(args: &Args) -> ExitCode {
    let prepared = match prepare(args) {
        Ok(prepared) => prepared,
        Err(error) => return fail(2, &error),
    };
    let done: Vec<Done> = prepared
        .into_iter()
        .map(|(scenario, spec)| simulate(scenario, &spec, args))
        .collect();
    match tell(args, &done) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => fail(1, &error),
    }
}

/// Everything that can be wrong is found before anything is run.
fn prepare(args: &Args) -> Result<Vec<(Scenario, TargetSpec)>, String> {
    if args.check && !args.standard {
        return Err("--check: it belongs to --standard".to_owned());
    }
    if args.check && args.policy != Which::Both {
        return Err("--check: it compares, and needs --policy both".to_owned());
    }
    let settings: BTreeMap<_, _> = args.set.iter().cloned().collect();
    let config = ClusterConfig::parse(&settings).map_err(|error| format!("--set {error}"))?;
    let scenarios = if args.standard {
        sim::standard()
    } else {
        let read = args.inputs.iter().map(|input| load(input, args));
        read.collect::<Result<_, _>>()?
    };
    let with_flags = scenarios.into_iter().map(|scenario| {
        let scenario = flags(scenario, args);
        let expected = scenario.arrivals.expected(scenario.length);
        #[expect(clippy::cast_precision_loss, reason = "five million")]
        let most = sim::MOST_REQUESTS as f64;
        if expected > most {
            return Err(format!(
                "{}: {expected:.0} requests; at most {most} are simulated: choose a --row, or a shorter --length",
                scenario.name
            ));
        }
        let spec = spec(&scenario, &config)?;
        Ok((scenario, spec))
    });
    with_flags.collect()
}

/// A scenario by its file or name.
fn load(input: &str, args: &Args) -> Result<Scenario, String> {
    let path = Path::new(input);
    let kind = path.extension().and_then(|extension| extension.to_str());
    match kind {
        Some("yaml" | "yml") => scenario::read(input, &text(path)?),
        Some("csv") => trace::minutes(input, &text(path)?, args.row.as_deref()),
        Some("jsonl") => trace::timestamps(input, &text(path)?),
        _ => {
            let mut standard = sim::standard().into_iter();
            standard.find(|one| one.name == input).ok_or_else(|| {
                let names: Vec<_> = sim::standard().into_iter().map(|one| one.name).collect();
                format!(
                    "{input}: no such scenario; allowed are files that end in .yaml, .csv or .jsonl, and {}",
                    names.join(", ")
                )
            })
        }
    }
}

fn text(path: &Path) -> Result<String, String> {
    let cannot = |error: &io::Error| format!("{}: cannot be read: {error}", path.display());
    let bytes = fs::metadata(path).map_err(|error| cannot(&error))?.len();
    if bytes > MAX_BYTES {
        return Err(format!(
            "{}: {bytes} bytes; at most {MAX_BYTES} are read",
            path.display()
        ));
    }
    fs::read_to_string(path).map_err(|error| cannot(&error))
}

/// The scenario with what the flags say otherwise.
fn flags(mut scenario: Scenario, args: &Args) -> Scenario {
    fn set<T: Clone>(field: &mut T, given: Option<&T>) {
        if let Some(given) = given {
            field.clone_from(given);
        }
    }
    set(&mut scenario.service, args.service.as_ref());
    set(&mut scenario.start, args.start.as_ref());
    set(&mut scenario.concurrency, args.concurrency.as_ref());
    set(&mut scenario.start_failures, args.start_failures.as_ref());
    set(&mut scenario.scrape_loss, args.scrape_loss.as_ref());
    set(&mut scenario.replicas, args.replicas.as_ref());
    set(&mut scenario.length, args.length.as_ref());
    if args.standard {
        let (key, value) = MIN_STAY;
        scenario
            .annotations
            .insert(key.to_owned(), value.to_owned());
    }
    scenario.annotations.extend(args.annotation.iter().cloned());
    scenario
}

/// What the annotations ask for; those that have no effect are told.
fn spec(scenario: &Scenario, config: &ClusterConfig) -> Result<TargetSpec, String> {
    let parsed = annotations::parse(&scenario.annotations, config)
        .map_err(|invalid| format!("{}: {invalid}", scenario.name))?;
    for warning in parsed.warnings {
        // Nobody is left to be told when even this cannot be written.
        let _lost = writeln!(io::stderr(), "rouse: {}: {warning}", scenario.name);
    }
    let spec = parsed.spec;
    let concurrency = f64::from(scenario.concurrency);
    if spec.metric == Metric::Concurrency
        && spec.container_concurrency == 0
        && spec.total > 10.0 * concurrency
    {
        let _lost = writeln!(
            io::stderr(),
            "rouse: {}: a pod works on {concurrency} at once and is scaled for a target of {}; did you mean \
             --annotation rouse.dev/container-concurrency={concurrency}?",
            scenario.name,
            spec.total
        );
    }
    Ok(spec)
}

fn simulate(scenario: Scenario, spec: &TargetSpec, args: &Args) -> Done {
    let policies: &[Policy] = match args.policy {
        Which::Knative => &[Policy::Knative],
        Which::Rouse => &[Policy::Rouse],
        Which::Both => &[Policy::Knative, Policy::Rouse],
    };
    let run = |policy: &Policy| {
        let seeds = 1..=u64::from(args.seeds);
        let mut outcomes: Vec<Outcome> = seeds
            .map(|seed| {
                let mut outcome = sim::run(&scenario, spec, *policy, seed);
                if seed > 1 {
                    outcome.points = Vec::new();
                }
                outcome
            })
            .collect();
        Run {
            policy: *policy,
            summary: Summary::of(&outcomes),
            first: outcomes.swap_remove(0),
        }
    };
    Done {
        runs: policies.iter().map(run).collect(),
        scenario,
    }
}

/// Prints and writes. False if a bar was asked for and missed.
fn tell(args: &Args, done: &[Done]) -> Result<bool, String> {
    let compared: Vec<Comparison> = done.iter().filter_map(Done::comparison).collect();
    let overall = args.standard.then(|| Overall::of(&compared));
    let to_stdout = args.json.as_deref() == Some(Path::new("-"));
    if let Some(path) = &args.json {
        let text = json::page(done, overall.as_ref(), args.seeds);
        if to_stdout {
            print(&text)?;
        } else {
            write(path, &text)?;
        }
    }
    if let Some(path) = &args.html {
        write(path, &html::page(done, args.seeds))?;
    }
    let missed = overall
        .filter(|_| args.policy == Which::Both)
        .map(|overall| bars::missed(&compared, &overall))
        .unwrap_or_default();
    if !to_stdout {
        let mut text = if args.standard && args.policy == Which::Both {
            table::standard(&compared, args.seeds)
        } else {
            done.iter().map(table::one).collect::<Vec<_>>().join("\n")
        };
        if args.check {
            for bar in &missed {
                text.extend(["missed: ", bar, "\n"]);
            }
        }
        print(&text)?;
    }
    Ok(!args.check || missed.is_empty())
}

fn print(text: &str) -> Result<(), String> {
    io::stdout()
        .write_all(text.as_bytes())
        .map_err(|error| format!("cannot print: {error}"))
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| format!("{}: cannot be written: {error}", path.display()))
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse::<f64>().ok();
    share
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or_else(|| format!("{text:?} is no share: expected a number from 0 to 1"))
}

/// A length of time of at least a second and at most a day.
fn length(text: &str) -> Result<Duration, String> {
    scenario::duration(text)
        .filter(|length| *length >= Duration::from_secs(1))
        .ok_or_else(|| {
            format!("{text:?} is no length: expected a duration from 1s to 24h, such as 30m")
        })
}

#[cfg(test)]
mod tests;
