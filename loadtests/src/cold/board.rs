//! What happens to replicas and held requests over time, and what the API server told: one place, written by the watches and the
//! requests, read at the end.

use super::pods::Pods;
use super::report::{MOST_MOMENTS, Moment};
use parking_lot::{Mutex, RwLock};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Times at which a workload was scaled from zero that are remembered.
const MOST_SCALES: usize = 100_000;

/// What is known of one workload now.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    /// Replicas that are wanted, by the Deployment's spec.
    pub(super) wanted: u32,
    /// Pods of the Deployment, by its status.
    pub(super) replicas: u32,
    /// Those that are ready.
    pub(super) ready: u32,
    pub(super) pods: Pods,
    /// When replicas were wanted where none had been.
    pub(super) scaled: Vec<Duration>,
    /// Requests of this tool without the head of an answer.
    open: u64,
    /// Since when nothing is wanted and nothing left.
    zero_since: Option<Duration>,
    /// When it was last told how many requests are held.
    told: Option<Duration>,
    /// The Deployment is no more.
    pub(super) is_gone: bool,
    /// Whether the Deployment was told of yet.
    is_known: bool,
    /// Whether its pods were.
    pub(super) has_pods: bool,
}

/// All workloads of a run.
#[derive(Debug)]
pub(super) struct Board {
    start: RwLock<Instant>,
    names: Vec<String>,
    states: Mutex<(Vec<State>, Moments)>,
    changed: Notify,
}

/// Moments in bounded memory: once they are too many, only every second, fourth, .. is kept.
#[derive(Debug)]
struct Moments {
    list: Vec<Moment>,
    every: u64,
    seen: u64,
}

impl Moments {
    fn add(&mut self, moment: Moment) {
        self.seen += 1;
        if !self.seen.is_multiple_of(self.every) {
            return;
        }
        if self.list.len() >= MOST_MOMENTS {
            let mut number = 0;
            self.list.retain(|_| {
                number += 1;
                number % 2 == 0
            });
            self.every *= 2;
        }
        self.list.push(moment);
    }
}

/// Between two moments that tell of nothing but held requests.
const PAUSE: Duration = Duration::from_millis(100);

impl State {
    fn moment(&self, at: Duration, name: &str) -> Moment {
        Moment {
            at: at.as_secs_f64(),
            workload: name.to_owned(),
            wanted: self.wanted,
            ready: self.ready,
            // Where pods are ready, a request without an answer is no longer held but worked at.
            held: Some(if self.ready == 0 { self.open } else { 0 }),
        }
    }

    fn mark_zero(&mut self, now: Duration) {
        if self.is_zero() {
            self.zero_since.get_or_insert(now);
        } else {
            self.zero_since = None;
        }
    }

    /// The first lists of the API server are here.
    pub(super) fn is_watched(&self) -> bool {
        self.is_known && self.has_pods
    }

    /// Nothing is wanted, and nothing is left.
    fn is_zero(&self) -> bool {
        self.is_watched() && self.wanted == 0 && self.replicas == 0 && self.pods.is_empty()
    }
}

impl Board {
    pub(super) fn new(start: Instant, names: Vec<String>) -> Self {
        let states = vec![State::default(); names.len()];
        let moments = Moments {
            list: Vec::new(),
            every: 1,
            seen: 0,
        };
        Self {
            start: RwLock::new(start),
            names,
            states: Mutex::new((states, moments)),
            changed: Notify::new(),
        }
    }

    /// The run begins now: what was told before counts as its first moment.
    pub(super) fn begin(&self) -> Instant {
        let (states, moments) = &mut *self.states.lock();
        let now = Instant::now();
        *self.start.write() = now;
        moments.list.clear();
        for (state, name) in states.iter_mut().zip(&self.names) {
            state.pods.begin();
            state.scaled.clear();
            // By the clock that began before.
            state.told = None;
            state.zero_since = state.is_zero().then_some(Duration::ZERO);
            if state.is_watched() {
                moments.add(state.moment(Duration::ZERO, name));
            }
        }
        now
    }

    /// From the start of the run to `at`.
    pub(super) fn since(&self, at: Instant) -> Duration {
        at.saturating_duration_since(*self.start.read())
    }

    pub(super) fn now(&self) -> Duration {
        self.since(Instant::now())
    }

    /// Changes a workload's state, and remembers the moment if what is to be seen of it changes.
    pub(super) fn change(&self, workload: usize, change: impl FnOnce(&mut State, Duration)) {
        let now = self.now();
        {
            let (states, moments) = &mut *self.states.lock();
            let state = &mut states[workload];
            let before = (state.wanted, state.ready);
            let open_before = state.open;
            change(state, now);
            if before.0 == 0
                && state.wanted > 0
                && state.is_known
                && state.scaled.len() < MOST_SCALES
            {
                state.scaled.push(now);
            }
            state.mark_zero(now);
            // Requests come and go much faster than replicas, of which no change may be left out.
            let is_due = state.told.is_none_or(|told| told + PAUSE <= now);
            let is_changed = before != (state.wanted, state.ready);
            if state.is_watched() && (is_changed || open_before != state.open && is_due) {
                state.told = Some(now);
                moments.add(state.moment(now, &self.names[workload]));
            }
        }
        self.changed.notify_waiters();
    }

