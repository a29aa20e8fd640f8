//! A model that takes long to start, and a crowd that wakes it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering::Relaxed},
    },
    time::Duration,
};

use integration::{ledger::Told, load};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    Space,
    space::{LONG, Model},
};

/// How long the model takes before it opens its port.
const START: Duration = Duration::from_secs(20);
/// Requests per second. Each takes 0.2 s, and a pod works on four at once: one pod is enough.
const RATE: f64 = 10.0;

/// A crowd for longer than a start: the most replicas that were there meanwhile, and what became of each request.
async fn crowd(space: &Space, url: &str) -> (i32, Vec<Told>) {
    let url = url.to_owned();
    let length = START + Duration::from_secs(15);
    let load = tokio::spawn(async move { load::run(&url, 400, load::open(RATE, length)).await });
    let most = Arc::new(AtomicI32::new(0));
    let began = Instant::now();
    while began.elapsed() < length {
        most.fetch_max(space.replicas("m").await.0, Relaxed);
        sleep(Duration::from_millis(500)).await;
    }
    let (report, told) = timeout(LONG, load).await.unwrap().unwrap();
    println!(
        "{} requests, at most {} replicas",
        report.summary.requests,
        most.load(Relaxed)
    );
    (most.load(Relaxed), told)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_at_a_slow_model_becomes_a_few_pods_and_every_request_is_answered() {
    let space = Space::new("starting").await;
    let model = Model::new("m")
        .annotate("autoscaling.knative.dev/target", "4")
        .annotate("rouse.dev/container-concurrency", "4")
        .annotate("rouse.dev/backlog-clear-time", "10s")
        .flags(&["--service-time=200ms", "--start-delay=20s"]);
    let address = space.deploy(&model).await;
    let url = format!("http://{address}/work");
    // Nothing is known of it: two hundred requests wait in the end, of which Knative would make seventy pods.
    let (first, mut told) = crowd(&space, &url).await;
    assert!(first <= 9, "{first} replicas");
    space.settled("m", 0, LONG * 3).await;
    // Now its starts and its requests are known: one pod is the steady need, and two or three clear the rest in 10 s.
    let (second, others) = crowd(&space, &url).await;
    assert!((1..=5).contains(&second), "{second} replicas");
    assert!(second <= first, "{second} replicas after {first}");
    space.settled("m", 0, LONG * 3).await;
    told.extend(others);
    space.ledger("m", &told).assert_exact();
    space.end().await;
}
