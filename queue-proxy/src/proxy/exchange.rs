//! A request that was let in: it waits for a slot, goes to the model or to the activators, and is counted out.

use std::{sync::Arc, time::Duration};

use http::{HeaderValue, Request, Response, Version};
use hyper::upgrade::OnUpgrade;
use shared::{
    headers::{self, ADMISSION, LOAD, SERVER_TIMING, TIMING, admission},
    http::{
        body::{Body, BodyBroken, Prefetch},
        sanitize,
        serve::Peer,
        tunnel,
    },
    record::Notes,
};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{
    Front,
    elsewhere::Bounced,
    restart::{Patience, Unanswered},
};
use crate::{
    breaker::Source,
    pod::{Admitted, Budget, Outcome, class},
    rescue::Failure,
    slots::{Asked, Slot},
    stats::Entry,
};

/// What is known of a request before anything becomes of it.
pub(super) struct Call {
    /// The request port it is for.
    pub(super) port: usize,
    pub(super) source: Source,
    /// It is no probe.
    pub(super) counts: bool,
    pub(super) arrived: Instant,
    /// Bytes of its body that may be read ahead: 0 for one that waits for `100 Continue`.
    pub(super) limit: usize,
    /// The slot that was reserved for it.
    pub(super) ticket: Option<u64>,
    /// What will be told of it.
    pub(super) notes: Notes,
}

/// Where a request goes.
pub(super) enum Place {
    /// To the model.
    Here(Slot, Entry),
    /// To the activators.
    Elsewhere(Entry),
}

/// The model's answer.
struct Served {
    answer: Response<Body>,
    admitted: Instant,
    /// How long the request was here before.
    waited: Duration,
}

impl Front {
    /// Where a request goes: to the model, once it has its slot, or to the activators before anything of it was read.
    pub(super) async fn place(
        &self,
        call: &Call,
        prefetch: &mut Prefetch,
        peer: &Peer,
    ) -> Result<Place, Failure> {
        if let Some(ticket) = call.ticket {
            let reserved = self.pod.tickets.redeem(ticket);
            let (slot, mut entry) = reserved.ok_or(Failure::TicketExpired)?;
            entry.redeemed(call.counts);
            return Ok(Place::Here(slot, entry));
        }
        let (asked, entry) = match call.source {
            Source::Service => {
                let elsewhere = self.elsewhere(call.port);
                let asked = self.pod.slots.ask_or_bounce(Source::Service, elsewhere);
                if let Ok(Asked::Bounce) = asked {
                    return Ok(Place::Elsewhere(self.pod.stats.relay()));
                }
                // Whoever is refused here was a request of this pod all the same: it goes nowhere else.
                let entry = self.pod.stats.arrive(call.counts);
                (asked.map_err(|_| Failure::QueueFull)?, entry)
            }
            // A refused request is counted by the pod that takes it. Counted here too, it would be two.
            Source::Activator => (
                self.ask(Source::Activator)?,
                self.pod.stats.arrive(call.counts),
            ),
        };
        Ok(Place::Here(self.slot(asked, prefetch, peer).await?, entry))
    }

    /// Gives the request to the model or to the activators until one of them has answered.
    pub(super) async fn pursue(
        &self,
        call: &Call,
        mut place: Place,
        mut request: Request<Body>,
        client_upgrade: Option<OnUpgrade>,
        peer: &Arc<Peer>,
        outcome: &mut Outcome<'_>,
    ) -> Result<Response<Body>, Failure> {
        let mut may_leave = call.source == Source::Service;
        let mut was_here = false;
        loop {
            match place {
                Place::Here(slot, mut entry) => {
                    entry.admitted();
                    let admitted = Instant::now();
                    // Once, also for one that leaves and comes back.
                    if !std::mem::replace(&mut was_here, true) {
                        self.pod.metrics.queue_wait.record(admitted - call.arrived);
                    }
                    let served = self.serve(call, admitted, request, may_leave, peer);
                    match served.await {
                        Ok(served) => {
                            return self.answer(
                                call,
                                served,
                                slot,
                                entry,
                                client_upgrade,
                                peer,
                                outcome,
                            );
                        }
                        Err(Unanswered::Failed(failure)) => return Err(failure),
                        Err(Unanswered::Leaves(back)) => {
                            // In this order: until it is counted elsewhere it is counted here.
                            call.notes.returned();
                            entry.relay();
                            drop(slot);
                            request = *back;
                            place = Place::Elsewhere(entry);
                        }
                    }
                }
                Place::Elsewhere(mut entry) => {
                    // In a box, as few requests need it: what waits for a slot is as large as the largest part here.
                    let bounced = self.bounce(call, request, peer);
                    match Box::pin(bounced).await? {
                        Bounced::Answered(answer) => {
                            return self.pass_on(
                                call,
                                answer,
                                entry,
                                client_upgrade,
                                peer,
                                outcome,
                            );
                        }
                        Bounced::Here(back) => {
                            may_leave = false;
                            entry.stay(call.counts);
                            let (parts, body) = back.into_parts();
                            // What comes from a client has no gate.
                            let mut ahead = Prefetch::resume(body, call.limit)
                                .ok_or(Failure::ModelUnreachable)?;
                            let asked = self.ask(call.source)?;
                            let slot = self.slot(asked, &mut ahead, peer).await?;
                            request = Request::from_parts(parts, ahead.into_body());
                            place = Place::Here(slot, entry);
                        }
                    }
                }
            }
        }
    }

