//! The autoscaler's own port: the last decisions with their reasons, metrics, health.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use dashmap::DashMap;
use http::{Response, StatusCode};
use shared::metrics::Exporter;
use shared::{
    BoxError, TargetId,
    admin::{self, json, text},
    http::{body::Body, serve::Handler},
};

use crate::Controller;

/// The handler of the port.
pub fn port(
    controllers: Arc<DashMap<TargetId, Controller>>,
    metrics: Option<Exporter>,
) -> impl Handler {
    port_when(controllers, metrics, Arc::new(AtomicBool::new(true)))
}

/// The handler of the port of a program that is ready when `ready` says so.
pub fn port_when(
    controllers: Arc<DashMap<TargetId, Controller>>,
    metrics: Option<Exporter>,
    ready: Arc<AtomicBool>,
) -> impl Handler {
    let state = Arc::new((controllers, metrics));
    admin::port(move |request| {
        let (state, ready) = (Arc::clone(&state), Arc::clone(&ready));
        async move {
            let path = request.uri().path();
            if path == "/readyz" && !ready.load(Ordering::Relaxed) {
                let body = "not all of the cluster is seen yet\n";
                return Ok(text(StatusCode::SERVICE_UNAVAILABLE, body));
            }
            answer(path, &state.0, state.1.as_ref())
        }
    })
}

fn answer(
    path: &str,
    controllers: &DashMap<TargetId, Controller>,
    metrics: Option<&Exporter>,
) -> Result<Response<Body>, BoxError> {
    if let Some(name) = path.strip_prefix("/debug/decisions/") {
        let history = name
            .parse()
            .ok()
            .and_then(|id: TargetId| Some(controllers.get(&id)?.history().explained()));
        return match history {
            Some(history) => json(&history),
            None => Ok(text(
                StatusCode::NOT_FOUND,
                "no such workload; see /debug/decisions\n",
            )),
        };
    }
    Ok(match path {
        "/debug/decisions" => {
            let mut lines = String::new();
            for controller in controllers {
                let last = controller.history().latest();
                let last = last.map_or_else(String::new, |last| last.to_string());
                lines.extend([&controller.key().to_string(), ": ", &last, "\n"]);
            }
            text(StatusCode::OK, lines)
        }
        "/metrics" => text(
            StatusCode::OK,
            metrics.map(Exporter::render).unwrap_or_default(),
        ),
        "/livez" | "/readyz" => text(StatusCode::OK, "ok\n"),
        _ => text(
            StatusCode::NOT_FOUND,
            "try /debug/decisions, /metrics, /livez or /readyz\n",
        ),
    })
}
