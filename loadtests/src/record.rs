//! What happened, counted: latencies in HDR histograms and outcomes by kind.
//!
//! A [`Recorder`] belongs to one load thread; recorders are merged at the end, and may be merged across machines later,
//! because everything in them adds up. Memory is bounded whatever the number of requests.

use crate::protocol::grpc::Code;
use crate::series::Series;
use crate::streams::StreamCounts;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2Serializer};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// Values below this are not told apart, in nanoseconds: a step of 32 ns keeps three digits from 32 us up.
const LOWEST: u64 = 32;
/// Values above this are recorded as this: two hours, in nanoseconds, above any accepted timeout.
const HIGHEST: u64 = 2 * 3_600 * 1_000_000_000;
/// Three digits: a percentile is right within 0.1 %, or 32 ns if that is more. One histogram takes about 230 KiB.
const DIGITS: u8 = 3;
/// Distinct `x-served-by` values that are counted one by one; the rest are [`OTHER_SERVERS`].
const MAX_SERVERS: usize = 1_000;
/// Where responses of further servers are counted.
const OTHER_SERVERS: &str = "(others)";
/// Characters of a reason that are kept.
const MAX_REASON: usize = 300;

/// Why a request is an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// No connection could be made: refused, unreachable, or not within the timeout.
    Connect,
    /// A connection, but no TLS: the certificate is not trusted or not for this host, or the other side does not agree, or not within
    /// the timeout.
    Tls,
    /// No complete response within the timeout.
    Timeout,
    /// A status of 100 to 199 that was not expected.
    #[serde(rename = "status_1xx")]
    Status1xx,
    /// A status of 200 to 299 that was not expected.
    #[serde(rename = "status_2xx")]
    Status2xx,
    /// A status of 300 to 399 that was not expected.
    #[serde(rename = "status_3xx")]
    Status3xx,
    /// A status of 400 to 499 that was not expected.
    #[serde(rename = "status_4xx")]
    Status4xx,
    /// A status of 500 to 599 that was not expected.
    #[serde(rename = "status_5xx")]
    Status5xx,
    /// A status outside 100 to 599.
    StatusOther,
    /// The server closed a new connection before one byte of the response to its first request.
    ClosedFresh,
    /// The server closed a kept-alive connection before one byte of the response: it may not have seen the request.
    ClosedReused,
    /// The response head was cut short, reset or not HTTP.
    Protocol,
    /// The response began but its body did not end as it should.
    Body,
    /// The status was as expected, and the body was not: a check failed, or an error came in it.
    Content,
    /// A call of gRPC that ended with another status than `OK`, or with none.
    Grpc,
    /// Never sent: more requests were due than `max_waiting` allows to wait for a free connection.
    Dropped,
    /// Given up because the run was stopped. Counted as unfinished, not as an error.
    Interrupted,
}

impl ErrorKind {
    /// Its name, as in the JSON of a report: `status_5xx`.
    pub fn name(self) -> String {
        let name = serde_json::to_value(self).unwrap_or_default();
        name.as_str().unwrap_or("?").to_owned()
    }

    /// The kind for a response with an unexpected status.
    pub fn of_status(status: u16) -> Self {
        match status {
            100..200 => Self::Status1xx,
            200..300 => Self::Status2xx,
            300..400 => Self::Status3xx,
            400..500 => Self::Status4xx,
            500..600 => Self::Status5xx,
            _ => Self::StatusOther,
        }
    }
}

/// Bytes of the head of a histogram as it is written down: what it is, the length of the rest at 4, then its bounds.
const HEAD: usize = 40;

/// A histogram of durations.
#[derive(Clone, Debug)]
pub struct Durations(Histogram<u64>);

impl Default for Durations {
    fn default() -> Self {
        Self(
            Histogram::new_with_bounds(LOWEST, HIGHEST, DIGITS)
                .expect("the bounds are constants that the type accepts"),
        )
    }
}

