//! The pod's own ports: statistics, metrics and health on one, the pod's life cycle on another.

use std::sync::Arc;

use http::{HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use hyper::body::Incoming;
use metrics_exporter_prometheus::PrometheusHandle;
use shared::{
    http::{
        body::Body,
        h1::Refusal,
        serve::{Handler, Peer},
    },
    metrics as names, stat,
};

use crate::{draining::Drain, pod::Pod};

/// Statistics, metrics and health.
#[derive(Clone)]
pub(crate) struct StatsPort {
    pub(crate) pod: Arc<Pod>,
    pub(crate) metrics: Option<PrometheusHandle>,
}

/// The pod's life cycle: reached by the kubelet's hooks only, never in a Service, every path behind a token.
#[derive(Clone)]
pub(crate) struct LifecyclePort {
    pub(crate) drain: Arc<Drain>,
    pub(crate) token: String,
}

impl Handler for StatsPort {
    async fn handle(&self, request: Request<Incoming>, _peer: Arc<Peer>) -> Response<Body> {
        if request.method() != Method::GET {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
        }
        let ready = self.pod.model.borrow().ready;
        match request.uri().path() {
            stat::PATH => {
                let stat = self.pod.stats.snapshot(since(request.uri().query()), ready);
                match serde_json::to_vec(&stat) {
                    Ok(bytes) => json(bytes),
                    Err(_) => text(
                        StatusCode::INTERNAL_SERVER_ERROR,
                        "statistics cannot be written\n",
                    ),
                }
            }
            "/metrics" => {
                let target = self.pod.config.target.to_string();
                let (in_flight, waiting) = self.pod.stats.gauges();
                #[allow(
                    clippy::cast_precision_loss,
                    reason = "counts of requests stay far below 2^52"
                )]
                {
                    names::PROXY_IN_FLIGHT
                        .gauge(&[&target])
                        .set(in_flight as f64);
                    names::PROXY_WAITING.gauge(&[&target]).set(waiting as f64);
                }
                text(
                    StatusCode::OK,
                    self.metrics
                        .as_ref()
                        .map(PrometheusHandle::render)
                        .unwrap_or_default(),
                )
            }
            "/livez" => text(StatusCode::OK, "ok\n"),
            "/readyz" if ready => text(StatusCode::OK, "ok\n"),
            "/readyz" => text(StatusCode::SERVICE_UNAVAILABLE, "the model is not ready\n"),
            _ => text(
                StatusCode::NOT_FOUND,
                "try /stat, /metrics, /livez or /readyz\n",
            ),
        }
    }

    fn refuse(&self, refusal: Refusal) -> Response<Body> {
        refused(refusal)
    }
}

impl Handler for LifecyclePort {
    async fn handle(&self, request: Request<Incoming>, _peer: Arc<Peer>) -> Response<Body> {
        let path = request.uri().path();
        let Some(action) = path
            .strip_prefix('/')
            .and_then(|p| p.strip_prefix(&self.token))
        else {
            return text(StatusCode::NOT_FOUND, "");
        };
        match action {
            // The sidecar's own preStop: fires when the pod is being terminated, and only then.
            "/drain" => {
                self.drain.begin();
                text(StatusCode::OK, "draining\n")
            }
            // The model's preStop: also fires when a liveness probe restarts the container, which must not wait.
            "/wait-for-drain" => {
                self.drain.wait_if_begun().await;
                text(StatusCode::OK, "go\n")
            }
            _ => text(StatusCode::NOT_FOUND, ""),
        }
    }

    fn refuse(&self, refusal: Refusal) -> Response<Body> {
        refused(refusal)
    }
}

/// The `since` of a query: the last second that the caller has.
fn since(query: Option<&str>) -> Option<u64> {
    query?
        .split('&')
        .find_map(|pair| pair.strip_prefix("since="))
        .and_then(|value| value.parse().ok())
}

fn refused(refusal: Refusal) -> Response<Body> {
    text(
        StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::BAD_REQUEST),
        format!("{}\n", refusal.reason),
    )
}

fn text(status: StatusCode, body: impl Into<bytes::Bytes>) -> Response<Body> {
    answer(status, "text/plain; charset=utf-8", body)
}

fn json(body: Vec<u8>) -> Response<Body> {
    answer(StatusCode::OK, "application/json", body)
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
