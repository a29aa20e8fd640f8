//! Load over time: how many requests were where in each of the last seconds.
//!
//! Pure: every call takes `now`. Both proxies keep one such ring per workload; the autoscaler reads the seconds it has
//! not yet seen. Averages are exact because the ring integrates occupancy over time instead of sampling it, and a lost
//! scrape loses nothing as long as the next one comes within [`SECONDS`].

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Seconds kept. More than a minute, so that a scraper that was away for a stable window still finds them all.
pub const SECONDS: usize = 64;
const SECOND_US: u64 = 1_000_000;

/// What one whole second saw. Integrals are in request-microseconds: 1,000,000 is one request for the whole second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Second {
    /// The second, counted from the process epoch.
    pub second: u64,
    /// Integral of requests in flight at the model.
    #[serde(default)]
    pub in_flight_us: u64,
    /// Integral of requests that waited: for a slot in a queue-proxy, for a pod in an activator.
    #[serde(default)]
    pub waiting_us: u64,
    /// Requests that arrived and count as load.
    #[serde(default)]
    pub started: u64,
    /// Requests that left, however they ended.
    #[serde(default)]
    pub ended: u64,
    /// Requests that were counted as started and handed on: by an activator to a pod, by a pod whose model took no connection to an
    /// activator. Whoever gets one counts it.
    #[serde(default)]
    pub released: u64,
}

impl Second {
    /// Whether nothing was in it.
    pub fn is_empty(&self) -> bool {
        let nothing = Self {
            second: self.second,
            ..Self::default()
        };
        *self == nothing
    }
}

/// A gauge whose history is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gauge {
    /// At the model.
    InFlight,
    /// Waiting.
    Waiting,
}

/// A counter whose history is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// See [`Second::started`].
    Started,
    /// See [`Second::ended`].
    Ended,
    /// See [`Second::released`].
    Released,
}

/// Everything since a ring was made. What a span of time saw is the difference of two of these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Microseconds that passed; time that goes back does not count.
    pub elapsed_us: u64,
    /// Integral of [`Gauge::InFlight`] in request-microseconds.
    pub in_flight_us: i64,
    /// Integral of [`Gauge::Waiting`] in request-microseconds.
    pub waiting_us: i64,
    /// See [`Second::started`].
    pub started: u64,
    /// See [`Second::ended`].
    pub ended: u64,
    /// See [`Second::released`].
    pub released: u64,
}

/// What the last [`SECONDS`] seconds saw, and the gauges' present values.
///
/// Only seconds in which something was are in memory: an activator has one of these for every workload that sleeps.
#[derive(Clone, Debug)]
pub struct Ring {
    /// Oldest first; at most [`SECONDS`] of them.
    eventful: VecDeque<Second>,
    /// The second in which this was made: nothing is known of those before.
    first: u64,
    last_us: u64,
    in_flight: i64,
    waiting: i64,
    /// Kept only if it was asked for: see [`Ring::with_totals`].
    totals: Option<Box<Totals>>,
}

impl Ring {
    /// An empty ring at `now_us`, microseconds since the process epoch.
    pub fn new(now_us: u64) -> Self {
        Self {
            eventful: VecDeque::new(),
            first: now_us / SECOND_US,
            last_us: now_us,
            in_flight: 0,
            waiting: 0,
            totals: None,
        }
    }

    /// An account as Knative keeps it: as [`Ring::new`], with totals beside the seconds, so that any span can be reported. And a
    /// gauge that is left once too often goes below zero and stays one behind. Otherwise it stops at zero: that a request leaves
    /// which never came is a mistake in a program, and must not hide one that comes later.
    /// Source: `knative.dev/networking/pkg/http/stats/request.go`.
    pub fn with_totals(now_us: u64) -> Self {
        Self {
            totals: Some(Box::default()),
            ..Self::new(now_us)
        }
    }

