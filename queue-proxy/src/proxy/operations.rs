//! What an activator asks of the pod itself.

use std::time::Duration;

use http::{HeaderMap, HeaderName, Response};
use shared::{
    headers::{LOAD, PORT_OPEN_AGE, READY_AGE, STARTED_AGE, TICKET, WAIT_MS},
    http::{
        body::{Body, Prefetch},
        serve::Peer,
    },
};
use tokio::time::{Instant, timeout};

use super::Front;
use crate::{breaker::Source, model::Model, rescue::Failure};

impl Front {
    /// Answers when the model is ready, on a connection that the request can then follow on.
    pub(super) async fn wait_ready(&self, headers: &HeaderMap) -> Result<Response<Body>, Failure> {
        let millis = headers
            .get(WAIT_MS)
            .and_then(|v| v.to_str().ok()?.parse().ok())
            .unwrap_or(10_000_u64);
        let limit = Duration::from_millis(millis.min(600_000));
        let mut model = self.pod.model.clone();
        // A closed channel means that the prober is gone, which is as good as never ready.
        let ready = timeout(limit, model.wait_for(|m| m.ready))
            .await
            .is_ok_and(|r| r.is_ok());
        if !ready {
            return Err(Failure::NotReady);
        }
        let mut answer = Response::new(Body::empty());
        let headers = answer.headers_mut();
        headers.insert(LOAD, self.pod.stats.load().into());
        let model = *self.pod.model.borrow();
        for (name, age) in ages(self.pod.started, &model, Instant::now()) {
            headers.insert(name, age.into());
        }
        Ok(answer)
    }

    /// Reserves a slot under a ticket.
    pub(super) async fn reserve(&self, peer: &Peer) -> Result<Response<Body>, Failure> {
        let asked = self.ask(Source::Activator)?;
        let entry = self.pod.stats.reserve();
        let slot = self.slot(asked, &mut Prefetch::empty(), peer).await?;
        let ticket = self
            .pod
            .tickets
            .issue(Instant::now(), slot, entry)
            .ok_or(Failure::QueueFull)?;
        let mut answer = Response::new(Body::empty());
        answer.headers_mut().insert(TICKET, ticket.into());
        answer
            .headers_mut()
            .insert(LOAD, self.pod.stats.load().into());
        Ok(answer)
    }
}

/// How long ago the start and the model's milestones were, in microseconds. Of one instant, so that whoever takes the ages back from another
/// one never gets the second milestone before the first.
fn ages(started: Instant, model: &Model, now: Instant) -> impl Iterator<Item = (HeaderName, u64)> {
    let age = move |at: Instant| {
        let age = now.saturating_duration_since(at).as_micros();
        u64::try_from(age).unwrap_or(u64::MAX)
    };
    let milestones = [
        (STARTED_AGE, Some(started)),
        (PORT_OPEN_AGE, model.port_open),
        (READY_AGE, model.first_ready),
    ];
    milestones
        .into_iter()
        .filter_map(move |(name, at)| Some((name, age(at?))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milestones_of_one_instant_have_one_age() {
        let at = Instant::now();
        let model = Model {
            port_open: Some(at),
            first_ready: Some(at),
            ready: true,
        };
        let now = at + Duration::from_micros(1_500);
        let told: Vec<_> = ages(at, &model, now).collect();
        let all = [STARTED_AGE, PORT_OPEN_AGE, READY_AGE].map(|name| (name, 1_500));
        assert_eq!(told, all);
        assert_eq!(ages(at, &Model::default(), now).count(), 1);
    }
}
