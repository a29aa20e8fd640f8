//! A body that is sent only once the other side wants it.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::Response;
use http_body::{Body as _, Frame, SizeHint};
use parking_lot::Mutex;

use super::{Body, Kind};
use crate::BoxError;

/// Holds a body back until the other side has said that it wants it (`100 Continue`), so that until then it can be
/// taken back and sent elsewhere.
pub struct Gate {
    inner: Mutex<GateState>,
    size_hint: SizeHint,
}

#[derive(Debug)]
enum GateState {
    Shut(Body, Option<Waker>),
    Open(Body),
    /// Taken back, or given up: the connection that waited for it must end.
    Gone,
}

/// The body was taken back before it was sent.
#[derive(Debug, thiserror::Error)]
#[error("the request was not admitted, its body was taken back")]
pub struct TakenBack(());

impl Gate {
    /// A shut gate with `body` behind it, and the body to send.
    pub fn shut(body: Body) -> (Arc<Self>, Body) {
        let gate = Arc::new(Self {
            size_hint: body.size_hint(),
            inner: Mutex::new(GateState::Shut(body, None)),
        });
        (Arc::clone(&gate), Kind::Gated(gate).into())
    }

    /// Lets the body flow.
    pub fn open(&self) {
        let mut state = self.inner.lock();
        *state = match std::mem::replace(&mut *state, GateState::Gone) {
            GateState::Shut(body, waker) => {
                if let Some(waker) = waker {
                    waker.wake();
                }
                GateState::Open(body)
            }
            other => other,
        };
    }

    /// Whether it was opened.
    pub fn is_open(&self) -> bool {
        matches!(*self.inner.lock(), GateState::Open(_))
    }

    /// Takes the body back if the gate is still shut, and ends the attempt that waited for it.
    pub fn take_back(&self) -> Option<Body> {
        let mut state = self.inner.lock();
        match std::mem::replace(&mut *state, GateState::Gone) {
            GateState::Shut(body, waker) => {
                if let Some(waker) = waker {
                    waker.wake();
                }
                Some(body)
            }
            other => {
                *state = other;
                None
            }
        }
    }

    /// The other side has begun its `answer`, having said that it wants the body or not.
    ///
    /// Not having said so means nothing while the answer goes on: a server whose handler asks for the body just as it answers
    /// says no `100 Continue` any more (RFC 9110 section 10.1.1 asks for none then), and waits for the body all the same. So it is
    /// let go. After an answer that is here to its end nobody wants the body: it is given up when the answer was read and no sooner,
    /// since that ends the connection it comes on.
    #[must_use]
    pub fn answered(self: Arc<Self>, answer: Response<Body>) -> Response<Body> {
        if answer.body().is_buffered() {
            return answer.map(|body| body.guarded(GiveUp(self)));
        }
        self.open();
        answer
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.size_hint
    }

    pub(super) fn poll_frame(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut state = self.inner.lock();
        match &mut *state {
            GateState::Shut(_, waker) => {
                *waker = Some(cx.waker().clone());
                Poll::Pending
            }
            GateState::Open(body) => Pin::new(body).poll_frame(cx),
            GateState::Gone => Poll::Ready(Some(Err(Box::new(TakenBack(()))))),
        }
    }
}

/// Gives a body up that nobody asked for.
struct GiveUp(Arc<Gate>);

impl Drop for GiveUp {
    fn drop(&mut self) {
        drop(self.0.take_back());
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}
