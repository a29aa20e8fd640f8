//! A request from the moment it is due to the moment it is counted, exactly once, even if its task is dropped.

use crate::check::Check;
use crate::client::{Target, Template};
use crate::config::Expect;
use crate::dispatch::{Dispatch, Ticket};
use crate::journal::{Journal, Outcome};
use crate::protocol::Protocol;
use crate::protocol::grpc::Code;
use crate::record::{ErrorKind, Recorder, Sample};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// The parts of a run that all threads read.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) template: Template,
    pub(crate) target: Target,
    pub(crate) timeout: Duration,
    pub(crate) expect: Expect,
    pub(crate) protocol: Protocol,
    pub(crate) checks: Vec<Check>,
    /// Requests of a connection.
    pub(crate) connection_requests: u64,
    pub(crate) journal: Option<Journal>,
    /// Begins every request id, so that ids of different runs differ.
    pub(crate) tag: u64,
    pub(crate) dispatch: Dispatch,
    /// Requests of a closed loop that may still start, if it has a number.
    pub(crate) budget: Option<AtomicU64>,
    /// Requests of a closed loop that were begun, which are numbered by it.
    pub(crate) numbers: AtomicU64,
    /// Limits the connections being made in advance.
    pub(crate) turns: Semaphore,
    pub(crate) halted: AtomicBool,
}

impl Shared {
    fn id(&self, number: u64) -> String {
        format!("{:012x}-{number}", self.tag)
    }
}

/// When the load starts, when it starts to count, and when a timed closed loop ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeline {
    pub(crate) start: Instant,
    pub(crate) measure: Instant,
    pub(crate) end: Option<Instant>,
}

/// The counts of one thread. The lock is only ever contended by the progress reader.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) counts: Mutex<Counts>,
    pub(crate) in_flight: AtomicU64,
}

#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) recorder: Recorder,
    pub(crate) last_done: Option<Instant>,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ending<'a> {
    pub(crate) status: Option<u16>,
    pub(crate) error: Option<ErrorKind>,
    pub(crate) served_by: Option<&'a str>,
    pub(crate) body_bytes: u64,
    pub(crate) code: Option<Code>,
    /// Of an error, in the words of whoever found it.
    pub(crate) reason: Option<&'a str>,
}

/// A request under way. Dropped before [`Flight::end`], it counts as interrupted.
#[derive(Debug)]
pub(crate) struct Flight<'a> {
    shared: &'a Shared,
    tally: &'a Tally,
    timeline: &'a Timeline,
    ticket: Ticket,
    id: Option<String>,
    pub(crate) sent: Option<Instant>,
    pub(crate) reused: bool,
    ended: bool,
}

impl<'a> Flight<'a> {
    pub(crate) fn begin(
        shared: &'a Shared,
        tally: &'a Tally,
        timeline: &'a Timeline,
        ticket: Ticket,
    ) -> Self {
        tally.in_flight.fetch_add(1, Ordering::Relaxed);
        let id = shared.journal.as_ref().map(|_| shared.id(ticket.number));
        Self {
            shared,
            tally,
            timeline,
            ticket,
            id,
            sent: None,
            reused: false,
            ended: false,
        }
    }

    /// Unique within the run.
    pub(crate) fn number(&self) -> u64 {
        self.ticket.number
    }

    /// Its id, if a journal is kept.
    pub(crate) fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Counts the request.
    pub(crate) fn end(mut self, ending: Ending<'_>) {
        self.ended = true;
        self.count(Instant::now(), ending);
    }

    fn count(&mut self, done: Instant, ending: Ending<'_>) {
        self.tally.in_flight.fetch_sub(1, Ordering::Relaxed);
        let warmup = self.ticket.planned < self.timeline.measure;
        if !warmup {
            let latency = done.saturating_duration_since(self.ticket.planned);
            let Ending {
                status,
                error,
                served_by,
                body_bytes,
                code,
                reason,
            } = ending;
            let mut counts = self.tally.counts.lock();
            counts.recorder.record(Sample {
                at: self
                    .ticket
                    .planned
                    .saturating_duration_since(self.timeline.measure),
                latency,
                status,
                error,
                served_by,
                body_bytes,
                code,
            });
            if let (Some(kind), Some(reason)) = (error, reason) {
                counts.recorder.reason(kind, reason);
            }
            if error != Some(ErrorKind::Interrupted) {
                counts.last_done = Some(done);
            }
        }
        if let (Some(journal), Some(id)) = (&self.shared.journal, self.id.take()) {
            let since_start =
                |instant: Instant| instant.saturating_duration_since(self.timeline.start);
            journal.tell(Outcome {
                id,
                planned: since_start(self.ticket.planned),
                sent: self.sent.map(since_start),
                done: since_start(done),
                status: ending.status,
                error: ending.error,
                reused: self.reused,
                served_by: ending.served_by.map(str::to_owned),
                warmup,
            });
        }
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.count(
                Instant::now(),
                Ending {
                    error: Some(ErrorKind::Interrupted),
                    ..Ending::default()
                },
            );
        }
    }
}
