//! A connection that is another protocol's now.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::BytesMut;
use http::Response;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::socket::Socket;
use crate::http::wire::give_first;

/// The connection, from the first byte behind the head of the answer on.
#[derive(Debug)]
pub struct Upgraded {
    socket: Socket,
    /// What came with the head.
    first: BytesMut,
}

/// The connection of an answer, for whoever takes it first.
#[derive(Clone, Debug)]
pub(super) struct Offer(Arc<Mutex<Option<Upgraded>>>);

/// Takes the connection on which a `101 Switching Protocols` came. It is closed with the answer otherwise.
pub fn upgraded<B>(answer: &mut Response<B>) -> Option<Upgraded> {
    let offer = answer.extensions_mut().remove::<Offer>()?;
    offer.0.lock().take()
}

impl Upgraded {
    pub(super) fn new(socket: Socket, first: BytesMut) -> Self {
        Self { socket, first }
    }

    pub(super) fn offer(self) -> Offer {
        Offer(Arc::new(Mutex::new(Some(self))))
    }
}

impl AsyncRead for Upgraded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if give_first(&mut self.first, out) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.socket).poll_read(cx, out)
    }
}

impl AsyncWrite for Upgraded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
