//! What is done with the body of an answer while it comes: nothing, keeping it for checks, or listening to a stream.

use std::{mem, time::Instant};

use http::HeaderMap;

use crate::{
    check,
    client::BodyEnd,
    config::Expect,
    flight::Tally,
    protocol::{
        Call, Dialect, Protocol,
        grpc::{self, Code, Messages, Piece},
        openai::{self, Said},
        sse::{Parser, TooLong},
    },
    record::ErrorKind,
    streams::StreamCounts,
};

/// Where the body of an answer goes.
#[derive(Debug)]
pub(crate) enum Sink<'a> {
    Nothing,
    /// Its beginning is kept.
    Keep(Vec<u8>),
    Listen(Box<Listener<'a>>),
}

impl<'a> Sink<'a> {
    #[inline]
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        match self {
            Self::Nothing => {}
            Self::Keep(kept) => check::keep(kept, bytes),
            Self::Listen(listener) => listener.take(bytes),
        }
    }

    pub(crate) fn listener(&mut self) -> Option<&mut Listener<'a>> {
        match self {
            Self::Listen(listener) => Some(listener),
            Self::Nothing | Self::Keep(_) => None,
        }
    }

    /// What was kept.
    pub(crate) fn kept(&self) -> &[u8] {
        match self {
            Self::Nothing => &[],
            Self::Keep(kept) => kept,
            Self::Listen(listener) => listener.kept.as_deref().unwrap_or_default(),
        }
    }
}

/// What is wrong with a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) kind: ErrorKind,
    pub(crate) reason: String,
}

impl Fault {
    fn new(kind: ErrorKind, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self { kind, reason }
    }
}

/// Listens to one stream, and counts what it hears as it hears it: also a stream without end is counted in bounded memory.
#[derive(Debug)]
pub(crate) struct Listener<'a> {
    tally: &'a Tally,
    /// The instant from which times count; none in the warm-up.
    planned: Option<Instant>,
    expect: Expect,
    format: Format<'a>,
    /// Whether the answer is a stream.
    is_stream: bool,
    kept: Option<Vec<u8>>,
    fault: Option<Fault>,
    events: u64,
    tokens: u64,
    /// When the last of them came.
    event: Option<Instant>,
    token: Option<Instant>,
    /// When the first of them came.
    first_token: Option<Instant>,
    /// How a call ended, as the server says.
    code: Option<Code>,
    words: String,
}

#[derive(Debug)]
enum Format<'a> {
    Events {
        dialect: Dialect,
        parser: Parser,
        is_done: bool,
    },
    Grpc {
        call: &'a Call,
        messages: Messages,
    },
}

/// What one piece of a body has brought.
#[derive(Default)]
struct Heard {
    events: u64,
    tokens: u64,
    is_done: bool,
    fault: Option<Fault>,
}

impl<'a> Listener<'a> {
    /// Of an exchange that was planned at `planned`; none where nobody listens.
    pub(crate) fn new(
        protocol: &'a Protocol,
        tally: &'a Tally,
        planned: Option<Instant>,
        expect: Expect,
        keep: bool,
    ) -> Option<Self> {
        let format = match protocol {
            Protocol::Events(dialect) => Format::Events {
                dialect: *dialect,
                parser: Parser::default(),
                is_done: false,
            },
            Protocol::Grpc(call) => Format::Grpc {
                call,
                messages: Messages::default(),
            },
            Protocol::Plain | Protocol::WebSocket { .. } => return None,
        };
        let looks = matches!(&format, Format::Grpc { call, .. } if call.looks());
        Some(Self {
            tally,
            planned,
            expect,
            format,
            is_stream: false,
            kept: (keep || looks).then(Vec::new),
            fault: None,
            events: 0,
            tokens: 0,
            event: None,
            token: None,
            first_token: None,
            code: None,
            words: String::new(),
        })
    }

