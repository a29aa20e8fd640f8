//! Flags of the request log and of spans.

use std::io;

#[cfg(feature = "otlp")]
use shared::record::otlp::{self, Tracer};
use shared::{
    metrics::Metric,
    record::{Form, Log, Recorder, Settings},
};

#[expect(
    missing_docs,
    reason = "they would become the program's: see the crate"
)]
#[derive(Debug, clap::Args)]
pub struct Recording {
    /// Write a line about each request to standard output when its answer has ended: `json`, or a template such as
    /// "{method} {path} {status}", with {{ and }} for braces. The fields are those of docs/reference/request-log.md
    /// [default: none].
    #[arg(
        long = "request-log",
        env = "ROUSE_REQUEST_LOG",
        value_name = "json|TEMPLATE"
    )]
    log: Option<Form>,

    /// Request log: tell the query with the path. Queries tend to have secrets in them.
    #[arg(
        long = "request-log-query",
        env = "ROUSE_REQUEST_LOG_QUERY",
        requires = "log"
    )]
    query: bool,

    /// Request log: tell of requests to probe paths as well, which are those of --probe-path or rouse.dev/probe-paths.
    #[arg(
        long = "request-log-probes",
        env = "ROUSE_REQUEST_LOG_PROBES",
        requires = "log"
    )]
    probes: bool,

    /// Send spans of requests to the OpenTelemetry collector at this address, by OTLP over HTTP [default: none are made].
    #[cfg(feature = "otlp")]
    #[arg(long, env = "ROUSE_OTLP_ENDPOINT", value_name = "http://HOST:PORT")]
    otlp_endpoint: Option<otlp::Endpoint>,

    /// Spans: the share of requests that have them, from 0 to 1, of those whose caller has not decided.
    #[cfg(feature = "otlp")]
    #[arg(
        long,
        env = "ROUSE_TRACE_RATIO",
        requires = "otlp_endpoint",
        default_value = "1",
        value_name = "RATIO"
    )]
    trace_ratio: otlp::Ratio,
}

/// Why requests cannot be recorded as was asked.
#[derive(Debug, thiserror::Error)]
pub enum CannotRecord {
    /// The thread that writes could not be started.
    #[error("cannot start the request log: {0}")]
    Log(#[source] io::Error),
    /// The exporter could not be started.
    #[cfg(feature = "otlp")]
    #[error("cannot send spans: {0}")]
    Spans(#[source] otlp::StartError),
}

impl CannotRecord {
    /// Whether it is what was asked for that cannot be.
    pub fn is_usage(&self) -> bool {
        !matches!(self, Self::Log(_))
    }
}

impl Recording {
    /// Starts what was asked for, for the program `service`, such as `rouse-activator`. Lines that nobody took are counted in
    /// `lost_lines`, and spans in `lost_spans`, metrics without labels; the recorder of metrics has to be there.
    ///
    /// # Errors
    /// When a thread cannot be had for it.
    #[cfg_attr(
        not(feature = "otlp"),
        expect(unused_variables, reason = "without the feature there are no spans")
    )]
    pub fn start(
        &self,
        service: &'static str,
        lost_lines: Metric,
        lost_spans: Metric,
    ) -> Result<Recorder, CannotRecord> {
        let log = self
            .log()
            .map(|settings| Log::start(settings, io::stdout(), lost_lines.counter(&[])));
        let recorder = Recorder::new(log.transpose().map_err(CannotRecord::Log)?);
        #[cfg(feature = "otlp")]
        let recorder = {
            let tracer = self
                .spans(service)
                .map(|settings| Tracer::start(&settings, lost_spans.counter(&[])));
            recorder.traced(tracer.transpose().map_err(CannotRecord::Spans)?)
        };
        Ok(recorder)
    }

    fn log(&self) -> Option<Settings> {
        Some(Settings {
            form: self.log.clone()?,
            query: self.query,
            probes: self.probes,
        })
    }

    #[cfg(feature = "otlp")]
    fn spans(&self, service: &'static str) -> Option<otlp::Settings> {
        Some(otlp::Settings {
            endpoint: self.otlp_endpoint.clone()?,
            ratio: self.trace_ratio,
            service,
        })
    }
}
