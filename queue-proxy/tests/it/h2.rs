//! HTTP/2 by prior knowledge, to a model that speaks it.

use std::net::SocketAddr;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, Method, Request, Response, Version};
use http_body_util::{BodyExt, Empty, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::mpsc,
    task::JoinHandle,
    time::Duration,
};

use crate::{
    model::{Feed, Model, echo, streamed, text},
    raw::Raw,
    rig::{activator, front, pod, soon, until, within},
};

/// The body of a request here.
pub(crate) type Out = BoxBody<Bytes, std::convert::Infallible>;

/// An HTTP/2 connection, and how it ends.
pub(crate) async fn connect(
    address: SocketAddr,
) -> (SendRequest<Out>, JoinHandle<hyper::Result<()>>) {
    over(TcpStream::connect(address).await.unwrap()).await
}

/// The same on a connection that there is.
pub(crate) async fn over<S>(stream: S) -> (SendRequest<Out>, JoinHandle<hyper::Result<()>>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http2::Builder::new(TokioExecutor::new())
        .handshake(TokioIo::new(stream))
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    within("the connection", sender.ready()).await.unwrap();
    (sender, connection)
}

pub(crate) fn request(path: &str, body: Out) -> Request<Out> {
    Request::builder()
        .version(Version::HTTP_2)
        .uri(format!("http://a{path}"))
        .body(body)
        .unwrap()
}

pub(crate) fn nothing() -> Out {
    Empty::new().boxed()
}

/// A body that is fed through a channel.
pub(crate) fn fed() -> (Feed, Out) {
    let (feed, mut frames) = mpsc::unbounded_channel();
    let stream = futures_util::stream::poll_fn(move |cx| frames.poll_recv(cx)).map(Ok);
    (feed, BodyExt::boxed(StreamBody::new(stream)))
}

/// The head of an answer to a GET, and its text.
pub(crate) async fn get(client: &mut SendRequest<Out>, path: &str) -> (Response<()>, String) {
    let answer = within("an answer", client.send_request(request(path, nothing())))
        .await
        .unwrap();
    let (parts, body) = answer.into_parts();
    let body = within("the body", body.collect()).await.unwrap().to_bytes();
    (
        Response::from_parts(parts, ()),
        String::from_utf8(body.to_vec()).unwrap(),
    )
}

/// Whether a call was not processed, by the rules of HTTP/2: it was not sent, or its stream is after the last one of a GOAWAY. A client
/// sends it again then, as those of gRPC do. hyper's own can meet the second: its PING answer overtakes a call that is being sent.
pub(crate) fn is_unprocessed(error: &hyper::Error) -> bool {
    error.is_canceled() || format!("{error:?}").contains("NO_ERROR, Remote")
}

async fn next(body: &mut Incoming) -> Frame<Bytes> {
    within("a frame", body.frame()).await.unwrap().unwrap()
}

fn data(text: &'static str) -> Frame<Bytes> {
    Frame::data(Bytes::from_static(text.as_bytes()))
}

#[tokio::test]
async fn a_unary_call_passes_with_its_headers() {
    let model = Model::start_h2(|request| async move {
        assert_eq!(request.version(), Version::HTTP_2);
        text(request.uri().to_string())
    })
    .await;
    let proxy = pod(model.address, 1).await;
    let (mut client, _connection) = connect(front(&proxy)).await;
    for _ in 0..3 {
        let mut asked = request("/call", nothing());
        let headers = asked.headers_mut();
        headers.insert("te", "trailers".parse().unwrap());
        headers.insert("rouse-ticket", "1".parse().unwrap());
        headers.insert("x-forwarded-for", "8.8.8.8".parse().unwrap());
        let answer = within("an answer", client.send_request(asked))
            .await
            .unwrap();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "http://a/call");
        let last = model.seen.last();
        assert_eq!(last["te"], "trailers");
        assert_eq!(last["x-forwarded-for"], "127.0.0.1");
        assert_eq!(last["x-forwarded-host"], "a");
        assert!(!last.contains_key("rouse-ticket"));
    }
    assert_eq!(model.seen.connections(), 1, "one connection carries all");
    until("the end", || proxy.open() == 0).await;
}

#[tokio::test]
async fn an_answer_of_ours_to_a_head_is_seen_and_has_no_body() {
    let model = Model::start_h2(|_| async { text("") }).await;
    let proxy = pod(model.address, 1).await;
    let (mut client, _connection) = connect(front(&proxy)).await;
    let mut asked = request("/", nothing());
    *asked.method_mut() = Method::HEAD;
    // It is not for this authority, so that it is refused.
    asked.headers_mut().insert("host", "b".parse().unwrap());
    let answer = within("an answer", client.send_request(asked))
        .await
        .unwrap();
    assert_eq!(answer.status(), 400);
    let length = answer.headers()["content-length"].to_str().unwrap();
    assert!(length.parse::<u64>().unwrap() > 0, "what a GET would get");
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert!(body.is_empty(), "{body:?}");
}

