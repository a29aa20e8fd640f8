//! The command line of `rouse`.
//!
//! Exit status: 0 for success and for a local mode that was stopped, 1 for a demo step that failed or a vector that differs, 2 for
//! bad input or a port that cannot be had, 130 for a demo that was interrupted.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io::{self, Write as _},
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::{Parser, Subcommand};
use shared::{files, metrics, shutdown::Signals};
use tracing_subscriber::{EnvFilter, fmt, util::SubscriberInitExt as _};

use crate::{
    cluster, demo,
    local::{Local, Options, logs::Output, process::Launcher},
    simulate, vectors,
};

/// How long replicas get to end after Ctrl-C. A second Ctrl-C ends them at once.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// How long the last lines may take to be printed.
pub(crate) const PRINT_LIMIT: Duration = Duration::from_secs(2);

/// Serverless, request-driven autoscaling for model servers: they sleep at zero, wake on the first request, scale with the
/// requests in flight, and go back to sleep.
#[derive(Debug, Parser)]
#[command(name = "rouse", version, max_term_width = 100)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run Deployments of ordinary Kubernetes YAML on this machine, without a cluster.
    ///
    /// Replicas are child processes: the first container's command, args, env, ports and readiness probe are used, its
    /// image is ignored. Each replica gets a loopback port of its own as $PORT. Each workload gets a listening port: that
    /// of its Service if one is in the files, else the next free one. All of Knative's scaling annotations apply. A
    /// relative command runs in the folder of its file. Ctrl-C ends everything.
    Local(LocalArgs),
    /// See it work: KServe's Python server with sklearn Iris sleeps, wakes, scales to 5 replicas and back to zero.
    ///
    /// Prepares a Python environment with pinned packages below the build folder on the first run (about a minute),
    /// then needs no network. Exits 0 only if every step worked and no request was lost.
    Demo(demo::Args),
    #[command(flatten)]
    Cluster(cluster::Command),
    /// Replay recorded cases of Knative's own code through Rouse's, and show each difference.
    ///
    /// Reads vector files: decisions, windows, collections, sampling of pods, accounts of requests, annotations and settings.
    /// Prints for each file how many cases passed, failed, or have no counterpart in Rouse and why. Where Rouse departs
    /// from Knative on purpose, it is Knative's way that is replayed. Exits 0 if nothing failed and 1 on any difference.
    Vectors(vectors::Args),
    /// Simulate a workload without a cluster: what Rouse would do with it, and what Knative's rules would.
    ///
    /// Made for tuning annotations against your own trace before touching a cluster. Requests come from a scenario file, from a
    /// log (JSON lines with a timestamp each), or from counts per minute as in the Azure Functions traces. Prints
    /// replica-seconds, seconds over target, how long requests were held, cold starts, flaps and peak replicas; writes JSON
    /// and a page of plots if asked.
    Simulate(simulate::Args),
    /// Load an HTTP server and report latency, throughput and errors; the same as rouse-load.
    #[command(disable_help_flag = true)]
    Load {
        /// Flags and URL of rouse-load; see rouse load --help.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
}

#[derive(Debug, Parser)]
struct LocalArgs {
    /// YAML file with Deployments, their Services, and perhaps the `ConfigMap` rouse-config. May be repeated.
    #[arg(short, long = "file", required = true, num_args = 1.., value_name = "FILE")]
    file: Vec<PathBuf>,

    /// First port for workloads without a Service [default: 8080].
    #[arg(short, long, value_parser = clap::value_parser!(u16).range(1..), value_name = "PORT")]
    port: Option<u16>,

    /// Address and port for /debug/decisions and /metrics [default: any free port on 127.0.0.1].
    #[arg(long, value_name = "ADDR:PORT")]
    admin: Option<SocketAddr>,

    /// A cluster-wide setting of Knative's config-autoscaler, such as scale-to-zero-grace-period=10s. May be repeated.
    #[arg(long, value_parser = pair, value_name = "KEY=VALUE")]
    set: Vec<(String, String)>,

    /// An annotation for every workload, such as autoscaling.knative.dev/window=10s; wins over the files.
    #[arg(long, value_parser = pair, value_name = "KEY=VALUE")]
    annotation: Vec<(String, String)>,

    /// Show no status table.
    #[arg(short, long)]
    quiet: bool,
}

/// Runs the command.
pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return misused(&error),
    };
    match args.command {
        Command::Local(args) => local(args),
        Command::Demo(args) => demo::main(&args),
        Command::Cluster(command) => on_cluster(command),
        Command::Vectors(args) => vectors::main(&args),
        Command::Simulate(args) => simulate::main(&args),
        Command::Load { args } => {
            loadtests::cli::main(std::iter::once("rouse load".into()).chain(args))
        }
    }
}

fn local(args: LocalArgs) -> ExitCode {
    let Started {
        runtime,
        output,
        launcher,
    } = match start_up("info") {
        Ok(started) => started,
        Err(error) => return fail(1, &error.to_string()),
    };
    let mut options = Options::new(args.file);
    options.launcher = launcher;
    options.port = args.port;
    options.admin = args.admin;
    options.settings = args.set.into_iter().collect::<BTreeMap<_, _>>();
    options.annotations = args.annotation.into_iter().collect::<BTreeMap<_, _>>();
    options.status = !args.quiet;
    let code = runtime.block_on(serve(&options, &output));
    output.finish(PRINT_LIMIT);
    code
}

