//! One attempt to give a request to a pod, and whether the pod admitted it.

use std::{pin::pin, sync::Arc};

use bytes::Bytes;
use http::{
    HeaderValue, Request, Response, StatusCode, Version,
    header::{EXPECT, HOST},
    request::Parts,
};
use shared::{
    headers::{self, ADMISSION, LOAD, OP, POD_UID, PORT, TICKET, admission, op},
    http::{
        body::{Body, BodyBroken, Gate},
        client::{SendError, on_informational},
        sanitize,
        serve::Peer,
    },
};
use tokio::sync::Notify;

use super::Front;
use crate::{
    rescue::Failure,
    workload::{Budget, Lease},
};

/// What became of one attempt.
pub(super) enum Attempt {
    /// The pod has admitted it; here is the answer.
    Answered(Response<Body>),
    /// It has not: the body is still whole, and the pod is not to be asked again for a while.
    NotAdmitted(Body, Why),
}

/// Why a pod did not admit a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    Full,
    Unready,
}

impl Front {
    /// Sends the request to the leased pod. Its bytes are given back when it cannot be sent again any more. While a pod keeps
    /// a body waiting nobody reads what the client sends, so that its end is watched for here.
    pub(super) async fn attempt(
        &self,
        lease: &Lease,
        parts: &Parts,
        body: Body,
        budget: &mut Budget,
        peer: &Peer,
    ) -> Result<Attempt, Failure> {
        let copy = body.copy();
        let (gate, mut request) = if copy.is_some() {
            (None, self.request(lease, parts, body))
        } else if parts.version == Version::HTTP_2 {
            match Box::pin(self.reserve(lease)).await {
                Ok(ticket) => {
                    budget.give_back();
                    let mut request = self.request(lease, parts, body);
                    request.headers_mut().insert(TICKET, ticket);
                    (None, request)
                }
                Err(why) => return Ok(Attempt::NotAdmitted(body, why)),
            }
        } else {
            let (gate, gated) = Gate::shut(body);
            let mut request = self.request(lease, parts, gated);
            request
                .headers_mut()
                .insert(EXPECT, HeaderValue::from_static("100-continue"));
            (Some(gate), request)
        };
        let admitted = Arc::new(Notify::new());
        if let Some(gate) = &gate {
            let (gate, admitted) = (Arc::clone(gate), Arc::clone(&admitted));
            on_informational(&mut request, move |status| {
                if status == StatusCode::CONTINUE {
                    gate.open();
                    admitted.notify_one();
                }
            });
        }
        let ticketed = request.headers().contains_key(TICKET);
        let mut sending = pin!(lease.pod.client.send(request));
        let mut shut = gate.is_some();
        let sent = loop {
            tokio::select! {
                biased;
                sent = &mut sending => break sent,
                () = admitted.notified() => {
                    shut = false;
                    budget.give_back();
                }
                () = peer.gone(), if shut => return Err(Failure::BodyBroken),
            }
        };
        match sent {
            Err(SendError::NotSent { error, request }) => {
                tracing::debug!(pod = %lease.pod.uid, %error, "Pod takes no connection");
                let back = match (&gate, copy) {
                    (Some(gate), _) => gate.take_back(),
                    (None, Some(copy)) => Some(copy),
                    (None, None) => Some(request.into_body()),
                };
                back.map(|body| Attempt::NotAdmitted(body, Why::Unready))
                    .ok_or(Failure::PodBroke)
            }
            Err(SendError::Sent(error)) => {
                tracing::debug!(pod = %lease.pod.uid, %error, "Pod broke off");
                Err(BodyBroken::behind(&error).map_or(Failure::PodBroke, Failure::from))
            }
            Ok(answer) => self.judge(lease, answer, copy, gate, ticketed),
        }
    }

    /// Whether an answer is the model's, or the queue-proxy's word that it has not admitted the request.
    fn judge(
        &self,
        lease: &Lease,
        mut answer: Response<Body>,
        copy: Option<Body>,
        gate: Option<Arc<Gate>>,
        ticketed: bool,
    ) -> Result<Attempt, Failure> {
        let marker = answer
            .headers()
            .get(ADMISSION)
            .map(HeaderValue::as_bytes)
            .unwrap_or_default();
        let refused = [
            (admission::FULL, Why::Full),
            (admission::NOT_READY, Why::Unready),
            (admission::MISDIRECTED, Why::Unready),
        ]
        .into_iter()
        .find(|(name, _)| name.as_bytes() == marker)
        .map(|(_, why)| why);
        if let Some(why) = refused {
            let back = gate.map_or(copy, |gate| gate.take_back());
            // A ticket was good for one slot; a body that went with it cannot be had back.
            return match back {
                Some(body) if !ticketed => Ok(Attempt::NotAdmitted(body, why)),
                _ => Err(Failure::PodBroke),
            };
        }
        if marker != admission::ADMITTED.as_bytes() {
            // Not a queue-proxy: another program has the address now. Its answer is nobody's business here, and what it
            // has done with the request nobody knows.
            tracing::warn!(pod = %lease.pod.uid, "Answer without an admission");
            self.workload.pod_is_unready(&lease.pod);
            return Err(Failure::PodBroke);
        }
        if let Some(load) = answer
            .headers()
            .get(LOAD)
            .and_then(|v| v.to_str().ok()?.parse().ok())
        {
            self.workload.pod_reports(&lease.pod, load);
        }
        sanitize::strip_hop_by_hop(answer.headers_mut());
        headers::strip_ours(answer.headers_mut());
        *answer.version_mut() = Version::HTTP_11;
        Ok(Attempt::Answered(match gate {
            Some(gate) => gate.answered(answer),
            None => answer,
        }))
    }

    /// Reserves a slot for a request whose body can neither be sent twice nor wait for a `100 Continue`.
    async fn reserve(&self, lease: &Lease) -> Result<HeaderValue, Why> {
        let mut request = Request::new(Body::empty());
        request
            .headers_mut()
            .insert(HOST, HeaderValue::from_static("rouse"));
        request
            .headers_mut()
            .insert(OP, HeaderValue::from_static(op::RESERVE));
        self.address(lease, &mut request);
        let answer = lease
            .pod
            .client
            .send(request)
            .await
            .map_err(|_| Why::Unready)?;
        match answer.headers().get(TICKET) {
            Some(ticket) if answer.status() == StatusCode::OK => Ok(ticket.clone()),
            _ if answer
                .headers()
                .get(ADMISSION)
                .is_some_and(|v| v == admission::FULL) =>
            {
                Err(Why::Full)
            }
            _ => Err(Why::Unready),
        }
    }

    fn request(&self, lease: &Lease, parts: &Parts, body: Body) -> Request<Body> {
        let mut request = Request::new(body);
        *request.method_mut() = parts.method.clone();
        *request.uri_mut() = parts.uri.clone();
        *request.version_mut() = parts.version;
        *request.headers_mut() = parts.headers.clone();
        self.address(lease, &mut request);
        request
    }

    /// States which pod and which of its ports are meant.
    fn address(&self, lease: &Lease, request: &mut Request<Body>) {
        let headers = request.headers_mut();
        headers.insert(PORT, self.port.into());
        if let Ok(uid) =
            HeaderValue::from_maybe_shared(Bytes::copy_from_slice(lease.pod.uid.as_bytes()))
        {
            headers.insert(POD_UID, uid);
        }
    }
}