    /// What the Deployment says of itself.
    pub(super) fn deployment(&self, workload: usize, wanted: u32, replicas: u32, ready: u32) {
        self.change(workload, |state, _| {
            (state.wanted, state.replicas, state.ready) = (wanted, replicas, ready);
        });
        // Not before: what it had when the watch began is no change.
        let now = self.now();
        {
            let state = &mut self.states.lock().0[workload];
            state.is_known = true;
            state.is_gone = false;
            state.mark_zero(now);
        }
        self.changed.notify_waiters();
    }

    /// A request is under way, until what is returned is dropped.
    pub(super) fn open(&self, workload: usize) -> Open<'_> {
        self.change(workload, |state, _| state.open += 1);
        Open {
            board: self,
            workload,
        }
    }

    pub(super) fn look<T>(&self, workload: usize, look: impl FnOnce(&State) -> T) -> T {
        look(&self.states.lock().0[workload])
    }

    /// Whether a workload has been at zero for so long.
    pub(super) fn is_zero_for(&self, workload: usize, long: Duration) -> bool {
        let now = self.now();
        self.look(workload, |state| {
            state.zero_since.is_some_and(|since| since + long <= now)
        })
    }

    /// The Deployment is no more.
    pub(super) fn gone(&self, workload: usize) {
        self.change(workload, |state, _| {
            (state.wanted, state.replicas, state.ready) = (0, 0, 0);
            state.is_gone = true;
        });
    }

    /// Whether a request of this tool to it is under way.
    pub(super) fn is_open(&self, workload: usize) -> bool {
        self.look(workload, |state| state.open > 0)
    }

    /// Waits until it is so.
    pub(super) async fn until(&self, workload: usize, is_so: impl Fn(&State) -> bool) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.look(workload, &is_so) {
                return;
            }
            changed.await;
        }
    }

    /// Waits until a workload is at zero, or its Deployment is no more.
    pub(super) async fn until_zero(&self, workload: usize) {
        self.until(workload, |state| state.is_gone || state.is_zero())
            .await;
    }

    /// Moments, in order.
    pub(super) fn moments(&self) -> Vec<Moment> {
        self.states.lock().1.list.clone()
    }
}

/// See [`Board::open`].
#[derive(Debug)]
pub(super) struct Open<'a> {
    board: &'a Board,
    workload: usize,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.board.change(self.workload, |state, _| state.open -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board() -> Board {
        let board = Board::new(Instant::now(), vec!["a".into(), "b".into()]);
        board.change(0, |state, _| state.has_pods = true);
        board
    }

    #[test]
    fn moments_are_what_changes_of_a_watched_workload_in_bounded_number() {
        let board = board();
        board.deployment(0, 0, 0, 0);
        board.begin();
        board.deployment(0, 1, 1, 0);
        let open = board.open(0);
        board.deployment(0, 1, 1, 1);
        board.deployment(0, 1, 1, 1);
        drop(open);
        // The second one is not watched.
        drop(board.open(1));
        let told: Vec<_> = board
            .moments()
            .into_iter()
            .map(|moment| (moment.workload, moment.wanted, moment.ready))
            .collect();
        let wanted = [(0, 0), (1, 0), (1, 1)].map(|(a, b)| ("a".to_owned(), a, b));
        assert_eq!(told, wanted);
        assert_eq!(board.look(0, |state| state.scaled.len()), 1);
        for number in 0..u32::try_from(MOST_MOMENTS).unwrap() * 4 {
            board.deployment(0, number % 2, 0, 0);
            drop(board.open(0));
        }
        let count = board.moments().len();
        assert!(
            (MOST_MOMENTS / 2..=MOST_MOMENTS).contains(&count),
            "{count}"
        );
    }

    #[test]
    fn what_was_told_before_the_run_hides_nothing_of_it() {
        // Set-up took a minute.
        let start = Instant::now().checked_sub(Duration::from_mins(1)).unwrap();
        let board = Board::new(start, vec!["a".into()]);
        board.change(0, |state, _| state.has_pods = true);
        board.deployment(0, 1, 0, 0);
        board.deployment(0, 0, 0, 0);
        board.begin();
        let _open = board.open(0);
        assert_eq!(board.moments().last().unwrap().held, Some(1));
    }

    #[test]
    fn zero_is_for_as_long_as_nothing_is_wanted_and_left() {
        let board = board();
        let is_zero = || board.is_zero_for(0, Duration::ZERO);
        board.deployment(0, 0, 0, 0);
        assert!(is_zero() && !board.is_zero_for(0, Duration::from_mins(1)));
        board.deployment(0, 1, 0, 0);
        assert!(!is_zero());
        board.gone(0);
        assert!(board.look(0, |state| state.is_gone));
    }

    #[tokio::test]
    async fn whoever_waits_for_zero_is_told() {
        let board = board();
        board.deployment(0, 1, 1, 1);
        tokio::join!(board.until_zero(0), async {
            tokio::task::yield_now().await;
            board.deployment(0, 0, 0, 0);
        });
        assert!(board.is_zero_for(0, Duration::ZERO));
    }
}