impl Durations {
    /// Counts one duration; anything above two hours counts as two hours.
    pub fn record(&mut self, duration: Duration) {
        self.0
            .saturating_record(u64::try_from(duration.as_nanos()).unwrap_or(HIGHEST));
    }

    /// Counts `count` equal durations.
    pub(crate) fn record_many(&mut self, duration: Duration, count: u64) {
        let value = u64::try_from(duration.as_nanos()).unwrap_or(HIGHEST);
        self.0.saturating_record_n(value, count);
    }

    /// Adds all of the other's durations.
    ///
    /// # Panics
    ///
    /// Never: all histograms have the same bounds.
    pub fn merge(&mut self, other: &Self) {
        self.0
            .add(&other.0)
            .expect("all histograms have the same bounds");
    }

    /// Those that were recorded since it was `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let mut since = self.clone();
        // Counts only grow, so that there is never too much to take away.
        let _taken = since.0.subtract(&earlier.0);
        since
    }

    /// All of it as text: the form `HdrHistogram V2`, not compressed, in Base64, which the tools of that library read.
    ///
    /// # Panics
    ///
    /// Never: a histogram of our bounds fits into memory.
    pub fn encode(&self) -> String {
        let mut bytes = Vec::new();
        V2Serializer::new()
            .serialize(&self.0, &mut bytes)
            .expect("a histogram of our bounds fits into memory");
        STANDARD.encode(bytes)
    }

    /// What [`Durations::encode`] gave, if it is that.
    pub fn decode(text: &str) -> Option<Self> {
        let bytes = STANDARD.decode(text).ok()?;
        // The head says how much memory the rest is read into: only what ours say is believed.
        let mut ours = Vec::new();
        V2Serializer::new()
            .serialize(&Self::default().0, &mut ours)
            .ok()?;
        let (head, rest) = bytes.split_at_checked(HEAD)?;
        let length = u32::try_from(rest.len()).ok()?.to_be_bytes();
        let is_ours = head[..4] == ours[..4] && head[8..] == ours[8..HEAD];
        if !is_ours || head[4..8] != length {
            return None;
        }
        let read: Histogram<u64> = Deserializer::new()
            .deserialize(&mut bytes.as_slice())
            .ok()?;
        Some(Self(read))
    }

    /// How many were recorded.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The value that a share `quantile` (0 to 1) of all durations does not exceed, if there are any.
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        // The histogram answers with the upper edge of a bucket, which may lie above the largest value.
        (!self.0.is_empty())
            .then(|| Duration::from_nanos(self.0.value_at_quantile(quantile).min(self.0.max())))
    }

    /// The mean, if there are any durations.
    pub fn mean(&self) -> Option<Duration> {
        (!self.0.is_empty()).then(|| Duration::from_secs_f64(self.0.mean() / 1e9))
    }

    /// The longest, within 0.1 %, if there are any durations.
    pub fn max(&self) -> Option<Duration> {
        (!self.0.is_empty()).then(|| Duration::from_nanos(self.0.max()))
    }
}

/// One finished request, as the recorder needs it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample<'a> {
    /// When it was planned, from the start of the measurement on.
    pub(crate) at: Duration,
    /// From the planned instant to the end of the response or the failure.
    pub(crate) latency: Duration,
    pub(crate) status: Option<u16>,
    pub(crate) error: Option<ErrorKind>,
    pub(crate) served_by: Option<&'a str>,
    pub(crate) body_bytes: u64,
    /// How a call of gRPC ended.
    pub(crate) code: Option<Code>,
}

