//! A small model that keeps a journal, for the far end.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Collected};
use hyper::body::Incoming;
use parking_lot::Mutex;
use shared::http::{
    body::Body,
    h1::Refusal,
    sanitize,
    serve::{Config, Handler, Peer, Server, bind},
};
use tokio::sync::Semaphore;

/// One request that arrived.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) id: String,
    pub(crate) path: String,
    pub(crate) version: Version,
    pub(crate) method: Method,
    pub(crate) headers: HeaderMap,
    /// Empty for paths that do not read it to its end.
    pub(crate) body: Vec<u8>,
}

/// What all connections share.
#[derive(Debug)]
pub(crate) struct State {
    name: String,
    pub(crate) journal: Mutex<Vec<Entry>>,
    /// Requests now, and the most there ever were.
    pub(crate) now: AtomicUsize,
    pub(crate) most: AtomicUsize,
    /// Permits for `/wait`.
    pub(crate) go: Semaphore,
    /// Requests that were given up before their end.
    pub(crate) dropped: AtomicUsize,
}

/// A running model. Dropping it cuts everything.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) state: Arc<State>,
    pub(crate) address: SocketAddr,
    _server: Server,
}

#[derive(Clone)]
struct App(Arc<State>);

struct Present(Arc<State>, bool);

impl Drop for Present {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, SeqCst);
        if !self.1 {
            self.0.dropped.fetch_add(1, SeqCst);
        }
    }
}

impl Model {
    pub(crate) fn start(name: &str) -> Self {
        Self::at(name, ([127, 0, 0, 1], 0).into())
    }

    pub(crate) fn at(name: &str, address: SocketAddr) -> Self {
        let state = Arc::new(State {
            name: name.to_owned(),
            journal: Mutex::default(),
            now: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            go: Semaphore::new(0),
            dropped: AtomicUsize::new(0),
        });
        let listener = bind(address).unwrap();
        let server = Server::spawn(listener, Config::default(), App(Arc::clone(&state))).unwrap();
        Self {
            address: server.address(),
            state,
            _server: server,
        }
    }

    /// Ids in the order of arrival.
    pub(crate) fn ids(&self) -> Vec<String> {
        self.state
            .journal
            .lock()
            .iter()
            .map(|e| e.id.clone())
            .collect()
    }

    pub(crate) fn entry(&self, id: &str) -> Entry {
        let journal = self.state.journal.lock();
        journal
            .iter()
            .find(|e| e.id == id)
            .expect("in the journal")
            .clone()
    }
}

impl Handler for App {
    async fn handle(&self, request: Request<Incoming>, peer: Arc<Peer>) -> Response<Body> {
        let state = &self.0;
        let now = state.now.fetch_add(1, SeqCst) + 1;
        state.most.fetch_max(now, SeqCst);
        let mut present = Present(Arc::clone(state), false);
        let (parts, body) = request.into_parts();
        let id = parts
            .headers
            .get("x-id")
            .map_or("-", |v| v.to_str().unwrap())
            .to_owned();
        let entry = Entry {
            id,
            path: parts.uri.path().to_owned(),
            version: parts.version,
            method: parts.method.clone(),
            headers: parts.headers.clone(),
            body: Vec::new(),
        };
        let at = {
            let mut journal = state.journal.lock();
            journal.push(entry);
            journal.len() - 1
        };
        let (path, query) = (parts.uri.path(), parts.uri.query().unwrap_or_default());
        let mut answer = match path {
            // Both directions at once, trailers too.
            "/mirror" => {
                let mut answer = Response::new(Body::from(body).guarded(Mutex::new(present)));
                answer.headers_mut().insert("x-model", value(&state.name));
                return answer;
            }
            "/large" => status(StatusCode::PAYLOAD_TOO_LARGE),
            "/socket" => return self.socket(Request::from_parts(parts, body), &peer, present),
            "/wait" => {
                if let Ok(permit) = state.go.acquire().await {
                    permit.forget();
                }
                Response::new(Body::full("waited"))
            }
            "/sleep" => {
                tokio::time::sleep(Duration::from_millis(query.parse().unwrap())).await;
                Response::new(Body::full("slept"))
            }
            // As the query says, `STATUS&TYPE`, and what was sent as the body.
            "/as" | "/v1/as" => {
                let whole = body.collect().await.map(Collected::to_bytes);
                let bytes = whole.unwrap_or_default();
                state.journal.lock()[at].body = bytes.to_vec();
                let (code, kind) = query.split_once('&').unwrap();
                let mut answer = Response::new(Body::full(bytes));
                *answer.status_mut() = code.parse().unwrap();
                let headers = answer.headers_mut();
                headers.insert("content-type", value(kind));
                headers.insert("server-timing", value("model;dur=5"));
                answer
            }
            "/spoof" => {
                let mut answer = Response::new(Body::full("x"));
                for (name, text) in [
                    ("rouse-admission", "full"),
                    ("rouse-load", "9999"),
                    ("rouse-ticket", "7"),
                    ("rouse-x", "y"),
                ] {
                    answer
                        .headers_mut()
                        .insert(name, HeaderValue::from_static(text));
                }
                answer
            }
            _ => match body.collect().await {
                Ok(whole) => {
                    let bytes = whole.to_bytes();
                    state.journal.lock()[at].body = bytes.to_vec();
                    Response::new(Body::full(bytes))
                }
                Err(_) => return status(StatusCode::IM_A_TEAPOT),
            },
        };
        present.1 = true;
        answer.headers_mut().insert("x-model", value(&state.name));
        answer
    }

    fn refuse(&self, _refusal: Refusal, _peer: &Arc<Peer>) -> Response<Body> {
        status(StatusCode::IM_A_TEAPOT)
    }
}

impl App {
    /// Echoes what comes through a tunnel.
    #[allow(clippy::unused_self, reason = "one of the answers of the app")]
    fn socket(
        &self,
        mut request: Request<Incoming>,
        peer: &Peer,
        present: Present,
    ) -> Response<Body> {
        let upgrade = hyper::upgrade::on(&mut request);
        peer.switch_to_raw();
        tokio::spawn(async move {
            let _present = present;
            if let Ok(io) = upgrade.await {
                let (mut from, mut to) = tokio::io::split(hyper_util::rt::TokioIo::new(io));
                let _gone = tokio::io::copy(&mut from, &mut to).await;
            }
        });
        let mut answer = status(StatusCode::SWITCHING_PROTOCOLS);
        sanitize::add_websocket(answer.headers_mut());
        answer.headers_mut().insert(
            "sec-websocket-accept",
            value("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        );
        answer
    }
}

fn status(status: StatusCode) -> Response<Body> {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = status;
    answer
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::try_from(text).unwrap()
}
