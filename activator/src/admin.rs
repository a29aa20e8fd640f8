//! The activator's own port: statistics for the autoscaler, metrics, health, and the last wakes.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use dashmap::DashMap;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use shared::metrics::Exporter;
use shared::{
    BoxError, TargetId,
    admin::{self, json, since, text},
    clock,
    http::{body::Body, serve::Handler},
    load::Ring,
    stat::{self, ACTIVATOR_MAX_BYTES, ActivatorStat, VERSION},
};

use crate::{run::Running, workload::Process};

/// Bytes of one second in an answer, and of what is said of a workload beside its seconds: more than they ever take.
const SECOND_BYTES: usize = 192;
const WORKLOAD_BYTES: usize = 512;

/// What the port needs to know.
#[derive(Clone)]
pub(crate) struct State {
    pub(crate) workloads: Arc<DashMap<TargetId, Running>>,
    pub(crate) process: Arc<Process>,
    pub(crate) metrics: Option<Exporter>,
    pub(crate) boot: u64,
}

/// The handler of the port.
pub(crate) fn stats_port(state: State) -> impl Handler {
    let state = Arc::new(state);
    admin::port(move |request| {
        let state = Arc::clone(&state);
        async move { state.answer(&request) }
    })
}

impl State {
    fn answer(&self, request: &Request<Incoming>) -> Result<Response<Body>, BoxError> {
        Ok(match request.uri().path() {
            stat::PATH => json(&self.stat(since(request.uri().query())))?,
            "/debug/wakes" => json(&*self.process.wakes.lock())?,
            "/metrics" => {
                self.publish_gauges();
                text(
                    StatusCode::OK,
                    self.metrics
                        .as_ref()
                        .map(Exporter::render)
                        .unwrap_or_default(),
                )
            }
            // Never depends on the autoscaler or on any workload: a restart would not help either.
            "/readyz" if self.process.leaving.load(Relaxed) => {
                text(StatusCode::SERVICE_UNAVAILABLE, "leaving\n")
            }
            "/readyz" if self.process.unready.load(Relaxed) => {
                text(StatusCode::SERVICE_UNAVAILABLE, "starting\n")
            }
            "/livez" | "/readyz" => text(StatusCode::OK, "ok\n"),
            _ => text(
                StatusCode::NOT_FOUND,
                "try /stat, /debug/wakes, /metrics, /livez or /readyz\n",
            ),
        })
    }

    fn publish_gauges(&self) {
        for running in self.workloads.iter() {
            let workload = &running.workload;
            workload.metrics.held(workload.id(), workload.held());
        }
    }

    fn stat(&self, since: Option<u64>) -> ActivatorStat {
        // One instant for all of it: a reader refuses an answer whose seconds go beyond the last that it names.
        let now = clock::micros();
        let last = Ring::last_whole(now);
        let since = told_since(since, last, self.workloads.len());
        ActivatorStat {
            version: VERSION,
            boot: self.boot,
            last_second: last,
            workloads: self
                .workloads
                .iter()
                .filter_map(|running| running.workload.stat(now, since))
                .collect(),
        }
    }
}

/// After which second an answer begins. Whoever does not say what it has seen gets the last second: a reader that meets
/// this activator takes no more. Whoever was away for so long that all that it has missed, of so many workloads, would be
/// more than a reader takes gets as much of it as fits: it would refuse the whole, now and every time after.
fn told_since(since: Option<u64>, last: u64, workloads: usize) -> Option<u64> {
    let each = ACTIVATOR_MAX_BYTES / workloads.max(1);
    let fit = (each.saturating_sub(WORKLOAD_BYTES) / SECOND_BYTES).max(1) as u64;
    // None is before every second.
    since
        .or_else(|| last.checked_sub(1))
        .max(last.checked_sub(fit))
}

#[cfg(test)]
mod tests {
    use shared::{
        load::{SECONDS, Second},
        stat::HoldStat,
    };

    use super::*;

    #[test]
    fn whoever_names_no_second_is_told_the_last_one() {
        assert_eq!(told_since(None, 100, 5_000), Some(99));
        assert_eq!(told_since(None, 0, 1), None, "there is none before it");
        assert_eq!(told_since(Some(40), 100, 1), Some(40));
        assert_eq!(told_since(Some(100), 100, 1), Some(100));
    }

    #[test]
    fn what_a_reader_has_missed_is_cut_to_what_it_takes() {
        let whole = SECONDS as u64 - 1;
        assert_eq!(told_since(Some(0), whole, 300), Some(0), "all of it fits");
        for workloads in [800, 2_000, 5_000] {
            let since = told_since(Some(0), whole, workloads);
            let told = whole - since.unwrap();
            assert!((1..whole).contains(&told), "{workloads}: {told}");
            let second = Second {
                second: u64::from(u32::MAX),
                in_flight_us: 10_000_000_000_000,
                waiting_us: 10_000_000_000_000,
                started: 10_000_000,
                ended: 10_000_000,
                released: 10_000_000,
            };
            let workload = HoldStat {
                target: format!("{}/{}", "n".repeat(63), "w".repeat(253)),
                held: 10_000_000,
                seconds: vec![second; usize::try_from(told).unwrap()],
            };
            let bytes = serde_json::to_vec(&workload).unwrap().len();
            assert!(
                (bytes + 1) * workloads + 100 < ACTIVATOR_MAX_BYTES,
                "{workloads}: {bytes} bytes each"
            );
        }
    }
}
