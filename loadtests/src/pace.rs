//! The pacing thread: lets each planned request go at its instant.
//!
//! tokio's timer ticks in milliseconds, too coarse to pace with. So one thread of its own sleeps to an absolute time on
//! the monotonic clock, with the kernel's timer slack turned down to 1 ns for this thread, and spins for the last
//! [`SPIN`]. The cost is at most 20 us of CPU per request, 2 % of a core per 1,000 requests/s.
//!
//! A thread that comes a little late lets go at once everything that is due, in order, and the lateness is in the lag
//! histogram. One that was kept from running for longer than [`CATCH_UP`] (a stopped process, a starved core) does not: a burst
//! that nobody planned would be blamed on the server. The rest of the schedule is moved instead, which is counted and told. A burst that
//! was planned, of many requests at one instant, is sent as it is, however long that takes.
//! Nothing is skipped, and what the *server* does moves nothing: this thread never waits for it.

use crate::dispatch::Ticket;
use crate::flight::{Ending, Flight, Shared, Tally, Timeline};
use crate::plan::Schedule;
use crate::record::ErrorKind;
use rustix::process::setpriority_process;
use rustix::thread::{ClockId, Timespec, clock_nanosleep_absolute, set_current_timer_slack};
use rustix::time::clock_gettime;
use std::num::NonZero;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How much of each wait is spun: about what a sleeping thread needs to get going again.
const SPIN: Duration = Duration::from_micros(20);

/// The niceness of the pacing thread, if it may have one: before all others (setpriority(2)).
const FIRST: i32 = -20;

/// The longest single sleep, so that a stopped run does not wait for a distant arrival.
const NAP: Duration = Duration::from_millis(50);

/// How late this thread may be and still send at once all that has become due meanwhile: 10 ms, as `AIPerf` has it (aiperf PR#1185).
const CATCH_UP: Duration = Duration::from_millis(10);

/// Where a schedule lies on the clock.
#[derive(Debug)]
struct Anchor {
    /// The instant from which the schedule now counts.
    at: Instant,
    /// The request before: when it was due, and when it was let go.
    last: Option<(Duration, Instant)>,
    /// How late it is because of requests of one instant, which take their time to be let go one after the other.
    excused: Duration,
}

impl Anchor {
    fn new(at: Instant) -> Self {
        Self {
            at,
            last: None,
            excused: Duration::ZERO,
        }
    }

    /// When a request is due on the clock.
    fn planned(&self, due: Duration) -> Instant {
        self.at + due
    }

    /// Hears that a request that is `due` is let go `now`. Had this thread been away for longer than it may catch up, what
    /// follows is moved by as much, so that the gaps stay as planned, and the time that was lost is given. The late request itself
    /// keeps its instant: its lag and its latency say all of it.
    ///
    /// Nothing is moved between requests of the same instant, nor after them for the time that they took: that burst was planned.
    fn let_go(&mut self, due: Duration, now: Instant) -> Option<Duration> {
        let late = now.saturating_duration_since(self.planned(due));
        self.excused = self.excused.min(late);
        let last = self.last.replace((due, now));
        if let Some((_, then)) = last.filter(|(before, _)| *before == due) {
            let took = now.saturating_duration_since(then);
            if took <= CATCH_UP {
                self.excused += took;
            }
            return None;
        }
        (late > self.excused + CATCH_UP).then(|| {
            self.at += late;
            self.excused = Duration::ZERO;
            late
        })
    }
}

