//! The seed study's request.

use std::{net::SocketAddr, time::Duration};

use http::{
    Request, StatusCode,
    header::{CONTENT_TYPE, HOST},
};
use http_body_util::{BodyExt as _, Limited};
use shared::http::{
    body::Body,
    client::{Client, Config, SendError},
};
use tokio::time::{Instant, timeout};

use super::Failed;
use crate::local::LocalWorkload;

/// Path of the V1 prediction.
pub(super) const PATH: &str = "/v1/models/sklearn-iris:predict";
/// One flower, of the first of three kinds.
pub(super) const BODY: &str = r#"{"instances": [[5.1,3.5,1.4,0.2]]}"#;

/// Where clients reach the workload.
pub(super) fn url(iris: &LocalWorkload) -> Result<String, Failed> {
    let address = iris
        .addresses
        .first()
        .ok_or_else(|| Failed::new("start", "the workload has no port"))?;
    Ok(at(*address))
}

/// The prediction's URL at `address`.
pub(super) fn at(address: SocketAddr) -> String {
    format!("http://{address}{PATH}")
}

/// Asks for one prediction on a fresh connection. Returns the answer's text and how long it took.
pub(super) async fn predict(
    iris: &LocalWorkload,
    limit: Duration,
) -> Result<(String, Duration), Failed> {
    const STEP: &str = "cold start";
    let failed = |reason: String| Failed::new(STEP, reason);
    let address = *iris
        .addresses
        .first()
        .ok_or_else(|| failed("the workload has no port".into()))?;
    let request = Request::post(PATH)
        .header(HOST, address.to_string())
        .header(CONTENT_TYPE, "application/json")
        .body(Body::full(BODY))
        .map_err(|error| failed(error.to_string()))?;
    let client = Client::new(address, Config::default());
    let sent = Instant::now();
    let call = async {
        let answer = client.send(request).await.map_err(|error| match error {
            SendError::NotSent { error, .. } | SendError::Sent(error) => error.to_string(),
        })?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), 64 * 1024)
            .collect()
            .await
            .map_err(|e| e.to_string())?;
        Ok((
            status,
            String::from_utf8_lossy(&body.to_bytes()).trim().to_owned(),
        ))
    };
    let (status, text) = timeout(limit, call)
        .await
        .map_err(|_| failed(format!("no answer within {} s", limit.as_secs())))?
        .map_err(failed)?;
    let took = sent.elapsed();
    if status != StatusCode::OK {
        return Err(failed(format!("status {status}: {text}")));
    }
    let predictions = serde_json::from_str::<serde_json::Value>(&text).ok();
    if predictions
        .as_ref()
        .and_then(|v| v["predictions"][0].as_i64())
        != Some(0)
    {
        return Err(failed(format!(
            "expected {{\"predictions\": [0]}}, got {text}"
        )));
    }
    Ok((text, took))
}
