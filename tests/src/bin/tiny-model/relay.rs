//! Asking somebody else, so that a test can be a client where only this program runs.

use crate::body::{Content, text};
use crate::route::json;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longer than a cold start in a test takes.
const LIMIT: Duration = Duration::from_mins(1);

/// Sends a GET to the address and path in the query, with the headers of this request. 502 if there is no answer.
pub(crate) async fn ask<B>(request: &Request<B>) -> Response<Content> {
    let asked = timeout(LIMIT, send(request)).await;
    let asked = asked.unwrap_or_else(|_| Err(format!("no answer within {LIMIT:?}")));
    asked.unwrap_or_else(|why| json(StatusCode::BAD_GATEWAY, format!(r#"{{"error":{why:?}}}"#)))
}

async fn send<B>(request: &Request<B>) -> Result<Response<Content>, String> {
    let query = request.uri().query().unwrap_or_default();
    let (address, path) = query
        .split_once('/')
        .ok_or("the query is no ADDRESS:PORT/PATH")?;
    let stream = TcpStream::connect(address)
        .await
        .map_err(|error| error.to_string())?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let connection = tokio::spawn(connection);
    let mut onward = Request::get(format!("/{path}"))
        .body(Empty::<bytes::Bytes>::new())
        .map_err(|error| error.to_string())?;
    onward.headers_mut().clone_from(request.headers());
    for hop in [CONNECTION, CONTENT_LENGTH] {
        onward.headers_mut().remove(hop);
    }
    let host = address
        .parse()
        .map_err(|_| "the address is no host".to_owned())?;
    onward.headers_mut().insert(HOST, host);
    let answer = sender
        .send_request(onward)
        .await
        .map_err(|error| error.to_string())?;
    let status = answer.status();
    let body = answer.into_body().collect().await;
    let body = body.map_err(|error| error.to_string())?.to_bytes();
    connection.abort();
    let mut relayed = Response::new(text(body));
    *relayed.status_mut() = status;
    Ok(relayed)
}
