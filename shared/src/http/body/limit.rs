//! An answer that ends when its time is over, whoever reads it or does not.
//!
//! A body's own polls cannot keep its time: they come when its reader has room, and a reader that stopped reading would hold the
//! model for ever. So a task keeps it, one for each answer that has a limit, and ends with the answer.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::{
    task::AbortHandle,
    time::{Duration, Instant, sleep_until},
};

use super::{Body, End};
use crate::BoxError;

/// Limits of time of one answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// When all of it has to be there.
    pub end: Option<Instant>,
    /// Longest time that its reader may wait for one frame. A reader that wants none does not make it longer.
    pub idle: Option<Duration>,
}

/// The error of an answer that a limit of time has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Late {
    /// The whole took too long.
    #[error("the answer was not over in time")]
    End,
    /// It was silent for too long.
    #[error("the answer was silent for too long")]
    Idle,
}

/// A body with limits, shared with the task that keeps its time.
pub(super) struct Limited {
    shared: Arc<Mutex<State>>,
    timer: AbortHandle,
}

struct State {
    body: Result<Body, Late>,
    /// Since when the reader waits for a frame.
    waits_since: Option<Instant>,
    reader: Option<Waker>,
}

impl Limits {
    pub(super) fn is_none(&self) -> bool {
        self.end.is_none() && self.idle.is_none()
    }
}

impl Limited {
    pub(super) fn new(body: Body, limits: Limits) -> Self {
        let shared = Arc::new(Mutex::new(State {
            body: Ok(body),
            waits_since: None,
            reader: None,
        }));
        let timer = tokio::spawn(keep_time(Arc::downgrade(&shared), limits)).abort_handle();
        Self { shared, timer }
    }

    pub(super) fn poll_frame(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut state = self.shared.lock();
        let frame = match &mut state.body {
            Ok(body) => Pin::new(body).poll_frame(cx),
            Err(late) => Poll::Ready(Some(Err((*late).into()))),
        };
        if frame.is_pending() {
            state.waits_since.get_or_insert_with(Instant::now);
            if !state
                .reader
                .as_ref()
                .is_some_and(|reader| reader.will_wake(cx.waker()))
            {
                state.reader = Some(cx.waker().clone());
            }
        } else {
            state.waits_since = None;
        }
        frame
    }

    pub(super) fn is_end_stream(&self) -> bool {
        let state = self.shared.lock();
        state.body.as_ref().is_ok_and(Body::is_end_stream)
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let state = self.shared.lock();
        state
            .body
            .as_ref()
            .map_or_else(|_| SizeHint::default(), http_body::Body::size_hint)
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        self.timer.abort();
    }
}

impl fmt::Debug for Limited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limited").finish_non_exhaustive()
    }
}

impl State {
    /// Until when there is time, or what is to be ended now. As Knative does it, idleness is looked at when it could be over, rather
    /// than by a timer that every frame sets back.
    fn look(&mut self, limits: Limits, now: Instant) -> Look {
        let since = self.waits_since.unwrap_or(now);
        let idle = limits.idle.and_then(|idle| since.checked_add(idle));
        let (at, late) = match (limits.end, idle) {
            (end, Some(idle)) if end.is_none_or(|end| idle < end) => (idle, Late::Idle),
            (Some(end), _) => (end, Late::End),
            (None, _) => return Look::Done,
        };
        if now < at {
            return Look::At(at);
        }
        match std::mem::replace(&mut self.body, Err(late)) {
            Ok(body) => Look::Over(body, late, self.reader.take()),
            Err(_) => Look::Done,
        }
    }
}

/// What a look at a body's time shows.
#[expect(
    clippy::large_enum_variant,
    reason = "looked at once and taken apart at once"
)]
enum Look {
    /// To be looked at again then.
    At(Instant),
    /// It is over: the body, why, and who waits for it.
    Over(Body, Late, Option<Waker>),
    /// There is nothing to look at.
    Done,
}

