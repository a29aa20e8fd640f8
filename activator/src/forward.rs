//! The way of one request: check, get a pod or wait for one, give it to the pod, answer.

use std::{fmt::Write as _, sync::Arc};

use http::{HeaderValue, Request, Response, StatusCode, header::EXPECT};
use hyper::body::Incoming;
use shared::{
    headers::TIMING,
    http::{
        body::{Body, End, Ending, Prefetch},
        h1::Refusal,
        sanitize,
        serve::{Handler, Peer},
        tunnel,
    },
    shutdown,
};
use tokio::time::{Duration, Instant, sleep_until, timeout};

use self::attempt::{Attempt, Why};
use crate::{
    config::RESENDABLE_BYTES,
    rescue::{BROKE, Failure},
    timeline::Timeline,
    workload::{Budget, Entered, Held, Lease, Workload},
};

mod attempt;

/// How long a body of at most 64 KiB may take to arrive before its request goes on without it.
const SMALL_BODY_PATIENCE: Duration = Duration::from_secs(1);

/// One port of one workload.
#[derive(Clone, Debug)]
pub(crate) struct Front {
    pub(crate) workload: Arc<Workload>,
    /// Its number, the same on every pod.
    pub(crate) port: usize,
    pub(crate) cut: shutdown::Rx,
}

/// The outcome of a request whose client did not wait for its end.
const GONE: &str = "client-gone";

/// Counts the one outcome of a request that has no answer of a pod yet. Dropped without one, the client was gone.
struct Outcome<'a> {
    workload: &'a Workload,
    /// None once it is the business of [`Answered`].
    code: Option<&'static str>,
}

impl Drop for Outcome<'_> {
    fn drop(&mut self) {
        if let Some(code) = self.code {
            self.workload.metrics.count(self.workload.id(), code);
        }
    }
}

/// What a request has of its workload while its answer is on its way. How that ends is the outcome, which it counts.
struct Answered {
    workload: Arc<Workload>,
    outcome: &'static str,
    _lease: Lease,
}

impl Ending for Answered {
    fn end(&mut self, how: End) {
        self.outcome = match how {
            End::Whole => return,
            End::Broken | End::Late(_) => BROKE,
            End::Dropped => GONE,
            End::Stalled => "client-stalled",
        };
    }
}

impl Drop for Answered {
    fn drop(&mut self) {
        self.workload
            .metrics
            .count(self.workload.id(), self.outcome);
    }
}

impl Handler for Front {
    async fn handle(&self, request: Request<Incoming>, peer: Arc<Peer>) -> Response<Body> {
        let mut outcome = Outcome {
            workload: &self.workload,
            code: Some(GONE),
        };
        match self.try_handle(request, &peer, &mut outcome).await {
            Ok(answer) => answer,
            Err(failure) => {
                let rule = failure.rule();
                outcome.code = Some(rule.code);
                tracing::debug!(target = %self.workload.id(), outcome = rule.code, origin = rule.origin.as_str(), "Not answered by a pod");
                failure.answer(self.workload.process.config.explain_failures)
            }
        }
    }

    fn refuse(&self, refusal: Refusal) -> Response<Body> {
        self.workload.metrics.count(self.workload.id(), "malformed");
        Failure::Refused(refusal).answer(false)
    }
}

impl Front {
    async fn try_handle(
        &self,
        mut request: Request<Incoming>,
        peer: &Arc<Peer>,
        outcome: &mut Outcome<'_>,
    ) -> Result<Response<Body>, Failure> {
        sanitize::check_request(&mut request).map_err(Failure::Refused)?;
        // Before anything of it is kept, counted or waited for.
        self.check_source(peer).await?;
        let websocket = sanitize::websocket(&request).map_err(Failure::Refused)?;
        let client_upgrade = websocket.then(|| hyper::upgrade::on(&mut request));
        let trusted = &self.workload.process.config.trusted;
        sanitize::prepare(&mut request, websocket, Some((peer.address.ip(), trusted)));
        // Reading a body for which 100-continue is expected answers that at once: it waits for a pod.
        let limit = if request.headers_mut().remove(EXPECT).is_some() {
            0
        } else {
            RESENDABLE_BYTES
        };
        let (parts, incoming) = request.into_parts();
        let mut prefetch = Prefetch::new(incoming, limit);

        let arrived = Instant::now();
        let deadline = arrived + self.workload.max_cold_start();
        let mut budget = Budget::new(&self.workload);
        read_ahead(&mut prefetch, &mut budget).await?;
        let mut lease = match self.workload.enter()? {
            Entered::Leased(lease) => lease,
            Entered::Held(held) => {
                wait(held, Some(&mut prefetch), &mut budget, deadline, peer).await?
            }
        };
        let mut forwarded = Instant::now();
        let mut body = prefetch.into_body();
        let (mut answer, mut lease) = loop {
            match self
                .attempt(&lease, &parts, body, &mut budget, peer)
                .await?
            {
                Attempt::Answered(answer) => break (answer, lease),
                Attempt::NotAdmitted(back, why) => {
                    body = back;
                    match why {
                        Why::Full => self.workload.pod_is_full(&lease.pod),
                        Why::Unready => self.workload.pod_is_unready(&lease.pod),
                    }
                    let held = self.workload.hold_again(lease)?;
                    lease = wait(held, None, &mut budget, deadline, peer).await?;
                    forwarded = Instant::now();
                }
            }
        };
        lease.answered();
        let timeline = self
            .workload
            .end_timeline(arrived, forwarded, Instant::now());
        let waited = forwarded - arrived;
        if waited.as_micros() > 1_000 {
            let metrics = &self.workload.metrics;
            metrics.was_held(self.workload.id(), waited);
        }
        if self.workload.process.config.timing_header {
            answer
                .headers_mut()
                .insert(TIMING, timing(waited, timeline.as_ref()));
        }
        let is_upgrade = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
        if is_upgrade && client_upgrade.is_none() {
            return Err(Failure::PodBroke);
        }
        outcome.code = None;
        let guard = Answered {
            workload: Arc::clone(&self.workload),
            outcome: class(answer.status()),
            _lease: lease,
        };
        if let (true, Some(client_upgrade)) = (is_upgrade, client_upgrade) {
            let pod_upgrade = hyper::upgrade::on(&mut answer);
            peer.switch_to_raw();
            sanitize::add_websocket(answer.headers_mut());
            // Its silence is limited by the pod, if at all.
            tunnel::join(client_upgrade, pod_upgrade, guard, None, self.cut.clone());
            return Ok(answer.map(|_| Body::empty()));
        }
        Ok(answer.map(|body| body.ending(guard)))
    }

