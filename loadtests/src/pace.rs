//! The pacing thread: lets each planned request go at its instant.
//!
//! tokio's timer ticks in milliseconds, too coarse to pace with. So one thread of its own sleeps to an absolute time on
//! the monotonic clock, with the kernel's timer slack turned down to 1 ns for this thread, and spins for the last
//! [`SPIN`]. The cost is at most 20 us of CPU per request, 2 % of a core per 1,000 requests/s.
//!
//! A thread that comes late (a suspended machine, a starved core) lets go at once everything that is due, in order:
//! nothing is skipped, and the lateness is in the lag histogram.

use crate::dispatch::Ticket;
use crate::flight::{Ending, Flight, Shared, Tally, Timeline};
use crate::plan::Schedule;
use crate::record::ErrorKind;
use rustix::process::setpriority_process;
use rustix::thread::{ClockId, Timespec, clock_nanosleep_absolute, set_current_timer_slack};
use rustix::time::clock_gettime;
use std::num::NonZero;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How much of each wait is spun: about what a sleeping thread needs to get going again.
const SPIN: Duration = Duration::from_micros(20);

/// The niceness of the pacing thread, if it may have one: before all others (setpriority(2)).
const FIRST: i32 = -20;

/// The longest single sleep, so that a stopped run does not wait for a distant arrival.
const NAP: Duration = Duration::from_millis(50);

/// Offers every planned request, warm-up first; returns early if the run is stopped.
pub(crate) fn pace(shared: &Shared, tally: &Tally, timeline: &Timeline, schedule: &Schedule) {
    // Without the slack turned down we would be 50 us late rather than wrong.
    let _ = set_current_timer_slack(NonZero::new(1));
    // Of this thread alone, on Linux. It sleeps but for moments, and whoever is not allowed to do this waits for others at times.
    let _ = setpriority_process(None, FIRST);
    let warmup = schedule.warmup(timeline.measure - timeline.start);
    // A request has the number that it would have were there no shards, and so the same body.
    let first = warmup
        .as_ref()
        .map_or(0, |warmup| warmup.whole().instants().count());
    let first = u64::try_from(first).unwrap_or_default();
    let warm = warmup
        .iter()
        .flat_map(Schedule::numbered)
        .map(|(number, due)| (number, timeline.start + due));
    let measured = schedule
        .numbered()
        .map(|(number, due)| (first + number, timeline.measure + due));
    for (number, planned) in warm.chain(measured) {
        if !wait_until(planned, shared) {
            break;
        }
        let ticket = Ticket {
            number,
            planned,
            released: Instant::now(),
            waited: false,
        };
        if let Err(ticket) = shared.dispatch.offer(ticket) {
            never_sent(shared, tally, timeline, ticket, ErrorKind::Dropped);
        }
    }
    shared.dispatch.close();
}

/// Counts a request that is not going to be sent.
pub(crate) fn never_sent(
    shared: &Shared,
    tally: &Tally,
    timeline: &Timeline,
    ticket: Ticket,
    kind: ErrorKind,
) {
    Flight::begin(shared, tally, timeline, ticket).end(Ending {
        error: Some(kind),
        ..Ending::default()
    });
}

fn wait_until(due: Instant, shared: &Shared) -> bool {
    loop {
        if shared.halted.load(Ordering::Relaxed) {
            return false;
        }
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        match left
            .checked_sub(SPIN)
            .map(|sleep| sleep.min(NAP))
            .and_then(from_now)
        {
            // An interrupted sleep is an early one: the loop looks again.
            Some(wake) => drop(clock_nanosleep_absolute(ClockId::Monotonic, &wake)),
            None => std::hint::spin_loop(),
        }
    }
}

fn from_now(sleep: Duration) -> Option<Timespec> {
    clock_gettime(ClockId::Monotonic).checked_add(Timespec::try_from(sleep).ok()?)
}
