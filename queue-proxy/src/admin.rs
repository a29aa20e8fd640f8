//! The pod's own ports: statistics, metrics and health on one, the pod's life cycle on another.

use std::sync::Arc;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use shared::metrics::Exporter;
use shared::{
    BoxError,
    admin::{self, json, since, text},
    http::{
        body::Body,
        h1::Refusal,
        serve::{Handler, Peer},
    },
    metrics as names, stat,
};

use crate::{draining::Drain, pod::Pod};

/// Statistics, metrics and health.
pub(crate) fn stats_port(pod: Arc<Pod>, metrics: Option<Exporter>) -> impl Handler {
    let state = Arc::new((pod, metrics));
    admin::port(move |request| {
        let state = Arc::clone(&state);
        async move { answer(&request, &state.0, state.1.as_ref()) }
    })
}

fn answer(
    request: &Request<Incoming>,
    pod: &Pod,
    metrics: Option<&Exporter>,
) -> Result<Response<Body>, BoxError> {
    let ready = pod.model.borrow().ready;
    Ok(match request.uri().path() {
        stat::PATH => json(&pod.stats.snapshot(since(request.uri().query()), ready))?,
        "/metrics" => {
            publish_gauges(pod);
            text(
                StatusCode::OK,
                metrics.map(Exporter::render).unwrap_or_default(),
            )
        }
        "/livez" => text(StatusCode::OK, "ok\n"),
        "/readyz" if ready => text(StatusCode::OK, "ok\n"),
        "/readyz" => text(StatusCode::SERVICE_UNAVAILABLE, "the model is not ready\n"),
        _ => text(
            StatusCode::NOT_FOUND,
            "try /stat, /metrics, /livez or /readyz\n",
        ),
    })
}

#[allow(
    clippy::cast_precision_loss,
    reason = "counts of requests stay far below 2^52"
)]
fn publish_gauges(pod: &Pod) {
    let target = pod.config.target.to_string();
    let (in_flight, waiting) = pod.stats.gauges();
    names::PROXY_IN_FLIGHT
        .gauge(&[&target])
        .set(in_flight as f64);
    names::PROXY_WAITING.gauge(&[&target]).set(waiting as f64);
    names::PROXY_RELAYED
        .gauge(&[&target])
        .set(pod.stats.relayed() as f64);
}

/// The pod's life cycle: reached by the kubelet's hooks only, never in a Service, every path behind a token. Not behind
/// the limits of an admin port, since waiting for a drain takes as long as the drain.
#[derive(Clone)]
pub(crate) struct LifecyclePort {
    pub(crate) drain: Arc<Drain>,
    pub(crate) token: String,
}

impl Handler for LifecyclePort {
    async fn handle(&self, request: Request<Incoming>, _peer: Arc<Peer>) -> Response<Body> {
        let path = request.uri().path().strip_prefix('/');
        let Some(action) = path.and_then(|path| path.strip_prefix(&self.token)) else {
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

    fn refuse(&self, refusal: Refusal, _peer: &Arc<Peer>) -> Response<Body> {
        admin::refused(refusal)
    }
}
