//! Sending to a model that may be being restarted.
//!
//! A model that is killed (out of memory, mostly) is started again in the same pod, and until endpoints follow, the pod's clients
//! still come here. What was at the model is lost, and nobody knows how far it had come. What finds nobody at its port was never
//! sent, so it waits for the new one, as it would have waited for the first. It keeps its slot meanwhile: it is the next to be
//! served, and who comes later queues behind it.

use std::time::Duration;

use http::{Request, Response};
use shared::http::{
    body::{Body, BodyBroken, Prefetch},
    client::{SendError, is_connect_error},
    serve::Peer,
};
use tokio::time::{Instant, sleep_until};

use super::Front;
use crate::{pod::Budget, rescue::Failure};

/// Between two attempts. A refused connection on loopback costs some 10 us, and a start of a model seconds.
const PAUSE: Duration = Duration::from_millis(50);

/// What a request may do when the model takes no connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Whether it may wait at all.
    pub(super) may_wait: bool,
    /// Bytes of its body that may be read meanwhile.
    pub(super) read_ahead: usize,
    /// When it has waited for too long in all, here and for its slot.
    pub(super) deadline: Instant,
}

impl Front {
    /// Sends an admitted request to the model, at most once: only what was not sent is tried again.
    pub(super) async fn send(
        &self,
        port: usize,
        mut request: Request<Body>,
        patience: Patience,
        peer: &Peer,
    ) -> Result<Response<Body>, Failure> {
        let (mut end, mut broke) = (None, false);
        let mut budget = Budget::new(&self.pod);
        loop {
            let error = match self.pod.clients[port].send(request).await {
                Ok(answer) => return Ok(answer),
                Err(SendError::Sent(error)) => return Err(sent_failure(&error)),
                Err(SendError::NotSent {
                    error,
                    request: back,
                }) => {
                    request = *back;
                    error
                }
            };
            tracing::debug!(%error, "Model takes no connection");
            let now = Instant::now();
            let end = *end.get_or_insert_with(|| {
                let longest = now + self.pod.config.restart_patience;
                longest.min(patience.deadline)
            });
            // A connection that broke before anything was sent on it may be the model's end, which the next attempt meets as a
            // refusal; or else the model speaks another protocol, and will for ever.
            let is_hopeless = !is_connect_error(&error) && std::mem::replace(&mut broke, true);
            if !patience.may_wait || !self.may_come_back() || is_hopeless || now >= end {
                return Err(Failure::ModelUnreachable);
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

/// A failure after sending is the model's, unless the client's own body broke first.
fn sent_failure(error: &shared::BoxError) -> Failure {
    tracing::debug!(%error, "Model gave no answer");
    match BodyBroken::behind(error) {
        Some(broken) => broken.into(),
        None => Failure::ModelBroke,
    }
}
