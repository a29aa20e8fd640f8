//! The task of one connection: gets a request to send, sends it, counts it, again.

use crate::check;
use crate::client::{Answer, BodyEnd, Connection, Failure, Order, Refused, Stage, Watchdog};
use crate::dispatch::Ticket;
use crate::flight::{Ending, Flight, Shared, Tally, Timeline};
use crate::listen::{Listener, Sink};
use crate::record::ErrorKind;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout, timeout_at};

/// How long each of the connections made in advance may take, once it is its turn. A target that is slower, or not there yet, is the first request's
/// business: its latency then includes connecting.
const PRECONNECT: Duration = Duration::from_secs(1);

/// How long each of them waits for its turn, so that a target that never answers does not hold up the start of many for long.
const TURN: Duration = Duration::from_secs(10);

/// The pause after a refused connection in a closed loop, so that a dead target does not turn it into a busy loop.
const REFUSED_PAUSE: Duration = Duration::from_millis(10);

/// One worker.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) tally: Arc<Tally>,
    /// Which of the run's connections it is, from 0.
    pub(crate) index: usize,
}

/// The connection, if there is one, and the timer for whatever happens on it.
#[derive(Debug)]
struct Link {
    connection: Option<Connection>,
    watchdog: Watchdog,
}

impl Worker {
    /// Connects, drops `ready` once it could send, waits for the start, and works until there is no more to do.
    pub(crate) async fn run(
        self,
        ready: mpsc::Sender<()>,
        mut start: watch::Receiver<Option<Timeline>>,
    ) {
        let mut link = Link {
            connection: None,
            watchdog: Watchdog::new(Instant::now() + self.shared.timeout),
        };
        link.connection = self.preconnect().await;
        if self.shared.dispatch.is_used() {
            return self.open_loop(&mut link, ready, &start).await;
        }
        drop(ready);
        // The other side goes away when the run is stopped before it starts.
        let timeline = start
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|timeline| *timeline);
        if let Some(timeline) = timeline {
            self.closed_loop(&mut link, &timeline).await;
        }
    }

    async fn closed_loop(&self, link: &mut Link, timeline: &Timeline) {
        loop {
            let now = Instant::now();
            if timeline.end.is_some_and(|end| now >= end)
                || (now >= timeline.measure && !self.spend())
            {
                break;
            }
            let ticket = Ticket {
                // Of all connections together: were they dealt out in turn, each would send the same few bodies of a list.
                number: self.shared.numbers.fetch_add(1, Ordering::Relaxed),
                planned: now,
                released: now,
                waited: false,
            };
            if self.perform(link, timeline, ticket).await == Performed::Unconnected {
                sleep(REFUSED_PAUSE).await;
            }
        }
    }

    /// Takes one request from the budget, if there is a budget; false if it is used up.
    fn spend(&self) -> bool {
        self.shared.budget.as_ref().is_none_or(|budget| {
            budget
                .try_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                    left.checked_sub(1)
                })
                .is_ok()
        })
    }

    async fn open_loop(
        &self,
        link: &mut Link,
        ready: mpsc::Sender<()>,
        start: &watch::Receiver<Option<Timeline>>,
    ) {
        // Held until this worker is known to be free: the first request must not find nobody.
        let mut ready = Some(ready);
        // A connection that the server closes while idle is noticed here rather than by the next request.
        while let Some(ticket) = poll_fn(|cx| {
            let connection = link.connection.as_mut();
            if connection.is_some_and(|connection| connection.poll_closed(cx).is_ready()) {
                link.connection = None;
            }
            let next = self.shared.dispatch.poll_next(self.index, cx);
            ready = None;
            next
        })
        .await
        {
            let timeline = *start.borrow();
            let timeline = timeline.expect("the timeline is set before the first request is due");
            self.perform(link, &timeline, ticket).await;
        }
    }

    /// Sends one request and counts it.
    async fn perform(&self, link: &mut Link, timeline: &Timeline, ticket: Ticket) -> Performed {
        let begun = if ticket.waited {
            Instant::now()
        } else {
            ticket.planned.max(ticket.released)
        };
        let deadline = begun + self.shared.timeout;
        let mut flight = Flight::begin(&self.shared, &self.tally, timeline, ticket);
        let mut connected = false;
        let mut sink = self.sink(timeline, ticket);
        loop {
            let mut connection = match link.connection.take() {
                Some(connection) => connection,
                None => match self.connect_by(deadline).await {
                    Ok(connection) => {
                        connected = true;
                        connection
                    }
                    Err(refused) => {
                        refuse(flight, &refused);
                        return Performed::Unconnected;
                    }
                },
            };
            flight.reused = connection.is_reused();
            if !connection.ready(&mut link.watchdog, deadline).await {
                if connected {
                    return gone(flight, &connection);
                }
                continue;
            }
            let sent = Instant::now();
            flight.sent = Some(sent);
            match connection
                .exchange(
                    Order {
                        template: &self.shared.template,
                        number: flight.number(),
                        id: flight.id(),
                    },
                    &mut sink,
                    &mut link.watchdog,
                    deadline,
                )
                .await
            {
                Ok(answer) => {
                    self.count_pacing(timeline, ticket, begun, (!connected).then_some(sent));
                    let may_go_on = connection.exchanges() < self.shared.connection_requests;
                    if answer.end == BodyEnd::Whole && may_go_on {
                        link.connection = Some(connection);
                    }
                    self.judge(flight, &answer, &mut sink);
                    return Performed::Asked;
                }
                Err(Failure::Unsent) if connected => return gone(flight, &connection),
                Err(Failure::Unsent) => {}
                Err(failure) => {
                    self.count_pacing(timeline, ticket, begun, (!connected).then_some(sent));
                    let refused = match failure {
                        Failure::Error(kind) => kind.into(),
                        Failure::Because(kind, reason) => Refused::saying(kind, &reason),
                        Failure::Timeout | Failure::Unsent => ErrorKind::Timeout.into(),
                    };
                    return refuse(flight, &refused);
                }
            }
        }
    }

    /// Where the body of an answer goes.
    fn sink(&self, timeline: &Timeline, ticket: Ticket) -> Sink<'_> {
        let shared = &*self.shared;
        let keeps = !shared.checks.is_empty();
        if shared.protocol.is_stream() {
            let planned = (ticket.planned >= timeline.measure).then_some(ticket.planned);
            let (protocol, tally) = (&shared.protocol, &*self.tally);
            let listener = Listener::new(protocol, tally, planned, shared.expect, keeps);
            if let Some(listener) = listener {
                return Sink::Listen(Box::new(listener));
            }
        }
        if keeps {
            Sink::Keep(Vec::new())
        } else {
            Sink::Nothing
        }
    }

    fn judge(&self, flight: Flight<'_>, answer: &Answer, sink: &mut Sink<'_>) {
        let status = answer.status;
        let is_good = status.is_none_or(|status| self.shared.expect.accepts(status));
        let listener = sink.listener().filter(|_| is_good);
        let (code, fault) = listener.map_or((None, None), |listener| {
            (listener.code(), listener.end(answer.end))
        });
        let mut reason = fault.as_ref().map(|fault| fault.reason.as_str());
        let error = match answer.end {
            _ if fault.is_some() => fault.as_ref().map(|fault| fault.kind),
            BodyEnd::Broken => Some(ErrorKind::Body),
            BodyEnd::TimedOut => Some(ErrorKind::Timeout),
            BodyEnd::Whole if !is_good => status.map(ErrorKind::of_status),
            BodyEnd::Whole => match check::judge(&self.shared.checks, sink.kept()) {
                check::Judged::Passed => None,
                check::Judged::Failed => Some(ErrorKind::Content),
                check::Judged::TooLong => {
                    reason = Some(check::TOO_LONG);
                    Some(ErrorKind::Content)
                }
            },
        };
        let served_by = answer.served_by.as_deref();
        flight.end(Ending {
            status,
            error,
            served_by,
            body_bytes: answer.body_bytes,
            code,
            reason,
        });
    }

    /// Records whose fault a late start was: the tool's if a connection was free, else the wait for one. A new
    /// connection's set-up is the target's time, so then only the release counts.
    fn count_pacing(
        &self,
        timeline: &Timeline,
        ticket: Ticket,
        begun: Instant,
        sent: Option<Instant>,
    ) {
        if !self.shared.dispatch.is_used() || ticket.planned < timeline.measure {
            return;
        }
        let mut counts = self.tally.counts.lock();
        let tool = if ticket.waited {
            ticket.released
        } else {
            sent.unwrap_or(ticket.released)
        };
        counts
            .recorder
            .lag
            .record(tool.saturating_duration_since(ticket.planned));
        if ticket.waited {
            counts
                .recorder
                .waited
                .record(begun.saturating_duration_since(ticket.planned));
        }
    }

    /// Connects with few others at a time: all at once would overflow the target's queue of new connections, and the
    /// kernel tries again after a whole second.
    async fn preconnect(&self) -> Option<Connection> {
        let turn = timeout(TURN, self.shared.turns.acquire()).await;
        let _turn = turn.ok()?;
        let connection = timeout(PRECONNECT, self.connect(&mut Stage::default())).await;
        connection.ok()?.ok()
    }

    async fn connect_by(&self, deadline: Instant) -> Result<Connection, Refused> {
        let mut stage = Stage::default();
        let connected = timeout_at(deadline.into(), self.connect(&mut stage)).await;
        connected.unwrap_or_else(|_| Err(stage.late()))
    }

    async fn connect(&self, stage: &mut Stage) -> Result<Connection, Refused> {
        let connection = Connection::open(&self.shared.target, stage).await?;
        self.tally.counts.lock().recorder.connections += 1;
        Ok(connection)
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Performed {
    /// It went out, well or not.
    Asked,
    /// There was no connection for it.
    Unconnected,
}

/// Ends a request whose new connection was closed before one byte of it was written.
fn gone(flight: Flight<'_>, connection: &Connection) -> Performed {
    let refused = match connection.said() {
        Some(reason) => Refused::saying(ErrorKind::Tls, &reason),
        None => ErrorKind::ClosedFresh.into(),
    };
    refuse(flight, &refused)
}

fn refuse(flight: Flight<'_>, refused: &Refused) -> Performed {
    flight.end(Ending {
        error: Some(refused.kind),
        status: refused.status,
        reason: refused.reason.as_deref(),
        ..Ending::default()
    });
    // TLS may tell only after its handshake that it lets nobody in.
    if refused.kind == ErrorKind::Tls {
        Performed::Unconnected
    } else {
        Performed::Asked
    }
}
