//! What the other end is called: the names that a certificate must have.

use std::str::FromStr;

use rustls::pki_types::{CertificateDer, DnsName, ServerName};
use webpki::EndEntityCert;

use super::spiffe::Pattern;

/// Who may connect: a certificate needs one of these among its subject alternative names. Its common name does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientName(Client);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Client {
    /// Letter for letter but for their case: a `*` of the certificate stands for nothing but itself.
    Dns(DnsName<'static>),
    Spiffe(Pattern),
}

/// Who an upstream has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerIdentity(pub(super) Server);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Server {
    /// By DNS name or address, as RFC 9525 has it; it is told to the other side too (SNI).
    Name(ServerName<'static>),
    Spiffe(Pattern),
}

/// A text is no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a name: expected {allowed}spiffe://DOMAIN/PATH, whose last segment may be * for any rest of the path"
)]
pub struct InvalidName {
    text: String,
    allowed: &'static str,
}

impl FromStr for ClientName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(pattern) = Pattern::parse(text) {
            return Ok(Self(Client::Spiffe(pattern)));
        }
        match DnsName::try_from(text.to_owned()) {
            Ok(name) => Ok(Self(Client::Dns(name))),
            Err(_) => Err(InvalidName {
                text: text.to_owned(),
                allowed: "a DNS name, or ",
            }),
        }
    }
}

impl FromStr for ServerIdentity {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(pattern) = Pattern::parse(text) {
            return Ok(Self(Server::Spiffe(pattern)));
        }
        match ServerName::try_from(text.to_owned()) {
            Ok(name) => Ok(Self(Server::Name(name))),
            Err(_) => Err(InvalidName {
                text: text.to_owned(),
                allowed: "a DNS name, an IP address, or ",
            }),
        }
    }
}

impl ClientName {
    /// Whether `certificate` has this name.
    pub(super) fn is_of(&self, certificate: &CertificateDer<'_>) -> bool {
        match &self.0 {
            Client::Spiffe(pattern) => has_id(certificate, pattern),
            Client::Dns(name) => EndEntityCert::try_from(certificate).is_ok_and(|certificate| {
                certificate
                    .valid_dns_names()
                    .any(|dns| dns.eq_ignore_ascii_case(name.as_ref()))
            }),
        }
    }
}

/// Whether a certificate is that of an ID. With several URIs it is nobody's
/// (<https://spiffe.io/docs/latest/spiffe-specs/x509-svid>, section 2).
pub(super) fn has_id(certificate: &CertificateDer<'_>, pattern: &Pattern) -> bool {
    let Ok(certificate) = EndEntityCert::try_from(certificate) else {
        return false;
    };
    let mut uris = certificate.valid_uri_names();
    matches!((uris.next(), uris.next()), (Some(id), None) if pattern.matches(id))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn certificate(uris: &[&str], dns: &[&str]) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        let uri = |name: &&str| SanType::URI((*name).try_into().unwrap());
        let dns_name = |name: &&str| SanType::DnsName((*name).try_into().unwrap());
        params.subject_alt_names = uris
            .iter()
            .map(uri)
            .chain(dns.iter().map(dns_name))
            .collect();
        // A common name is no name.
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "common.example");
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn a_client_is_known_by_its_alternative_names_alone() {
        let both = certificate(&["spiffe://a/ns/x"], &["one.example", "*.wild.example"]);
        let two = certificate(&["spiffe://a/ns/x", "spiffe://a/ns/y"], &[]);
        for (certificate, name, expected) in [
            (&both, "spiffe://a/ns/x", true),
            (&both, "spiffe://a/*", true),
            (&both, "spiffe://a/ns/y", false),
            (&both, "ONE.example", true),
            (&both, "two.example", false),
            (&both, "a.wild.example", false),
            (&both, "common.example", false),
            (&two, "spiffe://a/ns/x", false),
        ] {
            let name: ClientName = name.parse().unwrap();
            assert_eq!(name.is_of(certificate), expected, "{name:?}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused_with_what_is() {
        for text in ["", "a b", "spiffe://A/b", "spiffe://a/*/b", "*.example"] {
            let error = text.parse::<ClientName>().unwrap_err().to_string();
            assert!(error.contains("a DNS name, or spiffe://"), "{error}");
            assert!(text.parse::<ServerIdentity>().is_err(), "{text}");
        }
        assert!("10.0.0.1".parse::<ServerIdentity>().is_ok());
        assert!("10.0.0.1".parse::<ClientName>().is_err());
    }
}
