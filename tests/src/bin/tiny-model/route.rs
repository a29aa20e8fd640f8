//! What each path does.

use crate::body::{BoxError, Content, Counted, Tracked, Zeros, events, stream, text};
use crate::relay;
use crate::socket;
use crate::stats::{Activity, Open, Server};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, TRAILER};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::future::{pending, ready};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

/// The header by which clients name their requests.
const REQUEST_ID: &str = "x-request-id";
/// The trailer that ends a gRPC call.
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// The header by which we name ourselves.
const SERVED_BY: &str = "x-served-by";

/// Answers one request. The error ends the connection.
pub(crate) async fn answer(
    server: Arc<Server>,
    activity: Arc<Activity>,
    request: Request<Incoming>,
    sockets: (watch::Receiver<bool>, mpsc::Sender<()>),
) -> Result<Response<Tracked>, BoxError> {
    let is_admin = matches!(request.uri().path(), "/ready" | "/stats" | "/ask");
    let is_head = request.method() == Method::HEAD;
    let is_last = request.uri().path() == "/hang";
    if server.is_hung() {
        return pending().await;
    }
    let Some(mut open) = Open::begin(&server, &activity, !is_admin) else {
        let open = Open::begin(&server, &activity, false)
            .ok_or("administrative requests have no limit")?;
        let refusal = json(
            StatusCode::SERVICE_UNAVAILABLE,
            r#"{"error":"too many requests at once"}"#,
        );
        return Ok(sign(
            &server,
            refusal.map(|content| Tracked::new(content, open)),
        ));
    };
    let response = match request.uri().path() {
        "/ready" if server.is_ready() => json(StatusCode::OK, r#"{"ready":true}"#),
        "/ready" => json(StatusCode::SERVICE_UNAVAILABLE, r#"{"ready":false}"#),
        "/stats" => json(StatusCode::OK, server.json()),
        "/ask" => relay::ask(&request).await,
        "/work" => work(&server, request).await?,
        "/echo" | "/tiny.Model/Echo" => echo(&server, request),
        "/hang" => {
            read_and_execute(&server, request).await?;
            server.hang();
            json(StatusCode::OK, r#"{"hung":true}"#)
        }
        "/sse" => {
            let (count, gap) = (
                number(&request, "n").unwrap_or(5),
                number(&request, "ms").unwrap_or(50),
            );
            read_and_execute(&server, request).await?;
            let mut response = Response::new(stream(events(count, Duration::from_millis(gap))));
            response
                .headers_mut()
                .insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
            response
                .headers_mut()
                .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        }
        "/big" => {
            let bytes = number(&request, "bytes").unwrap_or(1 << 20);
            read_and_execute(&server, request).await?;
            Response::new(stream(Zeros(bytes)))
        }
        "/early" => {
            execute(&server, &request, 0)?;
            json(StatusCode::PAYLOAD_TOO_LARGE, r#"{"error":"too large"}"#)
        }
        "/ws" => match socket::accept(request) {
            Ok((response, upgrade, request)) => {
                execute(&server, &request, 0)?;
                // The socket has the request open from here on; this exchange only counts for the connection.
                let socket = std::mem::replace(
                    &mut open,
                    Open::begin(&server, &activity, false)
                        .ok_or("administrative requests have no limit")?,
                );
                tokio::spawn(socket::echo(upgrade, socket, sockets));
                response.map(|()| text(""))
            }
            Err(why) => json(StatusCode::BAD_REQUEST, format!(r#"{{"error":"{why}"}}"#)),
        },
        _ => json(StatusCode::NOT_FOUND, r#"{"error":"no such path"}"#),
    };
    if server.is_hung() && !is_last {
        return pending().await;
    }
    let response = response.map(|content| Tracked::new(content, open));
    Ok(sign(
        &server,
        if is_head {
            bodiless(response)
        } else {
            response
        },
    ))
}

async fn work(server: &Server, request: Request<Incoming>) -> Result<Response<Content>, BoxError> {
    if !matches!(*request.method(), Method::GET | Method::POST | Method::HEAD) {
        let mut response = json(StatusCode::METHOD_NOT_ALLOWED, r#"{"error":"GET or POST"}"#);
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, POST"));
        return Ok(response);
    }
    let base = number(&request, "ms").map_or(server.args.service_time, Duration::from_millis);
    let count = read_and_execute(server, request).await?;
    let jitter = server.args.jitter;
    let time = if jitter.is_zero() {
        base
    } else {
        base + jitter.mul_f64(server.roll())
    };
    if !time.is_zero() {
        sleep(time).await;
    }
    if server.args.fail_rate > 0.0 && server.roll() < server.args.fail_rate {
        return Ok(json(
            StatusCode::INTERNAL_SERVER_ERROR,
            r#"{"error":"failed on purpose"}"#,
        ));
    }
    Ok(json(
        StatusCode::OK,
        format!(r#"{{"pid":{},"requests":{count}}}"#, server.pid),
    ))
}

/// Sends the body back while it arrives; it counts as executed when the body has arrived. To gRPC it says that all is well.
fn echo(server: &Arc<Server>, request: Request<Incoming>) -> Response<Content> {
    let (parts, body) = request.into_parts();
    let mut response = Response::new(());
    // HTTP/1.1 sends only trailers that were announced.
    for name in [CONTENT_TYPE, TRAILER] {
        if let Some(value) = parts.headers.get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    let server = Arc::clone(server);
    let is_grpc = parts
        .headers
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    let done = move |bytes| {
        server.execute(id(&parts.headers), &parts.method, parts.uri.path(), bytes)?;
        Ok(())
    };
    let body = Counted {
        inner: body,
        bytes: 0,
        done: Some(done),
    };
    response.map(|()| {
        if is_grpc {
            let well = HeaderMap::from_iter([(GRPC_STATUS, HeaderValue::from_static("0"))]);
            stream(body.with_trailers(ready(Some(Ok(well)))))
        } else {
            stream(body)
        }
    })
}

async fn read_and_execute(server: &Server, request: Request<Incoming>) -> Result<u64, BoxError> {
    let (parts, mut body) = request.into_parts();
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        bytes += frame?.data_ref().map_or(0, |data| data.len() as u64);
    }
    Ok(server.execute(id(&parts.headers), &parts.method, parts.uri.path(), bytes)?)
}

fn execute<B>(server: &Server, request: &Request<B>, bytes: u64) -> Result<u64, BoxError> {
    Ok(server.execute(
        id(request.headers()),
        request.method(),
        request.uri().path(),
        bytes,
    )?)
}

fn id(headers: &HeaderMap) -> Option<&str> {
    headers.get(REQUEST_ID).and_then(|id| id.to_str().ok())
}

/// A number from the query.
fn number<B>(request: &Request<B>, name: &str) -> Option<u64> {
    let pairs = request.uri().query()?.split('&');
    pairs
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)?
        .1
        .parse()
        .ok()
}

pub(crate) fn json(status: StatusCode, content: impl Into<bytes::Bytes>) -> Response<Content> {
    let mut response = Response::new(text(content));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An answer to HEAD: without its body, which hyper leaves out on HTTP/1 only, and with its length.
fn bodiless(mut response: Response<Tracked>) -> Response<Tracked> {
    if let Some(length) = response.body().size_hint().exact() {
        response
            .headers_mut()
            .entry(CONTENT_LENGTH)
            .or_insert_with(|| length.into());
    }
    response.map(Tracked::finished)
}

fn sign(server: &Server, mut response: Response<Tracked>) -> Response<Tracked> {
    if let Ok(name) = HeaderValue::from_str(&server.name) {
        response.headers_mut().insert(SERVED_BY, name);
    }
    response
}
