//! Asking a model whether it is ready, the way the kubelet would.

use std::{net::SocketAddr, time::Duration};

use http::{
    HeaderMap, Method, Request, Response, StatusCode, Version,
    header::{CONTENT_TYPE, HOST, TE, USER_AGENT},
};
use http_body_util::{BodyExt as _, Limited};
use tokio::{net::TcpStream, time::timeout};

use super::{
    body::Body,
    client::{Client, Config, SendError},
    tls::ClientTls,
};
use crate::BoxError;

/// How to ask.
#[derive(Clone, Debug, PartialEq)]
pub enum Probe {
    /// A connection is taken.
    Tcp,
    /// A GET is answered with a status from 200 to 399.
    Http {
        /// Path and query.
        path: String,
        /// Headers to send along.
        headers: HeaderMap,
        /// Over TLS. As with the kubelet, whoever answers is believed.
        https: bool,
    },
    /// The gRPC health service says `SERVING`
    /// (<https://github.com/grpc/grpc/blob/master/doc/health-checking.md>).
    Grpc {
        /// The service that is asked for; empty means the server as a whole.
        service: String,
    },
}

/// Longest answer of a health service that is read, in bytes. An honest one has 7.
const GRPC_ANSWER: usize = 1024;

/// Why a model is not ready.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// No connection, or no HTTP on it.
    #[error("no connection")]
    Connect(#[source] BoxError),
    /// A status outside 200 to 399.
    #[error("status {0}")]
    Status(u16),
    /// The health service does not say that it serves.
    #[error("the gRPC health service does not say SERVING")]
    NotServing,
    /// The path cannot be a request target.
    #[error("invalid path")]
    Path(#[source] http::Error),
}

impl Probe {
    /// Asks once, on a fresh connection, so that a stale one can neither help nor hurt.
    ///
    /// # Errors
    /// [`ProbeError`] when the answer is no.
    pub async fn ask(&self, address: SocketAddr, limit: Duration) -> Result<(), ProbeError> {
        timeout(limit, self.ask_unbounded(address, limit))
            .await
            .unwrap_or(Err(ProbeError::Timeout(limit)))
    }

    async fn ask_unbounded(&self, address: SocketAddr, limit: Duration) -> Result<(), ProbeError> {
        match self {
            Self::Tcp => match TcpStream::connect(address).await {
                Ok(_) => Ok(()),
                Err(error) => Err(ProbeError::Connect(error.into())),
            },
            Self::Http {
                path,
                headers,
                https,
            } => {
                let mut request = Request::builder()
                    .method(Method::GET)
                    .uri(path)
                    .header(HOST, address.to_string())
                    .header(USER_AGENT, AGENT)
                    .header("connection", "close")
                    .body(Body::empty())
                    .map_err(ProbeError::Path)?;
                for (name, value) in headers {
                    request.headers_mut().insert(name, value.clone());
                }
                let tls = https.then(ClientTls::of_probe);
                let response = send(address, limit, tls, request).await?;
                match response.status().as_u16() {
                    200..=399 => Ok(()),
                    status => Err(ProbeError::Status(status)),
                }
            }
            Self::Grpc { service } => {
                let request = Request::builder()
                    .method(Method::POST)
                    .version(Version::HTTP_2)
                    .uri(format!("http://{address}/grpc.health.v1.Health/Check"))
                    .header(USER_AGENT, AGENT)
                    .header(CONTENT_TYPE, "application/grpc")
                    .header(TE, "trailers")
                    .body(Body::full(health_check(service)))
                    .map_err(ProbeError::Path)?;
                let response = send(address, limit, None, request).await?;
                if response.status() != StatusCode::OK {
                    return Err(ProbeError::Status(response.status().as_u16()));
                }
                let answer = Limited::new(response.into_body(), GRPC_ANSWER);
                let answer = answer.collect().await.map_err(ProbeError::Connect)?;
                if says_serving(&answer.to_bytes()) {
                    Ok(())
                } else {
                    Err(ProbeError::NotServing)
                }
            }
        }
    }
}

const AGENT: &str = concat!("rouse-probe/", env!("CARGO_PKG_VERSION"));

async fn send(
    address: SocketAddr,
    limit: Duration,
    tls: Option<ClientTls>,
    request: Request<Body>,
) -> Result<Response<Body>, ProbeError> {
    let config = Config {
        connect: limit,
        tls,
        ..Config::default()
    };
    let sent = Client::new(address, config).send(request).await;
    sent.map_err(|error| match error {
        SendError::NotSent { error, .. } | SendError::Sent(error) => ProbeError::Connect(error),
    })
}

/// A gRPC message with a `HealthCheckRequest`: not compressed, its length, then field 1 with the service's name.
fn health_check(service: &str) -> Vec<u8> {
    let mut field = Vec::new();
    if !service.is_empty() {
        field.push(0x0a);
        let mut rest = service.len();
        while rest >= 0x80 {
            field.push(0x80 | u8::try_from(rest & 0x7f).unwrap_or_default());
            rest >>= 7;
        }
        field.push(u8::try_from(rest).unwrap_or_default());
        field.extend_from_slice(service.as_bytes());
    }
    let length = u32::try_from(field.len()).unwrap_or(u32::MAX);
    let mut message = vec![0];
    message.extend_from_slice(&length.to_be_bytes());
    message.extend(field);
    message
}

/// Whether a gRPC message is a `HealthCheckResponse` whose status, field 1, is `SERVING`, which is 1. A later value of the
/// field would win, but no server sends two.
fn says_serving(message: &[u8]) -> bool {
    matches!(message, [0, 0, 0, 0, _, 0x08, 1, ..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_messages_are_as_protobuf_writes_them() {
        assert_eq!(health_check(""), [0, 0, 0, 0, 0]);
        assert_eq!(health_check("ab"), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        let long = health_check(&"x".repeat(200));
        assert_eq!(long[..8], [0, 0, 0, 0, 203, 0x0a, 0xc8, 0x01]);
        assert!(says_serving(&[0, 0, 0, 0, 2, 8, 1]));
        // Not serving, unknown (the default, which is not written), compressed, cut off, none.
        for no in [
            &[0, 0, 0, 0, 2, 8, 2][..],
            &[0, 0, 0, 0, 0],
            &[1, 0, 0, 0, 2, 8, 1],
            &[0, 0, 0, 0, 2, 8],
            &[],
        ] {
            assert!(!says_serving(no), "{no:?}");
        }
    }
}
