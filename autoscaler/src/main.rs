//! `rouse-autoscaler`: reads the command line, runs the library, maps outcomes to exit codes.

use std::{
    process::ExitCode,
    sync::{Arc, atomic::AtomicBool},
};

use autoscaler::{
    Controller, Holds, admin, alone,
    args::{Args, UrlScaler},
    kubernetes,
};
use autoscaler_core::{Learned, TargetSpec};
use clap::Parser;
use dashmap::DashMap;
use shared::metrics::Exporter;
use shared::{
    http::serve::{self, Handler, Server, bind},
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
        "info,kube_client=off", // what it logs as an error is told again by whoever asked
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
    if args.kubernetes {
        return on_cluster(&args, signals).await;
    }
    tokio::select! {
        _signal = signals.next() => Ok(()),
        done = serve(&args, &spec) => done,
    }
}

/// Looks after the cluster's workloads until a signal, and lets another lead then.
async fn on_cluster(args: &Args, mut signals: Signals) -> Result<(), String> {
    let controllers = Arc::new(DashMap::new());
    let ready = Arc::new(AtomicBool::new(false));
    let port = admin::port_when(
        Arc::clone(&controllers),
        installed_metrics(),
        Arc::clone(&ready),
    );
    let _admin = listen(args, port)?;
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        signals.next().await;
        stop.send_replace(true);
    });
    let config = kubernetes::Config {
        namespace: args.namespace.clone(),
        pod: args.pod_name.clone(),
    };
    kubernetes::run(config, controllers, ready, stopped).await
}

/// Scales the one workload, for ever.
async fn serve(args: &Args, spec: &TargetSpec) -> Result<(), String> {
    let controllers = Arc::new(DashMap::new());
    let port = admin::port(Arc::clone(&controllers), installed_metrics());
    let _admin = listen(args, port)?;
    let holds = Holds::default();
    let (_activators, rx) = watch::channel(args.activator.clone());
    tokio::spawn(holds.clone().watch(rx));
    let (target, rx) = watch::channel(Arc::new(alone::observe(args, spec, None).await));
    let scaler = Arc::new(UrlScaler(args.scale_url.clone()));
    controllers.insert(
        args.target.clone(),
        Controller::spawn(args.target.clone(), rx, holds, scaler, Learned::default()),
    );
    alone::watch_target(args, spec, target).await;
    Ok(())
}

fn installed_metrics() -> Option<Exporter> {
    let handle = metrics::install().ok()?;
    tokio::spawn(metrics::upkeep(handle.clone()));
    Some(handle)
}

fn listen(args: &Args, port: impl Handler) -> Result<Option<Server>, String> {
    args.admin_listen
        .map(|address| {
            bind(address)
                .and_then(|listener| Server::spawn(listener, serve::Config::default(), port))
                .map_err(|error| format!("cannot listen on {address} (decisions): {error}"))
        })
        .transpose()
}

#[allow(clippy::print_stderr, reason = "the program's last words")]
fn fail(code: u8, error: &str) -> ExitCode {
    eprintln!("rouse-autoscaler: {error}");
    ExitCode::from(code)
}
