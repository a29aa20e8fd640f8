//! Authorities, certificates and files of tests, and clients that know them.

use std::{fs, io, net::SocketAddr, sync::Arc, time::Duration};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    SanType, date_time_ymd,
};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use shared::http::tls::{
    ClientFiles, ClientTls, Clients, File, Mode, Protocol, ServerFiles, ServerTls,
};
use tempfile::TempDir;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream};

/// What servers are called here.
pub(crate) const NAME: &str = "pod.example";

/// An authority, and a folder for files.
pub(crate) struct Pki {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

fn crypto() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

impl Pki {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self {
            issuer: CertifiedIssuer::self_signed(params, key).unwrap(),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// A certificate for a name, which may be a SPIFFE ID.
    pub(crate) fn issue(&self, name: &str) -> Pair {
        self.issue_as(name, |_| {})
    }

    pub(crate) fn expired(&self, name: &str) -> Pair {
        self.issue_as(name, |params| params.not_after = date_time_ymd(2020, 1, 1))
    }

    fn issue_as(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Pair {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![if name.contains("://") {
            SanType::URI(name.try_into().unwrap())
        } else {
            SanType::DnsName(name.try_into().unwrap())
        }];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        Pair {
            certificate: params.signed_by(&key, &self.issuer).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    /// The authority's certificate, in PEM.
    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A file of this name with this text.
    pub(crate) fn file(&self, flag: &'static str, name: &str, text: &str) -> File {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        File { flag, path }
    }

    /// Writes the pair that a server of [`Self::server`] uses.
    pub(crate) fn write(&self, pair: &Pair) -> (File, File) {
        (
            self.file("--tls-certificate", "tls.crt", &pair.certificate),
            self.file("--tls-key", "tls.key", &pair.key),
        )
    }

    /// TLS of a pod that is called [`NAME`]. Over it, clients of `names` may connect, if there are some.
    pub(crate) fn server(&self, mode: Mode, names: &[&str]) -> ServerTls {
        self.server_as(NAME, mode, names)
    }

    /// The same, of another name.
    pub(crate) fn server_as(&self, name: &str, mode: Mode, names: &[&str]) -> ServerTls {
        let (certificate, key) = self.write(&self.issue(name));
        let files = ServerFiles {
            certificate,
            key,
            clients: (!names.is_empty()).then(|| Clients {
                ca: self.file("--tls-client-ca", "ca.crt", &self.pem()),
                names: names.iter().map(|name| name.parse().unwrap()).collect(),
            }),
            protocols: vec![Protocol::Http2, Protocol::Http11],
        };
        ServerTls::load(files, mode).unwrap()
    }

    /// TLS towards a model of this name.
    pub(crate) fn client(&self, name: &str, own: Option<&Pair>) -> ClientTls {
        let own = own.map(|pair| {
            let chain = self.file("--upstream-tls-certificate", "own.crt", &pair.certificate);
            (chain, self.file("--upstream-tls-key", "own.key", &pair.key))
        });
        let files = ClientFiles {
            ca: self.file("--upstream-tls-ca", "model-ca.crt", &self.pem()),
            name: name.parse().unwrap(),
            own,
        };
        ClientTls::load(files).unwrap()
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        Arc::new(roots)
    }

    /// A client that trusts this authority, and offers these protocols.
    pub(crate) fn connector(&self, protocols: &[&str], own: Option<&Pair>) -> TlsConnector {
        let builder = ClientConfig::builder_with_provider(crypto())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots());
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some(own) => builder
                .with_client_auth_cert(own.chain(), own.secret())
                .unwrap(),
        };
        let bytes = |name: &&str| name.as_bytes().to_vec();
        config.alpn_protocols = protocols.iter().map(bytes).collect();
        Arc::new(config).into()
    }

    /// What a model serves with. It wants a certificate if `clients` says so.
    pub(crate) fn acceptor(&self, pair: &Pair, protocols: &[&str], clients: bool) -> TlsAcceptor {
        let builder = ServerConfig::builder_with_provider(crypto())
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if clients {
            let verifier = WebPkiClientVerifier::builder_with_provider(self.roots(), crypto());
            builder.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let mut config = builder
            .with_single_cert(pair.chain(), pair.secret())
            .unwrap();
        let bytes = |name: &&str| name.as_bytes().to_vec();
        config.alpn_protocols = protocols.iter().map(bytes).collect();
        Arc::new(config).into()
    }
}

impl Pair {
    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        let found: Result<_, _> =
            CertificateDer::pem_slice_iter(self.certificate.as_bytes()).collect();
        found.unwrap()
    }

    fn secret(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap()
    }
}

/// A handshake with a pod.
pub(crate) async fn handshake(
    address: SocketAddr,
    connector: &TlsConnector,
) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let name = NAME.try_into().unwrap();
    let handshake = connector.connect(name, stream);
    let late = timeout(Duration::from_secs(10), handshake).await;
    late.expect("a handshake in time")
}
