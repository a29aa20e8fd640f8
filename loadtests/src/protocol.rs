//! What an exchange is: an answer, a stream of events, a call of gRPC, or a message and its answer.

pub(crate) mod grpc;
pub(crate) mod openai;
pub(crate) mod sse;

use std::mem;

use clap::{Args, ValueEnum};
use http::{
    HeaderMap, HeaderValue, Request, Uri,
    header::{ACCEPT, CONTENT_TYPE, TE},
};

pub use self::grpc::Call;
use crate::{config::Config, error::Error, payload::Payload};

/// What an exchange is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// A request and its answer.
    #[default]
    Plain,
    /// A request, and a stream of events.
    Events(Dialect),
    /// A call of gRPC.
    Grpc(Call),
    /// A message of WebSocket, and the next one that comes.
    WebSocket {
        /// Whether messages are bytes; text if not.
        binary: bool,
    },
}

/// What the events of a stream say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Dialect {
    /// Anything: `text/event-stream`.
    Sse,
    /// Chunks of chat completions or completions, in the form of OpenAI's API.
    #[value(name = "openai")]
    OpenAi,
}

impl Protocol {
    /// What it is called in a report.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Plain => "http",
            Self::Events(Dialect::Sse) => "sse",
            Self::Events(Dialect::OpenAi) => "openai",
            Self::Grpc(_) => "grpc",
            Self::WebSocket { .. } => "websocket",
        }
    }

    /// Whether answers are listened to as they come.
    pub(crate) fn is_stream(&self) -> bool {
        matches!(self, Self::Events(_) | Self::Grpc(_))
    }

    /// Makes a request one of this protocol; none if its URL has no place for it.
    pub(crate) fn prepare(&self, request: &mut Request<()>, config: &Config) -> Option<()> {
        let timeout = match self {
            Self::Plain | Self::WebSocket { .. } => return Some(()),
            Self::Events(dialect) => {
                let headers = request.headers_mut();
                let mut default = |name, value| {
                    headers
                        .entry(name)
                        .or_insert(HeaderValue::from_static(value));
                };
                default(ACCEPT, "text/event-stream");
                if *dialect == Dialect::OpenAi && !config.body.is_empty() {
                    default(CONTENT_TYPE, "application/json");
                }
                return Some(());
            }
            Self::Grpc(call) => {
                let mut parts = mem::take(request.uri_mut()).into_parts();
                parts.path_and_query = Some(call.path().parse().ok()?);
                *request.uri_mut() = Uri::from_parts(parts).ok()?;
                grpc::timeout(config.timeout)
            }
        };
        let headers = request.headers_mut();
        headers
            .entry(CONTENT_TYPE)
            .or_insert(HeaderValue::from_static(grpc::CONTENT));
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert("grpc-timeout", timeout.parse().ok()?);
        Some(())
    }

    /// The first thing that makes no sense of a configuration with it.
    pub(crate) fn check(&self, config: &Config) -> Result<(), Error> {
        if let Self::WebSocket { binary } = self {
            return check_websocket(config, *binary);
        }
        if matches!(config.url.scheme_str(), Some("ws" | "wss")) {
            let allowed = "http or https, or ws and wss with --websocket";
            return Err(Error::invalid("URL", config.url.to_string(), allowed));
        }
        let Self::Grpc(call) = self else {
            return Ok(());
        };
        let path = config
            .url
            .path_and_query()
            .map_or("/", |path| path.as_str());
        if path != "/" {
            let allowed = "a URL without a path: --grpc says which method";
            return Err(Error::invalid("URL", config.url.to_string(), allowed));
        }
        if !config.http2 {
            return Err(Error::invalid("--grpc", call.path(), "over HTTP/2 only"));
        }
        check_set(&config.headers, &["te", "grpc-timeout"], "--grpc")?;
        let mut types = config.headers.get_all(CONTENT_TYPE).iter();
        if let Some(other) =
            types.find(|given| !given.as_bytes().starts_with(grpc::CONTENT.as_bytes()))
        {
            let given = format!(
                "content-type: {}",
                String::from_utf8_lossy(other.as_bytes())
            );
            let allowed = "application/grpc, or one that begins so, with --grpc";
            return Err(Error::invalid("--header", given, allowed));
        }
        let bytes = config.body.body(0).len();
        if u32::try_from(bytes).is_err() {
            let value = format!("{bytes} bytes");
            return Err(Error::invalid(
                "--body-file",
                value,
                "a message below 4 GiB",
            ));
        }
        Ok(())
    }
}

