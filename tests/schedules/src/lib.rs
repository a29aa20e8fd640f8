//! Locks and channels whose order shuttle decides, so that a test can go through many orders of the same events.
//!
//! A crate whose hand-overs are to be checked takes its mutex and its one-shot channel from a private module `sync`: in its unit
//! tests from here, in every other build from `parking_lot` and `tokio`. What is here is those very types; only inside of
//! [`explore`] there is, before each operation on one of them, a moment at which shuttle may let somebody else go first. Outside
//! of it (any other test) they behave as they always do.
//!
//! What it does not see: orderings weaker than sequential consistency, and whatever happens inside of the channel or the lock.
//! Those are tokio's and `parking_lot`'s to check, and they do.

use std::{cell::Cell, env, fmt, ops, time::Duration};

use shuttle::{
    Config, Runner,
    scheduler::{PctScheduler, RandomScheduler, Scheduler},
};

pub mod oneshot;

/// How many orders of each scenario are tried, unless `ROUSE_SCHEDULES` says how many.
const USUAL: usize = 2_000;
/// Changes of priority in an order of the second kind: most races need no more than three steps in the wrong order.
const DEPTH: usize = 3;

thread_local! {
    /// shuttle runs all tasks of a scenario on the thread that asked for it.
    static EXPLORING: Cell<bool> = const { Cell::new(false) };
}

/// What somebody does who has to wait for a hand-over.
#[derive(Clone, Copy, Debug)]
pub enum Patience {
    /// Goes at once, without having looked.
    None,
    /// Looks once and goes: perhaps with what has just come.
    OneLook,
    /// Stays.
    Endless,
}

/// Runs `scenario` in many orders, half of them random, half of them with random priorities. It starts tasks with
/// `shuttle::thread` and `shuttle::future`; that all of them wait for something for ever fails, too.
///
/// A failure prints the order, which `shuttle::replay` runs again.
///
/// # Panics
/// If the scenario does in any of the orders.
pub fn explore(scenario: impl Fn() + Send + Sync + Copy + 'static) {
    let wanted = env::var("ROUSE_SCHEDULES").ok();
    let wanted = wanted.and_then(|n| n.parse().ok()).unwrap_or(USUAL);
    let each = (wanted / 2).max(1);
    run(RandomScheduler::new(each), scenario);
    run(PctScheduler::new(DEPTH, each), scenario);
}

fn run(scheduler: impl Scheduler + 'static, scenario: impl Fn() + Send + Sync + 'static) {
    EXPLORING.set(true);
    let reset = Reset;
    Runner::new(scheduler, Config::default()).run(scenario);
    drop(reset);
}

/// Also if it panics.
struct Reset;

impl Drop for Reset {
    fn drop(&mut self) {
        EXPLORING.set(false);
    }
}

fn exploring() -> bool {
    EXPLORING.get() && !std::thread::panicking()
}

/// A moment at which somebody else may go first.
pub fn point() {
    if exploring() {
        // Not a yield, by which a task says that it should rather not be the next.
        shuttle::thread::sleep(Duration::ZERO);
    }
}

/// A [`parking_lot::Mutex`] which shuttle knows about.
pub struct Mutex<T> {
    /// Who may have the other one.
    turn: Option<shuttle::sync::Mutex<()>>,
    value: parking_lot::Mutex<T>,
}

/// Access to what a [`Mutex`] protects.
#[must_use]
pub struct MutexGuard<'a, T> {
    // Given back in this order.
    value: parking_lot::MutexGuard<'a, T>,
    _turn: Option<shuttle::sync::MutexGuard<'a, ()>>,
}

impl<T> Mutex<T> {
    /// Protects `value`.
    pub fn new(value: T) -> Self {
        Self {
            turn: exploring().then(|| shuttle::sync::Mutex::new(())),
            value: parking_lot::Mutex::new(value),
        }
    }

    /// Waits until nobody else has access.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        // Poisoning means that the test has failed already.
        let turn = self.turn.as_ref().filter(|_| exploring());
        let turn = turn.and_then(|turn| turn.lock().ok());
        MutexGuard {
            value: self.value.lock(),
            _turn: turn,
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

impl<T: fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

impl<T> ops::Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> ops::DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}
