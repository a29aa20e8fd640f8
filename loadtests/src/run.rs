//! One run from start to report: threads, timeline, stop, and the sums at the end.
//!
//! The load runs on threads of its own, each with a single-threaded runtime, so that neither the caller's tasks nor work
//! stealing disturb it. Dropping the [`run`] future stops them.

use crate::client::{Target, Template, Upgrade};
use crate::config::{Config, Limit, Load};
use crate::crew::Crew;
use crate::dispatch::{Dispatch, Ticket};
use crate::error::Error;
use crate::flight::{Shared, Tally, Timeline};
use crate::pace::{count_warmup, never_sent};
use crate::progress::{Meter, Progress};
use crate::protocol::Protocol;
use crate::ready;
use crate::record::{ErrorKind, Recorder};
use crate::report::Report;
use crate::unit::human;
use http::header::{CONNECTION, HOST};
use http::{HeaderValue, Request, Uri};
use rustix::time::{ClockId, clock_gettime};
use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{Semaphore, watch};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval, sleep, sleep_until};

/// How often progress is told.
const PROGRESS: Duration = Duration::from_millis(250);

/// Connections made in advance at the same time: half of the smallest accept queue that is common.
const TURNS: usize = 64;

/// By how much a start may be missed.
const LATE: Duration = Duration::from_millis(50);
/// Between two looks at the clock of the machine, at most.
const LOOK: Duration = Duration::from_secs(1);

/// Runs the load and reports.
///
/// `progress` is called about four times a second on the caller's task. Sending `true` on the other side of `stop` ends
/// the run early: requests in flight are given up and counted as unfinished, and the report says that it is partial.
///
/// Needs a tokio runtime with I/O and time enabled.
///
/// # Errors
///
/// A setting that makes no sense, a host that does not resolve, a target that is not ready in time, or a common start that was missed,
/// before anything is sent; or threads that the operating system refuses. Failed requests are not errors but part of the report.
///
/// # Cancel safety
///
/// Dropping the future stops the load; requests in flight are given up.
pub async fn run(
    config: Config,
    progress: impl Fn(Progress) + Send + Sync + 'static,
    stop: watch::Receiver<bool>,
) -> Result<Report, Error> {
    run_marked(config, progress, stop, |_| ()).await
}

/// A moment of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The warm-up is over.
    Measured,
    /// The last request has ended.
    Ended,
}

