//! The live status: what there is of every workload, four times a second.

use std::{collections::HashMap, time::Duration};

use autoscaler_core::Mode;
use shared::metrics;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{
    logs::Output,
    run::LocalWorkload,
    status::StatusRow,
    supervisor::{ReplicaView, Snapshot},
};

/// Keeps the gauges that on a cluster each queue-proxy has for itself: here the sum over a workload's replicas.
#[allow(
    clippy::cast_precision_loss,
    reason = "counts of requests stay far below 2^52"
)]
pub(super) async fn publish_gauges(workloads: Vec<LocalWorkload>) {
    let handles: Vec<_> = workloads
        .iter()
        .map(|workload| {
            let target = workload.id.to_string();
            (
                metrics::PROXY_IN_FLIGHT.gauge(&[&target]),
                metrics::PROXY_WAITING.gauge(&[&target]),
            )
        })
        .collect();
    let mut tick = interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tick.tick().await;
        for (workload, (in_flight, waiting)) in workloads.iter().zip(&handles) {
            let snapshot = workload.snapshot.borrow().clone();
            let sums = snapshot
                .replicas
                .iter()
                .map(|replica| replica.proxy.stats().gauges());
            let (at_model, queued) = sums.fold((0, 0), |(a, b), (x, y)| (a + x, b + y));
            in_flight.set(at_model as f64);
            waiting.set(queued as f64);
        }
    }
}

/// Shows the status of `workloads` for ever.
pub(super) async fn show_status(workloads: Vec<LocalWorkload>, output: Output) {
    let mut tick = interval(Duration::from_millis(250));
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut rates: Vec<Rate> = workloads.iter().map(|_| Rate::default()).collect();
    loop {
        tick.tick().await;
        let now = Instant::now();
        let rows = workloads
            .iter()
            .zip(&mut rates)
            .map(|(workload, rate)| row(workload, rate, now))
            .collect();
        output.status(rows);
    }
}

fn row(workload: &LocalWorkload, rate: &mut Rate, now: Instant) -> StatusRow {
    let snapshot = workload.snapshot.borrow().clone();
    let held = workload.activator.held() as u64;
    let up = |which: fn(&&ReplicaView) -> bool| {
        let count = snapshot
            .replicas
            .iter()
            .filter(|replica| !replica.terminating)
            .filter(which)
            .count();
        u32::try_from(count).unwrap_or(u32::MAX)
    };
    let ready = up(|replica| replica.ready);
    let busiest = snapshot
        .replicas
        .iter()
        .max_by_key(|replica| replica.proxy.stats().totals().0);
    StatusRow {
        workload: workload.id.name().to_owned(),
        mode: mode(workload, &snapshot, ready, held).to_owned(),
        ready,
        starting: up(|replica| !replica.ready),
        wanted: snapshot.wanted,
        in_flight: snapshot
            .replicas
            .iter()
            .map(|replica| replica.proxy.open())
            .sum(),
        held,
        requests_per_second: rate.update(&snapshot, now),
        p50: busiest.and_then(|replica| replica.proxy.stats().median()),
    }
}

fn mode(workload: &LocalWorkload, snapshot: &Snapshot, ready: u32, held: u64) -> &'static str {
    let decision = workload.decisions.latest();
    match decision.map(|decision| decision.mode) {
        _ if snapshot.failed.is_some() && ready == 0 => "failed",
        _ if ready == 0 && (held > 0 || snapshot.wanted > 0) => "waking",
        _ if snapshot.wanted == 0 && snapshot.replicas.is_empty() => "zero",
        _ if snapshot.wanted == 0 => "draining",
        Some(Mode::Panic) => "panic",
        _ => "stable",
    }
}

/// Requests ended per second, over about the last second.
#[derive(Debug, Default)]
struct Rate {
    /// Requests ended by each replica when last looked at.
    ended: HashMap<std::sync::Arc<str>, u64>,
    /// (when, how many) of the last looks.
    recent: std::collections::VecDeque<(Instant, u64)>,
}

/// Looks that make up the rate: a second of them.
const LOOKS: usize = 4;

impl Rate {
    #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
    fn update(&mut self, snapshot: &Snapshot, now: Instant) -> f64 {
        let mut more = 0;
        let mut ended = HashMap::new();
        for replica in &snapshot.replicas {
            let total = replica.proxy.stats().totals().1;
            more += total
                - self
                    .ended
                    .get(&replica.uid)
                    .copied()
                    .unwrap_or(0)
                    .min(total);
            ended.insert(std::sync::Arc::clone(&replica.uid), total);
        }
        self.ended = ended;
        self.recent.push_back((now, more));
        while self.recent.len() > LOOKS + 1 {
            self.recent.pop_front();
        }
        let Some((first, _)) = self.recent.front() else {
            return 0.0;
        };
        let seconds = now.saturating_duration_since(*first).as_secs_f64();
        let sum: u64 = self.recent.iter().skip(1).map(|(_, n)| n).sum();
        if seconds > 0.0 {
            sum as f64 / seconds
        } else {
            0.0
        }
    }
}
