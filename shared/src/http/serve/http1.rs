//! One HTTP/1 connection, behind the strict reader.

use std::{
    convert::Infallible,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use http::{HeaderValue, Request, StatusCode, Version, header::CONNECTION};
use hyper::{body::Incoming, server::conn, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::watch;

use super::{
    Age, Disposition, Handler, Peer, Socket,
    flow::{Flow, Flowing},
    next,
};
use crate::http::{
    body::{End, Ending},
    guard::{Active, GuardIo, Link},
    wire::Wire,
};

/// Longer than any deadline of ours.
const FAR: Duration = Duration::from_hours(24);

/// A request that is being served.
struct Present {
    link: Arc<Link>,
    is_old: bool,
    _active: Active,
}

impl Ending for Present {
    fn end(&mut self, how: End) {
        if self.is_old && how != End::Whole {
            self.link.reset();
        }
    }
}

pub(super) async fn serve<H: Handler>(
    io: GuardIo<Wire<Socket>>,
    handler: H,
    peer: Arc<Peer>,
    flow: Arc<Flow>,
    mut disposition: watch::Receiver<Disposition>,
    age: Age,
) {
    let index = AtomicUsize::new(0);
    let closing = disposition.clone();
    let service = service_fn(|request: Request<Incoming>| {
        let index = index.fetch_add(1, Relaxed);
        let peer = Arc::clone(&peer);
        let handler = handler.clone();
        let present = Present {
            link: Arc::clone(&peer.link),
            // To it the end of the connection may be the end of the answer.
            is_old: request.version() == Version::HTTP_10,
            _active: peer.link.begin(),
        };
        let closing = &closing;
        let flow = Arc::clone(&flow);
        async move {
            let mut answer = match peer.link.refusal_of(index) {
                Some(refusal) => handler.refuse(refusal, &peer),
                None => handler.handle(request, peer).await,
            };
            let upgraded = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
            let is_last = *closing.borrow() != Disposition::Keep || age.is_over();
            if is_last && !upgraded {
                answer
                    .headers_mut()
                    .insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(answer.map(|body| Flowing::new(body.ending(present), flow)))
        }
    });
    // Deadlines are the reader's. hyper's own runs while a connection is idle, so it is out of the way; without one,
    // hyper would not ask for the next head after an answer. No pipeline_flush: it keeps answers back as long as bytes
    // of the next request, or of the present one's body, are unread.
    let connection = conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(FAR)
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    loop {
        tokio::select! {
            biased;
            done = connection.as_mut() => {
                if let Err(error) = done {
                    tracing::debug!(%error, "Connection ended");
                }
                return;
            }
            disposition = next(&mut disposition) => match disposition {
                Disposition::Keep | Disposition::CloseAfterAnswer => {}
                // A connection whose request is still on its way is not idle: hyper would close it unread. Its next
                // answer says `Connection: close` anyway.
                Disposition::CloseIdle if index.load(Relaxed) == 0 => {}
                Disposition::CloseIdle | Disposition::CloseUnused if peer.link.is_receiving() => {}
                Disposition::CloseIdle | Disposition::CloseUnused => connection.as_mut().graceful_shutdown(),
                Disposition::Abort => return,
            }
        }
    }
}
