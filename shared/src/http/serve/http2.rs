//! One HTTP/2 connection.

use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};

use http::{Method, Request, Response, header::CONTENT_LENGTH};
use http_body::Body as _;
use hyper::{body::Incoming, server::conn, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    sync::{Notify, watch},
    task::yield_now,
    time::{Instant, interval_at},
};

use super::{
    Age, Config, Disposition, Handler, Peer, Rewind,
    flow::{self, Flowing, Streams},
    next,
};
use crate::http::body::Body;

/// So many requests of one connection are a crowd. A client can have us reset a stream that does not count as open any more (rapid
/// reset, CVE-2023-44487; `MadeYouReset`, CVE-2025-8671), and so have more of them begin at once than may be open.
const CROWD: usize = 16;

pub(super) async fn serve<H: Handler>(
    io: Rewind,
    config: Config,
    handler: H,
    peer: Arc<Peer>,
    mut disposition: watch::Receiver<Disposition>,
    age: Age,
) {
    let asked = Arc::new(Notify::new());
    let link = Arc::clone(&peer.link);
    let begun = Arc::clone(&asked);
    let service = service_fn(move |request: Request<Incoming>| {
        let active = peer.link.begin();
        begun.notify_one();
        let peer = Arc::clone(&peer);
        let handler = handler.clone();
        let is_head = request.method() == Method::HEAD;
        let in_crowd = peer.link.is_busy_with(CROWD);
        async move {
            if in_crowd {
                // Of many that come at once some may have been reset already, which hyper finds out only when a request waits.
                yield_now().await;
            }
            let mut answer = handler.handle(request, peer).await;
            if is_head {
                leave_out_body(&mut answer);
            }
            let flow = flow::of_stream();
            Ok::<_, Infallible>(answer.map(|body| Flowing::new(body.guarded(active), flow)))
        }
    });
    // h2's own defaults bound resets and CONTINUATION frames; they are stated so that no upgrade loosens them. What it does not bound,
    // the meter does. The count of local errors is over a connection's life, and what comes late for an upload that was answered early
    // is one of them: lower, it would end connections on which others have requests.
    let connection = conn::http2::Builder::new(Streams(config.send))
        .timer(TokioTimer::new())
        .max_concurrent_streams(config.max_streams)
        .max_header_list_size(u32::try_from(config.limits.head_bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(1024)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10))
        .serve_connection(TokioIo::new(io), service);
    let mut connection = pin!(connection);
    let idle = config.timeouts.idle;
    let mut looks = interval_at(Instant::now() + idle, idle);
    let mut last_look = Some(0);
    // Whether to say GOAWAY as soon as there has been a request.
    let mut closing = false;
    let mut used = false;
    let mut over = pin!(age.over());
    loop {
        tokio::select! {
            biased;
            done = connection.as_mut() => {
                if let Err(error) = done {
                    tracing::debug!(%error, "Connection ended");
                }
                return;
            }
            () = asked.notified(), if !used => used = true,
            () = &mut over, if !closing => closing = true,
            disposition = next(&mut disposition) => match disposition {
                Disposition::Keep => {}
                Disposition::CloseAfterAnswer | Disposition::CloseIdle => closing = true,
                Disposition::CloseUnused => (closing, used) = (true, true),
                Disposition::Abort => return,
            },
            // Nothing begun and nothing ended between two looks: idle for at least the limit.
            _ = looks.tick() => {
                let now = link.idle_since();
                if now.is_some() && now == last_look {
                    connection.as_mut().graceful_shutdown();
                }
                last_look = now;
                continue;
            }
        }
        if closing && used {
            connection.as_mut().graceful_shutdown();
        }
    }
}

/// Leaves out the body of an answer of ours to a HEAD (RFC 9110 section 9.3.2), and says how long it would be. hyper does so on
/// HTTP/1 only; here a client would take the first byte of it for a broken stream and never see the status. What an upstream
/// answers is not touched: it has no body, or is broken already.
fn leave_out_body(answer: &mut Response<Body>) {
    let body = answer.body();
    if body.is_end_stream() || !body.is_buffered() {
        return;
    }
    if let Some(length) = body.size_hint().exact() {
        answer
            .headers_mut()
            .entry(CONTENT_LENGTH)
            .or_insert_with(|| length.into());
    }
    *answer.body_mut() = Body::empty();
}
