//! The certificate by which the API server knows us: an authority of our own, made and renewed without anybody's help.
//!
//! [`State`] is what the activators share, in one Secret; [`due`] says as a pure function of the time what has to be renewed;
//! [`Keeper`] carries it out and keeps the bundle of authorities in the two webhook configurations in step.
//!
//! An authority lives for a year and a serving certificate for 30 days; each is renewed at two thirds of its life, which
//! leaves four months and ten days in which renewal may fail. A year and not ten: what happens only once a decade is not
//! known to work. A new authority is first only trusted beside the old one, and signs after [`OVERLAP`], when every API server
//! has had time to learn of it. The old one stays in the bundle until it expires. So at no time is a certificate served that
//! an API server does not trust.

mod issue;
mod keep;
mod state;

pub use keep::{KeepError, Keeper, Place};
pub use state::{Authority, Due, IssueError, OVERLAP, Serving, State, due};

use std::sync::Arc;

use parking_lot::RwLock;
use rustls::{
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

/// The certificate in use, which may be replaced while connections are taken: new ones get the new one. Before there is one,
/// no connection comes about.
#[derive(Debug, Default)]
pub struct Current(RwLock<Option<Arc<CertifiedKey>>>);

impl Current {
    /// Takes the one of `state` from now on. What cannot be used changes nothing.
    ///
    /// # Errors
    /// [`Unusable`] if there is none, or key and certificate do not fit.
    pub fn set(&self, state: &State) -> Result<(), Unusable> {
        let key = certified(state)?;
        *self.0.write() = Some(Arc::new(key));
        Ok(())
    }

    /// Whether there is one: before that, nobody can ask.
    pub fn is_set(&self) -> bool {
        self.0.read().is_some()
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().clone()
    }
}

/// A certificate that cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the serving certificate cannot be used: {0}")]
pub struct Unusable(String);

fn certified(state: &State) -> Result<CertifiedKey, Unusable> {
    let serving = state
        .serving
        .as_ref()
        .ok_or_else(|| Unusable("there is none".to_owned()))?;
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(serving.certificate.as_bytes()).collect();
    let chain = chain.map_err(|error| Unusable(error.to_string()))?;
    let key = PrivateKeyDer::from_pem_slice(serving.key.as_bytes())
        .map_err(|error| Unusable(error.to_string()))?;
    CertifiedKey::from_der(chain, key, &ring::default_provider())
        .map_err(|error| Unusable(error.to_string()))
}
