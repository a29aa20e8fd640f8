//! What all requests of a pod share, and how each of them is measured.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use http::{Response, StatusCode};
use shared::{
    Origin,
    error::{CLIENT_GONE, CLIENT_STALLED, CUT},
    http::{
        body::{Body, End, Ending},
        client::Client,
        serve::Peer,
    },
    metrics as names,
    record::{Notes, Record},
    shutdown,
};
use tokio::{sync::watch, time::Instant};

use crate::{
    breaker::Breaker,
    config::{Config, RESENDABLE_BYTES},
    model::Model,
    relay::{Relay, relays},
    rescue::Failure,
    slots::{Slot, Slots},
    stats::{Entry, Stats},
    tickets::Tickets,
    timeouts,
};

/// What all listeners of a pod share.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) config: Config,
    pub(crate) slots: Arc<Slots>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) model: watch::Receiver<Model>,
    pub(crate) tickets: Tickets,
    pub(crate) metrics: Metrics,
    pub(crate) clients: Vec<Client>,
    /// Where requests of each port are bounced to.
    pub(crate) relays: Vec<Option<Arc<Relay>>>,
    /// When the queue-proxy started, for wake timelines.
    pub(crate) started: Instant,
    buffered: AtomicUsize,
    pub(crate) cut: shutdown::Rx,
}

/// Metric handles, resolved once.
#[derive(Debug)]
pub(crate) struct Metrics {
    _kept: names::Tenure,
    outcomes: Vec<(&'static str, metrics::Counter)>,
    duration: metrics::Histogram,
    pub(crate) queue_wait: metrics::Histogram,
}

impl Pod {
    pub(crate) fn new(
        config: Config,
        model: watch::Receiver<Model>,
        cut: shutdown::Rx,
    ) -> Arc<Self> {
        let breaker = Breaker::new(
            config.container_concurrency,
            config.queue_depth,
            config.activator_queue_depth,
        );
        Arc::new(Self {
            slots: Slots::new(breaker),
            stats: Stats::new(config.pod_uid.clone()),
            metrics: Metrics::new(&config.target.to_string()),
            clients: config
                .ports
                .iter()
                .map(|port| Client::new(port.upstream, config.client.clone()))
                .collect(),
            relays: relays(&config.bounce_to, &config.client),
            tickets: Tickets::default(),
            started: Instant::now(),
            buffered: AtomicUsize::new(0),
            config,
            model,
            cut,
        })
    }

    /// Whether requests to `path` are no load.
    pub(crate) fn is_probe_path(&self, path: &str) -> bool {
        self.config.probe_paths.iter().any(|probe| probe == path)
    }
}

impl Metrics {
    fn new(target: &str) -> Self {
        let mut outcomes = Vec::new();
        for class in ["1xx", "2xx", "3xx", "4xx", "5xx"] {
            outcomes.push((
                class,
                names::PROXY_REQUESTS.counter(&[target, class, Origin::Upstream.as_str()]),
            ));
        }
        for failure in Failure::ALL {
            let rule = failure.rule();
            outcomes.push((
                rule.code,
                names::PROXY_REQUESTS.counter(&[target, rule.code, rule.origin.as_str()]),
            ));
        }
        outcomes.push((
            RELAYED,
            names::PROXY_REQUESTS.counter(&[target, RELAYED, Origin::Us.as_str()]),
        ));
        outcomes.push((
            CUT,
            names::PROXY_REQUESTS.counter(&[target, CUT, Origin::Us.as_str()]),
        ));
        for code in ["malformed", CLIENT_GONE, CLIENT_STALLED] {
            outcomes.push((
                code,
                names::PROXY_REQUESTS.counter(&[target, code, Origin::Client.as_str()]),
            ));
        }
        Self {
            _kept: names::tenure(target),
            outcomes,
            duration: names::PROXY_DURATION.histogram(&[target]),
            queue_wait: names::PROXY_QUEUE_WAIT.histogram(&[target]),
        }
    }

    /// Counts one outcome.
    pub(crate) fn count(&self, outcome: &str) {
        if let Some((_, counter)) = self.outcomes.iter().find(|(code, _)| *code == outcome) {
            counter.increment(1);
        }
    }
}

/// The outcome of a request that activators answered, whatever their answer was.
const RELAYED: &str = "relayed";

/// Counts and records the one outcome of a request that has no answer of the model yet. Dropped without one, the client was gone or
/// the connection was cut.
pub(crate) struct Outcome<'a> {
    metrics: &'a Metrics,
    peer: &'a Peer,
    code: Option<&'static str>,
    record: Record,
}

impl<'a> Outcome<'a> {
    pub(crate) fn unknown(metrics: &'a Metrics, peer: &'a Peer, record: Record) -> Self {
        Self {
            metrics,
            peer,
            code: Some(CLIENT_GONE),
            record,
        }
    }

