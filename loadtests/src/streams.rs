//! What streams have come to: when they began, and how steadily they went on. Events of server-sent events, tokens of models, or messages
//! of gRPC.

use serde::{Deserialize, Serialize};

use crate::{
    record::Durations,
    report::{Percentiles, per_second},
};

/// Counts of the streams of one load thread, or of several once merged. All that was seen counts, also of a stream that failed later.
#[derive(Clone, Debug, Default)]
pub struct StreamCounts {
    /// Answers that began as streams.
    pub streams: u64,
    /// Events or messages.
    pub events: u64,
    /// Events with text of a model.
    pub tokens: u64,
    /// From the planned instant to the head of the answer.
    pub ttfb: Durations,
    /// From the planned instant to the first event.
    pub first_event: Durations,
    /// From the planned instant to the first token.
    pub first_token: Durations,
    /// Between an event and the one before.
    pub inter_event: Durations,
    /// Between a token and the one before.
    pub inter_token: Durations,
    /// Of each stream with two tokens or more: the mean time from token to token.
    pub time_per_token: Durations,
}

impl StreamCounts {
    pub(crate) fn merge(&mut self, other: &Self) {
        self.streams += other.streams;
        self.events += other.events;
        self.tokens += other.tokens;
        self.ttfb.merge(&other.ttfb);
        self.first_event.merge(&other.first_event);
        self.first_token.merge(&other.first_token);
        self.inter_event.merge(&other.inter_event);
        self.inter_token.merge(&other.inter_token);
        self.time_per_token.merge(&other.time_per_token);
    }
}

/// Streams of a run. Durations are in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Streams {
    /// Answers that began as streams.
    pub streams: u64,
    /// Events of all streams, or messages of gRPC.
    pub events: u64,
    /// Events with text of a model, which most servers send token by token.
    pub tokens: u64,
    /// Tokens of all streams per second of the run.
    pub tokens_per_second: f64,
    /// From the planned instant to the head of the answer.
    pub ttfb: Percentiles,
    /// From the planned instant to the first event.
    pub first_event: Percentiles,
    /// From the planned instant to the first token.
    pub first_token: Percentiles,
    /// Between an event and the one before. Those that come at once have nothing between them.
    pub inter_event: Percentiles,
    /// Between a token and the one before.
    pub inter_token: Percentiles,
    /// Of each stream with two tokens or more: the mean time from token to token.
    pub time_per_token: Percentiles,
}

impl Streams {
    pub(crate) fn of(counts: &StreamCounts, duration: f64) -> Self {
        Self {
            streams: counts.streams,
            events: counts.events,
            tokens: counts.tokens,
            tokens_per_second: per_second(counts.tokens, duration),
            ttfb: Percentiles::of(&counts.ttfb),
            first_event: Percentiles::of(&counts.first_event),
            first_token: Percentiles::of(&counts.first_token),
            inter_event: Percentiles::of(&counts.inter_event),
            inter_token: Percentiles::of(&counts.inter_token),
            time_per_token: Percentiles::of(&counts.time_per_token),
        }
    }
}

/// Durations of streams, in the form of [`crate::report::Histograms`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamHistograms {
    /// See [`Streams::ttfb`].
    pub ttfb: String,
    /// See [`Streams::first_event`].
    pub first_event: String,
    /// See [`Streams::first_token`].
    pub first_token: String,
    /// See [`Streams::inter_event`].
    pub inter_event: String,
    /// See [`Streams::inter_token`].
    pub inter_token: String,
    /// See [`Streams::time_per_token`].
    pub time_per_token: String,
}

impl StreamHistograms {
    pub(crate) fn of(counts: &StreamCounts) -> Self {
        Self {
            ttfb: counts.ttfb.encode(),
            first_event: counts.first_event.encode(),
            first_token: counts.first_token.encode(),
            inter_event: counts.inter_event.encode(),
            inter_token: counts.inter_token.encode(),
            time_per_token: counts.time_per_token.encode(),
        }
    }

    /// What was counted, with the counts of its report; none if a histogram cannot be read.
    pub(crate) fn counts(&self, streams: &Streams) -> Option<StreamCounts> {
        let read = |text: &str| Durations::decode(text);
        Some(StreamCounts {
            streams: streams.streams,
            events: streams.events,
            tokens: streams.tokens,
            ttfb: read(&self.ttfb)?,
            first_event: read(&self.first_event)?,
            first_token: read(&self.first_token)?,
            inter_event: read(&self.inter_event)?,
            inter_token: read(&self.inter_token)?,
            time_per_token: read(&self.time_per_token)?,
        })
    }
}