/// Requests of the whole of a warm-up, shards or not; stops counting if the run is stopped.
pub(crate) fn count_warmup(schedule: &Schedule, length: Duration, halted: &AtomicBool) -> u64 {
    let warmup = schedule.warmup(length).map(|warmup| warmup.whole());
    let count = warmup.as_ref().map_or(0, |warmup| {
        let instants = warmup.instants();
        instants
            .take_while(|_| !halted.load(Ordering::Relaxed))
            .count()
    });
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// Offers every planned request, warm-up first; returns early if the run is stopped. `first` is the number of the first one that counts, if
/// it does not just follow that of the last one of the warm-up.
pub(crate) fn pace(
    shared: &Shared,
    tally: &Tally,
    timeline: &Timeline,
    schedule: &Schedule,
    first: Option<u64>,
) {
    // Without the slack turned down we would be 50 us late rather than wrong.
    let _ = set_current_timer_slack(NonZero::new(1));
    // Of this thread alone, on Linux. It sleeps but for moments, and whoever is not allowed to do this waits for others at times.
    let _ = setpriority_process(None, FIRST);
    let warmup = schedule.warmup(timeline.measure - timeline.start);
    let mut next = 0;
    let warm = warmup.iter().map(|warmup| (timeline.start, warmup));
    'run: for (at, schedule) in warm.chain([(timeline.measure, schedule)]) {
        let mut anchor = Anchor::new(at);
        let is_measured = at == timeline.measure;
        // A request has the number that it would have were there no shards, and so the same body.
        let first = if is_measured {
            first.unwrap_or(next)
        } else {
            0
        };
        for (number, due) in schedule.numbered() {
            let planned = anchor.planned(due);
            // A warm-up that was moved ends where it was to end.
            if !is_measured && planned >= timeline.measure {
                break;
            }
            if !wait_until(planned, shared) {
                break 'run;
            }
            let released = Instant::now();
            if let Some(lost) = anchor.let_go(due, released)
                && is_measured
            {
                tally.counts.lock().recorder.count_stall(lost);
            }
            next = first + number + 1;
            let ticket = Ticket {
                number: first + number,
                planned,
                released,
                waited: false,
            };
            if let Err(ticket) = shared.dispatch.offer(ticket) {
                never_sent(shared, tally, timeline, ticket, ErrorKind::Dropped);
            }
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

#[cfg(test)]
mod tests {
    use super::{Anchor, CATCH_UP};
    use proptest::prelude::*;
    use std::time::{Duration, Instant};

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Lets go a request each 1 ms of plan on a simulated clock that jumps by `away` before the request of that number. Gives how
    /// late each was, when it went out, and what was lost.
    fn simulate(
        count: u32,
        away: &[(u32, Duration)],
    ) -> (Vec<Duration>, Vec<Duration>, Vec<Duration>) {
        let start = Instant::now();
        let mut anchor = Anchor::new(start);
        let mut now = start;
        let (mut late, mut sent, mut lost) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..count {
            let planned = anchor.planned(ms(1) * number);
            now += away
                .iter()
                .filter(|(at, _)| *at == number)
                .map(|(_, away)| *away)
                .sum::<Duration>();
            now = now.max(planned);
            lost.extend(anchor.let_go(ms(1) * number, now));
            late.push(now - planned);
            sent.push(now - start);
        }
        (late, sent, lost)
    }

    #[test]
    fn a_little_late_catches_up_and_stays_with_the_plan() {
        let (late, sent, lost) = simulate(100, &[(50, ms(9))]);
        assert!(lost.is_empty(), "{lost:?}");
        assert_eq!(late[50], ms(8), "the clock stood at 49 ms");
        assert_eq!(sent[50..58], [ms(58); 8], "what was due is sent at once");
        assert_eq!((late[58], sent[99]), (ms(0), ms(99)));
    }

    #[test]
    fn much_too_late_moves_the_rest_and_invents_no_burst() {
        let (late, sent, lost) = simulate(100, &[(50, ms(1_001))]);
        assert_eq!(lost, [ms(1_000)]);
        assert_eq!(late[50], ms(1_000), "the late one says all of it");
        assert!(late[51..].iter().all(Duration::is_zero));
        assert!(sent.windows(2).all(|pair| pair[1] >= pair[0] + ms(1)));
        assert_eq!(sent[99], ms(1_099));
    }

    #[test]
    fn exactly_as_late_as_may_be_is_not_too_late() {
        let (_, _, lost) = simulate(20, &[(5, CATCH_UP + ms(1))]);
        assert!(lost.is_empty(), "{lost:?}");
        let (_, _, lost) = simulate(20, &[(5, CATCH_UP + ms(2))]);
        assert_eq!(lost, [CATCH_UP + ms(1)]);
    }

    #[test]
    fn a_burst_that_was_planned_moves_nothing_however_long_it_takes() {
        let start = Instant::now();
        let mut anchor = Anchor::new(start);
        let mut now = start;
        // 300 at once, each of which takes 100 us to be let go, and then one each 1 ms, of which 30 are due already.
        for _ in 0..300 {
            now += Duration::from_micros(100);
            assert_eq!(anchor.let_go(ms(0), now), None);
        }
        for number in 1..=100 {
            now = now.max(anchor.planned(ms(number)));
            assert_eq!(anchor.let_go(ms(number), now), None);
        }
        assert_eq!(now, start + ms(100));
        // Being away is no excuse, neither before such a burst nor in it.
        now += ms(51);
        assert_eq!(anchor.let_go(ms(101), now), Some(ms(50)));
        assert_eq!(anchor.let_go(ms(101), now + ms(70)), None);
        assert_eq!(anchor.let_go(ms(102), now + ms(70)), Some(ms(69)));
    }

    proptest! {
        /// However the thread is kept away: all is sent, in order, no more than a catch-up's worth at once, and after all of the time
        /// lost the plan is kept.
        #[test]
        fn never_more_at_once_than_may_be_caught_up(
            away in prop::collection::vec((0..500_u32, (0..60_u64).prop_map(ms)), 0..12),
        ) {
            let (late, sent, lost) = simulate(600, &away);
            prop_assert!(sent.windows(2).all(|pair| pair[0] <= pair[1]));
            let most = usize::try_from(CATCH_UP.as_millis()).unwrap() + 1;
            prop_assert!(sent.windows(most + 1).all(|at| at[0] < at[most]), "{sent:?}");
            prop_assert!(lost.iter().all(|lost| *lost > CATCH_UP));
            prop_assert_eq!(late.iter().filter(|late| **late > CATCH_UP).count(), lost.len());
            let all: Duration = lost.iter().sum();
            prop_assert_eq!(sent[599], ms(599) + all);
        }
    }
}
