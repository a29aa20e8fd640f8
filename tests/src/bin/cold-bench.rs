//! `cold-bench`: many cold starts of the tiny model, one after the other, and whose the time was.
#![allow(clippy::print_stdout, reason = "it prints its result")]

use std::{env, net::SocketAddr, path::Path, time::Duration};

use clap::Parser;
use integration::{
    Programs, Running, Scene,
    client::{fetch, get},
    scene::LONG,
    wait,
};
use tokio::time::Instant;

/// Cold starts of tiny-model through local mode's library, as in `cargo run --release -p integration --bin cold-bench`.
///
/// The programs rouse and tiny-model of the same build must be beside it: cargo build --release -p rouse -p integration.
#[derive(Debug, Parser)]
#[command(name = "cold-bench", version)]
struct Args {
    /// Cold starts.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    starts: u32,

    /// Fail if the median of our share is above this, in milliseconds.
    #[arg(long, value_name = "MS")]
    at_most: Option<f64>,
}

/// A line of the result: its name and what of each start it is about.
type Row = (&'static str, fn(&Start) -> f64);

/// One cold start. Times are in milliseconds.
struct Start {
    /// Noticed to spawned.
    before: f64,
    /// Model ready to forwarded.
    after: f64,
    /// Both.
    ours: f64,
    /// Spawned to ready: the process, and how soon that is found out.
    model: f64,
    /// The whole request, as its client sees it.
    request: f64,
}

#[tokio::main]
async fn main() {
    let args = Args::parse();
    let this = env::current_exe().expect("the system knows what runs");
    let starts = measure(Programs::beside(Path::new(&this)), args.starts).await;
    println!(
        "{} cold starts of tiny-model, milliseconds:       p50      p90      p99      max",
        starts.len()
    );
    let rows: [Row; 5] = [
        ("noticed -> spawned", |start| start.before),
        ("model ready -> forwarded", |start| start.after),
        ("ours (both)", |start| start.ours),
        ("spawned -> model ready", |start| start.model),
        ("whole request, at the client", |start| start.request),
    ];
    for (name, value) in rows {
        let mut values: Vec<f64> = starts.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        let shown: Vec<_> = [50, 90, 99, 100]
            .iter()
            .map(|percent| format!("{:8.2}", quantile(&values, *percent)))
            .collect();
        println!("{name:<47} {}", shown.join(" "));
    }
    let mut ours: Vec<f64> = starts.iter().map(|start| start.ours).collect();
    ours.sort_by(f64::total_cmp);
    let median = quantile(&ours, 50);
    if let Some(most) = args.at_most {
        assert!(
            median <= most,
            "our median share is {median:.2} ms, more than {most} ms"
        );
    }
}

/// The value that so many percent do not exceed.
fn quantile(sorted: &[f64], percent: usize) -> f64 {
    sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1]
}

async fn measure(programs: Programs, count: u32) -> Vec<Start> {
    let scene = Scene::new(programs);
    let model = scene.model("m", &["--service-time", "0ms"]);
    let running = scene.run(&[model], &[]);
    let (id, address) = (running.workload("m").id.clone(), running.address("m"));
    let mut starts = Vec::new();
    while starts.len() < count as usize {
        starts.extend(start(&running, address).await);
        // The autoscaler remembers the requests and may want a replica again: then that one is taken away as well.
        wait::until("it is at zero", LONG, || {
            running.local.scale(&id, 1, 0);
            running.snapshot("m").wanted == 0 && running.snapshot("m").replicas.is_empty()
        })
        .await;
    }
    running.stop().await;
    starts
}

/// One request to a workload at zero. `None` if it was woken by something else meanwhile.
async fn start(running: &Running, address: SocketAddr) -> Option<Start> {
    let before = running.local.wakes().len();
    let sent = Instant::now();
    let answer = fetch(address, get("/work")).await;
    let request = sent.elapsed();
    let status = answer.expect("it is answered").status;
    assert_eq!(status, 200);
    let wakes = running.local.wakes();
    let wake = wakes
        .last()
        .filter(|_| wakes.len() != before || before == 256)?;
    let at = |name| {
        let found = wake.phases.iter().find(|(phase, _)| *phase == name);
        found.map(|(_, seconds)| seconds * 1e3)
    };
    let (spawned, ready) = (at("pod_created")?, at("model_ready")?);
    Some(Start {
        before: spawned,
        after: at("forwarded")? - ready,
        ours: wake.ours * 1e3,
        model: ready - spawned,
        request: milliseconds(request),
    })
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
