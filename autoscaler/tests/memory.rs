//! What a workload that sleeps costs an autoscaler: bytes that stay allocated, which are the same in every run, unlike what an
//! operating system says of a process. A binary of its own, because the allocator that counts is the whole program's.

use std::{sync::Arc, time::Duration};

use autoscaler::{BoxFuture, Controller, Holds, Scaler, Target};
use autoscaler_core::{ClusterConfig, Learned, annotations};
use shared::TargetId;
use tokio::{sync::watch, time::sleep};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const MANY: usize = 256;
/// A sleeping workload of an autoscaler, without what is watched of it on a cluster.
const MOST: usize = 3 * 1024;

/// Nobody asks it.
#[derive(Debug)]
struct Never;

impl Scaler for Never {
    fn scale(&self, _: &TargetId, _: u32, _: u32) -> BoxFuture<'_, Result<bool, String>> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn a_workload_that_sleeps_takes_little_memory() {
    let _counts = dhat::Profiler::builder().testing().build();
    let _metrics = shared::metrics::install().unwrap();
    let spec = annotations::resolve(&annotations::Annotations::new(), &ClusterConfig::default());
    let spec = Arc::new(spec);
    let mut kept = Vec::with_capacity(MANY + 1);
    let holds = Holds::default();
    let scaler: Arc<dyn Scaler> = Arc::new(Never);
    let mut add = |name: String| {
        let target = Target {
            spec: Arc::clone(&spec),
            replicas: 0,
            pods: Vec::new(),
            reachable: true,
        };
        let (sender, receiver) = watch::channel(Arc::new(target));
        let id = TargetId::new("models", &name).unwrap();
        let controller = Controller::spawn(
            id,
            receiver,
            holds.clone(),
            Arc::clone(&scaler),
            Learned::default(),
        );
        kept.push((sender, controller));
    };
    // The first one takes what is needed for any.
    add("first".to_owned());
    sleep(Duration::from_secs(5)).await;
    let before = dhat::HeapStats::get().curr_bytes;
    for n in 0..MANY {
        add(format!("iris-classifier-{n}"));
    }
    sleep(Duration::from_mins(2)).await;
    let each = (dhat::HeapStats::get().curr_bytes - before) / MANY;
    println!("{each} bytes for each workload");
    assert!(each <= MOST, "{each} bytes for each workload");
}
