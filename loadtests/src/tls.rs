//! TLS: what is trusted, who we are, and for whom we take the other side.
//!
//! rustls with ring, versions 1.2 and 1.3. Sessions are not resumed: each connection stands for a client that comes for the first
//! time. Revocation is not looked at.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
};

use crate::error::Error;

/// Most bytes of a file: a bundle of all public authorities has some 250 KB.
const MOST_BYTES: u64 = 8 * 1024 * 1024;
/// How HTTP/2 is called in a handshake (RFC 9113, section 3.2).
pub(crate) const HTTP_2: &[u8] = b"h2";
/// How HTTP/1.1 is (RFC 7301, section 6).
const HTTP_11: &[u8] = b"http/1.1";

/// TLS as it is typed; only for URLs with https or wss.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct Tls {
    /// Trust the certificate authorities in this file (PEM) instead of the system's.
    #[arg(
        id = "tls_ca",
        long = "tls-ca",
        value_name = "FILE",
        help_heading = "TLS"
    )]
    pub ca: Option<PathBuf>,

    /// Accept any certificate. The report says so.
    #[arg(
        id = "tls_insecure",
        long = "tls-insecure",
        conflicts_with = "tls_ca",
        help_heading = "TLS"
    )]
    pub insecure: bool,

    /// The certificate of this client (PEM), followed by those between it and its authority.
    #[arg(
        id = "tls_cert",
        long = "tls-cert",
        value_name = "FILE",
        requires = "tls_key",
        help_heading = "TLS"
    )]
    pub cert: Option<PathBuf>,

    /// The private key of --tls-cert (PEM).
    #[arg(
        id = "tls_key",
        long = "tls-key",
        value_name = "FILE",
        requires = "tls_cert",
        help_heading = "TLS"
    )]
    pub key: Option<PathBuf>,

    /// The name that is asked for and that the certificate has to be for [default: the host of the URL].
    #[arg(
        id = "tls_server_name",
        long = "tls-server-name",
        value_name = "NAME",
        help_heading = "TLS"
    )]
    pub server_name: Option<String>,
}

impl Tls {
    /// The first flag that was given, and its value.
    pub(crate) fn given(&self) -> Option<(&'static str, String)> {
        let shown = |path: &PathBuf| path.display().to_string();
        let files = [
            ("--tls-ca", self.ca.as_ref().map(shown)),
            ("--tls-cert", self.cert.as_ref().map(shown)),
            ("--tls-key", self.key.as_ref().map(shown)),
            ("--tls-server-name", self.server_name.clone()),
            ("--tls-insecure", self.insecure.then(|| "true".to_owned())),
        ];
        files
            .into_iter()
            .find_map(|(flag, value)| Some((flag, value?)))
    }

    /// What connections to `host` are made with. Reads the files.
    pub(crate) fn connector(&self, host: &str, http2: bool) -> Result<Connector, Error> {
        let (flag, name) = match &self.server_name {
            Some(name) => ("--tls-server-name", name.as_str()),
            None => ("URL", host),
        };
        let server = ServerName::try_from(name.to_owned())
            .map_err(|_| Error::invalid(flag, name, "the name of a host, or an IP address"))?;
        let provider = Arc::new(ring::default_provider());
        let anybody = Anybody(provider.signature_verification_algorithms);
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has ciphers for both versions");
        let builder = if self.insecure {
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(anybody))
        } else {
            builder.with_root_certificates(self.roots()?)
        };
        let mut config = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => {
                let chain = certificates("--tls-cert", cert)?;
                let shown = key.display().to_string();
                let wrong = |what: String| Error::invalid("--tls-key", &shown, what);
                let key = PrivateKeyDer::from_pem_slice(&read("--tls-key", key)?)
                    .map_err(|error| wrong(format!("PEM with a private key ({error})")))?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| wrong(format!("the key of --tls-cert ({error})")))?
            }
            _ => builder.with_no_client_auth(),
        };
        config.resumption = Resumption::disabled();
        config.alpn_protocols = vec![if http2 { HTTP_2 } else { HTTP_11 }.to_vec()];
        Ok(Connector {
            tls: tokio_rustls::TlsConnector::from(Arc::new(config)),
            server,
            http2,
        })
    }

    /// Those of the file, or of the system. A list of our own would be older than the machine's, and would not know what its
    /// administrator added.
    fn roots(&self) -> Result<RootCertStore, Error> {
        let mut roots = RootCertStore::empty();
        if let Some(path) = &self.ca {
            for certificate in certificates("--tls-ca", path)? {
                roots.add(certificate).map_err(|error| {
                    let allowed = format!("certificates that can be used ({error})");
                    Error::invalid("--tls-ca", path.display().to_string(), allowed)
                })?;
            }
            return Ok(roots);
        }
        // Some of what a system has may be of no use; a missing authority shows in the handshake.
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            let first = found.errors.first();
            let why = first.map_or_else(String::new, |error| format!(": {error}"));
            let allowed = format!(
                "a file with the authorities to trust, or --tls-insecure: this system has none (see SSL_CERT_FILE){why}"
            );
            return Err(Error::invalid("--tls-ca", "", allowed));
        }
        Ok(roots)
    }
}

/// Makes connections of TLS.
#[derive(Clone)]
pub(crate) struct Connector {
    pub(crate) tls: tokio_rustls::TlsConnector,
    pub(crate) server: ServerName<'static>,
    /// Whether the other side has to agree to HTTP/2.
    pub(crate) http2: bool,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector")
            .field("server", &self.server)
            .field("http2", &self.http2)
            .finish_non_exhaustive()
    }
}

fn read(flag: &'static str, path: &Path) -> Result<Vec<u8>, Error> {
    let wrong = |what: String| Error::invalid(flag, path.display().to_string(), what);
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|e| wrong(format!("a readable file ({e})")))?;
    file.take(MOST_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| wrong(format!("a readable file ({e})")))?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(wrong("PEM of at most 8 MiB".to_owned()));
    }
    Ok(bytes)
}

fn certificates(flag: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let pem = read(flag, path)?;
    let wrong = |what: String| Error::invalid(flag, path.display().to_string(), what);
    let found: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| wrong(format!("PEM ({error})")))?;
    if found.is_empty() {
        return Err(wrong("PEM with a certificate".to_owned()));
    }
    Ok(found)
}

/// Takes whoever answers. That the other side has the key of its certificate is still checked: a broken handshake is none.
#[derive(Debug)]
struct Anybody(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
