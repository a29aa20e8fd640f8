//! The report as a person reads it.

use crate::report::{Pacing, Percentiles, Report};
use crate::streams::Streams;
use crate::unit::human;
use std::fmt;

/// Shows a report as a short table; see its `Display`.
#[derive(Debug)]
pub struct Table<'a>(pub &'a Report);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(report) = self;
        let (config, summary) = (&report.config, &report.summary);
        write!(f, "{} {}", config.method, config.url)?;
        if let Some(method) = &config.grpc {
            write!(f, "  gRPC {method}")?;
        }
        writeln!(
            f,
            "  {} loop, {} connections",
            config.load, config.connections
        )?;
        if report.runs > 1 {
            writeln!(f, "merged from {} runs", report.runs)?;
        }
        if report.interrupted {
            writeln!(f, "stopped early: this report is partial")?;
        }
        if let Some(seconds) = report.ready_after {
            writeln!(f, "ready after {}", human(seconds))?;
        }
        if config.tls_verified == Some(false) {
            writeln!(f, "the certificate of the target was not verified")?;
        }
        writeln!(f)?;
        writeln!(
            f,
            "  throughput  {:.1} successful requests/s",
            summary.throughput
        )?;
        write!(
            f,
            "  requests    {} in {:.2} s",
            summary.requests, summary.duration
        )?;
        writeln!(
            f,
            ", {} ok, {} errors, {} unfinished",
            summary.successes, summary.error_count, summary.unfinished
        )?;
        writeln!(
            f,
            "  received    {} body bytes on {} connections",
            summary.body_bytes, summary.connections_opened
        )?;
        writeln!(
            f,
            "\n  {:<12}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}",
            "", "mean", "p50", "p90", "p95", "p99", "p99.9", "max"
        )?;
        row(f, "latency", &summary.latency)?;
        row(f, "of failures", &summary.failed_latency)?;
        if let Some(of) = &report.streams {
            rows(f, of)?;
        }
        if let Some(of) = &report.pacing {
            row(f, "pacing lag", &of.lag)?;
            row(f, "waited", &of.waited)?;
        }
        if let Some(of) = &report.streams {
            counts(f, of)?;
        }
        if let Some(of) = &report.pacing {
            pacing(f, of)?;
        }
        if !report.slo.is_empty() {
            writeln!(f)?;
        }
        for verdict in &report.slo {
            writeln!(f, "  {verdict}")?;
        }
        if let Some(cold) = &report.cold {
            write!(f, "{cold}")?;
        }
        errors(f, report)?;
        section(f, "status", report.status.iter())?;
        section(f, "gRPC status", report.grpc_status.iter())?;
        section(f, "served by", report.served_by.iter())
    }
}

fn rows(f: &mut fmt::Formatter<'_>, streams: &Streams) -> fmt::Result {
    row(f, "first byte", &streams.ttfb)?;
    row(f, "first event", &streams.first_event)?;
    row(f, "first token", &streams.first_token)?;
    row(f, "event gap", &streams.inter_event)?;
    row(f, "token gap", &streams.inter_token)?;
    row(f, "per token", &streams.time_per_token)
}

fn counts(f: &mut fmt::Formatter<'_>, streams: &Streams) -> fmt::Result {
    let (count, events) = (streams.streams, streams.events);
    write!(f, "\n  {count} streams, {events} events")?;
    if streams.tokens > 0 {
        let (tokens, rate) = (streams.tokens, streams.tokens_per_second);
        write!(f, ", {tokens} tokens, {rate:.1} tokens/s")?;
    }
    writeln!(f)
}

fn pacing(f: &mut fmt::Formatter<'_>, pacing: &Pacing) -> fmt::Result {
    writeln!(f, "\n  {}", pacing.verdict)?;
    if pacing.waited.count > 0 {
        let count = pacing.waited.count;
        writeln!(
            f,
            "  {count} requests waited for a free connection; their latency contains the wait"
        )?;
    }
    if pacing.dropped > 0 {
        writeln!(
            f,
            "  {} requests were never sent: no connection came free for them",
            pacing.dropped
        )?;
    }
    Ok(())
}

fn errors(f: &mut fmt::Formatter<'_>, report: &Report) -> fmt::Result {
    if report.summary.error_count > 0 {
        writeln!(f, "\n  errors")?;
    }
    for (kind, count) in &report.summary.errors {
        writeln!(f, "    {:<16}{count:>10}", kind.name())?;
    }
    for (kind, reason) in &report.reasons {
        writeln!(f, "    the first {}: {reason}", kind.name())?;
    }
    Ok(())
}

/// More rows than this tell a person nothing; the JSON has them all.
const MAX_ROWS: usize = 20;

fn section<'a>(
    f: &mut fmt::Formatter<'_>,
    title: &str,
    rows: impl ExactSizeIterator<Item = (&'a String, &'a u64)>,
) -> fmt::Result {
    let count = rows.len();
    if count > 0 {
        writeln!(f, "\n  {title}")?;
    }
    for (name, number) in rows.take(MAX_ROWS) {
        writeln!(f, "    {name:<16}{number:>10}")?;
    }
    if count > MAX_ROWS {
        writeln!(f, "    and {} more", count - MAX_ROWS)?;
    }
    Ok(())
}

fn row(f: &mut fmt::Formatter<'_>, name: &str, values: &Percentiles) -> fmt::Result {
    if values.count == 0 {
        return Ok(());
    }
    write!(f, "  {name:<12}")?;
    for value in [
        values.mean,
        values.p50,
        values.p90,
        values.p95,
        values.p99,
        values.p999,
        values.max,
    ] {
        write!(f, "{:>10}", value.map_or_else(|| "-".into(), human))?;
    }
    writeln!(f)
}