    /// Requests at the model now.
    pub fn in_flight(&self) -> u64 {
        u64::try_from(self.in_flight).unwrap_or(0)
    }

    /// Requests waiting now.
    pub fn waiting(&self) -> u64 {
        u64::try_from(self.waiting).unwrap_or(0)
    }

    /// Everything up to `now_us`; none if no totals are kept.
    pub fn totals(&mut self, now_us: u64) -> Option<Totals> {
        self.advance(now_us);
        self.totals.as_deref().copied()
    }

    /// One request enters `gauge` at `now_us`.
    pub fn enter(&mut self, now_us: u64, gauge: Gauge) {
        self.advance(now_us);
        let value = self.gauge(gauge);
        *value = value.saturating_add(1);
    }

    /// One request leaves `gauge` at `now_us`.
    pub fn leave(&mut self, now_us: u64, gauge: Gauge) {
        self.advance(now_us);
        let floor = if self.totals.is_some() { i64::MIN } else { 0 };
        let value = self.gauge(gauge);
        debug_assert!(*value > floor, "left a gauge that was never entered");
        *value = value.saturating_sub(1).max(floor);
    }

    /// Counts one event in the second of `now_us`.
    pub fn count(&mut self, now_us: u64, count: Count) {
        self.advance(now_us);
        let slot = self.slot(self.last_us / SECOND_US);
        match count {
            Count::Started => slot.started += 1,
            Count::Ended => slot.ended += 1,
            Count::Released => slot.released += 1,
        }
        if let Some(totals) = &mut self.totals {
            match count {
                Count::Started => totals.started += 1,
                Count::Ended => totals.ended += 1,
                Count::Released => totals.released += 1,
            }
        }
    }

    /// The last whole second at `now_us`.
    pub fn last_whole(now_us: u64) -> u64 {
        (now_us / SECOND_US).saturating_sub(1)
    }

    /// Whole seconds after `since` (a second number), oldest first, at most [`SECONDS`] - 1 of them. Those in which nothing was
    /// are told too.
    pub fn seconds_after(&mut self, now_us: u64, since: Option<u64>) -> Vec<Second> {
        self.advance(now_us);
        // Others may have been here since `now_us` was read: the seconds are those that were whole then and are kept still.
        let newest = self.last_us / SECOND_US;
        self.forget_before(newest);
        let current = now_us.min(self.last_us) / SECOND_US;
        let oldest = newest.saturating_sub(SECONDS as u64 - 1).max(self.first);
        let from = since.map_or(oldest, |s| s.saturating_add(1).max(oldest));
        let eventful = self.eventful.iter();
        let mut eventful = eventful.skip_while(|slot| slot.second < from).peekable();
        (from..current)
            .map(|second| {
                let nothing = Second {
                    second,
                    ..Second::default()
                };
                let slot = eventful.next_if(|slot| slot.second == second);
                slot.copied().unwrap_or(nothing)
            })
            .collect()
    }

    /// Integrates up to `now_us`. A clock that runs backwards is ignored.
    fn advance(&mut self, now_us: u64) {
        if now_us <= self.last_us {
            return;
        }
        if let Some(totals) = &mut self.totals {
            totals.elapsed_us = totals.elapsed_us.saturating_add(now_us - self.last_us);
        }
        if self.in_flight != 0 || self.waiting != 0 {
            let target = now_us / SECOND_US;
            // Of a gap longer than the ring the beginning would be forgotten again.
            let begin = target.saturating_sub(SECONDS as u64) * SECOND_US;
            self.add_up(begin.saturating_sub(self.last_us));
            self.last_us = self.last_us.max(begin);
            for current in self.last_us / SECOND_US..target {
                let boundary = (current + 1) * SECOND_US;
                self.integrate(current, boundary - self.last_us);
                self.last_us = boundary;
            }
            self.integrate(target, now_us - self.last_us);
        }
        self.last_us = now_us;
    }

