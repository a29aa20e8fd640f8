//! `rouse-queue-proxy`: reads the command line, runs the library, maps outcomes to exit codes.

use std::{process::ExitCode, time::Duration};

use clap::Parser;
use queue_proxy::args::Args;
use shared::{files, metrics, runtime, shutdown, telemetry};

/// musl's own allocator takes more CPU than everything else that the program does for a request (`loadtests/runs`).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long the last lines of the request log may take.
const LAST_LINES: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    // A bad flag ends here, with status 2, before anything else exists.
    let args = Args::parse();
    let mut config = match args.config() {
        Ok(config) => config,
        Err(error) => return fail(2, &error),
    };
    telemetry::init(
        if args.log_json {
            telemetry::Format::Json
        } else {
            telemetry::Format::Text
        },
        "info",
    );
    files::raise_limit(); // each connection is a file, on both sides
    let runtime = match runtime::build(args.worker_threads.into()) {
        Ok(runtime) => runtime,
        Err(error) => return fail(1, &error),
    };
    runtime.block_on(async {
        let metrics = metrics::install().ok();
        if let Some(handle) = metrics.clone() {
            tokio::spawn(metrics::upkeep(handle));
        }
        let recorder = args.recording.start(
            "rouse-queue-proxy",
            metrics::PROXY_LOG_DROPPED,
            metrics::PROXY_SPANS_DROPPED,
        );
        let recorder = match recorder {
            Ok(recorder) => recorder,
            // Threads are the system's to give, the rest was asked for.
            Err(error) => return fail(if error.is_usage() { 2 } else { 1 }, &error),
        };
        config.recorder = recorder.clone();
        // Caught before the first request can come in.
        let mut signals = match shutdown::Signals::caught() {
            Ok(signals) => signals,
            Err(error) => return fail(1, &error),
        };
        // A terminal's Ctrl-C has nobody to tell that the pod is going; a SIGTERM has.
        let stop = async { signals.next().await == "SIGTERM" };
        let ended = queue_proxy::run(config, metrics, stop).await;
        recorder.flush(LAST_LINES).await;
        match ended {
            Ok(0) => ExitCode::SUCCESS,
            Ok(cut) => {
                tracing::warn!(cut, "Requests were cut at the end of the grace period");
                ExitCode::SUCCESS
            }
            Err(error) => fail(2, &error),
        }
    })
}

#[allow(clippy::print_stderr, reason = "the program's last words")]
fn fail(code: u8, error: &dyn std::error::Error) -> ExitCode {
    let cause = error
        .source()
        .map(|source| format!(": {source}"))
        .unwrap_or_default();
    eprintln!("rouse-queue-proxy: {error}{cause}");
    ExitCode::from(code)
}