/// All counts of one load thread, or of several once merged.
#[derive(Clone, Debug, Default)]
pub struct Recorder {
    /// Latency of requests that got the expected status and a whole body.
    pub latency: Durations,
    /// Latency, up to the failure, of requests that were sent and failed.
    pub failed_latency: Durations,
    /// How late the tool itself was: see [`crate::report::Pacing`].
    pub lag: Durations,
    /// How long requests waited for a free connection, of those that did.
    pub waited: Durations,
    /// Errors by kind.
    pub errors: BTreeMap<ErrorKind, u64>,
    /// What was said of the first error of a kind, of kinds where something is said.
    pub reasons: BTreeMap<ErrorKind, String>,
    /// Responses by status code, expected or not.
    pub status: BTreeMap<u16, u64>,
    /// Responses by the value of `x-served-by`.
    pub served_by: HashMap<String, u64>,
    /// Calls of gRPC by the name of their status.
    pub grpc_status: BTreeMap<Code, u64>,
    /// Streams, if answers are such.
    pub streams: Option<Box<StreamCounts>>,
    /// Requests given up when the run was stopped.
    pub unfinished: u64,
    /// Bytes of response bodies.
    pub body_bytes: u64,
    /// Connections opened, warm-up included.
    pub connections: u64,
    /// How often the tool stood still for so long that the rest of the schedule was moved.
    pub reanchored: u64,
    /// By how much it was moved in all.
    pub lost: Duration,
    /// The same over time.
    pub series: Series,
}

impl Recorder {
    pub(crate) fn record(&mut self, sample: Sample<'_>) {
        match sample.error {
            None => {
                self.latency.record(sample.latency);
                self.series.record(sample.at, Some(sample.latency));
            }
            Some(ErrorKind::Interrupted) => {
                self.unfinished += 1;
                return;
            }
            Some(kind) => {
                if kind != ErrorKind::Dropped {
                    self.failed_latency.record(sample.latency);
                }
                *self.errors.entry(kind).or_default() += 1;
                self.series.record(sample.at, None);
            }
        }
        self.body_bytes += sample.body_bytes;
        if let Some(status) = sample.status {
            *self.status.entry(status).or_default() += 1;
        }
        if let Some(code) = sample.code {
            *self.grpc_status.entry(code).or_default() += 1;
        }
        if let Some(server) = sample.served_by {
            self.count_server(server, 1);
        }
    }

    /// Counts that the tool stood still, and the schedule was moved by what was lost.
    pub(crate) fn count_stall(&mut self, lost: Duration) {
        self.reanchored += 1;
        self.lost += lost;
    }

    /// Adds all of the other's counts.
    pub fn merge(&mut self, other: &Self) {
        self.latency.merge(&other.latency);
        self.failed_latency.merge(&other.failed_latency);
        self.lag.merge(&other.lag);
        self.waited.merge(&other.waited);
        for (kind, count) in &other.errors {
            *self.errors.entry(*kind).or_default() += count;
        }
        for (kind, reason) in &other.reasons {
            self.reason(*kind, reason);
        }
        for (status, count) in &other.status {
            *self.status.entry(*status).or_default() += count;
        }
        for (server, count) in &other.served_by {
            self.count_server(server, *count);
        }
        for (code, count) in &other.grpc_status {
            *self.grpc_status.entry(*code).or_default() += count;
        }
        if let Some(streams) = &other.streams {
            self.streams.get_or_insert_default().merge(streams);
        }
        self.unfinished += other.unfinished;
        self.body_bytes += other.body_bytes;
        self.connections += other.connections;
        self.reanchored += other.reanchored;
        self.lost += other.lost;
        self.series.merge(&other.series);
    }

    /// Requests that got the expected status and a whole body.
    pub fn successes(&self) -> u64 {
        self.latency.count()
    }

