//! One connection: serves requests, and closes when it is told to, when idle too long, or after so many responses.

use crate::route::answer;
use crate::stats::{Activity, Server};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

/// Serves `stream` to its end; `open` is held as long as that takes.
pub(crate) async fn serve(
    server: Arc<Server>,
    stream: TcpStream,
    mut closing: watch::Receiver<bool>,
    open: mpsc::Sender<()>,
) {
    server.connected();
    // Without it small responses would wait for acknowledgements; a socket that refuses is about to fail anyway.
    let _ = stream.set_nodelay(true);
    let activity = Arc::new(Activity::default());
    let (limit, idle) = (server.args.close_after, server.args.idle_timeout);
    let sockets = (closing.clone(), open.clone());
    let service = {
        let (server, activity) = (Arc::clone(&server), Arc::clone(&activity));
        service_fn(move |request| {
            answer(
                Arc::clone(&server),
                Arc::clone(&activity),
                request,
                sockets.clone(),
            )
        })
    };
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(1_000);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let (mut last_change, mut leaving) = (Instant::now(), false);
    loop {
        let is_idle = activity.open.load(Relaxed) == 0;
        tokio::select! {
            // A broken connection is the client's business: its requests were counted as cancelled.
            _ = connection.as_mut() => break,
            _ = closing.wait_for(|closing| *closing), if !leaving => leaving = true,
            () = activity.changed.notified(), if !leaving && (limit > 0 || !idle.is_zero()) => {
                last_change = Instant::now();
                leaving = limit > 0 && activity.answered.load(Relaxed) >= limit;
                if !leaving {
                    continue;
                }
            }
            () = sleep_until(last_change + idle), if !leaving && is_idle && !idle.is_zero() => leaving = true,
        }
        // Lets what is under way end; nothing more is read.
        connection.as_mut().graceful_shutdown();
    }
    drop(open);
}
