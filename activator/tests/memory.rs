//! What a workload that sleeps costs an activator, and that one that goes leaves nothing: bytes that stay allocated, which are the
//! same in every run, unlike what an operating system says of a process. A binary of its own with one test, because the allocator
//! that counts is the whole program's.

#![cfg(test)]

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use activator::{
    Activator, BoxFuture, Config, Endpoints, Scale, WakeError, WakeOutcome, WorkloadConfig,
};
use shared::{
    TargetId,
    http::serve::bind,
    metrics::{Exporter, KEPT},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::watch,
    time::sleep,
};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const MANY: usize = 256;
/// A sleeping workload of an activator, with one request port and without what is watched of it on a cluster.
/// Two hundred bytes of it are its shares of what all have in common, and its name among those whose series are kept.
const MOST: usize = 4 * 1024 + 256;
/// Workloads that come and go, and what all of them may leave: no more than the tables of some libraries grow.
const GONE: usize = 1_000;
const LEFT: usize = 64 * 1024;

/// Nobody asks it.
#[derive(Debug)]
struct Never;

impl Scale for Never {
    fn wake(&self, _: &TargetId, _: u32) -> BoxFuture<'_, Result<WakeOutcome, WakeError>> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_workload_that_sleeps_takes_little_memory_and_one_that_goes_leaves_nothing() {
    let _counts = dhat::Profiler::builder().testing().build();
    let metrics = shared::metrics::install().unwrap();
    let activator =
        Activator::start(Config::default(), Arc::new(Never), Some(metrics.clone())).unwrap();
    let mut kept = Vec::with_capacity(MANY + 1);
    let mut add = |name: String| {
        let (sender, endpoints) = watch::channel(Arc::new(Endpoints::default()));
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let target = TargetId::new("models", &name).unwrap();
        let config = WorkloadConfig::new(target);
        activator.add(config, vec![listener], endpoints).unwrap();
        kept.push(sender);
    };
    // The first one takes what is needed for any.
    add("first".to_owned());
    sleep(Duration::from_millis(50)).await;
    let before = dhat::HeapStats::get().curr_bytes;
    for n in 0..MANY {
        add(format!("iris-classifier-{n}"));
    }
    sleep(Duration::from_millis(50)).await;
    let each = (dhat::HeapStats::get().curr_bytes - before) / MANY;
    println!("{each} bytes for each workload");
    assert!(each <= MOST, "{each} bytes for each workload");

    // The first round makes all that is made once.
    come_and_go(&activator, &metrics).await;
    let before = dhat::HeapStats::get().curr_bytes;
    come_and_go(&activator, &metrics).await;
    let left = dhat::HeapStats::get().curr_bytes.saturating_sub(before);
    println!("{left} bytes are left of {GONE} workloads");
    assert!(left <= LEFT, "{left} bytes are left of {GONE} workloads");
}

/// Adds workloads that each have something to tell, and removes them.
async fn come_and_go(activator: &Activator, metrics: &Exporter) {
    let before = metrics.series();
    for n in 0..GONE {
        let (_told, endpoints) = watch::channel(Arc::new(Endpoints::default()));
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let target = TargetId::new("passing", &format!("n{n}")).unwrap();
        let config = WorkloadConfig::new(target.clone());
        activator.add(config, vec![listener], endpoints).unwrap();
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"not HTTP\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        activator.remove(&target);
    }
    metrics.forget(Instant::now());
    assert_eq!(metrics.series(), before + GONE, "they are told for a while");
    assert_eq!(metrics.render().matches("target=\"passing/").count(), GONE);
    let long_after = || Instant::now() + 2 * KEPT;
    let deadline = Instant::now() + Duration::from_mins(1);
    while metrics.series() > before {
        assert!(Instant::now() < deadline, "{} series", metrics.series());
        sleep(Duration::from_millis(10)).await;
        metrics.forget(long_after());
    }
    assert_eq!(metrics.render().matches("target=\"passing/").count(), 0);
    sleep(Duration::from_millis(50)).await;
}