    /// Whether this workload takes requests from the other end of the connection.
    async fn check_source(&self, peer: &Peer) -> Result<(), Failure> {
        let Some(access) = self.workload.access() else {
            return Ok(());
        };
        let found = tokio::select! {
            biased;
            found = access.namespace_of(peer) => found?,
            () = peer.gone() => return Err(Failure::BodyBroken),
        };
        // The rule may be another one by now.
        match self.workload.access() {
            Some(access) if !access.allows(found.as_deref()) => Err(Failure::NamespaceNotAllowed),
            _ => Ok(()),
        }
    }
}

/// Waits for a pod. While it does, a small body is read, so that it can be sent again, and a hang-up is noticed. Who must
/// wait although his bytes are too many is refused.
async fn wait(
    mut held: Held,
    mut ahead: Option<&mut Prefetch>,
    budget: &mut Budget,
    deadline: Instant,
    peer: &Peer,
) -> Result<Lease, Failure> {
    loop {
        let may_read = ahead.as_ref().is_some_and(|prefetch| prefetch.wants_more());
        let too_much = !budget.fits();
        let read = async {
            match &mut ahead {
                Some(prefetch) => read_frame(prefetch).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            lease = held.granted() => return lease,
            () = std::future::ready(()), if too_much => return Err(Failure::HoldBytes),
            read = read, if may_read => {
                budget.account(read?);
            }
            () = peer.gone() => return Err(Failure::BodyBroken),
            () = sleep_until(deadline) => return Err(Failure::Expired),
        }
    }
}

/// Reads a body that is declared small to its end, and of any other what has arrived already, so that most requests can
/// be sent again if a pod does not admit them. A slow body does not keep its request from going on for long. Nor do many
/// bodies in memory keep it from a pod that has room: then the rest of it waits, unread, until the pod has admitted it.
async fn read_ahead(prefetch: &mut Prefetch, budget: &mut Budget) -> Result<(), Failure> {
    let patience = if prefetch.is_declared_small() {
        SMALL_BODY_PATIENCE
    } else {
        Duration::ZERO
    };
    let reading = async {
        // What does not fit is one piece, which is in memory in any case when it is read.
        while prefetch.wants_more() && budget.has_room() {
            if !budget.account(read_frame(prefetch).await?) {
                break;
            }
        }
        Ok(())
    };
    // With no patience a frame is taken if it is there.
    timeout(patience, reading).await.unwrap_or(Ok(()))
}

/// Reads on; returns how many bytes are in memory then.
async fn read_frame(prefetch: &mut Prefetch) -> Result<usize, Failure> {
    prefetch.read().await.map_err(|_| Failure::BodyBroken)?;
    Ok(prefetch.bytes())
}

/// The value of `rouse-timing`: milliseconds held, and for the first answer of a cold start its phases.
fn timing(waited: Duration, timeline: Option<&Timeline>) -> HeaderValue {
    let mut text = format!("hold;dur={:.3}", waited.as_secs_f64() * 1e3);
    for (phase, at) in timeline.map(Timeline::phases).unwrap_or_default() {
        // Writing to a String cannot fail.
        let _ = write!(text, ", {phase};dur={:.3}", at.as_secs_f64() * 1e3);
    }
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("hold"))
}

fn class(status: StatusCode) -> &'static str {
    match status.as_u16() / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
}