fn on_cluster(command: cluster::Command) -> ExitCode {
    let Started {
        runtime, output, ..
    } = match start_up("error") {
        Ok(started) => started,
        Err(error) => return fail(1, &error.to_string()),
    };
    let code = runtime.block_on(cluster::run(command, &output));
    output.finish(PRINT_LIMIT);
    code
}

async fn serve(options: &Options, output: &Output) -> ExitCode {
    // Before anything runs: from then on there is something to stop.
    let mut signals = match Signals::caught() {
        Ok(signals) => signals,
        Err(error) => return fail(1, &format!("signals cannot be caught: {error}")),
    };
    let metrics = metrics::install().ok();
    if let Some(handle) = metrics.clone() {
        tokio::spawn(metrics::upkeep(handle));
    }
    let local = match Local::start(options, output, metrics) {
        Ok(local) => local,
        Err(error) => {
            output.finish(PRINT_LIMIT);
            return fail(2, &error.to_string());
        }
    };
    for line in greeting(&local) {
        output.line(line);
    }
    signals.next().await;
    output.line("stopping; once more to stop at once");
    tokio::select! {
        () = local.stop(STOP_GRACE) => {}
        // Dropping everything kills all replicas.
        _again = signals.next() => {}
    }
    ExitCode::SUCCESS
}

/// Where everything is.
pub(crate) fn greeting(local: &Local) -> Vec<String> {
    let mut lines = Vec::new();
    for workload in &local.workloads {
        let addresses: Vec<_> = workload
            .addresses
            .iter()
            .map(|address| format!("http://{address}"))
            .collect();
        lines.push(format!("{}: {}", workload.id.name(), addresses.join(" ")));
    }
    lines.push(format!(
        "decisions: http://{0}/debug/decisions  metrics: http://{0}/metrics",
        local.admin
    ));
    if let Some(address) = local.activator_admin {
        lines.push(format!("wakes: http://{address}/debug/wakes"));
    }
    lines
}

/// What both local mode and the demo run with.
pub(crate) struct Started {
    pub(crate) runtime: tokio::runtime::Runtime,
    /// The one way to print, which logs use too.
    pub(crate) output: Output,
    /// Starts replicas.
    pub(crate) launcher: Launcher,
}

/// Makes ready for local mode.
pub(crate) fn start_up(level: &str) -> io::Result<Started> {
    // Each client's connection is a file here, and so is each connection to a replica; the replicas' own limit stays.
    let launcher = Launcher::this_program().open_files(files::raise_limit());
    let output = Output::stdout()?;
    let writer = output.clone();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let subscriber = fmt()
        .with_env_filter(filter)
        .with_writer(move || writer.writer())
        .with_ansi(false)
        .with_target(false)
        .without_time()
        .finish();
    // In one process with a caller's own subscriber, that one stays.
    let _already = subscriber.try_init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    Ok(Started {
        runtime,
        output,
        launcher,
    })
}

/// A command line that is wrong is told in one line, as all bad input is. Help and version are not errors.
fn misused(error: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand as NoCommand;
    if error.use_stderr() && error.kind() != NoCommand {
        return fail(2, &one_line(&error.render().to_string()));
    }
    // Nobody is left to be told when even this cannot be printed.
    let _lost = error.print();
    ExitCode::from(u8::from(error.use_stderr()) * 2)
}

/// What clap says, without the usage: a sentence or several, a paragraph or list item each.
fn one_line(text: &str) -> String {
    let mut line = String::new();
    let said = text.lines().map(str::trim);
    for part in said.take_while(|part| !part.starts_with("Usage:")) {
        if part.is_empty() || part.starts_with("For more information") {
            continue;
        }
        if !line.is_empty() {
            line.push_str(if line.ends_with(':') { " " } else { "; " });
        }
        line.push_str(part.trim_start_matches("error: "));
    }
    line + "; see --help"
}

/// The program's last words, and its status.
pub(crate) fn fail(code: u8, error: &str) -> ExitCode {
    // Nobody is left to be told when even this cannot be written.
    for line in error.lines() {
        let _lost = writeln!(io::stderr(), "rouse: {line}");
    }
    ExitCode::from(code)
}

pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not a pair: expected KEY=VALUE")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_command_line_is_told_in_one_line() {
        for (words, told) in [
            (
                "local",
                "the following required arguments were not provided: --file <FILE>...; see --help",
            ),
            (
                "local -f a --prt 1",
                "unexpected argument '--prt' found; tip: a similar argument exists: '--port'; see --help",
            ),
            (
                "local -f a --set b",
                "invalid value 'b' for '--set <KEY=VALUE>': \"b\" is not a pair: expected KEY=VALUE; see --help",
            ),
        ] {
            let words = std::iter::once("rouse").chain(words.split(' '));
            let error = Args::try_parse_from(words).unwrap_err();
            assert_eq!(one_line(&error.render().to_string()), told);
        }
    }
}
