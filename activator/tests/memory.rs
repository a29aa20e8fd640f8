//! What a workload that sleeps costs an activator: bytes that stay allocated, which are the same in every run, unlike what an
//! operating system says of a process. A binary of its own, because the allocator that counts is the whole program's.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use activator::{
    Activator, BoxFuture, Config, Endpoints, Scale, WakeError, WakeOutcome, WorkloadConfig,
};
use shared::{TargetId, http::serve::bind};
use tokio::{sync::watch, time::sleep};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const MANY: usize = 256;
/// A sleeping workload of an activator, with one request port and without what is watched of it on a cluster.
const MOST: usize = 4 * 1024;

/// Nobody asks it.
#[derive(Debug)]
struct Never;

impl Scale for Never {
    fn wake(&self, _: &TargetId, _: u32) -> BoxFuture<'_, Result<WakeOutcome, WakeError>> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_workload_that_sleeps_takes_little_memory() {
    let _counts = dhat::Profiler::builder().testing().build();
    let metrics = shared::metrics::install().unwrap();
    let activator = Activator::start(Config::default(), Arc::new(Never), Some(metrics)).unwrap();
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
}
