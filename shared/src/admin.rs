//! A program's own port: statistics, metrics, health and what it can explain.
//!
//! What answers is a plain async function; in front of it stand tower layers, so that nobody who reaches the port can make
//! the program busy with it: at most [`AT_ONCE`] requests at a time, each for at most [`LIMIT`].

use std::{sync::Arc, time::Duration};

use http::{HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use hyper::body::Incoming;
use serde::Serialize;
use tower::{
    ServiceBuilder, ServiceExt as _, limit::ConcurrencyLimit, load_shed::LoadShed,
    timeout::Timeout, util::ServiceFn,
};

use crate::{
    BoxError,
    http::{
        body::Body,
        h1::Refusal,
        serve::{Handler, Peer},
    },
};

/// Requests answered at once. A handful of scrapers ask once a second.
pub const AT_ONCE: usize = 64;
/// Limit on one answer. All of them come from memory.
pub const LIMIT: Duration = Duration::from_secs(5);

/// The handler of an admin port. Made by [`port`].
#[derive(Clone, Debug)]
pub struct AdminPort<F> {
    service: LoadShed<ConcurrencyLimit<Timeout<ServiceFn<F>>>>,
}

/// An admin port whose GETs are answered by `answer`, given path and query.
pub fn port<F, Fut>(answer: F) -> AdminPort<F>
where
    F: FnMut(Request<Incoming>) -> Fut + Clone,
    Fut: Future<Output = Result<Response<Body>, BoxError>>,
{
    // Outermost first: what is too much is told so at once instead of waiting, and only what is let in is timed.
    let service = ServiceBuilder::new()
        .load_shed()
        .concurrency_limit(AT_ONCE)
        .timeout(LIMIT)
        .service_fn(answer);
    AdminPort { service }
}

impl<F, Fut> Handler for AdminPort<F>
where
    F: FnMut(Request<Incoming>) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Response<Body>, BoxError>> + Send,
{
    async fn handle(&self, request: Request<Incoming>, _peer: Arc<Peer>) -> Response<Body> {
        if request.method() != Method::GET {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
        }
        match self.service.clone().oneshot(request).await {
            Ok(answer) => answer,
            Err(error) if error.is::<tower::timeout::error::Elapsed>() => {
                text(StatusCode::GATEWAY_TIMEOUT, "no answer in time\n")
            }
            Err(error) if error.is::<tower::load_shed::error::Overloaded>() => text(
                StatusCode::SERVICE_UNAVAILABLE,
                "too many requests at once\n",
            ),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        }
    }

    fn refuse(&self, refusal: Refusal, _peer: &Arc<Peer>) -> Response<Body> {
        refused(refusal)
    }
}

/// The answer to a message that is refused before it is a request.
pub fn refused(refusal: Refusal) -> Response<Body> {
    let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::BAD_REQUEST);
    text(status, format!("{}\n", refusal.reason))
}

/// The `since` of a query: the last second that a scraper has.
pub fn since(query: Option<&str>) -> Option<u64> {
    query?
        .split('&')
        .find_map(|pair| pair.strip_prefix("since="))
        .and_then(|value| value.parse().ok())
}

/// A text.
pub fn text(status: StatusCode, body: impl Into<bytes::Bytes>) -> Response<Body> {
    answer(status, "text/plain; charset=utf-8", body)
}

/// A value as JSON.
///
/// # Errors
/// When it cannot be written as JSON.
pub fn json(value: &impl Serialize) -> Result<Response<Body>, BoxError> {
    Ok(answer(
        StatusCode::OK,
        "application/json",
        serde_json::to_vec(value)?,
    ))
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

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream},
        sync::{Semaphore, watch},
    };

    use super::*;
    use crate::http::serve::{Config, Server};

    async fn ask(address: std::net::SocketAddr, method: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request =
            format!("{method} /x?since=7 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn answers_gets_within_its_limits_and_nothing_else() {
        let held = Arc::new(Semaphore::new(0));
        let (inside, mut count) = watch::channel(0);
        let gate = Arc::clone(&held);
        let answers = port(move |request: Request<Incoming>| {
            let (gate, inside) = (Arc::clone(&gate), inside.clone());
            async move {
                inside.send_modify(|count| *count += 1);
                let _open = gate.acquire().await?;
                json(&since(request.uri().query()))
            }
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Server::spawn(listener, Config::default(), answers).unwrap();
        let address = server.address();
        let waiting: Vec<_> = (0..AT_ONCE)
            .map(|_| tokio::spawn(ask(address, "GET")))
            .collect();
        count.wait_for(|count| *count == AT_ONCE).await.unwrap();
        let shed = ask(address, "GET").await;
        assert!(shed.starts_with("HTTP/1.1 503"), "{shed}");
        held.add_permits(AT_ONCE);
        for answer in waiting {
            let answer = answer.await.unwrap();
            assert!(answer.ends_with("\r\n\r\n7"), "{answer}");
        }
        assert!(ask(address, "POST").await.starts_with("HTTP/1.1 405"));
    }
}
