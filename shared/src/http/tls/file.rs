//! Files with certificates and keys, in PEM, and what can be wrong with them.

use std::{fs, io::Read as _, path::PathBuf};

use rustls::{
    CertificateError, Error, InconsistentKeys, RootCertStore,
    client::verify_server_cert_signed_by_trust_anchor,
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject as _},
    server::ParsedCertificate,
    sign::CertifiedKey,
};

use super::provider;

/// Most bytes of a file. A Secret of Kubernetes has at most as many.
const MOST_BYTES: u64 = 1024 * 1024;

/// A file, and the flag that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// As it is typed, e.g. `--tls-key`.
    pub flag: &'static str,
    /// Where it is.
    pub path: PathBuf,
}

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{flag} {}: {why}", path.display())]
pub struct TlsError {
    flag: &'static str,
    path: PathBuf,
    why: String,
}

impl File {
    pub(super) fn unusable(&self, why: impl Into<String>) -> TlsError {
        TlsError {
            flag: self.flag,
            path: self.path.clone(),
            why: why.into(),
        }
    }

    /// Reads it whole.
    pub(super) fn read(&self) -> Result<Vec<u8>, TlsError> {
        let mut bytes = Vec::new();
        let read = fs::File::open(&self.path)
            .and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut bytes));
        match read {
            Err(error) => Err(self.unusable(format!("cannot be read: {error}"))),
            Ok(_) if bytes.len() as u64 > MOST_BYTES => {
                Err(self.unusable("has more than 1 MiB, which no certificate or key has"))
            }
            Ok(_) => Ok(bytes),
        }
    }

    fn certificates(&self, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let found = found.map_err(|error| self.unusable(format!("is not PEM: {error}")))?;
        if found.is_empty() {
            return Err(self.unusable("has no certificate: expected PEM with BEGIN CERTIFICATE"));
        }
        Ok(found)
    }

    /// Authorities, all of them usable.
    pub(super) fn authorities(&self, pem: &[u8]) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        for (at, certificate) in self.certificates(pem)?.into_iter().enumerate() {
            roots.add(certificate).map_err(|error| {
                self.unusable(format!(
                    "its certificate number {} cannot be used: {error}",
                    at + 1
                ))
            })?;
        }
        Ok(roots)
    }
}

/// A certificate with its chain, and the key that belongs to it; valid at `now`. One that becomes valid later is taken: clocks
/// differ by a second, and certificates are used in the second in which they are made.
pub(super) fn certified(
    (certificate, chain): (&File, &[u8]),
    (key, secret): (&File, &[u8]),
    now: UnixTime,
) -> Result<CertifiedKey, TlsError> {
    let chain = certificate.certificates(chain)?;
    check_end(certificate, &chain[0], now)?;
    let secret = PrivateKeyDer::from_pem_slice(secret).map_err(|error| {
        key.unusable(format!(
            "has no private key: expected PEM, not encrypted ({error})"
        ))
    })?;
    CertifiedKey::from_der(chain, secret, &provider()).map_err(|error| match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => key.unusable(format!(
            "is not the key of the certificate of {} {}",
            certificate.flag,
            certificate.path.display()
        )),
        error => key.unusable(format!("cannot be used: {error}")),
    })
}

/// Checks that the certificate can be read and has not expired.
fn check_end(file: &File, end: &CertificateDer<'_>, now: UnixTime) -> Result<(), TlsError> {
    let parsed = ParsedCertificate::try_from(end)
        .map_err(|error| file.unusable(format!("its first certificate cannot be used: {error}")))?;
    // Nothing is trusted here, so that it always fails; time is looked at before trust is.
    let known = provider().signature_verification_algorithms.all;
    let none = RootCertStore::empty();
    match verify_server_cert_signed_by_trust_anchor(&parsed, &none, &[], now, known) {
        Err(Error::InvalidCertificate(
            expired @ (CertificateError::Expired | CertificateError::ExpiredContext { .. }),
        )) => Err(file.unusable(format!("its first certificate has expired: {expired}"))),
        _ => Ok(()),
    }
}