    /// Takes the head. What is no success is not listened to.
    pub(crate) fn head(&mut self, status: u16, content_type: &[u8]) {
        if !self.expect.accepts(status) {
            return;
        }
        let wanted = match &self.format {
            Format::Events { .. } => "text/event-stream",
            Format::Grpc { .. } => "application/grpc",
        };
        let is_grpc = matches!(&self.format, Format::Grpc { .. });
        if !is_type(content_type, wanted, is_grpc) {
            let got = String::from_utf8_lossy(content_type);
            let reason = format!("the answer is {got:?} and not {wanted}");
            self.fault = Some(Fault::new(ErrorKind::Content, reason));
            return;
        }
        self.is_stream = true;
        let now = Instant::now();
        self.count(|counts, planned| {
            counts.streams += 1;
            counts.ttfb.record(now.saturating_duration_since(planned));
        });
    }

    /// Takes the fields that a call may end with: those of the head, or those after the body.
    pub(crate) fn fields(&mut self, fields: &HeaderMap) {
        if let (Format::Grpc { .. }, Some(code)) = (&self.format, fields.get("grpc-status")) {
            self.code = Some(Code::read(code.as_bytes()));
            let message = fields.get("grpc-message");
            self.words = message.map_or_else(String::new, |m| grpc::words(m.as_bytes()));
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        if let (Format::Events { .. }, Some(kept)) = (&self.format, self.kept.as_mut()) {
            check::keep(kept, bytes);
        }
        if !self.is_stream {
            return;
        }
        let heard = self.format.hear(bytes, self.kept.as_mut());
        if heard.fault.is_some() {
            // Of a stream that is none nothing more can be made out.
            self.is_stream = !matches!(&heard.fault, Some(f) if f.kind == ErrorKind::Body);
            self.fault = self.fault.take().or(heard.fault);
        }
        if heard.events > 0 {
            self.mark(heard.events, heard.tokens, Instant::now());
        }
    }

    /// Counts what came at once.
    fn mark(&mut self, events: u64, tokens: u64, now: Instant) {
        let (event, token) = (self.event, self.token);
        self.count(|counts, planned| {
            counts.events += events;
            counts.tokens += tokens;
            let (first, inter) = (&mut counts.first_event, &mut counts.inter_event);
            record(events, event, planned, now, first, inter);
            let (first, inter) = (&mut counts.first_token, &mut counts.inter_token);
            record(tokens, token, planned, now, first, inter);
        });
        self.events += events;
        self.event = Some(now);
        if tokens > 0 {
            self.tokens += tokens;
            self.first_token = self.first_token.or(Some(now));
            self.token = Some(now);
        }
    }

    fn count(&self, change: impl FnOnce(&mut StreamCounts, Instant)) {
        if let Some(planned) = self.planned {
            let mut counts = self.tally.counts.lock();
            change(counts.recorder.streams.get_or_insert_default(), planned);
        }
    }

    /// How a call ended, as the server says.
    pub(crate) fn code(&self) -> Option<Code> {
        self.code
    }

    /// What was wrong with the stream, now that its body has ended, if anything was.
    pub(crate) fn end(&mut self, end: BodyEnd) -> Option<Fault> {
        if let (Some(first), Some(last), 2..) = (self.first_token, self.token, self.tokens) {
            let gaps = u32::try_from(self.tokens - 1).unwrap_or(u32::MAX);
            let mean = last.saturating_duration_since(first) / gaps;
            self.count(|counts, _| counts.time_per_token.record(mean));
        }
        if let Some(fault) = self.fault.take() {
            return Some(fault);
        }
        match (&self.format, end) {
            (_, BodyEnd::TimedOut) | (Format::Events { .. }, BodyEnd::Broken) => None,
            (
                Format::Events {
                    dialect, is_done, ..
                },
                BodyEnd::Whole,
            ) => {
                let is_short = self.is_stream && *dialect == Dialect::OpenAi && !is_done;
                let reason = "the stream ended without [DONE]";
                is_short.then(|| Fault::new(ErrorKind::Body, reason))
            }
            (Format::Grpc { call, messages }, end) => {
                self.grpc_fault(call, messages.is_between(), end)
            }
        }
    }

    fn grpc_fault(&self, call: &Call, is_between: bool, end: BodyEnd) -> Option<Fault> {
        match self.code {
            Some(Code::OK) | None if end != BodyEnd::Whole => None,
            Some(Code::OK) if !is_between => {
                let reason = "the last message did not end";
                Some(Fault::new(ErrorKind::Body, reason))
            }
            Some(Code::OK) => {
                let kept = self.kept.as_deref().unwrap_or_default();
                let fault = call.fault(self.events, kept)?;
                Some(Fault::new(ErrorKind::Content, fault))
            }
            Some(code) => {
                let reason = format!("{} {}", code.name(), self.words);
                Some(Fault::new(ErrorKind::Grpc, reason.trim_end()))
            }
            None => Some(Fault::new(ErrorKind::Grpc, "there is no grpc-status")),
        }
    }
}

/// Whether a content type is this one, whatever its parameters are, or for gRPC its format (`application/grpc+proto`).
fn is_type(got: &[u8], wanted: &str, may_add: bool) -> bool {
    let Some((begin, rest)) = got.split_at_checked(wanted.len()) else {
        return false;
    };
    let ends = match rest.first() {
        None | Some(b';' | b' ' | b'\t') => true,
        Some(b'+') => may_add,
        Some(_) => false,
    };
    ends && begin.eq_ignore_ascii_case(wanted.as_bytes())
}

/// Records `number` of something that came `now`, after `last`.
fn record(
    number: u64,
    last: Option<Instant>,
    planned: Instant,
    now: Instant,
    first: &mut crate::record::Durations,
    inter: &mut crate::record::Durations,
) {
    if number == 0 {
        return;
    }
    match last {
        None => first.record(now.saturating_duration_since(planned)),
        Some(last) => inter.record(now.saturating_duration_since(last)),
    }
    inter.record_many(std::time::Duration::ZERO, number - 1);
}

impl Format<'_> {
    fn hear(&mut self, bytes: &[u8], kept: Option<&mut Vec<u8>>) -> Heard {
        let mut heard = Heard::default();
        match self {
            Self::Events {
                dialect,
                parser,
                is_done,
            } => {
                let dialect = *dialect;
                let eaten = parser.eat(bytes, |event| heard.event(dialect, event.kind, event.data));
                *is_done |= heard.is_done;
                if eaten == Err(TooLong) {
                    let reason = "a line or an event of more than 1 MiB";
                    heard.fail(ErrorKind::Body, reason);
                }
            }
            Self::Grpc { messages, .. } => {
                let mut kept = kept;
                let eaten = messages.eat(bytes, |piece| match piece {
                    Piece::Data(data) => {
                        if let Some(kept) = kept.as_deref_mut() {
                            check::keep(kept, data);
                        }
                    }
                    Piece::End => heard.events += 1,
                });
                if let Err(unreadable) = eaten {
                    heard.fail(ErrorKind::Body, unreadable.to_string());
                }
            }
        }
        heard
    }
}