    fn add_up(&mut self, elapsed_us: u64) {
        let Some(totals) = &mut self.totals else {
            return;
        };
        let elapsed_us = i64::try_from(elapsed_us).unwrap_or(i64::MAX);
        for (sum, gauge) in [
            (&mut totals.in_flight_us, self.in_flight),
            (&mut totals.waiting_us, self.waiting),
        ] {
            *sum = sum.saturating_add(gauge.saturating_mul(elapsed_us));
        }
    }

    fn integrate(&mut self, second: u64, elapsed_us: u64) {
        self.add_up(elapsed_us);
        let (in_flight, waiting) = (self.in_flight(), self.waiting());
        let slot = self.slot(second);
        slot.in_flight_us = slot
            .in_flight_us
            .saturating_add(in_flight.saturating_mul(elapsed_us));
        slot.waiting_us = slot
            .waiting_us
            .saturating_add(waiting.saturating_mul(elapsed_us));
    }

    /// The newest second: time only advances.
    fn slot(&mut self, second: u64) -> &mut Second {
        if self.eventful.back().is_none_or(|slot| slot.second < second) {
            self.forget_before(second);
            self.eventful.push_back(Second {
                second,
                ..Second::default()
            });
        }
        let newest = self.eventful.len() - 1;
        &mut self.eventful[newest]
    }

    /// Forgets what has left the ring when `second` is the newest.
    fn forget_before(&mut self, second: u64) {
        let over = |slot: &Second| slot.second + SECONDS as u64 <= second;
        while self.eventful.front().is_some_and(over) {
            self.eventful.pop_front();
        }
        if self.eventful.is_empty() {
            self.eventful = VecDeque::new();
        }
    }

