//! `rouse-autoscaler`: reads the command line, runs the library, maps outcomes to exit codes.

use std::{process::ExitCode, sync::Arc, time::Duration};

use autoscaler::{
    Controller, Holds, Pod, Target, admin,
    args::{Args, UrlScaler},
};
use autoscaler_core::TargetSpec;
use clap::Parser;
use dashmap::DashMap;
use shared::{
    http::{
        probe::Probe,
        serve::{self, Server, bind},
    },
    metrics, shutdown, telemetry,
};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

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
    let (target, rx) = watch::channel(Arc::new(observe(&args, &spec, None).await));
    let scaler = Arc::new(UrlScaler(args.scale_url.clone()));
    controllers.insert(
        args.target.clone(),
        Controller::spawn(args.target.clone(), rx, holds, scaler),
    );
    tokio::select! {
        signal = shutdown::signalled() => signal.map(drop).map_err(|error| error.to_string()),
        () = watch_target(&args, &spec, target) => Ok(()),
    }
}

/// Looks at the scale and the pods every second, for ever.
async fn watch_target(args: &Args, spec: &TargetSpec, target: watch::Sender<Arc<Target>>) {
    let mut tick = interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let last = target.borrow().replicas;
        let seen = observe(args, spec, Some(last)).await;
        target.send_if_modified(|current| {
            **current != seen && {
                *current = Arc::new(seen);
                true
            }
        });
    }
}

/// The workload now: the first of the given pods, as many as there are replicas. A pod is ready if its queue-proxy says
/// so; replicas that cannot be read stay at `last`.
async fn observe(args: &Args, spec: &TargetSpec, last: Option<u32>) -> Target {
    let given = u32::try_from(args.pod.len()).unwrap_or(u32::MAX);
    let replicas = match &args.scale_url {
        None => given,
        Some(url) => url.get().await.unwrap_or_else(|error| {
            tracing::warn!(%error, "Cannot read the scale");
            last.unwrap_or(given)
        }),
    };
    let ready = Probe::Http {
        path: "/readyz".to_owned(),
        headers: http::HeaderMap::new(),
    };
    let mut pods = Vec::new();
    for (uid, stats) in args.pod.iter().take(replicas as usize) {
        let ready = ready.ask(*stats, Duration::from_millis(500)).await.is_ok();
        pods.push(Pod {
            uid: uid.as_str().into(),
            stats: *stats,
            ready,
            starting: !ready,
        });
    }
    Target {
        spec: spec.clone(),
        replicas,
        pods,
        reachable: true,
    }
}

#[allow(clippy::print_stderr, reason = "the program's last words")]
fn fail(code: u8, error: &str) -> ExitCode {
    eprintln!("rouse-autoscaler: {error}");
    ExitCode::from(code)
}
