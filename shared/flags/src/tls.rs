//! Flags of TLS. Which of them go together is checked before a file is looked at.

use std::path::{Path, PathBuf};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use shared::http::tls::{
    ClientFiles, ClientName, ClientTls, Clients, File, Mode, Protocol, ServerFiles, ServerIdentity,
    ServerTls, TlsError,
};

// Of the ports that requests come in by.
#[expect(
    missing_docs,
    reason = "they would become the program's: see the crate"
)]
#[derive(Debug, clap::Args)]
pub struct Listeners {
    /// Certificate of the ports for requests, those of activators among them, with its chain, in PEM: they speak TLS then.
    /// This and the other files of TLS are read again when they change.
    #[arg(
        long = "tls-certificate",
        env = "ROUSE_TLS_CERTIFICATE",
        requires = "key",
        value_name = "FILE"
    )]
    certificate: Option<PathBuf>,

    /// Key of --tls-certificate, in PEM, not encrypted.
    #[arg(
        long = "tls-key",
        env = "ROUSE_TLS_KEY",
        requires = "certificate",
        value_name = "FILE"
    )]
    key: Option<PathBuf>,

    /// What is taken: strict is TLS alone, permissive also connections without it, of which no certificate is asked then.
    #[arg(long = "tls-mode", env = "ROUSE_TLS_MODE", default_value = "strict", value_parser = mode(), requires = "certificate", value_name = "MODE")]
    mode: Mode,

    /// Versions of HTTP to agree on, best first: http/1.1 or h2, or both. With h2 most clients speak HTTP/2, and their requests go on
    /// in it: for models that know it.
    #[arg(long = "tls-protocols", env = "ROUSE_TLS_PROTOCOLS", default_value = "http/1.1", value_parser = protocol(), value_delimiter = ',', requires = "certificate", value_name = "PROTOCOLS")]
    protocols: Vec<Protocol>,

    /// Authorities of clients, in PEM: over TLS each needs a certificate of theirs.
    #[arg(
        long = "tls-client-ca",
        env = "ROUSE_TLS_CLIENT_CA",
        requires = "certificate",
        value_name = "FILE"
    )]
    client_ca: Option<PathBuf>,

    /// Who may connect over TLS: a DNS name or SPIFFE ID of the client's certificate, of which a last segment * stands for any rest
    /// of the path. May be repeated [default: whoever has a certificate].
    #[arg(
        long = "tls-client-name",
        env = "ROUSE_TLS_CLIENT_NAMES",
        requires = "client_ca",
        value_delimiter = ',',
        value_name = "NAME"
    )]
    client_name: Vec<ClientName>,
}

// Of connections to those who answer: the model, or sidecars.
#[expect(
    missing_docs,
    reason = "they would become the program's: see the crate"
)]
#[expect(
    clippy::struct_field_names,
    reason = "they are the ids of flags, and the other group has the short ones"
)]
#[derive(Debug, clap::Args)]
pub struct Upstream {
    /// Authorities of the upstream (of a sidecar: its model; of an activator: sidecars), in PEM: connections to it speak TLS then. Those of the system do not count.
    #[arg(
        long = "upstream-tls-ca",
        env = "ROUSE_UPSTREAM_TLS_CA",
        requires = "upstream_name",
        value_name = "FILE"
    )]
    upstream_ca: Option<PathBuf>,

    /// Name that the upstream's certificate must have: a DNS name, an address, or a SPIFFE ID, of which a last segment * stands for any
    /// rest of the path.
    #[arg(
        long = "upstream-tls-name",
        env = "ROUSE_UPSTREAM_TLS_NAME",
        requires = "upstream_ca",
        value_name = "NAME"
    )]
    upstream_name: Option<ServerIdentity>,

    /// Certificate to show to it, with its chain, in PEM.
    #[arg(long = "upstream-tls-certificate", env = "ROUSE_UPSTREAM_TLS_CERTIFICATE", requires_all = ["upstream_ca", "upstream_key"], value_name = "FILE")]
    upstream_certificate: Option<PathBuf>,

    /// Key of --upstream-tls-certificate, in PEM, not encrypted.
    #[arg(
        long = "upstream-tls-key",
        env = "ROUSE_UPSTREAM_TLS_KEY",
        requires = "upstream_certificate",
        value_name = "FILE"
    )]
    upstream_key: Option<PathBuf>,
}

impl Listeners {
    /// What was asked for, if it was. Reads the files.
    ///
    /// # Errors
    /// When one of them cannot be used.
    pub fn load(&self) -> Result<Option<ServerTls>, TlsError> {
        let (Some(certificate), Some(key)) = (&self.certificate, &self.key) else {
            return Ok(None);
        };
        let files = ServerFiles {
            certificate: file("--tls-certificate", certificate),
            key: file("--tls-key", key),
            clients: self.client_ca.as_deref().map(|ca| Clients {
                ca: file("--tls-client-ca", ca),
                names: self.client_name.clone(),
            }),
            protocols: self.protocols.clone(),
        };
        ServerTls::load(files, self.mode).map(Some)
    }
}

impl Upstream {
    /// What was asked for, if it was. Reads the files.
    ///
    /// # Errors
    /// When one of them cannot be used.
    pub fn load(&self) -> Result<Option<ClientTls>, TlsError> {
        let (Some(ca), Some(name)) = (&self.upstream_ca, &self.upstream_name) else {
            return Ok(None);
        };
        let own = self
            .upstream_certificate
            .as_deref()
            .zip(self.upstream_key.as_deref());
        let files = ClientFiles {
            ca: file("--upstream-tls-ca", ca),
            name: name.clone(),
            own: own.map(|(certificate, key)| {
                (
                    file("--upstream-tls-certificate", certificate),
                    file("--upstream-tls-key", key),
                )
            }),
        };
        ClientTls::load(files).map(Some)
    }
}

fn file(flag: &'static str, path: &Path) -> File {
    File {
        flag,
        path: path.to_owned(),
    }
}

fn mode() -> impl TypedValueParser<Value = Mode> {
    PossibleValuesParser::new(["strict", "permissive"]).map(|word| match word.as_str() {
        "permissive" => Mode::Permissive,
        _ => Mode::Strict,
    })
}

fn protocol() -> impl TypedValueParser<Value = Protocol> {
    PossibleValuesParser::new(["http/1.1", "h2"]).map(|word| match word.as_str() {
        "h2" => Protocol::Http2,
        _ => Protocol::Http11,
    })
}