    /// Gives a request that has its slot since `admitted` to the model.
    async fn serve(
        &self,
        call: &Call,
        admitted: Instant,
        request: Request<Body>,
        may_leave: bool,
        peer: &Peer,
    ) -> Result<Served, Unanswered> {
        call.notes.given(None);
        let patience = Patience {
            // An activator can go elsewhere, unless it had to give its only copy of the body.
            may_wait: call.source == Source::Service || call.ticket.is_some(),
            may_leave,
            read_ahead: call.limit,
            deadline: call.arrived + self.pod.config.queue_timeout,
        };
        let sent = self.send(call.port, request, patience, peer);
        let answer = match self.pod.config.timeouts.before_answer(admitted) {
            None => sent.await?,
            Some((at, failure)) => timeout_at(at, sent).await.map_err(|_| failure)??,
        };
        call.notes.answered();
        Ok(Served {
            answer,
            admitted,
            waited: admitted - call.arrived,
        })
    }

    /// Sends the model's answer back.
    #[expect(
        clippy::too_many_arguments,
        reason = "the end of the way: all that there is of a request"
    )]
    fn answer(
        &self,
        call: &Call,
        served: Served,
        slot: Slot,
        entry: Entry,
        client_upgrade: Option<OnUpgrade>,
        peer: &Arc<Peer>,
        outcome: &mut Outcome<'_>,
    ) -> Result<Response<Body>, Failure> {
        let Served {
            mut answer,
            admitted,
            waited,
        } = served;
        self.finish(&mut answer, call.source, waited);
        let upgrade = tunnel::sides(client_upgrade, &mut answer);
        let upgrade = upgrade.map_err(|_| Failure::ModelBroke)?;
        let code = class(answer.status());
        let mut record = outcome.hand_over();
        record.status(answer.status());
        let guard = Admitted::new((&self.pod, peer), admitted, code, record, (slot, entry));
        let timeouts = self.pod.config.timeouts;
        if let Some((client, model)) = upgrade {
            peer.switch_to_raw();
            sanitize::add_websocket(answer.headers_mut());
            let (idle, cut) = (timeouts.idle, self.pod.cut.clone());
            tunnel::join(client, model, guard, idle, &call.notes, cut);
            return Ok(answer.map(|_| Body::empty()));
        }
        let limits = timeouts.of_answer(admitted);
        Ok(answer.map(|body| {
            body.tallied(call.notes.sent())
                .ending(guard)
                .limited(limits)
        }))
    }

    /// Asks for a slot: it is there, it will come, or there is no room to wait for one.
    pub(super) fn ask(&self, source: Source) -> Result<Asked, Failure> {
        // An activator can go elsewhere, and asks anew until the model is ready again; a client of a Service cannot.
        if source == Source::Activator {
            if !self.pod.model.borrow().ready {
                return Err(Failure::NotReady);
            }
            // Who was told of readiness may be here before the task that opens the queues: it must not find them full.
            self.pod.slots.open();
        }
        self.pod.slots.ask(source).map_err(|_| Failure::QueueFull)
    }

    /// Waits for a slot. While it does, a small body is read, and a hang-up is noticed.
    pub(super) async fn slot(
        &self,
        asked: Asked,
        prefetch: &mut Prefetch,
        peer: &Peer,
    ) -> Result<Slot, Failure> {
        let mut waiting = match asked {
            Asked::Slot(slot) => return Ok(slot),
            Asked::Wait(waiting) => waiting,
            // Only who may be bounced hears this.
            Asked::Bounce => return Err(Failure::QueueFull),
        };
        let deadline = Instant::now() + self.pod.config.queue_timeout;
        let mut budget = Budget::new(&self.pod);
        loop {
            let may_read = prefetch.wants_more() && budget.take();
            tokio::select! {
                biased;
                slot = waiting.slot() => return Ok(slot),
                read = prefetch.read(), if may_read => read?,
                () = peer.gone() => return Err(Failure::BodyBroken),
                () = sleep_until(deadline) => return Err(Failure::QueueTimeout),
            }
        }
    }

    /// Removes what must not travel on and adds what the next hop is told.
    fn finish(&self, answer: &mut Response<Body>, source: Source, waited: Duration) {
        *answer.version_mut() = Version::HTTP_11;
        sanitize::strip_hop_by_hop(answer.headers_mut());
        headers::strip_ours(answer.headers_mut());
        match source {
            Source::Activator => {
                answer
                    .headers_mut()
                    .insert(ADMISSION, HeaderValue::from_static(admission::ADMITTED));
                answer
                    .headers_mut()
                    .insert(LOAD, self.pod.stats.load().into());
            }
            Source::Service if self.pod.config.timing_header => {
                let timing = timing(waited);
                // The model may have entries of its own, on a line of their own.
                answer.headers_mut().append(SERVER_TIMING, timing.clone());
                answer.headers_mut().insert(TIMING, timing);
            }
            Source::Service => {}
        }
    }
}

/// A failure after sending is `theirs`, unless the client's own body broke first.
pub(super) fn of_sending(error: &shared::BoxError, theirs: Failure) -> Failure {
    BodyBroken::behind(error).map_or(theirs, Failure::from)
}

/// The value of both timing headers: milliseconds that the request waited here.
fn timing(waited: Duration) -> HeaderValue {
    let text = format!("queue;dur={:.3}", waited.as_secs_f64() * 1e3);
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("queue"))
}