#[tokio::test]
async fn both_directions_stream_at_once_and_trailers_end_them() {
    let model = Model::start_h2(|request| async { echo(request) }).await;
    let proxy = pod(model.address, 1).await;
    let (mut client, _connection) = connect(front(&proxy)).await;
    let (feed, body) = fed();
    let answer = within("an answer", client.send_request(request("/", body)))
        .await
        .unwrap();
    let mut back = answer.into_body();
    for part in ["one", "two", "three"] {
        feed.send(data(part)).unwrap();
        assert_eq!(next(&mut back).await.into_data().unwrap(), part);
        assert_eq!(proxy.open(), 1);
    }
    let mut trailers = HeaderMap::new();
    trailers.append("grpc-status", "0".parse().unwrap());
    trailers.append("x-twice", "1".parse().unwrap());
    trailers.append("x-twice", "2".parse().unwrap());
    feed.send(Frame::trailers(trailers.clone())).unwrap();
    drop(feed);
    assert_eq!(next(&mut back).await.into_trailers().unwrap(), trailers);
    until("the end", || proxy.open() == 0).await;
}

#[tokio::test]
async fn a_cancelled_call_is_reset_at_the_model_within_a_quarter_second() {
    let (feeds, mut taken) = mpsc::unbounded_channel();
    let model = Model::start_h2(move |request| {
        let feeds = feeds.clone();
        async move {
            if request.uri().path() == "/silent" {
                std::future::pending::<()>().await;
            }
            let (feed, answer) = streamed();
            feeds.send(feed).unwrap();
            answer
        }
    })
    .await;
    let proxy = pod(model.address, 0).await;
    let (mut client, _connection) = connect(front(&proxy)).await;
    // Before its answer.
    let call = client.send_request(request("/silent", nothing()));
    let call = tokio::spawn(call);
    until("it to arrive", || model.seen.active() == 1).await;
    call.abort();
    soon(Duration::from_millis(250), "the reset", || {
        model.seen.cancelled() == 1
    })
    .await;
    // In the middle of it.
    let answer = client
        .send_request(request("/stream", nothing()))
        .await
        .unwrap();
    let feed = taken.recv().await.unwrap();
    let mut body = answer.into_body();
    feed.send(data("one")).unwrap();
    assert_eq!(next(&mut body).await.into_data().unwrap(), "one");
    drop(body);
    soon(Duration::from_millis(250), "the reset", || {
        model.seen.cancelled() == 2
    })
    .await;
    // While it is sending.
    let (upload, body) = fed();
    let call = tokio::spawn(client.send_request(request("/silent", body)));
    upload.send(data("one")).unwrap();
    until("it to arrive", || model.seen.active() == 1).await;
    call.abort();
    soon(Duration::from_millis(250), "the reset", || {
        model.seen.cancelled() == 3
    })
    .await;
    until("the end", || proxy.open() == 0).await;
    assert_eq!(proxy.stats().totals(), (3, 3));
}

#[tokio::test]
async fn a_host_without_an_authority_will_do() {
    // h2 clients of our own cannot say this, so the frames are written by hand.
    let model = Model::start_h2(|request| async move { text(request.uri().to_string()) }).await;
    let proxy = pod(model.address, 0).await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";
    // :method GET, :scheme http, :path /, host: a (HPACK: three indexed fields, one literal name index 38).
    let headers = b"\x00\x00\x07\x01\x05\x00\x00\x00\x01\x82\x86\x84\x0f\x17\x01a";
    let mut client = Raw::sent(front(&proxy), [&preface[..], headers].concat()).await;
    until("the request to arrive", || model.seen.count() == 1).await;
    let asked = model.seen.requests.lock()[0].uri().to_string();
    assert_eq!(asked, "http://a/");
    client.send("").await;
}

#[tokio::test]
async fn a_malformed_call_is_refused_and_reaches_nobody() {
    let model = Model::start_h2(|_| async { text("ok") }).await;
    let proxy = pod(model.address, 0).await;
    for address in [front(&proxy), activator(&proxy)] {
        let (mut client, _connection) = connect(address).await;
        let mut trace = request("/", nothing());
        *trace.method_mut() = Method::TRACE;
        let answer = client.send_request(trace).await.unwrap();
        assert_eq!(answer.status(), 405);
        let mut other_host = request("/", nothing());
        other_host
            .headers_mut()
            .insert("host", "b".parse().unwrap());
        let answer = client.send_request(other_host).await.unwrap();
        assert_eq!(answer.status(), 400);
        let mut large = request("/", nothing());
        large
            .headers_mut()
            .insert("x", "x".repeat(40_000).parse().unwrap());
        let answer = client.send_request(large).await;
        assert!(answer.is_err_and(|e| !e.is_timeout()) || model.seen.count() == 0);
    }
    assert_eq!(model.seen.connections(), 0);
}

#[tokio::test]
async fn a_model_that_speaks_no_http_2_is_a_502() {
    let model = Model::ok().await;
    let proxy = pod(model.address, 1).await;
    let (mut client, _connection) = connect(front(&proxy)).await;
    let (head, body) = get(&mut client, "/").await;
    assert_eq!(head.status(), 502, "{body}");
    until("the end", || proxy.open() == 0).await;
}

#[tokio::test]
async fn a_connection_the_model_closes_is_replaced() {
    let model = Model::start_h2(|_| async { text("ok") }).await;
    let proxy = pod(model.address, 1).await;
    let address = model.address;
    let (mut client, _connection) = connect(front(&proxy)).await;
    assert_eq!(get(&mut client, "/").await.0.status(), 200);
    drop(model);
    until("the refusal", || {
        std::net::TcpListener::bind(address).is_ok()
    })
    .await;
    let status = get(&mut client, "/").await.0.status();
    assert_eq!(status, 502, "nobody listens");
    let head = get(&mut client, "/").await.0;
    assert_eq!(head.headers().get("retry-after").unwrap(), "1");
}
