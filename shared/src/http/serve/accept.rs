//! Taking connections, up to as many as are allowed, and letting none go unanswered at the end.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{sleep, timeout},
};

use super::{
    Config, Disposition, Handler,
    begin::speaks_tls,
    serve,
    server::{Open, OpenGuard},
};
use crate::{http::tls::ServerTls, share::Share};

/// Connections that are being told that they are too many, of the whole process.
static SHEDDING: AtomicUsize = AtomicUsize::new(0);
/// Each takes a second at most, and all of them no more files than anybody would miss.
const MOST_SHED: usize = 256;

pub(super) async fn accept<H: Handler>(
    listener: TcpListener,
    config: Config,
    handler: H,
    disposition: watch::Receiver<Disposition>,
    open: Arc<Open>,
    share: Option<Arc<Share>>,
) {
    let take = |stream: TcpStream, address: SocketAddr| {
        let before = open.count.fetch_add(1, Relaxed);
        let guard = OpenGuard(Arc::clone(&open));
        let place = share.as_ref().map(Share::take);
        if before >= config.max_connections || matches!(place, Some(None)) {
            shed(stream, config.tls.clone());
            return;
        }
        let place = place.flatten();
        let (config, handler) = (config.clone(), handler.clone());
        let disposition = disposition.clone();
        tokio::spawn(async move {
            serve(stream, address, config, handler, disposition, place).await;
            drop(guard);
        });
    };
    loop {
        let accepted = tokio::select! {
            biased;
            () = open.stop.notified() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => take(stream, address),
            Err(error) => {
                // Out of file descriptors, mostly: accepting again at once would only spin.
                tracing::warn!(%error, "Cannot accept a connection");
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
    // For their clients these connections exist; closing the listener would reset them.
    if let Ok(listener) = listener.into_std() {
        while let Ok((stream, address)) = listener.accept() {
            let stream = stream
                .set_nonblocking(true)
                .and_then(|()| TcpStream::from_std(stream));
            if let Ok(stream) = stream {
                take(stream, address);
            }
        }
    }
    open.stopped.store(true, Relaxed);
    open.none.notify_waiters();
}

/// One connection too many: a short answer instead of a silent close, unless too many are being answered so already. They are
/// files, too.
fn shed(stream: TcpStream, tls: Option<ServerTls>) {
    if SHEDDING.fetch_add(1, Relaxed) >= MOST_SHED {
        SHEDDING.fetch_sub(1, Relaxed);
        return;
    }
    tokio::spawn(async move {
        answer_shed(stream, tls.as_ref()).await;
        SHEDDING.fetch_sub(1, Relaxed);
    });
}

async fn answer_shed(mut stream: TcpStream, tls: Option<&ServerTls>) {
    const ANSWER: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let _gone = timeout(Duration::from_secs(1), async {
        // A handshake costs more than what it would be told then.
        if speaks_tls(&stream, tls).await {
            return Ok(());
        }
        stream.write_all(ANSWER).await?;
        stream.shutdown().await?;
        // Closing with its request unread would reset the connection before the client has read this.
        let mut unread = [0; 1024];
        while stream.read(&mut unread).await? > 0 {}
        io::Result::Ok(())
    })
    .await;
}
