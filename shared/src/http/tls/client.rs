//! The client's side.

use std::{io, net::IpAddr, sync::Arc};

use rustls::{
    ClientConfig,
    client::WebPkiServerVerifier,
    pki_types::{ServerName, UnixTime},
    sign::SingleCertAndKey,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, TlsStream};

use super::{
    HTTP_2, HTTP_11, Look, TlsError,
    file::{File, certified},
    name::{Server, ServerIdentity},
    provider,
    reload::{Kept, Material},
    unverified::unverified,
    verify::SpiffeServer,
};

/// What TLS to an upstream is made of.
#[derive(Clone, Debug)]
pub struct ClientFiles {
    /// The authorities that are trusted, and no others.
    pub ca: File,
    /// Who the upstream has to be.
    pub name: ServerIdentity,
    /// A certificate with its chain, and its key, for an upstream that asks for one.
    pub own: Option<(File, File)>,
}

/// TLS to an upstream. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ClientTls(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Verified(Arc<Kept<ClientFiles>>),
    /// For probes, and nothing else: see [`unverified`].
    Probe,
}

/// One configuration for each version of HTTP, since each offers nothing else.
pub(super) struct Offers {
    pub(super) http1: Arc<ClientConfig>,
    pub(super) http2: Arc<ClientConfig>,
}

/// The address takes connections, and TLS with it did not come about. Nothing of a request was sent.
#[derive(Debug, thiserror::Error)]
#[error("no TLS with the upstream: {0}")]
pub struct HandshakeError(#[source] io::Error);

impl ClientTls {
    /// Reads the files. May wait for a disk.
    ///
    /// # Errors
    /// Names the file that is missing, is not what it should be, does not fit, or has expired.
    pub fn load(files: ClientFiles) -> Result<Self, TlsError> {
        let kept = Kept::load(files, UnixTime::now())?;
        Ok(Self(Kind::Verified(Arc::new(kept))))
    }

    /// As the kubelet asks over HTTPS: whoever answers is believed.
    pub(in crate::http) fn of_probe() -> Self {
        Self(Kind::Probe)
    }

    /// Looks whether the files have changed. May wait for a disk.
    pub fn look(&self) -> Look {
        match &self.0 {
            Kind::Verified(kept) => kept.look(UnixTime::now()),
            Kind::Probe => Look::Same,
        }
    }

    /// Looks every few seconds, for ever.
    pub async fn follow(self) {
        match self.0 {
            Kind::Verified(kept) => kept.follow().await,
            Kind::Probe => std::future::pending().await,
        }
    }

    /// A handshake, for HTTP/2 or HTTP/1.1. There is no limit on its time here.
    pub(in crate::http) async fn connect<S>(
        &self,
        stream: S,
        address: IpAddr,
        http2: bool,
    ) -> Result<TlsStream<S>, HandshakeError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let of = |offers: &Offers| Arc::clone(if http2 { &offers.http2 } else { &offers.http1 });
        // An address is told to nobody (RFC 6066 section 3).
        let (config, name) = match &self.0 {
            Kind::Verified(kept) => (of(&kept.current()), kept.material.server_name(address)),
            Kind::Probe => (of(unverified()), ServerName::from(address)),
        };
        let stream = TlsConnector::from(config)
            .connect(name, stream)
            .await
            .map_err(HandshakeError)?;
        // Who was offered HTTP/2 alone and says nothing does not know it.
        if http2 && stream.get_ref().1.alpn_protocol() != Some(HTTP_2) {
            let error = io::Error::new(io::ErrorKind::Unsupported, "it does not speak HTTP/2");
            return Err(HandshakeError(error));
        }
        Ok(TlsStream::Client(stream))
    }
}

impl ClientFiles {
    fn server_name(&self, address: IpAddr) -> ServerName<'static> {
        match &self.name.0 {
            Server::Name(name) => name.clone(),
            Server::Spiffe(_) => address.into(),
        }
    }
}

impl Offers {
    /// Of what has all but its protocols.
    pub(super) fn of(config: &ClientConfig) -> Self {
        let with = |protocol: &[u8]| {
            let mut config = config.clone();
            config.alpn_protocols = vec![protocol.to_vec()];
            Arc::new(config)
        };
        Self {
            http1: with(HTTP_11),
            http2: with(HTTP_2),
        }
    }
}

impl Material for ClientFiles {
    type Made = Offers;

    fn files(&self) -> Vec<&File> {
        let own = self.own.iter().flat_map(|(chain, key)| [chain, key]);
        std::iter::once(&self.ca).chain(own).collect()
    }

    fn make(&self, contents: &[Vec<u8>], now: UnixTime) -> Result<Offers, TlsError> {
        let [authorities, own @ ..] = contents else {
            return Err(self.ca.unusable("was not read"));
        };
        let refused =
            |error: &dyn std::fmt::Display| self.ca.unusable(format!("cannot be used: {error}"));
        let roots = self.ca.authorities(authorities)?;
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| refused(&error))?;
        let builder = match &self.name.0 {
            Server::Name(_) => {
                let verifier =
                    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider());
                builder.with_webpki_verifier(verifier.build().map_err(|error| refused(&error))?)
            }
            // Not dangerous: it verifies another name than the library knows how to.
            Server::Spiffe(id) => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(SpiffeServer {
                    roots,
                    id: id.clone(),
                    algorithms: provider().signature_verification_algorithms,
                })),
        };
        let config = match (&self.own, own) {
            (Some((chain, key)), [chain_pem, key_pem]) => {
                let own = certified((chain, chain_pem), (key, key_pem), now)?;
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own)))
            }
            (None, []) => builder.with_no_client_auth(),
            _ => return Err(self.ca.unusable("was not read")),
        };
        Ok(Offers::of(&config))
    }
}