    fn gauge(&mut self, gauge: Gauge) -> &mut i64 {
        match gauge {
            Gauge::InFlight => &mut self.in_flight,
            Gauge::Waiting => &mut self.waiting,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = SECOND_US;

    #[test]
    fn integrates_occupancy_exactly_across_second_boundaries() {
        let mut ring = Ring::new(10 * S);
        ring.enter(10 * S + 500_000, Gauge::InFlight);
        ring.enter(11 * S, Gauge::InFlight);
        ring.leave(11 * S + 250_000, Gauge::InFlight);
        ring.leave(12 * S + 100_000, Gauge::InFlight);
        let seconds = ring.seconds_after(13 * S, Some(9));
        let got: Vec<_> = seconds.iter().map(|s| (s.second, s.in_flight_us)).collect();
        assert_eq!(got, [(10, 500_000), (11, 1_250_000), (12, 100_000)]);
        assert_eq!(ring.in_flight(), 0);
    }

    #[test]
    fn a_scraper_that_was_away_finds_what_it_missed_and_nothing_twice() {
        let mut ring = Ring::new(0);
        ring.enter(0, Gauge::Waiting);
        let first = ring.seconds_after(3 * S, None);
        assert_eq!(first.last().map(|s| s.second), Some(2));
        let next = ring.seconds_after(6 * S + 1, Some(2));
        assert_eq!(next.iter().map(|s| s.second).collect::<Vec<_>>(), [3, 4, 5]);
        assert!(next.iter().all(|s| s.waiting_us == S));
        assert!(ring.seconds_after(6 * S + 2, Some(5)).is_empty());
    }

    #[test]
    fn a_gap_longer_than_the_ring_keeps_only_what_fits() {
        let mut ring = Ring::new(0);
        ring.enter(0, Gauge::InFlight);
        let seconds = ring.seconds_after(1_000 * S, None);
        assert_eq!(seconds.len(), SECONDS - 1);
        assert!(seconds.iter().all(|s| s.in_flight_us == S), "{seconds:?}");
    }

    #[test]
    fn a_scrape_that_was_overtaken_tells_of_no_second_after_its_own() {
        let mut ring = Ring::new(0);
        ring.enter(5 * S + 1, Gauge::InFlight);
        let now = 5 * S - 1;
        let seconds = ring.seconds_after(now, None);
        assert_eq!(
            seconds.last().map(|s| s.second),
            Some(Ring::last_whole(now))
        );
    }

    #[test]
    fn a_scrape_that_was_overtaken_takes_no_forgotten_second_for_an_empty_one() {
        let mut ring = Ring::new(0);
        ring.count(2 * S, Count::Started);
        let newest = 2 + SECONDS as u64;
        ring.count(newest * S, Count::Started);
        let seconds = ring.seconds_after(newest * S - 1, None);
        assert_eq!(seconds.first().map(|s| s.second), Some(3));
    }

    #[test]
    fn seconds_in_which_nothing_was_are_told_and_take_no_memory() {
        let mut ring = Ring::new(10 * S);
        let told = |ring: &mut Ring, now, since| {
            let seconds = ring.seconds_after(now, since);
            seconds
                .iter()
                .map(|s| (s.second, s.started))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            told(&mut ring, 13 * S, None),
            [(10, 0), (11, 0), (12, 0)],
            "none from before it was made"
        );
        assert_eq!(ring.eventful.capacity(), 0);
        ring.count(14 * S, Count::Started);
        ring.count(16 * S, Count::Started);
        assert_eq!(
            told(&mut ring, 18 * S, Some(12)),
            [(13, 0), (14, 1), (15, 0), (16, 1), (17, 0)]
        );
        let last = 16 + SECONDS as u64;
        assert_eq!(told(&mut ring, (last - 1) * S, None)[0], (16, 1));
        assert_eq!(told(&mut ring, last * S, None)[0], (17, 0));
        assert_eq!(ring.eventful.capacity(), 0);
    }

    #[test]
    fn totals_know_every_span_also_what_the_seconds_forget() {
        assert_eq!(Ring::new(0).totals(S), None);
        let mut ring = Ring::with_totals(10 * S);
        let totals = |ring: &mut Ring, now| ring.totals(now).unwrap();
        assert_eq!(totals(&mut ring, 10 * S), Totals::default());
        ring.enter(11 * S, Gauge::InFlight);
        ring.enter(11 * S + 500_000, Gauge::InFlight);
        ring.count(11 * S + 500_000, Count::Started);
        let early = totals(&mut ring, 12 * S);
        assert_eq!((early.elapsed_us, early.in_flight_us), (2 * S, 1_500_000));
        let late = totals(&mut ring, 1_012 * S);
        assert_eq!(late.elapsed_us - early.elapsed_us, 1_000 * S);
        assert_eq!(late.in_flight_us - early.in_flight_us, 2_000_000_000);
        assert_eq!((late.started, late.waiting_us), (1, 0));
        assert_eq!(totals(&mut ring, 9 * S), late, "time does not go back");
    }

    #[test]
    fn one_that_leaves_too_often_stays_behind_only_where_that_is_asked_for() {
        let mut ring = Ring::with_totals(10 * S);
        ring.leave(10 * S, Gauge::InFlight);
        let totals = ring.totals(11 * S).unwrap();
        assert_eq!(totals.in_flight_us, -1_000_000);
        assert_eq!(ring.in_flight(), 0);
        ring.enter(11 * S, Gauge::InFlight);
        ring.enter(11 * S, Gauge::InFlight);
        assert_eq!(ring.in_flight(), 1);
    }

    #[test]
    fn a_clock_that_runs_backwards_is_ignored() {
        let mut ring = Ring::new(5 * S);
        ring.enter(6 * S, Gauge::InFlight);
        ring.count(2 * S, Count::Started);
        let seconds = ring.seconds_after(7 * S, Some(4));
        assert_eq!(
            seconds[1],
            Second {
                second: 6,
                in_flight_us: S,
                started: 1,
                ..Second::default()
            }
        );
    }
}
