//! What the demo found, as a table.

use std::{fs, sync::Arc, time::Duration};

use activator::timeline::Wake;
use loadtests::{Report, report::Percentiles};
use tokio::{sync::watch, task::JoinHandle, time::Instant};

use super::load::{Way, Ways};
use crate::local::supervisor::Snapshot;

/// Everything that was measured.
#[derive(Debug)]
pub(super) struct Findings {
    pub(super) idle_memory: Option<u64>,
    pub(super) peak_memory: Option<u64>,
    pub(super) cold: Duration,
    pub(super) wake: Wake,
    pub(super) ways: Ways,
    pub(super) ramp: Vec<Report>,
    pub(super) steady: Report,
    pub(super) shares: Vec<(Arc<str>, f64)>,
    pub(super) to_zero: Duration,
    /// (seconds since the start, ready replicas), at each change.
    pub(super) replicas: Vec<(f64, usize)>,
}

impl Findings {
    fn reports(&self) -> impl Iterator<Item = &Report> {
        let Ways {
            direct,
            sidecar,
            rouse,
        } = &self.ways;
        let warm = [direct, sidecar, rouse]
            .into_iter()
            .flat_map(|way| &way.rounds);
        warm.chain(&self.ramp).chain(std::iter::once(&self.steady))
    }

    /// Requests that failed or did not end.
    pub(super) fn errors(&self) -> u64 {
        self.reports()
            .map(|report| report.summary.error_count + report.summary.unfinished)
            .sum()
    }

    /// The final table.
    pub(super) fn table(&self) -> Vec<String> {
        let mut lines = vec![
            String::new(),
            "warm, one request at a time (ms; medians over the rounds)".to_owned(),
        ];
        lines.push(format!(
            "  {:<24}{:>8}{:>8}{:>8}{:>8}",
            "", "mean", "p50", "p95", "p99"
        ));
        let Ways {
            direct,
            sidecar,
            rouse,
        } = &self.ways;
        for (name, way) in [
            ("direct", direct),
            ("through the sidecar", sidecar),
            ("through Rouse", rouse),
        ] {
            lines.push(format!("  {name:<24}{}", way.row()));
        }
        for (name, way) in [("sidecar adds", sidecar), ("Rouse adds", rouse)] {
            if let (Some(with), Some(without)) = (way.median(|p| p.mean), direct.median(|p| p.mean))
            {
                lines.push(format!("  {name:<24}{:>8.2}", (with - without) * 1e3));
            }
        }
        let steady = &self.steady.summary;
        lines.push(String::new());
        lines.push(format!(
            "under load, {} requests at once on all replicas (ms)",
            super::load::CONNECTIONS
        ));
        lines.push(format!("  {:<24}{}", "through Rouse", row(&steady.latency)));
        lines.push(format!("  {:<24}{:>8.0}", "requests/s", steady.throughput));
        let shares: Vec<_> = self
            .shares
            .iter()
            .map(|(_, share)| format!("{:.0} %", share * 100.0))
            .collect();
        lines.push(format!(
            "  {:<24}{}",
            "share of each replica",
            shares.join("  ")
        ));
        lines.push(String::new());
        lines.push("cold start (ms)".to_owned());
        lines.push(format!(
            "  {:<24}{:>8.1}",
            "whole request",
            self.cold.as_secs_f64() * 1e3
        ));
        lines.push(format!(
            "  {:<24}{:>8.1}",
            "of it Rouse",
            self.wake.ours * 1e3
        ));
        lines.push(format!(
            "  {:<24}{:>8.1}",
            "of it the model",
            (self.cold.as_secs_f64() - self.wake.ours) * 1e3
        ));
        lines.push(String::new());
        let steps: Vec<_> = self
            .replicas
            .iter()
            .map(|(at, ready)| format!("{ready} at {at:.1}s"))
            .collect();
        lines.push(format!("ready replicas: {}", steps.join(", ")));
        lines.push(format!(
            "zero again {:.1} s after the last request",
            self.to_zero.as_secs_f64()
        ));
        if let (Some(idle), Some(peak)) = (self.idle_memory, self.peak_memory) {
            lines.push(format!(
                "memory of Rouse: {} at zero, {} at most (load tester included)",
                mib(idle),
                mib(peak)
            ));
        }
        let requests: u64 = self.reports().map(|report| report.summary.requests).sum();
        lines.push(format!("errors: {} of {requests} requests", self.errors()));
        lines
    }
}