/// As [`run`]; tells `mark` at these moments, on the caller's task. Whoever stops a run before it begins hears of neither.
pub(crate) async fn run_marked(
    config: Config,
    progress: impl Fn(Progress),
    mut stop: watch::Receiver<bool>,
    mut mark: impl FnMut(Mark),
) -> Result<Report, Error> {
    config.check()?;
    let Some((waited, addresses)) = unless_stopped(&mut stop, find(&config)).await.transpose()?
    else {
        let nothing = Recorder::default();
        return Ok(Report::new(
            &config,
            &nothing,
            Duration::ZERO,
            SystemTime::now(),
            true,
        ));
    };
    let shared = Arc::new(share(&config, addresses)?);
    let (mut crew, mut ready) = Crew::start(&config, &shared)?;
    let connected = async {
        ready.recv().await; // every sender is dropped once every worker has connected or given up
        first_number(&config, &shared).await
    };
    let first = unless_stopped(&mut stop, connected).await.transpose()?;
    let mut interrupted = first.is_none() || !together(config.start_at, &mut stop).await?;
    let (clock, start) = (clock_gettime(ClockId::Monotonic), Instant::now());
    let (measure, started_at) = (start + config.warmup, SystemTime::now());
    let (end, mut cutoff) = ends(&config, measure);
    let timeline = Timeline {
        start,
        measure,
        end,
    };
    let pacer_tally = Arc::new(Tally::default());
    if interrupted {
        crew.halt();
    } else {
        crew.go(&config.load, timeline, &pacer_tally, first.flatten())?;
    }

    let tallies: Vec<_> = crew.tallies.iter().chain([&pacer_tally]).cloned().collect();
    let mut meter = Meter::new(&config, start, measure);
    let mut ticks = interval(PROGRESS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks.reset();
    let mut cut = cutoff.is_none();
    let planned_cutoff = cutoff;
    let mut is_measured = false;
    loop {
        tokio::select! {
            biased;
            () = sleep_until(measure.into()), if !is_measured => {
                is_measured = true;
                mark(Mark::Measured);
            }
            _ = crew.done.recv() => break, // every sender is dropped once every thread has ended
            () = stopped(&mut stop), if !interrupted => {
                interrupted = true;
                crew.halt();
            }
            () = sleep_until(cutoff.unwrap_or(start).into()), if !cut => {
                // A schedule that was moved ends later.
                let moved = planned_cutoff.map(|cutoff| cutoff + pacer_tally.counts.lock().recorder.lost);
                if moved > cutoff {
                    cutoff = moved;
                    continue;
                }
                cut = true;
                drop_all(&shared, &pacer_tally, &timeline, shared.dispatch.take_waiting(), ErrorKind::Dropped);
            }
            _ = ticks.tick() => progress(meter.read(&tallies, &shared)),
        }
    }
    let stopped_at = Instant::now();
    mark(Mark::Ended);
    crew.join()?;
    drop_all(
        &shared,
        &pacer_tally,
        &timeline,
        shared.dispatch.take_left(),
        ErrorKind::Interrupted,
    );

    let (total, last_done) = sum(&tallies);
    let last_done = last_done.unwrap_or(measure);
    let planned_end = planned_end(&config.load, &timeline, total.lost);
    let ended = if interrupted {
        stopped_at
    } else {
        last_done.max(planned_end)
    };
    let mut report = Report::new(
        &config,
        &total,
        ended.saturating_duration_since(measure),
        started_at,
        interrupted,
    );
    report.started_monotonic = Duration::try_from(clock)
        .ok()
        .map(|clock| clock.as_secs_f64());
    report.ready_after = waited.map(|waited| waited.as_secs_f64());
    Ok(report)
}

/// The number of the first request that counts, where it must be known before: shards number as if there were none of them. To count the
/// warm-up takes seconds if that is a long one, so it is done before the clock runs.
async fn first_number(config: &Config, shared: &Arc<Shared>) -> Result<Option<u64>, Error> {
    let Load::Open(schedule) = &config.load else {
        return Ok(None);
    };
    if schedule.shard.is_none() {
        return Ok(None);
    }
    let (shared, schedule, warmup) = (Arc::clone(shared), schedule.clone(), config.warmup);
    spawn_blocking(move || count_warmup(&schedule, warmup, &shared.halted))
        .await
        .map(Some)
        .map_err(|error| Error::Worker(error.to_string()))
}

/// Waits for the moment at which all who load together begin, connected already, so that their first requests are alike. False if
/// it was stopped before.
///
/// The clock of the machine may be set meanwhile, so that is looked at again and again.
///
/// # Errors
/// If that moment has passed when all that comes before it has been done: the others have begun.
async fn together(at: Option<SystemTime>, stop: &mut watch::Receiver<bool>) -> Result<bool, Error> {
    let Some(at) = at else {
        return Ok(true);
    };
    let mut most = LATE;
    loop {
        let now = SystemTime::now();
        let late = now.duration_since(at).unwrap_or_default();
        if late > most {
            let start = at.duration_since(UNIX_EPOCH).unwrap_or_default();
            let late = human(late.as_secs_f64());
            return Err(Error::invalid(
                "--start-at",
                start.as_secs_f64().to_string(),
                format!(
                    "a moment that is ahead once the target is ready and all connections are made; it had passed by {late}"
                ),
            ));
        }
        let ahead = at.duration_since(now).unwrap_or_default();
        if ahead.is_zero() {
            return Ok(true);
        }
        tokio::select! {
            () = sleep(ahead.min(LOOK)) => {}
            () = stopped(stop) => return Ok(false),
        }
        // A busy machine wakes late, which `started_at` of the report tells. More is a clock that was set.
        most = LOOK;
    }
}

/// When no more is sent, and when what waits is given up, if that is known.
fn ends(config: &Config, measure: Instant) -> (Option<Instant>, Option<Instant>) {
    match &config.load {
        Load::Closed(Limit::Duration(length)) => (Some(measure + *length), None),
        Load::Closed(Limit::Requests(_)) => (None, None),
        Load::Open(schedule) => (None, Some(measure + schedule.length() + config.timeout)),
    }
}

/// When the load ends at the earliest, having been moved by what was `lost`.
fn planned_end(load: &Load, timeline: &Timeline, lost: Duration) -> Instant {
    match load {
        Load::Open(schedule) if schedule.limit.is_none() => {
            timeline.measure + schedule.length() + lost
        }
        _ => timeline.end.unwrap_or(timeline.measure),
    }
}

/// All that was counted, and when the last request ended.
fn sum(tallies: &[Arc<Tally>]) -> (Recorder, Option<Instant>) {
    let mut total = Recorder::default();
    let mut last_done = None;
    for tally in tallies {
        let counts = tally.counts.lock();
        total.merge(&counts.recorder);
        last_done = last_done.max(counts.last_done);
    }
    (total, last_done)
}

fn drop_all(
    shared: &Shared,
    tally: &Tally,
    timeline: &Timeline,
    tickets: impl IntoIterator<Item = Ticket>,
    kind: ErrorKind,
) {
    tickets
        .into_iter()
        .for_each(|ticket| never_sent(shared, tally, timeline, ticket, kind));
}

/// What it comes to; none if the run was stopped before.
pub(crate) async fn unless_stopped<T>(
    stop: &mut watch::Receiver<bool>,
    what: impl Future<Output = T>,
) -> Option<T> {
    tokio::select! {
        came = what => Some(came),
        () = stopped(stop) => None,
    }
}

pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        pending::<()>().await; // nobody is left who could stop the run
    }
}

