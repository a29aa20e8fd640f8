//! The pods of a simulated workload, and what each is doing.

use std::collections::VecDeque;
use std::time::Duration;

use rand::RngExt as _;

use super::dice::{Dice, Purpose, dice};
use super::scenarios::Scenario;
use crate::Moment;

/// How long the kubelet waits before it starts a container again that ended, at first; doubled each time.
/// Source: `MaxContainerBackOff` and its base in `pkg/kubelet/kubelet.go` of Kubernetes.
const BACK_OFF: Duration = Duration::from_secs(10);
/// The longest such wait.
const MAX_BACK_OFF: Duration = Duration::from_mins(5);

/// A request by its number, in the order of arrival.
pub(super) type Request = usize;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Starting,
    /// Its container ended, and waits to be started again.
    Failed,
    Ready,
    /// Told to go, and still at work.
    Draining,
    Gone,
}

/// What comes of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) takes: Duration,
    pub(super) fails: bool,
}

#[derive(Debug)]
pub(super) struct Pod {
    pub(super) state: State,
    /// When this life of its container began.
    pub(super) since: Moment,
    pub(super) busy: u32,
    /// Requests that it has taken and does not work on yet.
    pub(super) queue: VecDeque<Request>,
    dice: Dice,
    failures: u32,
}

impl Pod {
    /// What comes of the start that begins now.
    pub(super) fn start(&mut self, scenario: &Scenario) -> Start {
        let since = self.since - Moment::EPOCH;
        let slow = scenario.slow_starts;
        let slow = slow.filter(|slow| (slow.from..slow.until).contains(&since));
        let takes = scenario.start.draw(&mut self.dice);
        Start {
            takes: takes.mul_f64(slow.map_or(1.0, |slow| slow.factor.clamp(0.0, 1000.0))),
            fails: self.dice.random::<f64>() < scenario.start_failures,
        }
    }

    /// It failed: how long it waits for another try.
    pub(super) fn fail(&mut self) -> Duration {
        let wait = BACK_OFF.saturating_mul(1 << self.failures.min(5));
        self.failures += 1;
        self.state = State::Failed;
        wait.min(MAX_BACK_OFF)
    }

    /// Requests in it.
    pub(super) fn load(&self) -> usize {
        self.queue.len() + usize::try_from(self.busy).unwrap_or(usize::MAX)
    }
}

/// All pods that ever were, by number.
#[derive(Debug, Default)]
pub(super) struct Pods {
    all: Vec<Pod>,
    /// Those that are not gone, oldest first.
    present: Vec<usize>,
}

impl Pods {
    pub(super) fn get(&mut self, number: usize) -> &mut Pod {
        &mut self.all[number]
    }

    /// Adds one that starts at `now`; the n-th pod of a seed has the same fate under every policy.
    pub(super) fn add(&mut self, now: Moment, seed: u64) -> usize {
        let number = self.all.len();
        self.all.push(Pod {
            state: State::Starting,
            since: now,
            busy: 0,
            queue: VecDeque::new(),
            dice: dice(seed, Purpose::Pod, number as u64),
            failures: 0,
        });
        self.present.push(number);
        number
    }

    /// Those that are not gone, oldest first.
    pub(super) fn present(&self) -> impl DoubleEndedIterator<Item = (usize, &Pod)> {
        self.present
            .iter()
            .map(|&number| (number, &self.all[number]))
    }

    pub(super) fn count(&self, state: State) -> usize {
        self.present().filter(|(_, pod)| pod.state == state).count()
    }

    /// Those that count as replicas.
    pub(super) fn replicas(&self) -> usize {
        self.present.len() - self.count(State::Draining)
    }

    /// The pod that a smaller scale takes: one that is not ready before one that is, and of those the youngest.
    /// Source: `ActivePodsWithRanks` in `pkg/controller/controller_utils.go` of Kubernetes.
    pub(super) fn victim(&self) -> Option<usize> {
        let rank = |pod: &Pod| match pod.state {
            State::Failed => Some(0),
            State::Starting => Some(1),
            State::Ready => Some(2),
            State::Draining | State::Gone => None,
        };
        let ranked = self.present().rev();
        let ranked = ranked.filter_map(|(number, pod)| Some((rank(pod)?, number)));
        ranked
            .min_by_key(|(rank, _)| *rank)
            .map(|(_, number)| number)
    }

    /// Takes one away: at once if it has nothing to do, else when it is done.
    pub(super) fn remove(&mut self, number: usize) {
        let pod = &mut self.all[number];
        if pod.load() > 0 {
            pod.state = State::Draining;
        } else {
            pod.state = State::Gone;
            self.present.retain(|one| *one != number);
        }
    }

    /// The ready pod with the fewest requests that has one of `places` free.
    pub(super) fn free(&self, places: u32) -> Option<usize> {
        let free = self
            .present()
            .filter(|(_, pod)| pod.state == State::Ready && pod.busy < places);
        free.min_by_key(|(_, pod)| pod.busy)
            .map(|(number, _)| number)
    }

    /// One of two ready pods drawn by lot, the one with fewer requests: how requests find pods without a limit.
    pub(super) fn draw(&self, dice: &mut Dice) -> Option<usize> {
        let ready: Vec<usize> = self
            .present()
            .filter(|(_, pod)| pod.state == State::Ready)
            .map(|(number, _)| number)
            .collect();
        if ready.is_empty() {
            return None;
        }
        let mut one = || ready[dice.random_range(0..ready.len())];
        let (first, second) = (one(), one());
        let lighter = self.all[first].load() <= self.all[second].load();
        Some(if lighter { first } else { second })
    }
}
