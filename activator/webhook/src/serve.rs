//! HTTPS for the API server: HTTP/1.1 only, like Knative's webhook, since HTTP/2 on an admission port has been a way in for
//! floods of streams and gains nothing.
//!
//! Whoever reaches the port is bounded: connections, the size of a body, the time for everything.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::{ServerConfig, crypto::ring};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use crate::{Door, Lookup, Settings, certificate::Current, review};

/// Path of the mutating webhook.
pub const MUTATE: &str = "/mutate";
/// Path of the validating webhook.
pub const VALIDATE: &str = "/validate";

/// Most bytes of a review. An object is at most 1.5 MiB in etcd's default, and an update carries two.
pub const BODY_LIMIT: usize = 3 * 1024 * 1024;
/// Limit on a handshake, and on reading a review and answering it. The API server waits no longer than 10 s by default.
const LIMIT: Duration = Duration::from_secs(10);
/// Limit on the silence of a connection. The API server gives up idle ones after 90 s; who closes first must not be us, or
/// a review that is on its way is lost.
const IDLE_LIMIT: Duration = Duration::from_mins(2);
/// Most connections at once; each API server needs a few.
pub const CONNECTIONS: usize = 256;
/// Pause after a connection could not be taken, mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What every connection needs.
struct Shared {
    settings: watch::Receiver<Arc<Settings>>,
    lookup: Arc<dyn Lookup>,
    /// Connections end after their next answer.
    stopping: watch::Receiver<bool>,
}

/// Answers reviews on `listener` until `stop`; then what has begun is answered and connections are closed.
///
/// # Errors
/// When TLS cannot be set up.
pub async fn serve(
    listener: TcpListener,
    certificate: Arc<Current>,
    settings: watch::Receiver<Arc<Settings>>,
    lookup: Arc<dyn Lookup>,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let acceptor = TlsAcceptor::from(Arc::new(tls(certificate)?));
    let (stopped, stopping) = watch::channel(false);
    let shared = Arc::new(Shared {
        settings,
        lookup,
        stopping,
    });
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = async {
            // Nobody closes it. Who finds no slot waits in the system's queue.
            let slot = Arc::clone(&slots).acquire_owned().await;
            (slot, listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            accepted = accepted => accepted,
            _joined = connections.join_next(), if !connections.is_empty() => continue,
            () = &mut stop => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let (acceptor, shared) = (acceptor.clone(), Arc::clone(&shared));
                connections.spawn(async move {
                    let _slot = slot;
                    connection(stream, acceptor, shared).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "Cannot take a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let _listened = stopped.send(true);
    let all = async { while connections.join_next().await.is_some() {} };
    if timeout(LIMIT, all).await.is_err() {
        connections.shutdown().await;
    }
    Ok(())
}

fn tls(certificate: Arc<Current>) -> io::Result<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    let stream = match timeout(LIMIT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%error, "No TLS connection came about");
            return;
        }
        Err(_) => return,
    };
    let mut stopping = shared.stopping.clone();
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move {
            let answer = timeout(LIMIT, answer(request, &shared)).await;
            Ok::<_, Infallible>(answer.unwrap_or_else(|_| {
                text(
                    StatusCode::REQUEST_TIMEOUT,
                    "the review did not arrive in time",
                )
            }))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_LIMIT)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let stop = async {
        // An error means that the listener is gone, which is the same.
        let _stop = stopping.wait_for(|stopping| *stopping).await;
    };
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = stop => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "A connection broke off");
    }
}

async fn answer(request: Request<Incoming>, shared: &Shared) -> Response<Full<Bytes>> {
    let door = match request.uri().path() {
        MUTATE => Door::Mutate,
        VALIDATE => Door::Validate,
        _ => return text(StatusCode::NOT_FOUND, "try /mutate or /validate"),
    };
    if request.method() != Method::POST {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only POST");
    }
    let body = match Limited::new(request.into_body(), BODY_LIMIT)
        .collect()
        .await
    {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            return text(StatusCode::PAYLOAD_TOO_LARGE, "a review has at most 3 MiB");
        }
        Err(_) => return text(StatusCode::BAD_REQUEST, "the review broke off"),
    };
    let settings = Arc::clone(&shared.settings.borrow());
    let reviewed = match review(door, &body, &settings, shared.lookup.as_ref()) {
        Ok(reviewed) => reviewed,
        Err(malformed) => {
            tracing::warn!(error = %malformed, "A review could not be answered");
            return text(StatusCode::BAD_REQUEST, &malformed.to_string());
        }
    };
    match serde_json::to_vec(&reviewed) {
        Ok(json) => respond(StatusCode::OK, "application/json", json.into()),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn text(status: StatusCode, line: &str) -> Response<Full<Bytes>> {
    respond(
        status,
        "text/plain; charset=utf-8",
        format!("{line}\n").into(),
    )
}

fn respond(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static(kind);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
