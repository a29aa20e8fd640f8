//! The server's side.

use std::{io, sync::Arc};

use rustls::{
    ServerConfig,
    pki_types::UnixTime,
    server::{NoServerSessionStorage, ServerSessionMemoryCache, WebPkiClientVerifier},
    sign::SingleCertAndKey,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, TlsStream};

use super::{
    HTTP_2, HTTP_11, Look, TlsError,
    file::{File, certified},
    name::ClientName,
    provider,
    reload::{Kept, Material},
    verify::NamedClients,
};

/// Sessions that clients without certificates may resume. A full handshake costs well below a millisecond, so that forgetting the
/// oldest is cheap; each takes about a kilobyte.
const SESSIONS: usize = 1024;

/// Which connections a listener takes. The words are Istio's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// TLS and nothing else.
    Strict,
    /// TLS if the first byte says so, else without. Nobody is kept out by it: whoever has no certificate comes without TLS.
    Permissive,
}

/// What a listener's TLS is made of.
#[derive(Clone, Debug)]
pub struct ServerFiles {
    /// The certificate and what leads from it to an authority.
    pub certificate: File,
    /// Its key.
    pub key: File,
    /// Authorities of clients. With it, a client needs a certificate (mutual TLS).
    pub client_ca: Option<File>,
    /// Who of the clients that have one may connect; empty for all of them. Without `client_ca` nobody may be named.
    pub client_names: Vec<ClientName>,
}

/// TLS of a listener. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ServerTls {
    kept: Arc<Kept<ServerFiles>>,
    pub(in crate::http) mode: Mode,
}

impl ServerTls {
    /// Reads the files. May wait for a disk.
    ///
    /// # Errors
    /// Names the file that is missing, is not what it should be, does not fit, or has expired.
    pub fn load(files: ServerFiles, mode: Mode) -> Result<Self, TlsError> {
        Ok(Self {
            kept: Arc::new(Kept::load(files, UnixTime::now())?),
            mode,
        })
    }

    /// Looks whether the files have changed. May wait for a disk.
    pub fn look(&self) -> Look {
        self.kept.look(UnixTime::now())
    }

    /// Looks every few seconds, for ever.
    pub async fn follow(self) {
        self.kept.follow().await;
    }

    /// A handshake. There is no limit on its time here.
    pub(in crate::http) async fn accept<S>(&self, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let acceptor = TlsAcceptor::from(self.kept.current());
        acceptor.accept(stream).await.map(TlsStream::Server)
    }
}

impl Material for ServerFiles {
    type Made = ServerConfig;

    fn files(&self) -> Vec<&File> {
        [&self.certificate, &self.key]
            .into_iter()
            .chain(&self.client_ca)
            .collect()
    }

    fn make(&self, contents: &[Vec<u8>], now: UnixTime) -> Result<ServerConfig, TlsError> {
        let [certificate, key, authorities @ ..] = contents else {
            return Err(self.certificate.unusable("was not read"));
        };
        let own = certified((&self.certificate, certificate), (&self.key, key), now)?;
        let refused = |error: &dyn std::fmt::Display| {
            self.certificate
                .unusable(format!("cannot be used: {error}"))
        };
        // No early data: it could be sent twice, by anybody.
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| refused(&error))?;
        let builder = match (&self.client_ca, authorities) {
            (Some(file), [pem]) => {
                let roots = Arc::new(file.authorities(pem)?);
                let chain = WebPkiClientVerifier::builder_with_provider(roots, provider())
                    .build()
                    .map_err(|error| file.unusable(format!("cannot be used: {error}")))?;
                builder.with_client_cert_verifier(if self.client_names.is_empty() {
                    chain
                } else {
                    Arc::new(NamedClients {
                        chain,
                        names: self.client_names.clone(),
                    })
                })
            }
            _ => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(own)));
        config.alpn_protocols = vec![HTTP_2.to_vec(), HTTP_11.to_vec()];
        if self.client_ca.is_some() {
            // A session that is resumed is not verified again: it could outlive the client's certificate by a day.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        } else {
            config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
        }
        Ok(config)
    }
}
