//! Calls of gRPC against a server that speaks it in frames of HTTP/2.

use std::{
    collections::BTreeMap, convert::Infallible, ffi::OsString, io, sync::Arc, time::Duration,
};

use bytes::Bytes;
use clap::Parser as _;
use futures_util::StreamExt as _;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use loadtests::{Config, Report, args::Args, merge::merge, record::ErrorKind, table::Table};
use tokio::{net::TcpStream, time::sleep};

use crate::{
    command::{output, text},
    schema,
    server::raw,
};

type Frames = Vec<Frame<Bytes>>;

/// A method whose answer is cut after its frames.
const CUT: &str = "a.B/Cut";

/// A message as it travels.
fn framed(message: &[u8]) -> Bytes {
    let mut bytes = vec![0];
    bytes.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    bytes.extend(message);
    bytes.into()
}

fn data(message: &[u8]) -> Frame<Bytes> {
    Frame::data(framed(message))
}

fn status(code: &str, message: &str) -> Frame<Bytes> {
    let mut fields = HeaderMap::new();
    fields.insert("grpc-status", code.parse().unwrap());
    fields.insert("grpc-message", message.parse().unwrap());
    Frame::trailers(fields)
}

/// Answers each call with the frames that `handler` makes of its path and body.
async fn grpc(handler: impl Fn(&Request<Bytes>) -> Frames + Send + Sync + 'static) -> String {
    let handler = Arc::new(handler);
    raw(move |stream: TcpStream| {
        let handler = Arc::clone(&handler);
        async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let handler = Arc::clone(&handler);
                async move {
                    let (parts, body) = request.into_parts();
                    let body = body.collect().await.unwrap().to_bytes();
                    let is_cut = parts.uri.path().ends_with(CUT);
                    let frames = handler(&Request::from_parts(parts, body));
                    let end = is_cut.then(|| Err(io::Error::other("gone")));
                    let frames = frames.into_iter().map(Ok).chain(end);
                    let stream = futures_util::stream::iter(frames).then(async |frame| {
                        if frame.is_err() {
                            // A reset takes along what was not sent before.
                            sleep(Duration::from_millis(50)).await;
                        }
                        frame
                    });
                    let mut response = Response::new(StreamBody::new(stream));
                    let kind = "application/grpc".parse().unwrap();
                    response.headers_mut().insert("content-type", kind);
                    Ok::<_, Infallible>(response)
                }
            });
            let _ = http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        }
    })
    .await
}

/// The report of a run of the command.
async fn report(url: &str, args: &[&str]) -> Report {
    let always = [url, "--json", "-", "--requests", "6", "--connections", "2"];
    let run = output(&[&always[..], args].concat()).await;
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    let report = serde_json::from_slice(&run.stdout).unwrap();
    schema::check_report(&report);
    report
}

#[track_caller]
fn assert_only(report: &Report, kind: ErrorKind, reason: &str) {
    let errors = &report.summary.errors;
    assert_eq!(*errors, [(kind, 6)].into(), "{report:#?}");
    let said = report.reasons.get(&kind).map_or("", String::as_str);
    assert!(said.contains(reason), "{said}");
}

fn codes<const N: usize>(codes: [(&str, u64); N]) -> BTreeMap<String, u64> {
    codes.map(|(name, count)| (name.to_owned(), count)).into()
}

#[tokio::test]
async fn a_unary_call_and_a_stream_of_answers_are_counted() {
    let url = grpc(|request| {
        assert_eq!(request.uri().path(), "/test.Echo/Say");
        assert_eq!(request.method(), "POST");
        let field = |name: &str| request.headers()[name].to_str().unwrap();
        assert_eq!(field("content-type"), "application/grpc");
        assert_eq!(field("te"), "trailers");
        assert_eq!(field("grpc-timeout"), "30000000u");
        assert_eq!(request.body(), &framed(b"hello"));
        vec![data(b"a"), data(b"bb"), data(b""), status("0", "")]
    })
    .await;
    let args = [
        "--grpc",
        "test.Echo/Say",
        "--body",
        "hello",
        "--expect-body",
        "bb",
    ];
    let report = report(&url, &args).await;
    assert_eq!(
        (report.summary.successes, report.summary.error_count),
        (6, 0),
        "{report:#?}"
    );
    assert_eq!(report.grpc_status, codes([("OK", 6)]));
    assert_eq!(
        (report.config.protocol.as_str(), report.config.http.as_str()),
        ("grpc", "2")
    );
    assert_eq!(report.config.grpc.as_deref(), Some("/test.Echo/Say"));
    let table = Table(&report).to_string();
    let first = table.lines().next().unwrap();
    assert!(first.contains("gRPC /test.Echo/Say"), "{first}");
    let mut other = report.clone();
    other.config.grpc = Some("/test.Echo/Sing".to_owned());
    let error = merge(&[report.clone(), other]).unwrap_err().to_string();
    assert!(
        error.contains("config.grpc") && error.contains("Sing"),
        "{error}"
    );
    let streams = report.streams.unwrap();
    assert_eq!((streams.streams, streams.events), (6, 18));
    assert_eq!(
        (streams.first_event.count, streams.inter_event.count),
        (6, 12)
    );
}

