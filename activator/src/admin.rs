//! The activator's own port: statistics for the autoscaler, metrics, health, and the last wakes.

use std::sync::Arc;

use dashmap::DashMap;
use http::{HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use hyper::body::Incoming;
use metrics_exporter_prometheus::PrometheusHandle;
use shared::{
    TargetId, clock,
    http::{
        body::Body,
        h1::Refusal,
        serve::{Handler, Peer},
    },
    load::Ring,
    stat::{self, ActivatorStat, VERSION},
};

use crate::{run::Running, workload::Process};

/// What the port needs to know.
#[derive(Clone)]
pub(crate) struct StatsPort {
    pub(crate) workloads: Arc<DashMap<TargetId, Running>>,
    pub(crate) process: Arc<Process>,
    pub(crate) metrics: Option<PrometheusHandle>,
    pub(crate) boot: u64,
}

impl Handler for StatsPort {
    async fn handle(&self, request: Request<Incoming>, _peer: Arc<Peer>) -> Response<Body> {
        if request.method() != Method::GET {
            return answer(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET\n");
        }
        match request.uri().path() {
            stat::PATH => json(&self.stat(since(request.uri().query()))),
            "/debug/wakes" => json(&*self.process.wakes.lock()),
            "/metrics" => {
                #[allow(
                    clippy::cast_precision_loss,
                    reason = "counts of requests stay far below 2^52"
                )]
                for running in self.workloads.iter() {
                    running
                        .workload
                        .metrics
                        .held
                        .set(running.workload.held() as f64);
                }
                answer(
                    StatusCode::OK,
                    TEXT,
                    self.metrics
                        .as_ref()
                        .map(PrometheusHandle::render)
                        .unwrap_or_default(),
                )
            }
            // Never depends on the autoscaler or on any workload: a restart would not help either.
            "/livez" | "/readyz" => answer(StatusCode::OK, TEXT, "ok\n"),
            _ => answer(
                StatusCode::NOT_FOUND,
                TEXT,
                "try /stat, /debug/wakes, /metrics, /livez or /readyz\n",
            ),
        }
    }

    fn refuse(&self, refusal: Refusal) -> Response<Body> {
        let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::BAD_REQUEST);
        answer(status, TEXT, format!("{}\n", refusal.reason))
    }
}

impl StatsPort {
    fn stat(&self, since: Option<u64>) -> ActivatorStat {
        ActivatorStat {
            version: VERSION,
            boot: self.boot,
            last_second: Ring::last_whole(clock::micros()),
            workloads: self
                .workloads
                .iter()
                .map(|running| running.workload.stat(since))
                .collect(),
        }
    }
}

const TEXT: &str = "text/plain; charset=utf-8";

fn since(query: Option<&str>) -> Option<u64> {
    query?
        .split('&')
        .find_map(|pair| pair.strip_prefix("since="))
        .and_then(|value| value.parse().ok())
}

fn json(value: &impl serde::Serialize) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(bytes) => answer(StatusCode::OK, "application/json", bytes),
        Err(_) => answer(
            StatusCode::INTERNAL_SERVER_ERROR,
            TEXT,
            "cannot be written as JSON\n",
        ),
    }
}

fn answer(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<bytes::Bytes>,
) -> Response<Body> {
    let mut answer = Response::new(Body::full(body));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}
