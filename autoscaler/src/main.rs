//! `rouse-autoscaler`: reads the command line, runs the library, maps outcomes to exit codes.

use std::{process::ExitCode, sync::Arc};

use autoscaler::{
    Controller, Holds, admin, alone,
    args::{Args, UrlScaler},
};
use autoscaler_core::TargetSpec;
use clap::Parser;
use dashmap::DashMap;
use shared::{
    http::serve::{self, Server, bind},
    metrics,
    shutdown::Signals,
    telemetry,
};
use tokio::sync::watch;

fn main() -> ExitCode {
    // A bad flag ends here, with status 2, before anything else exists.
    let args = Args::parse();
    let spec = match args.spec() {
        Ok(spec) => spec,
        Err(lines) => return fail(2, &lines),
    };
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
        Err(error) => return fail(1, &error.to_string()),
    };
    match runtime.block_on(run(args, spec)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(2, &error),
    }
}

async fn run(args: Args, spec: TargetSpec) -> Result<(), String> {
    // Before anything is started: a signal during the start ends the program with its own status.
    let mut signals = Signals::caught().map_err(|error| error.to_string())?;
    tokio::select! {
        _signal = signals.next() => Ok(()),
        done = serve(&args, &spec) => done,
    }
}

/// Scales the one workload, for ever.
async fn serve(args: &Args, spec: &TargetSpec) -> Result<(), String> {
    let metrics = metrics::install().ok();
    if let Some(handle) = metrics.clone() {
        tokio::spawn(metrics::upkeep(handle));
    }
    let controllers = Arc::new(DashMap::new());
    let port = admin::port(Arc::clone(&controllers), metrics);
    let _admin = args
        .admin_listen
        .map(|address| {
            bind(address)
                .and_then(|listener| Server::spawn(listener, serve::Config::default(), port))
                .map_err(|error| format!("cannot listen on {address} (decisions): {error}"))
        })
        .transpose()?;
    let holds = Holds::default();
    let (_activators, rx) = watch::channel(args.activator.clone());
    tokio::spawn(holds.clone().watch(rx));
    let (target, rx) = watch::channel(Arc::new(alone::observe(args, spec, None).await));
    let scaler = Arc::new(UrlScaler(args.scale_url.clone()));
    controllers.insert(
        args.target.clone(),
        Controller::spawn(args.target.clone(), rx, holds, scaler),
    );
    alone::watch_target(args, spec, target).await;
    Ok(())
}

#[allow(clippy::print_stderr, reason = "the program's last words")]
fn fail(code: u8, error: &str) -> ExitCode {
    eprintln!("rouse-autoscaler: {error}");
    ExitCode::from(code)
}
