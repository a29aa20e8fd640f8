//! Asking a model whether it is ready, the way the kubelet would.

use std::{net::SocketAddr, time::Duration};

use http::{
    HeaderMap, Method, Request,
    header::{HOST, USER_AGENT},
};
use tokio::{net::TcpStream, time::timeout};

use super::{
    body::Body,
    client::{Client, Config, SendError},
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
    },
}

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
            Self::Http { path, headers } => {
                let mut request = Request::builder()
                    .method(Method::GET)
                    .uri(path)
                    .header(HOST, address.to_string())
                    .header(
                        USER_AGENT,
                        concat!("rouse-probe/", env!("CARGO_PKG_VERSION")),
                    )
                    .header("connection", "close")
                    .body(Body::empty())
                    .map_err(ProbeError::Path)?;
                for (name, value) in headers {
                    request.headers_mut().insert(name, value.clone());
                }
                let config = Config {
                    connect: limit,
                    ..Config::default()
                };
                let client = Client::new(address, config);
                let response = client.send(request).await.map_err(|error| match error {
                    SendError::NotSent { error, .. } | SendError::Sent(error) => {
                        ProbeError::Connect(error)
                    }
                })?;
                match response.status().as_u16() {
                    200..=399 => Ok(()),
                    status => Err(ProbeError::Status(status)),
                }
            }
        }
    }
}
