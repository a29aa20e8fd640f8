//! The scale of a Deployment as `kubectl proxy` would serve it: one number, changed by JSON patches with a test.

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::watch,
    task::{JoinHandle, JoinSet},
};

/// A scale that starts at zero.
pub(crate) struct ScaleServer {
    address: SocketAddr,
    scale: Arc<Scale>,
    accept: JoinHandle<()>,
}

struct Scale {
    replicas: watch::Sender<u64>,
    writes: Mutex<Vec<(u64, u64)>>,
}

impl ScaleServer {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let scale = Arc::new(Scale {
            replicas: watch::channel(0).0,
            writes: Mutex::default(),
        });
        let serving = Arc::clone(&scale);
        let accept = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let scale = Arc::clone(&serving);
                let service = service_fn(move |request| {
                    let scale = Arc::clone(&scale);
                    async move { Ok::<_, Infallible>(scale.answer(request).await) }
                });
                connections
                    .spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self {
            address,
            scale,
            accept,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!(
            "http://{}/apis/apps/v1/namespaces/default/deployments/m/scale",
            self.address
        )
    }

    /// The number, and changes of it.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.scale.replicas.subscribe()
    }

    /// Every change so far: from, to.
    pub(crate) fn writes(&self) -> Vec<(u64, u64)> {
        self.scale.writes.lock().clone()
    }
}

impl Drop for ScaleServer {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

impl Scale {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let status = match *request.method() {
            Method::GET => StatusCode::OK,
            Method::PATCH => {
                assert_eq!(
                    request.headers()[CONTENT_TYPE],
                    "application/json-patch+json"
                );
                let body = request.into_body().collect().await.unwrap().to_bytes();
                self.patch(&serde_json::from_slice(&body).unwrap())
            }
            _ => StatusCode::METHOD_NOT_ALLOWED,
        };
        let scale = json!({"kind": "Scale", "spec": {"replicas": *self.replicas.borrow()}});
        let mut response = Response::new(Full::from(scale.to_string()));
        *response.status_mut() = status;
        response
    }

    /// Kubernetes answers 422 to a patch whose test fails.
    fn patch(&self, patch: &Value) -> StatusCode {
        let value = |op: &str| {
            let steps = patch.as_array().unwrap().iter();
            let mut found =
                steps.filter(|step| step["op"] == op && step["path"] == "/spec/replicas");
            found.next().unwrap()["value"].as_u64().unwrap()
        };
        let (from, to) = (value("test"), value("replace"));
        let changed = self.replicas.send_if_modified(|replicas| {
            let fits = *replicas == from;
            if fits {
                *replicas = to;
                self.writes.lock().push((from, to));
            }
            fits
        });
        if changed {
            StatusCode::OK
        } else {
            StatusCode::UNPROCESSABLE_ENTITY
        }
    }
}
