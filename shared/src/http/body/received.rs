//! What hyper receives, and a sum of its bytes for who wants one.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

use crate::record::Tally;

/// A body from the network.
#[derive(Debug)]
pub(super) struct Received {
    incoming: Incoming,
    tally: Tally,
}

impl Received {
    /// One whose bytes are added up as they are read.
    pub(super) fn tallied(incoming: Incoming, tally: Tally) -> Self {
        Self { incoming, tally }
    }

    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let frame = Pin::new(&mut self.incoming).poll_frame(cx);
        if let Poll::Ready(frame) = &frame {
            self.tally.add_frame(frame.as_ref());
        }
        frame
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl From<Incoming> for Received {
    fn from(incoming: Incoming) -> Self {
        Self::tallied(incoming, Tally::default())
    }
}
