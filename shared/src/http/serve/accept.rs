//! Taking connections, up to as many as are allowed, and letting none go unanswered at the end.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{sleep, timeout},
};

use super::{
    Config, Disposition, Handler, serve,
    server::{Open, OpenGuard},
};

pub(super) async fn accept<H: Handler>(
    listener: TcpListener,
    config: Config,
    handler: H,
    disposition: watch::Receiver<Disposition>,
    open: Arc<Open>,
) {
    let take = |stream: TcpStream, address: SocketAddr| {
        if open.count.fetch_add(1, Relaxed) >= config.max_connections {
            drop(OpenGuard(Arc::clone(&open)));
            tokio::spawn(shed(stream));
            return;
        }
        let guard = OpenGuard(Arc::clone(&open));
        let handler = handler.clone();
        let disposition = disposition.clone();
        tokio::spawn(async move {
            serve(stream, address, config, handler, disposition).await;
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

/// One connection too many: a short answer instead of a silent close.
async fn shed(mut stream: TcpStream) {
    const ANSWER: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let _gone = timeout(Duration::from_secs(1), async {
        stream.write_all(ANSWER).await?;
        stream.shutdown().await?;
        // Closing with its request unread would reset the connection before the client has read this.
        let mut unread = [0; 1024];
        while stream.read(&mut unread).await? > 0 {}
        io::Result::Ok(())
    })
    .await;
}
