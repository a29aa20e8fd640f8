//! Sending to a model that may be being restarted.
//!
//! A model that is killed (out of memory, mostly) is started again in the same pod, and until endpoints follow, the pod's clients
//! still come here. What was at the model is lost, and nobody knows how far it had come. What finds nobody at its port was never
//! sent, so it goes to the activators if any can be reached. Otherwise it waits for the new one, as it would have waited for the
//! first. It keeps its slot meanwhile: it is the next to be served, and who comes later queues behind it.

use std::time::Duration;

use http::{Request, Response};
use shared::http::{
    body::{Body, Prefetch},
    client::{SendError, is_connect_error},
    serve::Peer,
};
use tokio::time::{Instant, sleep_until};

use super::{Front, exchange::of_sending};
use crate::{pod::Budget, rescue::Failure};

/// Between two attempts. A refused connection on loopback costs some 10 us, and a start of a model seconds.
const PAUSE: Duration = Duration::from_millis(50);

/// What a request may do when the model takes no connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Whether it may wait at all.
    pub(super) may_wait: bool,
    /// Whether it had better go elsewhere than wait.
    pub(super) may_leave: bool,
    /// Bytes of its body that may be read meanwhile.
    pub(super) read_ahead: usize,
    /// When it has waited for too long in all, here and for its slot.
    pub(super) deadline: Instant,
}

/// How a request ended that has no answer.
pub(super) enum Unanswered {
    Failed(Failure),
    /// Nothing of it was sent, and it may go elsewhere.
    Leaves(Box<Request<Body>>),
}

impl From<Failure> for Unanswered {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Front {
    /// Sends an admitted request to the model, at most once: only what was not sent is tried again.
    pub(super) async fn send(
        &self,
        port: usize,
        mut request: Request<Body>,
        patience: Patience,
        peer: &Peer,
    ) -> Result<Response<Body>, Unanswered> {
        let (mut end, mut broke) = (None, false);
        let mut budget = Budget::new(&self.pod);
        loop {
            let error = match self.pod.clients[port].send(request).await {
                Ok(answer) => return Ok(answer),
                Err(SendError::Sent(error)) => {
                    tracing::debug!(%error, "Model gave no answer");
                    return Err(of_sending(&error, Failure::ModelBroke).into());
                }
                Err(SendError::NotSent {
                    error,
                    request: back,
                }) => {
                    request = *back;
                    error
                }
            };
            tracing::debug!(%error, "Model takes no connection");
            // Any other error than that may be of a model that speaks another protocol: the activators would meet it too.
            if patience.may_leave && is_connect_error(&error) && self.elsewhere(port).is_some() {
                return Err(Unanswered::Leaves(Box::new(request)));
            }
            let now = Instant::now();
            let end = *end.get_or_insert_with(|| {
                let longest = now + self.pod.config.restart_patience;
                longest.min(patience.deadline)
            });
            // A connection that broke before anything was sent on it may be the model's end, which the next attempt meets as a
            // refusal; or else the model speaks another protocol, and will for ever.
            let is_hopeless = !is_connect_error(&error) && std::mem::replace(&mut broke, true);
            if !patience.may_wait || !self.may_come_back() || is_hopeless || now >= end {
                return Err(Failure::ModelUnreachable.into());
            }
            let (parts, body) = request.into_parts();
            // What comes from a client has no gate.
            let mut ahead =
                Prefetch::resume(body, patience.read_ahead).ok_or(Failure::ModelUnreachable)?;
            pause(end.min(now + PAUSE), &mut ahead, &mut budget, peer).await?;
            request = Request::from_parts(parts, ahead.into_body());
        }
    }

    /// Whether the model was there and the pod stays. One that goes away is not waited for: its models are being stopped.
    fn may_come_back(&self) -> bool {
        self.pod.model.borrow().first_ready.is_some() && !self.pod.stats.is_draining()
    }
}

/// Waits. Meanwhile a small body is read, and a hang-up is noticed.
async fn pause(
    until: Instant,
    ahead: &mut Prefetch,
    budget: &mut Budget<'_>,
    peer: &Peer,
) -> Result<(), Failure> {
    loop {
        let may_read = ahead.wants_more() && budget.take();
        tokio::select! {
            biased;
            read = ahead.read(), if may_read => read?,
            () = peer.gone() => return Err(Failure::BodyBroken),
            () = sleep_until(until) => return Ok(()),
        }
    }
}
