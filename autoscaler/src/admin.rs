//! The autoscaler's own port: the last decisions with their reasons, metrics, health.

use std::sync::Arc;

use dashmap::DashMap;
use http::{HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use hyper::body::Incoming;
use metrics_exporter_prometheus::PrometheusHandle;
use shared::{
    TargetId,
    http::{
        body::Body,
        h1::Refusal,
        serve::{Handler, Peer},
    },
};

use crate::Controller;

/// What the port needs to know.
#[derive(Clone)]
pub struct AdminPort {
    /// The control loops.
    pub controllers: Arc<DashMap<TargetId, Controller>>,
    /// The recorder behind `/metrics`.
    pub metrics: Option<PrometheusHandle>,
}

impl std::fmt::Debug for AdminPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdminPort")
            .field("controllers", &self.controllers.len())
            .finish_non_exhaustive()
    }
}

impl Handler for AdminPort {
    async fn handle(&self, request: Request<Incoming>, _peer: Arc<Peer>) -> Response<Body> {
        if request.method() != Method::GET {
            return answer(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET\n");
        }
        let path = request.uri().path();
        if let Some(name) = path.strip_prefix("/debug/decisions/") {
            let history = name
                .parse()
                .ok()
                .and_then(|id: TargetId| Some(self.controllers.get(&id)?.history()));
            return match history.map(|history| serde_json::to_vec(&history)) {
                Some(Ok(bytes)) => answer(StatusCode::OK, "application/json", bytes),
                Some(Err(_)) => answer(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    TEXT,
                    "cannot be written as JSON\n",
                ),
                None => answer(
                    StatusCode::NOT_FOUND,
                    TEXT,
                    "no such workload; see /debug/decisions\n",
                ),
            };
        }
        match path {
            "/debug/decisions" => {
                let mut text = String::new();
                for controller in self.controllers.iter() {
                    let last = controller
                        .history()
                        .pop()
                        .map(|last| last.explain)
                        .unwrap_or_default();
                    text.extend([&controller.key().to_string(), ": ", &last, "\n"]);
                }
                answer(StatusCode::OK, TEXT, text)
            }
            "/metrics" => answer(
                StatusCode::OK,
                TEXT,
                self.metrics
                    .as_ref()
                    .map(PrometheusHandle::render)
                    .unwrap_or_default(),
            ),
            "/livez" | "/readyz" => answer(StatusCode::OK, TEXT, "ok\n"),
            _ => answer(
                StatusCode::NOT_FOUND,
                TEXT,
                "try /debug/decisions, /metrics, /livez or /readyz\n",
            ),
        }
    }

    fn refuse(&self, refusal: Refusal) -> Response<Body> {
        let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::BAD_REQUEST);
        answer(status, TEXT, format!("{}\n", refusal.reason))
    }
}

const TEXT: &str = "text/plain; charset=utf-8";

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
