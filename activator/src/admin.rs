//! The activator's own port: statistics for the autoscaler, metrics, health, and the last wakes.

use std::sync::Arc;

use dashmap::DashMap;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use metrics_exporter_prometheus::PrometheusHandle;
use shared::{
    BoxError, TargetId,
    admin::{self, json, since, text},
    clock,
    http::{body::Body, serve::Handler},
    load::Ring,
    stat::{self, ActivatorStat, VERSION},
};

use crate::{run::Running, workload::Process};

/// What the port needs to know.
#[derive(Clone)]
pub(crate) struct State {
    pub(crate) workloads: Arc<DashMap<TargetId, Running>>,
    pub(crate) process: Arc<Process>,
    pub(crate) metrics: Option<PrometheusHandle>,
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
                        .map(PrometheusHandle::render)
                        .unwrap_or_default(),
                )
            }
            // Never depends on the autoscaler or on any workload: a restart would not help either.
            "/livez" | "/readyz" => text(StatusCode::OK, "ok\n"),
            _ => text(
                StatusCode::NOT_FOUND,
                "try /stat, /debug/wakes, /metrics, /livez or /readyz\n",
            ),
        })
    }

    #[allow(
        clippy::cast_precision_loss,
        reason = "counts of requests stay far below 2^52"
    )]
    fn publish_gauges(&self) {
        for running in self.workloads.iter() {
            running
                .workload
                .metrics
                .held
                .set(running.workload.held() as f64);
        }
    }

    fn stat(&self, since: Option<u64>) -> ActivatorStat {
        // One instant for all of it: a reader refuses an answer whose seconds go beyond the last that it names.
        let now = clock::micros();
        ActivatorStat {
            version: VERSION,
            boot: self.boot,
            last_second: Ring::last_whole(now),
            workloads: self
                .workloads
                .iter()
                .map(|running| running.workload.stat(now, since))
                .collect(),
        }
    }
}