    /// Where to note what is learned of the request.
    pub(crate) fn notes(&self) -> Notes {
        self.record.notes()
    }

    /// It is this one, unless that is [`Admitted`]'s business.
    pub(crate) fn is(&mut self, code: &'static str) {
        self.code = self.code.and(Some(code));
    }

    /// The answer is on its way: how it ends is the outcome, and goes into the record.
    pub(crate) fn hand_over(&mut self) -> Record {
        self.code = None;
        std::mem::take(&mut self.record)
    }

    /// An answer of our own: its outcome is known, and its record ends with its body. That of the model has its own by now.
    pub(crate) fn go_with(&mut self, answer: Response<Body>) -> Response<Body> {
        let mut record = std::mem::take(&mut self.record);
        if let (Some(code), false) = (self.code, record.is_off()) {
            record.outcome(code);
            return record.go_with(answer);
        }
        answer
    }
}

impl Drop for Outcome<'_> {
    fn drop(&mut self) {
        if let Some(mut code) = self.code {
            if code == CLIENT_GONE {
                code = self.peer.unfinished();
                self.record.outcome(code);
            }
            self.metrics.count(code);
        }
    }
}

/// What a request has of the pod while its answer is on its way. In the end it observes the time to the last byte, counts the
/// outcome and records it.
pub(crate) struct Admitted {
    pod: Arc<Pod>,
    peer: Arc<Peer>,
    since: Instant,
    outcome: &'static str,
    record: Record,
    _slot: Slot,
    _entry: Entry,
}

impl Admitted {
    /// Of a request that was admitted at `since`; `outcome` is what it counts as if its answer gets through.
    pub(crate) fn new(
        (pod, peer): (&Arc<Pod>, &Arc<Peer>),
        since: Instant,
        outcome: &'static str,
        record: Record,
        (slot, entry): (Slot, Entry),
    ) -> Self {
        Self {
            pod: Arc::clone(pod),
            peer: Arc::clone(peer),
            since,
            outcome,
            record,
            _slot: slot,
            _entry: entry,
        }
    }
}

impl Ending for Admitted {
    fn end(&mut self, how: End) {
        self.outcome = match how {
            End::Whole => return,
            End::Broken => Failure::ModelBroke.rule().code,
            End::Late(late) => timeouts::failure(late).rule().code,
            End::Dropped => self.peer.unfinished(),
            End::Stalled => CLIENT_STALLED,
        };
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let took = self.since.elapsed();
        self.pod.metrics.duration.record(took);
        self.pod.stats.took(took);
        self.pod.metrics.count(self.outcome);
        self.record.outcome(self.outcome);
    }
}

/// What a relayed request has of the pod while its answer is on its way. In the end it counts the outcome.
pub(crate) struct Relayed {
    pod: Arc<Pod>,
    peer: Arc<Peer>,
    outcome: &'static str,
    record: Record,
    _entry: Entry,
}

impl Relayed {
    pub(crate) fn new(pod: &Arc<Pod>, peer: &Arc<Peer>, record: Record, entry: Entry) -> Self {
        Self {
            pod: Arc::clone(pod),
            peer: Arc::clone(peer),
            outcome: RELAYED,
            record,
            _entry: entry,
        }
    }
}

impl Ending for Relayed {
    fn end(&mut self, how: End) {
        self.outcome = match how {
            End::Whole => return,
            End::Broken | End::Late(_) => Failure::RelayBroke.rule().code,
            End::Dropped => self.peer.unfinished(),
            End::Stalled => CLIENT_STALLED,
        };
    }
}

impl Drop for Relayed {
    fn drop(&mut self) {
        self.pod.metrics.count(self.outcome);
        self.record.outcome(self.outcome);
    }
}

/// The class of a status, as metrics name it.
pub(crate) fn class(status: StatusCode) -> &'static str {
    match status.as_u16() / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
}

/// Part of the pod's byte budget for bodies of waiting requests.
pub(crate) struct Budget<'a> {
    pod: &'a Pod,
    taken: usize,
}

impl<'a> Budget<'a> {
    pub(crate) fn new(pod: &'a Pod) -> Self {
        Self { pod, taken: 0 }
    }

    /// Whether there is room to read one body ahead. Taken for the largest body at once: simple, and never too little.
    pub(crate) fn take(&mut self) -> bool {
        if self.taken == 0 {
            let before = self.pod.buffered.fetch_add(RESENDABLE_BYTES, Relaxed);
            if before + RESENDABLE_BYTES > self.pod.config.queue_bytes {
                self.pod.buffered.fetch_sub(RESENDABLE_BYTES, Relaxed);
                return false;
            }
            self.taken = RESENDABLE_BYTES;
        }
        true
    }
}

impl Drop for Budget<'_> {
    fn drop(&mut self) {
        self.pod.buffered.fetch_sub(self.taken, Relaxed);
    }
}