    /// Errors of every kind.
    pub fn failures(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Keeps the first reason of each kind, on one line.
    pub(crate) fn reason(&mut self, kind: ErrorKind, reason: &str) {
        self.reasons.entry(kind).or_insert_with(|| {
            let line = reason.chars().take(MAX_REASON);
            line.map(|c| if c.is_control() { ' ' } else { c }).collect()
        });
    }

    fn count_server(&mut self, server: &str, count: u64) {
        if let Some(known) = self.served_by.get_mut(server) {
            *known += count;
        } else {
            let key = if self.served_by.len() < MAX_SERVERS {
                server
            } else {
                OTHER_SERVERS
            };
            *self.served_by.entry(key.to_owned()).or_default() += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;

    use super::{Durations, ErrorKind, MAX_SERVERS, OTHER_SERVERS, Recorder, STANDARD, Sample};
    use std::time::Duration;

    fn sample(millis: u64, error: Option<ErrorKind>) -> Sample<'static> {
        Sample {
            at: Duration::from_millis(millis),
            latency: Duration::from_millis(millis),
            status: Some(200),
            error,
            served_by: Some("a"),
            body_bytes: 3,
            code: None,
        }
    }

    #[test]
    fn merging_equals_recording_in_one_place() {
        let (mut one, mut left, mut right) = (
            Recorder::default(),
            Recorder::default(),
            Recorder::default(),
        );
        for i in 0..1_000 {
            let error = (i % 7 == 0).then_some(ErrorKind::Timeout);
            one.record(sample(i, error));
            (if i % 2 == 0 { &mut left } else { &mut right }).record(sample(i, error));
        }
        left.merge(&right);
        assert_eq!(left.latency.0, one.latency.0);
        assert_eq!(left.failed_latency.0, one.failed_latency.0);
        assert_eq!(
            (left.errors, left.status, left.served_by),
            (one.errors, one.status, one.served_by)
        );
        assert_eq!(left.body_bytes, one.body_bytes);
    }

    #[test]
    fn percentiles_are_right_within_a_thousandth_and_never_above_the_maximum() {
        let mut durations = Durations::default();
        (1..=10_000).for_each(|i| durations.record(Duration::from_micros(i * 10)));
        for (quantile, want) in [(0.5, 0.05), (0.9, 0.09), (0.99, 0.099), (0.999, 0.0999)] {
            let got = durations.quantile(quantile).unwrap().as_secs_f64();
            assert!((got / want - 1.0).abs() < 0.001, "{quantile}: {got}");
        }
        assert!(durations.quantile(1.0) <= durations.max());
    }

    #[test]
    fn what_was_written_down_reads_back_and_nothing_else_does() {
        let mut durations = Durations::default();
        (0..5_000).for_each(|i| durations.record(Duration::from_micros(i * i)));
        let text = durations.encode();
        assert_eq!(Durations::decode(&text).unwrap().0, durations.0);
        assert!(text.len() < 16_000, "{}", text.len());
        // A head that promises four gigabytes, and one with other bounds.
        let with = |at: usize, value: [u8; 4]| {
            let mut bytes = STANDARD.decode(&text).unwrap();
            bytes[at..at + 4].copy_from_slice(&value);
            STANDARD.encode(bytes)
        };
        let (large, wide) = (with(4, [0xff; 4]), with(12, [0, 0, 0, 5]));
        for other in [
            "",
            "x",
            "AAAA",
            &text[..text.len() / 2],
            &text[4..],
            &large,
            &wide,
        ] {
            assert!(Durations::decode(other).is_none(), "{other}");
        }
    }

    #[test]
    fn nothing_recorded_has_no_percentiles() {
        let none = Durations::default();
        assert_eq!(
            (none.quantile(0.5), none.mean(), none.max()),
            (None, None, None)
        );
    }

    #[test]
    fn a_duration_beyond_the_range_saturates() {
        let mut durations = Durations::default();
        durations.record(Duration::MAX);
        assert!(durations.max().unwrap() >= Duration::from_hours(2));
    }

    #[test]
    fn drops_and_interruptions_do_not_touch_latency() {
        let mut recorder = Recorder::default();
        recorder.record(sample(5, Some(ErrorKind::Dropped)));
        recorder.record(sample(5, Some(ErrorKind::Interrupted)));
        assert_eq!(
            (
                recorder.successes(),
                recorder.failures(),
                recorder.unfinished
            ),
            (0, 1, 1)
        );
        assert_eq!(recorder.failed_latency.count(), 0);
    }

    #[test]
    fn servers_are_counted_in_bounded_memory() {
        let mut recorder = Recorder::default();
        (0..MAX_SERVERS + 50).for_each(|i| recorder.count_server(&i.to_string(), 1));
        assert_eq!(recorder.served_by.get(OTHER_SERVERS), Some(&50));
    }
}
