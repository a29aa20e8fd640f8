//! The scale-down delay: the largest count wanted within the last so many seconds.
//!
//! Time is cut into slots of two seconds, one per regular decision. Source: `pkg/autoscaler/aggregation/max/*.go`.

use std::collections::VecDeque;
use std::time::Duration;

use crate::{Moment, Replicas};

/// Length of a slot in seconds: Knative decides every two seconds. Source: `pkg/autoscaler/scaling/autoscaler.go`.
const SLOT_SECS: u64 = 2;

/// A sliding maximum of wanted replicas.
///
/// Entries fall in value from the oldest to the newest: what is older and not larger than a newer entry can never be the
/// maximum again. So memory is bounded by the distinct steps down within the delay.
#[derive(Clone, Debug)]
pub struct DelayWindow {
    slots: u64,
    entries: VecDeque<(u64, Replicas)>,
}

impl DelayWindow {
    /// An empty window; a delay of zero holds nothing back.
    pub fn new(delay: Duration) -> Self {
        Self {
            slots: slot_count(delay),
            entries: VecDeque::new(),
        }
    }

    /// Changes the delay. What was recorded within the old one stays.
    pub fn resize(&mut self, delay: Duration) {
        self.slots = slot_count(delay);
    }

    /// Records what is wanted at `now` and returns the largest count still within the delay.
    pub fn record(&mut self, now: Moment, wanted: Replicas) -> Replicas {
        if self.slots == 0 {
            self.entries.clear();
            return wanted;
        }
        // A clock that went back counts as the newest slot seen.
        let newest = self.entries.back().map_or(0, |&(slot, _)| slot);
        let slot = (now.as_secs() / SLOT_SECS).max(newest);
        while self
            .entries
            .front()
            .is_some_and(|&(old, _)| slot - old >= self.slots)
        {
            self.entries.pop_front();
        }
        while self
            .entries
            .back()
            .is_some_and(|&(_, older)| older <= wanted)
        {
            self.entries.pop_back();
        }
        if self.entries.back().is_none_or(|&(last, _)| last != slot) {
            self.entries.push_back((slot, wanted));
        }
        self.entries.front().map_or(wanted, |&(_, max)| max)
    }
}

fn slot_count(delay: Duration) -> u64 {
    let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
    seconds.div_ceil(SLOT_SECS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(window: &mut DelayWindow, steps: &[(u64, u32)]) -> Vec<u32> {
        steps
            .iter()
            .map(|&(second, count)| {
                window
                    .record(Moment::from_secs(second), Replicas(count))
                    .get()
            })
            .collect()
    }

    #[test]
    fn falls_in_steps_as_each_count_ages() {
        let mut window = DelayWindow::new(Duration::from_mins(5));
        let steps = [
            (540, 4),
            (600, 3),
            (660, 0),
            (838, 0),
            (840, 0),
            (898, 0),
            (900, 0),
            (958, 0),
            (960, 0),
        ];
        assert_eq!(run(&mut window, &steps), [4, 4, 4, 4, 3, 3, 0, 0, 0]);
    }

    #[test]
    fn a_longer_delay_takes_effect_at_once() {
        let mut window = DelayWindow::new(Duration::from_secs(4));
        assert_eq!(run(&mut window, &[(0, 5), (2, 1)]), [5, 5]);
        window.resize(Duration::from_mins(1));
        assert_eq!(run(&mut window, &[(30, 1), (62, 1)]), [5, 1]);
        window.resize(Duration::ZERO);
        assert_eq!(run(&mut window, &[(64, 0)]), [0]);
    }

    #[test]
    fn one_slot_keeps_its_largest_count() {
        let mut window = DelayWindow::new(Duration::from_secs(2));
        assert_eq!(
            run(&mut window, &[(2, 1), (3, 7), (3, 2), (4, 0)]),
            [1, 7, 7, 0]
        );
    }

    #[test]
    fn a_clock_that_goes_back_counts_as_the_newest_slot() {
        let mut window = DelayWindow::new(Duration::from_secs(4));
        assert_eq!(
            run(&mut window, &[(10, 3), (0, 5), (12, 1), (14, 1)]),
            [3, 5, 5, 1]
        );
    }
}