#[tokio::test]
async fn a_status_other_than_ok_is_an_error_with_its_name() {
    let url = grpc(|_| vec![data(b"a"), status("14", "try%20later")]).await;
    let failed = report(&url, &["--grpc", "a.B/C"]).await;
    assert_only(&failed, ErrorKind::Grpc, "UNAVAILABLE try later");
    assert_eq!(failed.grpc_status, codes([("UNAVAILABLE", 6)]));
    let url = grpc(|_| vec![data(b"a")]).await;
    assert_only(
        &report(&url, &["--grpc", "a.B/C"]).await,
        ErrorKind::Grpc,
        "no grpc-status",
    );
    // A status in the head, with no body at all.
    let url = crate::server::http(|_| async {
        let mut response = Response::new(http_body_util::Full::default());
        for (name, value) in [("content-type", "application/grpc"), ("grpc-status", "12")] {
            response.headers_mut().insert(name, value.parse().unwrap());
        }
        response
    })
    .await;
    let failed = report(&url, &["--grpc", "a.B/C"]).await;
    assert_only(&failed, ErrorKind::Grpc, "UNIMPLEMENTED");
    assert_eq!(failed.grpc_status, codes([("UNIMPLEMENTED", 6)]));
    // No gRPC.
    let url = crate::server::http(|_| async { crate::server::ok() }).await;
    let failed = report(&url, &["--grpc", "a.B/C"]).await;
    assert_only(&failed, ErrorKind::Content, "not application/grpc");
}

#[tokio::test]
async fn an_answer_that_is_cut_is_a_body_error_and_leaves_a_full_report() {
    let url = grpc(|_| vec![data(b"a")]).await;
    let failed = report(&url, &["--grpc", CUT]).await;
    assert_only(&failed, ErrorKind::Body, "");
    assert_eq!(failed.streams.unwrap().events, 6);
    let url = grpc(|_| vec![Frame::data(framed(b"abc").slice(..6)), status("0", "")]).await;
    let failed = report(&url, &["--grpc", "a.B/C"]).await;
    assert_only(&failed, ErrorKind::Body, "did not end");
    let url = grpc(|_| {
        vec![
            Frame::data(Bytes::from_static(b"\x01\0\0\0\0")),
            status("0", ""),
        ]
    });
    let failed = report(&url.await, &["--grpc", "a.B/C"]).await;
    assert_only(&failed, ErrorKind::Body, "compressed");
    let url = grpc(|_| vec![Frame::data(Bytes::from_static(b"Hello")), status("0", "")]);
    let failed = report(&url.await, &["--grpc", "a.B/C"]).await;
    assert_only(&failed, ErrorKind::Body, "begins with 72");
}

#[tokio::test]
async fn the_format_of_messages_may_be_told() {
    let url = grpc(|request| {
        let given: Vec<_> = request.headers().get_all("content-type").iter().collect();
        assert_eq!(given, ["application/grpc+json"]);
        vec![data(b"{}"), status("0", "")]
    })
    .await;
    let format = "content-type: application/grpc+json";
    let report = report(&url, &["--grpc", "a.B/C", "--header", format]).await;
    assert_eq!(report.summary.successes, 6, "{report:#?}");
}

#[tokio::test]
async fn a_health_check_asks_for_a_service_and_wants_serving() {
    let url = grpc(|request| {
        assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
        let health: &[u8] = match &request.body()[5..] {
            b"" => b"\x08\x01",
            b"\x0a\x05model" => b"\x08\x02",
            other => panic!("{other:?}"),
        };
        vec![data(health), status("0", "")]
    })
    .await;
    assert_eq!(
        report(&url, &["--grpc", "health"]).await.summary.successes,
        6
    );
    let failed = report(&url, &["--grpc", "health:model"]).await;
    assert_only(&failed, ErrorKind::Content, "NOT_SERVING");
    assert_eq!(failed.grpc_status, codes([("OK", 6)]));
}

