//! Queue-proxies written by hand, for what a real one does only on a bad day.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use activator::Endpoint;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};

use crate::{
    bed::{endpoint, loopback},
    http1::{PATIENCE, Raw},
};

/// A fake pod. Dropping it closes its port.
#[derive(Debug)]
pub(crate) struct Fake {
    pub(crate) endpoint: Endpoint,
    /// Times that it was asked `wait-ready`.
    pub(crate) asked: Arc<AtomicUsize>,
    /// Whether it says that it is ready.
    pub(crate) ready: watch::Sender<bool>,
    requests: mpsc::UnboundedReceiver<Got>,
    accept: JoinHandle<()>,
}

/// A request that arrived, and its connection.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) head: String,
    pub(crate) raw: Raw,
}

impl Fake {
    pub(crate) async fn start(uid: &str) -> Self {
        let listener = TcpListener::bind(loopback()).await.unwrap();
        let endpoint = endpoint(uid, listener.local_addr().unwrap());
        let asked = Arc::new(AtomicUsize::new(0));
        let (ready, is_ready) = watch::channel(true);
        let (tx, requests) = mpsc::unbounded_channel();
        let count = Arc::clone(&asked);
        let accept = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let raw = Raw::from(stream);
                tokio::spawn(serve(raw, tx.clone(), is_ready.clone(), Arc::clone(&count)));
            }
        });
        Self {
            endpoint,
            asked,
            ready,
            requests,
            accept,
        }
    }

    /// The next request.
    pub(crate) async fn request(&mut self) -> Got {
        timeout(PATIENCE, self.requests.recv())
            .await
            .expect("a request in time")
            .expect("the fake runs")
    }

    /// Whether a request has come.
    pub(crate) fn has_request(&self) -> bool {
        !self.requests.is_empty()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

/// Answers `wait-ready` by itself and hands over the first other request.
async fn serve(
    mut raw: Raw,
    tx: mpsc::UnboundedSender<Got>,
    mut ready: watch::Receiver<bool>,
    asked: Arc<AtomicUsize>,
) {
    if let Some(head) = raw.until(b"\r\n\r\n").await {
        let head = String::from_utf8(head).unwrap();
        if head.contains("rouse-op: wait-ready") {
            asked.fetch_add(1, SeqCst);
            if ready.wait_for(|r| *r).await.is_err() {
                return;
            }
            // Closed, so that the next request comes on a connection of its own.
            raw.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
                .await;
        } else {
            let _ended = tx.send(Got { head, raw });
        }
    }
}

impl Got {
    /// A header of the request.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// The body, by its declared length.
    pub(crate) async fn body(&mut self) -> Vec<u8> {
        let length = self
            .header("content-length")
            .unwrap_or("0")
            .parse()
            .unwrap();
        self.raw.exactly(length).await.expect("the whole body")
    }

    /// Answers with an admission marker.
    pub(crate) async fn answer(&mut self, status: u16, marker: &str, body: &str) {
        let length = body.len();
        self.raw
            .send(format!("HTTP/1.1 {status} X\r\nrouse-admission: {marker}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"))
            .await;
    }
}
