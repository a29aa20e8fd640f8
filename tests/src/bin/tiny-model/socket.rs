//! The WebSocket echo.

use crate::stats::Open;
use futures_util::{SinkExt, StreamExt};
use http::header::{
    CONNECTION, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::sync::{mpsc, watch};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

/// Says yes to a good handshake: the response, the promise of the raw connection, and the request again.
pub(crate) fn accept(
    mut request: Request<Incoming>,
) -> Result<(Response<()>, OnUpgrade, Request<Incoming>), &'static str> {
    if !has(&request, &CONNECTION, "upgrade") || !has(&request, &UPGRADE, "websocket") {
        return Err("a WebSocket upgrade is needed");
    }
    if !has(&request, &SEC_WEBSOCKET_VERSION, "13") {
        return Err("WebSocket version 13 is needed");
    }
    let key = request
        .headers()
        .get(SEC_WEBSOCKET_KEY)
        .ok_or("sec-websocket-key is missing")?;
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes()))
        .map_err(|_| "sec-websocket-key is broken")?;
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("upgrade"));
    response
        .headers_mut()
        .insert(UPGRADE, HeaderValue::from_static("websocket"));
    response.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, accept);
    let upgrade = hyper::upgrade::on(&mut request);
    Ok((response, upgrade, request))
}

/// Sends every message back until either side closes; a stopping server closes.
pub(crate) async fn echo(
    upgrade: OnUpgrade,
    mut open: Open,
    (mut closing, _held): (watch::Receiver<bool>, mpsc::Sender<()>),
) {
    let Ok(upgraded) = upgrade.await else { return };
    let mut socket =
        WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
    loop {
        let message = tokio::select! {
            message = socket.next() => Some(message),
            _ = closing.wait_for(|closing| *closing) => None,
        };
        let Some(message) = message else {
            if socket.close(None).await.is_ok() {
                open.finish();
            }
            return;
        };
        match message {
            Some(Ok(message)) if message.is_text() || message.is_binary() => {
                if socket.send(message).await.is_err() {
                    return;
                }
            }
            Some(Ok(message)) if message.is_close() => {
                // The answer to a close frame goes out with the next flush.
                let _ = socket.flush().await;
                open.finish();
            }
            Some(Ok(_)) => {} // pings are answered by the library
            Some(Err(_)) | None => return,
        }
    }
}

fn has<B>(request: &Request<B>, name: &HeaderName, token: &str) -> bool {
    let values = request.headers().get_all(name);
    values
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|part| part.trim().eq_ignore_ascii_case(token))
}
