//! A little of an API server: objects with versions, reading, making, replacing, patching.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use kube::{Client, client::Body};
use parking_lot::Mutex;
use serde_json::{Value, json};

#[derive(Clone, Default)]
pub(crate) struct Cluster {
    objects: Arc<Mutex<BTreeMap<String, Value>>>,
    writes: Arc<Mutex<Vec<String>>>,
}

impl Cluster {
    pub(crate) fn client(&self) -> Client {
        let cluster = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let cluster = cluster.clone();
            async move { Ok::<_, Infallible>(cluster.answer(request).await) }
        });
        Client::new(service, "default")
    }

    pub(crate) fn put(&self, path: &str, object: &Value) {
        let mut object = object.clone();
        object["metadata"]["resourceVersion"] = json!("1");
        self.objects.lock().insert(path.to_owned(), object);
    }

    pub(crate) fn get(&self, path: &str) -> Value {
        self.objects.lock().get(path).cloned().unwrap_or_default()
    }

    pub(crate) fn writes(&self) -> Vec<String> {
        std::mem::take(&mut self.writes.lock())
    }

    async fn answer(&self, request: Request<Body>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        // As over a network: others may come in between.
        tokio::task::yield_now().await;
        let body = || serde_json::from_slice::<Value>(&body).unwrap();
        let mut path = head.uri.path().to_owned();
        let mut objects = self.objects.lock();
        if head.method != Method::GET {
            self.writes.lock().push(format!("{} {path}", head.method));
        }
        if head.method == Method::POST {
            path = format!("{path}/{}", body()["metadata"]["name"].as_str().unwrap());
            if objects.contains_key(&path) {
                return refuse(StatusCode::CONFLICT, "AlreadyExists");
            }
            let mut made = body();
            made["metadata"]["resourceVersion"] = json!("1");
            objects.insert(path.clone(), made);
        }
        let Some(object) = objects.get_mut(&path) else {
            return refuse(StatusCode::NOT_FOUND, "NotFound");
        };
        let version = object["metadata"]["resourceVersion"].clone();
        let next: u64 = version.as_str().unwrap().parse::<u64>().unwrap() + 1;
        match head.method {
            Method::PUT => {
                if body()["metadata"]["resourceVersion"] != version {
                    return refuse(StatusCode::CONFLICT, "Conflict");
                }
                *object = body();
                object["metadata"]["resourceVersion"] = json!(next.to_string());
            }
            Method::PATCH => {
                let steps: json_patch::Patch = serde_json::from_value(body()).unwrap();
                if json_patch::patch(object, &steps).is_err() {
                    return refuse(StatusCode::UNPROCESSABLE_ENTITY, "Invalid");
                }
                object["metadata"]["resourceVersion"] = json!(next.to_string());
            }
            _ => {}
        }
        respond(StatusCode::OK, object)
    }
}

fn refuse(status: StatusCode, reason: &str) -> Response<Full<Bytes>> {
    let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": status.as_u16()});
    respond(status, &body)
}

fn respond(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.to_string().into()));
    *response.status_mut() = status;
    response
}
