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

/// A version of HTTP that a listener agrees to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1, which also stands for what says nothing.
    Http11,
    /// HTTP/2. Requests go on in it, so that what is behind the listener has to know it too.
    Http2,
}

impl Protocol {
    fn name(self) -> Vec<u8> {
        match self {
            Self::Http11 => HTTP_11,
            Self::Http2 => HTTP_2,
        }
        .to_vec()
    }
}

/// What a listener's TLS is made of.
#[derive(Clone, Debug)]
pub struct ServerFiles {
    /// The certificate and what leads from it to an authority.
    pub certificate: File,
    /// Its key.
    pub key: File,
    /// Who may connect; none for everybody.
    pub clients: Option<Clients>,
    /// What is agreed to, the first that the client knows. Most clients that know HTTP/2 take it where it is offered, whether or
    /// not the model behind knows it.
    pub protocols: Vec<Protocol>,
}

/// Clients that need a certificate (mutual TLS).
#[derive(Clone, Debug)]
pub struct Clients {
    /// Authorities to one of which it must lead.
    pub ca: File,
    /// Names of which it must have one; empty for any name.
    pub names: Vec<ClientName>,
}

/// The same certificates with two sets of protocols.
pub(super) struct Offers {
    asked: Arc<ServerConfig>,
    any: Arc<ServerConfig>,
}

/// TLS of a listener. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ServerTls {
    kept: Arc<Kept<ServerFiles>>,
    pub(in crate::http) mode: Mode,
    any_protocol: bool,
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
            any_protocol: false,
        })
    }

    /// The same for clients that ask for the one protocol in which their request goes on, as an activator does.
    #[must_use]
    pub fn any_protocol(self) -> Self {
        Self {
            any_protocol: true,
            ..self
        }
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
        let offers = self.kept.current();
        let config = if self.any_protocol {
            &offers.any
        } else {
            &offers.asked
        };
        let acceptor = TlsAcceptor::from(Arc::clone(config));
        acceptor.accept(stream).await.map(TlsStream::Server)
    }
}

impl Material for ServerFiles {
    type Made = Offers;

    fn files(&self) -> Vec<&File> {
        [&self.certificate, &self.key]
            .into_iter()
            .chain(self.clients.as_ref().map(|clients| &clients.ca))
            .collect()
    }

    fn make(&self, contents: &[Vec<u8>], now: UnixTime) -> Result<Offers, TlsError> {
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
        let builder = match (&self.clients, authorities) {
            (None, []) => builder.with_no_client_auth(),
            (Some(Clients { ca: file, names }), [pem]) => {
                let roots = Arc::new(file.authorities(pem)?);
                let chain = WebPkiClientVerifier::builder_with_provider(roots, provider())
                    .build()
                    .map_err(|error| file.unusable(format!("cannot be used: {error}")))?;
                builder.with_client_cert_verifier(if names.is_empty() {
                    chain
                } else {
                    Arc::new(NamedClients {
                        chain,
                        names: names.clone(),
                    })
                })
            }
            _ => return Err(self.certificate.unusable("was not read")),
        };
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(own)));
        if self.clients.is_some() {
            // A session that is resumed is not verified again: it could outlive the client's certificate by a day.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        } else {
            config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
        }
        let with = |protocols: &[Protocol]| {
            let mut config = config.clone();
            config.alpn_protocols = protocols.iter().map(|protocol| protocol.name()).collect();
            Arc::new(config)
        };
        Ok(Offers {
            asked: with(&self.protocols),
            any: with(&[Protocol::Http2, Protocol::Http11]),
        })
    }
}
