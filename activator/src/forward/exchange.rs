//! A request that no pod has answered yet: what there is of it, and how it waits for a pod and is given to one.

use http::{Response, request::Parts};
use shared::{
    http::{
        body::{Body, Prefetch},
        serve::Peer,
    },
    record::Notes,
};
use tokio::time::{Duration, Instant, sleep_until, timeout};

use super::{
    Front,
    attempt::{Attempt, Why},
    heartbeat,
};
use crate::{
    rescue::Failure,
    workload::{Budget, Entered, Held, Lease},
};

/// How long a body of at most 64 KiB may take to arrive before its request goes on without it.
const SMALL_BODY_PATIENCE: Duration = Duration::from_secs(1);

/// The request.
pub(super) struct Exchange {
    pub(super) parts: Parts,
    unsent: Unsent,
    budget: Budget,
    pub(super) arrived: Instant,
    deadline: Instant,
    beats: Option<Beats>,
    pub(super) notes: Notes,
}

/// When the client gets a sign of life, if it wants one.
#[derive(Clone, Copy)]
struct Beats {
    every: Duration,
    next: Instant,
}

/// The body.
enum Unsent {
    /// It is read as far as it goes.
    Ahead(Prefetch),
    /// It is whole, or was tried at a pod already.
    Body(Body),
}

/// How an exchange went on.
#[expect(
    clippy::large_enum_variant,
    reason = "the large one is nearly every request's, and taken apart at once"
)]
pub(super) enum Pursued {
    /// The head of a pod's answer is there.
    Answered(Answered),
    /// It is held still, and the client is to get a sign of life, now and every so often.
    Beats(Held, Duration),
}

/// A pod's answer.
pub(super) struct Answered {
    pub(super) answer: Response<Body>,
    pub(super) lease: Lease,
    /// When the request was given to the pod.
    pub(super) forwarded: Instant,
}

/// How a wait ended that did not fail.
enum Waited {
    Leased(Lease),
    Beats(Held, Duration),
}

impl Exchange {
    /// A request whose body is read ahead of a pod as far as `prefetch` goes. With `every`, its client gets signs of life.
    pub(super) fn new(
        front: &Front,
        parts: Parts,
        prefetch: Prefetch,
        every: Option<Duration>,
        notes: Notes,
    ) -> Self {
        let arrived = Instant::now();
        notes.waits();
        Self {
            parts,
            unsent: Unsent::Ahead(prefetch),
            budget: Budget::new(&front.workload),
            arrived,
            deadline: arrived + front.workload.max_cold_start(),
            beats: every.map(|every| Beats {
                every,
                next: arrived + every,
            }),
            notes,
        }
    }

    /// Reads a body that is declared small to its end, and of any other what has arrived already, so that most requests can
    /// be sent again if a pod does not admit them. A slow body does not keep its request from going on for long. Nor do many
    /// bodies in memory keep it from a pod that has room: then the rest of it waits, unread, until the pod has admitted it.
    pub(super) async fn read_ahead(&mut self) -> Result<(), Failure> {
        let Unsent::Ahead(prefetch) = &mut self.unsent else {
            return Ok(());
        };
        let patience = if prefetch.is_declared_small() {
            SMALL_BODY_PATIENCE
        } else {
            Duration::ZERO
        };
        let reading = async {
            // What does not fit is one piece, which is in memory in any case when it is read.
            while prefetch.wants_more() && self.budget.has_room() {
                if !self.budget.account(read_frame(prefetch).await?) {
                    break;
                }
            }
            Ok(())
        };
        // With no patience a frame is taken if it is there.
        timeout(patience, reading).await.unwrap_or(Ok(()))
    }

    /// Gives it to pods until one answers, and waits in between.
    pub(super) async fn pursue(
        &mut self,
        front: &Front,
        mut place: Entered,
        peer: &Peer,
    ) -> Result<Pursued, Failure> {
        loop {
            let lease = match place {
                Entered::Leased(lease) => lease,
                Entered::Held(held) => match self.wait(held, peer).await? {
                    Waited::Leased(lease) => lease,
                    Waited::Beats(held, every) => return Ok(Pursued::Beats(held, every)),
                },
            };
            let forwarded = Instant::now();
            self.notes.given(Some(&lease.pod.uid));
            let body = self.take_body();
            // In a box, so that a request that only waits is small.
            let attempt = front.attempt(&lease, &self.parts, body, &mut self.budget, peer);
            match Box::pin(attempt).await? {
                Attempt::Answered(answer) => {
                    self.notes.answered();
                    return Ok(Pursued::Answered(Answered {
                        answer,
                        lease,
                        forwarded,
                    }));
                }
                Attempt::NotAdmitted(back, why) => {
                    self.notes.returned();
                    self.unsent = Unsent::Body(back);
                    match why {
                        Why::Full => front.workload.pod_is_full(&lease.pod),
                        Why::Unready => front.workload.pod_is_unready(&lease.pod),
                    }
                    place = Entered::Held(front.workload.hold_again(lease)?);
                }
            }
        }
    }

    /// Waits for a pod. While it does, a small body is read, so that it can be sent again, and a hang-up is noticed. Who must
    /// wait although his bytes are too many is refused.
    async fn wait(&mut self, mut held: Held, peer: &Peer) -> Result<Waited, Failure> {
        loop {
            let deadline = self.deadline;
            let beat = self.beats.map(|beats| beats.next);
            let too_much = !self.budget.fits();
            let ahead = match &mut self.unsent {
                Unsent::Ahead(prefetch) if prefetch.wants_more() => Some(prefetch),
                _ => None,
            };
            let read = async {
                match ahead {
                    Some(prefetch) => read_frame(prefetch).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                lease = held.granted() => return Ok(Waited::Leased(lease?)),
                () = std::future::ready(()), if too_much => return Err(Failure::HoldBytes),
                read = read => {
                    self.budget.account(read?);
                }
                () = peer.gone() => return Err(Failure::BodyBroken),
                () = sleep_until(deadline) => return Err(Failure::Expired),
                () = until(beat) => {
                    if let Some(every) = self.beats_begin() {
                        return Ok(Waited::Beats(held, every));
                    }
                }
            }
        }
    }

    /// It is time for the first sign of life: how often there is one from now on, if the client wants any. It is not asked again. As
    /// long as its body is not whole that is not known, and a client that still sends does not listen yet.
    fn beats_begin(&mut self) -> Option<Duration> {
        let mut beats = self.beats.take()?;
        if matches!(&self.unsent, Unsent::Ahead(prefetch) if !prefetch.is_whole()) {
            beats.next = Instant::now() + beats.every;
            self.beats = Some(beats);
            return None;
        }
        let body = self.take_body();
        let wanted = body.is_buffered() && heartbeat::is_wanted(&self.parts, &body);
        self.unsent = Unsent::Body(body);
        wanted.then_some(beats.every)
    }

    fn take_body(&mut self) -> Body {
        match std::mem::replace(&mut self.unsent, Unsent::Body(Body::empty())) {
            Unsent::Ahead(prefetch) => prefetch.into_body(),
            Unsent::Body(body) => body,
        }
    }
}

/// Reads on; returns how many bytes are in memory then.
async fn read_frame(prefetch: &mut Prefetch) -> Result<usize, Failure> {
    prefetch.read().await?;
    Ok(prefetch.bytes())
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