impl Way {
    /// Median over the rounds of one figure, in seconds.
    fn median(&self, figure: fn(&Percentiles) -> Option<f64>) -> Option<f64> {
        let mut values: Vec<f64> = self
            .rounds
            .iter()
            .filter_map(|report| figure(&report.summary.latency))
            .collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    }

    fn row(&self) -> String {
        let figures: [fn(&Percentiles) -> Option<f64>; 4] =
            [|p| p.mean, |p| p.p50, |p| p.p95, |p| p.p99];
        figures
            .iter()
            .map(|figure| cell(self.median(*figure)))
            .collect()
    }
}

fn row(latency: &Percentiles) -> String {
    [latency.mean, latency.p50, latency.p95, latency.p99]
        .into_iter()
        .map(cell)
        .collect()
}

fn cell(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| format!("{:>8}", "-"), |s| format!("{:>8.2}", s * 1e3))
}

/// A wake as lines: when each phase was reached.
pub(super) fn timeline(wake: &Wake) -> Vec<String> {
    let mut lines: Vec<_> = wake
        .phases
        .iter()
        .map(|(phase, at)| format!("  {:>9.2} ms  {}", at * 1e3, phase.replace('_', " ")))
        .collect();
    lines.push(format!(
        "  of it Rouse {:.2} ms, the rest is the model's start and its first answer",
        wake.ours * 1e3
    ));
    lines
}

/// Records how many replicas are ready, at each change.
#[derive(Debug)]
pub(super) struct Replicas(JoinHandle<()>, Arc<parking_lot::Mutex<Vec<(f64, usize)>>>);

impl Replicas {
    pub(super) fn watch(mut snapshot: watch::Receiver<Arc<Snapshot>>) -> Self {
        let log = Arc::new(parking_lot::Mutex::new(Vec::new()));
        let (shared, start) = (Arc::clone(&log), Instant::now());
        let task = tokio::spawn(async move {
            loop {
                let ready = {
                    let snapshot = snapshot.borrow_and_update();
                    snapshot
                        .replicas
                        .iter()
                        .filter(|replica| replica.ready && !replica.terminating)
                        .count()
                };
                note(&shared, start.elapsed(), ready);
                if snapshot.changed().await.is_err() {
                    return;
                }
            }
        });
        Self(task, log)
    }

    /// Ends the recording.
    pub(super) fn end(self) -> Vec<(f64, usize)> {
        self.0.abort();
        std::mem::take(&mut *self.1.lock())
    }
}

fn note(log: &parking_lot::Mutex<Vec<(f64, usize)>>, at: Duration, ready: usize) {
    let mut log = log.lock();
    if log.last().is_none_or(|(_, last)| *last != ready) {
        log.push((at.as_secs_f64(), ready));
    }
}

/// Memory of this process that is in RAM now.
pub(super) fn resident_bytes() -> Option<u64> {
    status_kib("VmRSS:")
}

/// The most of it so far.
pub(super) fn peak_bytes() -> Option<u64> {
    status_kib("VmHWM:")
}

/// A line of Linux' `/proc/self/status`, in bytes; elsewhere nothing.
fn status_kib(name: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace()
        .next()?
        .parse::<u64>()
        .ok()
        .map(|kib| kib * 1024)
}

fn mib(bytes: u64) -> String {
    #[allow(clippy::cast_precision_loss, reason = "for people")]
    let mib = bytes as f64 / f64::from(1 << 20);
    format!("{mib:.1} MiB")
}
