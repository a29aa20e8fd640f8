//! Spans of requests, sent to a collector by OTLP over HTTP.
//!
//! Whether a request has spans is decided once, where it comes in: as its caller has decided, or for a share of those without one.
//! The next hop is told, so that a trace is whole or not there at all. Spans are made when a request has ended, and sent together by a
//! task. Requests never wait for it: what its queue has no room for, or the collector does not take, is left out and counted.

mod client;
mod endpoint;
mod spans;

use std::{fmt, sync::Arc, time::Duration};

pub use opentelemetry_otlp::ExporterBuildError as StartError;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::{
    Resource,
    trace::{IdGenerator as _, RandomIdGenerator, SpanData, SpanExporter as _},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until, timeout},
};

pub use self::{
    endpoint::{Endpoint, InvalidEndpoint},
    spans::{InvalidRatio, Ratio},
};
use super::{Ended, Recorder};
use crate::trace::{SpanId, TraceId, TraceParent};

/// Requests whose spans wait to be sent. OpenTelemetry's default is 2,048 spans; one request has up to three.
const QUEUE: usize = 2_048;
/// Spans that are sent at once: OpenTelemetry's default.
const BATCH: usize = 512;
/// Longest time for which a span waits for others.
const DELAY: Duration = Duration::from_secs(1);
/// Longest time that a batch may take, tries in vain included: OpenTelemetry's default.
const EXPORT_LIMIT: Duration = Duration::from_secs(10);
/// Failures to send are logged once in this time.
const QUIET: Duration = Duration::from_mins(1);

/// Where spans go, and of which requests.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The collector.
    pub endpoint: Endpoint,
    /// Of requests without a caller that has decided.
    pub ratio: Ratio,
    /// `service.name` of the spans, unless `OTEL_SERVICE_NAME` says otherwise.
    pub service: &'static str,
}

/// Makes spans. Cheap to clone.
#[derive(Clone)]
pub struct Tracer(Arc<Inner>);

struct Inner {
    ratio: Ratio,
    queue: mpsc::Sender<Message>,
    dropped: metrics::Counter,
}

enum Message {
    Spans(Vec<SpanData>),
    /// Whoever sent it wants to know when all before it is sent.
    Flush(oneshot::Sender<()>),
}

/// A request's place in its trace.
#[derive(Debug)]
pub(super) struct Traced {
    parent: Option<TraceParent>,
    trace: TraceId,
    /// Of the whole request here, of its wait, and of whoever answers it.
    whole: SpanId,
    wait: SpanId,
    upstream: SpanId,
    is_sampled: bool,
}

impl Recorder {
    /// Makes spans as well.
    #[must_use]
    pub fn traced(mut self, tracer: Option<Tracer>) -> Self {
        self.tracer = tracer;
        self
    }
}

impl Tracer {
    /// Starts the task that sends spans; it ends with the last copy of the tracer. Spans that are left out are counted in `dropped`.
    /// To be called in a runtime.
    ///
    /// # Errors
    /// When the environment asks for something of the exporter that cannot be.
    pub fn start(settings: &Settings, dropped: metrics::Counter) -> Result<Self, StartError> {
        let mut exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(client::Client)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(settings.endpoint.traces())
            .with_timeout(EXPORT_LIMIT)
            .build()?;
        let resource = Resource::builder()
            .with_service_name(service_name(settings.service))
            .build();
        exporter.set_resource(&resource);
        let (queue, waiting) = mpsc::channel(QUEUE);
        tokio::spawn(send(waiting, exporter, dropped.clone()));
        Ok(Self(Arc::new(Inner {
            ratio: settings.ratio,
            queue,
            dropped,
        })))
    }

    /// Decides about a request that has arrived.
    pub(super) fn begin(&self, parent: Option<TraceParent>) -> Traced {
        let ids = RandomIdGenerator::default();
        let trace = parent.map_or_else(
            || TraceId(ids.new_trace_id().to_bytes()),
            |parent| parent.trace,
        );
        let is_sampled =
            parent.map_or_else(|| self.0.ratio.takes(trace), |parent| parent.is_sampled());
        let span = || SpanId(ids.new_span_id().to_bytes());
        Traced {
            parent,
            trace,
            whole: span(),
            wait: span(),
            upstream: span(),
            is_sampled,
        }
    }

    /// A request has ended. Never waits.
    pub(super) fn tell(&self, traced: &Traced, ended: &Ended) {
        if !traced.is_sampled {
            return;
        }
        let spans = spans::of(traced, ended);
        let count = spans.len() as u64;
        if self.0.queue.try_send(Message::Spans(spans)).is_err() {
            self.0.dropped.increment(count);
        }
    }

    /// Waits until what was told so far is sent, but no longer than `limit`.
    pub(super) async fn flush(&self, limit: Duration) {
        let (tx, sent) = oneshot::channel();
        let flushed = async {
            if self.0.queue.send(Message::Flush(tx)).await.is_ok() {
                // An error means that the task is gone, which has nothing left to send.
                let _gone = sent.await;
            }
        };
        let _late = timeout(limit, flushed).await;
    }
}

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tracer").field(&self.0.ratio).finish()
    }
}

impl Traced {
    /// What the next hop is told. A caller that has decided against it is passed on as it is.
    pub(super) fn onward(&self) -> Option<TraceParent> {
        (self.is_sampled || self.parent.is_none()).then(|| match self.parent {
            Some(parent) => parent.child(self.upstream),
            None => TraceParent::of(self.trace, self.upstream, self.is_sampled),
        })
    }

    /// The span of the whole request.
    pub(super) fn own(&self) -> TraceParent {
        TraceParent::of(self.trace, self.whole, self.is_sampled)
    }
}

/// The exporter's way to say it, since what is set in code would count for more.
fn service_name(ours: &'static str) -> String {
    std::env::var("OTEL_SERVICE_NAME").unwrap_or_else(|_| ours.to_owned())
}

/// Sends what comes until nobody has anything to send any more.
async fn send(mut queue: mpsc::Receiver<Message>, exporter: SpanExporter, lost: metrics::Counter) {
    let mut quiet_until = None;
    let mut is_over = false;
    while !is_over {
        let (mut batch, mut flush) = (Vec::new(), None);
        let mut send_at = None;
        while batch.len() < BATCH && flush.is_none() {
            let message = tokio::select! {
                message = queue.recv() => message,
                () = until(send_at) => break,
            };
            match message {
                Some(Message::Spans(spans)) => {
                    send_at.get_or_insert_with(|| Instant::now() + DELAY);
                    batch.extend(spans);
                }
                Some(Message::Flush(tx)) => flush = Some(tx),
                None => {
                    is_over = true;
                    break;
                }
            }
        }
        if !batch.is_empty() {
            let count = batch.len() as u64;
            let sent = timeout(EXPORT_LIMIT, exporter.export(batch)).await;
            let error = match sent {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(late) => Some(late.to_string()),
            };
            if let Some(error) = error {
                lost.increment(count);
                let now = Instant::now();
                if quiet_until.is_none_or(|until| until <= now) {
                    quiet_until = Some(now + QUIET);
                    tracing::warn!(%error, spans = count, "Cannot send spans");
                }
            }
        }
        if let Some(tx) = flush {
            let _gone = tx.send(());
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
