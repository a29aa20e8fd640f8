//! Making keys and certificates: elliptic curve P-256, which every API server can check.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};

use super::state::{AUTHORITY_LIFE, Authority, BACKDATED, IssueError, SERVING_LIFE, Serving};

/// First and last moment, of a type that only rcgen names. A time before 1970 is taken for 1970.
macro_rules! validity {
    ($made:expr, $until:expr) => {{
        let at = |seconds: i64| {
            rcgen::date_time_ymd(1970, 1, 1)
                + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
        };
        (at($made - BACKDATED), at($until))
    }};
}

impl From<rcgen::Error> for IssueError {
    fn from(error: rcgen::Error) -> Self {
        Self(error.to_string())
    }
}

/// A new authority and its private key.
pub(super) fn authority(now: i64) -> Result<(Authority, String), IssueError> {
    let key = KeyPair::generate()?;
    let until = now + AUTHORITY_LIFE;
    let certificate = params_of_authority(now, until).self_signed(&key)?;
    let authority = Authority {
        made: now,
        until,
        certificate: certificate.pem(),
    };
    Ok((authority, key.serialize_pem()))
}

/// A new serving certificate. It does not outlive who signs it.
pub(super) fn serving(
    authority: &Authority,
    key_of_authority: &str,
    names: &[String],
    now: i64,
) -> Result<Serving, IssueError> {
    let signer = KeyPair::from_pem(key_of_authority)?;
    let issuer = Issuer::new(params_of_authority(authority.made, authority.until), signer);
    let key = KeyPair::generate()?;
    let until = (now + SERVING_LIFE).min(authority.until);
    let mut params = CertificateParams::new(names)?;
    (params.not_before, params.not_after) = validity!(now, until);
    params.distinguished_name = name("rouse-webhook");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, &issuer)?;
    Ok(Serving {
        made: now,
        until,
        signed_by: authority.made,
        names: names.to_vec(),
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    })
}

/// The same for the same times, since a certificate cannot be read back without one more library.
fn params_of_authority(made: i64, until: i64) -> CertificateParams {
    let mut params = CertificateParams::default();
    (params.not_before, params.not_after) = validity!(made, until);
    // A name of its own, so that two in one bundle are told apart.
    params.distinguished_name = name(&format!("rouse-webhook authority {made}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}
