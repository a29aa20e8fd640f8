//! `rouse-activator`: reads the command line, runs the library, maps outcomes to exit codes.

use std::{process::ExitCode, sync::Arc, time::Duration};

use ::kubernetes::{
    client::{self, ConnectError},
    leaving, names,
};
use activator::{
    Activator, Config, Endpoints, Lookups, StartError,
    args::{Args, UrlScale},
    kubernetes,
};
use clap::Parser;
use flags::CannotRecord;
use shared::{
    files,
    http::tls::TlsError,
    metrics::{self, Exporter},
    runtime,
    shutdown::Signals,
    telemetry,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

/// What was handed out in the last moment of the grace gets this long to be answered.
const LAST_ANSWERS: Duration = Duration::from_secs(30);
/// How long the last lines of the request log may take.
const LAST_LINES: Duration = Duration::from_secs(1);
/// How long reviews that have begun may take when the program ends.
const LAST_REVIEWS: Duration = Duration::from_secs(5);
/// If Rouse is being deleted, what is led here stays so until workloads are given back, but not for longer than this: the
/// autoscalers take less time, and the grace period of the Pod more.
const GIVE_BACK_LIMIT: Duration = Duration::from_secs(50);

/// musl's own allocator takes more CPU than everything else that the program does for a request (`loadtests/runs`).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
    files::raise_limit(); // each connection is a file, on both sides
    let runtime = match runtime::build(args.worker_threads.into()) {
        Ok(runtime) => runtime,
        Err(error) => return fail(1, &error),
    };
    match runtime.block_on(serve(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(2, &error),
    }
}

/// Why the program ended other than by being stopped.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Cluster(#[from] ConnectError),
    #[error("cannot serve the admission webhook: {0}")]
    Webhook(std::io::Error),
    #[error(transparent)]
    Record(#[from] CannotRecord),
}

async fn serve(args: Args) -> Result<(), Ended> {
    let metrics = metrics::install().ok();
    if let Some(handle) = metrics.clone() {
        tokio::spawn(metrics::upkeep(handle));
    }
    let recorder = args.recording.start(
        "rouse-activator",
        metrics::ACTIVATOR_LOG_DROPPED,
        metrics::ACTIVATOR_SPANS_DROPPED,
    )?;
    let config = Config {
        recorder: recorder.clone(),
        ..args.config()?
    };
    let ended = if args.kubernetes {
        on_cluster(args, config, metrics).await
    } else {
        alone(args, config, metrics).await
    };
    recorder.flush(LAST_LINES).await;
    ended
}

async fn alone(args: Args, config: Config, metrics: Option<Exporter>) -> Result<(), Ended> {
    // Before anybody can be served: from then on there is something to finish.
    let signals = Signals::caught();
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
    let add = |activator: &Activator| {
        activator
            .add(args.workload(), listeners, endpoints)
            .map(drop)
    };
    tokio::select! {
        done = activator::run(config, scale, metrics, add, stop, args.grace()) => Ok(done?),
        () = poll_scale(&args, tx) => Ok(()),
    }
}

async fn on_cluster(args: Args, config: Config, metrics: Option<Exporter>) -> Result<(), Ended> {
    let signals = Signals::caught();
    let access = client::config().await?;
    // Each wake has a connection of its own, and none of them is what large lists come over.
    let wakes: Result<Vec<_>, _> = (0..kubernetes::LANES)
        .map(|_| client::connect(&access))
        .collect();
    let watches = client::connect(&access)?;
    let (events, queue) = kubernetes::events();
    let scale = Arc::new(kubernetes::KubeScale::new(wakes?, events.clone()));
    let activator = Activator::start(config, Arc::clone(&scale) as _, metrics)?;
    activator.set_ready(false);
    let (nudges, nudging) = kubernetes::nudges();
    // Questions that requests wait for share no connection with large lists.
    let sources = kubernetes::PodSources::new(client::connect(&access)?);
    let settings = args.cluster(Lookups::new(Arc::new(sources)));
    let caches = Arc::new(kubernetes::Caches::watch(&watches, &settings.namespace));
    let (parting, known) = (watches.clone(), Arc::clone(&caches));
    tokio::spawn(queue.write(watches.clone(), Arc::clone(&caches), args.instance()));
    tokio::spawn(nudging.write(watches.clone()));
    tokio::spawn(scale.keep_warm());
    let (stop, stopped) = watch::channel(false);
    let mut told = stopped.clone();
    let certificate = Arc::new(kubernetes::Current::default());
    let (current, seen) = (Arc::clone(&certificate), Arc::clone(&caches));
    let admission = kubernetes::serve(args.admission(), current, watches, seen, async move {
        let _gone = told.wait_for(|stop| *stop).await;
    });
    let mut admission = tokio::spawn(admission);
    let leave = async {
        // A failure to install the handlers ends the program rather than leave it without an end.
        if let Ok(mut signals) = signals {
            signals.next().await;
        }
        tracing::info!(held = activator.held(), "Leaving");
        let namespace = &settings.namespace;
        let deleted = leaving::is_asked(&parting, namespace, names::ACTIVATOR_ACCOUNT).await;
        if deleted {
            // Nobody comes in our place. Services lead here until they are given back, and then nowhere near.
            tracing::warn!("Rouse is being deleted: stays until workloads are given back");
            let _late = timeout(GIVE_BACK_LIMIT, known.given_back()).await;
            activator.leave();
        } else {
            activator.leave();
            // Others learn of it only by and by: what comes until then is held and handed out as ever.
            sleep(args.leave_delay()).await;
        }
        // The deletion of a namespace does not wait as long as an upgrade may.
        let grace = args.grace();
        let grace = if deleted {
            grace.min(LAST_ANSWERS)
        } else {
            grace
        };
        let end = Instant::now() + grace;
        activator.hand_out(grace).await;
        end.saturating_duration_since(Instant::now())
    };
    let certified = kubernetes::certified(&certificate);
    // Until all is handed out, pods are still learned of.
    let left = tokio::select! {
        () = kubernetes::follow(&activator, &caches, &settings, (events, nudges), certified) => Duration::ZERO,
        ended = &mut admission => {
            if let Ok(Err(error)) = ended {
                return Err(Ended::Webhook(error));
            }
            args.grace()
        }
        left = leave => left,
    };
    stop.send_replace(true);
    activator
        .stop_patiently(left, LAST_ANSWERS.min(args.grace()))
        .await;
    let _ended = timeout(LAST_REVIEWS, admission).await;
    Ok(())
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
    let said = error.to_string();
    let cause = error
        .source()
        .map(|source| format!(": {source}"))
        .filter(|cause| !said.contains(cause))
        .unwrap_or_default();
    eprintln!("rouse-activator: {error}{cause}");
    ExitCode::from(code)
}
