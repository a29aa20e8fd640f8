//! A scale behind a URL: the Kubernetes Scale subresource spoken over plain HTTP.
//!
//! What programs that run alone use in place of a Kubernetes client, e.g. against `kubectl proxy`:
//! `http://127.0.0.1:8001/apis/apps/v1/namespaces/NS/deployments/NAME/scale`. Writes are JSON patches with a test
//! (RFC 6902), so that they are atomic; Kubernetes answers 422 when the test fails.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{
    Method, Request, StatusCode, Uri,
    header::{CONTENT_TYPE, HOST},
};
use http_body_util::{BodyExt, Limited};
use serde::Deserialize;
use tokio::time::timeout;

use crate::http::{
    body::Body,
    client::{Client, Config, SendError},
};

/// Limit on one call.
const LIMIT: Duration = Duration::from_secs(5);
/// Bytes of an answer that are read.
const MAX_BYTES: usize = 64 * 1024;

/// A scale behind a URL.
#[derive(Clone, Debug)]
pub struct ScaleUrl {
    client: Client,
    host: String,
    path: String,
}

/// The parts of `autoscaling/v1 Scale` that matter here.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Scale {
    /// Replicas wanted.
    pub spec: Replicas,
}

/// A number of replicas.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct Replicas {
    /// Absent means 0, as Kubernetes leaves it out then.
    #[serde(default)]
    pub replicas: u32,
}

/// A text is not the URL of a scale.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not the URL of a scale: expected http://ADDRESS:PORT/PATH")]
pub struct InvalidUrl {
    text: String,
}

/// A call that failed.
#[derive(Debug, thiserror::Error)]
pub enum ScaleError {
    /// No answer in time.
    #[error("no answer from the scale within {LIMIT:?}")]
    Timeout,
    /// No connection, or no HTTP on it.
    #[error("the scale cannot be reached")]
    Call(#[source] crate::BoxError),
    /// A status that is neither success nor a failed test.
    #[error("the scale answered {0}")]
    Status(StatusCode),
    /// Not a Scale object.
    #[error("the scale's answer is no Scale")]
    Body(#[source] serde_json::Error),
}

impl ScaleUrl {
    /// Reads a URL. No name is looked up: an address is needed.
    ///
    /// # Errors
    /// When it has not the form `http://ADDRESS:PORT/PATH`.
    pub fn parse(text: &str) -> Result<Self, InvalidUrl> {
        let invalid = || InvalidUrl {
            text: text.to_owned(),
        };
        let uri: Uri = text.parse().map_err(|_| invalid())?;
        let authority = uri
            .authority()
            .filter(|_| uri.scheme_str() == Some("http"))
            .ok_or_else(invalid)?;
        let address: SocketAddr = authority.as_str().parse().map_err(|_| invalid())?;
        Ok(Self {
            client: Client::new(address, Config::default()),
            host: authority.to_string(),
            path: uri.path_and_query().map_or("/", |p| p.as_str()).to_owned(),
        })
    }

    /// Replicas wanted now.
    ///
    /// # Errors
    /// [`ScaleError`].
    pub async fn get(&self) -> Result<u32, ScaleError> {
        let (status, body) = self.call(Method::GET, Body::empty()).await?;
        if !status.is_success() {
            return Err(ScaleError::Status(status));
        }
        let scale: Scale = serde_json::from_slice(&body).map_err(ScaleError::Body)?;
        Ok(scale.spec.replicas)
    }

    /// Changes `from` to `to` replicas, atomically. False if there were not `from`.
    ///
    /// # Errors
    /// [`ScaleError`].
    pub async fn change(&self, from: u32, to: u32) -> Result<bool, ScaleError> {
        let patch = serde_json::json!([
            { "op": "test", "path": "/spec/replicas", "value": from },
            { "op": "replace", "path": "/spec/replicas", "value": to },
        ]);
        let (status, _) = self
            .call(Method::PATCH, Body::full(patch.to_string()))
            .await?;
        match status {
            StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY => Ok(false),
            status if status.is_success() => Ok(true),
            status => Err(ScaleError::Status(status)),
        }
    }

    async fn call(&self, method: Method, body: Body) -> Result<(StatusCode, Bytes), ScaleError> {
        let request = Request::builder()
            .method(method)
            .uri(&self.path)
            .header(HOST, &self.host)
            .header(CONTENT_TYPE, "application/json-patch+json")
            .body(body)
            .map_err(|error| ScaleError::Call(error.into()))?;
        let call = async {
            let answer = self
                .client
                .send(request)
                .await
                .map_err(|error| match error {
                    SendError::NotSent { error, .. } | SendError::Sent(error) => {
                        ScaleError::Call(error)
                    }
                })?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MAX_BYTES)
                .collect()
                .await
                .map_err(ScaleError::Call)?;
            Ok((status, body.to_bytes()))
        };
        timeout(LIMIT, call)
            .await
            .unwrap_or(Err(ScaleError::Timeout))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_addresses_only() {
        assert!(
            ScaleUrl::parse("http://127.0.0.1:8001/apis/apps/v1/namespaces/a/deployments/b/scale")
                .is_ok()
        );
        for bad in [
            "",
            "127.0.0.1:80/x",
            "https://127.0.0.1:1/x",
            "http://name:80/x",
            "http://127.0.0.1/x",
        ] {
            assert!(ScaleUrl::parse(bad).is_err(), "{bad}");
        }
    }
}