/// Ends the body when its time is over.
async fn keep_time(shared: Weak<Mutex<State>>, limits: Limits) {
    let look = || {
        shared.upgrade().map_or(Look::Done, |shared| {
            shared.lock().look(limits, Instant::now())
        })
    };
    loop {
        match look() {
            Look::At(at) => sleep_until(at).await,
            // Not under the lock: freeing a slot admits the next request.
            Look::Over(body, late, reader) => {
                body.give_up(End::Late(late));
                if let Some(reader) = reader {
                    reader.wake();
                }
                return;
            }
            Look::Done => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use http_body_util::BodyExt as _;
    use tokio::time::timeout;

    use super::*;
    use crate::http::body::{Ending, Gate};

    const S: fn(u64) -> Duration = Duration::from_secs;

    /// What became of a body, and when.
    #[derive(Clone, Default)]
    struct Told(Arc<Mutex<Vec<(End, Instant)>>>, Arc<AtomicUsize>);

    impl Ending for Told {
        fn end(&mut self, how: End) {
            self.0.lock().push((how, Instant::now()));
            self.1.fetch_add(1, SeqCst);
        }
    }

    /// A body that nothing comes of, with limits.
    fn silent(limits: Limits) -> (Body, Arc<Gate>, Told) {
        let (gate, body) = Gate::shut(Body::full("x"));
        let told = Told::default();
        (body.ending(told.clone()).limited(limits), gate, told)
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn its_time_ends_it_although_nobody_reads() {
        let start = Instant::now();
        let (mut body, gate, told) = silent(Limits {
            end: Some(start + S(10)),
            idle: None,
        });
        tokio::time::sleep(S(11)).await;
        assert_eq!(
            *told.0.lock(),
            [(End::Late(Late::End), start + S(10))],
            "the guard goes at its time"
        );
        let error = body.frame().await.unwrap().unwrap_err();
        assert_eq!(error.downcast_ref(), Some(&Late::End));
        assert!(gate.take_back().is_some(), "nothing was sent");
        drop(body);
        assert_eq!(told.1.load(SeqCst), 1, "told once");
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn a_reader_that_waits_is_woken_with_the_error_of_the_first_limit() {
        let start = Instant::now();
        let (mut body, _gate, told) = silent(Limits {
            end: Some(start + S(10)),
            idle: Some(S(3)),
        });
        let error = body.frame().await.unwrap().unwrap_err();
        assert_eq!(error.downcast_ref(), Some(&Late::Idle));
        assert_eq!(start.elapsed(), S(3));
        assert_eq!(told.0.lock()[0].0, End::Late(Late::Idle));
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn only_time_in_which_the_reader_waits_is_idle() {
        let (gate, body) = Gate::shut(Body::full("x"));
        let told = Told::default();
        let limits = Limits {
            end: None,
            idle: Some(S(3)),
        };
        let mut body = body.ending(told.clone()).limited(limits);
        gate.open();
        assert_eq!(
            body.frame().await.unwrap().unwrap().into_data().unwrap(),
            "x"
        );
        // The reader has no room for a while, which is not the model's silence.
        tokio::time::sleep(S(60)).await;
        assert!(told.0.lock().is_empty());
        assert!(body.frame().await.is_none());
        assert_eq!(told.0.lock()[0].0, End::Whole);
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn without_a_limit_nothing_is_started_and_with_one_nothing_stays() {
        let tasks = || {
            tokio::runtime::Handle::current()
                .metrics()
                .num_alive_tasks()
        };
        let (body, _gate, told) = silent(Limits::default());
        assert_eq!(tasks(), 0);
        drop(body);
        assert_eq!(told.0.lock()[0].0, End::Dropped);
        let (body, _gate, told) = silent(Limits {
            end: None,
            idle: Some(S(3)),
        });
        assert_eq!(tasks(), 1);
        drop(body);
        assert_eq!(told.0.lock()[0].0, End::Dropped);
        let gone = async {
            while tasks() > 0 {
                tokio::task::yield_now().await;
            }
        };
        timeout(S(1), gone).await.unwrap();
    }
}
