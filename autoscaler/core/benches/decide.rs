//! What deciding costs: `cargo bench -p autoscaler-core`.
//!
//! A tick is what an autoscaler does every two seconds for all of its workloads: two samples and one decision for each.
//! Times are medians; the machine's mood is in them, so they are for reading. What is compared in CI are instructions:
//! with `--count WHAT` this program does one thing many times and is to be run under callgrind, see `cargo xtask cost`.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use autoscaler_core::{
    ClusterConfig, Decider, Moment, Observed, Replicas, Sample, TICK, TargetSpec, annotations,
};

/// When every workload begins.
const START: Moment = Moment::from_secs(1_000_000);
/// Ticks until windows are full.
const WARM_UP: u32 = 40;
/// Ticks that are measured.
const TICKS: usize = 25;
/// How often the one thing is done that is counted.
const COUNTED: u32 = 1000;

/// Workloads, of which the first `active` have load.
struct Fleet {
    deciders: Vec<Decider>,
    active: usize,
    now: Moment,
}

impl Fleet {
    fn new(workloads: usize, active: usize) -> Self {
        let spec: Arc<TargetSpec> = Arc::new(annotations::resolve(
            &annotations::Annotations::new(),
            &ClusterConfig::default(),
        ));
        let one = |number: usize| {
            let ready = Replicas(if number < active { 2 } else { 0 });
            Decider::new(Arc::clone(&spec), START, ready)
        };
        let mut fleet = Self {
            deciders: (0..workloads).map(one).collect(),
            active,
            now: START,
        };
        for _ in 0..WARM_UP {
            fleet.tick();
        }
        fleet
    }

    fn tick(&mut self) {
        let seconds = [self.now, self.now + Duration::from_secs(1)];
        self.now = self.now + TICK;
        for (number, decider) in self.deciders.iter_mut().enumerate() {
            let busy = number < self.active;
            let load = if busy { 130.0 } else { 0.0 };
            let sample = Sample {
                concurrency: load,
                requests: load,
                ended: load,
                ..Sample::default()
            };
            let pods = Replicas(if busy { 2 } else { 0 });
            let seen = Observed {
                ready: pods,
                current: pods,
                open: Some(0),
                reachable: true,
                ..Observed::default()
            };
            for at in seconds {
                decider.record(at, sample);
            }
            black_box(decider.decide(self.now, &seen));
        }
    }
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["--count", "idle"] => count(0),
        ["--count", "active"] => count(1),
        _ => times(),
    }
}

/// One workload's tick, many times.
fn count(active: usize) {
    let mut fleet = Fleet::new(1, active);
    for _ in 0..COUNTED {
        counted(&mut fleet);
    }
}

/// What callgrind counts.
#[inline(never)]
fn counted(fleet: &mut Fleet) {
    fleet.tick();
}

#[expect(clippy::print_stdout, reason = "a bench prints")]
fn times() {
    println!(
        "{:>9} {:>8} {:>12} {:>14}",
        "workloads", "active", "ms per tick", "ns per active"
    );
    for (workloads, percent) in [
        (1_000, 10),
        (10_000, 10),
        (100_000, 10),
        (10_000, 0),
        (10_000, 20),
        (10_000, 40),
        (10_000, 80),
    ] {
        let active = workloads * percent / 100;
        let tick = median(&mut Fleet::new(workloads, active));
        let each = tick.as_nanos() / u128::try_from(active.max(1)).unwrap_or(1);
        println!(
            "{workloads:>9} {percent:>6} % {:>12.3} {each:>14}",
            tick.as_secs_f64() * 1e3
        );
    }
}

fn median(fleet: &mut Fleet) -> Duration {
    let mut ticks: Vec<Duration> = (0..TICKS)
        .map(|_| {
            let begun = Instant::now();
            fleet.tick();
            begun.elapsed()
        })
        .collect();
    ticks.sort_unstable();
    ticks[TICKS / 2]
}
