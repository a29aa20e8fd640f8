//! What a decider takes in memory: bytes that stay allocated, the same in every run. A binary of its own, because the
//! allocator that counts is the whole program's.

use std::sync::Arc;
use std::time::Duration;

use autoscaler_core::{
    Decider, Learned, Moment, Observed, Replicas, Sample, StartClass, TICK, TargetSpec,
};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const MANY: usize = 64;
/// The most that one without load may take.
const IDLE: usize = 2 * 1024;
/// The most that one with load may take, in default windows.
const ACTIVE: usize = 8 * 1024;

/// Bytes of a decider that has learned all it can and was told this load for five minutes.
fn each(spec: &Arc<TargetSpec>, load: f64) -> usize {
    let before = dhat::HeapStats::get().curr_bytes;
    let pods = Replicas(if load > 0.0 { 2 } else { 0 });
    let deciders: Vec<Decider> = (0..MANY)
        .map(|_| {
            let start = Moment::from_secs(1_000_000);
            let mut decider = Decider::new(Arc::clone(spec), start, pods);
            decider.recall(learned());
            for tick in 0..150 {
                let now = start + TICK * tick;
                for second in [0, 1] {
                    let sample = Sample {
                        concurrency: load,
                        requests: load,
                        waiting: load / 2.0,
                        ended: load,
                    };
                    decider.record(now + Duration::from_secs(second), sample);
                }
                let seen = Observed {
                    ready: pods,
                    current: pods,
                    open: Some(0),
                    reachable: true,
                    ..Observed::default()
                };
                decider.decide(now + TICK, &seen);
            }
            decider
        })
        .collect();
    let each = (dhat::HeapStats::get().curr_bytes - before) / MANY;
    drop(deciders);
    each
}

/// As much as is ever remembered.
fn learned() -> Learned {
    let mut learned = Learned::default();
    for number in 0..1000u32 {
        let class = StartClass {
            template: format!("template-{}", number % 7).into(),
            image_present: number % 2 == 0,
        };
        learned.start(&class, Duration::from_secs(number.into()));
    }
    learned
}

#[test]
fn a_decider_is_small_and_without_load_smaller_still() {
    let _counts = dhat::Profiler::builder().testing().build();
    let spec = Arc::<TargetSpec>::default();
    let delayed = Arc::new(TargetSpec {
        scale_down_delay: Duration::from_hours(1),
        ..TargetSpec::default()
    });
    for (name, bytes, most) in [
        ("idle", each(&spec, 0.0), IDLE),
        ("active", each(&spec, 130.0), ACTIVE),
        ("active with a delay", each(&delayed, 130.0), ACTIVE),
    ] {
        println!("{name}: {bytes} bytes");
        assert!(bytes <= most, "{name}: {bytes} bytes");
    }
}
