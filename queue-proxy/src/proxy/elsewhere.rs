//! A request that is bounced: sent to the activators, and their answer sent back.
//!
//! What must stay true: it is sent at most once. What found nobody was not sent, and is served here as if there were no activators;
//! of what was sent their answer is the client's, whatever it is.

use std::{pin::pin, sync::Arc};

use http::{HeaderValue, Request, Response, StatusCode, Version, header::EXPECT};
use hyper::upgrade::OnUpgrade;
use shared::{
    headers::{self, LOAD, POD_UID},
    http::{
        body::{Body, Gate},
        client::{SendError, on_informational},
        sanitize,
        serve::Peer,
        tunnel,
    },
};
use tokio::sync::Notify;

use super::{
    Front,
    exchange::{Call, of_sending},
};
use crate::{
    bounce::Elsewhere,
    pod::{Outcome, Relayed},
    rescue::Failure,
    stats::Entry,
};

/// What became of a request that was to be bounced.
pub(super) enum Bounced {
    /// An activator has answered.
    Answered(Response<Body>),
    /// Nobody was reached: nothing of it was sent.
    Here(Request<Body>),
}

impl Front {
    /// Whether there is a way to the activators of a port, and what makes requests go it.
    pub(super) fn elsewhere(&self, port: usize) -> Option<Elsewhere> {
        let relay = self.pod.relays.get(port)?.as_ref()?;
        relay.is_open().then(|| Elsewhere {
            rule: self.pod.config.bounce,
            draining: self.pod.stats.is_draining(),
        })
    }

    /// Sends it to the activators. If its client waits for `100 Continue`, its body is not read before one of them says that it is wanted.
    pub(super) async fn bounce(
        &self,
        call: &Call,
        mut request: Request<Body>,
        peer: &Peer,
    ) -> Result<Bounced, Failure> {
        let Some(relay) = self.pod.relays.get(call.port).and_then(Option::as_ref) else {
            return Ok(Bounced::Here(request));
        };
        // Or the activator, which has not heard of this pod lately, would take it for an idle one.
        let headers = request.headers_mut();
        if let Ok(uid) = HeaderValue::from_str(&self.pod.config.pod_uid) {
            headers.insert(POD_UID, uid);
        }
        headers.insert(LOAD, self.pod.stats.load().into());
        // hyper tells an HTTP/2 client nothing of 1xx answers.
        let gate = if call.limit == 0 && request.version() != Version::HTTP_2 {
            let (gate, gated) = Gate::shut(std::mem::replace(request.body_mut(), Body::empty()));
            *request.body_mut() = gated;
            let wanted = HeaderValue::from_static("100-continue");
            request.headers_mut().insert(EXPECT, wanted);
            Some(gate)
        } else {
            None
        };
        let wanted = Arc::new(Notify::new());
        if let Some(gate) = &gate {
            let (gate, wanted) = (Arc::clone(gate), Arc::clone(&wanted));
            on_informational(&mut request, move |status| {
                if status == StatusCode::CONTINUE {
                    gate.open();
                    wanted.notify_one();
                }
            });
        }
        let mut shut = gate.is_some();
        call.notes.given(None);
        let mut sending = pin!(relay.send(request));
        let sent = loop {
            tokio::select! {
                biased;
                sent = &mut sending => break sent,
                () = wanted.notified(), if shut => shut = false,
                // Nobody reads what the client sends.
                () = peer.gone(), if shut => return Err(Failure::BodyBroken),
            }
        };
        match sent {
            Ok(answer) => {
                call.notes.answered();
                Ok(Bounced::Answered(match gate {
                    Some(gate) => gate.answered(answer),
                    None => answer,
                }))
            }
            Err(SendError::NotSent { mut request, .. }) => {
                call.notes.returned();
                if let Some(gate) = gate {
                    request.headers_mut().remove(EXPECT);
                    *request.body_mut() = gate.take_back().ok_or(Failure::RelayBroke)?;
                }
                headers::strip_ours(request.headers_mut());
                Ok(Bounced::Here(*request))
            }
            Err(SendError::Sent(error)) => {
                tracing::debug!(%error, "Activator gave no answer");
                Err(of_sending(&error, Failure::RelayBroke))
            }
        }
    }

    /// Sends the answer of an activator back.
    pub(super) fn pass_on(
        &self,
        call: &Call,
        mut answer: Response<Body>,
        entry: Entry,
        client_upgrade: Option<OnUpgrade>,
        peer: &Arc<Peer>,
        outcome: &mut Outcome<'_>,
    ) -> Result<Response<Body>, Failure> {
        *answer.version_mut() = Version::HTTP_11;
        sanitize::strip_hop_by_hop(answer.headers_mut());
        headers::strip_ours(answer.headers_mut());
        let upgrade = tunnel::sides(client_upgrade, &mut answer);
        let upgrade = upgrade.map_err(|_| Failure::RelayBroke)?;
        let mut record = outcome.hand_over();
        record.status(answer.status());
        let guard = Relayed::new(&self.pod, peer, record, entry);
        if let Some((client, activator)) = upgrade {
            peer.switch_to_raw();
            sanitize::add_websocket(answer.headers_mut());
            // Its silence is limited by the pod that has it, if at all.
            let cut = self.pod.cut.clone();
            tunnel::join(client, activator, guard, None, &call.notes, cut);
            return Ok(answer.map(|_| Body::empty()));
        }
        Ok(answer.map(|body| body.tallied(call.notes.sent()).ending(guard)))
    }
}