#[tokio::test]
async fn a_model_is_asked_with_tensors() {
    let url = grpc(|request| {
        assert_eq!(request.uri().path(), "/inference.GRPCInferenceService/ModelInfer");
        let wanted = b"\x0a\x04iris\x2a\x15\x0a\x01x\x12\x04FP32\x1a\x02\x01\x01\x2a\x06\x32\x04\x00\x00\xc0\x3f";
        assert_eq!(&request.body()[5..], wanted);
        vec![data(b"\x0a\x04iris"), status("0", "")]
    })
    .await;
    let args = [
        "--grpc",
        "model-infer",
        "--grpc-model",
        "iris",
        "--grpc-input",
        "x:FP32:1x1=1.5",
    ];
    let report = report(&url, &args).await;
    assert_eq!(report.summary.successes, 6, "{report:#?}");
}

#[tokio::test]
async fn calls_go_over_tls() {
    let authority = crate::tls::Authority::new();
    let acceptor = authority.acceptor(&[b"h2"], false);
    let url = raw(move |stream: TcpStream| {
        let acceptor = acceptor.clone();
        async move {
            let stream = acceptor.accept(stream).await.unwrap();
            let service = service_fn(|_: Request<Incoming>| async {
                let frames = [data(b"a"), status("0", "")].map(Ok::<_, Infallible>);
                let body = StreamBody::new(futures_util::stream::iter(frames));
                let response = Response::builder().header("content-type", "application/grpc+proto");
                Ok::<_, Infallible>(response.body(body).unwrap())
            });
            let _ = http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        }
    })
    .await
    .replace("http://", "https://");
    let ca = authority.file("ca.pem").display().to_string();
    let report = report(&url, &["--grpc", "a.B/C", "--tls-ca", &ca]).await;
    assert_eq!(report.summary.successes, 6, "{report:#?}");
}

#[tokio::test]
async fn a_call_without_sense_is_named() {
    let url = "http://127.0.0.1:9/";
    for (args, words) in [
        (
            &[url, "--grpc", "nonsense"][..],
            ["--grpc", "SERVICE/METHOD"],
        ),
        (
            &["http://127.0.0.1:9/path", "--grpc", "a/b"],
            ["URL", "without a path"],
        ),
        (&[url, "--grpc", "model-infer"], ["--grpc", "--grpc-model"]),
        (
            &[url, "--grpc", "model-infer", "--grpc-model", "m"],
            ["--grpc", "--grpc-input"],
        ),
        (
            &[url, "--grpc", "health", "--grpc-model", "m"],
            ["--grpc-model", "model-infer"],
        ),
        (
            &[url, "--grpc", "a/b", "--grpc-input", "x:FP32:1=1"],
            ["--grpc-input", "model-infer"],
        ),
        (
            &[url, "--grpc", "model-infer", "--grpc-input", "x"],
            ["--grpc-input", "NAME:DATATYPE"],
        ),
        (&[url, "--grpc-model", "m"], ["--grpc", "required"]),
        (
            &[url, "--grpc", "a/b", "--method", "GET"],
            ["--method", "cannot be used with"],
        ),
        (
            &[url, "--grpc", "a/b", "--header", "te: gzip"],
            ["te", "sets itself"],
        ),
        (
            &[url, "--grpc", "a/b", "--header", "grpc-timeout: 1S"],
            ["grpc-timeout", "sets itself"],
        ),
        (
            &[url, "--grpc", "a/b", "--header", "content-type: text/plain"],
            ["text/plain", "application/grpc"],
        ),
        (
            &[url, "--grpc", "health", "--body", "x"],
            ["--body", "health"],
        ),
    ] {
        let run = output(args).await;
        let error = text(&run.stderr);
        assert_eq!(run.status.code(), Some(2), "{args:?}: {error}");
        assert!(
            words.iter().all(|word| error.contains(word)),
            "{args:?}: {error}"
        );
    }
}

#[test]
fn a_call_of_a_library_has_to_be_over_http2() {
    let mut config = Config::new("http://127.0.0.1:9/").unwrap();
    let call = "--grpc a/b".split(' ').map(OsString::from);
    let args = [OsString::from("x"), OsString::from("http://127.0.0.1:9/")];
    let args = Args::parse_from(args.into_iter().chain(call));
    config.protocol = args.config().unwrap().protocol;
    let error = config.check().unwrap_err().to_string();
    assert!(error.contains("HTTP/2"), "{error}");
    config.http2 = true;
    config.check().unwrap();
}
