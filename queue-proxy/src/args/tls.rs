//! Flags of TLS. Which of them go together is checked before a file is looked at.

use std::path::{Path, PathBuf};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use shared::http::tls::{
    ClientFiles, ClientName, ClientTls, Clients, File, Mode, Protocol, ServerFiles, ServerIdentity,
    ServerTls, TlsError,
};

// No comments of documentation on the two: they would replace the program's.

// Of the ports for clients and activators.
#[derive(Debug, clap::Args)]
pub(super) struct Listeners {
    /// Certificate of the request ports and the port for activators, with its chain, in PEM: they speak TLS then.
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

// Of connections to the model.
#[expect(
    clippy::struct_field_names,
    reason = "they are the ids of flags, and the other group has the short ones"
)]
#[derive(Debug, clap::Args)]
pub(super) struct Model {
    /// Authorities of the model, in PEM: connections to it speak TLS then. Those of the system do not count.
    #[arg(
        long = "model-tls-ca",
        env = "ROUSE_MODEL_TLS_CA",
        requires = "model_name",
        value_name = "FILE"
    )]
    model_ca: Option<PathBuf>,

    /// Name that the model's certificate must have: a DNS name, an address, or a SPIFFE ID, of which a last segment * stands for any
    /// rest of the path.
    #[arg(
        long = "model-tls-name",
        env = "ROUSE_MODEL_TLS_NAME",
        requires = "model_ca",
        value_name = "NAME"
    )]
    model_name: Option<ServerIdentity>,

    /// Certificate to show to it, with its chain, in PEM.
    #[arg(long = "model-tls-certificate", env = "ROUSE_MODEL_TLS_CERTIFICATE", requires_all = ["model_ca", "model_key"], value_name = "FILE")]
    model_certificate: Option<PathBuf>,

    /// Key of --model-tls-certificate, in PEM, not encrypted.
    #[arg(
        long = "model-tls-key",
        env = "ROUSE_MODEL_TLS_KEY",
        requires = "model_certificate",
        value_name = "FILE"
    )]
    model_key: Option<PathBuf>,
}

impl Listeners {
    /// What was asked for, if it was.
    pub(super) fn load(&self) -> Result<Option<ServerTls>, TlsError> {
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

impl Model {
    /// What was asked for, if it was.
    pub(super) fn load(&self) -> Result<Option<ClientTls>, TlsError> {
        let (Some(ca), Some(name)) = (&self.model_ca, &self.model_name) else {
            return Ok(None);
        };
        let own = self
            .model_certificate
            .as_deref()
            .zip(self.model_key.as_deref());
        let files = ClientFiles {
            ca: file("--model-tls-ca", ca),
            name: name.clone(),
            own: own.map(|(certificate, key)| {
                (
                    file("--model-tls-certificate", certificate),
                    file("--model-tls-key", key),
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
