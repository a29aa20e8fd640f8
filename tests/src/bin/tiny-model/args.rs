//! How to behave.

use clap::Parser;
use std::path::PathBuf;
use std::time::Duration;

/// A fake model server for tests, HTTP/1.1 and HTTP/2 with prior knowledge.
///
/// Paths: /ready; /work[?ms=N]; /echo (streams, with trailers); /sse?n=5&ms=50; /ws (WebSocket echo); /big?bytes=N; /early
/// (413 without reading the body); /tiny.Model/Echo (gRPC: the messages back); /hang (nothing is answered from then on, not even
/// /ready); /ask?ADDRESS:PORT/PATH (sends a GET there with the headers that it is given, and answers what it is answered);
/// /stats. All answers carry x-served-by: NAME.
#[derive(Debug, Parser)]
#[command(name = "tiny-model", version)]
pub(crate) struct Args {
    /// Port to listen on.
    #[arg(long, env = "PORT")]
    pub(crate) port: u16,

    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    pub(crate) host: std::net::Ipv4Addr,

    /// What it calls itself in x-served-by: its process id if not given.
    #[arg(long)]
    pub(crate) name: Option<String>,

    /// Time before the port opens.
    #[arg(long, value_name = "TIME", default_value = "0ms", value_parser = duration)]
    pub(crate) start_delay: Duration,

    /// Time after the port opens during which /ready answers 503.
    #[arg(long, value_name = "TIME", default_value = "0ms", value_parser = duration)]
    pub(crate) ready_delay: Duration,

    /// How long /work takes unless its query says otherwise.
    #[arg(long, value_name = "TIME", default_value = "5ms", value_parser = duration)]
    pub(crate) service_time: Duration,

    /// Evenly spread extra time on top of the service time.
    #[arg(long, value_name = "TIME", default_value = "0ms", value_parser = duration)]
    pub(crate) jitter: Duration,

    /// Refuse requests beyond this many at once with 503; they are not executed. 0 is no limit.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) concurrency: usize,

    /// Append "id pid method path body-bytes" for each executed request.
    #[arg(long, value_name = "FILE")]
    pub(crate) journal: Option<PathBuf>,

    /// Exit with status 3 once ready, or with a value that long after: --crash-after-start=200ms.
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "0ms", value_parser = duration)]
    pub(crate) crash_after_start: Option<Duration>,

    /// Never become ready: exit with status 3 this long after the port opens.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) crash_before_ready: Option<Duration>,

    /// Share of executed requests to /work that are answered with 500, 0 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    pub(crate) fail_rate: f64,

    /// Close each connection after this many responses, without saying so in a header. 0 is never.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) close_after: u64,

    /// Close connections that were idle for so long. 0 is never.
    #[arg(long, value_name = "TIME", default_value = "0ms", value_parser = duration)]
    pub(crate) idle_timeout: Duration,
}

/// Reads `250us`, `5ms`, `1.5s` or `2m`.
fn duration(text: &str) -> Result<Duration, String> {
    const ALLOWED: &str = "a time is a number with us, ms, s or m, such as 5ms";
    let split = text
        .find(|c: char| c.is_ascii_alphabetic())
        .ok_or(ALLOWED)?;
    let unit = match &text[split..] {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        _ => return Err(ALLOWED.into()),
    };
    let number: f64 = text[..split].parse().map_err(|_| ALLOWED)?;
    Duration::try_from_secs_f64(number * unit)
        .ok()
        .filter(|time| *time <= Duration::from_hours(24))
        .ok_or_else(|| ALLOWED.into())
}

fn share(text: &str) -> Result<f64, String> {
    let share = text
        .parse()
        .ok()
        .filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "a share is a number from 0 to 1".into())
}

#[cfg(test)]
mod tests {
    use super::Args;
    use clap::{CommandFactory, Parser};
    use std::time::Duration;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_crash_needs_no_time_but_takes_one() {
        let crash = |flag| {
            Args::try_parse_from(["tiny-model", "--port", "1", flag])
                .unwrap()
                .crash_after_start
        };
        assert_eq!(crash("--crash-after-start"), Some(Duration::ZERO));
        assert_eq!(
            crash("--crash-after-start=20ms"),
            Some(Duration::from_millis(20))
        );
    }
}
