//! `rouse-activator`: reads the command line, runs the library, maps outcomes to exit codes.

use std::{process::ExitCode, sync::Arc, time::Duration};

use activator::{
    Endpoints, StartError,
    args::{Args, UrlScale},
};
use clap::Parser;
use shared::{metrics, shutdown::Signals, telemetry};
use tokio::{sync::watch, time::sleep};

fn main() -> ExitCode {
    // A bad flag ends here, with status 2, before anything else exists.
    let args = Args::parse();
    telemetry::init(
        if args.log_json {
            telemetry::Format::Json
        } else {
            telemetry::Format::Text
        },
        "info",
    );
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(1, &error),
    };
    match runtime.block_on(serve(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(2, &error),
    }
}

async fn serve(args: Args) -> Result<(), StartError> {
    // Before anybody can be served: from then on there is something to finish.
    let signals = Signals::caught();
    let metrics = metrics::install().ok();
    if let Some(handle) = metrics.clone() {
        tokio::spawn(metrics::upkeep(handle));
    }
    // Without a scale the pods are simply there.
    let (tx, endpoints) = watch::channel(args.endpoints(u32::from(args.scale_url.is_none())));
    let listeners = args
        .listen
        .iter()
        .map(|address| activator::listen("requests", *address))
        .collect::<Result<Vec<_>, _>>()?;
    let scale = Arc::new(UrlScale(args.scale_url.clone()));
    let stop = async {
        // A failure to install the handlers ends the program rather than leave it without an end.
        if let Ok(mut signals) = signals {
            signals.next().await;
        }
    };
    let add = |activator: &activator::Activator| {
        activator
            .add(args.workload(), listeners, endpoints)
            .map(drop)
    };
    tokio::select! {
        done = activator::run(args.config(), scale, metrics, add, stop, args.grace()) => done,
        () = poll_scale(&args, tx) => Ok(()),
    }
}

/// Reads the scale every second, for ever. What cannot be read stays as it was.
async fn poll_scale(args: &Args, tx: watch::Sender<Arc<Endpoints>>) {
    let Some(url) = &args.scale_url else {
        return std::future::pending().await;
    };
    loop {
        match url.get().await {
            Ok(replicas) => {
                let seen = args.endpoints(replicas);
                tx.send_if_modified(|current| {
                    *current != seen && {
                        *current = seen;
                        true
                    }
                });
            }
            Err(error) => tracing::warn!(%error, "Cannot read the scale"),
        }
        sleep(Duration::from_secs(1)).await;
    }
}

#[allow(clippy::print_stderr, reason = "the program's last words")]
fn fail(code: u8, error: &dyn std::error::Error) -> ExitCode {
    let cause = error
        .source()
        .map(|source| format!(": {source}"))
        .unwrap_or_default();
    eprintln!("rouse-activator: {error}{cause}");
    ExitCode::from(code)
}
