//! TLS of the data path, where it is asked for: rustls with ring, versions 1.2 and 1.3.
//!
//! [`ServerTls`] is what a listener serves with, [`ClientTls`] with which an upstream is spoken to. Both are made from files and
//! read them again when they change, since certificates of a mesh live for an hour: see `reload`. Neither looks at the
//! system's authorities, and neither can be told to verify nothing. What is not looked at is revocation: short lives stand for it.

mod client;
mod file;
mod name;
mod reload;
mod server;
mod spiffe;
mod unverified;
mod verify;

pub use self::{
    client::{ClientFiles, ClientTls, HandshakeError},
    file::{File, TlsError},
    name::{ClientName, InvalidName, ServerIdentity},
    reload::Look,
    server::{Clients, Mode, Protocol, ServerFiles, ServerTls},
};

/// How HTTP/1.1 and HTTP/2 are called in a handshake
/// (<https://www.iana.org/assignments/tls-extensiontype-values>, RFC 7301, RFC 9113 section 3.2).
const HTTP_11: &[u8] = b"http/1.1";
/// See [`HTTP_11`].
pub(super) const HTTP_2: &[u8] = b"h2";

/// The cryptography of every configuration here.
fn provider() -> std::sync::Arc<rustls::crypto::CryptoProvider> {
    std::sync::Arc::new(rustls::crypto::ring::default_provider())
}
