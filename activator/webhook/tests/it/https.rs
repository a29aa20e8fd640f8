//! The server over real sockets, with a client that trusts what the configurations would tell it.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use serde_json::Value;
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpStream},
    sync::{oneshot, watch},
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use webhook::{
    Nothing,
    certificate::{Current, Due, Place, State},
    serve,
};

use crate::support::{pod, request, settings, spec};

const DEADLINE: Duration = Duration::from_secs(10);

struct Server {
    address: SocketAddr,
    current: Arc<Current>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<std::io::Result<()>>,
    _settings: watch::Sender<Arc<webhook::Settings>>,
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_secs().try_into().unwrap()
}

fn fresh() -> State {
    State::default()
        .after(Due::Both, &Place::default().names(), now())
        .unwrap()
}

async fn server(state: Option<&State>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let current = Arc::new(Current::default());
    if let Some(state) = state {
        current.set(state).unwrap();
    }
    let (changes, settings) = watch::channel(Arc::new(settings()));
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(serve::serve(
        listener,
        Arc::clone(&current),
        settings,
        Arc::new(Nothing),
        async {
            let _stopped = stopped.await;
        },
    ));
    Server {
        address,
        current,
        stop: Some(stop),
        task,
        _settings: changes,
    }
}

/// A connection as the API server makes it.
async fn connect(
    address: SocketAddr,
    trusted: &State,
    name: &str,
) -> std::io::Result<SendRequest<Full<Bytes>>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(trusted.bundle().as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await?;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    Ok(sender)
}

const NAME: &str = "rouse-webhook.rouse-system.svc";

async fn post(
    sender: &mut SendRequest<Full<Bytes>>,
    path: &str,
    body: impl Into<Bytes>,
) -> (StatusCode, String) {
    let request = Request::post(path)
        .header("host", NAME)
        .body(Full::new(body.into()))
        .unwrap();
    let answered = timeout(DEADLINE, sender.send_request(request))
        .await
        .unwrap();
    read(answered.unwrap()).await
}

async fn read(response: Response<hyper::body::Incoming>) -> (StatusCode, String) {
    let status = response.status();
    let body = response.into_body().collect().await.unwrap();
    (status, String::from_utf8(body.to_bytes().to_vec()).unwrap())
}

#[tokio::test]
async fn a_review_is_answered_over_a_certificate_of_our_own() {
    let state = fresh();
    let server = server(Some(&state)).await;
    let mut sender = connect(server.address, &state, NAME).await.unwrap();
    let review = request("pods", "CREATE", &pod(&spec())).to_string();
    for _ in 0..2 {
        let (status, body) = post(&mut sender, serve::MUTATE, review.clone()).await;
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            (status, &body["response"]["allowed"]),
            (StatusCode::OK, &true.into())
        );
        assert_eq!(body["response"]["patchType"], "JSONPatch");
    }
}

#[tokio::test]
async fn what_is_no_review_gets_a_status_and_a_line() {
    let state = fresh();
    let server = server(Some(&state)).await;
    let large = vec![b' '; serve::BODY_LIMIT + 1];
    let deployment = request("deployments", "CREATE", &pod(&spec())).to_string();
    for (path, body, status, part) in [
        (
            serve::MUTATE,
            b"{".to_vec(),
            StatusCode::BAD_REQUEST,
            "no AdmissionReview",
        ),
        (
            serve::MUTATE,
            deployment.into_bytes(),
            StatusCode::BAD_REQUEST,
            "validating",
        ),
        (
            serve::VALIDATE,
            large,
            StatusCode::PAYLOAD_TOO_LARGE,
            "3 MiB",
        ),
        ("/", Vec::new(), StatusCode::NOT_FOUND, "/mutate"),
    ] {
        let mut sender = connect(server.address, &state, NAME).await.unwrap();
        let (told, line) = post(&mut sender, path, body).await;
        assert!(
            told == status && line.contains(part),
            "{path}: {told} {line}"
        );
    }
    let mut sender = connect(server.address, &state, NAME).await.unwrap();
    let get = Request::get(serve::MUTATE)
        .body(Full::new(Bytes::new()))
        .unwrap();
    let (status, _) = read(sender.send_request(get).await.unwrap()).await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn a_new_certificate_is_used_for_new_connections_and_old_ones_go_on() {
    let old = fresh();
    let server = server(Some(&old)).await;
    let mut before = connect(server.address, &old, NAME).await.unwrap();
    // Another authority, which only who has the new bundle trusts.
    let new = old
        .after(Due::Both, &Place::default().names(), now() + 1)
        .unwrap();
    server.current.set(&new).unwrap();
    assert!(connect(server.address, &old, NAME).await.is_err());
    let mut after = connect(server.address, &new, NAME).await.unwrap();
    let review = request("pods", "CREATE", &pod(&spec())).to_string();
    for sender in [&mut before, &mut after] {
        let (status, _) = post(sender, serve::MUTATE, review.clone()).await;
        assert_eq!(status, StatusCode::OK);
    }
    // Only trusted yet, not signing: both bundles do.
    let overlapping = old
        .after(Due::Authority, &Place::default().names(), now())
        .unwrap();
    server.current.set(&overlapping).unwrap();
    connect(server.address, &old, NAME).await.unwrap();
    connect(server.address, &overlapping, NAME).await.unwrap();
}

#[tokio::test]
async fn the_certificate_is_for_the_services_name_only() {
    let state = fresh();
    let server = server(Some(&state)).await;
    for name in Place::default().names() {
        connect(server.address, &state, &name).await.unwrap();
    }
    assert!(
        connect(server.address, &state, "other.rouse-system.svc")
            .await
            .is_err()
    );
}

#[tokio::test]
async fn without_a_certificate_no_connection_comes_about() {
    let state = fresh();
    let server = server(None).await;
    assert!(connect(server.address, &state, NAME).await.is_err());
    server.current.set(&state).unwrap();
    connect(server.address, &state, NAME).await.unwrap();
}

#[tokio::test]
async fn stopping_closes_idle_connections_and_takes_no_new_ones() {
    let state = fresh();
    let mut server = server(Some(&state)).await;
    let mut sender = connect(server.address, &state, NAME).await.unwrap();
    let review = request("pods", "CREATE", &pod(&spec())).to_string();
    post(&mut sender, serve::MUTATE, review).await;
    server.stop.take().unwrap().send(()).unwrap();
    timeout(DEADLINE, server.task)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    let gone = timeout(DEADLINE, async {
        while sender.ready().await.is_ok() {
            tokio::task::yield_now().await;
        }
    });
    gone.await.expect("the connection is closed");
    // Nobody takes it, whether or not the system still does.
    if let Ok(mut stream) = TcpStream::connect(server.address).await {
        let mut byte = [0];
        let read = timeout(DEADLINE, stream.read(&mut byte)).await.unwrap();
        assert!(matches!(read, Ok(0) | Err(_)));
    }
}

#[tokio::test]
async fn one_connection_too_many_waits_until_another_ends() {
    let state = fresh();
    let server = server(Some(&state)).await;
    let mut silent = Vec::new();
    for _ in 0..serve::CONNECTIONS {
        silent.push(TcpStream::connect(server.address).await.unwrap());
    }
    let mut late = std::pin::pin!(connect(server.address, &state, NAME));
    let waited = timeout(Duration::from_millis(300), late.as_mut()).await;
    assert!(waited.is_err(), "it is not taken yet");
    silent.pop();
    timeout(DEADLINE, late).await.unwrap().unwrap();
}