impl Heard {
    fn event(&mut self, dialect: Dialect, kind: &[u8], data: &[u8]) {
        if kind == b"error" {
            return self.fail(ErrorKind::Content, openai::complaint(data));
        }
        let said = match dialect {
            Dialect::Sse => Said::Other,
            Dialect::OpenAi => openai::read(data),
        };
        match said {
            Said::Done => return self.is_done = true,
            Said::Error(reason) => return self.fail(ErrorKind::Content, reason),
            Said::Unreadable => self.fail(ErrorKind::Content, "an event is no JSON object"),
            Said::Token => self.tokens += 1,
            Said::Other => {}
        }
        self.events += 1;
    }

    fn fail(&mut self, kind: ErrorKind, reason: impl Into<String>) {
        let fault = Fault::new(kind, reason);
        let before = mem::take(&mut self.fault);
        self.fault = before.or(Some(fault));
    }
}

#[cfg(test)]
mod tests {
    use super::is_type;

    #[test]
    fn a_content_type_is_not_one_that_only_begins_alike() {
        let (events, grpc) = ("text/event-stream", "application/grpc");
        for (got, wanted, want) in [
            ("text/event-stream", events, true),
            ("Text/Event-Stream; charset=utf-8", events, true),
            ("text/event-stream ;a=b", events, true),
            ("text/event-streams", events, false),
            ("text/event-stream+x", events, false),
            ("text/event", events, false),
            ("", events, false),
            ("application/grpc", grpc, true),
            ("application/grpc+proto", grpc, true),
            ("application/grpc;x=y", grpc, true),
            ("application/grpc-web", grpc, false),
        ] {
            let is_grpc = wanted == grpc;
            assert_eq!(is_type(got.as_bytes(), wanted, is_grpc), want, "{got}");
        }
    }
}
