//! TLS: who is trusted, who we are, and what is said when it does not come about.

use std::{convert::Infallible, fs, future::pending, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use loadtests::{
    Config, Report,
    config::{Limit, Load},
    protocol::Protocol,
    record::ErrorKind,
    table::Table,
    tls::Tls,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    command::{output, text},
    server::{raw, run},
};

/// An authority with its files: `ca.pem`, and `NAME.pem` and `NAME.key` of those that it has signed.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let issuer = CertifiedIssuer::self_signed(params, key).unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, folder }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Signs a certificate for these names.
    fn sign(&self, file: &str, names: &[&str]) -> (rcgen::Certificate, KeyPair) {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(names).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        fs::write(self.file(&format!("{file}.pem")), certificate.pem()).unwrap();
        fs::write(self.file(&format!("{file}.key")), key.serialize_pem()).unwrap();
        (certificate, key)
    }

    /// What a server with a certificate for 127.0.0.1 and `model.test` accepts with.
    pub(crate) fn acceptor(&self, alpn: &[&[u8]], asks: bool) -> TlsAcceptor {
        let (certificate, key) = self.sign("server", &["127.0.0.1", "model.test"]);
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if asks {
            let mut roots = RootCertStore::empty();
            roots.add(self.issuer.der().clone()).unwrap();
            let clients =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(clients.unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = builder
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// Answers each request over TLS with its HTTP version and the name that was asked for.
async fn https(acceptor: TlsAcceptor) -> String {
    let url = raw(move |stream: TcpStream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let name = stream.get_ref().1.server_name().unwrap_or("-").to_owned();
            let service = service_fn(move |request: Request<Incoming>| {
                let version = match request.version() {
                    Version::HTTP_2 => "2",
                    _ => "1.1",
                };
                let answer = Full::new(Bytes::from(format!("{version} {name}")));
                async move {
                    // Whoever does not read all of a request cannot take another one.
                    let _ = request.into_body().collect().await;
                    Ok::<_, Infallible>(Response::new(answer))
                }
            });
            let _ = Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        }
    })
    .await;
    url.replace("http://", "https://")
}

fn closed(url: &str, tls: Tls) -> Config {
    let mut config = Config::new(url).unwrap();
    config.load = Load::Closed(Limit::Requests(6));
    config.timeout = Duration::from_secs(5);
    (config.connections, config.tls) = (2, tls);
    config
}

fn trusting(authority: &Authority) -> Tls {
    Tls {
        ca: Some(authority.file("ca.pem")),
        ..Tls::default()
    }
}

#[track_caller]
fn assert_served(report: &Report) {
    let summary = &report.summary;
    assert_eq!(
        (
            summary.successes,
            summary.error_count,
            summary.connections_opened
        ),
        (6, 0, 2),
        "{report:#?}"
    );
}

#[track_caller]
fn assert_refused(report: &Report, reason: &str) {
    let errors = &report.summary.errors;
    assert_eq!(*errors, [(ErrorKind::Tls, 6)].into(), "{report:#?}");
    assert!(
        report.reasons[&ErrorKind::Tls].contains(reason),
        "{report:#?}"
    );
}

#[tokio::test]
async fn both_versions_of_http_go_over_tls_and_say_which_they_are() {
    let authority = Authority::new();
    let url = https(authority.acceptor(&[b"h2", b"http/1.1"], false)).await;
    for (http2, body) in [(false, "1.1 -"), (true, "2 -")] {
        let mut config = closed(&url, trusting(&authority));
        config.http2 = http2;
        config.checks = vec![loadtests::check::Check::Contains(body.to_owned())];
        let report = run(config).await;
        assert_served(&report);
        assert_eq!(report.config.tls_verified, Some(true));
    }
    // A body that does not fit into one turn of anything.
    let mut config = closed(&url, trusting(&authority));
    config.body = loadtests::payload::Payload::Same(Bytes::from(vec![b'x'; 1 << 20]));
    config.method = http::Method::POST;
    assert_served(&run(config).await);
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_or_for_another_name_is_refused_unless_told() {
    let (authority, other) = (Authority::new(), Authority::new());
    let url = https(authority.acceptor(&[], false)).await;
    assert_refused(
        &run(closed(&url, trusting(&other))).await,
        "invalid peer certificate",
    );
    let named = |name: &str| Tls {
        server_name: Some(name.to_owned()),
        ..trusting(&authority)
    };
    assert_refused(
        &run(closed(&url, named("other.test"))).await,
        "not valid for name",
    );
    let mut config = closed(&url, named("model.test"));
    config.checks = vec![loadtests::check::Check::Contains(
        "1.1 model.test".to_owned(),
    )];
    assert_served(&run(config).await);
    let insecure = Tls {
        insecure: true,
        ..Tls::default()
    };
    let report = run(closed(&url, insecure)).await;
    assert_served(&report);
    assert_eq!(report.config.tls_verified, Some(false));
    let table = Table(&report).to_string();
    assert!(table.contains("was not verified"), "{table}");
}

#[tokio::test]
async fn a_target_that_does_not_agree_to_http2_or_has_no_tls_is_a_tls_error() {
    let authority = Authority::new();
    let url = https(authority.acceptor(&[], false)).await;
    let mut config = closed(&url, trusting(&authority));
    config.http2 = true;
    assert_refused(&run(config).await, "HTTP/2");
    let url = crate::server::http(|_| async { crate::server::ok() }).await;
    let url = url.replace("http://", "https://");
    assert_refused(&run(closed(&url, trusting(&authority))).await, "");
}

#[tokio::test]
async fn a_client_shows_its_certificate_where_it_is_asked_for() {
    let authority = Authority::new();
    let url = https(authority.acceptor(&[], true)).await;
    authority.sign("client", &["client.test"]);
    let known = Tls {
        cert: Some(authority.file("client.pem")),
        key: Some(authority.file("client.key")),
        ..trusting(&authority)
    };
    assert_served(&run(closed(&url, known)).await);
    // In TLS 1.3 a client learns only afterwards that it was not let in.
    let report = run(closed(&url, trusting(&authority))).await;
    assert_eq!(report.summary.error_count, 6, "{report:#?}");
    // Whether what the server says comes before it closes is up to the kernel.
    let kinds = [ErrorKind::Tls, ErrorKind::ClosedFresh];
    let errors = &report.summary.errors;
    assert!(
        errors.keys().all(|kind| kinds.contains(kind)),
        "{report:#?}"
    );
}

#[tokio::test]
async fn what_tls_cannot_use_is_named() {
    let authority = Authority::new();
    authority.sign("client", &["client.test"]);
    authority.sign("other", &["client.test"]);
    let file = |name: &str| authority.file(name).display().to_string();
    let (ca, cert, key, other) = (
        file("ca.pem"),
        file("client.pem"),
        file("client.key"),
        file("other.key"),
    );
    let url = "https://127.0.0.1:9/";
    for (args, words) in [
        (
            &["http://127.0.0.1:9/", "--tls-ca", &ca][..],
            ["--tls-ca", "https"],
        ),
        (
            &["http://127.0.0.1:9/", "--tls-insecure"],
            ["--tls-insecure", "https"],
        ),
        (
            &[url, "--tls-ca", "/nonexistent"],
            ["--tls-ca", "No such file"],
        ),
        (
            &[url, "--tls-ca", &key],
            ["--tls-ca", "PEM with a certificate"],
        ),
        (
            &[url, "--tls-ca", &ca, "--tls-insecure"],
            ["--tls-ca", "cannot be used with"],
        ),
        (&[url, "--tls-cert", &cert], ["--tls-key", "required"]),
        (&[url, "--tls-key", &key], ["--tls-cert", "required"]),
        (
            &[url, "--tls-ca", &ca, "--tls-cert", &cert, "--tls-key", &ca],
            ["--tls-key", "a private key"],
        ),
        (
            &[
                url,
                "--tls-ca",
                &ca,
                "--tls-cert",
                &cert,
                "--tls-key",
                &other,
            ],
            ["--tls-key", "the key of --tls-cert"],
        ),
        (
            &[url, "--tls-ca", &ca, "--tls-server-name", "a b"],
            ["--tls-server-name", "a host"],
        ),
    ] {
        let run = output(args).await;
        let error = text(&run.stderr);
        assert_eq!(run.status.code(), Some(2), "{args:?}: {error}");
        for word in words {
            assert!(error.contains(word), "{args:?}: {error}");
        }
    }
}

#[tokio::test]
async fn who_is_not_let_in_after_the_handshake_is_told_so_by_each_protocol() {
    let authority = Authority::new();
    let acceptor = authority.acceptor(&[b"h2", b"http/1.1"], true);
    let url = raw(move |stream: TcpStream| {
        let accept = acceptor.accept(stream).into_fallible();
        async move {
            // Kept open, so that what was said of it is not lost to a reset.
            if let Err((_, mut stream)) = accept.await {
                let mut rest = Vec::new();
                let _ = stream.read_to_end(&mut rest).await;
            }
        }
    })
    .await;
    let https = url.replace("http://", "https://");
    for http2 in [false, true] {
        let mut config = closed(&https, trusting(&authority));
        config.http2 = http2;
        assert_refused(&run(config).await, "CertificateRequired");
    }
    let wss = url.replace("http://", "wss://");
    let mut config = closed(&wss, trusting(&authority));
    config.protocol = Protocol::WebSocket { binary: false };
    assert_refused(&run(config).await, "CertificateRequired");
}

#[tokio::test]
async fn a_handshake_that_does_not_come_about_in_time_is_a_tls_error() {
    let authority = Authority::new();
    let url = raw(async |stream: TcpStream| {
        pending::<()>().await;
        drop(stream);
    })
    .await;
    let url = url.replace("http://", "https://");
    let mut config = closed(&url, trusting(&authority));
    (config.timeout, config.connections) = (Duration::from_millis(300), 6);
    assert_refused(&run(config).await, "no TLS handshake in time");
}

#[tokio::test]
async fn a_body_without_length_is_whole_only_if_tls_says_that_it_has_ended() {
    let authority = Authority::new();
    for says in [true, false] {
        let acceptor = authority.acceptor(&[], false);
        let url = raw(move |stream: TcpStream| {
            let acceptor = acceptor.clone();
            async move {
                let mut stream = acceptor.accept(stream).await.unwrap();
                let mut head = [0; 4096];
                while stream
                    .read(&mut head)
                    .await
                    .is_ok_and(|bytes| bytes == 4096)
                {}
                let answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhalf a body";
                stream.write_all(answer).await.unwrap();
                stream.flush().await.unwrap();
                if says {
                    stream.shutdown().await.unwrap();
                }
            }
        })
        .await;
        let url = url.replace("http://", "https://");
        let report = run(closed(&url, trusting(&authority))).await;
        let (summary, body) = (&report.summary, ErrorKind::Body);
        if says {
            assert_eq!(summary.successes, 6, "{report:#?}");
        } else {
            assert_eq!(summary.errors, [(body, 6)].into(), "{report:#?}");
        }
        assert_eq!(summary.body_bytes, 66);
    }
}