/// Headers that the tool sets itself: one of the user's would be lost without a word.
fn check_set(headers: &HeaderMap, names: &[&'static str], flag: &str) -> Result<(), Error> {
    match names.iter().find(|name| headers.contains_key(**name)) {
        None => Ok(()),
        Some(name) => {
            let allowed = format!("others than those that {flag} sets itself");
            Err(Error::invalid("--header", *name, allowed))
        }
    }
}

fn check_websocket(config: &Config, binary: bool) -> Result<(), Error> {
    let wrong = |flag, value: &str, allowed| Err(Error::invalid(flag, value, allowed));
    if config.http2 {
        return wrong("--http2", "true", "HTTP/1.1 with --websocket");
    }
    if config.journal.is_some() {
        let allowed = "no journal with --websocket: a message has no x-request-id";
        return wrong("--journal", "", allowed);
    }
    let set = [
        "upgrade",
        "sec-websocket-key",
        "sec-websocket-version",
        "sec-websocket-extensions",
    ];
    check_set(&config.headers, &set, "--websocket")?;
    if !binary && !config.body.is_text() {
        let allowed = "text in UTF-8, or bytes with --websocket-binary";
        return wrong("--websocket", "the body", allowed);
    }
    Ok(())
}

/// The protocol as it is typed.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ProtocolArgs {
    /// Answers are streams: of any server-sent events, or of those of OpenAI's chat completions and completions. Tells when the first
    /// event and the first token came, and the time between them.
    #[arg(long, value_enum, value_name = "FORM", help_heading = "Protocol")]
    stream: Option<Dialect>,

    /// A call of gRPC, over HTTP/2, unary or with a stream of answers: SERVICE/METHOD with the bytes of the message as body, health or
    /// health:SERVICE for grpc.health.v1, or model-infer for the Open Inference Protocol.
    #[arg(
        long,
        value_name = "METHOD",
        conflicts_with_all = ["stream", "method"],
        help_heading = "Protocol"
    )]
    grpc: Option<String>,

    /// The model of --grpc model-infer.
    #[arg(
        long,
        value_name = "NAME",
        requires = "grpc",
        help_heading = "Protocol"
    )]
    grpc_model: Option<String>,

    /// A tensor for --grpc model-infer: NAME:DATATYPE:SHAPE=VALUES, such as x:FP32:1x4=5.1,3.5,1.4,0.2; may be repeated.
    #[arg(
        long,
        value_name = "TENSOR",
        requires = "grpc",
        conflicts_with_all = ["body", "body_file", "bodies", "template"],
        help_heading = "Protocol"
    )]
    grpc_input: Vec<grpc::Tensor>,

    /// Messages of WebSocket over one handshake per connection: the body is a message, and the next one that comes is its answer.
    #[arg(
        long,
        conflicts_with_all = ["stream", "grpc", "http2", "method", "expect_status"],
        help_heading = "Protocol"
    )]
    websocket: bool,

    /// Messages are bytes instead of text.
    #[arg(long, requires = "websocket", help_heading = "Protocol")]
    websocket_binary: bool,
}

impl ProtocolArgs {
    /// What is asked for, and the body that it brings along.
    pub(crate) fn protocol(&self) -> Result<(Protocol, Option<Payload>), Error> {
        if let Some(dialect) = self.stream {
            return Ok((Protocol::Events(dialect), None));
        }
        if self.websocket {
            let binary = self.websocket_binary;
            return Ok((Protocol::WebSocket { binary }, None));
        }
        let Some(method) = &self.grpc else {
            return Ok((Protocol::Plain, None));
        };
        let infers = method == grpc::MODEL_INFER;
        if let (Some(model), false) = (&self.grpc_model, infers) {
            let allowed = "only with --grpc model-infer";
            return Err(Error::invalid("--grpc-model", model, allowed));
        }
        if let (Some(tensor), false) = (self.grpc_input.first(), infers) {
            let allowed = "only with --grpc model-infer";
            return Err(Error::invalid("--grpc-input", tensor.name(), allowed));
        }
        let (call, body) = if infers {
            let Some(model) = &self.grpc_model else {
                let allowed = "with --grpc-model NAME";
                return Err(Error::invalid("--grpc", method, allowed));
            };
            if self.grpc_input.is_empty() {
                let allowed = "with --grpc-input NAME:DATATYPE:SHAPE=VALUES";
                return Err(Error::invalid("--grpc", method, allowed));
            }
            let (call, body) = Call::infer(model, &self.grpc_input);
            (call, Some(body))
        } else {
            Call::parse(method)?
        };
        Ok((Protocol::Grpc(call), body.map(Payload::Same)))
    }
}