/// Where the target is, once it is ready, and how long that took if it was waited for.
async fn find(config: &Config) -> Result<(Option<Duration>, Vec<SocketAddr>), Error> {
    let waited = ready::wait(config).await?;
    Ok((waited, resolve(config).await?))
}

pub(crate) async fn resolve(config: &Config) -> Result<Vec<SocketAddr>, Error> {
    let (host, port) = config.authority();
    let named = |source| Error::Resolve {
        host: format!("{host}:{port}"),
        source,
    };
    Ok(tokio::net::lookup_host((host, port))
        .await
        .map_err(named)?
        .collect())
}

fn share(config: &Config, addresses: Vec<SocketAddr>) -> Result<Shared, Error> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_micros();
    let open = matches!(config.load, Load::Open(_));
    Ok(Shared {
        template: template(config)?,
        target: target(config, addresses)?,
        timeout: config.timeout,
        expect: config.expect,
        protocol: config.protocol.clone(),
        checks: config.checks.clone(),
        connection_requests: config.connection_requests.unwrap_or(u64::MAX),
        journal: config.journal.clone(),
        // Runs of several processes rarely start in the same microsecond; the process id parts those that do.
        tag: moment_of_its_own(u64::try_from(now).unwrap_or_default()).wrapping_mul(1 << 10)
            ^ u64::from(std::process::id()),
        dispatch: Dispatch::new(
            if open { config.connections } else { 0 },
            config.max_waiting,
        ),
        budget: if let Load::Closed(Limit::Requests(count)) = config.load {
            Some(AtomicU64::new(count))
        } else {
            None
        },
        numbers: AtomicU64::new(0),
        turns: Semaphore::new(TURNS),
        halted: AtomicBool::new(false),
    })
}

/// Where the connections of a run go.
pub(crate) fn target(config: &Config, addresses: Vec<SocketAddr>) -> Result<Target, Error> {
    Ok(Target {
        addresses,
        http2: config.http2,
        tls: config.connector()?,
        upgrade: Upgrade::of(config)?,
    })
}

/// The request of which every request is a copy: HTTP/1.1 takes path and `Host`, HTTP/2 the whole URL.
pub(crate) fn template(config: &Config) -> Result<Template, Error> {
    let url = config.url.to_string();
    let broken = || Error::invalid("URL", &url, "a URL with a host and a path");
    let mut request = Request::new(());
    *request.method_mut() = config.method.clone();
    *request.headers_mut() = config.headers.clone();
    if config.connection_requests == Some(1) && !config.http2 {
        // The server need not wait for another one either.
        request
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if config.http2 {
        *request.uri_mut() = config.url.clone();
    } else {
        let path = config
            .url
            .path_and_query()
            .map_or("/", |path| path.as_str());
        *request.uri_mut() = path.parse::<Uri>().map_err(|_| broken())?;
        if !request.headers().contains_key(HOST) {
            let authority = config.url.authority().ok_or_else(broken)?.as_str();
            request.headers_mut().insert(
                HOST,
                HeaderValue::from_str(authority).map_err(|_| broken())?,
            );
        }
    }
    let is_message = matches!(config.protocol, Protocol::Grpc(_));
    config
        .protocol
        .prepare(&mut request, config)
        .ok_or_else(broken)?;
    Ok(Template::new(request, config.body.clone(), is_message))
}

/// `now`, or the next number that no other run of this process has: two that start in the same microsecond would name their requests
/// alike.
fn moment_of_its_own(now: u64) -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let next = |last: u64| Some(now.max(last.wrapping_add(1)));
    let last = LAST.fetch_update(Relaxed, Relaxed, next);
    now.max(last.unwrap_or_default().wrapping_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_the_same_microsecond_have_names_of_their_own() {
        // Later than the clock, which other tests may have used.
        let now = 1 << 60;
        let moments = [now, now, now + 1, now].map(moment_of_its_own);
        assert_eq!(moments, [now, now + 1, now + 2, now + 3]);
    }
}
